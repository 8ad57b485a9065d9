"""Carry masks from one picture to another picture of the place, with VGGT-Segmentor.

Neither poses nor depth are needed. How pictures are cut follows the authors' code (2604.13596);
what it lacks is ours and says so: pictures of any size, many objects at once, and whether an
object is in the other picture at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Bool, Float32

from lift3d.networks import Precision
from lift3d.networks.known import VGGT, VGGT_S
from lift3d.networks.vggt_s import framing
from lift3d.networks.vggt_s.framing import Window
from lift3d.networks.weights import find
from lift3d.scene import Image, View
from lift3d.scene.errors import InputError, MissingExtra
from lift3d.scene.fingerprint import NAMES_A_FILE
from lift3d.scene.protocols import Matcher

if TYPE_CHECKING:
    import torch

    from lift3d.networks.vggt_s.network import Segmentor


@dataclass(frozen=True)
class TransferConfig:
    """Carry masks with VGGT-Segmentor. VGGT-1B is for non-commercial use only."""

    head: str = field(default=VGGT_S, metadata=NAMES_A_FILE)
    """Weights of the head: VGGT-S, another name or path, or a checkpoint of
    pipelines/train_vggt_segmentor.py. VGGT-S's use is limited by VGGT-1B and by the licence of
    Ego-Exo4D, its training data."""
    vggt: str = field(default=VGGT, metadata=NAMES_A_FILE)
    """Weights of VGGT: a name from `lift3d weights`, or a path. Not used where the head's file has
    its own. The head was trained with the features of VGGT-1B."""
    framing: Literal["object", "whole"] = "object"
    """object: as the authors, the pictures are cut around each object and encoded for it; whole:
    both pictures are encoded once for all objects, faster and less exact for small ones."""
    passes: int = 2
    """Passes of the head; each after the first refines the mask (authors: 2)."""
    points: int = 5
    """Points of each picture that the head sees (authors: 5)."""
    tracked: int = 50
    """Points of each mask that are tracked into the other picture (authors: 50)."""
    existence: float = 0.5
    """An object is in the other picture if its confidence is this or higher; 0 keeps all. Our
    rule: the authors' network has no such answer."""
    batch: int = 4
    """Objects at a time; bounds memory."""
    device: str = "auto"
    """cpu, cuda, cuda:1; auto uses a GPU if there is one."""
    precision: Precision = "auto"
    """Of VGGT; auto is bfloat16 if the hardware supports it, else float32. The head computes in
    float32."""

    def check(self) -> None:
        """Raise InputError if a number is out of range."""
        least = {"passes": 1, "points": 1, "tracked": 1, "batch": 1}
        wrong = [name for name, value in least.items() if getattr(self, name) < value]
        if wrong:
            given = ", ".join(f"{name} {getattr(self, name)}" for name in wrong)
            raise InputError(f"carrying masks needs {', '.join(wrong)} of 1 or more; got {given}")
        if not 0 <= self.existence <= 1:
            raise InputError(f"existence is {self.existence}; it must be from 0 to 1")

    def build(self, matcher: Matcher | None = None) -> Transfer:
        """The network; MissingExtra without torch, InputError without the weights."""
        self.check()
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise MissingExtra("VGGT needs torch: pip install 'lift3d[vggt]'") from error
        from lift3d.networks.device import choose_device, choose_precision
        from lift3d.networks.vggt_s.network import load

        network = load(find(self.head), lambda: find(self.vggt))
        device = choose_device(self.device)
        network.to(device).vggt.compute_in(choose_precision(self.precision, device))
        return Transfer(self, network, device, matcher)


@dataclass(frozen=True, eq=False)
class Carried:
    """Masks in the other picture, in the order of those that were carried."""

    masks: Bool[np.ndarray, "masks height width"]
    """As the network gives them, whether the object is there or not."""
    certainty: Float32[np.ndarray, " masks"]
    """The network's mean probability inside each mask; 0 for empty ones."""
    confidence: Float32[np.ndarray, " masks"]
    """0 to 1: whether the object is there at all, by our rule."""
    present: Bool[np.ndarray, " masks"]
    """Confidence of at least `existence`, and a mask that is not empty."""


