"""A segmenter that logs which process did which view, and fails or dies where it is told to."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lift3d.scene import Masks, Prompt, View
from lift3d.scene.errors import FrameError
from lift3d.scene.protocols import Segmenter, SegmenterConfig


@dataclass(frozen=True)
class StandInConfig(SegmenterConfig):
    """Two overlapping masks a view, with scores."""

    log: Path = field(compare=False)
    """A line per view: its name and the process."""
    dies: str = field(default="", compare=False)
    """The process is killed at this view ..."""
    times: int = field(default=0, compare=False)
    """... so often."""
    fails: str = ""
    """This view has an error ..."""
    torn: bool = False
    """... which is that of a picture that cannot be read."""

    def build(self) -> Segmenter:
        return StandIn(self)


class StandIn(Segmenter):
    def __init__(self, config: StandInConfig) -> None:
        self.config = config

    def segment(self, view: View) -> Masks:
        config = self.config
        with config.log.open("a") as file:
            file.write(f"{view.name} {os.getpid()}\n")
        if view.name == config.dies and done(config.log)[view.name] <= config.times:
            time.sleep(0.2)  # work, while the answer before may still be on its way
            os.kill(os.getpid(), signal.SIGKILL)
        if view.name == config.fails:
            raise (FrameError if config.torn else ZeroDivisionError)(f"view {view.name} is torn")
        stack = np.zeros((2, view.camera.height, view.camera.width), bool)
        stack[0, :40], stack[1, 10:30, 10 + int(view.name) :] = True, True
        return Masks(stack, np.array([0.75, 0.5], np.float32))

    def prompt(self, view: View, prompts: Sequence[Prompt]) -> Masks:
        raise NotImplementedError


def done(log: Path) -> Counter[str]:
    """How often each view was begun."""
    return Counter(line.split()[0] for line in log.read_text().splitlines())


def processes(log: Path) -> set[int]:
    return {int(line.split()[1]) for line in log.read_text().splitlines()}
