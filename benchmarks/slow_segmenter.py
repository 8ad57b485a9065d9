"""A stand-in for a slow segmenter, for benchmarks/workers.py: a module, so that workers find it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lift3d.scene import Masks, Prompt, View
from lift3d.scene.protocols import Segmenter, SegmenterConfig


@dataclass(frozen=True)
class SlowConfig(SegmenterConfig):
    """Overlapping discs of random scores after some milliseconds of work."""

    log: Path = field(compare=False)
    """A line per view: its name, the process, the time."""
    milliseconds: float = field(default=50.0, compare=False)
    """Time of a view."""
    waits: bool = field(default=False, compare=False)
    """The time passes in waiting, as for a GPU, not in work of a core."""
    dies: str = field(default="", compare=False)
    """The process is killed in the middle of this view, the first time."""

    def build(self) -> Segmenter:
        """The segmenter."""
        return Slow(self)


class Slow(Segmenter):
    """Takes its time."""

    def __init__(self, config: SlowConfig) -> None:
        self._config = config

    def segment(self, view: View) -> Masks:
        """Twenty discs, the same for a view of the same name."""
        config = self._config
        view.image()
        first = view.name not in {line.split()[0] for line in lines(config.log)}
        with config.log.open("a") as file:
            file.write(f"{view.name} {os.getpid()} {time.time():.3f}\n")
        if view.name == config.dies and first:
            os.kill(os.getpid(), signal.SIGKILL)
        seconds = config.milliseconds / 1000
        if config.waits:
            time.sleep(seconds)
        until = time.thread_time() + seconds
        while not config.waits and time.thread_time() < until:
            pass
        height, width = view.camera.height, view.camera.width
        rng = np.random.default_rng([int(view.name), 7])
        y, x = np.mgrid[:height, :width]
        centre, radius = rng.random((20, 2)) * [height, width], rng.random(20) * width / 4
        away = (y - centre[:, 0, None, None]) ** 2 + (x - centre[:, 1, None, None]) ** 2
        return Masks(away < radius[:, None, None] ** 2, rng.random(20, np.float32))

    def prompt(self, view: View, prompts: Sequence[Prompt]) -> Masks:
        """Not used."""
        raise NotImplementedError


def lines(log: Path) -> list[str]:
    """The lines of the log."""
    return log.read_text().splitlines() if log.exists() else []
