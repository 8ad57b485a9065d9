"""Select the views of a scene to lift. The constants were chosen by hand."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from lift3d.scene import Camera, Scene, View, distinct
from lift3d.scene.errors import FrameError, InputError

GRID = (12, 16)
"""Rows and columns of the rays sampled in a view."""
SAMPLES = 256
"""Most depth maps that are read, evenly spaced; other views use the nearest one's."""
CELLS_TO_DEPTH = 8
"""The usual depth divided by the edge of a cell."""
AGAIN = 0.25
"""Factor on the gain of a cell with each observation: the second one confirms a surface (fusion
needs two), a third adds little."""


def select(scene: Scene, views: int | None = None, stride: int = 1) -> Scene:
    """Every `stride`-th view, and of these at most `views`, in capture order.

    With known poses, the views that together cover most of the scene; else evenly spaced ones.
    """
    if stride < 1:
        raise InputError(f"stride is {stride}; expected 1 (every view) or more")
    if views is not None and views < 1:
        raise InputError(f"views is {views}; expected 1 or more")
    chosen = scene.views[::stride]
    if views is not None and views < len(chosen):
        posed = all(view.geometry_camera.world_from_camera is not None for view in chosen)
        index = most_covering(shown_cells(chosen), views) if posed else None
        if index is None:
            index = np.linspace(0, len(chosen) - 1, views).round().astype(int).tolist()
        chosen = tuple(chosen[i] for i in index)
    return scene.with_views(chosen)


def most_covering(cells: Sequence[Int64[np.ndarray, "_"]], count: int) -> list[int]:
    """`count` of the views, ascending, always with the first: greedily those that cover most.

    A cell counts 1 at its first observation and `AGAIN` times less at each further one. Greedy
    reaches at least 1 - 1/e of the optimum (Nemhauser et al. 1978). A gain never grows, so few
    are computed again (Minoux 1978). A tie goes to the earlier view.

    >>> most_covering([np.array([1, 2]), np.array([1, 2]), np.array([3]), np.array([2, 4])], 3)
    [0, 2, 3]
    """
    _, flat = np.unique(np.concatenate(cells), return_inverse=True)
    of_view = np.split(flat, np.cumsum([len(each) for each in cells])[:-1])
    worth = np.ones(int(flat.max(initial=0)) + 1)
    worth[of_view[0]] *= AGAIN
    chosen = [0]
    queue = [(-float(len(each)), i) for i, each in enumerate(of_view) if i]
    heapq.heapify(queue)
    while len(chosen) < count:
        index = heapq.heappop(queue)[1]
        again = (-float(worth[of_view[index]].sum()), index)
        if queue and again > queue[0]:
            heapq.heappush(queue, again)
            continue
        chosen.append(index)
        worth[of_view[index]] *= AGAIN
    return sorted(chosen)


def shown_cells(views: Sequence[View]) -> list[Int64[np.ndarray, "_"]]:
    """The cells of a coarse grid in space that each view observes; every view has a pose.

    Decodes no colour and at most `SAMPLES` depth maps. Without depth, the distance of the surface
    is assumed to be half the extent of the camera positions, as for a walk around an object.
    """
    depths = _depths(views)
    known = np.concatenate([each[each > 0] for each in depths.values()] or [np.zeros(0)])
    places = np.stack([view.geometry_camera.pose[:3, 3] for view in views])
    usual = float(np.median(known)) if len(known) else float(np.ptp(places, axis=0).max()) / 2
    usual = usual or 1.0
    sampled = np.array(sorted(depths), np.int64)
    found = []
    for index, view in enumerate(views):
        depth = np.full(GRID, usual)
        if len(known):
            own = depths[int(sampled[np.abs(sampled - index).argmin()])]
            depth = own if own.any() else depth
        found.append(_cells(view.geometry_camera, depth, usual / CELLS_TO_DEPTH))
    return found


def _depths(views: Sequence[View]) -> dict[int, Float64[np.ndarray, "rows columns"]]:
    """Depth of some views at the rays of the grid, by the view's number; 0 = missing."""
    having = [i for i, view in enumerate(views) if view.load_depth is not None]
    steps = np.linspace(0, len(having) - 1, min(SAMPLES, len(having))).round().astype(int)
    found = {}
    for index in (having[step] for step in steps):
        try:
            depth = views[index].depth()
        except FrameError:
            continue  # the depth of the nearest view is used
        assert depth is not None
        depth = np.where(np.isfinite(depth), depth, 0).astype(np.float64)
        if views[index].sparse:  # few rays would meet a known pixel
            known = depth[depth > 0]
            found[index] = np.full(GRID, np.median(known) if len(known) else 0.0)
        else:
            row, column = (_centres(size, n) for size, n in zip(depth.shape, GRID, strict=True))
            found[index] = depth[np.ix_(row.round().astype(int), column.round().astype(int))]
    return found


def _cells(
    camera: Camera, depth: Float64[np.ndarray, "rows columns"], edge: float
) -> Int64[np.ndarray, "_"]:
    """Numbers of the cells at the ends of the rays."""
    y, x = np.meshgrid(
        _centres(camera.height, GRID[0]), _centres(camera.width, GRID[1]), indexing="ij"
    )
    pixel = np.stack([x, y, np.ones(GRID)], axis=-1)
    in_camera = (pixel @ np.linalg.inv(camera.K).T * depth[..., None])[depth > 0]
    world = in_camera @ camera.pose[:3, :3].T + camera.pose[:3, 3]
    middle = 1 << 20  # 21 bits per axis
    cell = np.clip(np.floor(world / edge) + middle, 0, 2 * middle - 1).astype(np.int64)
    return distinct((cell[:, 0] << 42) | (cell[:, 1] << 21) | cell[:, 2])


def _centres(size: int, count: int) -> Float64[np.ndarray, " count"]:
    """Coordinates of the centres of `count` equal parts of a side, in pixels."""
    return np.clip((np.arange(count) + 0.5) * size / count - 0.5, 0, size - 1)
