"""The data types of all stages: cameras, views, scenes, points, masks, matches.

Conventions (they hold everywhere; only `datasets` and `export` convert):

* transforms are `target_from_source`, 4x4 float64, metres; camera axes are OpenCV
  (x right, y down, z forward);
* pixel (0, 0) is the *centre* of the top-left pixel, `xy` is (column, row);
* depth is float32 along z, 0 where missing;
* a label map is int32 at colour resolution, 0 = unlabelled.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int32, UInt8

Image: TypeAlias = UInt8[np.ndarray, "height width 3"]
Depth: TypeAlias = Float32[np.ndarray, "height width"]
LabelMap: TypeAlias = Int32[np.ndarray, "height width"]
Transform: TypeAlias = Float64[np.ndarray, "4 4"]
Offset: TypeAlias = tuple[float, float, float]
"""World coordinates of a local origin (`lift3d.scene.local_origin`)."""

NO_OFFSET: Offset = (0.0, 0.0, 0.0)

DENSE = 1 << 20
"""Arrays of smaller ids are counted with `np.bincount`, others sorted. Chosen by hand for memory:
a table of 8 MB at most."""


def invert(target_from_source: Transform) -> Transform:
    """`source_from_target` of a rigid transform."""
    rotation, translation = target_from_source[:3, :3], target_from_source[:3, 3]
    inverse = np.eye(4)
    inverse[:3, :3] = rotation.T
    inverse[:3, 3] = -rotation.T @ translation
    return inverse


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera, in pixels; `world_from_camera` is None while the pose is unknown."""

    K: Float64[np.ndarray, "3 3"]
    width: int
    height: int
    world_from_camera: Transform | None = None
    distortion: tuple[float, ...] = ()
    """OpenCV's k1 k2 p1 p2 k3 ...; empty where images are already undistorted."""

    @property
    def pose(self) -> Transform:
        """`world_from_camera`. Raises ValueError where the pose is unknown."""
        if self.world_from_camera is None:
            raise ValueError("this camera has no pose; reconstruct the scene first")
        return self.world_from_camera

    @property
    def camera_from_world(self) -> Transform:
        """The rigid inverse of the pose."""
        return invert(self.pose)

    def at(self, world_from_camera: Transform) -> Camera:
        """This camera at another pose."""
        return replace(self, world_from_camera=world_from_camera)

    def resized(self, width: int, height: int) -> Camera:
        """The camera of the same image resampled to `width` x `height`.

        Pixel centres are whole numbers, so the image begins at -0.5: x becomes
        (x + 0.5) * scale - 0.5.

        >>> Camera(np.eye(3), 4, 4).resized(2, 2).K[0].tolist()
        [0.5, 0.0, -0.25]
        """
        scale_x, scale_y = width / self.width, height / self.height
        resample = np.array(
            [
                [scale_x, 0.0, 0.5 * scale_x - 0.5],
                [0.0, scale_y, 0.5 * scale_y - 0.5],
                [0.0, 0.0, 1.0],
            ]
        )
        return replace(self, K=resample @ self.K, width=width, height=height)


@dataclass(frozen=True, eq=False)
class View:
    """One picture of the scene with its camera. Loaders decode the files when they are called.

    Loaders are picklable callables without arguments (`functools.partial` of a module's
    function), so that a view can be sent to another process. They raise `FrameError` where
    the file cannot be used. The size of each loaded array is checked against its camera.
    """

    name: str
    """Unique in the scene; valid as the stem of a file name."""
    camera: Camera
    """The colour camera."""
    load_image: Callable[[], Image]
    load_depth: Callable[[], Depth] | None = None
    depth_camera: Camera | None = None
    """The camera the depth was taken with; None where depth is registered to colour."""
    load_confidence: Callable[[], Float32[np.ndarray, "height width"]] | None = None
    """Confidence of each depth pixel, where the source has one."""
    load_instances: Callable[[], LabelMap] | None = None
    """True instance ids at colour resolution, where the data set has them."""
    sparse: bool = False
    """Depth is known only at the few pixels with a triangulated feature. It shows which points
    are visible; segmentation, matching and fusion need dense depth."""
    estimated: bool = False
    """Depth was estimated from the pictures by stereo, not measured."""
    split: str = ""
    """Part of the data set that the picture belongs to: train, val, test; empty without splits."""

    def image(self) -> Image:
        """Colour (H, W, 3) RGB."""
        return self._sized(self.load_image(), self.camera, "image")

    def depth(self) -> Depth | None:
        """Depth in metres along z in `geometry_camera`, 0 = missing; None without a sensor."""
        if self.load_depth is None:
            return None
        return self._sized(self.load_depth(), self.geometry_camera, "depth")

    def confidence(self) -> Float32[np.ndarray, "height width"] | None:
        """Confidence of each depth pixel; None where the source has none."""
        if self.load_confidence is None:
            return None
        return self._sized(self.load_confidence(), self.geometry_camera, "confidence")

    def instances(self) -> LabelMap | None:
        """True instance ids (H, W) at colour resolution, 0 = none; None where unknown."""
        if self.load_instances is None:
            return None
        return self._sized(self.load_instances(), self.camera, "instance map")

    @property
    def geometry_camera(self) -> Camera:
        """The camera of the depth map: the depth camera, or colour where depth is registered."""
        return self.camera if self.depth_camera is None else self.depth_camera

    def _sized(self, array: np.ndarray, camera: Camera, what: str) -> np.ndarray:
        from lift3d.scene.errors import FrameError

        height, width = array.shape[:2]
        if (width, height) != (camera.width, camera.height):
            raise FrameError(
                f"view {self.name}: {what} is {width}x{height}, "
                f"its camera expects {camera.width}x{camera.height}"
            )
        return array


