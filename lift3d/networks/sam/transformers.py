"""The SAM family of the `transformers` library: SAM, SAM 2, HQ-SAM, SAM 3's tracker and kin."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lift3d.networks import Precision
from lift3d.networks.sam.embeddings import Embedding
from lift3d.scene import Image
from lift3d.scene.errors import InputError

log = logging.getLogger(__name__)


class TransformersNetwork:
    """One adapter for the family, as `promptable.Network` wants it.

    They differ in what an image embedding is (a tensor, a list by resolution, a pair) and in
    how the image lies in the square (padded, or stretched); prompts they take alike.
    """

    def __init__(
        self,
        checkpoint: str,
        local_files_only: bool = False,
        device: str = "auto",
        precision: Precision = "auto",
    ) -> None:
        from lift3d.networks.device import choose_device

        self.device = choose_device(device)
        model, self.processor = load(checkpoint, local_files_only)
        self.model = model.to(self.device)
        self.side: int = model.prompt_encoder.input_image_size
        grid: int = model.prompt_encoder.image_embedding_size[0]
        self.mask_side = 4 * grid
        self._precision = precision

    def identity(self) -> str:
        """The weights, the preparation of images, and the precision."""
        from lift3d.networks.sam.promptable import weights_identity

        parts = weights_identity(self.model), self.processor.to_json_string(), self._precision
        return " ".join(["sam-hf", *parts, self.device.type])

    def encode(self, image: Image) -> Embedding:
        """As the model's own processor prepares images."""
        import torch

        from lift3d.networks.device import encoder_precision

        prepared = self.processor(image, return_tensors="pt")
        with torch.inference_mode(), encoder_precision(self._precision, self.device):
            encoded = self.model.get_image_embeddings(prepared["pixel_values"].to(self.device))
        if isinstance(encoded, tuple):  # HQ-SAM; of the encoder's inner layers it uses the first
            tensors = {"image": encoded[0], "inner": encoded[1][0]}
        elif isinstance(encoded, list):  # SAM 2 and later, fine to coarse
            tensors = {f"image{i}": each for i, each in enumerate(encoded)}
        else:
            tensors = {"image": encoded}
        padded = None
        if "reshaped_input_sizes" in prepared:
            height, width = torch.as_tensor(prepared["reshaped_input_sizes"])[0].tolist()
            padded = (height, width)
        return Embedding(tensors, image.shape[0], image.shape[1], self.side, padded)

    def decode(self, embedding: Embedding, asked: Any, several: bool) -> tuple[Any, Any]:
        """The model's answers to all prompts in one call."""
        return answers(self.model, embedding, asked, several)


def answers(model: Any, embedding: Embedding, asked: Any, several: bool) -> tuple[Any, Any]:
    """Masks and scores for all prompts, in one call of a model of the family.

    Prompts of one image go along the second axis. Masks have no such axis, so prompts with
    masks go along the first, as if each were of an image of its own.
    """
    count, points = asked.points.shape[:2]
    apart = asked.masks is not None

    def along(tensor: Any) -> Any:
        return tensor[:, None] if apart else tensor[None]

    prompts: dict[str, Any] = {"input_masks": asked.masks}
    if points:
        prompts |= {
            "input_points": along(asked.points),
            "input_labels": along(asked.labels.int()),
        }
    if asked.boxes is not None:
        prompts["input_boxes"] = along(asked.boxes)
    images = {
        name: each.float().expand(count if apart else 1, *each.shape[1:])
        for name, each in embedding.tensors.items()
    }
    inner = images.pop("inner", None)
    if inner is not None:
        prompts["intermediate_embeddings"] = [inner]
    if "image" in images:
        prompts["image_embeddings"] = images["image"]
    else:
        prompts["image_embeddings"] = [images[f"image{i}"] for i in range(len(images))]
    answer = model(**prompts, multimask_output=several)
    return answer.pred_masks.flatten(0, 1), answer.iou_scores.flatten(0, 1)


def load(checkpoint: str, local_files_only: bool) -> tuple[Any, Any]:
    """The model in float32 on the CPU, and what prepares its images.

    Raises InputError where there is none of that name, or it is not of SAM's kind.
    """
    import torch
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForMaskGeneration
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASK_GENERATION_MAPPING_NAMES

    where = str(Path(checkpoint).expanduser())
    source = where if Path(where).exists() else checkpoint
    options: dict[str, Any] = {"local_files_only": local_files_only}
    try:
        config = AutoConfig.from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{checkpoint}: no model of transformers there ({_first_line(error)}); give a folder "
            "with config.json and weights, or the name of one on the Hugging Face hub"
        ) from error
    known = MODEL_FOR_MASK_GENERATION_MAPPING_NAMES
    if config.model_type not in known:
        raise InputError(
            f"{checkpoint}: a {config.model_type!r} model, which is not asked as SAM is "
            f"(known: {', '.join(sorted(known))})"
        )
    try:
        with _quiet():
            model, report = AutoModelForMaskGeneration.from_pretrained(
                source, **options, dtype=torch.float32, output_loading_info=True
            )
        processor = AutoImageProcessor.from_pretrained(source, **options)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{checkpoint}: a {config.model_type} model that cannot be loaded "
            f"({_first_line(error)}); download it again, with config.json, "
            "preprocessor_config.json and the weights"
        ) from error
    missing, unused = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    if missing:
        raise InputError(
            f"{checkpoint}: {missing[0]} is missing, {len(missing)} weights are missing; the "
            f"weights and config.json ({config.model_type}) do not belong together"
        )
    if unused:
        # No error: folders of video models hold a tracker's weights as well.
        log.warning("%s: %d weights are not used, such as %s", checkpoint, len(unused), unused[0])
    return model.eval().requires_grad_(False), processor


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _quiet() -> Any:
    """Without transformers' own progress bar and report while weights are read."""
    import contextlib

    from transformers.utils import logging

    @contextlib.contextmanager
    def quiet() -> Any:
        before = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(before[0])
            if before[1]:
                logging.enable_progress_bar()

    return quiet()
