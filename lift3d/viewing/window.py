"""`lift3d view`: show a labelled cloud in a window, or write a picture without a display."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from lift3d.geometry.rendering import camera_up, guess_up, orbit_cameras, render
from lift3d.geometry.visibility import spacing
from lift3d.run.run import Run
from lift3d.scene import Camera, Image, LabelledPoints
from lift3d.scene.colours import Palette, heat_colours, label_colours
from lift3d.scene.errors import InputError, open3d
from lift3d.scene.palette import distinct_colours
from lift3d.scene.storage import atomic

MODES = ("labels", "colour", "score")
KEYS = {
    "L": "labels",
    "C": "colour",
    "S": "score: bright where the views agree, dark where they do not, grey unlabelled",
    "V": "cameras on and off",
    "U": "unlabelled points on and off",
    "Q": "quit",
}
FRUSTUM = 0.08
"""Size of a drawn camera, as a share of the cloud's extent. Chosen by hand."""


def view_run(run: Run, screenshot: Path | str | None = None, width: int = 1280) -> None:
    """Show the cloud of a finished run in a window, or write it to the picture `screenshot`.

    The window raises InputError where there is no display, MissingExtra where Open3D cannot be
    imported. The picture needs neither.
    """
    cameras = list(run.cameras.values())
    if screenshot is not None:
        write_screenshot(Path(screenshot), run.cloud, width, cameras, run.palette)
        return
    show(run.cloud, cameras, str(run.folder), run.palette)


def write_screenshot(
    path: Path,
    cloud: LabelledPoints,
    width: int = 1280,
    cameras: Iterable[Camera] = (),
    palette: Palette | None = None,
) -> None:
    """Write one picture of the cloud from two sides, above in colour and below by object.

    The up direction is estimated from `cameras`; `palette` as in `colours_of`.
    """
    from PIL import Image as Pillow

    if not len(cloud):
        raise InputError("the cloud has no points; there is nothing to show")
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg"):
        raise InputError(f"{path} is neither .png nor .jpg; give --screenshot such a file name")
    sheet = contact_sheet(cloud, width, cameras, palette)
    with atomic(path) as part:
        Pillow.fromarray(sheet).save(part)


def contact_sheet(
    cloud: LabelledPoints,
    width: int,
    cameras: Iterable[Camera] = (),
    palette: Palette | None = None,
) -> Image:
    """The picture of `write_screenshot`, `width` pixels wide."""
    each = max(width // 2, 16)
    palette = distinct_colours(cloud) if palette is None else palette
    up = guess_up(cloud.points, camera_up(cameras))
    sides = orbit_cameras(cloud.points, 2, each, each * 3 // 4, up)
    splat = 2.0 * spacing(cloud.points.xyz)
    rows = [
        np.concatenate([render(cloud.points, colours, c, splat) for c in sides], 1)
        for colours in (cloud.points.rgb, colours_of(cloud, "labels", palette))
    ]
    return np.concatenate(rows)


def colours_of(
    cloud: LabelledPoints, mode: str, palette: Palette | None = None
) -> UInt8[np.ndarray, "points 3"]:
    """The colour of each point in one of `MODES`; unlabelled points are grey except in `colour`.

    `palette` has the colours of the objects, by default from `distinct_colours`.
    """
    if mode == "labels":
        palette = distinct_colours(cloud) if palette is None else palette
        return label_colours(cloud.instance, palette)
    if mode == "score":
        unlabelled = cloud.instance == 0
        return heat_colours(np.where(unlabelled, np.nan, cloud.score).astype(np.float64))
    return cloud.points.rgb


def frustum(
    camera: Camera, depth: float
) -> tuple[Float64[np.ndarray, "5 3"], tuple[tuple[int, int], ...]]:
    """Corners in the world (camera centre, then image corners), and lines as pairs of corners."""
    edge = np.array(
        [
            [-0.5, -0.5, 1],
            [camera.width - 0.5, -0.5, 1],
            [camera.width - 0.5, camera.height - 0.5, 1],
            [-0.5, camera.height - 0.5, 1],
        ]
    )
    in_camera = np.vstack([np.zeros(3), edge @ np.linalg.inv(camera.K).T * depth])
    corners = in_camera @ camera.pose[:3, :3].T + camera.pose[:3, 3]
    return corners, ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1))