@dataclass(frozen=True)
class Skipped:
    """A frame that was left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Origin:
    """Where a scene was read from; enough to read it again."""

    path: Path
    reader: str
    """The reader's name."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The reader's options as JSON values."""

    @staticmethod
    def of(path: Path, name: str, reader: Any) -> Origin:
        """`reader` is the dataclass of the reader's options."""
        return Origin(path, name, json.loads(json.dumps(asdict(reader), default=str)))


@dataclass(frozen=True, eq=False)
class Scene:
    """Pictures of one static place, in capture order."""

    name: str
    views: tuple[View, ...]
    metric: bool
    """True where one unit of the world is one metre."""
    source: str
    """Reader and path, as `info` and the report show them."""
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    """Remarks of the reader for the user: resized colour, frames lost to truncation, ..."""
    warnings: tuple[str, ...] = ()
    """Doubts about the scan that may spoil its result."""
    load_surface: Callable[[], LabelledPoints] | None = None
    """The true labelled surface, where the data set has one."""
    load_points: Callable[[], Points] | None = None
    """A cloud that came with the cameras, such as COLMAP's. It is labelled instead of fused
    depth where the views have no dense depth."""
    void_classes: tuple[int, ...] = ()
    """Semantic classes of the surface that scores ignore: walls, floor, ceiling."""
    origin: Origin | None = None
    """Where the scene was read from; None for a scene built in Python."""
    offset: Offset = NO_OFFSET
    """World coordinates of the local origin that cameras and clouds are relative to; zeros but in
    georeferenced scenes."""

    @staticmethod
    def from_arrays(
        images: Sequence[np.ndarray],
        K: np.ndarray | Sequence[np.ndarray],
        world_from_camera: Sequence[Transform],
        depth: Sequence[Depth] | None = None,
        names: Sequence[str] | None = None,
        metric: bool = True,
        name: str = "arrays",
    ) -> Scene:
        """A scene of what is in memory.

        `images` are (H, W, 3) RGB, uint8 or as `eight_bit` takes them; `K` is 3x3, one for all
        views or one each, pixel (0, 0) being the centre of the top-left pixel; poses are 4x4,
        OpenCV axes; `depth` is (H, W) along z, 0 where missing, seen by the same cameras.
        InputError where the numbers differ.
        """
        from lift3d.scene.colours import eight_bit
        from lift3d.scene.errors import InputError
        from lift3d.scene.local_origin import localised

        count, one_for_all = len(images), np.ndim(K[0]) == 1
        given: dict[str, Sequence[object] | None] = {
            "poses": world_from_camera,
            "depth maps": depth,
            "names": names,
            "matrices K": None if one_for_all else list(K),
        }
        for what, each in given.items():
            if each is not None and len(each) != count:
                raise InputError(f"{count} images and {len(each)} {what}; expected one per image")
        views = []
        for index, image in enumerate(images):
            matrix = np.asarray(K if one_for_all else K[index], np.float64)
            height, width = image.shape[:2]
            pose = np.asarray(world_from_camera[index], np.float64)
            own = None if depth is None else np.asarray(depth[index], np.float32)
            views.append(
                View(
                    names[index] if names else f"{index:06d}",
                    Camera(matrix, width, height, pose),
                    partial(held, eight_bit(np.asarray(image))),
                    load_depth=None if own is None else partial(held, own),
                )
            )
        return localised(Scene(name, tuple(views), metric, f"{count} images in memory"))

    def __len__(self) -> int:
        return len(self.views)

    @property
    def has_dense_depth(self) -> bool:
        """Whether any view has dense depth, from a sensor or a network."""
        return any(view.load_depth is not None and not view.sparse for view in self.views)

    def with_views(self, views: Sequence[View]) -> Scene:
        """The same scene with other views."""
        return replace(self, views=tuple(views))


