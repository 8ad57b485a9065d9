"""Identities that cover the same points become one, by the agreement of the views.

The masks of different views need not know of each other (`independent`, `folder`), or may carry
ids that a tracker kept for a while. What decides is what the views say of the points:

1. anchors, an even subset of the cloud, are read in every view (`evidence`);
2. pairs of them, near and far, are counted: seen in one mask, seen in two; superpoints are
   merged while the views that see both put them into one mask (`lift3d.geometry.linkage`), then
   pieces that do not touch (`clusters.join_distant`): lifted average-linkage clustering of the
   agreement;
3. clusters that no view segments as a whole are given up (`clusters.confirmed`); the others are
   looked for again in random parts of the masks, which tells how stable they are (`stability`);
4. each mask now speaks for the objects it covers, by likelihood: half an object still speaks
   for the whole, a mask over two for both. Evidence is summed per superpoint and smoothed over
   the surface, so borders follow bends and colour rather than rough masks (`labelling`).

Masks of a view may overlap and have scores (`lift3d.scene.mask_sets`, `overlap`).

Masks of surfaces, such as `regions` makes, say little of objects: with `config.by_shape` steps
2 to 4 give way to the shape of the fused surface (`shape`); masks only tell neighbours apart.

MaskClustering (Yan et al. 2024) introduced view consensus, for whole masks; SAI3D (Yin et al.
2024) affinities of superpoints. The likelihood of step 4 is that of Dawid and Skene (1979), with
views for raters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64

from lift3d.association.anchors import choose_anchors
from lift3d.association.assignments import KEPT, Assignments, assign
from lift3d.association.clusters import cover, gains, largest_in_rows, support
from lift3d.association.config import AssociationConfig
from lift3d.association.evidence import Observations, observe
from lift3d.association.identities import identities
from lift3d.association.labelling import Evidence, gather, mask_index
from lift3d.association.meanfield import smooth
from lift3d.association.scoring import VOTES_COUNT, confidences, scores
from lift3d.association.shape.consensus import Cuts
from lift3d.association.superpoints import superpoints, surface_graph
from lift3d.association.surface import Surface, majority, touching
from lift3d.association.votes.ballot import vote_labels
from lift3d.geometry.graphs import by_difference
from lift3d.geometry.scale import fitted
from lift3d.geometry.visibility import DepthTolerance, cloud_spacing
from lift3d.scene import LabelledPoints, LabelMap, Points, Scene, View
from lift3d.scene.labelmaps import check_label_maps, derived
from lift3d.scene.mask_sets import ViewMasks, flat, flat_maps
from lift3d.scene.skipping import warnings_of


@dataclass(frozen=True, eq=False)
class Association:
    """The labelled cloud, and what became of the identities that came in."""

    cloud: LabelledPoints
    """Ids from 1, larger objects first."""
    confidence: dict[int, float]
    """How well views segment each object as a whole, and how stable it is when masks are left out,
    0 to 1: the ranking for AP."""
    summary: dict[str, int]
    warnings: list[str]
    tolerance: DepthTolerance
    assignments: Assignments | None = field(default=None, repr=False)
    """Which mask became which object; None where the ids of the masks were trusted."""
    surface: Surface | None = field(default=None, repr=False)
    """What the objects are made of; None where the ids of the masks were trusted."""

    def relabel(self, index: int, view: View, masks: ViewMasks) -> LabelMap:
        """The label map of view `index`, whose masks are `masks`, under the objects' ids."""
        if self.assignments is None:
            return flat(masks)
        return self.assignments.relabelled(index, view, masks, self.cloud, self.tolerance)


NO_VOTE = "has no vote"
"""Of a view whose depth cannot be read, in the warnings."""
UNSEEN = "no view sees any of the points: are they in metres and in the frame of the scan's poses?"
"""In the warnings."""
FEWEST = 200
"""Clouds of fewer points than this many times `points` ask for fewer per object."""
CLOSE, AT_LEAST = 0.01, 10
"""Spacing in metres from which on `points` counts as it is; wider, the same area has fewer points,
but no fewer than the second. By hand: 50 points 3 cm apart are 21 × 21 cm, so cups were dropped."""