def show(
    cloud: LabelledPoints,
    cameras: Iterable[Camera],
    title: str = "lift3d",
    palette: Palette | None = None,
) -> None:
    """Open an Open3D window, with the keys of `KEYS`; returns when it is closed."""
    if sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise InputError(
            "there is no display for a window; "
            "`lift3d view RUN --screenshot picture.png` writes a picture without one"
        )
    o3d = open3d("the window (`--screenshot picture.png` does not)")
    print("keys: " + "; ".join(f"{key} {what}" for key, what in KEYS.items()))
    window = o3d.visualization.VisualizerWithKeyCallback()
    if not window.create_window(title, 1280, 860):
        raise InputError(
            "Open3D could not open a window; `lift3d view RUN --screenshot picture.png` "
            "writes a picture without one"
        )
    scene = _Shown(o3d, cloud, list(cameras), palette)
    window.add_geometry(scene.points)
    window.get_render_option().point_size = 2.5
    for key, act in scene.actions().items():
        window.register_key_callback(ord(key), _acting(act))
    window.register_key_callback(ord("Q"), lambda w: w.close())
    window.run()
    window.destroy_window()


def _acting(act: Callable[[Any], None]) -> Callable[[Any], bool]:
    def pressed(window: Any) -> bool:
        act(window)
        return True  # redraw

    return pressed


class _Shown:
    """The content of the window, and the actions of its keys."""

    def __init__(
        self,
        o3d: Any,
        cloud: LabelledPoints,
        cameras: list[Camera],
        palette: Palette | None = None,
    ) -> None:
        self._o3d, self._cloud = o3d, cloud
        self._palette = distinct_colours(cloud) if palette is None else palette
        self._mode, self._all, self._with_cameras = "labels", True, False
        self.points = o3d.geometry.PointCloud()
        self._refill()
        extent = float(np.ptp(cloud.points.xyz, axis=0).max()) if len(cloud) else 1.0
        self._frusta = [self._lines(camera, FRUSTUM * extent) for camera in cameras]

    def actions(self) -> dict[str, Callable[[Any], None]]:
        """Key -> its action on the window."""
        return {
            "L": lambda window: self._colour(window, "labels"),
            "C": lambda window: self._colour(window, "colour"),
            "S": lambda window: self._colour(window, "score"),
            "V": self._toggle_cameras,
            "U": self._toggle_unlabelled,
        }

    def _colour(self, window: Any, mode: str) -> None:
        self._mode = mode
        self._refill()
        window.update_geometry(self.points)

    def _toggle_unlabelled(self, window: Any) -> None:
        self._all = not self._all
        window.remove_geometry(self.points, False)
        self._refill()
        window.add_geometry(self.points, False)

    def _toggle_cameras(self, window: Any) -> None:
        self._with_cameras = not self._with_cameras
        for each in self._frusta:
            if self._with_cameras:
                window.add_geometry(each, False)
            else:
                window.remove_geometry(each, False)

    def _refill(self) -> None:
        shown = np.ones(len(self._cloud), bool) if self._all else self._cloud.instance > 0
        vector = self._o3d.utility.Vector3dVector
        colours = colours_of(self._cloud, self._mode, self._palette)[shown]
        self.points.points = vector(self._cloud.points.xyz[shown].astype(np.float64))
        self.points.colors = vector(colours.astype(np.float64) / 255)

    def _lines(self, camera: Camera, depth: float) -> Any:
        corners, lines = frustum(camera, depth)
        drawn = self._o3d.geometry.LineSet()
        drawn.points = self._o3d.utility.Vector3dVector(corners)
        drawn.lines = self._o3d.utility.Vector2iVector(np.array(lines))
        drawn.paint_uniform_color((0.2, 0.2, 0.2))
        return drawn