class Transfer:
    """Carries masks between pictures."""

    def __init__(
        self,
        config: TransferConfig,
        network: Segmentor,
        device: torch.device,
        matcher: Matcher | None = None,
    ) -> None:
        """`matcher` replaces VGGT's track head, which a network without it needs."""
        self.config, self.network, self.device = config, network, device
        self.size = network.head.config.size
        self.matcher = matcher

    def carry(self, a: View, b: View, masks: Bool[np.ndarray, "masks height width"]) -> Carried:
        """The masks of `a` in `b`. Empty masks stay empty and are not present.

        The confidence of an object is the agreement (IoU) of its mask with itself after it was
        carried to `b` and back. It needs the network twice; `existence` 0 leaves it out, and the
        confidence is 1 for masks that are not empty. InputError where memory runs out.
        """
        from lift3d.networks.device import out_of_memory

        try:
            found, certainty = self._carried(a, b, masks)
            some = np.asarray(found.any((1, 2)))
            confidence = some.astype(np.float32)
            if self.config.existence > 0 and some.any():
                confidence = agreement(masks, self._carried(b, a, found)[0])
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise InputError(
                f"out of memory on {self.device} with {self.config.batch} objects at a time; use a "
                "smaller batch (1), precision 'bfloat16', or device 'cpu'"
            ) from error
        return Carried(found, certainty, confidence, some & (confidence >= self.config.existence))

    def _carried(
        self, a: View, b: View, masks: Bool[np.ndarray, "masks height width"]
    ) -> tuple[Bool[np.ndarray, "masks rows columns"], Float32[np.ndarray, " masks"]]:
        """The masks in `b`, there or not, and the mean probability inside each."""
        height, width = b.camera.height, b.camera.width
        result = np.zeros((len(masks), height, width), bool)
        certainty = np.zeros(len(masks), np.float32)
        there = np.flatnonzero(masks.any((1, 2)))
        if not len(there):
            return result, certainty
        images = a.image(), b.image()
        windows = framing.whole(*images[0].shape[:2]), framing.whole(height, width)
        features = None
        if self.matcher is None or self.config.framing == "whole":
            cut = [window.cut(i, self.size) for window, i in zip(windows, images, strict=True)]
            features = self._features([(cut[0], cut[1])])
        tracks = self._tracked(a, b, masks[there], windows, features)
        for start in range(0, len(there), self.config.batch):
            part = slice(start, start + self.config.batch)
            logits = self._prompted(images, masks[there[part]], tracks[part], windows, features)
            for place, each in zip(there[part], logits, strict=True):
                result[place] = each > 0
                inside = each[result[place]]
                certainty[place] = (1 / (1 + np.exp(-inside))).mean() if len(inside) else 0.0
        return result, certainty

    def _prompted(
        self,
        images: tuple[Image, Image],
        masks: Bool[np.ndarray, "some height width"],
        tracks: Sequence[Float32[np.ndarray, "_ 2"]],
        windows: tuple[Window, Window],
        features: torch.Tensor | None,
    ) -> list[Float32[np.ndarray, "rows columns"]]:
        """Logits in the second picture, for some objects at once."""
        import torch

        from lift3d.networks.vggt_s.points import clustered, inliers, of_mask

        size, count = self.size, self.config.points
        height, width = images[1].shape[:2]
        cuts, targets, sources, points, pairs = [], [], [], [], []
        for mask, track in zip(masks, tracks, strict=True):
            kept = inliers(track)
            window_a, window_b = windows
            if self.config.framing == "object":
                window_a = framing.around_mask(mask)
                window_b = framing.around_points(kept, height, width)
            cut = window_a.cut_mask(mask, size)
            if self.config.framing == "object":
                pair = window_a.cut(images[0], size), window_b.cut(images[1], size)
                zoom = framing.zoomed(cut)
                if zoom is not None and zoom.cut_mask(cut, size).any():
                    pair, cut = (zoom.cut(pair[0], size), pair[1]), zoom.cut_mask(cut, size)
                pairs.append(pair)
            cuts.append(cut)
            targets.append(window_b)
            sources.append(of_mask(cut, count))
            points.append(clustered(window_b.inward(kept, size), count))
        if pairs:
            features = self._features(pairs)
        assert features is not None
        with torch.inference_mode():
            tensors = (
                torch.from_numpy(np.stack(each)).float().to(self.device)
                for each in (cuts, sources, points)
            )
            answer = self.network.head(features, *tensors, self.config.passes)[-1]
        logits = answer.logits[:, 0].float().cpu().numpy()
        logits[[not cut.any() for cut in cuts]] = framing.OUTSIDE  # too small to be seen
        return [
            window.recovered(each, height, width)
            for window, each in zip(targets, logits, strict=True)
        ]

    def _tracked(
        self,
        a: View,
        b: View,
        masks: Bool[np.ndarray, "some height width"],
        windows: tuple[Window, Window],
        features: torch.Tensor | None,
    ) -> list[Float32[np.ndarray, "_ 2"]]:
        """Points of each mask followed into `b`, in pixels of `b`."""
        import torch

        from lift3d.networks.vggt_s.points import of_mask

        if self.matcher is not None:
            return by_matches(self.matcher, a, b, masks)
        assert features is not None
        starts = [
            of_mask(windows[0].cut_mask(mask, self.size), self.config.tracked) for mask in masks
        ]
        queries = torch.from_numpy(np.concatenate(starts))[None].to(self.device)
        with torch.inference_mode():
            tracks = self.network.vggt.track(features, queries)
        ends = tracks.xy[-1][0, 1].float().clamp(0, self.size - 1).cpu().numpy()
        limit = np.array([b.camera.width - 1, b.camera.height - 1], np.float32)
        xy = windows[1].outward(ends, self.size).clip(0, limit)
        return list(xy.reshape(len(masks), -1, 2))

    def _features(self, pairs: Sequence[tuple[Image, Image]]) -> torch.Tensor:
        """Maps of pairs of square pictures."""
        import torch

        pixels = np.stack([np.stack(pair) for pair in pairs]).transpose(0, 1, 4, 2, 3)
        with torch.inference_mode():
            images = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device).float() / 255
            return self.network.features(images)