def associate(
    points: Points,
    scene: Scene,
    label_maps: Mapping[str, ViewMasks],
    config: AssociationConfig = AssociationConfig(),
    tolerance: DepthTolerance = DepthTolerance(),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    surface: Points | None = None,
) -> Association:
    """Label `points` by the masks of all views, given by their names; each is read twice.

    A view's masks are a label map, or a `MaskSet` where they overlap or have scores. With
    `config.by_shape` objects are found on `surface`, a denser cloud of the same scene, if there is
    one, and each point takes the label of the nearest point there.

    Raises InputError where a view has no label map, or one of another size than its image. Memory
    grows with the points and, by 20 kB each, with the views.
    """
    check_label_maps(label_maps, scene)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    tolerance = fitted(tolerance, scene, points)
    if not config.overlaps:
        label_maps = flat_maps(label_maps)
    total = len(scene) * (1 if config.trust_ids else 2)
    gap = max(cloud_spacing(points), 1e-9)
    config = replace(config, points=_fewest(config.points, len(points), gap, scene.metric))
    if config.trust_ids:
        return _trusting(points, scene, label_maps, config, tolerance, step)
    if config.by_shape:
        # Pieces of surface have one mask per view each: the smallest.
        label_maps = flat_maps(label_maps)
        surface = points if surface is None else surface
        return _by_shape(points, surface, scene, label_maps, config, tolerance, step)
    a, b, difference = surface_graph(points, 10)
    graph = points, a, b, difference
    order = by_difference(difference)
    fine = superpoints(*graph, scale=0.02, smallest=5, cell=10 * gap, order=order)
    coarse = superpoints(*graph, scale=0.1, smallest=5, cell=250 * gap, order=order)

    chosen = choose_anchors(points.xyz, config.anchors)
    anchors = points.take(chosen)
    seen = observe(anchors, scene, label_maps, tolerance, step)
    cluster, stable = identities(seen, anchors, coarse[chosen], fine[chosen], config, seed)
    count = int(cluster.max(initial=-1)) + 1
    covered = cover(seen, cluster, count)
    best_two = support(seen, covered).best_two
    gain = gains(seen, covered, np.ones(count, bool))
    primary = largest_in_rows(covered.regions.T.tocsr())
    if seen.overlap is not None:  # a sliver between two borders, without anchors
        primary = np.where(primary < 0, largest_in_rows(gain), primary)
    evidence = gather(points, fine, scene, label_maps, seen, gain, primary, tolerance, step)
    before = _decide(evidence, fine, a, b, difference, config)
    label, rank = _by_size(before, count, config.points)
    # Two views may outline by chance what hangs on a few masks; the stability tells.
    sure = confidences((best_two + stable) / 2, rank)
    score = scores(evidence.ballot, label, rank, sure, VOTES_COUNT)
    cloud = LabelledPoints(points, label, score)
    assignments = assign(seen, label[chosen], before[chosen])
    return Association(
        cloud,
        sure,
        *_account(seen, assignments, cluster, int(label.max(initial=0)), count),
        tolerance,
        assignments,
        by_evidence(fine, a, b, difference, label),
    )


def by_evidence(
    fine: Int32[np.ndarray, " points"],
    a: Int32[np.ndarray, " edges"],
    b: Int32[np.ndarray, " edges"],
    difference: Float32[np.ndarray, " edges"],
    label: Int32[np.ndarray, " points"],
) -> Surface:
    """The fine superpoints; the views, not a tree of joins, decided on their objects."""
    count = int(fine.max(initial=-1)) + 1
    edges, strength = touching(fine, a, b, np.exp(-difference / np.float32(0.1)))
    return Surface(
        fine,
        edges,
        strength,
        np.zeros((0, 2), np.int32),
        np.zeros(0, np.float32),
        np.arange(count, dtype=np.int32),
        majority(fine, label, count),
    )


