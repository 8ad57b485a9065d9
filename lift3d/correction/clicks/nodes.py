"""Look up: the nodes of the tree of joins that a mask, or clicks, mean."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64

from lift3d.correction.clicks.place import Place
from lift3d.correction.joins import JoinTree
from lift3d.geometry.forest import tops
from lift3d.scene.errors import InputError

COST = 0.01
"""Share of the mask that one more node has to explain. Chosen by hand."""
SURE = 0.95
"""Probability of a join from which on its parts are one piece: patches of a wall. By hand: joins of
patches have 0.98."""
RIM = 0.02
"""Share of a piece; masks that show less of it may only have touched its rim. Chosen by hand."""
LIKELY = 0.5
"""Probability of a join from which on what no mask shows comes along. Chosen on synthetic rooms 0
and 2: with 0.8 and 0.9 room 0 gains 0.001 and loses 0.007."""


def explaining(
    tree: JoinTree,
    inside: Float64[np.ndarray, " superpoints"],
    outside: Float64[np.ndarray, " superpoints"],
) -> tuple[Bool[np.ndarray, " superpoints"], float]:
    """The set of nodes, none inside another, that explains a mask best; and its IoU.

    `inside` and `outside` count the points of each superpoint that prompted views see in and out
    of the mask. The best set has the largest inside - outside - `COST` a node; so few, large nodes
    are preferred, and parts of them that no prompted view sees belong to the set.
    """
    cost = COST * float(inside.sum())
    alone = tree.sums(inside) - tree.sums(outside) - cost
    best: dict[int, float] = {}
    whole = []
    for node in tree.above(np.flatnonzero(inside)):  # others have nothing to explain
        apart = sum(best.get(child, 0.0) for child in tree.children.get(node, ()))
        if alone[node] > 0 and alone[node] >= apart:
            whole.append(node)
        best[node] = max(float(alone[node]), apart)
    members = np.zeros(len(inside), bool)
    for node in whole:
        members |= tree.leaves_of(node)
    union = inside.sum() + outside[members].sum()
    return members, float(inside[members].sum() / max(union, 1e-9))


def coming_along(
    tree: JoinTree,
    likelihood: Float32[np.ndarray, " joins"],
    object_of: Int32[np.ndarray, " superpoints"],
    inside: Float64[np.ndarray, " superpoints"],
    outside: Float64[np.ndarray, " superpoints"],
) -> Bool[np.ndarray, " superpoints"]:
    """Superpoints that masks show, or that probably are one object with some that they show inside.

    A node of `explaining` costs nothing more for parts that no mask shows. These come along with
    their object in the run, if masks show more of it inside than outside; or by a join with
    something inside that is at least `LIKELY`.
    """
    leaves, shown = len(inside), inside + outside > 0
    span = int(object_of.max(initial=0)) + 1
    more = np.bincount(object_of, inside - outside, span) > 0
    more[0] = False  # no object
    probable = np.concatenate([np.ones(leaves), likelihood])[: len(tree.parent)]
    holds = np.zeros(len(tree.parent), bool)
    holds[:leaves] = inside > outside
    for node, (one, other) in tree.children.items():
        holds[node] = holds[one] or holds[other]
    joined = np.zeros(len(tree.parent))
    for node in range(len(joined) - 1, -1, -1):
        above = tree.parent[node]
        joined[node] = probable[node] if holds[node] else joined[above] if above >= 0 else 0.0
    return shown | more[object_of] | (joined[:leaves] >= LIKELY)


def of_shown_pieces(
    tree: JoinTree,
    likelihood: Float32[np.ndarray, " joins"],
    inside: Float64[np.ndarray, " superpoints"],
    outside: Float64[np.ndarray, " superpoints"],
    size: Int64[np.ndarray, " superpoints"],
) -> Bool[np.ndarray, " superpoints"]:
    """Superpoints that no mask shows, of pieces of which masks show more inside than outside, and
    not only a rim.

    So a wall comes along behind the cupboard that cuts it in two.
    """
    count = len(tree.parent)
    piece = sure_pieces(tree, likelihood)
    more = np.bincount(piece, inside - outside, count) > RIM * np.bincount(piece, size, count)
    return (inside + outside == 0) & more[piece]


def sure_pieces(
    tree: JoinTree, likelihood: Float32[np.ndarray, " joins"]
) -> Int64[np.ndarray, " superpoints"]:
    """The node of the piece of each superpoint: a wall is one piece of many patches.

    Where only masks decided, joins have no likelihood and each superpoint is a piece.
    """
    if not len(likelihood):
        return np.arange(tree.leaves)
    sure = np.concatenate([np.zeros(tree.leaves, bool), likelihood >= SURE])
    return tops(tree.parent, sure)[: tree.leaves]


def looked_up(
    place: Place,
    inside: Float64[np.ndarray, " superpoints"],
    outside: Float64[np.ndarray, " superpoints"],
) -> tuple[Bool[np.ndarray, " superpoints"], float]:
    """The superpoints that masks mean by the tree, with what no mask shows; and the IoU.

    `inside` and `outside` as for `explaining`.
    """
    tree, likelihood = place.tree, place.surface.likelihood
    members, iou = explaining(tree, inside, outside)
    if len(place.surface.joins):
        members &= coming_along(tree, likelihood, place.object_of_piece, inside, outside)
        members |= of_shown_pieces(tree, likelihood, inside, outside, place.sizes)
    return members, iou


def objects_of(
    tree: JoinTree,
    points: list[int],
    object_of: Int32[np.ndarray, " superpoints"],
    label: Int32[np.ndarray, " points"] | None = None,
) -> Bool[np.ndarray, " superpoints"]:
    """Superpoints of the objects of some points in the run, else of the nodes that the association
    chose.
    """
    found = np.zeros(len(object_of), bool)
    for point in points:
        if label is not None and label[point] > 0:
            found |= object_of == label[point]
        elif tree.path(point):
            level, path = tree.level(point)
            found |= tree.leaves_of(path[level])
    return found


def taken_away(
    tree: JoinTree, negative: list[int], positive: list[int]
) -> Bool[np.ndarray, " superpoints"]:
    """Superpoints of the largest nodes with a negative click and no positive one."""
    found = np.zeros(tree.leaves, bool)
    for point in negative:
        try:
            level, path = tree.level(point, remove=positive)
        except InputError:  # noise, or one superpoint holds both
            continue
        found |= tree.leaves_of(path[level])
    return found
