"""The counting kernel: cells against the pixels around them, in vector instructions.

For one cell at a time, the pixels around it fall into three classes by their distance to
the cell's tight box: farther than the radius from all of it (dropped), within the radius of
all of it (sure: tallied once for the whole cell, by label, by view, by both), and open.
Only the open ones meet the cell's pixels one by one.

Nothing of this is approximate. A pair is within the radius where (dx*dx + dy*dy) + dz*dz <=
epsilon*epsilon in float64. Rounding is monotone, so the nearest and farthest corner of a box
bound the *rounded* distance of every pixel in it. The pairwise loop runs on float32
coordinates relative to the cell, in units of epsilon. With coordinates up to M that makes the
squared distance wrong by less than 4e-7 * (M + 1) near 1; where any pixel falls within
`DOUBT` * (M + 1) of the radius, the loop is done again in float64.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np

DOUBT = 1e-5
"""Squared distances about this close to the radius (in its units) are decided in float64."""
LANES = 64
"""Open lists are padded to a multiple of this: four vectors of sixteen, no scalar tail."""
FAR = np.float32(1e18)
"""Coordinate of the padding: its squared distance is beyond any radius, and finite."""
FEW = 8
"""Cells of fewer pixels do not repay the tally; their sure pixels stay open."""
i4 = np.int32


@numba.njit(cache=True, parallel=True)
@no_type_check
def count(
    x, y, z, label, view, group, tallies, order, cell_key, start, bounds, rows, spans, epsilon, out
):
    """Fill `out` (pixels, 6) with the fields of `NeighbourCounts`, at `order` of each pixel.

    Pixels are sorted by cell; cell c holds `start[c]` up to `start[c + 1]` and `cell_key`
    ascends. A cell's surroundings are runs of keys: `rows` are their offsets, `spans` their
    half lengths. `bounds` cuts the cells into chunks for the threads. `tallies` holds the
    numbers of labels, views and groups (a group is a label in a view).
    """
    square, unit = epsilon * epsilon, 1.0 / epsilon
    for chunk in numba.prange(len(bounds) - 1):
        first, last = bounds[chunk], bounds[chunk + 1]
        if first == last:
            continue
        by_label = np.zeros(tallies[0], i4)
        by_view = np.zeros((tallies[1], 2), i4)  # unlabelled, labelled
        by_group = np.zeros(tallies[2], i4)
        room = 4096
        sure = np.empty(room, i4)
        # Open pixels, unlabelled and labelled apart: so "kin" needs no counter of its own.
        near = np.empty((2, 3, room), np.float32)
        tags = np.empty((2, 2, room), i4)
        index = np.empty((2, room), i4)
        # Cells ascend and so do the keys of each run: these only ever move forward.
        at = np.searchsorted(cell_key, cell_key[first] + rows - spans)
        for cell in range(first, last):
            begin, end = start[cell], start[cell + 1]
            x0, x1 = _range(x, begin, end)
            y0, y1 = _range(y, begin, end)
            z0, z1 = _range(z, begin, end)
            cx, cy, cz = 0.5 * (x0 + x1), 0.5 * (y0 + y1), 0.5 * (z0 + z1)
            # Cells are small but for scenes so vast that their keys would not fit.
            largest = 0.5 * max(x1 - x0, y1 - y0, z1 - z0) * unit + 1.0
            doubt = DOUBT * (largest + 1.0)
            tally = end - begin >= FEW
            surely = surely_labelled = 0
            unlabelled = labelled = 0
            for run in range(len(rows)):
                middle = cell_key[cell] + rows[run]
                here = at[run]
                while here < len(cell_key) and cell_key[here] < middle - spans[run]:
                    here += 1
                at[run] = here
                stop = here
                while stop < len(cell_key) and cell_key[stop] <= middle + spans[run]:
                    stop += 1
                needed = max(surely, unlabelled, labelled) + start[stop] - start[here] + LANES
                if needed > room:
                    room = 2 * needed
                    sure = _grown(sure, room)
                    near = _grown3(near, room)
                    tags = _grown3(tags, room)
                    index = np.stack((_grown(index[0], room), _grown(index[1], room)))
                for q in range(start[here], start[stop]):
                    qx, qy, qz = np.float64(x[q]), np.float64(y[q]), np.float64(z[q])
                    dx = max(x0 - qx, qx - x1, 0.0)
                    dy = max(y0 - qy, qy - y1, 0.0)
                    dz = max(z0 - qz, qz - z1, 0.0)
                    if (dx * dx + dy * dy) + dz * dz > square:
                        continue
                    kind = i4(label[q] > 0)
                    dx, dy, dz = max(qx - x0, x1 - qx), max(qy - y0, y1 - qy), max(qz - z0, z1 - qz)
                    if tally and (dx * dx + dy * dy) + dz * dz <= square:
                        sure[surely] = q
                        surely += 1
                        surely_labelled += kind
                        by_label[label[q]] += i4(1)
                        by_view[view[q], kind] += i4(1)
                        by_group[group[q]] += i4(1)
                        continue
                    k = labelled if kind else unlabelled
                    near[kind, 0, k] = (qx - cx) * unit
                    near[kind, 1, k] = (qy - cy) * unit
                    near[kind, 2, k] = (qz - cz) * unit
                    tags[kind, 0, k] = label[q]
                    tags[kind, 1, k] = view[q]
                    index[kind, k] = q
                    labelled += kind
                    unlabelled += 1 - kind
            _pad(near[0], tags[0], unlabelled)
            _pad(near[1], tags[1], labelled)
            for p in range(begin, end):
                la, vi, kind = label[p], view[p], i4(label[p] > 0)
                n0, s0, o0, b0 = _open(
                    near[0],
                    tags[0],
                    index[0],
                    unlabelled,
                    x,
                    y,
                    z,
                    p,
                    cx,
                    cy,
                    cz,
                    epsilon,
                    doubt,
                    la,
                    vi,
                )
                n1, s1, o1, b1 = _open(
                    near[1],
                    tags[1],
                    index[1],
                    labelled,
                    x,
                    y,
                    z,
                    p,
                    cx,
                    cy,
                    cz,
                    epsilon,
                    doubt,
                    la,
                    vi,
                )
                i = order[p]
                out[i, 0] = surely + n0 + n1
                out[i, 1] = by_label[la] + s0 + s1
                out[i, 2] = surely_labelled + n1 if kind else surely - surely_labelled + n0
                out[i, 3] = by_view[vi, 0] + by_view[vi, 1] + o0 + o1
                out[i, 4] = by_group[group[p]] + b0 + b1
                out[i, 5] = by_view[vi, kind] + (o1 if kind else o0)
            for k in range(surely):
                q = sure[k]
                by_label[label[q]] = 0
                by_view[view[q], 0] = by_view[view[q], 1] = 0
                by_group[group[q]] = 0


@numba.njit(cache=True)
@no_type_check
def _open(near, tags, index, n, x, y, z, p, cx, cy, cz, epsilon, doubt, label, view):
    """Of `n` open pixels: within the radius of p; and of its label; of its view; of both."""
    if n == 0:
        return i4(0), i4(0), i4(0), i4(0)
    px, py, pz = np.float64(x[p]), np.float64(y[p]), np.float64(z[p])
    found, same, own, both, doubtful = _pairs(
        near[0], near[1], near[2], tags[0], tags[1], (n + LANES - 1) // LANES * LANES,
        np.float32((px - cx) / epsilon), np.float32((py - cy) / epsilon),
        np.float32((pz - cz) / epsilon), np.float32(doubt), label, view,
    )  # fmt: skip
    if doubtful == found:
        return found, same, own, both
    found = same = own = both = i4(0)
    for k in range(n):
        q = index[k]
        dx, dy, dz = x[q] - px, y[q] - py, z[q] - pz
        if (dx * dx + dy * dy) + dz * dz <= epsilon * epsilon:
            found += i4(1)
            same += i4(tags[0, k] == label)
            own += i4(tags[1, k] == view)
            both += i4(tags[0, k] == label and tags[1, k] == view)
    return found, same, own, both


@numba.njit(cache=True)
@no_type_check
def _pairs(bx, by, bz, labels, views, n, px, py, pz, doubt, label, view):
    """The inner loop in float32 and int32: sixteen pairs an instruction where the CPU can.

    The last count takes doubtful distances in, the others leave them out.
    """
    inside, outside = np.float32(1.0) - doubt, np.float32(1.0) + doubt
    found = same = own = both = reach = i4(0)
    for k in range(n):
        dx, dy, dz = bx[k] - px, by[k] - py, bz[k] - pz
        distance = dx * dx + dy * dy + dz * dz
        a = distance <= inside
        s = a & (labels[k] == label)
        o = a & (views[k] == view)
        # Without the casts the counters are 64 bit and half of each vector is lost.
        found = i4(found + i4(a))
        same = i4(same + i4(s))
        own = i4(own + i4(o))
        both = i4(both + i4(s & o))
        reach = i4(reach + i4(distance <= outside))
    return found, same, own, both, reach


@numba.njit(cache=True)
@no_type_check
def _pad(near, tags, n):
    for k in range(n, (n + LANES - 1) // LANES * LANES):
        near[0, k] = near[1, k] = near[2, k] = FAR
        tags[0, k] = tags[1, k] = -1


@numba.njit(cache=True)
@no_type_check
def _range(values, begin, end):
    low = high = np.float64(values[begin])
    for i in range(begin + 1, end):
        low, high = min(low, values[i]), max(high, values[i])
    return low, high


@numba.njit(cache=True)
@no_type_check
def _grown(array, room):
    new = np.empty(room, array.dtype)
    new[: len(array)] = array
    return new


@numba.njit(cache=True)
@no_type_check
def _grown3(array, room):
    new = np.empty((array.shape[0], array.shape[1], room), array.dtype)
    new[:, :, : array.shape[2]] = array
    return new
