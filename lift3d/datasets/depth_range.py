"""The range of a scene's depth, and whether it can be metres."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lift3d.datasets.images import DepthCode, load
from lift3d.scene import Scene, View
from lift3d.scene.errors import FrameError, option_words

LOOKED_AT = 5
"""Most depth maps that are decoded, evenly spaced."""
NEAR, FAR = 0.05, 200.0
"""Usual depth, in metres, below or beyond which the scale is doubted. Chosen by hand: closer than
any room scan, farther than any depth sensor; most wrong scales are off by a factor of 1000."""


@dataclass(frozen=True)
class DepthRange:
    """Depth in a few views, in the unit of the scene."""

    low: float
    """First percentile."""
    usual: float
    """Median."""
    high: float
    """99th percentile."""
    views: int
    """Number of views that were looked at."""


def depth_range(scene: Scene) -> DepthRange | None:
    """The range of depth; None where no view has depth that can be read."""
    having = [view for view in scene.views if view.load_depth is not None]
    steps = np.linspace(0, len(having) - 1, min(LOOKED_AT, len(having))).round().astype(int)
    known = []
    for view in (having[step] for step in steps):
        try:
            depth = view.depth()
        except FrameError:
            continue  # such frames are reported when the scene is lifted
        assert depth is not None
        known.append(depth[np.isfinite(depth) & (depth > 0)])
    values = np.concatenate(known or [np.zeros(0, np.float32)])
    if not len(values):
        return None
    low, usual, high = np.percentile(values, (1, 50, 99)).tolist()
    return DepthRange(low, usual, high, len(known))


def scale_doubt(scene: Scene, found: DepthRange | None) -> str | None:
    """A warning where depth in metres cannot be right, with the option that sets the scale."""
    if found is None or not scene.metric:
        return None
    first = next(view for view in scene.views if view.load_depth is not None)
    if "uint8" in stored_as(first):
        return (
            "depth is stored in 8 bits, which cannot hold millimetres: it is a picture of depth, "
            f"or its scale is another; {_option(scene)}"
        )
    if NEAR <= found.usual <= FAR:
        return None
    return (
        f"depth is {found.low:.3g} to {found.high:.3g} m, which hardly is right: the scale of the "
        f"stored depth is probably another; {_option(scene)}"
    )


def stored_as(view: View) -> str:
    """How the depth of a view is stored, in words; empty where that cannot be told."""
    arguments = getattr(view.load_depth, "args", ())
    code = next((each for each in arguments if isinstance(each, DepthCode)), None)
    path = next((each for each in arguments if isinstance(each, Path)), None)
    if code is None or path is None:
        return ""
    if code.scale is not None:
        return f"{code.scale:g} stored units are 1 m"
    try:
        kind = load(path).dtype
    except FrameError:
        return ""
    if kind.kind == "f":
        return f"stored as {kind}, taken as metres"
    return f"stored as {kind}, {code.whole:g} units are 1 m"


def _option(scene: Scene) -> str:
    """What sets the scale of the scene's depth."""
    reader = scene.origin.reader if scene.origin else ""
    options: Mapping[str, Any] = scene.origin.options if scene.origin else {}
    if reader == "rgbd-json":
        return "set depth_scale (stored units per metre) in rgbd.json"
    if "depth_scale" in options:
        return f"set it, in stored units per metre: {option_words(reader, 'depth_scale', 'N')}"
    if "depth_unit_scale_factor" in options:
        words = option_words(reader, "depth_unit_scale_factor", "N")
        return f"set it, in metres per stored unit: {words}"
    return "check the depth maps"
