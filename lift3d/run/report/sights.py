"""One pass over a run's label maps: coloured copies for people, and where each object shows best.

Label maps hold ids, so image programs show them black. The copies (`labels_coloured/`) have the
same names and are for people: to correct labels by hand, edit those in `labels/`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lift3d.scene import LabelMap
from lift3d.scene.colours import Palette, label_colours
from lift3d.scene.labelmaps import find_label_map, read_label_map
from lift3d.scene.storage import atomic

DENSE = 1 << 16
"""Ids below it are counted in a table."""
CUT = 0.5
"""What the pixels of an object count that reaches the border of a picture: it may be cut there."""


@dataclass(frozen=True)
class Sight:
    """The view that shows an object best."""

    view: int
    """Its position in the scene."""
    worth: float
    """Pixels of the object, less where the picture's border may cut it."""
    box: tuple[int, int, int, int]
    """Top, bottom, left, right; bottom and right are the first row and column outside."""


def best_sights(maps: Iterable[tuple[int, LabelMap]]) -> dict[int, Sight]:
    """The best sight of each id above 0, from pairs of a view's position and its label map.

    Of two views as good the first is taken.
    """
    best: dict[int, Sight] = {}
    for view, labels in maps:
        add_sights(best, view, labels)
    return best


def add_sights(best: dict[int, Sight], view: int, labels: LabelMap) -> None:
    """Put into `best` what one view shows better than those before it."""
    from scipy.ndimage import find_objects

    ids, dense = None, labels
    if labels.size and labels.max() >= DENSE:  # then a list of all ids would be long
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
        worth = float(sizes[number]) * (1.0 if inside else CUT)
        each = number if ids is None else int(ids[number])
        if each not in best or worth > best[each].worth:
            best[each] = Sight(view, worth, (rows.start, rows.stop, columns.start, columns.stop))


def write_coloured(path: Path, labels: LabelMap, palette: Palette | None = None) -> None:
    """A label map as a PNG in the colours of its ids.

    Up to id 255 it has a palette and the ids are its indices, so that it is a label map too
    (`read_label_map`); past that it has plain colours, which nothing takes for ids.
    """
    from PIL import Image

    if labels.size == 0 or labels.max() < 256:
        picture = Image.fromarray(labels.astype(np.uint8))
        picture.putpalette(label_colours(np.arange(256, dtype=np.int32), palette).tobytes())
    else:
        picture = Image.fromarray(label_colours(labels, palette))
    with atomic(path) as part:
        picture.save(part, compress_level=1)


def coloured_copies(
    folder: Path, names: Iterable[str], palette: Palette | None = None
) -> Iterable[tuple[int, LabelMap]]:
    """Write `<folder>_coloured/<name>.png` of each label map; give its position and ids.

    A view without a label map is passed over. What lies there of other views is removed.
    """
    home = folder.with_name(f"{folder.name}_coloured")
    home.mkdir(exist_ok=True)
    names = list(names)
    for old in home.glob("*.png"):
        if old.stem not in names:
            old.unlink()
    for position, name in enumerate(names):
        path = find_label_map(folder, name)
        if path is None:
            continue
        labels = read_label_map(path)
        write_coloured(home / f"{name}.png", labels, palette)
        yield position, labels
