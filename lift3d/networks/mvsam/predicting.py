"""Answer prompts on a scene with MV-SAM: a mask and a score per object in every view."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32
from torch import Tensor
from torch.nn.functional import interpolate

from lift3d.geometry import unproject
from lift3d.networks import Precision
from lift3d.networks.device import choose_device, encoder_precision
from lift3d.networks.mvsam.encoders import Sam2Encoder, SmallEncoder
from lift3d.networks.mvsam.network import FIRST_CORNER, SECOND_CORNER, MvSam, PromptTokens
from lift3d.networks.mvsam.pointmaps import PointMaps, Tokens, normalised, per_cell
from lift3d.networks.mvsam.training import Drawn, prompt_tokens
from lift3d.networks.mvsam.weights import load
from lift3d.scene import Prompt, View
from lift3d.scene.errors import InputError

SIDE = 256
"""Points of each view, along a side, that are kept while a scene is answered: 0.8 MB a view."""
SMALLEST = 0.001
"""Regions under this share of the pixels are dropped, as in the paper."""
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours, which SAM 2's processor uses."""
MASK_POINTS, BOX_POINTS = 10, 5
LOGIT = 10.0
"""Logit of a pixel of a mask prompt, the value of SAM 2."""


class Predicted(NamedTuple):
    """The objects in one view."""

    name: str
    masks: Bool[np.ndarray, "objects height width"]
    scores: Float32[np.ndarray, " objects"]
    """Mean probability of the mask's pixels; the network's own scores are not trained."""


class Predictor:
    """A network with its encoder. Views are encoded some at a time, so memory does not grow."""

    def __init__(
        self,
        network: MvSam,
        encoder: Sam2Encoder | SmallEncoder,
        device: str = "auto",
        precision: Precision = "auto",
        batch: int = 4,
    ) -> None:
        self.device = choose_device(device)
        self.network, self.encoder = network.to(self.device), encoder.to(self.device)
        self._precision, self._batch = precision, batch

    @staticmethod
    def open(path: Path, device: str = "auto", precision: Precision = "auto") -> Predictor:
        """The weights in a file; InputError where they are none of MV-SAM."""
        return Predictor(*load(path), device, precision)

    def answer(
        self, views: Sequence[View], objects: Sequence[Mapping[str, Prompt]]
    ) -> Iterator[Predicted]:
        """The masks of each view. Every view needs a pose and dense depth for all its pixels."""
        config = self.network.config
        xyz, sure = _points(views)
        pixels = normalised(PointMaps(xyz, sure), config.low_share, config.statistics)
        prompts = self._tokens(views, objects, pixels)
        for start in range(0, len(views), self._batch):
            some = views[start : start + self._batch]
            part = Tokens(*(each[start : start + self._batch] for each in pixels))
            logits = self._decoded(some, objects, part, prompts)
            for view, own in zip(some, logits, strict=True):
                yield _finished(view, own)

    @torch.inference_mode()
    def _decoded(
        self,
        views: Sequence[View],
        objects: Sequence[Mapping[str, Prompt]],
        pixels: Tokens,
        prompts: PromptTokens,
    ) -> Float32[Tensor, "views objects rows columns"]:
        """Logits of some views."""
        with encoder_precision(self._precision, self.device):
            features = self.encoder(self._pictures(views))
        features = type(features)(*(each.float() for each in features))
        rows, columns = features.image.shape[-2:]
        tokens = per_cell(pixels, rows, columns, self.network.config.cell)
        tokens = Tokens(*(each.to(self.device) for each in tokens))
        dense, told = self._dense(views, objects, 4 * rows)
        return self.network(features, tokens, prompts, dense, told).logits

    def _pictures(self, views: Sequence[View]) -> Float32[Tensor, "views 3 side side"]:
        import cv2

        side = (self.encoder.side, self.encoder.side)
        small = [cv2.resize(view.image(), side, interpolation=cv2.INTER_AREA) for view in views]
        stack = torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 255
        mean, deviation = (torch.tensor(each)[:, None, None] for each in (MEAN, DEVIATION))
        return ((stack - mean) / deviation).to(self.device)

    def _tokens(
        self, views: Sequence[View], objects: Sequence[Mapping[str, Prompt]], pixels: Tokens
    ) -> PromptTokens:
        """All prompt tokens of each object; those of several views one after the other."""
        place = {view.name: number for number, view in enumerate(views)}
        joined = []
        for prompts in objects:
            parts = [
                prompt_tokens(
                    pixels,
                    [(place[name], _pixels_of(prompt, views[place[name]], self.network))],
                    self.network.config.code,
                )
                for name, prompt in prompts.items()
            ]
            joined.append(PromptTokens(*(torch.cat(each, 1) for each in zip(*parts, strict=True))))
        length = max((each.kind.shape[1] for each in joined), default=0)
        padded = [_padded(each, length) for each in joined]
        together = (torch.cat(each).to(self.device) for each in zip(*padded, strict=True))
        return PromptTokens(*together)

    def _dense(
        self, views: Sequence[View], objects: Sequence[Mapping[str, Prompt]], side: int
    ) -> tuple[Tensor | None, Tensor | None]:
        """Mask prompts in their own views."""
        import cv2

        dense = torch.zeros(len(views), len(objects), side, side)
        told = torch.zeros(len(views), len(objects), dtype=torch.bool)
        for number, prompts in enumerate(objects):
            for at, view in enumerate(views):
                mask = prompts[view.name].mask if view.name in prompts else None
                if mask is not None and self.network.config.mask_prompt == "dense":
                    small = cv2.resize(
                        mask.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA
                    )
                    dense[at, number] = torch.from_numpy((2 * small - 1) * LOGIT)
                    told[at, number] = True
        if not told.any():
            return None, None
        return dense.to(self.device), told.to(self.device)


