"""Keep earlier views, so that an object that returns gets its earlier id."""

from __future__ import annotations

from collections import deque

import numpy as np

from lift3d.geometry.visibility import DepthTolerance
from lift3d.scene import LabelMap, View
from lift3d.segmentation.tracking.carrying import Places, Remembered, look_up

NOVEL = 0.7
"""A view becomes a keyframe if the keyframes see less than this share of its points. Chosen by
hand; not tuned on data."""
SAMPLE = 500
"""Number of a view's points used to choose its keyframes."""


class Keyframes:
    """The last view and a bounded number of views that together cover most of the scene."""

    def __init__(self, most: int, tolerance: DepthTolerance) -> None:
        self._most = most
        self._tolerance = tolerance
        self._last: Remembered | None = None
        self._kept: list[Remembered] = []

    def voters(self, here: Places, count: int) -> list[Remembered]:
        """Up to `count` views: the last view, then the keyframes that see most of the points."""
        if self._last is None:
            return []
        sample = here.xyz[:: max(1, len(here.xyz) // SAMPLE)]
        others = [each for each in self._kept if each is not self._last]
        seen = [int((look_up(sample, each, self._tolerance) >= 0).sum()) for each in others]
        order = [i for i in np.argsort(-np.array(seen, int), kind="stable") if seen[i]]
        return [self._last, *(others[i] for i in order[: count - 1])]

    def add(self, here: Places, view: Remembered) -> None:
        """Keep a view as the last view, and as a keyframe if it shows enough new points."""
        self._last = view
        if not self._most or not view.labels.any():
            return
        sample = here.xyz[:: max(1, len(here.xyz) // SAMPLE)]
        known = np.zeros(len(sample), bool)
        for each in self._kept:
            known |= look_up(sample, each, self._tolerance) >= 0
        if len(sample) and known.mean() < NOVEL:
            if len(self._kept) >= self._most:
                del self._kept[1::2]  # every second, so that the entire past stays covered
            self._kept.append(view)


class Recent:
    """Recent views for matchers: the views 1, 3, 9, ... before."""

    def __init__(self, count: int) -> None:
        self._ages = [3**each for each in range(count)]
        self._views: deque[tuple[View, LabelMap]] = deque(maxlen=self._ages[-1])

    def voters(self) -> list[tuple[View, LabelMap]]:
        """The available views with their labels, the last view first."""
        return [self._views[-age] for age in self._ages if age <= len(self._views)]

    def add(self, view: View, labels: LabelMap) -> None:
        """Keep a view; views older than the oldest used age are dropped."""
        self._views.append((view, labels))

    def forget(self) -> None:
        """Remove all views."""
        self._views.clear()
