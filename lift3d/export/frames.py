"""Views for export: undistorted on request, and checked against the limits of a format.

Cameras here are in lift3d's convention (OpenCV axes, `world_from_camera`, pixel centres at
integers); each exporter converts them to its format's convention.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int32

from lift3d.datasets.images import read_color
from lift3d.datasets.photos import read_photo
from lift3d.export.content import Content, Tick
from lift3d.geometry import unproject
from lift3d.geometry.lens import source_pixels
from lift3d.geometry.visibility import projected_depth
from lift3d.scene import Camera, Depth, Image, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.guarded.pictures import opened_picture
from lift3d.scene.printing import only_text
from lift3d.scene.storage import atomic


@dataclass(frozen=True)
class Limits:
    """Limits of a format's cameras."""

    where: str
    """Name of the format, for errors."""
    coefficients: int = 5
    """Number of supported coefficients of k1 k2 p1 p2 k3; 0: undistorted pictures only."""
    centred: bool = False
    """Whether its readers assume the principal point in the middle of the picture."""
    widest: int | None = None
    """Width above which its readers scale pictures down, but not masks; in pixels."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One view to export."""

    stem: str
    """File name without suffix; without dots, because some readers cut names at a dot."""
    view: View
    camera: Camera
    """Camera of the written picture."""
    same: bool
    """Whether the written picture has the view's own pixels."""

    @property
    def suffix(self) -> str:
        """Suffix of the picture's file: `.jpg` if the original can be copied, else `.png`."""
        return ".png" if self._original() is None else ".jpg"

    @property
    def file(self) -> str:
        """The picture's file name."""
        return self.stem + self.suffix

    def write_image(self, folder: Path) -> None:
        """Write the picture losslessly: a copy of the original JPEG, else a PNG."""
        import cv2

        original = self._original()
        if original is not None and self.view.image() is not None:  # decoding validates the file
            write_bytes(folder / self.file, original.read_bytes())
            return
        write_png(folder / self.file, cv2.cvtColor(self.image(), cv2.COLOR_RGB2BGR))

    def image(self) -> Image:
        """The written picture, RGB."""
        import cv2

        image = self.view.image()
        if self.same:
            return image
        if self._resized:
            return cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        x, y = self._source_pixels
        return cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)

    def labels(
        self, labels: Int32[np.ndarray, "own_height own_width"]
    ) -> Int32[np.ndarray, "height width"]:
        """A label map of the view, resampled to the written picture by nearest neighbour."""
        if self.same:
            return labels
        if self._resized:
            rows = (np.arange(self.camera.height) + 0.5) * labels.shape[0] / self.camera.height
            columns = (np.arange(self.camera.width) + 0.5) * labels.shape[1] / self.camera.width
            return labels[rows.astype(int)[:, None], columns.astype(int)]
        x, y = (np.floor(each + 0.5).astype(int) for each in self._source_pixels)
        inside = (x >= 0) & (y >= 0) & (x < labels.shape[1]) & (y < labels.shape[0])
        out = np.zeros(x.shape, np.int32)
        out[inside] = labels[y[inside], x[inside]]
        return out

    def seen(self) -> Bool[np.ndarray, "height width"]:
        """Pixels covered by the original picture; undistortion leaves black borders."""
        everywhere = np.ones((self.view.camera.height, self.view.camera.width), np.int32)
        return self.labels(everywhere) > 0

    def depth(self) -> Depth | None:
        """Depth in the written picture's camera, at the depth's size; None without dense depth.

        The view's depth if it is registered to that camera, else its points are projected.
        """
        return None if self.view.load_depth is None or self.view.sparse else self._depth()

    def sparse_depth(self) -> Depth | None:
        """Sparse depth of the view; None if it is dense or unknown."""
        return self._depth() if self.view.sparse else None

    def _depth(self) -> Depth:
        depth = self.view.depth()
        assert depth is not None
        taken = self.view.geometry_camera
        target = self.camera.resized(taken.width, taken.height)
        if _equal(taken, target):
            return depth
        xyz = unproject(taken, depth)[depth > 0]
        return projected_depth(xyz.astype(np.float64), target)

    @property
    def _size(self) -> tuple[int, int]:
        return self.camera.width, self.camera.height

    @property
    def _resized(self) -> bool:
        own = self.view.camera
        return _equal(own.resized(*self._size), self.camera)

    @cached_property
    def _source_pixels(
        self,
    ) -> tuple[Float32[np.ndarray, "height width"], Float32[np.ndarray, "height width"]]:
        """Position of each pixel of the written picture in the view's picture."""
        return source_pixels(self.view.camera, self.camera)

    def _original(self) -> Path | None:
        """The picture's JPEG file, if all readers decode a copy to the same pixels; else None."""
        load = self.view.load_image
        if not (self.same and isinstance(load, partial) and load.func in (read_color, read_photo)):
            return None
        path = load.args[0] if load.args else None
        if not isinstance(path, Path) or path.suffix.lower() not in (".jpg", ".jpeg"):
            return None
        return path if _plain(path) else None