def _by_shape(
    points: Points,
    surface: Points,
    scene: Scene,
    label_maps: Mapping[str, LabelMap],
    config: AssociationConfig,
    tolerance: DepthTolerance,
    step: Callable[[], None],
) -> Association:
    """Objects by the shape of `surface`, brought to `points`; masks get their ids."""
    cuts = Cuts(points, surface, [view.camera for view in scene.views], scene.metric)
    chosen = choose_anchors(points.xyz, config.anchors)
    seen = observe(points.take(chosen), scene, label_maps, tolerance, step, cuts.add)
    found = cuts.objects()
    object_of, confidence = found.object, found.confidence
    label, rank = _by_size(object_of + 1, len(confidence), config.points)
    count = int(rank.max(initial=0))
    covered = cover(seen, label[chosen] - 1, count)
    votes = np.append(largest_in_rows(covered.under.T.tocsr()) + 1, 0).astype(np.int32)
    starts = np.searchsorted(seen.mask_view, np.arange(len(scene) + 1))
    place = {view.name: index for index, view in enumerate(scene.views)}

    def voted(name: str, labels: LabelMap) -> LabelMap:
        low, high = (int(each) for each in starts[place[name] : place[name] + 2])
        return votes[mask_index(labels, seen.mask_label[low:high], low)]

    # The surface has settled the labels; votes give the scores, and what no view saw has none.
    maps = derived(label_maps, voted)
    ballot = vote_labels(points, scene, maps, lambda done, of: step(), tolerance)
    seen_points = np.where(ballot.looked > 0, label, 0).astype(np.int32)
    label, renumbered = _by_size(seen_points, count, config.points)
    rank = np.append(np.int32(0), renumbered)[rank]
    count = int(rank.max(initial=0))
    sure = confidences(confidence, rank)
    cloud = LabelledPoints(points, label, scores(ballot, label, renumbered, sure))
    assignments = assign(seen, label[chosen], object_of[chosen] + 1)
    return Association(
        cloud,
        sure,
        *_account(
            seen,
            assignments,
            label[chosen] - 1,
            count,
            len(rank),
            "lie on no object of the surface",
            "the surface has none" if points.normal.any() else "the cloud has no normals",
        ),
        tolerance,
        assignments,
        found.surface(label),
    )


def _fewest(wanted: int, points: int, gap: float, metric: bool) -> int:
    """Points of the smallest object: fewer where the cloud is small or its points far apart."""
    if metric and gap > CLOSE:
        wanted = min(wanted, max(AT_LEAST, round(wanted * (CLOSE / gap) ** 2)))
    return min(wanted, max(3, points // FEWEST))


def _decide(
    evidence: Evidence,
    piece: Int32[np.ndarray, " points"],
    a: Int32[np.ndarray, " edges"],
    b: Int32[np.ndarray, " edges"],
    difference: Float32[np.ndarray, " edges"],
    config: AssociationConfig,
) -> Int32[np.ndarray, " points"]:
    """Object + 1 of each point, 0 = unlabelled."""
    if not evidence.gain.shape[1]:
        return np.zeros(len(piece), np.int32)
    size = np.bincount(piece)
    # Neighbouring points err together: evidence grows with a piece's width, not its area.
    energy = evidence.gain.copy()
    entries = np.diff(energy.indptr)
    energy.data /= np.repeat(np.maximum(evidence.looked, 1e-9), entries)
    energy.data *= np.repeat(np.sqrt(size), entries)
    one, other = piece[a], piece[b]
    across = one != other
    link = np.exp(-difference[across].astype(np.float64) / 0.1)
    label = smooth(energy, one[across], other[across], link, rounds=30) + np.int32(1)
    share = evidence.labelled / np.maximum(evidence.looked, 1e-9)
    background = share < config.covered * _usual(share, label, size)
    label[background | (entries == 0)] = 0
    # A superpoint may hold two objects of one colour in one plane: where nearly all looks at a
    # point agree, they are right and the superpoint is wrong.
    voted, weight = evidence.ballot.top(1)
    looked = evidence.ballot.looked
    sure = (weight[:, 0] >= config.consensus * looked) & (looked > 0)
    return np.where(sure, voted[:, 0], np.where(looked > 0, label[piece], 0)).astype(np.int32)


def _usual(
    share: Float32[np.ndarray, " pieces"],
    label: Int32[np.ndarray, " pieces"],
    size: Int64[np.ndarray, " pieces"],
) -> Float64[np.ndarray, " pieces"]:
    """Median of `share` over the points of each piece's object: how complete its masks are."""
    order = np.lexsort((share, label))
    mass = np.cumsum(size[order])
    known, first = np.unique(label[order], return_index=True)
    before = np.append(0, mass)[first]
    after = np.append(before[1:], mass[-1:])
    middle = order[np.searchsorted(mass, before + (after - before) / 2)]
    usual = np.zeros(int(label.max(initial=0)) + 1)
    usual[known] = share[middle]
    return usual[label]


def _by_size(
    label: Int32[np.ndarray, " points"], count: int, smallest: int
) -> tuple[Int32[np.ndarray, " points"], Int32[np.ndarray, " objects"]]:
    """Ids from 1, larger first, small ones 0; and the new id of each object."""
    sizes = np.bincount(label, minlength=count + 1)[1:]
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] >= max(smallest, 1)]
    rank = np.zeros(count, np.int32)
    rank[order] = np.arange(1, len(order) + 1)
    return np.append(np.int32(0), rank)[label], rank


