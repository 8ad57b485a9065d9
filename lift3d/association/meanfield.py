"""Evidence per superpoint, smoothed over the surface by a sparse mean field."""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np
from jaxtyping import Float64, Int32
from scipy import sparse

from lift3d.scene.compiled import compiled


def smooth(
    evidence: sparse.csr_array,
    a: Int32[np.ndarray, " edges"],
    b: Int32[np.ndarray, " edges"],
    weight: Float64[np.ndarray, " edges"],
    rounds: int,
) -> Int32[np.ndarray, " superpoints"]:
    """The most probable object of each superpoint in a Potts model of evidence and neighbours.

    `evidence` (superpoints, objects) is in nats, 0 or more; `weight` is the strength of the
    link between the ends of an edge. Of equally probable objects the first; -1 where neither a
    superpoint nor its neighbours have evidence.

    A superpoint stores the probabilities of objects with evidence at it or at a neighbour, and one
    common probability for each other object: few of thousands of objects are near one place.
    """
    count, objects = evidence.shape
    half = sparse.coo_array((weight, (a, b)), (count, count))
    links = (half + half.T).tocsr().astype(np.float32)
    kept = _pattern(evidence)
    kept = (kept + _pattern(links) @ kept).tocsr()
    kept.sort_indices()
    energy = np.zeros(kept.nnz, np.float32)
    place = (evidence.indptr, evidence.indices, evidence.data.astype(np.float32))
    _spread(*place, kept.indptr, kept.indices, energy)
    belief, others = np.zeros(kept.nnz, np.float32), np.zeros(count, np.float32)
    no_links = np.zeros_like(links.indptr), links.indices, links.data
    state = belief, others
    for number in range(rounds + 1):
        near = (links.indptr, links.indices, links.data) if number else no_links
        fresh = np.empty_like(belief), np.empty_like(others)
        _round(kept.indptr, kept.indices, energy, *near, *state, objects, *fresh)
        state = fresh
    return _best(kept.indptr, kept.indices, state[0])


def _pattern(matrix: sparse.csr_array) -> sparse.csr_array:
    """The matrix with ones as entries, so that sums of products stay above 0."""
    parts = (np.ones(matrix.nnz, np.float32), matrix.indices, matrix.indptr)
    return sparse.csr_array(parts, matrix.shape)


@compiled()
@no_type_check
def _spread(start, column, value, kept_start, kept_column, out):
    """Copy values to their places in a larger pattern; columns ascend in both."""
    for row in range(len(start) - 1):
        at = kept_start[row]
        for k in range(start[row], start[row + 1]):
            while kept_column[at] != column[k]:
                at += 1
            out[at] = value[k]


@compiled(parallel=True)
@no_type_check
def _round(start, column, energy, near_start, near, link, belief, others, objects, new, new_others):
    """One parallel update of all superpoints from the probabilities of the round before."""
    for i in numba.prange(len(start) - 1):
        first, last = start[i], start[i + 1]
        for k in range(first, last):
            new[k] = energy[k]
        other = np.float32(0.0)
        for n in range(near_start[i], near_start[i + 1]):
            j, w = near[n], link[n]
            other += w * others[j]
            at, end = start[j], start[j + 1]
            for k in range(first, last):
                while at < end and column[at] < column[k]:
                    at += 1
                known = at < end and column[at] == column[k]
                new[k] += w * (belief[at] if known else others[j])
        most = other
        for k in range(first, last):
            most = max(most, new[k])
        left = objects - (last - first)
        other = np.exp(other - most)
        total = left * np.float64(other)
        for k in range(first, last):
            new[k] = np.exp(new[k] - most)
            total += new[k]
        new_others[i] = other / total
        for k in range(first, last):
            new[k] /= total


@compiled()
@no_type_check
def _best(start, column, belief):
    best = np.full(len(start) - 1, -1, np.int32)
    for i in range(len(best)):
        most = np.float32(-1.0)
        for k in range(start[i], start[i + 1]):
            if belief[k] > most:
                best[i], most = column[k], belief[k]
    return best
