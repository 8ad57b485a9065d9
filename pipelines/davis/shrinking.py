"""Smaller pictures, for videos without depth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from lift3d.scene import Image, LabelMap, View


def shrunk(view: View, size: int) -> View:
    """The view with its longer side at most `size`; true ids stay ids."""
    scale = size / max(view.camera.width, view.camera.height)
    if scale >= 1:
        return view
    camera = view.camera.resized(
        max(1, round(view.camera.width * scale)), max(1, round(view.camera.height * scale))
    )
    to = camera.width, camera.height
    truth = view.load_instances
    return replace(
        view,
        camera=camera,
        load_image=partial(_resized, view.load_image, to),
        load_instances=partial(_resized_ids, truth, to) if truth else None,
    )


def _resized(load: Callable[[], Image], size: tuple[int, int]) -> Image:
    import cv2

    return np.asarray(cv2.resize(load(), size, interpolation=cv2.INTER_AREA), np.uint8)


def _resized_ids(load: Callable[[], LabelMap], size: tuple[int, int]) -> LabelMap:
    import cv2

    return np.asarray(cv2.resize(load(), size, interpolation=cv2.INTER_NEAREST_EXACT), np.int32)