def by_matches(
    matcher: Matcher, a: View, b: View, masks: Bool[np.ndarray, "masks height width"]
) -> list[Float32[np.ndarray, "_ 2"]]:
    """The matches that start in each mask, in pixels of `b`; without any, the mask's own pixels."""
    found = matcher.match(a, b)
    column, row = np.rint(found.xy_in_a).astype(np.int64).T
    limit = np.array([b.camera.width - 1, b.camera.height - 1], np.float32)
    result = []
    for mask in masks:
        xy = found.xy_in_b[mask[row.clip(0, mask.shape[0] - 1), column.clip(0, mask.shape[1] - 1)]]
        if not len(xy):
            rows, columns = np.nonzero(mask)
            scale = np.array([b.camera.width / mask.shape[1], b.camera.height / mask.shape[0]])
            xy = np.stack([columns, rows], 1) * scale
            xy = xy[:: max(1, len(xy) // 50)]
        result.append(xy.clip(0, limit).astype(np.float32))
    return result


def agreement(
    masks: Bool[np.ndarray, "masks height width"], others: Bool[np.ndarray, "masks height width"]
) -> Float32[np.ndarray, " masks"]:
    """The IoU of each two masks; 0 where both are empty."""
    both = (masks & others).sum((1, 2))
    return (both / np.maximum((masks | others).sum((1, 2)), 1)).astype(np.float32)
