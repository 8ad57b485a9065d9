"""Answers of a segmenter and a matcher, found once for all trackers that ask."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from lift3d.scene import Masks, Matches, Prompt, Scene, View
from lift3d.scene.fingerprint import pictures
from lift3d.scene.protocols import Matcher, Segmenter


class RememberedMasks:
    """A segmenter that finds the automatic masks of a view once."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self._known: dict[str, tuple[np.ndarray, tuple[int, ...], Any, Any]] = {}
        self._seconds: dict[str, float] = {}
        self.spared = 0.0
        """Seconds that remembering has saved."""

    def segment(self, view: View) -> Masks:
        """As the segmenter's; kept at a bit per pixel."""
        (key,) = pictures([view])
        if key in self._known:
            self.spared += self._seconds[key]
        else:
            began = time.perf_counter()
            masks = self._segmenter.segment(view)
            self._seconds[key] = time.perf_counter() - began
            packed = np.packbits(masks.stack)
            self._known[key] = (packed, masks.stack.shape, masks.scores, masks.ids)
        packed, shape, scores, ids = self._known[key]
        stack = np.unpackbits(packed, count=math.prod(shape)).astype(bool).reshape(shape)
        return Masks(stack, scores, ids)

    def prompt(self, view: View, prompts: Sequence[Prompt]) -> Masks:
        """The segmenter's."""
        return self._segmenter.prompt(view, prompts)

    def alternatives(self, view: View, prompt: Prompt) -> Masks:
        """The segmenter's."""
        return self._segmenter.alternatives(view, prompt)

    def check(self, scene: Scene) -> None:
        """As the segmenter does."""
        self._segmenter.check(scene)

    def __getattr__(self, name: str) -> Any:
        """What else it offers, such as features."""
        return getattr(self._segmenter, name)


class RememberedMatches:
    """A matcher that matches each pair once."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher
        self._known: dict[tuple[str, ...], tuple[Matches, float]] = {}
        self.spared = 0.0
        """Seconds that remembering has saved."""

    def match(self, a: View, b: View) -> Matches:
        """As the matcher's."""
        key = tuple(pictures([a, b]))
        if key in self._known:
            self.spared += self._known[key][1]
        else:
            began = time.perf_counter()
            matches = self._matcher.match(a, b)
            self._known[key] = matches, time.perf_counter() - began
        return self._known[key][0]
