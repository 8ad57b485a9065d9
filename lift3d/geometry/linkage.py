"""Average-linkage clustering of a sparse graph whose edges carry evidence for and against."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Float64, Int32

from lift3d.geometry.graphs import find_root
from lift3d.scene.compiled import compiled

PRIOR = 0.5
"""Pseudo-count for and against each pair (Jeffreys' prior), so that little evidence stays near
0.5."""


def agglomerate(
    nodes: int,
    a: Int32[np.ndarray, " pairs"],
    b: Int32[np.ndarray, " pairs"],
    agree: Float64[np.ndarray, " pairs"],
    total: Float64[np.ndarray, " pairs"],
    threshold: float,
) -> Int32[np.ndarray, " nodes"]:
    """Merge the two clusters with the highest agreement until none is above `threshold`.

    The agreement of two clusters is the sum of `agree` over all pairs between them divided by
    the sum of `total`, with the pseudo-count `PRIOR` for and against. Returns a cluster index per
    node, from 0, in the order of each cluster's first node. Pairs must be unique and a != b.

    A heap holds the edges and a hash table finds the edge between two clusters, so that a merge
    visits only the edges of the smaller cluster: n log n in total.
    """
    kept = total > 0
    parent = _agglomerate(
        nodes, a[kept].copy(), b[kept].copy(), agree[kept], total[kept], threshold, PRIOR
    )
    _, first, cluster = np.unique(parent, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(len(first), dtype=np.int32)
    return rank[cluster]


@compiled()
@no_type_check
def _slot(keys, key):
    """Index of `key` in the open-addressing table, or of the slot to insert it."""
    mask = np.uint64(len(keys) - 1)
    mixed = np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)
    at = (mixed ^ (mixed >> np.uint64(32))) & mask
    while keys[at] != -1 and keys[at] != key:
        at = (at + np.uint64(1)) & mask
    return at


@compiled()
@no_type_check
def _table(size, a, b, alive, nodes):
    """A new table of the remaining edges, keyed by both ends."""
    capacity = 64
    while capacity < 3 * size:
        capacity *= 2
    keys = np.full(capacity, -1, np.int64)
    values = np.empty(capacity, np.int32)
    for edge in range(len(a)):
        if alive[edge]:
            low, high = min(a[edge], b[edge]), max(a[edge], b[edge])
            at = _slot(keys, np.int64(low) * nodes + high)
            keys[at], values[at] = np.int64(low) * nodes + high, edge
    return keys, values


@compiled()
@no_type_check
def _push(heap_score, heap_edge, size, score, edge):
    """Insert into a binary heap: highest score first, of equal scores the smaller edge."""
    at = size
    while at > 0:
        up = (at - 1) >> 1
        if heap_score[up] > score or (heap_score[up] == score and heap_edge[up] <= edge):
            break
        heap_score[at], heap_edge[at] = heap_score[up], heap_edge[up]
        at = up
    heap_score[at], heap_edge[at] = score, edge


@compiled()
@no_type_check
def _drop_top(heap_score, heap_edge, size):
    """Remove the first of `size` entries."""
    score, edge = heap_score[size - 1], heap_edge[size - 1]
    size -= 1
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        right = child + 1
        if right < size and (
            heap_score[right] > heap_score[child]
            or (heap_score[right] == heap_score[child] and heap_edge[right] < heap_edge[child])
        ):
            child = right
        if score > heap_score[child] or (score == heap_score[child] and edge < heap_edge[child]):
            break
        heap_score[at], heap_edge[at] = heap_score[child], heap_edge[child]
        at = child
    heap_score[at], heap_edge[at] = score, edge


@compiled()
@no_type_check
def _agglomerate(nodes, a, b, agree, total, threshold, prior):
    edges = len(a)
    parent = np.arange(nodes)
    alive = np.ones(edges, np.bool_)
    # Each cluster has a linked list of half-edges: a[e] has 2e, b[e] has 2e + 1.
    head = np.full(nodes, -1, np.int64)
    tail = np.full(nodes, -1, np.int64)
    following = np.full(2 * edges, -1, np.int64)
    degree = np.zeros(nodes, np.int64)
    score = np.empty(edges)
    heap_score = np.empty(edges + 1024)
    heap_edge = np.empty(edges + 1024, np.int64)
    heap_size = 0
    for edge in range(edges):
        for side in range(2):
            node = b[edge] if side else a[edge]
            half = 2 * edge + side
            following[half] = head[node]
            if head[node] < 0:
                tail[node] = half
            head[node] = half
            degree[node] += 1
        score[edge] = (agree[edge] + prior) / (total[edge] + 2 * prior)
        if score[edge] > threshold:
            _push(heap_score, heap_edge, heap_size, score[edge], edge)
            heap_size += 1
    keys, values = _table(edges, a, b, alive, nodes)
    filled, living = edges, edges
    while heap_size:
        top_score, edge = heap_score[0], heap_edge[0]
        _drop_top(heap_score, heap_edge, heap_size)
        heap_size -= 1
        if not alive[edge] or score[edge] != top_score:
            continue  # merged, or its score has changed since
        stays, goes = a[edge], b[edge]
        if degree[stays] < degree[goes] or (degree[stays] == degree[goes] and goes < stays):
            stays, goes = goes, stays
        alive[edge] = False
        living -= 1
        parent[goes] = stays
        half = head[goes]
        while half >= 0:
            after = following[half]
            link = half >> 1
            if alive[link]:
                other = a[link] if b[link] == goes else b[link]
                low, high = min(stays, other), max(stays, other)
                key = np.int64(low) * nodes + high
                at = _slot(keys, key)
                double = values[at] if keys[at] == key else -1
                if double >= 0 and alive[double]:
                    agree[double] += agree[link]
                    total[double] += total[link]
                    alive[link] = False
                    living -= 1
                    link = double
                else:
                    if keys[at] == -1:
                        filled += 1
                    keys[at], values[at] = key, link
                    a[link], b[link] = stays, other
                    # Move the half-edge to the list of the cluster that stays.
                    following[half] = -1
                    if head[stays] < 0:
                        head[stays] = half
                    else:
                        following[tail[stays]] = half
                    tail[stays] = half
                    degree[stays] += 1
                updated = (agree[link] + prior) / (total[link] + 2 * prior)
                if updated != score[link]:
                    score[link] = updated
                    if updated > threshold:
                        if heap_size == len(heap_score):
                            heap_score = np.concatenate((heap_score, np.empty(heap_size)))
                            heap_edge = np.concatenate((heap_edge, np.empty(heap_size, np.int64)))
                        _push(heap_score, heap_edge, heap_size, updated, link)
                        heap_size += 1
                if 3 * filled > 2 * len(keys):
                    keys, values = _table(living, a, b, alive, nodes)
                    filled = living
            half = after
    for node in range(nodes):
        parent[node] = find_root(parent, node)
    return parent
