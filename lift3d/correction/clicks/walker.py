"""Random walks on a graph with priors (Grady 2006; with priors Grady 2005).

A walk starts at a node and goes along edges with probabilities in the ratio of their conductances,
until it leaves by a node's exit to "in" or to "out". The answer is the probability of "in", the
solution of (L + D) x = d, with L the graph's Laplacian, d the conductances to "in" and D the
conductances to both.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int

EXACT = 30_000
"""Nodes up to which the system is factorised; above, conjugate gradients."""


def walk(
    a: Int[np.ndarray, " edges"],
    b: Int[np.ndarray, " edges"],
    conductance: Float64[np.ndarray, " edges"],
    to_in: Float64[np.ndarray, " nodes"],
    to_out: Float64[np.ndarray, " nodes"],
) -> Float64[np.ndarray, " nodes"]:
    """Probability of each node to be in; 0.5 where a walk never leaves.

    >>> one, two = np.array([0, 1]), np.array([1, 2])
    >>> exits = np.array([1e6, 0, 0]), np.array([0, 0, 1e6])
    >>> walk(one, two, np.array([1.0, 3.0]), *exits).round(2).tolist()
    [1.0, 0.25, 0.0]
    """
    from scipy import sparse
    from scipy.sparse.linalg import cg, spsolve

    count = len(to_in)
    if not count:
        return np.zeros(0)
    half = sparse.coo_array((conductance, (a, b)), (count, count))
    both = (half + half.T).tocsr()
    tiny = 1e-9
    degree = np.asarray(both.sum(1)).ravel() + to_in + to_out + 2 * tiny
    system = (sparse.diags_array(degree) - both).tocsc()
    right = to_in + tiny
    if count <= EXACT:
        found = spsolve(system, right, permc_spec="MMD_AT_PLUS_A")
    else:
        found, _ = cg(system, right, rtol=1e-5, maxiter=500, M=sparse.diags_array(1 / degree))
    return np.clip(np.asarray(found, np.float64), 0.0, 1.0)
