"""Colour that is not registered to depth as the scan says: noticed, measured, and mended.

A Kinect has two cameras; files often name one for both, and each colour then lies up to tens of
pixels beside its depth. The views tell: with the right colour camera they agree on the colours of
the surface (`fit`). One camera, and one lag in time, is fitted for the whole scan, on half of the
points; it counts where the other half agrees much better by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Float32, Float64

from lift3d.geometry import transform
from lift3d.geometry.lens import rays_at
from lift3d.geometry.scale import median_depth
from lift3d.geometry.visibility import sightings
from lift3d.reconstruction.registration.fit import (
    COUNT,
    STARTS,
    Observations,
    contrast,
    disagreement,
    solved,
)
from lift3d.scene import Camera, Points, Scene, Transform, View, held, invert
from lift3d.scene.errors import FrameError
from lift3d.scene.prefetch import THREADS, prefetch

MOST_VIEWS = 30
"""Views that are compared, evenly spread. Chosen by hand for time."""
FEWEST = 8
"""With fewer views nothing is said. Chosen by hand."""
POINTS = 3000
"""Points that are compared. Chosen by hand for time."""
WIDTHS = (80, 160, 320, 640)
"""Widths of the pictures, coarse to fine."""
LEAST_SEEN = 10
"""Observations per view without which nothing is said. Chosen by hand."""
NOTICED = 2.0
"""Pixels, more in pictures wider than 640; a smaller median displacement is not mended."""
GAIN = 0.2
"""Share by which the other points must disagree less. With the right camera it was up to 0.13 on
four real scans, with cameras made wrong 0.35 or more."""
LEAST_LAG = 0.05
"""Frames; a smaller lag is not told."""
LAGS = (10.0, 20.0, 35.0, 55.0)
"""Median displacement, in pixels of a picture 640 wide, by the lags from which the coarsest level
starts."""
MOST_LAG = 3.0
"""Frames; longer lags are not tried."""


MENDED = "it is used; if that is wrong: --reconstruction.registration off"
TOLD = (
    "the stated camera is kept, because masks are given; if they were made on these pictures: "
    "--reconstruction.registration mend"
)
FITTED = "a lift that makes its masks itself uses it"


@dataclass(frozen=True, eq=False)
class Registration:
    """How the colour camera of a scan differs from the stated one."""

    theta: Float64[np.ndarray, " parameters"]
    """The differences, as `fit.PARAMETERS`."""
    median: float
    """Median displacement of colour, in pixels."""
    largest: float
    """95th percentile of it."""
    gain: float
    """Share by which points that were not used for the fit disagree less between views."""
    wrong: bool
    """Whether the stated camera is wrong beyond doubt."""

    @property
    def lag(self) -> float:
        """Frames by which colour is later than depth."""
        return float(self.theta[8])

    def words(self, stated: Camera, advice: str) -> str:
        """What a person should know, with the sizes in pixels; `advice` ends it."""
        scale = np.exp(self.theta[:2]) * [stated.K[0, 0], stated.K[1, 1]]
        centre = stated.K[:2, 2] + self.theta[2:4] * stated.width
        beside = np.linalg.norm(self.theta[4:7])
        lag = f", {self.lag:+.2f} frames later" if abs(self.lag) >= LEAST_LAG else ""
        return (
            f"colour lies {self.median:.0f} px beside depth ({self.largest:.0f} px at most): views "
            f"agree {self.gain:.0%} better on the colours of surfaces with a colour camera of fx "
            f"{scale[0]:.0f}, fy {scale[1]:.0f}, cx {centre[0]:.0f}, cy {centre[1]:.0f}, "
            f"{beside:.3f} from the depth camera{lag}; {advice}"
        )

    def camera(self, view: View, before: Transform, after: Transform) -> Camera:
        """The colour camera of a view whose neighbours' depth cameras have the poses given."""
        stated, theta = view.camera, self.theta
        K = stated.K.copy()
        K[[0, 1], [0, 1]] *= np.exp(theta[:2])
        K[:2, 2] += theta[2:4] * stated.width
        cos, sin = np.cos(theta[7]), np.sin(theta[7])
        colour_from_depth = np.eye(4)
        colour_from_depth[:2, :2] = [[cos, -sin], [sin, cos]]
        colour_from_depth[:3, 3] = theta[4:7]
        pose = _later(view.geometry_camera.pose, before, after, self.lag)
        return replace(stated, K=K, world_from_camera=pose @ invert(colour_from_depth))


