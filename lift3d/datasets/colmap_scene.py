"""COLMAP's models as our types: cameras, poses, sparse points and sparse depth.

Used by the reader and by the reconstruction. pycolmap is imported when first needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from lift3d.datasets.colmap_files import ADVICE, check_model
from lift3d.datasets.intrinsics import pinhole
from lift3d.datasets.poses import fault
from lift3d.geometry import orthonormal
from lift3d.geometry.visibility import projected_depth
from lift3d.scene import (
    NO_OFFSET,
    Camera,
    Depth,
    Image,
    Offset,
    Points,
    Transform,
    View,
    invert,
)
from lift3d.scene.contents import signature
from lift3d.scene.errors import FrameError, InputError, MissingExtra
from lift3d.scene.guarded import load_bytes, reading
from lift3d.scene.guarded.json_file import finite, load_json, shown
from lift3d.scene.local_origin import local
from lift3d.scene.storage import atomic

GUESS = 1.2
"""Assumed focal length, in longest image sides, where it is unknown; COLMAP's default."""
MODELS = {
    "SIMPLE_PINHOLE": "f cx cy",
    "PINHOLE": "fx fy cx cy",
    "SIMPLE_RADIAL": "f cx cy k1",
    "RADIAL": "f cx cy k1 k2",
    "OPENCV": "fx fy cx cy k1 k2 p1 p2",
    "FULL_OPENCV": "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6",
}
"""The camera models that OpenCV has too, with the names of their parameters."""
UNIT = "lift3d.json"
"""File beside a model with the scale, which COLMAP cannot store: `{"metric": true}`."""


def pycolmap() -> Any:
    """The library, without its own log (errors are raised as ours); MissingExtra without it."""
    try:
        import pycolmap as library
    except ImportError as error:
        raise MissingExtra(
            "COLMAP needs pycolmap, which is not installed: pip install 'lift3d[colmap]'"
        ) from error
    library.logging.minloglevel = int(library.logging.Level.FATAL)
    return library


def centred_camera(width: int, height: int, focal: float | None = None) -> Camera:
    """A camera with its principal point at the centre; `GUESS` without a focal length.

    Raises InputError for a focal length that is not above 0.

    >>> centred_camera(100, 50).K[0].tolist()
    [120.0, 0.0, 49.5]
    """
    if focal is not None and not focal > 0:
        raise InputError(f"focal is {focal:g}; expected a length in pixels, such as {width}")
    f = GUESS * max(width, height) if focal is None else focal
    K = np.array([[f, 0.0, (width - 1) / 2], [0.0, f, (height - 1) / 2], [0.0, 0.0, 1.0]])
    return Camera(K, width, height)


def focal_is_guessed(camera: Camera) -> bool:
    """Whether the focal length is the guess of `centred_camera`."""
    return bool(np.isclose(camera.K[0, 0], GUESS * max(camera.width, camera.height), rtol=1e-9))


def our_camera(camera: Any, where: str) -> Camera:
    """A pycolmap camera in our convention (pixel centres are whole numbers), without a pose."""
    names = MODELS.get(camera.model_name, "").split()
    value = dict(zip(names, map(float, camera.params), strict=True)) if names else {}
    if not names or any(value.get(name) for name in ("k4", "k5", "k6")):
        kind = "k4 k5 k6 of FULL_OPENCV" if names else f"camera model {camera.model_name}"
        raise InputError(
            f"{where}: {kind} cannot be read, only {', '.join(MODELS)} (up to k3); undistort: "
            f"`colmap image_undistorter --input_path {where} --image_path IMAGES --output_path "
            f"NEW`, or in Python pycolmap.undistort_images('NEW', '{where}', 'IMAGES'); lift NEW"
        )
    fx, fy = (value["f"],) * 2 if "f" in value else (value["fx"], value["fy"])
    K = pinhole((fx, fy, value["cx"] - 0.5, value["cy"] - 0.5), f"{where}: a camera")
    width, height = int(camera.width), int(camera.height)
    if min(width, height) < 1 or not np.isfinite(list(value.values())).all():
        raise InputError(f"{where}: a camera is {width}x{height} {value}; {ADVICE}")
    lens = ("k1", "k2", "p1", "p2", "k3") if value.get("k3") else ("k1", "k2", "p1", "p2")
    coefficients = tuple(value.get(name, 0.0) for name in lens)
    distortion = coefficients if any(coefficients) else ()
    return Camera(K, width, height, distortion=distortion)


def world_from_camera(image: Any, where: str) -> Transform:
    """The pose of a registered pycolmap image; InputError where it is not a pose."""
    camera_from_world = np.eye(4)
    camera_from_world[:3] = image.cam_from_world().matrix()
    reason = fault(camera_from_world)
    if reason:
        raise InputError(f"{where}: image {image.name}: {reason}; {ADVICE}")
    return invert(orthonormal(camera_from_world))


def open_model(folder: Path) -> Any:
    """The model in `folder` as a pycolmap Reconstruction; cached until its files change."""
    files = sorted(each for each in folder.iterdir() if each.suffix in (".bin", ".txt"))
    return _open(folder, tuple(map(signature, files)))


@lru_cache(maxsize=2)
def _open(folder: Path, stamps: tuple[str | None, ...]) -> Any:
    check_model(folder)
    with reading(folder, "a COLMAP model", advice=ADVICE):
        model = pycolmap().Reconstruction(str(folder))
        if not is_model(folder, "bin"):
            _whole_names(model, folder / "images.txt")
        return model


