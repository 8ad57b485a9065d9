"""What a box means without a mask, where depth is dense: the superpoints that lie in it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Float64

from lift3d.correction.clicks.cutting import cut_out
from lift3d.correction.clicks.evidence import ends_within
from lift3d.correction.clicks.nodes import looked_up, sure_pieces
from lift3d.correction.clicks.place import Place
from lift3d.scene import Prompt

FILLS = 0.6
"""Least IoU of a box with the box around what is found in it. Chosen by hand on the shelf: a box
there often holds points of neighbours only."""
Boxes = Mapping[str, Float64[np.ndarray, "4"]]
"""Left, top, right and bottom of a box in pixels, by view."""
NO_BOXES: Boxes = MappingProxyType({})


def boxed(place: Place, boxes: Boxes) -> Bool[np.ndarray, " superpoints"]:
    """The superpoints that boxes around one object mean; their views have dense depth.

    A piece of surface counts as inside by the squared share of it that lies in the box, so a wall
    that goes on beyond the box is outside. Where what is found does not fill the box, the colours
    of the picture decide (GrabCut).
    """
    leaves = len(place.surface.object)
    inside, outside, whole = np.zeros(leaves), np.zeros(leaves), []
    for name, box in boxes.items():
        camera = place.view(name).camera
        region = within(box, (camera.height, camera.width))
        if ends_within(region):
            whole.append(name)
        own, other = _counted(place, name, region)
        share = _share(place, own, other) ** 2
        if _filled(shown(place, name, share > 0.5, box), region) < FILLS:
            prompt = Prompt(np.zeros((0, 2)), np.zeros(0, bool), None, box)
            mask = cut_out(place.view(name), None, prompt)
            if mask is not None:
                own, other = _counted(place, name, mask)
                share = (own > other).astype(np.float64)
        inside += share * own
        outside += other + (1 - share) * own
    return looked_up(place, inside, outside)[0] & ~place.beyond(whole, inside > outside)


def within(
    box: Float64[np.ndarray, "4"], shape: tuple[int, int]
) -> Bool[np.ndarray, "height width"]:
    """The pixels in a box, its last ones included.

    >>> within(np.array([1.0, 0.0, 2.0, 0.0]), (2, 4)).astype(int).tolist()
    [[0, 1, 1, 0], [0, 0, 0, 0]]
    """
    x0, y0, x1, y1 = np.round(box)
    row, column = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
    return (column >= x0) & (column <= x1) & (row >= y0) & (row <= y1)


def shown(
    place: Place,
    name: str,
    pieces: Bool[np.ndarray, " superpoints"],
    box: Float64[np.ndarray, "4"],
) -> Bool[np.ndarray, "height width"]:
    """The pixels in a box that show some superpoints, in a view with dense depth."""
    nearest = place.seen(name).nearest
    assert nearest is not None
    superpoint = np.append(place.surface.superpoint, np.int32(-1))[nearest]
    return within(box, nearest.shape) & np.append(pieces, False)[superpoint]


def _counted(
    place: Place, name: str, mask: Bool[np.ndarray, "height width"]
) -> tuple[Float64[np.ndarray, " superpoints"], Float64[np.ndarray, " superpoints"]]:
    """How many points of each superpoint a view sees in and out of a mask."""
    seen, leaves = place.seen(name).points, len(place.surface.object)
    piece = place.surface.superpoint[seen.point]
    hit, some = mask[seen.row, seen.column], piece >= 0
    inside = np.bincount(piece[hit & some], minlength=leaves)
    outside = np.bincount(piece[~hit & some], minlength=leaves)
    return inside.astype(np.float64), outside.astype(np.float64)


def _share(
    place: Place,
    inside: Float64[np.ndarray, " superpoints"],
    outside: Float64[np.ndarray, " superpoints"],
) -> Float64[np.ndarray, " superpoints"]:
    """Share of the piece of each superpoint that is inside, of what a view sees of it."""
    piece = sure_pieces(place.tree, place.surface.likelihood)
    own, other = np.bincount(piece, inside), np.bincount(piece, outside)
    return np.asarray((own / np.maximum(own + other, 1))[piece])


def _filled(
    found: Bool[np.ndarray, "height width"], region: Bool[np.ndarray, "height width"]
) -> float:
    """Share of a box that the box around what was found in it covers."""
    if not found.any():
        return 0.0
    rows, columns = np.nonzero(found)
    around = (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
    return float(around / np.count_nonzero(region))