def find_registration(scene: Scene) -> Registration | None:
    """Fit the colour camera of a posed scan; None where there is too little to compare.

    That is: few views, no dense depth, a lens with distortion, cameras that differ from view to
    view, or depth that has a camera of its own already.
    """
    views = scene.views
    if len(views) < FEWEST or not all(map(_usable, views)) or not _one_camera(views):
        return None
    even = np.linspace(0, len(views) - 1, min(MOST_VIEWS, len(views))).astype(int)
    decoded = prefetch([views[k] for k in even], _decoded, threads=THREADS)
    chosen = [view for view in decoded if view is not None]
    if len(chosen) < FEWEST:
        return None
    seen = _observations(scene, views, chosen)
    if len(seen.view) < LEAST_SEEN * len(chosen):
        return None
    return _fitted(seen, [view.image() for view in chosen])


def registered(scene: Scene, found: Registration) -> Scene:
    """The scene with the fitted colour cameras; the depth keeps the stated ones."""
    poses = [view.geometry_camera.pose for view in scene.views]
    views = tuple(
        replace(
            view,
            camera=found.camera(view, poses[max(k - 1, 0)], poses[min(k + 1, len(poses) - 1)]),
            depth_camera=view.geometry_camera,
        )
        for k, view in enumerate(scene.views)
    )
    return replace(scene, views=views)


def checked_registration(scene: Scene, how: str) -> Scene:
    """The scene, with its colour cameras mended or a warning, as `SensorConfig.registration`."""
    found = None if how == "off" else find_registration(scene)
    if found is None or not found.wrong:
        return scene
    text = found.words(scene.views[0].camera, TOLD if how == "tell" else MENDED)
    used = scene if how == "tell" else registered(scene, found)
    return replace(used, warnings=(*scene.warnings, text))


def registration_doubt(scene: Scene) -> str | None:
    """A warning for a scene as read, where its colour lies beside its depth."""
    views = tuple(view for view in scene.views if _usable(view))
    found = find_registration(replace(scene, views=views))
    return found.words(views[0].camera, FITTED) if found is not None and found.wrong else None


def _usable(view: View) -> bool:
    dense = view.load_depth is not None and view.depth_camera is None and not view.sparse
    camera = view.camera
    return dense and camera.world_from_camera is not None and not any(camera.distortion)


def _decoded(view: View) -> View | None:
    """The view with both pictures in memory; None where one is unreadable or there is no depth."""
    try:
        depth, image = view.depth(), view.image()
    except FrameError:
        return None  # the reconstruction reports it
    if depth is None or not np.any(np.isfinite(depth) & (depth > 0)):
        return None
    return replace(view, load_depth=partial(held, depth), load_image=partial(held, image))


def _one_camera(views: Sequence[View]) -> bool:
    first = views[0].camera
    return all(
        (each.camera.width, each.camera.height) == (first.width, first.height)
        and np.allclose(each.camera.K, first.K)
        for each in views
    )


