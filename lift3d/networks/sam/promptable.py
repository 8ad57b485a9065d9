"""Segment with a network like SAM: an image is encoded once, then prompted many times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor
from torch.nn.functional import interpolate, pad

from lift3d.networks.sam.automatic import (
    AutomaticConfig,
    Crop,
    boxes_of,
    cleaned,
    crops,
    cut_off,
    point_grid,
    suppressed,
)
from lift3d.networks.sam.embeddings import Embedding, EmbeddingCache, EmbeddingConfig
from lift3d.scene import Image, Masks, Prompt, View
from lift3d.scene.errors import InputError
from lift3d.scene.protocols import Segmenter
from lift3d.scene.sources import code_of

PROMPT_LOGIT = 10.0
"""Logit of a pixel of a mask prompt, the value of SAM 2."""
FLOATS = 2**26
"""Logits enlarged to image size at a time: 256 MB."""


class PromptBatch(NamedTuple):
    """Prompts of one kind, in pixels of the network's square, on its device."""

    points: Float[Tensor, "prompts points 2"]
    """May have 0 points where there is a box or a mask."""
    labels: Int64[Tensor, "prompts points"]
    """1 on the object, 0 not on it."""
    boxes: Float[Tensor, "prompts 4"] | None
    masks: Float[Tensor, "prompts 1 side side"] | None
    """Logits, `mask_side` pixels square."""


@runtime_checkable
class Network(Protocol):
    """The part of a segmenter that depends on the network."""

    device: torch.device
    mask_side: int
    """Side of its mask prompts in pixels."""

    def identity(self) -> str:
        """A text that differs for other weights or another preparation of images."""
        ...

    def encode(self, image: Image) -> Embedding:
        """The embedding of an image."""
        ...

    def decode(
        self, embedding: Embedding, prompts: PromptBatch, several: bool
    ) -> tuple[Float32[Tensor, "prompts masks side side"], Float32[Tensor, "prompts masks"]]:
        """Logits and predicted IoU of the masks: `several` per prompt, or one."""
        ...


