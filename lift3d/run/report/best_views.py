"""Find the view that shows each object best, and write coloured copies of label maps.

Both need one pass over the label maps. Label maps hold ids, so image programs show them black. The
copies (`labels_coloured/`) have the same names and are for people. To correct labels by hand, edit
the files in `labels/`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lift3d.scene import LabelMap
from lift3d.scene.colours import Palette, label_colours
from lift3d.scene.labelmaps import find_label_map, flat_png, read_label_map
from lift3d.scene.prefetch import THREADS, prefetch
from lift3d.scene.storage import atomic, fresh_folder

DENSE = 1 << 16
"""Ids below it are counted in an array indexed by id."""
CUT = 0.5
"""Weight of an object's pixels where it reaches the picture's border, which may cut it. Chosen by
hand."""
Box = tuple[int, int, int, int]
"""Top, bottom, left, right; bottom and right are the first row and column outside."""


@dataclass(frozen=True)
class BestView:
    """The view that shows an object best."""

    view: int
    """Position of the view in the scene."""
    value: float
    """Number of the object's pixels, times `CUT` where it reaches the picture's border."""
    box: Box


def best_views(maps: Iterable[tuple[int, LabelMap]]) -> dict[int, BestView]:
    """The best view of each id above 0, from pairs of a view's position and its label map.

    Of two equal views the first is taken.
    """
    best: dict[int, BestView] = {}
    for view, labels in maps:
        update_best_views(best, view, labels)
    return best


def update_best_views(best: dict[int, BestView], view: int, labels: LabelMap) -> None:
    """Put into `best` the objects that this view shows better than the views before."""
    from scipy.ndimage import find_objects

    ids, dense = None, labels
    if labels.size and labels.max() >= DENSE:  # an array indexed by id would be large
        ids, position = np.unique(np.maximum(labels, 0), return_inverse=True)
        dense = position.reshape(labels.shape).astype(np.int32) + int(ids[0] > 0)
        ids = np.concatenate([[0], ids]) if ids[0] > 0 else ids
    sizes = np.bincount(dense.ravel())
    height, width = labels.shape
    for number, box in enumerate(find_objects(dense), start=1):
        if box is None:
            continue
        rows, columns = box
        inside = rows.start > 0 and columns.start > 0
        inside = inside and rows.stop < height and columns.stop < width
        value = float(sizes[number]) * (1.0 if inside else CUT)
        each = number if ids is None else int(ids[number])
        if each not in best or value > best[each].value:
            best[each] = BestView(view, value, (rows.start, rows.stop, columns.start, columns.stop))


def write_coloured(path: Path, labels: LabelMap, palette: Palette | None = None) -> None:
    """Write a label map as a PNG in the colours of its ids.

    With ids up to 255 the PNG has a palette and its pixel values are the ids, so that
    `read_label_map` reads it too; with larger ids it is RGB, which no reader takes for ids.
    """
    from PIL import Image

    if labels.size and labels.max() >= 256:
        with atomic(path) as part:
            part.write_bytes(flat_png(label_colours(labels, palette)[..., ::-1]))
        return
    picture = Image.fromarray(labels.astype(np.uint8))
    picture.putpalette(label_colours(np.arange(256, dtype=np.int32), palette).tobytes())
    with atomic(path) as part:
        picture.save(part, compress_level=1)


def coloured_copies(
    folder: Path, names: Iterable[str], palette: Palette | None = None
) -> Iterable[tuple[int, LabelMap]]:
    """Write `<folder>_coloured/<name>.png` of each label map; yield its position and ids.

    A view without a label map is skipped. The folder is new: what was in it before is gone.
    """
    maps = [
        (position, path)
        for position, name in enumerate(names)
        if (path := find_label_map(folder, name)) is not None
    ]
    with fresh_folder(folder.with_name(f"{folder.name}_coloured")) as home:

        def copied(item: tuple[int, Path]) -> tuple[int, LabelMap]:
            position, path = item
            labels = read_label_map(path)
            write_coloured(home / f"{path.stem}.png", labels, palette)
            return position, labels

        yield from prefetch(maps, copied, threads=THREADS)
