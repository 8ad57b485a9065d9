"""The report's pictures: the cloud from four sides, views with labels, cut-outs of objects."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from lift3d.geometry.rendering import camera_up, guess_up, orbit_cameras, render_each
from lift3d.geometry.visibility import spacing
from lift3d.run.report.best_views import Box
from lift3d.scene import Camera, Image, LabelledPoints, LabelMap, Scene, View
from lift3d.scene.colours import Palette, heat_colours, label_colours, overlay
from lift3d.scene.guarded.pictures import opened_picture
from lift3d.scene.labelmaps import find_label_map, read_label_map
from lift3d.scene.prefetch import THREADS, prefetch
from lift3d.scene.storage import atomic

Shown = UInt8[np.ndarray, "_ _ 3"]
"""A picture in red, green, blue of any size."""
Rgba = UInt8[np.ndarray, "height width 4"]
SIDES, SIDE_WIDTH, SIDE_HEIGHT = 4, 640, 480
STRIP_WIDTH = 640
"""Pixels; larger pictures of a view are scaled down to it."""
THUMB_WIDTH = 150
CUT_OUT = 176
"""Longer side of an object's picture, in pixels."""
AROUND_OBJECT = 0.2
"""Margin around an object in its picture, as a share of its longer side."""


@dataclass(frozen=True, eq=False)
class Strip:
    """One view: its picture, labels, and disagreement with other views; None where missing."""

    name: str
    image: Shown
    labels: Shown | None
    disagreement: Shown | None


def sides(cloud: LabelledPoints, scene: Scene, palette: Palette | None = None) -> list[list[Rgba]]:
    """The cloud in colour and by object, from each side; empty for an empty cloud.

    The up direction is estimated from the scene's cameras.
    """
    if not len(cloud):
        return []
    colours = label_colours(cloud.instance, palette)
    up = guess_up(cloud.points, camera_up(view.camera for view in scene.views))
    splat = 2.0 * spacing(cloud.points.xyz)  # computed once: it takes as long as a picture

    def side(camera: Camera) -> list[Rgba]:
        return render_each(cloud.points, (cloud.points.rgb, colours), camera, splat)

    cameras = orbit_cameras(cloud.points, SIDES, SIDE_WIDTH, SIDE_HEIGHT, up)
    return list(prefetch(cameras, side, threads=THREADS))


def write_sheet(path: Path, pictures: list[list[Rgba]]) -> None:
    """All sides on one white picture: colour above, objects below."""
    from PIL import Image as Pillow

    size = (max(len(pictures), 1) * SIDE_WIDTH, 2 * SIDE_HEIGHT)
    sheet = Pillow.new("RGB", size, "white")
    for column, pair in enumerate(pictures):
        for row, picture in enumerate(pair):
            part = Pillow.fromarray(picture)
            sheet.paste(part, (column * SIDE_WIDTH, row * SIDE_HEIGHT), part)
    with atomic(path) as part_path:
        sheet.save(part_path, compress_level=3)  # a tenth larger than the least, 9 times faster


def strip(view: View, labels: Path, heat: Path, palette: Palette | None = None) -> Strip:
    """The pictures of one view; FrameError or OSError where its files cannot be read."""
    image = view.image()
    path = find_label_map(labels, view.name)
    labelled = None
    if path is not None:
        labelled = _small(overlay(image, read_label_map(path), palette=palette), STRIP_WIDTH)
    small = _small(image, STRIP_WIDTH)
    found = _heat(heat / f"{view.name}.png")
    # Drawn over the picture, unless depth has its own camera: then the pixels do not match.
    below = small if view.depth_camera is None else None
    disagreement = None if found is None else heat_picture(found, below)
    return Strip(view.name, small, labelled, disagreement)


def thumb(labels: LabelMap, palette: Palette | None = None) -> Shown:
    """A label map in colours, small."""
    step = max(1, labels.shape[1] // THUMB_WIDTH)
    return label_colours(labels[::step, ::step], palette)


def cut_out(image: Image, labels: LabelMap, which: int, box: Box, palette: Palette) -> Shown:
    """The object `which` in a picture: outlined in its colour, its surroundings paler.

    `labels` are the view's ids, as large as the picture.
    """
    from PIL import Image as Pillow

    top, bottom, left, right = box
    margin = 4 + int(AROUND_OBJECT * max(bottom - top, right - left))
    rows = slice(max(0, top - margin), bottom + margin)
    columns = slice(max(0, left - margin), right + margin)
    part, mask = image[rows, columns], labels[rows, columns] == which
    scale = CUT_OUT / max(part.shape[:2])
    size = max(1, round(scale * part.shape[1])), max(1, round(scale * part.shape[0]))
    part = np.array(Pillow.fromarray(part).resize(size, Pillow.Resampling.BICUBIC))
    mask = np.array(Pillow.fromarray(mask).resize(size, Pillow.Resampling.NEAREST))
    part[~mask] = (0.6 * part[~mask] + 0.4 * 160).astype(np.uint8)
    part[_outline(mask)] = palette.get(which, (255, 255, 255))
    return part


def _outline(mask: Bool[np.ndarray, "height width"]) -> Bool[np.ndarray, "height width"]:
    """Pixels up to two outside a mask."""
    import cv2

    square = np.ones((5, 5), np.uint8)
    return (cv2.dilate(mask.astype(np.uint8), square) > 0) & ~mask


def _heat(path: Path) -> UInt8[np.ndarray, "_ _"] | None:
    """The stored disagreement: 0 not compared; 1 to 255 for a share from none to all."""
    if not path.is_file():
        return None
    with opened_picture(path) as stored:
        return np.array(stored)


def heat_picture(index: UInt8[np.ndarray, "_ _"], image: Shown | None = None) -> Shown:
    """Stored disagreement in colours; over the grey `image` where it is given.

    The picture is visible, darkened, where all agree; pixels that were not compared are flat grey.
    """
    import cv2

    # Of each stored value: its colour, and how much of the picture shows through it.
    values = np.append(np.nan, np.arange(255) / 254)
    colours = heat_colours(values)
    if image is None:
        return colours[index]
    through = np.where(np.isnan(values), 0.25, np.where(values > 0, 0.15, 1.0))[:, None]
    index = cv2.resize(index, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    grey = image.astype(np.float32).mean(-1, keepdims=True)
    shade = np.where((index == 0)[..., None], grey, 0.55 * grey)
    mixed = through[index] * shade + ((1 - through) * colours)[index]
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def _small(image: Shown, most: int) -> Shown:
    from PIL import Image as Pillow

    height, width = image.shape[:2]
    if width <= most:
        return image
    size = (most, max(1, round(height * most / width)))
    return np.array(Pillow.fromarray(image).resize(size, Pillow.Resampling.LANCZOS))


def photograph(image: Shown | Rgba, quality: int = 72) -> str:
    """A picture as a data URI (lossy WebP); transparency is kept."""
    return _uri(image, "webp", quality=quality, method=2)  # 4 takes 2.5 times as long for 4 %


def drawing(image: Shown) -> str:
    """A picture of few colours as a data URI (lossless WebP)."""
    return _uri(image, "webp", lossless=True, quality=60, method=4)


def _uri(image: np.ndarray, kind: str, **options: object) -> str:
    from PIL import Image as Pillow

    stream = io.BytesIO()
    Pillow.fromarray(image).save(stream, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
