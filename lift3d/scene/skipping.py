"""Unreadable views: a stage continues without them and reports their names and reasons."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from jaxtyping import Float32

from lift3d.scene import Depth, LabelMap, Skipped, View
from lift3d.scene.errors import FrameError

log = logging.getLogger(__name__)
NAMED = 5
"""Most views that the warnings of one stage name; of the rest, the number is given."""


def readable(view: View) -> tuple[View, Depth | None, Skipped | None]:
    """The view with depth and confidence decoded, its depth, and None.

    Where depth or confidence cannot be read: the view with an empty depth map, in which no point
    is visible; that map; and the reason.
    """
    try:
        depth, confidence = view.depth(), view.confidence()
    except FrameError as error:
        camera = view.geometry_camera
        nothing = np.zeros((camera.height, camera.width), np.float32)
        blind = replace(view, load_depth=partial(_same, nothing), load_confidence=None)
        return blind, nothing, Skipped(view.name, str(error))
    if depth is not None:
        view = replace(view, load_depth=partial(_same, depth))
    if confidence is not None:
        view = replace(view, load_confidence=partial(_same, confidence))
    return view, depth, None


def unlabelled(view: View, error: FrameError, skipped: list[Skipped]) -> LabelMap:
    """The label map of a view that cannot be read, all 0; logged, and added to `skipped`."""
    log.warning("view %s stays unlabelled: %s", view.name, error)
    skipped.append(Skipped(view.name, str(error)))
    return np.zeros((view.camera.height, view.camera.width), np.int32)


def warnings_of(skipped: Sequence[Skipped], what: str) -> list[str]:
    """A line for each of the first `NAMED` views, and one for the number of the others.

    >>> warnings_of([Skipped("0003", "it is torn")], "stays unlabelled")
    ['view 0003 stays unlabelled: it is torn']
    """
    lines = [f"view {each.name} {what}: {each.reason}" for each in skipped[:NAMED]]
    more = len(skipped) - len(lines)
    return lines + ([f"{more} more views cannot be read either"] if more else [])


def _same(array: Float32[np.ndarray, "height width"]) -> Float32[np.ndarray, "height width"]:
    return array