def is_model(folder: Path, suffix: str) -> bool:
    """Whether the folder has the three files of a model with this suffix, bin or txt."""
    return all(
        (folder / f"{name}.{suffix}").is_file() for name in ("cameras", "images", "points3D")
    )


def registered(folder: Path) -> int:
    """The number of registered images of the model, from the head of its images file."""
    if is_model(folder, "bin"):
        path = folder / "images.bin"
        with reading(path, "a file of a COLMAP model", advice=ADVICE), path.open("rb") as file:
            return int.from_bytes(file.read(8), "little")
    return len(_names(folder / "images.txt"))


def _names(path: Path) -> dict[int, str]:
    """Image id -> name from images.txt: the tenth word and all that follows, spaces included."""
    names = {}
    lines = iter(load_bytes(path).decode("utf-8", "surrogateescape").splitlines())
    for line in lines:
        words = line.split(maxsplit=9)
        if not words or words[0].startswith("#"):
            continue
        if len(words) == 10 and words[0].isdecimal():
            names[int(words[0])] = words[9].strip()
        next(lines, None)  # the image's points; the line is there also where it has none
    return names


def _whole_names(model: Any, path: Path) -> None:
    """Give the images their whole names: pycolmap ends a name at its first space."""
    for number, name in _names(path).items():
        if number in model.images and model.images[number].name != name:
            model.images[number].name = name


def write_unit(folder: Path, metric: bool, offset: Offset = NO_OFFSET) -> None:
    """Write beside the existing model in `folder` whether one unit is a metre.

    `offset`: the local origin that the model is relative to.
    """
    content = {
        "about": "of this model as lift3d exported it; void once its images file has changed",
        "metric": metric,
        **({} if offset == NO_OFFSET else {"offset": list(offset)}),
        "images": _hash(folder),
    }
    with atomic(folder / UNIT) as part:
        part.write_text(json.dumps(content, indent=1) + "\n")


def read_unit(folder: Path) -> tuple[bool | None, Offset]:
    """The scale and the offset from `write_unit` or the user.

    None and zeros without the file, or where poses changed since.
    """
    path = folder / UNIT
    if not path.is_file():
        return None, NO_OFFSET
    content = load_json(path, kind=dict)
    now = _hash(folder)
    if content.get("images", now) != now:
        return None, NO_OFFSET
    metric, offset = content.get("metric"), content.get("offset", NO_OFFSET)
    if not isinstance(offset, list | tuple) or len(offset) != 3:
        raise InputError(f"{path}: offset is {shown(offset)}; expected three numbers")
    x, y, z = (finite(each, f"{path}: offset") for each in offset)
    return None if metric is None else bool(metric), (x, y, z)


def _hash(folder: Path) -> str:
    """Hash of the file with the poses; it changes when a model is aligned or scaled."""
    path = next(p for p in (folder / "images.bin", folder / "images.txt") if p.is_file())
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cameras(folder: Path) -> dict[str, Camera]:
    """Image name -> posed camera of every registered image, in the order of their ids."""
    model = open_model(folder)
    found = {}
    for number in sorted(model.reg_image_ids()):
        image = model.image(number)
        camera = our_camera(model.camera(image.camera_id), str(folder))
        found[image.name] = camera.at(world_from_camera(image, str(folder)))
    return found


def load_points(folder: Path, stored: Offset = NO_OFFSET, offset: Offset = NO_OFFSET) -> Points:
    """The sparse points, by id, without normals; confidence is the number of observations.

    The model is relative to the local origin `stored`, the result to `offset`.
    """
    points = [point for _, point in sorted(open_model(folder).points3D.items())]
    world = np.array([point.xyz for point in points], np.float64).reshape(-1, 3) + stored
    xyz = local(world, offset)
    rgb = np.array([point.color for point in points], np.uint8).reshape(-1, 3)
    seen = np.array([point.track.length() for point in points], np.float32)
    return Points(xyz, rgb, np.zeros_like(xyz), seen, offset)


def load_depth(folder: Path, image: str, width: int, height: int) -> Depth:
    """Depth of the points observed in an image, each at the pixel nearest to its projection.

    0 elsewhere; of two points in a pixel, the nearer one. The size is the view's.
    """
    model = open_model(folder)
    found = model.find_image_with_name(image)
    if found is None or not found.has_pose:
        raise FrameError(f"{folder}: image {image} is not registered in this COLMAP model")
    ids = sorted({p.point3D_id for p in found.points2D if p.has_point3D()})
    xyz = np.array([model.point3D(i).xyz for i in ids], np.float64).reshape(-1, 3)
    pose = world_from_camera(found, str(folder))
    camera = our_camera(model.camera(found.camera_id), str(folder)).at(pose)
    return projected_depth(xyz, camera.resized(width, height))


def posed_view(
    view_name: str, camera: Camera, load_image: Callable[[], Image], folder: Path, image: str
) -> View:
    """A view of the model in `folder`; its depth is that of the points observed in `image`."""
    return View(
        name=view_name,
        camera=camera,
        load_image=load_image,
        load_depth=partial(load_depth, folder, image, camera.width, camera.height),
        sparse=True,
    )