def _account(
    seen: Observations,
    assignments: Assignments,
    cluster: Int32[np.ndarray, " anchors"],
    objects: int,
    clusters: int,
    unlike: str = "fit no object that other views confirm",
    nothing: str = "no mask is confirmed by a second view",
) -> tuple[dict[str, int], list[str]]:
    """What became of the identities: nothing is merged or divided silently.

    `unlike`: why a mask is dropped; `nothing`: why there may be no object.
    """
    identities = len(np.unique(seen.mask_label))
    kept = assignments.reason == KEPT
    pairs = np.unique(np.stack([assignments.mask, assignments.object])[:, kept], axis=1)
    _, homes = np.unique(pairs[0], return_counts=True)
    summary = {
        "identities": identities,
        "masks": len(seen.mask_view),
        "objects": objects,
        "identities_merged": max(0, len(homes) - objects),
        "identities_split": int((homes > 1).sum()),
        "masks_divided": int(assignments.divided.sum()),
        "masks_dropped": int((~kept).sum()),
        "objects_dropped": clusters - objects,
    }
    warnings = warnings_of(seen.skipped, NO_VOTE)
    if seen.views and not any(each.seen.any() for each in seen.packed):
        warnings.append(UNSEEN)
    if summary["identities_split"]:
        warnings.append(
            f"{summary['identities_split']} ids stood for more than one object and were split"
        )
    if summary["masks_divided"]:
        warnings.append(
            f"{summary['masks_divided']} of {len(kept)} masks covered more than one object "
            "and were divided along the cloud's labels"
        )
    if summary["masks_dropped"]:
        warnings.append(
            f"{summary['masks_dropped']} of {len(kept)} masks {unlike} and were dropped"
        )
    if not objects:
        warnings.append(f"no object was found: {nothing}")
    return summary, warnings


def _trusting(
    points: Points,
    scene: Scene,
    label_maps: Mapping[str, ViewMasks],
    config: AssociationConfig,
    tolerance: DepthTolerance,
    step: Callable[[], None],
) -> Association:
    """Votes alone; ids stay as they came."""
    ballot = vote_labels(
        points, scene, label_maps, progress=lambda done, of: step(), tolerance=tolerance
    )
    label, score = ballot.result()
    ids, counts = np.unique(label[label > 0], return_counts=True)
    small = ids[counts < config.points]
    label[np.isin(label, small)] = 0
    score[label == 0] = 0
    found = ids[counts >= config.points]
    confidence = {int(i): round(float(score[label == i].mean()), 6) for i in found}
    summary = {"identities": len(ids), "objects": len(found), "objects_dropped": len(small)}
    warnings = warnings_of(ballot.skipped, NO_VOTE)
    cloud = LabelledPoints(points, label, score)
    return Association(cloud, confidence, summary, warnings, tolerance)
