"""The counting kernel: compare the pixels of each cell with the pixels around it.

The surroundings of a cell are a few runs of the sorted pixels. They are copied into one buffer, as
float32 relative to the cell in units of epsilon, and compared with the cell's pixels in loops that
the compiler vectorises: sixteen pairs at a time on CPUs with AVX-512.

The counts are exact. A pair is within the radius if (dx*dx + dy*dy) + dz*dz <= epsilon*epsilon in
float64. With coordinates up to M, the error of the float32 squared distance is below
1e-6 * (M + 1) near 1; if any pair is within `DOUBT` * (M + 1) of the radius, the pixel is counted
again in float64.
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np

from lift3d.scene.compiled import compiled

DOUBT = 1e-5
"""Squared distances this close to the radius (in its units) are computed again in float64."""
LANES = 64
"""Buffers are padded to a multiple of this: four vectors of sixteen, no scalar tail."""
FAR = np.float32(1e18)
"""Coordinate of the padding: outside any radius, with a finite squared distance."""
i4 = np.int32


@compiled(parallel=True)
@no_type_check
def count(
    x, y, z, label, view, order, cell_key, start, bounds, rows, spans, kind, doubt, epsilon, out
):
    """Fill `out` (pixels, 6) with the columns of `NeighbourCounts`, at `order` of each pixel.

    Pixels are sorted by cell; cell c holds pixels `start[c]` to `start[c + 1]`, and `cell_key` is
    ascending. The surroundings of a cell are runs of keys with offsets `rows` and half lengths
    `spans`. `kind` is the key bit of labelled cells. `bounds` splits the cells into chunks.
    """
    doubt, unit = np.float32(doubt), np.float32(1.0 / epsilon)
    for chunk in numba.prange(len(bounds) - 1):
        first, last = bounds[chunk], bounds[chunk + 1]
        if first == last:
            continue
        near = np.empty((3, 4096), np.float32)
        tags = np.empty((2, 4096), i4)
        runs = np.empty((len(rows), 2), np.int64)
        # Cells and the keys of each run ascend, so these positions only move forward.
        same_at = np.searchsorted(cell_key, cell_key[first] + rows - spans)
        other_at = same_at
        for cell in range(first, last):
            begin, end = start[cell], start[cell + 1]
            key = cell_key[cell]
            labelled = key & kind
            if cell == first or labelled != cell_key[cell - 1] & kind:
                other_at = np.searchsorted(cell_key, (key ^ kind) + rows - spans)
            cx, cy, cz = x[begin], y[begin], z[begin]

            # Pixels of the same kind: count them with their labels and views.
            found = _runs(cell_key, start, key, rows, spans, same_at, runs)
            size = _total(runs, found)
            if size + LANES > near.shape[1]:
                near, tags = np.empty((3, 2 * size + LANES), np.float32), _tags(size)
            padded = _fill(x, y, z, label, view, runs, found, cx, cy, cz, unit, near, tags)
            nx, ny, nz, labels, views = near[0], near[1], near[2], tags[0], tags[1]
            one = labelled == 0 or _one_label(labels, size)
            for p in range(begin, end):
                px = (x[p] - cx) * unit
                py = (y[p] - cy) * unit
                pz = (z[p] - cz) * unit
                la, vi = label[p], view[p]
                if one:
                    n, o, most = _pairs(nx, ny, nz, views, padded, px, py, pz, doubt, vi)
                    s, b = n, o
                else:
                    n, s, o, b, most = _pairs_by_label(
                        nx, ny, nz, labels, views, padded, px, py, pz, doubt, la, vi
                    )
                if most != n:
                    n, s, o, b = _exactly(x, y, z, label, view, p, runs, found, epsilon)
                i = order[p]
                out[i, 0] = n
                out[i, 1] = s
                out[i, 2] = n
                out[i, 3] = o
                out[i, 4] = b
                out[i, 5] = o

            # Pixels of the other kind never have the same label: they only add to E.
            found = _runs(cell_key, start, key ^ kind, rows, spans, other_at, runs)
            size = _total(runs, found)
            if size == 0:
                continue
            if size + LANES > near.shape[1]:
                near, tags = np.empty((3, 2 * size + LANES), np.float32), _tags(size)
            padded = _fill(x, y, z, label, view, runs, found, cx, cy, cz, unit, near, tags)
            nx, ny, nz, views = near[0], near[1], near[2], tags[1]
            for p in range(begin, end):
                px = (x[p] - cx) * unit
                py = (y[p] - cy) * unit
                pz = (z[p] - cz) * unit
                n, o, most = _pairs(nx, ny, nz, views, padded, px, py, pz, doubt, view[p])
                if most != n:
                    n, _, o, _ = _exactly(x, y, z, label, view, p, runs, found, epsilon)
                i = order[p]
                out[i, 0] += n
                out[i, 3] += o


@compiled()
@no_type_check
def _tags(size):
    return np.empty((2, 2 * size + LANES), i4)


@compiled()
@no_type_check
def _runs(cell_key, start, key, rows, spans, at, runs):
    """Write the runs of pixels around a cell to `runs`; returns the number of non-empty runs."""
    found = 0
    cells = len(cell_key)
    for row in range(len(rows)):
        low, high = key + rows[row] - spans[row], key + rows[row] + spans[row]
        here = at[row]
        while here < cells and cell_key[here] < low:
            here += 1
        at[row] = here
        stop = here
        while stop < cells and cell_key[stop] <= high:
            stop += 1
        if stop > here:
            runs[found, 0], runs[found, 1] = start[here], start[stop]
            found += 1
    return found


@compiled()
@no_type_check
def _total(runs, found):
    size = 0
    for run in range(found):
        size += runs[run, 1] - runs[run, 0]
    return size


@compiled()
@no_type_check
def _fill(x, y, z, label, view, runs, found, cx, cy, cz, unit, near, tags):
    """Copy the runs into one buffer and pad it; returns the padded length."""
    nx, ny, nz, labels, views = near[0], near[1], near[2], tags[0], tags[1]
    k = 0
    for run in range(found):
        begin = runs[run, 0]
        length = runs[run, 1] - begin
        _shift(x, begin, length, cx, unit, nx, k)
        _shift(y, begin, length, cy, unit, ny, k)
        _shift(z, begin, length, cz, unit, nz, k)
        _copy(label, begin, length, labels, k)
        _copy(view, begin, length, views, k)
        k += length
    padded = (k + LANES - 1) // LANES * LANES
    nx[k:padded] = ny[k:padded] = nz[k:padded] = FAR
    labels[k:padded] = views[k:padded] = -1
    return padded


@compiled()
@no_type_check
def _one_label(labels, size):
    other = i4(0)
    for k in range(size):
        other = i4(other | (labels[k] ^ labels[0]))
    return other == 0


@compiled()
@no_type_check
def _pairs(nx, ny, nz, views, size, px, py, pz, doubt, view):
    """Counts of pixels certainly within the radius, of those in the view, and possibly within."""
    inside, outside = np.float32(1.0) - doubt, np.float32(1.0) + doubt
    found = own = most = i4(0)
    for k in range(size):
        dx, dy, dz = nx[k] - px, ny[k] - py, nz[k] - pz
        distance = dx * dx + dy * dy + dz * dz
        a = distance <= inside
        # Without the casts the counters are 64-bit, which halves the vector width.
        found = i4(found + i4(a))
        own = i4(own + i4(a & (views[k] == view)))
        most = i4(most + i4(distance <= outside))
    return found, own, most


@compiled()
@no_type_check
def _pairs_by_label(nx, ny, nz, labels, views, size, px, py, pz, doubt, label, view):
    """As `_pairs`, with labels: within, of those same label, same view, both; possibly within."""
    inside, outside = np.float32(1.0) - doubt, np.float32(1.0) + doubt
    found = same = own = both = most = i4(0)
    for k in range(size):
        dx, dy, dz = nx[k] - px, ny[k] - py, nz[k] - pz
        distance = dx * dx + dy * dy + dz * dz
        a = distance <= inside
        s = a & (labels[k] == label)
        o = a & (views[k] == view)
        found = i4(found + i4(a))
        same = i4(same + i4(s))
        own = i4(own + i4(o))
        both = i4(both + i4(s & o))
        most = i4(most + i4(distance <= outside))
    return found, same, own, both, most


@compiled()
@no_type_check
def _exactly(x, y, z, label, view, p, runs, found, epsilon):
    """The first four counts of `_pairs_by_label` in float64, by definition."""
    px, py, pz = np.float64(x[p]), np.float64(y[p]), np.float64(z[p])
    n = same = own = both = i4(0)
    for run in range(found):
        for q in range(runs[run, 0], runs[run, 1]):
            dx, dy, dz = x[q] - px, y[q] - py, z[q] - pz
            if (dx * dx + dy * dy) + dz * dz <= epsilon * epsilon:
                n += i4(1)
                same += i4(label[q] == label[p])
                own += i4(view[q] == view[p])
                both += i4(label[q] == label[p] and view[q] == view[p])
    return n, same, own, both


@compiled()
@no_type_check
def _shift(source, begin, length, centre, unit, target, at):
    b, t = np.uint64(begin), np.uint64(at)
    for j in range(np.uint64(length)):
        target[t + j] = (source[b + j] - centre) * unit


@compiled()
@no_type_check
def _copy(source, begin, length, target, at):
    b, t = np.uint64(begin), np.uint64(at)
    for j in range(np.uint64(length)):
        target[t + j] = source[b + j]
