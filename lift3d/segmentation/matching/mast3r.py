"""Correspondences by MASt3R's descriptors, from images only."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float32, Float64

from lift3d.networks import Precision
from lift3d.networks.known import MAST3R
from lift3d.networks.reciprocal import DescribedPair, match_pair, window_pairs
from lift3d.networks.weights import find
from lift3d.scene import Image, Matches, View
from lift3d.scene.errors import InputError, MissingExtra
from lift3d.scene.fingerprint import NAMES_A_FILE
from lift3d.scene.protocols import MatcherConfig

if TYPE_CHECKING:
    from lift3d.networks.mast3r.network import Encoded
    from lift3d.networks.mast3r.preprocess import Prepared

RECENT = 4
"""Number of cached encodings; a tracker uses each picture at least twice."""


@dataclass(frozen=True)
class Mast3rMatcherConfig(MatcherConfig):
    """Reciprocal matches of MASt3R's descriptors. Its weights are for non-commercial use only."""

    weights: str = field(default=MAST3R, metadata=NAMES_A_FILE)
    """A checkpoint's name (see `lift3d weights`), or the path of a .pth file or hub folder. The
    authors' weights are under CC BY-NC-SA 4.0: non-commercial."""
    size: Literal[512, 224] = 512
    """Longer side of the network's input in pixels; the size the weights were trained for."""
    stride: int = 4
    """Search matches from every n-th pixel of both resized pictures."""
    min_confidence: float = 0.0
    """Drop matches of lower descriptor confidence (0 and up, 1 is neutral)."""
    border: int = 3
    """Drop matches this close to a border of the resized pictures, where they are unreliable."""
    fine: bool = False
    """Match again in windows of the full-size pictures; for pictures much larger than `size`."""
    windows: int = 12
    """Maximum number of window pairs for `fine`."""
    device: str = "auto"
    """cpu, cuda, cuda:1; auto uses a GPU if there is one."""
    precision: Precision = "auto"
    """auto is bfloat16 if the hardware supports it, else float32."""

    def build(self) -> Mast3rMatcher:
        """The matcher; MissingExtra without torch, InputError without the weights."""
        if self.stride < 1:
            raise InputError(f"matching stride is {self.stride}; it must be 1 or more")
        try:
            import torch  # noqa: F401
        except ImportError as error:
            raise MissingExtra(
                "matching 'mast3r' needs torch: pip install 'lift3d[mast3r]'"
            ) from error
        return Mast3rMatcher(self)


