"""Caches for the results of a segmenter and a matcher that several trackers use."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from lift3d.scene import Masks, Matches, Prompt, Scene, View
from lift3d.scene.fingerprint import pictures
from lift3d.scene.protocols import Matcher, Segmenter


class CachedMasks:
    """A segmenter that computes the automatic masks of a view once."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self._known: dict[str, tuple[np.ndarray, tuple[int, ...], Any, Any]] = {}
        self._seconds: dict[str, float] = {}
        self.saved_seconds = 0.0
        """Seconds that the cache has saved."""

    def segment(self, view: View) -> Masks:
        """The segmenter's masks, cached with one bit per pixel."""
        (key,) = pictures([view])
        if key in self._known:
            self.saved_seconds += self._seconds[key]
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
        """The segmenter's result, not cached."""
        return self._segmenter.prompt(view, prompts)

    def alternatives(self, view: View, prompt: Prompt) -> Masks:
        """The segmenter's result, not cached."""
        return self._segmenter.alternatives(view, prompt)

    def check(self, scene: Scene) -> None:
        """The segmenter's check."""
        self._segmenter.check(scene)

    def __getattr__(self, name: str) -> Any:
        """Other attributes of the segmenter, such as features."""
        return getattr(self._segmenter, name)


class CachedMatches:
    """A matcher that matches each pair of views once."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher
        self._known: dict[tuple[str, ...], tuple[Matches, float]] = {}
        self.saved_seconds = 0.0
        """Seconds that the cache has saved."""

    def match(self, a: View, b: View) -> Matches:
        """The matcher's matches, cached."""
        key = tuple(pictures([a, b]))
        if key in self._known:
            self.saved_seconds += self._known[key][1]
        else:
            began = time.perf_counter()
            matches = self._matcher.match(a, b)
            self._known[key] = matches, time.perf_counter() - began
        return self._known[key][0]
