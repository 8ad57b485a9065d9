"""Cameras and depth as the sensor recorded them; every frame is validated once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float32

from lift3d.geometry import is_rigid
from lift3d.geometry.visibility import spacing, unhidden_depth
from lift3d.reconstruction.registration import checked_registration
from lift3d.scene import Scene, Skipped, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.prefetch import prefetch
from lift3d.scene.protocols import ReconstructorConfig


@dataclass(frozen=True)
class SensorConfig(ReconstructorConfig):
    """Use the poses that came with the pictures, and the depth or the cloud."""

    min_depth_share: float = 0.01
    """Frames with depth at less than this share of their pixels are skipped."""
    threads: int = 2
    """Frames decoded in parallel."""
    registration: Literal["auto", "mend", "tell", "off"] = "auto"
    """Colour that lies beside its depth: `mend` fits the colour camera, `tell` only warns; `auto`
    tells for masks that are given, because they may fit the depth, and mends otherwise."""
    dense: bool | None = field(default=None, compare=False)
    """Where no view has dense depth, estimate it from the pictures by stereo; False: do not."""

    def for_masks(self, given: bool) -> SensorConfig:
        """With `auto` replaced."""
        if self.registration != "auto":
            return self
        return replace(self, registration="tell" if given else "mend")

    @property
    def wants_stereo(self) -> bool:
        """As the setting says."""
        return self.dense is not False

    def build(self) -> Sensor:
        """The reconstructor with these settings."""
        return Sensor(self)


class Sensor:
    """Uses the recorded poses and depth; validates every frame once."""

    def __init__(self, config: SensorConfig = SensorConfig()) -> None:
        self.config = config
        self._needs_depth = True

    def reconstruct(
        self,
        scene: Scene,
        progress: Callable[[int, int], None] | None = None,
        folder: Path | None = None,
    ) -> Scene:
        """The scene without unusable frames; these are in `skipped`, with the reason.

        Every image and depth map is decoded once. Raises InputError if the scan has no poses, or
        neither depth nor a cloud, or if more than half of its frames are unusable.
        """
        has_depth = any(view.load_depth is not None for view in scene.views)
        to_come = self.config.wants_stereo and not has_depth and len(scene) > 1
        self._needs_depth = scene.load_points is None and not to_come
        _check_there_is_something(scene, self._needs_depth)
        kept: list[View] = []
        skipped: list[Skipped] = []
        reasons = prefetch(scene.views, self._reason, threads=self.config.threads)
        for view, reason in zip(scene.views, reasons, strict=True):
            if reason is None:
                kept.append(view)
            else:
                skipped.append(Skipped(view.name, reason))
            if progress is not None:
                progress(len(kept) + len(skipped), len(scene))
        if scene.load_points is not None and all(view.load_depth is None for view in kept):
            kept = _by_cloud(kept, scene.load_points().xyz)
        result = replace(scene, views=tuple(kept), skipped=(*scene.skipped, *skipped))
        _check_enough_is_left(result)
        return checked_registration(result, self.config.registration)

    def _reason(self, view: View) -> str | None:
        """Why this frame is unusable; None if it is usable."""
        try:
            for camera in (view.camera, view.geometry_camera):
                if camera.world_from_camera is None:
                    return "no pose"
                if not is_rigid(camera.world_from_camera):
                    return "pose is not a finite rotation and translation"
            view.image()
            depth = view.depth()
        except FrameError as error:
            return str(error)
        if depth is None:
            return "no depth" if self._needs_depth else None
        present = np.count_nonzero(np.isfinite(depth) & (depth > 0)) / depth.size
        if view.sparse:
            return None if present else "none of its points was triangulated"
        if present == 0:
            return "depth is empty"
        if present < self.config.min_depth_share:
            return f"depth at less than {self.config.min_depth_share:.0%} of the pixels"
        return None


def _by_cloud(views: list[View], xyz: Float32[np.ndarray, "points 3"]) -> list[View]:
    """Give posed views without depth the sparse depth of the cloud's points that they see."""
    splat = 2 * spacing(xyz)
    return [
        replace(
            view,
            load_depth=partial(unhidden_depth, xyz, view.camera, splat),
            depth_camera=None,
            sparse=True,
        )
        for view in views
    ]


def _check_there_is_something(scene: Scene, needs_depth: bool) -> None:
    if not scene.views:
        raise InputError(
            f"{scene.source}: no frames to work with"
            + _commonest(scene.skipped)
            + "; expected colour, depth and pose for at least one"
        )
    for what, missing in (
        (
            "depth",
            needs_depth and all(view.load_depth is None for view in scene.views),
        ),
        ("a pose", all(view.geometry_camera.world_from_camera is None for view in scene.views)),
    ):
        if missing:
            raise InputError(
                f"{scene.source}: none of the {len(scene)} frames has {what}, and reconstruction "
                "'sensor' takes depth and poses from the scan. Add the files that hold them, or "
                "choose a backend that reconstructs from the images alone"
            )


def _check_enough_is_left(scene: Scene) -> None:
    total = len(scene) + len(scene.skipped)
    if 2 * len(scene.skipped) > total:
        raise InputError(
            f"{scene.source}: {len(scene.skipped)} of {total} frames cannot be used"
            + _commonest(scene.skipped)
            + "; expected at most half. Check the scan with `lift3d info`"
        )


def _commonest(skipped: tuple[Skipped, ...]) -> str:
    """The most frequent reason and its first frame, in parentheses; empty if nothing skipped."""
    if not skipped:
        return ""
    reason, count = Counter(_kind(frame) for frame in skipped).most_common(1)[0]
    first = next(frame for frame in skipped if _kind(frame) == reason)
    return f" ({count} x {reason}; first: {first.name})"


def _kind(frame: Skipped) -> str:
    """The reason without the frame's own name, so that equal reasons count together."""
    return re.sub(rf"\b{re.escape(frame.name)}\b", "…", frame.reason)
