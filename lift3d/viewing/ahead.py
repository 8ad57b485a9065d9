"""A segmenter for clicks in pictures that encodes views before they are clicked.

Encoding is what a click waits for, seconds a picture on a CPU; a prompt takes a fraction of that.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from lift3d.scene import Masks, Prompt, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.protocols import CanPrepare, Segmenter

NEIGHBOURS = 4
"""Views near the one that a person looks at that are encoded too. Chosen by hand."""
KEPT = 32
"""Views whose embeddings are kept: 130 MB for SAM, 0.5 GB for SAM 2."""
QUIET = 1.0
"""Seconds after a click in which nothing else is begun: the click's next view may follow."""


class Ahead(Segmenter):
    """Answers prompts as the segmenter does; works ahead where it `CanPrepare`."""

    def __init__(
        self, segmenter: Segmenter, views: Sequence[View], tell: Callable[[], None]
    ) -> None:
        """`tell` is called whenever `state` has changed."""
        self._segmenter, self._views, self._tell = segmenter, views, tell
        self._encoder = segmenter if isinstance(segmenter, CanPrepare) else None
        self._numbers = {view.name: number for number, view in enumerate(views)}
        self._kept: OrderedDict[int, Any] = OrderedDict()
        self._failed: set[int] = set()
        self._wanted: list[int] = []
        self._now: int | None = None
        self._changes = 0
        self._seconds: list[float] = []
        self._using = threading.Lock()  # a network answers one thread at a time
        self._changed = threading.Condition()
        self._clicked = 0.0
        self._closed = False
        self._thread: threading.Thread | None = None

    def look(self, number: int) -> None:
        """A person looks at a view: encode it, then those near it, in the background."""
        if self._encoder is None:
            return
        with self._changed:
            self._wanted = [number, *near(self._views, number)]
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
            self._changed.notify_all()

    @property
    def state(self) -> Mapping[str, Any]:
        """Views that are encoded, the one that is being encoded, and the median seconds of one.

        `changes` counts what has changed: an answer may arrive after a later one.
        """
        with self._changed:
            seconds = round(float(np.median(self._seconds)), 2) if self._seconds else None
            return {
                "ready": sorted(self._kept),
                "now": self._now,
                "seconds": seconds,
                "changes": self._changes,
            }

    def close(self) -> None:
        """Begin nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def segment(self, view: View) -> Masks:
        """As the segmenter's."""
        with self._turn(view):
            return self._segmenter.segment(view)

    def prompt(self, view: View, prompts: Sequence[Prompt]) -> Masks:
        """As the segmenter's."""
        with self._turn(view):
            return self._segmenter.prompt(view, prompts)

    def alternatives(self, view: View, prompt: Prompt) -> Masks:
        """As the segmenter's."""
        with self._turn(view):
            return self._segmenter.alternatives(view, prompt)

    @contextlib.contextmanager
    def _turn(self, view: View) -> Iterator[None]:
        """The segmenter for this thread alone, with the view's embedding."""
        self._clicked = time.monotonic()
        with self._using:
            if self._encoder is not None:
                number = self._numbers[view.name]
                self._encode(number)
                self._encoder.use_prepared(view, self._kept[number])
            yield
        self._clicked = time.monotonic()

    def _encode(self, number: int) -> None:
        """Keep the embedding of a view; the caller holds `_using`."""
        assert self._encoder is not None
        if number in self._kept:
            self._kept.move_to_end(number)
            return
        self._begin(number)
        began = time.perf_counter()
        try:
            made = self._encoder.prepared(self._views[number])
            with self._changed:
                self._kept[number] = made
                while len(self._kept) > KEPT:
                    self._kept.popitem(last=False)
                self._seconds.append(time.perf_counter() - began)
        finally:
            self._begin(None)

    def _begin(self, number: int | None) -> None:
        """Tell which view is being encoded from now on."""
        with self._changed:
            self._now = number
            self._changes += 1
        self._tell()

    def _work(self) -> None:
        while (number := self._next()) is not None:
            with self._using:
                try:
                    self._encode(number)
                except (InputError, FrameError):
                    self._failed.add(number)  # the page says that its picture cannot be read

    def _next(self) -> int | None:
        """The next view to encode; None at the end."""
        with self._changed:
            while not self._closed:
                wanted = [e for e in self._wanted if e not in self._kept and e not in self._failed]
                pause = self._clicked + QUIET - time.monotonic()
                if wanted and pause <= 0:
                    return wanted[0]
                self._changed.wait(pause if wanted else None)
            return None


def near(views: Sequence[View], number: int, count: int = NEIGHBOURS) -> list[int]:
    """The views placed and turned most like a view, the nearest first."""
    poses = [view.camera.world_from_camera for view in views]
    own = poses[number]
    if own is None:
        return []
    others = [(each, pose) for each, pose in enumerate(poses) if pose is not None]
    away = np.array([np.linalg.norm(pose[:3, 3] - own[:3, 3]) for _, pose in others])
    turned = np.array([1 - float(pose[:3, 2] @ own[:3, 2]) for _, pose in others])
    order = np.argsort(away / max(float(np.median(away)), 1e-9) + turned, kind="stable")
    return [others[at][0] for at in order if others[at][0] != number][:count]
