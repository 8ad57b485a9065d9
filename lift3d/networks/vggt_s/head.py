"""The union segmentation head of VGGT-Segmentor (2604.13596): features and prompts to a mask.

    head = UnionHead(config)
    answer = head(features, masks, source_xy, target_xy, passes=2)[-1]
    mask = answer.logits > 0

Module names follow the keys of the published weights. All coordinates are (x, y) in pixels of the
square pictures, whose pixel (0, 0) is the centre of the top-left pixel.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from lift3d.networks.vggt_s import HeadConfig
from lift3d.networks.vggt_s.prompts import Codes, PromptEncoder, Upscaling
from lift3d.networks.vggt_s.transformer import Mlp, TwoWayTransformer, side_by_side

LIMIT = 32.0
"""Logits that are fed back are clamped to this."""


class Answer(NamedTuple):
    """The result of one pass."""

    logits: Float[Tensor, "n 1 size size"]
    """Above 0 inside the mask in the target picture."""
    low_res: Float[Tensor, "n 1 large large"]
    """The clamped logits for the next pass; the authors' name, they are larger than `logits`."""
    point_features: Float[Tensor, "n points width"]
    """The features of the points with the source vector added once per pass so far."""


class MaskDecoder(nn.Module):
    """Tokens and pictures to the logits of one mask."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.mask_tokens = nn.Embedding(1, width)
        self.transformer = TwoWayTransformer(config)
        self.output_upscaling = Upscaling(width)
        self.output_hypernetworks_mlps = nn.ModuleList([Mlp(width, width, width, width // 8)])

    def forward(
        self,
        source: Float[Tensor, "n c side side"],
        target: Float[Tensor, "n c side side"],
        points: Float[Tensor, "n tokens c"],
        codes: Codes,
    ) -> Float[Tensor, "n 1 large large"]:
        """Logits in the target picture, four times as large as its feature map."""
        tokens = torch.cat([self.mask_tokens.weight.expand(len(points), 1, -1), points], 1)
        q, k = self.transformer(tokens, side_by_side(source, target), codes)
        grid = self.config.grid
        k = k.transpose(1, 2).unflatten(2, (grid, 2 * grid))[..., grid:]
        weight = self.output_hypernetworks_mlps[0](q[:, 0])
        return torch.einsum("nc,nchw->nhw", weight, self.output_upscaling(k))[:, None]


class UnionHead(nn.Module):
    """The head; n is the number of objects, which may be of one pair of pictures or of many."""

    def __init__(self, config: HeadConfig = HeadConfig()) -> None:  # noqa: B008 - frozen
        super().__init__()
        config.check("the head")
        self.config = config
        self.prompt_encoder = PromptEncoder(config)
        self.mask_decoder = MaskDecoder(config)

    def forward(
        self,
        features: Float[Tensor, "pairs 2 width grid grid"],
        masks: Float[Tensor, "n size size"],
        source_xy: Float[Tensor, "n points 2"],
        target_xy: Float[Tensor, "n target_points 2"],
        passes: int = 2,
        trained: bool = False,
    ) -> list[Answer]:
        """One answer per pass; the last is the best.

        `features` are the track head's maps of source and target: of one pair for all objects, or
        of a pair for each. `masks` are in the source picture, above 0.5 inside. Points of the two
        pictures need not belong together. `trained`: only the last pass keeps a gradient.
        """
        encoder = self.prompt_encoder
        features = features.float().expand(len(masks), -1, -1, -1, -1)
        codes = encoder.codes()
        source, target = features[:, 0] + encoder.source_mask(masks), features[:, 1]
        points = encoder.point_features(features[:, 0], source_xy)
        answers: list[Answer] = []
        for number in range(passes):
            with torch.set_grad_enabled(
                torch.is_grad_enabled() and (not trained or number == passes - 1)
            ):
                points = points + encoder.src_point_pe.weight
                seen = target
                if answers:
                    seen = target + encoder.target_mask(answers[-1].low_res)
                tokens = encoder.tokens(source_xy, target_xy, points)
                large = self.mask_decoder(source, seen, tokens, codes)
                side = [self.config.size] * 2
                logits = interpolate(large, side, mode="bilinear", align_corners=False)
                answers.append(Answer(logits, large.clamp(-LIMIT, LIMIT), points))
        return answers
