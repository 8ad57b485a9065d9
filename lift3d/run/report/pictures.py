"""The report's pictures: the cloud from four sides, and views with labels and disagreement."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from lift3d.geometry.rendering import camera_up, guess_up, orbit_cameras, render_rgba
from lift3d.geometry.visibility import spacing
from lift3d.scene import Image, LabelledPoints, Scene, View
from lift3d.scene.colours import heat_colours, label_colours, overlay
from lift3d.scene.errors import FrameError
from lift3d.scene.labelmaps import find_label_map, read_label_map
from lift3d.scene.storage import atomic

Rgba = UInt8[np.ndarray, "height width 4"]
SIDES, SIDE_WIDTH, SIDE_HEIGHT = 4, 640, 480
MOST_STRIPS, STRIP_WIDTH = 8, 360


@dataclass(frozen=True, eq=False)
class Strip:
    """One view: what was seen, its labels, where it disagrees with other views (None without)."""

    name: str
    image: Image
    labels: Image | None
    disagreement: Image | None


def sides(cloud: LabelledPoints, scene: Scene) -> list[tuple[Rgba, Rgba]]:
    """The cloud in colour and by object, from each side; none of an empty cloud.

    The scene's cameras tell which way is up.
    """
    if not len(cloud):
        return []
    colours = label_colours(cloud.instance)
    up = guess_up(cloud.points, camera_up(view.camera for view in scene.views))
    splat = 2.0 * spacing(cloud.points.xyz)  # once: it takes as long as a picture
    return [
        (
            render_rgba(cloud.points, None, camera, splat),
            render_rgba(cloud.points, colours, camera, splat),
        )
        for camera in orbit_cameras(cloud.points, SIDES, SIDE_WIDTH, SIDE_HEIGHT, up)
    ]


def write_sheet(path: Path, pictures: list[tuple[Rgba, Rgba]]) -> None:
    """All sides on one white picture: colour above, objects below."""
    from PIL import Image as Pillow

    size = (max(len(pictures), 1) * SIDE_WIDTH, 2 * SIDE_HEIGHT)
    sheet = Pillow.new("RGB", size, "white")
    for column, pair in enumerate(pictures):
        for row, picture in enumerate(pair):
            part = Pillow.fromarray(picture)
            sheet.paste(part, (column * SIDE_WIDTH, row * SIDE_HEIGHT), part)
    with atomic(path) as part_path:
        sheet.save(part_path, optimize=True)


def strips(scene: Scene, labels: Path, heat: Path) -> Iterator[Strip | str]:
    """Up to 8 views spread evenly over the scan; a sentence where one cannot be shown."""
    count = min(MOST_STRIPS, len(scene))
    # The middles of equal parts of the scan: its ends tend to show a floor.
    for index in ((np.arange(count) + 0.5) * len(scene) / max(count, 1)).astype(int):
        view = scene.views[index]
        try:
            yield _strip(view, labels, heat)
        except (FrameError, OSError) as error:
            yield f"view {view.name} cannot be shown: {error}"


def _strip(view: View, labels: Path, heat: Path) -> Strip:
    image = view.image()
    path = find_label_map(labels, view.name)
    labelled = None if path is None else _small(overlay(image, read_label_map(path)))
    return Strip(view.name, _small(image), labelled, _heat(heat / f"{view.name}.png"))


def _heat(path: Path) -> Image | None:
    """The stored disagreement (grey 1 to 255 is 0 to 1, 0 is none) in the colours of the ramp."""
    from PIL import Image as Pillow

    if not path.is_file():
        return None
    with Pillow.open(path) as stored:
        grey = np.asarray(stored.convert("L"))
    values = np.where(grey > 0, (grey.astype(np.float32) - 1) / 254, np.nan)
    return _small(heat_colours(values.astype(np.float32)), smooth=False)


def _small(image: Image, smooth: bool = True) -> Image:
    from PIL import Image as Pillow

    height, width = image.shape[:2]
    if width <= STRIP_WIDTH:
        return image
    size = (STRIP_WIDTH, max(1, round(height * STRIP_WIDTH / width)))
    way = Pillow.Resampling.LANCZOS if smooth else Pillow.Resampling.NEAREST
    return np.array(Pillow.fromarray(image).resize(size, way))


def jpeg(image: Image) -> str:
    """A photograph as a data URI."""
    return _uri(image, "jpeg", quality=80, optimize=True)


def png(image: Rgba) -> str:
    """A picture with a transparent background as a data URI, in 256 colours."""
    return _uri(image, "png", optimize=True)


def _uri(image: np.ndarray, kind: str, **options: object) -> str:
    from PIL import Image as Pillow

    picture = Pillow.fromarray(image)
    if picture.mode == "RGBA":
        picture = picture.quantize(256, method=Pillow.Quantize.FASTOCTREE)
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
