"""From what prompts say to the probability of every point: random walks over superpoints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32

from lift3d.correction.clicks.evidence import Evidence, sides
from lift3d.correction.clicks.nodes import looked_up, objects_of, taken_away
from lift3d.correction.clicks.place import Place, edges_of
from lift3d.correction.clicks.walker import walk


@dataclass(frozen=True)
class ClickConfig:
    """How prompts become an answer; the defaults are those that were measured best."""

    lookup: float = 1.0
    """Weight of the looked-up nodes for points that no mask decides; 0 does not look up."""
    graph: float = 1.0
    """Weight of the edges between superpoints; 0 has no graph."""
    visible: bool = True
    """Whether a point must be visible to be decided by a mask. False is a floor to compare with."""
    mixed: tuple[float, float] = (0.1, 0.9)
    """Superpoints with a share of points inside between these are divided."""
    smallest: float = 0.0005
    """Share of the image below which an object is not in a view."""


EVIDENCE = 20.0
"""Conductance to the exits per known point, relative to a border of one pair of points."""
ODDS = (0.02, 50.0)
"""Bounds of the odds that two superpoints are one object."""


def solve(
    place: Place, evidence: Evidence, config: ClickConfig
) -> tuple[Float64[np.ndarray, " points"], float]:
    """Probability of each point, and the IoU of the looked-up nodes with the masks.

    Points that a mask decides keep what it says; the others have the probability of their node in
    the graph of superpoints.
    """
    superpoint = place.surface.superpoint
    leaves = len(place.surface.object)
    known = np.flatnonzero(evidence.looked > 0)
    share = evidence.inside[known] / evidence.looked[known]
    counted = superpoint[known] >= 0
    of_piece, of_share = superpoint[known[counted]], share[counted]
    # Counts of nothing are integers.
    inside = np.bincount(of_piece, of_share, leaves).astype(np.float64)
    outside = np.bincount(of_piece, 1 - of_share, leaves).astype(np.float64)
    favoured, against, iou = _looked_up(place, evidence, inside, outside)
    node, divided = sides(superpoint, place.points.xyz, evidence, config.mixed)
    edges, conductance = _graph(place, node, divided)
    count = 2 * leaves
    of_node = node[known[counted]]
    to_in = EVIDENCE * np.bincount(of_node, of_share, count).astype(np.float64)
    to_out = EVIDENCE * np.bincount(of_node, 1 - of_share, count).astype(np.float64)
    size = np.zeros(count)
    size[::2] = place.sizes
    halves = np.flatnonzero(divided)
    for each in (2 * halves, 2 * halves + 1):
        size[each] = 0
    parts = node[place.points_in(halves)]
    size += np.bincount(parts, minlength=count)
    open_node = np.sqrt(size) * (to_in + to_out == 0)
    prior = np.repeat(favoured, 2) & ~np.repeat(against, 2)
    to_in += config.lookup * open_node * prior
    to_out += config.lookup * open_node * ~prior + 1e-3 * open_node
    for points, exits in ((evidence.positive, to_in), (evidence.negative, to_out)):
        places = node[points]
        exits[places[places >= 0]] += EVIDENCE * size[places[places >= 0]]
    found = walk(edges[:, 0], edges[:, 1], config.graph * conductance, to_in, to_out)
    probability = np.append(found, 0.0)[node]  # points in no superpoint have node -1
    probability[known] = share
    return probability, iou


def _looked_up(
    place: Place,
    evidence: Evidence,
    inside: Float64[np.ndarray, " superpoints"],
    outside: Float64[np.ndarray, " superpoints"],
) -> tuple[Bool[np.ndarray, " superpoints"], Bool[np.ndarray, " superpoints"], float]:
    """The superpoints that prompts mean by the tree, those that they exclude, and the IoU."""
    if evidence.meant is None:
        favoured = objects_of(place.tree, evidence.positive, place.object_of_piece, place.label)
        against = taken_away(place.tree, evidence.negative, evidence.positive)
    else:
        favoured = evidence.meant
        against = taken_away(place.tree, evidence.rivals, evidence.positive)
    favoured = favoured & ~against
    if inside.any() or outside.any():
        members, iou = looked_up(place, inside, outside)
        # A click on what no mask has decided adds its object.
        undecided = [each for each in evidence.positive if evidence.looked[each] == 0]
        favoured &= objects_of(place.tree, undecided, place.object_of_piece, place.label)
        unseen = inside + outside == 0
        pieces = place.surface.superpoint[evidence.positive]
        goes_on = inside > outside
        goes_on[pieces[pieces >= 0]] = True
        against |= place.beyond(evidence.whole, goes_on)
        return members | (favoured & unseen), against & unseen, iou
    return favoured, against, float("nan")


def _graph(
    place: Place, node: Int32[np.ndarray, " points"], divided: Bool[np.ndarray, " superpoints"]
) -> tuple[Int32[np.ndarray, "edges 2"], Float64[np.ndarray, " edges"]]:
    """Pairs of nodes and their conductance: contacts, times the odds that they are one object.

    Only the borders of divided superpoints are counted again.
    """
    edges, contact = place.edges()
    strength = place.strength
    if divided.any():
        kept = ~divided[edges].any(1)
        pairs = place.pairs_at(np.flatnonzero(divided))
        a, b = place.contacts
        more, of_more = edges_of(node, a[pairs], b[pairs])
        edges = np.concatenate([2 * edges[kept], more])
        contact = np.concatenate([contact[kept], of_more])
        strength = np.concatenate([strength[kept], place.strength_of(more // 2)])
    else:
        edges = 2 * edges
    odds = np.clip(strength / np.maximum(1 - strength, 1e-6), *ODDS)
    return edges, contact * odds
