"""What is lifted: the scene behind INPUT, and which of its views."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lift3d.datasets import read_scene
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.errors import InputError
from lift3d.scene import Scene


def open_scene(path: Path, reader: str | None = None) -> Scene:
    """The scene at `path`, or the synthetic one where it is the word `synthetic`."""
    synthetic = SyntheticConfig()
    if reader in (None, "synthetic") and synthetic.matches(path):
        return synthetic.read(path)
    return read_scene(path, reader)


def select(scene: Scene, views: int | None = None, stride: int = 1) -> Scene:
    """Every `stride`-th view, and of these at most `views`, spread evenly from first to last."""
    if stride < 1:
        raise InputError(f"stride is {stride}; expected 1 (every view) or more")
    if views is not None and views < 1:
        raise InputError(f"views is {views}; expected 1 or more")
    chosen = scene.views[::stride]
    if views is not None and views < len(chosen):
        index = np.linspace(0, len(chosen) - 1, views).round().astype(int)
        chosen = tuple(chosen[i] for i in index)
    return scene.with_views(chosen)
