"""Masks in JSON: SAM's own, COCO's, Detectron2's and labelme's.

A file is of one view (SA-1B's `{"image", "annotations"}`, the list of `amg.py --convert-to-rle`,
labelme's `{"shapes"}`) or of all views (COCO's `{"images", "annotations"}`, a list of results with
`image_id`, Detectron2's list of `{"file_name", "annotations"}`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lift3d.datasets.mask_codes import from_polygons, from_run_lengths, size_of
from lift3d.scene import Camera, Masks
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.guarded.json_file import load_json
from lift3d.segmentation.mask_files import AGAIN, check_proportions, check_room, fitted, stacked

EXPECTED = (
    "expected SAM's or COCO's annotations with `segmentation`, or labelme's `shapes` (polygons)"
)
CORNERS = {"polygon", "rectangle"}
"""Shapes of labelme that are areas given by corners."""


def view_masks_of(content: Any, path: Path, camera: Camera) -> Masks:
    """The masks in a file of one view."""
    size, entries = None, content
    if isinstance(content, Mapping):
        size = _stated(content.get("image")) or _stated(content)
        if "shapes" in content:
            return _labelme(content["shapes"], size, path, camera)
        images = content.get("images")
        if isinstance(images, list) and len(images) == 1:
            size = _stated(images[0])
        entries = content.get("annotations")
    return of_entries(entries, size, path, camera)


class AllViews:
    """A file with the masks of all views."""

    def __init__(self, path: Path) -> None:
        """InputError where the file is of another kind."""
        self.path = path
        content = load_json(path, FrameError, AGAIN)
        self._entries: dict[str, list[Any]] = {}
        self._size: dict[str, tuple[int, int] | None] = {}
        try:
            self._fill(content)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(
                f"{path} is not a file of all views' masks ({error!r}); expected COCO's `images` "
                "and `annotations`, or a list with `image_id` or `file_name` and `segmentation`"
            ) from error

    def _fill(self, content: Any) -> None:
        if isinstance(content, Mapping):
            name_of = {each["id"]: self._added(each, []) for each in content["images"]}
            for entry in content["annotations"]:
                self._entries[name_of[entry["image_id"]]].append(entry)
            return
        for entry in content:
            if "annotations" in entry:
                self._added(entry, entry["annotations"])
            else:
                name = stem_of(str(entry["image_id"]))
                self._entries.setdefault(name, []).append(entry)
                self._size.setdefault(name, None)

    def _added(self, image: Mapping[str, Any], entries: list[Any]) -> str:
        name = stem_of(image["file_name"])
        if name in self._entries:
            raise ValueError(f"two pictures are called {name}")
        self._entries[name], self._size[name] = entries, _stated(image)
        return name

    def name_of(self, names: Sequence[str]) -> str | None:
        """The first of a view's names that the file has."""
        known = (stem_of(each) for each in names)
        return next((each for each in known if each in self._entries), None)

    def masks(self, name: str, camera: Camera) -> Masks:
        """The masks of a picture."""
        return of_entries(self._entries[name], self._size[name], self.path, camera)


def stem_of(file: str) -> str:
    """A picture's name without folder and suffix, as views are named.

    >>> stem_of("left/a b.jpg"), stem_of("a.b")
    ('a_b', 'a.b')
    """
    name = PurePosixPath(file.replace("\\", "/")).name
    stem = re.sub(r"\.(png|jpe?g|tiff?|bmp|webp|heic)$", "", name, flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "_", stem)


def of_entries(entries: Any, size: tuple[int, int] | None, path: Path, camera: Camera) -> Masks:
    """The masks of a list of annotations; `size` is height and width of their polygons."""
    if not isinstance(entries, list) or not all(isinstance(each, Mapping) for each in entries):
        raise InputError(f"{path} holds no list of masks; {EXPECTED}")
    check_room(len(entries), path, camera)
    masks, scores = [], []
    for number, entry in enumerate(entries):
        try:
            masks.append(_mask(entry["segmentation"], size, path, camera))
            scores.append(float(entry.get("predicted_iou", entry.get("score", 1.0))))
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            what = "it has no segmentation" if isinstance(error, KeyError) else f"{error}"
            raise FrameError(
                f"{path}: mask {number} cannot be read ({what}); {EXPECTED}"
            ) from error
    tracks = [entry.get("track_id") for entry in entries]
    ids = tracks if tracks and all(isinstance(t, int) and 0 < t < 1 << 31 for t in tracks) else None
    return stacked(masks, scores, camera, ids)


def _mask(code: Any, size: tuple[int, int] | None, path: Path, camera: Camera) -> np.ndarray:
    """One mask at the size of the picture, from run lengths, polygons, or rows of numbers."""
    if isinstance(code, Mapping):
        check_proportions(size_of(code), path, camera)
        return fitted(from_run_lengths(code), path, camera)
    if not isinstance(code, list) or not code:
        raise ValueError(f"its segmentation is {code!r:.40}")
    if not isinstance(code[0], list):
        code = [code]
    if len({len(each) for each in code}) == 1:
        rows = np.array(code)
        if rows.dtype == bool or np.isin(rows, (0, 1)).all():  # no polygon is that small
            return fitted(rows, path, camera)
    polygons = [np.array(each, np.float64).reshape(-1, 2) for each in code]
    if min(map(len, polygons)) < 3:
        raise ValueError("a polygon has fewer than 3 corners")
    return _drawn(polygons, size, path, camera)


def _drawn(
    polygons: Sequence[np.ndarray], size: tuple[int, int] | None, path: Path, camera: Camera
) -> np.ndarray:
    if size is not None:
        check_proportions(size, path, camera)
    height, width = size or (camera.height, camera.width)
    if not all(np.isfinite(each).all() for each in polygons):
        raise ValueError("a corner is not finite")
    scaled = [each * (camera.width / width, camera.height / height) for each in polygons]
    return from_polygons(scaled, camera.height, camera.width)


def _labelme(shapes: Any, size: tuple[int, int] | None, path: Path, camera: Camera) -> Masks:
    """labelme's shapes; those of one label and `group_id` are one mask."""
    groups: dict[tuple[str, str], list[np.ndarray]] = {}
    try:
        for number, shape in enumerate(shapes):
            kind = shape.get("shape_type") or "polygon"
            if kind not in CORNERS:
                raise InputError(
                    f"{path}: shape {number} is a {kind}; only polygons and rectangles are read"
                )
            corners = np.array(shape["points"], np.float64).reshape(-1, 2)
            if kind == "rectangle":
                (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
                corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
            group = shape.get("group_id")
            key = f"shape {number}" if group is None else f"group {group}"
            groups.setdefault((key, str(shape["label"])), []).append(corners)
        check_room(len(groups), path, camera)
        masks = [_drawn(polygons, size, path, camera) for polygons in groups.values()]
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise FrameError(f"{path}: its shapes cannot be read ({error!r}); {EXPECTED}") from error
    return stacked(masks, [1.0] * len(masks), camera)


def _stated(image: Any) -> tuple[int, int] | None:
    """Height and width that the file states for a picture."""
    if not isinstance(image, Mapping):
        return None
    for height, width in (("height", "width"), ("imageHeight", "imageWidth")):
        stated = image.get(height), image.get(width)
        if all(isinstance(each, int) and each > 0 for each in stated):
            return stated  # type: ignore[return-value]
    return None