def _observations(scene: Scene, views: Sequence[View], chosen: Sequence[View]) -> Observations:
    """Random points of the chosen views' depth, in each chosen view that sees them."""
    rng = np.random.default_rng(0)
    xyz = np.concatenate([_some_points(view, POINTS // len(chosen), rng) for view in chosen])
    xyz = xyz[rng.permutation(len(xyz))]
    grey = np.zeros((len(xyz), 3), np.uint8)
    points = Points(xyz, grey, np.zeros_like(xyz), np.ones(len(xyz), np.float32))
    place = {view.name: k for k, view in enumerate(views)}
    point, number, local, motion = [], [], [], []
    for k, view in enumerate(chosen):
        index = sightings(points, view).point
        world = xyz[index].astype(np.float64)
        at = place[view.name]
        near = [max(at - 1, 0), min(at + 1, len(views) - 1)]
        first, last = (transform(views[n].camera.camera_from_world, world) for n in near)
        point.append(index)
        number.append(np.full(len(index), k, np.int32))
        local.append(transform(view.camera.camera_from_world, world))
        motion.append((last - first) / (near[1] - near[0]))
    by_point = np.concatenate(point)
    order = np.argsort(by_point, kind="stable")
    start = np.append(0, np.cumsum(np.bincount(by_point, minlength=len(xyz)))).astype(np.int32)
    unit = 1.0 if scene.metric else (median_depth(scene) or 2.0) / 2  # rooms are 2 m away
    camera = chosen[0].camera
    return Observations(
        start,
        np.concatenate(number)[order],
        np.concatenate(local)[order],
        np.concatenate(motion)[order],
        *(camera.K, camera.width, camera.height, unit),
    )


def _some_points(
    view: View, count: int, rng: np.random.Generator
) -> Float32[np.ndarray, "points 3"]:
    depth, camera = view.depth(), view.geometry_camera
    assert depth is not None
    known = np.flatnonzero(np.isfinite(depth) & (depth > 0))
    chosen = rng.choice(known, min(count, len(known)), replace=False)
    row, column = np.divmod(chosen, depth.shape[1])
    in_camera = rays_at(camera, column, row) * depth[row, column][:, None]
    return transform(camera.pose, in_camera).astype(np.float32)


def _fitted(seen: Observations, images: Sequence[np.ndarray]) -> Registration:
    half, others = seen.some(2), seen.some(2, 1)
    theta, none = np.zeros(COUNT), np.zeros(COUNT)
    every = np.arange(COUNT)
    widths = [each for each in WIDTHS if each <= seen.width] or [seen.width]
    maps = None
    for level, width in enumerate(widths):
        of_width = partial(contrast, width=width)
        maps = np.stack(list(prefetch(images, of_width, threads=THREADS)))
        if level == 0:
            starts = [solved(half, maps, *start, 10) for start in _starts(seen)]
            theta = min(starts, key=lambda found: found[1])[0]
        theta, _ = solved(half, maps, theta, every)
    assert maps is not None
    before, after = (disagreement(others, maps, each)[0] for each in (none, theta))
    moved = np.linalg.norm(seen.pixels(theta) - seen.pixels(none), axis=1)
    median, largest = (float(each) for each in np.percentile(moved, [50, 95]))
    gain = 1 - after / max(before, 1e-9)
    wrong = median >= NOTICED * max(1.0, seen.width / 640) and gain >= GAIN
    return Registration(theta, median, largest, gain, wrong)


def _starts(seen: Observations) -> list[tuple[np.ndarray, np.ndarray]]:
    """Where the coarsest level starts, with the differences that are free there."""
    found = []
    for start in STARTS:
        theta = np.zeros(COUNT)
        theta[:2] = start
        found.append((theta, np.arange(7)))
    one = np.zeros(COUNT)
    one[8] = 0.01
    moved = np.linalg.norm(seen.pixels(one) - seen.pixels(np.zeros(COUNT)), axis=1)
    per_frame = float(np.median(moved)) * 100 * 640 / seen.width
    lags = [pixels / max(per_frame, 1e-9) for pixels in LAGS]
    for lag in (sign * each for each in lags if each <= MOST_LAG for sign in (1, -1)):
        theta = np.zeros(COUNT)
        theta[8] = lag
        found.append((theta, np.array([8])))
    return found


def _later(pose: Transform, before: Transform, after: Transform, frames: float) -> Transform:
    """The pose some frames later, with the mean motion between two neighbours."""
    from scipy.spatial.transform import Rotation

    motion = invert(before) @ after
    turn = Rotation.from_matrix(motion[:3, :3]).as_rotvec() / 2
    step = np.eye(4)
    step[:3, :3] = Rotation.from_rotvec(turn * frames).as_matrix()
    step[:3, 3] = motion[:3, 3] / 2 * frames
    return pose @ step