def check_frames(content: Content, limits: Limits) -> None:
    """Raise InputError, with the next step, for the first view that the format cannot hold."""
    undistort = content.options.undistort
    for view in content.scene.views:
        camera = view.camera
        where = f"{limits.where}: view {view.name}"
        if camera.world_from_camera is None:
            raise InputError(f"{where} has no pose; lift with reconstruction:colmap first")
        if any(camera.distortion[5:]):
            raise InputError(
                f"{where} has {len(camera.distortion)} distortion coefficients; supported are "
                "k1 k2 p1 p2 k3: undistort the pictures before lifting"
            )
        if undistort:
            continue
        if any(camera.distortion[limits.coefficients :]):
            kind = "only undistorted pictures" if not limits.coefficients else "k1 k2 p1 p2 alone"
            raise InputError(
                f"{where} has lens distortion "
                f"({', '.join(f'{each:g}' for each in camera.distortion)}); this format supports "
                f"{kind}: export with --undistort"
            )
        if abs(camera.K[0, 1]) > 1e-9:
            raise InputError(f"{where} has skewed pixels; export with --undistort")
        middle = np.array([camera.width - 1, camera.height - 1]) / 2
        if limits.centred and np.abs(camera.K[:2, 2] - middle).max() > 0.01:
            raise InputError(
                f"{where} has its principal point at {camera.K[0, 2]:.2f}, {camera.K[1, 2]:.2f}; "
                f"readers of this format assume the middle of the picture ({middle[0]:g}, "
                f"{middle[1]:g}): export with --undistort, which moves it there"
            )


def frames(content: Content, limits: Limits, tick: Tick) -> Iterator[Frame]:
    """Every view prepared for the format, in order."""
    views = content.scene.views
    for number, (stem, view) in enumerate(zip(stems(content), views, strict=True), start=1):
        camera = _target(view.camera, limits, content.options.undistort)
        yield Frame(stem, view, camera, _equal(camera, view.camera))
        tick(number, len(views))


def stems(content: Content) -> list[str]:
    """A file stem per view: its name with `_` for `.`, as some readers cut at a dot, and for what
    is not text, as COLMAP and others read names as UTF-8.
    """
    names = [view.name for view in content.scene.views]
    replaced = [only_text(name).replace(".", "_") for name in names]
    twice = [name for name, count in Counter(replaced).items() if count > 1]
    if twice:
        raise InputError(f"several views would have the name {twice[0]}; rename the pictures")
    return replaced


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write an array as PNG; OpenCV's own writer ignores errors such as a full disk."""
    import cv2

    # Level 1: nearly the best size for label maps, and several times faster.
    done, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise FrameError(f"{path}: {pixels.dtype} {pixels.shape} cannot be written as PNG")
    write_bytes(path, data.tobytes())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically."""
    with atomic(path) as part:
        part.write_bytes(data)


def _target(camera: Camera, limits: Limits, undistort: bool) -> Camera:
    """The camera of the written picture."""
    if undistort and (any(camera.distortion) or camera.K[0, 1] != 0 or limits.centred):
        K = camera.K.copy()
        K[0, 1] = 0
        if limits.centred:
            K[:2, 2] = (camera.width - 1) / 2, (camera.height - 1) / 2
        camera = replace(camera, K=K, distortion=())
    if limits.widest is not None and camera.width > limits.widest:
        height = int(camera.height / (camera.width / limits.widest))
        camera = camera.resized(limits.widest, height)
    return camera


def _equal(a: Camera, b: Camera) -> bool:
    """Whether two cameras have the same size, pose, intrinsics and distortion."""
    lens = [(*each.distortion, *(0.0,) * 8)[:8] for each in (a, b)]
    return (
        (a.width, a.height) == (b.width, b.height)
        and np.allclose(a.K, b.K, rtol=0, atol=1e-6)
        and np.allclose(a.pose, b.pose, rtol=0, atol=1e-9)
        and np.allclose(lens[0], lens[1], rtol=0, atol=1e-12)
    )


def _plain(path: Path) -> bool:
    """Whether a JPEG is RGB without EXIF rotation, which readers handle differently."""
    with opened_picture(path) as image:
        return bool(image.mode == "RGB" and image.getexif().get(0x0112, 1) == 1)
