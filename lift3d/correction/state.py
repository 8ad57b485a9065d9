"""The labels and objects under edits, which are taken back exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32, Int64

from lift3d.correction.edits import Edit
from lift3d.correction.places import Finder, PointSet
from lift3d.geometry.visibility import cloud_spacing
from lift3d.scene import LabelledPoints
from lift3d.scene.colours import Palette
from lift3d.scene.palette import rgb_of

MOST_CONFIDENT = 0.9
"""Largest confidence of an object made by an edit. With 1 for all parts of 5 divided objects of the
demo AP fell from 0.752 to 0.655; with that of the parent it rose to 0.777."""
KEPT_BYTES = 256 << 20
"""Memory for what is needed to take edits back; older ones are taken back by replaying all."""


@dataclass(frozen=True)
class Properties:
    """What is known of an object besides its points."""

    confidence: float = 0.0
    views: int = 0
    """Number of automatic label maps that contain it; 0 for an object made by an edit."""
    automatic: bool = True
    name: str = ""
    class_name: str = ""
    colour: str = ""
    """As #rrggbb, where a person chose one."""
    edited: tuple[int, ...] = ()
    """Numbers of the edits that changed it."""
    reviewed: bool = False
    """A person said that it is right."""
    locked: bool = False


@dataclass(frozen=True, eq=False)
class Layer:
    """Painted pixels of a view, and the points that the view saw under them."""

    n: int
    view: str
    pixels: Path
    id: int
    index: Int64[np.ndarray, " members"]


@dataclass(frozen=True, eq=False)
class Change:
    """What an edit changed, to take it back."""

    index: Int64[np.ndarray, " changed"]
    label: Int32[np.ndarray, " changed"]
    """Labels before."""
    score: Float32[np.ndarray, " changed"]
    objects: Mapping[int, Properties]
    """All objects before."""
    whole: Mapping[int, int]
    layers: tuple[Layer, ...]

    @property
    def size(self) -> int:
        """Bytes, about."""
        return 16 * len(self.index) + 64 * len(self.objects)


@dataclass(eq=False)
class State:
    """Labels and objects now; changed in place by `applying.apply` and `take_back`."""

    cloud: LabelledPoints
    """The automatic labels; never changed."""
    base: str
    """Digest of the automatic labels."""
    folder: Path
    """The run folder, in which the files of edits are."""
    objects: dict[int, Properties]
    sets: Callable[[Edit, str], PointSet]
    """The points of an edit by the ending of their file; `Unfit` where they cannot be read."""
    views: Mapping[str, tuple[int, int]]
    """Height and width of each view."""
    largest: int = 0
    """Largest automatic id, of the cloud and of all label maps."""
    label: Int32[np.ndarray, " points"] = field(init=False)
    score: Float32[np.ndarray, " points"] = field(init=False)
    whole: dict[int, int] = field(init=False)
    """Automatic id -> id now, of pixels of objects that have no points or are not divided."""
    layers: tuple[Layer, ...] = field(init=False, default=())
    _finder: Finder | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.label, self.score = self.cloud.instance.copy(), self.cloud.score.copy()
        self.whole = {each: each for each in self.objects}

    def corrected(self) -> LabelledPoints:
        """The cloud now; classes that a person gave as a number are those of its points."""
        semantic = None if self.cloud.semantic is None else self.cloud.semantic.copy()
        for each, own in self.objects.items():
            if own.class_name.isdecimal():
                if semantic is None:
                    semantic = np.zeros(len(self.label), np.int32)
                semantic[self.label == each] = int(own.class_name)
        return replace(
            self.cloud, instance=self.label.copy(), score=self.score.copy(), semantic=semantic
        )

    def with_chosen(self, palette: Palette) -> Palette:
        """A palette with the colours that a person chose in the place of its own."""
        chosen = {each: rgb_of(own.colour) for each, own in self.objects.items() if own.colour}
        return {**palette, **chosen}

    def number(self, edit: Edit, each: int) -> int:
        """The number of a new object that `edit` recorded as `each`; always one that is free."""
        if edit.base != self.base:
            each += self.largest  # its own numbers are those of other objects here
        while each in self.objects or each in self.whole:
            each += 1
        return each

    def spacing(self) -> float:
        """Median distance between neighbouring points of the cloud."""
        return cloud_spacing(self.cloud.points)

    def points_of(self, ids: int | Iterable[int]) -> Int64[np.ndarray, " members"]:
        """Indices of the points of one or more objects."""
        if isinstance(ids, int):
            return np.flatnonzero(self.label == ids)
        return np.flatnonzero(np.isin(self.label, list(ids)))

    def take_back(self, change: Change) -> None:
        """Undo a change; the last one first."""
        self.label[change.index] = change.label
        self.score[change.index] = change.score
        self.restore(change)

    def drop_empty(
        self, before: Int32[np.ndarray, " changed"], now: Int32[np.ndarray, " changed"]
    ) -> None:
        """Objects whose last point went to others are gone; their pixels follow the points."""
        painted = {each.id for each in self.layers}
        for each in np.unique(before[before > 0]).tolist():
            if each in self.objects and each not in painted and not (self.label == each).any():
                into = int(np.bincount(now[before == each]).argmax())
                del self.objects[each]
                self.whole = {a: into if b == each else b for a, b in self.whole.items()}

    def before(self) -> Change:
        """All but the labels now, to `restore` it."""
        nothing = np.zeros(0, np.int64)
        return Change(
            nothing,
            self.label[nothing],
            self.score[nothing],
            dict(self.objects),
            dict(self.whole),
            self.layers,
        )

    def restore(self, change: Change) -> None:
        """All but the labels as before a change."""
        self.objects, self.whole = dict(change.objects), dict(change.whole)
        self.layers = change.layers

    def finder(self) -> Finder:
        """Finds places in the cloud; made at first use."""
        if self._finder is None:
            self._finder = Finder(self.cloud.points.xyz, self.spacing())
        return self._finder
