"""The SAM family of the `transformers` library: SAM, SAM 2, HQ-SAM, SAM 3's tracker and others."""

from __future__ import annotations

import logging
from typing import Any

from lift3d.networks import Precision
from lift3d.networks.pretrained import ADVICE, pretrained, quiet
from lift3d.networks.sam.embeddings import Embedding
from lift3d.scene import Image
from lift3d.scene.errors import InputError
from lift3d.scene.guarded import reading

log = logging.getLogger(__name__)


class TransformersNetwork:
    """The models of the family as a `promptable.Network`.

    They differ in the form of the image embedding (a tensor, a list by resolution, a pair) and
    in the placement of the image in the square (padded or stretched); prompts are the same.
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
        self._checkpoint = checkpoint
        with reading(checkpoint, "a model that is prompted as SAM is", advice=ADVICE):
            self.side: int = model.prompt_encoder.input_image_size
            self.mask_side: int = 4 * model.prompt_encoder.image_embedding_size[0]
        self._precision = precision

    def identity(self) -> str:
        """A text with the hash of the weights, the image processor, precision and device type."""
        from lift3d.networks.sam.promptable import weights_identity

        parts = weights_identity(self.model), self.processor.to_json_string(), self._precision
        return " ".join(["sam-hf", *parts, self.device.type])

    def encode(self, image: Image) -> Embedding:
        """The embedding of the image, prepared by the model's own processor."""
        import torch

        from lift3d.networks.device import encoder_precision

        with (
            reading(self._checkpoint, "a model with its own image processor", advice=ADVICE),
            torch.inference_mode(),
            encoder_precision(self._precision, self.device),
        ):
            prepared = self.processor(image, return_tensors="pt")
            encoded = self.model.get_image_embeddings(prepared["pixel_values"].to(self.device))
        if isinstance(encoded, tuple):  # HQ-SAM, which uses the first of the encoder's inner layers
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

    def decode(self, embedding: Embedding, prompts: Any, several: bool) -> tuple[Any, Any]:
        """Masks and scores for all prompts."""
        return predict(self.model, embedding, prompts, several)


def predict(model: Any, embedding: Embedding, batch: Any, several: bool) -> tuple[Any, Any]:
    """Masks and scores for a `PromptBatch`, in one call of a model of the family.

    Prompts of one image are along the second axis. Mask prompts have no such axis, so prompts
    with masks are along the first, as if each had its own image.
    """
    count, points = batch.points.shape[:2]
    separate = batch.masks is not None

    def along(tensor: Any) -> Any:
        return tensor[:, None] if separate else tensor[None]

    prompts: dict[str, Any] = {"input_masks": batch.masks}
    if points:
        prompts |= {
            "input_points": along(batch.points),
            "input_labels": along(batch.labels.int()),
        }
    if batch.boxes is not None:
        prompts["input_boxes"] = along(batch.boxes)
    images = {
        name: each.float().expand(count if separate else 1, *each.shape[1:])
        for name, each in embedding.tensors.items()
    }
    inner = images.pop("inner", None)
    if inner is not None:
        prompts["intermediate_embeddings"] = [inner]
    if "image" in images:
        prompts["image_embeddings"] = images["image"]
    else:
        prompts["image_embeddings"] = [images[f"image{i}"] for i in range(len(images))]
    output = model(**prompts, multimask_output=several)
    return output.pred_masks.flatten(0, 1), output.iou_scores.flatten(0, 1)


def load(checkpoint: str, local_files_only: bool) -> tuple[Any, Any]:
    """The model in float32 on the CPU, and its image processor.

    Raises InputError where there is no such model, or it is not like SAM.
    """
    import torch
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForMaskGeneration
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASK_GENERATION_MAPPING_NAMES

    config = pretrained(AutoConfig, checkpoint, local_files_only)
    known = MODEL_FOR_MASK_GENERATION_MAPPING_NAMES
    if config.model_type not in known:
        raise InputError(
            f"{checkpoint}: a {config.model_type!r} model, which is not prompted as SAM is "
            f"(known: {', '.join(sorted(known))})"
        )
    with quiet():
        model, report = pretrained(
            AutoModelForMaskGeneration,
            checkpoint,
            local_files_only,
            dtype=torch.float32,
            output_loading_info=True,
        )
    processor = pretrained(AutoImageProcessor, checkpoint, local_files_only)
    missing, unused = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    if missing:
        raise InputError(
            f"{checkpoint}: {missing[0]} is missing, {len(missing)} weights are missing; the "
            f"weights and config.json ({config.model_type}) do not belong together"
        )
    if unused:
        # Not an error: folders of video models also have a tracker's weights.
        log.warning("%s: %d weights are not used, such as %s", checkpoint, len(unused), unused[0])
    return model.eval().requires_grad_(False), processor