@dataclass(frozen=True, eq=False)
class Points:
    """Points in the world frame, in metres where the scene is metric.

    In georeferenced scenes they are relative to a local origin, `offset`, because float32 cannot
    hold such coordinates; `world` adds it.
    """

    xyz: Float32[np.ndarray, "points 3"]
    rgb: UInt8[np.ndarray, "points 3"]
    normal: Float32[np.ndarray, "points 3"]
    """Unit length, towards the cameras that saw the point; zeros where unknown."""
    confidence: Float32[np.ndarray, " points"]
    """Sum of the confidences of all observations of the point; one clear observation gives 1."""
    offset: Offset = NO_OFFSET
    """World coordinates of the local origin; zeros but in georeferenced scenes."""

    def __len__(self) -> int:
        return len(self.xyz)

    @property
    def world(self) -> Float64[np.ndarray, "points 3"]:
        """World coordinates in double precision: `xyz` + `offset`."""
        return self.xyz.astype(np.float64) + self.offset

    def take(self, index: np.ndarray) -> Points:
        """The points at `index` (positions or a boolean mask)."""
        xyz, rgb = self.xyz[index], self.rgb[index]
        return Points(xyz, rgb, self.normal[index], self.confidence[index], self.offset)


@dataclass(frozen=True, eq=False)
class LabelledPoints:
    """Points with the id of their object."""

    points: Points
    instance: Int32[np.ndarray, " points"]
    """Object id, 0 = unlabelled."""
    score: Float32[np.ndarray, " points"]
    """How sure the id is, 0 to 1: its share of the votes times the object's confidence; 0 where
    unlabelled."""
    semantic: Int32[np.ndarray, " points"] | None = None
    features: Float32[np.ndarray, "points channels"] | None = None
    names: Mapping[int, str] | None = None
    """Names of the objects, where the data set has them."""

    def __len__(self) -> int:
        return len(self.points)


def held(array: np.ndarray) -> np.ndarray:
    """A loader, by `functools.partial`, of what is in memory already."""
    return array


def ids_in(labels: Int32[np.ndarray, "*shape"]) -> Int32[np.ndarray, " ids"]:
    """The ids above 0 that occur, ascending.

    >>> ids_in(np.array([[0, 7], [7, 2]], np.int32)).tolist()
    [2, 7]
    """
    if labels.size and labels.min() >= 0 and labels.max() < DENSE:  # much faster than sorting
        found = np.flatnonzero(np.bincount(labels.ravel()))
    else:
        found = distinct(labels.ravel())
    return found[found > 0].astype(np.int32)


def distinct(values: Int[np.ndarray, " values"]) -> Int[np.ndarray, " distinct"]:
    """The values that occur, ascending: `np.unique`, without the hash table of NumPy 2.3 and later,
    which takes a hundred times as long for a million different values.

    >>> distinct(np.array([3, 1, 3])).tolist()
    [1, 3]
    """
    ordered = np.sort(values)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]


@dataclass(frozen=True, eq=False)
class Masks:
    """Masks of one view, possibly overlapping, in no particular order."""

    stack: Bool[np.ndarray, "masks height width"]
    scores: Float32[np.ndarray, " masks"]
    """The segmenter's own estimate of each mask's quality, 0 to 1."""
    ids: Int32[np.ndarray, " masks"] | None = None
    """Ids the masks came with (1 and up), where their source numbers them."""

    def __post_init__(self) -> None:
        count = (len(self.stack),)
        if np.ndim(self.stack) != 3 or self.stack.dtype != bool:
            raise ValueError(
                f"masks are {self.stack.dtype} of shape {self.stack.shape}; expected bool, "
                "(masks, height, width)"
            )
        if np.shape(self.scores) != count:
            raise ValueError(f"{count[0]} masks have scores of shape {np.shape(self.scores)}")
        if self.ids is not None and np.shape(self.ids) != count:
            raise ValueError(f"{count[0]} masks have ids of shape {np.shape(self.ids)}")

    def __len__(self) -> int:
        return len(self.stack)

    @staticmethod
    def from_label_map(labels: LabelMap) -> Masks:
        """One mask per id above 0, ascending, with that id and score 1."""
        from lift3d.scene.mask_sets import PackedMasks

        return PackedMasks.of_label_map(labels)  # the stack is made when it is first used


@dataclass(frozen=True, eq=False)
class Matches:
    """Pixels of two views that show the same place. `xy` is (column, row)."""

    xy_in_a: Float32[np.ndarray, "matches 2"]
    xy_in_b: Float32[np.ndarray, "matches 2"]
    confidence: Float32[np.ndarray, " matches"]
    """0 to 1."""

    def __len__(self) -> int:
        return len(self.xy_in_a)


@dataclass(frozen=True, eq=False)
class Prompt:
    """A request to a segmenter: the object at these points."""

    xy: Float[np.ndarray, "prompts 2"]
    positive: Bool[np.ndarray, " prompts"]
    """True: on the object; False: not on it."""
    mask: Bool[np.ndarray, "height width"] | None = None
    """A rough mask to start from (SAM's dense prompt), where one is known."""
    box: Float[np.ndarray, "4"] | None = field(default=None)
    """x0, y0, x1, y1."""
