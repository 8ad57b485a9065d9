"""Classes by name: CLIP and SigLIP compare pictures of objects, or features, with text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from lift3d.networks.pretrained import pretrained
from lift3d.scene import Image, LabelMap, Masks
from lift3d.scene.errors import InputError, MissingExtra
from lift3d.scene.fingerprint import NAMES_A_FILE
from lift3d.scene.overlap import paint

Units: TypeAlias = Float32[np.ndarray, "n channels"]
"""Rows of length 1."""
Cut: TypeAlias = UInt8[np.ndarray, "_ _ 3"]
"""A picture of any size."""


@dataclass(frozen=True)
class TextConfig:
    """A CLIP or SigLIP of the `transformers` library."""

    checkpoint: str = field(metadata=NAMES_A_FILE)
    """A folder with config, tokenizer, image processor and weights, or a name on the Hugging
    Face hub such as google/siglip-base-patch16-224."""
    templates: tuple[str, ...] = ("a photo of a {}.", "a {} in a room.")
    """Sentences with the name; their mean embedding is used."""
    margin: float = 0.1
    """Margin around an object's box in its picture, as a share of the box."""
    batch: int = 32
    """Pictures or texts at a time."""
    local_files_only: bool = False
    """Download nothing: the model must be in the hub's cache."""
    device: str = "auto"
    """'cpu', 'cuda', ...; auto takes a GPU where there is one."""

    def build(self) -> TextScorer:
        """The scorer; MissingExtra without the libraries, InputError for other models."""
        try:
            import torch  # noqa: F401 - is it there?
            import transformers
        except ImportError as error:
            raise MissingExtra(
                f"scoring by text needs {error.name}, which is not installed: "
                "pip install 'lift3d[sam]'"
            ) from error
        model, tokenizer, pictures = (
            pretrained(kind, self.checkpoint, self.local_files_only)
            for kind in (
                transformers.AutoModel,
                transformers.AutoTokenizer,
                transformers.AutoImageProcessor,
            )
        )
        if not (hasattr(model, "get_text_features") and hasattr(model, "get_image_features")):
            raise InputError(
                f"{self.checkpoint} is a {type(model).__name__}; expected a CLIP or SigLIP, which "
                "has features of both pictures and texts"
            )
        from lift3d.networks.device import choose_device  # late: it imports torch

        device = choose_device(self.device)
        return TextScorer(self, model.eval().to(device), tokenizer, pictures)


class TextScorer:
    """Embeds pictures and names in one space."""

    def __init__(self, config: TextConfig, model: Any, tokenizer: Any, pictures: Any) -> None:
        self._config, self._model = config, model
        self._tokenizer, self._pictures = tokenizer, pictures
        # SigLIP was trained on texts padded to one length.
        self._padding = "max_length" if "siglip" in model.config.model_type else True

    def names(self, names: Sequence[str]) -> Units:
        """One row per name: the mean over the templates, of length 1."""
        import torch

        if not names:
            raise InputError("no names to score against; expected one or more")
        texts = [template.format(name) for name in names for template in self._config.templates]
        longest = getattr(self._model.config.text_config, "max_position_embeddings", 64)
        rows = []
        for begin in range(0, len(texts), self._config.batch):
            tokens = self._tokenizer(
                texts[begin : begin + self._config.batch],
                padding=self._padding,
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            )
            with torch.inference_mode():
                found = self._model.get_text_features(**tokens.to(self._model.device))
            rows.append(_array(found))
        each = _unit(np.concatenate(rows)).reshape(len(names), len(self._config.templates), -1)
        return _unit(each.mean(1))

    def images(self, images: Sequence[Cut]) -> Units:
        """One row per picture, of length 1."""
        import torch

        if not images:  # a view may have no masks; a name shows how many channels there are
            return self.names(["nothing"])[:0]
        rows = []
        for begin in range(0, len(images), self._config.batch):
            some = [
                np.ascontiguousarray(each) for each in images[begin : begin + self._config.batch]
            ]
            batch = self._pictures(images=some, return_tensors="pt").to(self._model.device)
            with torch.inference_mode():
                rows.append(_array(self._model.get_image_features(**batch)))
        return _unit(np.concatenate(rows))

    def masks(self, image: Image, masks: Masks) -> Units:
        """One row per mask: the picture cropped to its box with a margin."""
        return self.images([_cut(image, mask, self._config.margin) for mask in masks.stack])


def classify(
    features: Float32[np.ndarray, "n channels"],
    names: Float32[np.ndarray, "names channels"],
    ids: Sequence[int],
    min_cosine: float = -1.0,
) -> tuple[Int32[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    """The id of the nearest name for each row (mask or point), and the cosine with it.

    0 where the row is zero (a point that no view saw) or the cosine is below `min_cosine`. A tie
    goes to the first name.
    """
    if len(names) != len(ids):
        raise InputError(f"{len(ids)} ids for {len(names)} names")
    length = np.linalg.norm(features, axis=1)
    label, cosine = np.zeros(len(features), np.int32), np.zeros(len(features), np.float32)
    chosen = np.asarray(ids, np.int32)
    for begin in range(0, len(features), 1 << 16):
        some = slice(begin, begin + (1 << 16))
        scores = features[some] @ names.T
        best = scores.argmax(1)
        cosine[some] = scores[np.arange(len(best)), best] / np.where(
            length[some] > 0, length[some], 1
        )
        label[some] = chosen[best]
    known = (length > 0) & (cosine >= min_cosine)
    return np.where(known, label, 0).astype(np.int32), np.where(known, cosine, 0).astype(np.float32)


def painted(masks: Masks, label: Int32[np.ndarray, " masks"]) -> LabelMap:
    """A class map from masks with a class each, smaller masks on top; input of the voting."""
    table = np.concatenate([[0], label]).astype(np.int32)
    return table[paint(masks.stack)]


def _cut(image: Image, mask: np.ndarray, margin: float) -> Cut:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return image
    top, left = rows[0], columns[0]
    bottom, right = rows[-1] + 1, columns[-1] + 1
    y, x = round(margin * (bottom - top)), round(margin * (right - left))
    return image[max(top - y, 0) : bottom + y, max(left - x, 0) : right + x]


def _array(found: Any) -> Float32[np.ndarray, "n channels"]:
    """Newer versions of the library return an object with the tensor, older ones the tensor."""
    tensor = getattr(found, "pooler_output", found)
    return np.asarray(tensor.float().cpu().numpy(), np.float32)


def _unit(rows: Float32[np.ndarray, "*rows channels"]) -> Float32[np.ndarray, "*rows channels"]:
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return (rows / np.where(length > 0, length, 1)).astype(np.float32)