def _points(views: Sequence[View]) -> tuple[Tensor, Tensor | None]:
    """The points of all views on a square grid, and their confidence where every view has one."""
    places, sure = [], []
    for view in views:
        depth = None if view.sparse or view.depth_camera is not None else view.depth()
        if depth is None:
            raise InputError(
                f"view {view.name} has no depth for each of its pixels, which MV-SAM needs; "
                "reconstruct with a network, such as reconstruction:mast3r"
            )
        xyz = unproject(view.camera, depth)
        rows = ((np.arange(SIDE) + 0.5) * xyz.shape[0] / SIDE).astype(int)
        columns = ((np.arange(SIDE) + 0.5) * xyz.shape[1] / SIDE).astype(int)
        places.append(xyz[rows][:, columns])
        confidence = view.confidence()
        if confidence is not None:
            sure.append(confidence[rows][:, columns].astype(np.float32))
    known = torch.from_numpy(np.stack(sure)) if len(sure) == len(views) else None
    return torch.from_numpy(np.stack(places)), known


def _pixels_of(prompt: Prompt, view: View, network: MvSam) -> Drawn:
    """The pixels of a prompt on the square grid, with their kinds."""
    size = np.array([view.camera.width, view.camera.height])
    xy, kind = [prompt.xy], [prompt.positive.astype(np.int64)]
    if prompt.box is not None and network.config.box == "corners":
        xy.append(prompt.box.reshape(2, 2))
        kind.append(np.array([FIRST_CORNER, SECOND_CORNER]))
    elif prompt.box is not None:
        low, high = prompt.box.reshape(2, 2)
        share = np.array([[0.5, 0.5], [0.35, 0.35], [0.65, 0.35], [0.35, 0.65], [0.65, 0.65]])
        xy.append(low + share * (high - low))
        kind.append(np.ones(BOX_POINTS, np.int64))
    if prompt.mask is not None and (network.config.mask_prompt == "points" or not len(prompt.xy)):
        rows, columns = np.nonzero(prompt.mask)
        chosen = np.linspace(0, len(rows) - 1, MASK_POINTS).round().astype(int)
        xy.append(np.stack([columns[chosen], rows[chosen]], 1).astype(np.float64))
        kind.append(np.ones(MASK_POINTS, np.int64))
    cell = ((np.concatenate(xy) + 0.5) / size * SIDE).astype(int).clip(0, SIDE - 1)
    return Drawn(cell[:, 1], cell[:, 0], np.concatenate(kind))


def _padded(tokens: PromptTokens, length: int) -> PromptTokens:
    more = length - tokens.kind.shape[1]
    return PromptTokens(
        torch.nn.functional.pad(tokens.xyz, (0, 0, 0, more), value=torch.nan),
        torch.nn.functional.pad(tokens.low, (0, more), value=True),
        torch.nn.functional.pad(tokens.kind, (0, more), value=-1),
    )


def _finished(view: View, logits: Float32[Tensor, "objects rows columns"]) -> Predicted:
    """At the size of the picture, without specks; a pixel is of the most probable object."""
    import cv2

    size = (view.camera.height, view.camera.width)
    large = interpolate(logits[None].float(), size, mode="bilinear")[0].sigmoid().cpu().numpy()
    best = large.argmax(0)
    masks, scores = [], []
    for number, own in enumerate(large):
        mask = (own > 0.5) & (best == number)
        _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        small = stats[:, cv2.CC_STAT_AREA] < SMALLEST * mask.size
        mask &= ~small[parts]
        masks.append(mask)
        scores.append(float(own[mask].mean()) if mask.any() else 0.0)
    return Predicted(view.name, np.stack(masks), np.array(scores, np.float32))
