"""True masks with simulated errors of a known amount, for tests and benchmarks."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float32

from lift3d.scene import LabelMap, Masks, Prompt, View
from lift3d.scene.errors import InputError
from lift3d.scene.protocols import Seeded, Segmenter, SegmenterConfig
from lift3d.segmentation.answers import best_mask


class Damage(NamedTuple):
    """Amount of each error in the masks of a view."""

    split: float
    """Share of masks split into two or three parts."""
    merge: float
    """Share of masks merged with a mask that they touch."""
    rough: float
    """Typical shift of a border, in pixels of an image 640 wide."""
    drop: float
    """Share of masks removed."""


SEVERITIES: dict[str, Damage] = {
    "none": Damage(0.0, 0.0, 0.0, 0.0),
    "low": Damage(0.10, 0.05, 2.0, 0.05),
    "middle": Damage(0.25, 0.15, 5.0, 0.20),
    "high": Damage(0.45, 0.30, 9.0, 0.40),
}
SMALLEST_SPLIT = 200
"""Masks of fewer pixels (at 640 x 480) are not split. Chosen by hand; not tuned on data."""
BUMP = 24
"""Scale of the shifts of borders, in pixels of an image 640 wide. Chosen by hand; not tuned on
data."""


@dataclass(frozen=True)
class SimulatedConfig(Seeded, SegmenterConfig):
    """The scene's true masks, damaged per view; ids of different views are unrelated."""

    severity: Literal["none", "low", "middle", "high"] = "none"
    """Preset of the shares of split, merged and dropped masks, and of the border roughness."""
    split: float | None = None
    """Share of masks split into two or three parts; replaces the preset's, as do the next three."""
    merge: float | None = None
    """Share of masks merged with a mask that they touch."""
    rough: float | None = None
    """Typical shift of a border, in pixels of an image 640 wide."""
    drop: float | None = None
    """Share of masks removed."""
    seed: int | None = None
    """Seed of the damage, together with the view's name: a view always gets the same masks. By
    default the run's."""

    @property
    def damage(self) -> Damage:
        """The preset's amounts, replaced by those given. Raises InputError for invalid amounts."""
        given = {kind: getattr(self, kind) for kind in Damage._fields}
        chosen = {kind: amount for kind, amount in given.items() if amount is not None}
        shares = {kind: amount for kind, amount in chosen.items() if kind != "rough"}
        if not all(0 <= each <= 1 for each in shares.values()) or not chosen.get("rough", 0) >= 0:
            raise InputError(
                f"damage of masks is {chosen}; expected shares from 0 to 1, and pixels from 0 up"
            )
        return SEVERITIES[self.severity]._replace(**chosen)

    def build(self) -> Simulated:
        """The segmenter."""
        return Simulated(self)


class Simulated(Segmenter):
    """Damaged true masks, without overlap; ids are assigned per view."""

    def __init__(self, config: SimulatedConfig) -> None:
        self._damage, self._seed = config.damage, config.seed or 0

    def segment(self, view: View) -> Masks:
        """The damaged masks; raises InputError if the view has no true instances."""
        truth = view.instances()
        if truth is None:
            raise InputError(
                f"view {view.name} has no true instances to simulate masks from; "
                "use a scene that has them (synthetic), or another segmenter"
            )
        rng = np.random.default_rng(
            [self._seed, zlib.crc32(view.name.encode(errors="surrogatepass"))]
        )
        return Masks.from_label_map(damaged(truth, self._damage, rng))

    def prompt(self, view: View, prompts: Sequence[Prompt]) -> Masks:
        """For each prompt, the mask that classifies most of its points correctly."""
        return best_mask(self.segment(view), prompts)


def damaged(truth: LabelMap, damage: Damage, rng: np.random.Generator) -> LabelMap:
    """The label map with rough borders, merged, dropped and split masks, ids 1.. shuffled."""
    width = truth.shape[1]
    labels = _roughened(truth, damage.rough * width / 640, rng)
    labels = _merged(labels, damage.merge, rng)
    found = np.zeros_like(labels)
    parts = 0
    for each in _ids(labels):
        if rng.random() < damage.drop:
            continue
        rows, columns = np.nonzero(labels == each)
        part = np.zeros(len(rows), np.int32)
        if rng.random() < damage.split and len(rows) > SMALLEST_SPLIT * (width / 640) ** 2:
            # Assign pixels to the nearest of two or three random centres: cuts are straight.
            centre = rng.choice(len(rows), rng.integers(2, 4), replace=False)
            away = (rows[:, None] - rows[centre]) ** 2 + (columns[:, None] - columns[centre]) ** 2
            part = away.argmin(1).astype(np.int32)
        found[rows, columns] = parts + 1 + part
        parts += int(part.max()) + 1
    shuffled = np.concatenate([[0], 1 + rng.permutation(parts)]).astype(np.int32)
    return shuffled[found]


def _ids(labels: LabelMap) -> list[int]:
    ids = np.unique(labels)
    return ids[ids > 0].tolist()


def _roughened(labels: LabelMap, pixels: float, rng: np.random.Generator) -> LabelMap:
    """Shift the labels by a smooth random field of about `pixels`."""
    if pixels == 0:
        return labels
    height, width = labels.shape
    rows, columns = np.mgrid[:height, :width]
    rows = rows + np.round(pixels * _smooth_noise(height, width, rng)).astype(int)
    columns = columns + np.round(pixels * _smooth_noise(height, width, rng)).astype(int)
    return labels[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]


def _smooth_noise(
    height: int, width: int, rng: np.random.Generator
) -> Float32[np.ndarray, "height width"]:
    """Smooth normal noise, with bumps of `BUMP` pixels of an image 640 wide."""
    import cv2

    bump = max(width * BUMP / 640, 1)
    coarse = rng.standard_normal((int(height / bump) + 2, int(width / bump) + 2), np.float32)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))


def _merged(labels: LabelMap, share: float, rng: np.random.Generator) -> LabelMap:
    """Merge a `share` of the masks with a touching mask, with probability by border length."""
    ids = _ids(labels)
    chosen = [each for each in ids if rng.random() < share]
    if not chosen:
        return labels
    sides = np.concatenate(
        [
            np.stack([labels[:, :-1].ravel(), labels[:, 1:].ravel()], 1),
            np.stack([labels[:-1].ravel(), labels[1:].ravel()], 1),
        ]
    )
    sides = sides[(sides[:, 0] != sides[:, 1]) & (sides > 0).all(1)]
    group = np.arange(labels.max() + 1, dtype=np.int32)
    for each in chosen:
        touching = np.concatenate([sides[sides[:, 0] == each, 1], sides[sides[:, 1] == each, 0]])
        if len(touching):
            group[group == group[rng.choice(touching)]] = group[each]
    return group[labels]