class Mast3rMatcher:
    """Encodes each picture once; decodes and matches a pair in both directions."""

    def __init__(self, config: Mast3rMatcherConfig) -> None:
        from lift3d.networks.device import choose_device, choose_precision
        from lift3d.networks.mast3r.checkpoint import load

        self.config = config
        self._device = choose_device(config.device)
        model, _ = load(find(config.weights))
        self._model = model.to(self._device).compute_in(
            choose_precision(config.precision, self._device)
        )
        self._recent: OrderedDict[int, tuple[View, Prepared, Encoded]] = OrderedDict()

    def match(self, a: View, b: View) -> Matches:
        """Pixels of `a` and `b` that show the same point, in full-size pixel coordinates."""
        prepared_a, encoded_a = self._encoded_view(a)
        prepared_b, encoded_b = self._encoded_view(b)
        coarse = self._matched(prepared_a, encoded_a, prepared_b, encoded_b)
        if not self.config.fine or not len(coarse):
            return coarse
        fine = self._in_windows(a.image(), b.image(), coarse)
        return fine if len(fine) else coarse

    def _encoded_view(self, view: View) -> tuple[Prepared, Encoded]:
        known = self._recent.get(id(view))
        if known is None:
            prepared, encoded = self._encode(view.image())
            known = (view, prepared, encoded)  # keeps the view alive, so that its id stays unique
        self._recent[id(view)] = known
        self._recent.move_to_end(id(view))
        while len(self._recent) > RECENT:
            self._recent.popitem(last=False)
        return known[1:]

    def _encode(self, image: Image) -> tuple[Prepared, Encoded]:
        import torch

        from lift3d.networks.mast3r.preprocess import prepare

        prepared = prepare(image, self.config.size)
        with torch.inference_mode():
            pixels = torch.from_numpy(prepared.pixels[None]).to(self._device)
            return prepared, self._model.encode(pixels)

    def _matched(
        self, prepared_a: Prepared, encoded_a: Encoded, prepared_b: Prepared, encoded_b: Encoded
    ) -> Matches:
        there = self._described(encoded_a, encoded_b)
        back = self._described(encoded_b, encoded_a)
        swapped = DescribedPair(back.b, back.a, back.confidence_b, back.confidence_a)
        found = match_pair(
            [there, swapped], self.config.stride, min_confidence=self.config.min_confidence
        )
        inside = self._off_border(found.xy_in_a, prepared_a)
        inside &= self._off_border(found.xy_in_b, prepared_b)
        return Matches(
            _moved(prepared_a.original_from_network, found.xy_in_a[inside]),
            _moved(prepared_b.original_from_network, found.xy_in_b[inside]),
            found.confidence[inside],
        )

    def _described(self, first: Encoded, second: Encoded) -> DescribedPair:
        import torch

        with torch.inference_mode():
            outputs: list[torch.Tensor] = []
            for number, decoded in enumerate(self._model.decode(first, second), start=1):
                outputs += self._model.head(number).descriptors(decoded)
        a, confidence_a, b, confidence_b = (
            each[0].float().cpu().contiguous().numpy() for each in outputs
        )
        return DescribedPair(a, b, confidence_a, confidence_b)

    def _off_border(self, xy: Float32[np.ndarray, "matches 2"], image: Prepared) -> np.ndarray:
        far = np.array([image.width, image.height]) - 1 - self.config.border
        return np.asarray(((xy >= self.config.border) & (xy <= far)).all(1))

    def _in_windows(self, image_a: Image, image_b: Image, coarse: Matches) -> Matches:
        """Matches in pairs of windows that cover the coarse matches (MASt3R, section 3.4)."""
        size_a, size_b = ((image.shape[1], image.shape[0]) for image in (image_a, image_b))
        # Sizes that `prepare` does not resize or crop: 4:3 for 512, a square for 224.
        window = (512, 384) if self.config.size == 512 else (224, 224)
        parts: list[Matches] = []
        for in_a, in_b in window_pairs(coarse, size_a, size_b, window)[: self.config.windows]:
            cut_a, cut_b = (
                image[part.top : part.top + part.height, part.left : part.left + part.width]
                for image, part in ((image_a, in_a), (image_b, in_b))
            )
            found = self._matched(*self._encode(cut_a), *self._encode(cut_b))
            shift_a = np.array([in_a.left, in_a.top], np.float32)
            shift_b = np.array([in_b.left, in_b.top], np.float32)
            parts.append(
                Matches(found.xy_in_a + shift_a, found.xy_in_b + shift_b, found.confidence)
            )
        if not parts:
            return coarse
        xy_a = np.concatenate([part.xy_in_a for part in parts])
        xy_b = np.concatenate([part.xy_in_b for part in parts])
        confidence = np.concatenate([part.confidence for part in parts])
        # Windows overlap: of duplicate matches, keep the most confident.
        order = np.argsort(-confidence, kind="stable")
        both = np.rint(np.c_[xy_a, xy_b][order]).astype(np.int64)
        _, first = np.unique(both, axis=0, return_index=True)
        chosen = order[np.sort(first)]
        return Matches(xy_a[chosen], xy_b[chosen], confidence[chosen])


def _moved(
    original_from_network: Float64[np.ndarray, "3 3"], xy: Float32[np.ndarray, "matches 2"]
) -> Float32[np.ndarray, "matches 2"]:
    scale = np.array([original_from_network[0, 0], original_from_network[1, 1]])
    return (xy * scale + original_from_network[:2, 2]).astype(np.float32)