class Promptable(Segmenter):
    """A segmenter on a promptable network."""

    def __init__(
        self,
        network: Network,
        automatic: AutomaticConfig,
        embeddings: EmbeddingConfig,
        batch: int | None = None,
    ) -> None:
        """`batch` is the most prompts at a time; None is 64 on a GPU and 16 elsewhere."""
        automatic.check()
        if batch is not None and batch < 1:
            raise InputError(f"prompts at a time is {batch}; it must be 1 or more")
        self.network = network
        self._config = automatic
        self._cache = EmbeddingCache(
            embeddings, lambda: f"{network.identity()} {code_of(type(network))}"
        )
        self._batch = batch or (64 if network.device.type == "cuda" else 16)
        self._last: tuple[View, Embedding] | None = None

    def segment(self, view: View) -> Masks:
        """Automatic masks, which may overlap; the score is the network's predicted IoU."""
        camera, config = view.camera, self._config
        full = self._embedding(view)
        image = view.image() if config.crop_layers else None
        found: list[_Found] = []
        for crop in crops(camera.height, camera.width, config):
            embedding = full
            if image is not None and found:  # the first crop is the full image
                part = np.ascontiguousarray(image[crop.y0 : crop.y1, crop.x0 : crop.x1])
                embedding = self._encoded(part)
            found.append(self._of_crop(embedding, crop, camera.height, camera.width))
        masks = _Found.joined(found)
        if config.crop_layers:
            masks = masks.take(suppressed(masks.boxes, masks.preference, config.max_overlap))
        stack = masks.stack(camera.height, camera.width)
        scores = masks.scores
        if config.smallest > 0 and len(stack):
            least = config.smallest * camera.height * camera.width
            clean = np.stack([cleaned(mask, least) for mask in stack])
            # Prefer unchanged masks to those that equal them after cleaning.
            same = (clean == stack).all((1, 2)).astype(np.float64)
            kept = suppressed(boxes_of(clean), same, config.max_overlap)
            stack, scores = clean[kept], scores[kept]
        return Masks(stack, np.clip(scores, 0, 1).astype(np.float32))

    def prompt(self, view: View, prompts: Sequence[Prompt]) -> Masks:
        """One mask per prompt, independent of the other prompts.

        A single point is ambiguous: the best of several masks is taken. For other prompts the
        network predicts one mask. A prompt without a positive point, a box or a mask gets an
        empty mask with score 0.
        """
        shape = (len(prompts), view.camera.height, view.camera.width)
        stack, scores = np.zeros(shape, bool), np.zeros(len(prompts), np.float32)
        wanted = [index for index, prompt in enumerate(prompts) if _has_object(prompt)]
        if not wanted:
            return Masks(stack, scores)
        embedding = self._embedding(view)
        valid = [prompts[index] for index in wanted]
        several = [_ambiguous(prompt) for prompt in valid]
        for places, logits, quality in self._predicted(embedding, valid, several):
            best = quality.argmax(1)
            row = torch.arange(len(best), device=best.device)
            at = np.array(wanted)[places]
            stack[at] = self._binary(logits[row, best], embedding)
            scores[at] = quality[row, best].clamp(0, 1).cpu().numpy()
        return Masks(stack, scores)

    def alternatives(self, view: View, prompt: Prompt) -> Masks:
        """The network's several masks (SAM: subpart, part, whole object), small to large, with
        its scores. Empty for a prompt without a positive point, a box or a mask.
        """
        if not _has_object(prompt):
            shape = (0, view.camera.height, view.camera.width)
            return Masks(np.zeros(shape, bool), np.zeros(0, np.float32))
        embedding = self._embedding(view)
        ((_, logits, quality),) = self._predicted(embedding, [prompt], [True])
        stack = self._binary(logits[0], embedding)
        order = np.argsort(stack.sum((1, 2)), kind="stable")
        return Masks(stack[order], quality[0].clamp(0, 1).cpu().numpy()[order])

    def features(self, view: View) -> Float32[np.ndarray, "rows columns channels"]:
        """The image embedding on its regular grid over the image, without padding.

        The same embedding as for masks and prompts; where it has several maps, the coarsest.
        """
        embedding = self._embedding(view)
        tensors = embedding.tensors
        name = "image" if "image" in tensors else max(n for n in tensors if n.startswith("image"))
        grid = tensors[name][0].detach().float().cpu().numpy().transpose(1, 2, 0)
        rows, columns = (
            max(1, round(cells * inside / embedding.side))
            for cells, inside in zip(grid.shape[:2], embedding.fitted, strict=True)
        )
        return np.array(grid[:rows, :columns], order="C")  # a copy: the embedding is cached

    def prepared(self, view: View) -> Embedding:
        """The view's embedding, in main memory."""
        return self._embedding(view).on("cpu")

    def use_prepared(self, view: View, prepared: Embedding) -> None:
        """Keep the view's embedding for prompts."""
        self._last = (view, prepared.on(self.network.device))

    def _embedding(self, view: View) -> Embedding:
        if self._last is None or self._last[0] is not view:
            self._last = (view, self._encoded(view.image()))
        return self._last[1]

    def _encoded(self, image: Image) -> Embedding:
        return self._cache.get(image, self.network.encode, self.network.device)

    def _predicted(
        self, embedding: Embedding, prompts: Sequence[Prompt], several: Sequence[bool]
    ) -> Iterator[tuple[Int64[np.ndarray, " batch"], Tensor, Tensor]]:
        """Indices of the prompts of each batch, their logits and the network's scores.

        Only prompts of one kind share a batch: padding to one length would add tokens, and a
        prompt's mask would depend on the other prompts.
        """
        kinds: dict[tuple[int, bool, bool, bool], list[int]] = {}
        for index, (prompt, more) in enumerate(zip(prompts, several, strict=True)):
            kind = (len(prompt.xy), prompt.box is not None, _has_mask(prompt), more)
            kinds.setdefault(kind, []).append(index)
        for (_, _, _, more), members in kinds.items():
            for start in range(0, len(members), self._batch):
                places = members[start : start + self._batch]
                batch = self._prompt_batch(embedding, [prompts[index] for index in places])
                with torch.inference_mode():
                    logits, quality = self.network.decode(embedding, batch, more)
                yield np.array(places), logits, quality

    def _prompt_batch(self, embedding: Embedding, prompts: Sequence[Prompt]) -> PromptBatch:
        """Prompts of one kind; coordinates are scaled as in SAM's predictor."""
        height, width = embedding.fitted
        scale = np.array([width / embedding.width, height / embedding.height])
        device = self.network.device

        def tensor(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array.astype(np.float32)).to(device)

        points = tensor(np.stack([prompt.xy for prompt in prompts]) * scale)
        positive = np.stack([prompt.positive for prompt in prompts]).astype(np.int64)
        boxes = [prompt.box for prompt in prompts if prompt.box is not None]
        masks = [prompt.mask for prompt in prompts if prompt.mask is not None and _has_mask(prompt)]
        return PromptBatch(
            points,
            torch.from_numpy(positive).to(device),
            tensor(np.stack(boxes) * np.tile(scale, 2)) if boxes else None,
            self._as_logits(np.stack(masks), embedding) if masks else None,
        )

    def _as_logits(
        self, stack: Bool[np.ndarray, "prompts height width"], embedding: Embedding
    ) -> Float32[Tensor, "prompts 1 side side"]:
        """Masks as low-resolution logits; padding is background."""
        side = self.network.mask_side
        inside = [max(1, round(size * side / embedding.side)) for size in embedding.fitted]
        share = torch.from_numpy(stack).to(self.network.device, torch.float32)[:, None]
        share = interpolate(share, inside, mode="bilinear", antialias=True)
        share = pad(share, (0, side - inside[1], 0, side - inside[0]))
        return (2 * share - 1) * PROMPT_LOGIT

    def _enlarged(
        self, logits: Float32[Tensor, "masks side side"], embedding: Embedding
    ) -> Iterator[Float32[Tensor, "some height width"]]:
        """The logits at image size, some at a time."""
        size = (embedding.height, embedding.width)
        some = max(1, FLOATS // max(size[0] * size[1], embedding.side**2))
        for part in logits.split(some):
            large = part[:, None].float()
            if embedding.padded is not None:
                large = interpolate(large, [embedding.side] * 2, mode="bilinear")
                large = large[..., : embedding.padded[0], : embedding.padded[1]]
            yield interpolate(large, size, mode="bilinear")[:, 0]

    def _binary(
        self, logits: Float32[Tensor, "masks side side"], embedding: Embedding
    ) -> Bool[np.ndarray, "masks height width"]:
        parts = [(each > 0).cpu().numpy() for each in self._enlarged(logits, embedding)]
        return np.concatenate(parts)

    def _of_crop(self, embedding: Embedding, crop: Crop, height: int, width: int) -> _Found:
        """The automatic masks of one crop without duplicates; boxes are in the full image."""
        config = self._config
        positive = np.array([True])
        prompts = [Prompt(xy[None], positive) for xy in point_grid(crop)]
        found = [_Found.none()]
        for _, logits, quality in self._predicted(embedding, prompts, [True] * len(prompts)):
            good = quality > config.min_score
            scores = quality[good].cpu().numpy().astype(np.float64)
            for large in self._enlarged(logits[good], embedding):
                own, scores = scores[: len(large)], scores[len(large) :]
                stable = _stability(large, config.stability_offset) >= config.min_stability
                stable &= (large > 0).any(-1).any(-1)
                stack = (large[stable] > 0).cpu().numpy()
                kept = own[stable.cpu().numpy()]
                boxes = boxes_of(stack) + np.array([crop.x0, crop.y0, crop.x0, crop.y0])
                complete = ~cut_off(boxes, crop, height, width)
                found.append(_Found.of(stack[complete], boxes[complete], kept[complete], crop))
        masks = _Found.joined(found)
        return masks.take(suppressed(masks.boxes, masks.scores, config.max_overlap))


class _Found(NamedTuple):
    """Automatic masks, packed eight pixels per byte: there are thousands before suppression."""

    packed: tuple[np.ndarray, ...]
    crop: tuple[Crop, ...]
    boxes: Int64[np.ndarray, "masks 4"]
    scores: Float64[np.ndarray, " masks"]

    @staticmethod
    def none() -> _Found:
        return _Found((), (), np.zeros((0, 4), np.int64), np.zeros(0))

    @staticmethod
    def of(stack: np.ndarray, boxes: np.ndarray, scores: np.ndarray, crop: Crop) -> _Found:
        return _Found(tuple(map(np.packbits, stack)), (crop,) * len(stack), boxes, scores)

    @staticmethod
    def joined(parts: Sequence[_Found]) -> _Found:
        packed = tuple(each for part in parts for each in part.packed)
        crop = tuple(each for part in parts for each in part.crop)
        boxes = np.concatenate([part.boxes for part in parts])
        return _Found(packed, crop, boxes, np.concatenate([part.scores for part in parts]))

    def take(self, index: Int64[np.ndarray, " kept"]) -> _Found:
        packed = tuple(self.packed[each] for each in index)
        crop = tuple(self.crop[each] for each in index)
        return _Found(packed, crop, self.boxes[index], self.scores[index])

    @property
    def preference(self) -> Float64[np.ndarray, " masks"]:
        """Scores that prefer masks from smaller crops, where the object was larger."""
        return np.array([1 / ((c.x1 - c.x0) * (c.y1 - c.y0)) for c in self.crop], np.float64)

    def stack(self, height: int, width: int) -> Bool[np.ndarray, "masks height width"]:
        """The masks in the full image."""
        stack = np.zeros((len(self.packed), height, width), bool)
        for mask, packed, crop in zip(stack, self.packed, self.crop, strict=True):
            shape = (crop.y1 - crop.y0, crop.x1 - crop.x0)
            pixels = np.unpackbits(packed, count=shape[0] * shape[1]).astype(bool)
            mask[crop.y0 : crop.y1, crop.x0 : crop.x1] = pixels.reshape(shape)
        return stack


def _stability(logits: Float32[Tensor, "masks height width"], offset: float) -> Tensor:
    """IoU of the masks at thresholds +offset and -offset; the second contains the first."""
    high = (logits > offset).sum((-2, -1))
    return high / (logits > -offset).sum((-2, -1))


def _has_object(prompt: Prompt) -> bool:
    """Whether the prompt has a positive point, a box or a mask."""
    return bool(prompt.positive.any()) or prompt.box is not None or _has_mask(prompt)


def _has_mask(prompt: Prompt) -> bool:
    """Whether the prompt has a mask with at least one pixel."""
    return prompt.mask is not None and bool(prompt.mask.any())


def _ambiguous(prompt: Prompt) -> bool:
    """Whether the prompt is a single point, which may mean a subpart, a part or an object."""
    return len(prompt.xy) == 1 and prompt.box is None and not _has_mask(prompt)


def weights_identity(model: torch.nn.Module) -> str:
    """A hash of all weights and their names."""
    import hashlib

    content = hashlib.blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        content.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        content.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return content.hexdigest()
