"""Average pairwise similarities over the view graph into initial poses and scales."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial.transform import Rotation

from lift3d.reconstruction.alignment.relative import Relative

CYCLE = np.deg2rad(4.0)
"""Maximum rotation error around a consistent triangle of pairs. Chosen by hand; not tuned on
data."""
APART = np.deg2rad(8.0)
"""Pairs whose rotation differs by more from the averaged rotations are dropped. Chosen by hand;
not tuned on data."""
MIN_SUPPORT = 0.34
"""Pairs with a smaller share of consistent triangles are dropped. Chosen by hand; not tuned on
data."""
ROUGH_WIDTH, FINE_WIDTH = 10.0, 2.0
"""Robust widths of rotation averaging in degrees: in the first 10 steps, and after. Chosen by
hand; not tuned on data."""
SCALE_WIDTH = 0.05
"""Robust width of scale averaging, in log scale. Chosen by hand; not tuned on data."""
POSITION_WIDTH = 0.1
"""Robust width of position averaging, as a share of the median baseline. Chosen by hand; not tuned
on data."""


@dataclass(frozen=True, eq=False)
class Layout:
    """A similarity per image: x_world = scale * rotation @ x_canonical + position."""

    members: list[int]
    rotation: Float64[np.ndarray, "images 3 3"]
    position: Float64[np.ndarray, "images 3"]
    log_scale: Float64[np.ndarray, " images"]
    kept: list[Relative]
    dropped: list[Relative]
    """Pairs that contradict the others."""


def lay_out(count: int, pairs: Sequence[Relative]) -> Layout:
    """Average the pairs over the largest connected set of images.

    Entries of images that are not in `members` are undefined.
    """
    supported = _support(count, pairs) >= MIN_SUPPORT
    trusted = [pair for pair, kept in zip(pairs, supported, strict=True) if kept]
    dropped = [pair for pair, kept in zip(pairs, supported, strict=True) if not kept]
    members = _largest(count, trusted)
    within = [pair for pair in trusted if pair.a in members]
    # Images connected only by dropped pairs are placed by these pairs rather than left out.
    for pair in sorted(dropped, key=lambda each: -each.agreeing):
        if (pair.a in members) != (pair.b in members):
            members = members | {pair.a, pair.b}
            within.append(pair)
    rotation = _rotations(count, members, within)
    kept = [pair for pair in within if _off(pair, rotation) < APART]
    if _largest(count, kept) != members:
        kept = within
    used = {id(pair) for pair in kept}
    log_scale = _scales(count, members, kept)
    position = _positions(count, members, kept, rotation, log_scale)
    return Layout(
        members=sorted(members),
        rotation=rotation,
        position=position,
        log_scale=log_scale,
        kept=kept,
        dropped=[pair for pair in pairs if id(pair) not in used],
    )


def _support(count: int, pairs: Sequence[Relative]) -> Float64[np.ndarray, " pairs"]:
    """Share of the triangles through each pair that are consistent; 1 for pairs in no triangle."""
    rotation = np.zeros((count, count, 3, 3))
    linked = np.zeros((count, count), bool)
    for pair in pairs:
        rotation[pair.a, pair.b], rotation[pair.b, pair.a] = pair.rotation, pair.rotation.T
        linked[pair.a, pair.b] = linked[pair.b, pair.a] = True
    share = np.ones(len(pairs))
    for index, pair in enumerate(pairs):
        third = np.flatnonzero(linked[pair.a] & linked[pair.b])
        if len(third):
            around = rotation[pair.a, third] @ rotation[third, pair.b]
            angle = _angle(around, pair.rotation)
            share[index] = (angle < CYCLE).mean()
    return share


def _angle(
    one: Float64[np.ndarray, "... 3 3"], other: Float64[np.ndarray, "... 3 3"]
) -> Float64[np.ndarray, "..."]:
    trace = np.einsum("...ij,...ij->...", one, other)
    return np.asarray(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


def _off(pair: Relative, rotation: Float64[np.ndarray, "images 3 3"]) -> float:
    return float(_angle(rotation[pair.a].T @ rotation[pair.b], pair.rotation))


def _largest(count: int, pairs: Sequence[Relative]) -> set[int]:
    """Images of the largest connected component; among equals, the first."""
    if not pairs:
        return {0}
    ends = np.array([(pair.a, pair.b) for pair in pairs])
    graph = coo_array((np.ones(len(ends)), ends.T), (count, count))
    _, component = connected_components(graph, directed=False)
    biggest = np.bincount(component).argmax()
    return set(np.flatnonzero(component == biggest).tolist())


def _rotations(
    count: int, members: set[int], pairs: Sequence[Relative]
) -> Float64[np.ndarray, "images 3 3"]:
    """World-from-camera rotations: along a spanning tree, then averaged with robust (IRLS) weights.

    Iteratively reweighted least squares on the rotations' tangents (Chatterjee and Govindu 2013).
    """
    rotation = np.tile(np.eye(3), (count, 1, 1))
    for pair in _tree(count, members, pairs):
        rotation[pair.b] = rotation[pair.a] @ pair.rotation
    place = {image: row for row, image in enumerate(sorted(members))}
    ends = np.array([(place[pair.a], place[pair.b]) for pair in pairs])
    measured = np.array([pair.rotation for pair in pairs])
    base = np.sqrt([max(pair.agreeing, 1) for pair in pairs])
    order = sorted(members)
    for step in range(30):
        now = rotation[order]
        # Residual rotation of b relative to a, in the world frame.
        gap = now[ends[:, 0]] @ measured @ now[ends[:, 1]].transpose(0, 2, 1)
        turn = Rotation.from_matrix(gap).as_rotvec()
        size = np.linalg.norm(turn, axis=1)
        width = np.deg2rad(ROUGH_WIDTH if step < 10 else FINE_WIDTH)
        weight = base / (1 + (size / width) ** 2)
        update = _difference_least_squares(len(order), ends, turn, weight)
        rotation[order] = Rotation.from_rotvec(update).as_matrix() @ now
        if np.abs(update).max() < 1e-7:
            break
    return rotation


def _tree(count: int, members: set[int], pairs: Sequence[Relative]) -> list[Relative]:
    """Pairs of the best spanning tree, in an order and direction that places one image each."""
    strength: dict[tuple[int, int], Relative] = {}
    for pair in pairs:
        strength[min(pair.a, pair.b), max(pair.a, pair.b)] = pair
    ends = np.array(list(strength))
    cost = np.array([1 / max(pair.agreeing, 1) for pair in strength.values()])
    tree = minimum_spanning_tree(coo_array((cost, ends.T), (count, count)).tocsr()).tocoo()
    edges = list(zip(tree.coords[0].tolist(), tree.coords[1].tolist(), strict=True))
    best = max(members, key=lambda image: sum(p.agreeing for p in pairs if image in (p.a, p.b)))
    placed, chain = {best}, []
    while edges:
        late = []
        for a, b in edges:
            pair = strength[min(a, b), max(a, b)]
            if pair.a in placed:
                chain.append(pair)
            elif pair.b in placed:
                chain.append(pair.inverse())
            else:
                late.append((a, b))
                continue
            placed |= {a, b}
        if len(late) == len(edges):
            break
        edges = late
    return chain


def _scales(
    count: int, members: set[int], pairs: Sequence[Relative]
) -> Float64[np.ndarray, " images"]:
    """Log scale from each image's canonical unit to the world's, with mean 0; IRLS weights."""
    order = sorted(members)
    place = {image: row for row, image in enumerate(order)}
    ends = np.array([(place[pair.a], place[pair.b]) for pair in pairs])
    measured = np.log([pair.scale for pair in pairs])[:, None]
    base = np.sqrt([max(pair.agreeing, 1) for pair in pairs])
    value = np.zeros((len(order), 1))
    weight = base
    for _ in range(20):
        value = _difference_least_squares(len(order), ends, measured, weight)
        off = np.abs(value[ends[:, 1]] - value[ends[:, 0]] - measured)[:, 0]
        weight = base / (1 + (off / SCALE_WIDTH) ** 2)
    scale = np.zeros(count)
    scale[order] = value[:, 0] - value.mean()
    return scale


def _positions(
    count: int,
    members: set[int],
    pairs: Sequence[Relative],
    rotation: Float64[np.ndarray, "images 3 3"],
    log_scale: Float64[np.ndarray, " images"],
) -> Float64[np.ndarray, "images 3"]:
    """Camera centres from the pairs' translations, with robust (IRLS) weights."""
    order = sorted(members)
    place = {image: row for row, image in enumerate(order)}
    ends = np.array([(place[pair.a], place[pair.b]) for pair in pairs])
    measured = np.array(
        [np.exp(log_scale[pair.a]) * rotation[pair.a] @ pair.translation for pair in pairs]
    )
    base = np.sqrt([max(pair.agreeing, 1) for pair in pairs])
    weight = base
    width = POSITION_WIDTH * max(float(np.median(np.linalg.norm(measured, axis=1))), 1e-9)
    value = np.zeros((len(order), 3))
    for _ in range(20):
        value = _difference_least_squares(len(order), ends, measured, weight)
        off = np.linalg.norm(value[ends[:, 1]] - value[ends[:, 0]] - measured, axis=1)
        weight = base / (1 + (off / width) ** 2)
    position = np.zeros((count, 3))
    position[order] = value
    return position


def _difference_least_squares(
    count: int,
    ends: np.ndarray,
    measured: Float64[np.ndarray, "pairs dims"],
    weight: Float64[np.ndarray, " pairs"],
) -> Float64[np.ndarray, "{count} dims"]:
    """Weighted least-squares values with value[b] - value[a] ~ measured; the first value is 0."""
    normal = np.zeros((count, count))
    np.add.at(normal, (ends[:, 0], ends[:, 0]), weight)
    np.add.at(normal, (ends[:, 1], ends[:, 1]), weight)
    np.add.at(normal, (ends[:, 0], ends[:, 1]), -weight)
    np.add.at(normal, (ends[:, 1], ends[:, 0]), -weight)
    right = np.zeros((count, measured.shape[1]))
    np.add.at(right, ends[:, 1], weight[:, None] * measured)
    np.add.at(right, ends[:, 0], -weight[:, None] * measured)
    value = np.zeros((count, measured.shape[1]))
    if count > 1:
        value[1:] = np.linalg.solve(normal[1:, 1:] + 1e-12 * np.eye(count - 1), right[1:])
    return value
