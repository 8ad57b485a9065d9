"""MV-SAM: positional codes of 3D points, confidence vectors, and SAM 2's mask decoder."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lift3d.networks.mvsam.pointmaps import Tokens
from lift3d.networks.mvsam.sizes import MvSamConfig

NOTHING, NEGATIVE, POSITIVE, FIRST_CORNER, SECOND_CORNER = -1, 0, 1, 2, 3
"""Kinds of prompt tokens; the last four are SAM's numbers."""


class Features(NamedTuple):
    """The encoder's output for some views."""

    image: Float[Tensor, "views width rows columns"]
    twice: Float[Tensor, "views width rows2 columns2"]
    """At twice the resolution of the tokens."""
    fourfold: Float[Tensor, "views width rows4 columns4"]


class Encoder(Protocol):
    """Images to features."""

    def __call__(self, images: Float[Tensor, "views 3 height width"]) -> Features:
        """The images are normalised as the encoder expects."""
        ...


class PromptTokens(NamedTuple):
    """Prompts of several objects, padded to one number of tokens.

    For all views; or, in training on single views, with a first axis of views, for each its own.
    """

    xyz: Float[Tensor, "*views objects prompts 3"]
    """z-scored; with 2D codes (x, y, 0), pixels from -1 to 1. NaN where unknown."""
    low: Bool[Tensor, "*views objects prompts"]
    kind: Int[Tensor, "*views objects prompts"]
    """One of the constants of this module."""


class Masks(NamedTuple):
    """The decoder's answer."""

    logits: Float[Tensor, "views objects rows4 columns4"]
    iou: Float[Tensor, "views objects"]
    """Predicted IoU; not trained unless the IoU loss has a weight."""
    present: Float[Tensor, "views objects"]
    """Logit of the object being in the view; the same holds."""


class PointCode(nn.Module):
    """PE(p) = [sin(2π Bᵀp), cos(2π Bᵀp)]: SAM's random Fourier features, of 3D points."""

    def __init__(self, width: int, scale: float, learned: bool) -> None:
        super().__init__()
        frequencies = scale * torch.randn(3, width // 2)
        if learned:
            self.frequencies = nn.Parameter(frequencies)
        else:
            self.register_buffer("frequencies", frequencies)

    def forward(self, xyz: Float[Tensor, "*shape 3"]) -> Float[Tensor, "*shape width"]:
        """Zeros for unknown points."""
        known = torch.isfinite(xyz).all(-1, keepdim=True)
        phase = 2 * math.pi * torch.nan_to_num(xyz) @ self.frequencies
        return torch.cat([phase.sin(), phase.cos()], -1) * known


class MvSam(nn.Module):
    """All that is trained; the image encoder is apart."""

    def __init__(self, config: MvSamConfig) -> None:
        from transformers import Sam2MaskDecoderConfig
        from transformers.models.sam2.configuration_sam2 import Sam2PromptEncoderConfig
        from transformers.models.sam2.modeling_sam2 import Sam2MaskDecoder, Sam2MaskEmbedding

        config.check()
        super().__init__()
        self.config = config
        width = config.width
        self.code = PointCode(width, config.scale, config.learned_code)
        self.kinds = nn.Embedding(4, width)
        """Negative, positive, first and second corner."""
        self.nothing = nn.Embedding(1, width)
        self.confidence = nn.Embedding(2, width)
        """High, low."""
        nn.init.zeros_(self.confidence.weight)
        decoder = Sam2MaskDecoderConfig(
            hidden_size=width,
            mlp_dim=config.mlp,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            iou_head_hidden_dim=width,
            # SAM 2 replaces an unstable single mask by one of the three; training does not.
            dynamic_multimask_via_stability=False,
        )
        decoder._attn_implementation = "sdpa"
        self.decoder = Sam2MaskDecoder(decoder)
        self.no_mask = nn.Embedding(1, width)
        prompt = Sam2PromptEncoderConfig(
            hidden_size=width, mask_input_channels=config.mask_channels
        )
        self.mask = Sam2MaskEmbedding(prompt)

    def forward(
        self,
        features: Features,
        tokens: Tokens,
        prompts: PromptTokens,
        masks: Float[Tensor, "views objects rows4 columns4"] | None = None,
        with_masks: Bool[Tensor, "views objects"] | None = None,
    ) -> Masks:
        """Every view against all prompts; views do not see each other.

        `tokens` is on the grid of `features.image`. `masks` are logits of mask prompts,
        `with_masks` where there is one. With 2D codes `tokens.xyz` is ignored.
        """
        views, objects = len(features.image), prompts.kind.shape[-2]
        rows, columns = features.image.shape[-2:]
        place, low = self._places(tokens, rows, columns)
        code = self.code(place).permute(0, 3, 1, 2)
        if self.config.code == "none":
            code = torch.zeros_like(code)
        image = features.image
        if self.config.confidence_vectors:
            image = image + self.confidence(low.long()).permute(0, 3, 1, 2)
        if not self.config.code_in_attention:
            image, code = image + code, torch.zeros_like(code)
        dense = self.no_mask.weight[0, :, None, None].expand(views, objects, -1, rows, columns)
        if masks is not None and with_masks is not None:
            made = self.mask(masks.flatten(0, 1)[:, None]).unflatten(0, (views, objects))
            dense = torch.where(with_masks[..., None, None, None], made, dense)

        def repeated(each: Tensor) -> Tensor:
            return each.repeat_interleave(objects, 0)

        fine = self.decoder.conv_s0(features.fourfold), self.decoder.conv_s1(features.twice)
        if not self.config.high_resolution:
            fine = torch.zeros_like(fine[0]), torch.zeros_like(fine[1])
        sparse = self._prompts(prompts)
        sparse = sparse.expand(views, *sparse.shape[-3:]).flatten(0, 1)[:, None]
        logits, iou, _, present = self.decoder(
            image_embeddings=repeated(image),
            image_positional_embeddings=repeated(code),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense.flatten(0, 1),
            multimask_output=self.config.several_masks,
            high_resolution_features=[repeated(each) for each in fine],
        )
        logits, iou = logits[:, 0], iou[:, 0]
        best = iou.argmax(1)
        row = torch.arange(len(best), device=best.device)

        def shaped(each: Tensor) -> Tensor:
            return each.unflatten(0, (views, objects))

        return Masks(shaped(logits[row, best]), shaped(iou[row, best]), shaped(present.flatten()))

    def _places(self, tokens: Tokens, rows: int, columns: int) -> tuple[Tensor, Tensor]:
        """Place and low confidence of each token."""
        if self.config.code != "2d":
            return tokens.xyz, tokens.low
        device = tokens.xyz.device
        y = (torch.arange(rows, device=device) + 0.5) / rows * 2 - 1
        x = (torch.arange(columns, device=device) + 0.5) / columns * 2 - 1
        grid = torch.stack(
            [*torch.meshgrid(x, y, indexing="xy"), torch.zeros(rows, columns, device=device)], -1
        )
        return grid.expand(len(tokens.low), -1, -1, -1), tokens.low

    def _prompts(self, prompts: PromptTokens) -> Float[Tensor, "*views objects prompts width"]:
        code = self.code(prompts.xyz)
        if self.config.code == "none":
            code = torch.zeros_like(code)
        made = code + self.kinds(prompts.kind.clamp(min=0))
        if self.config.confidence_vectors:
            made = made + self.confidence(prompts.low.long())
        return torch.where((prompts.kind == NOTHING)[..., None], self.nothing.weight, made)
