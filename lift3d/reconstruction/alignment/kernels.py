"""The loops over matches that refinement consists of, compiled.

A look is a match from one side. `out` holds, of a look: the point turned into the world (3), the
same of its ray without depth's share (3), the point from the other camera's centre (3), and in
the other camera's frame (3).
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np

CHUNKS = 8
"""Cells are worked through in this many pieces, whatever the number of threads: sums, and so
results, do not depend on it."""


@numba.njit(cache=True)
@no_type_check
def _place(rotation, position, focal, scale, correction, cell, image, other, pixel, depth, k, out):
    """Fill `out` with the point in the image's frame, turned, and in the other's; see callers."""
    i, j = image[k], other[k]
    z = scale[i] * correction[cell[k]] * depth[k]
    x, y = pixel[k, 0] / focal[i] * z, pixel[k, 1] / focal[i] * z
    for row in range(3):
        flat = rotation[i, row, 0] * x + rotation[i, row, 1] * y
        out[row] = flat + rotation[i, row, 2] * z  # R_i X_i
        out[3 + row] = flat  # R_i (X, Y, 0)
        out[6 + row] = out[row] + position[i, row] - position[j, row]  # X_w - c_j
    for row in range(3):
        out[9 + row] = (
            rotation[j, 0, row] * out[6]
            + rotation[j, 1, row] * out[7]
            + rotation[j, 2, row] * out[8]
        )  # in the other's frame


@numba.njit(cache=True)
@no_type_check
def _jacobian(rotation, focal, i, j, out, target_x, target_y, jac, residual):
    """Derivatives of both residuals: 8 of the image, 8 of the other, 1 of the cell."""
    inverse = 1.0 / out[11]
    u, v = out[9] * inverse, out[10] * inverse
    f = focal[j]
    residual[0], residual[1] = f * u - target_x, f * v - target_y
    for row in range(2):
        # d residual / d X_w: the rows of f/z [1 0 -u; 0 1 -v] R_j^T.
        lead = u if row == 0 else v
        a = f * inverse * (rotation[j, 0, row] - lead * rotation[j, 0, 2])
        b = f * inverse * (rotation[j, 1, row] - lead * rotation[j, 1, 2])
        c = f * inverse * (rotation[j, 2, row] - lead * rotation[j, 2, 2])
        # exp(w) R_i X_i: w x p; the row times (w x p) is w . (p x row).
        jac[row, 0] = out[1] * c - out[2] * b
        jac[row, 1] = out[2] * a - out[0] * c
        jac[row, 2] = out[0] * b - out[1] * a
        jac[row, 3], jac[row, 4], jac[row, 5] = a, b, c
        jac[row, 6] = -(a * out[3] + b * out[4] + c * out[5])
        along = a * out[0] + b * out[1] + c * out[2]
        jac[row, 7] = along
        jac[row, 8] = -(out[7] * c - out[8] * b)
        jac[row, 9] = -(out[8] * a - out[6] * c)
        jac[row, 10] = -(out[6] * b - out[7] * a)
        jac[row, 11], jac[row, 12], jac[row, 13] = -a, -b, -c
        jac[row, 14] = f * lead
        jac[row, 15] = 0.0
        jac[row, 16] = along


@numba.njit(cache=True)
@no_type_check
def _look(
    rotation, position, focal, scale, correction,
    cell, image, other, pixel, depth, target, weight, width, k, out, jac, residual,
):  # fmt: skip
    """Fill derivatives and residuals of one look; its weight, 0 where it falls behind a camera."""
    _place(rotation, position, focal, scale, correction, cell, image, other, pixel, depth, k, out)
    if out[11] < 1e-6:
        return 0.0
    _jacobian(rotation, focal, image[k], other[k], out, target[k, 0], target[k, 1], jac, residual)
    square = residual[0] ** 2 + residual[1] ** 2
    return weight[k] / (1 + square / width**2) ** 2


@numba.njit(cache=True, parallel=True)
@no_type_check
def distances(
    rotation, position, focal, scale, correction,
    cell, image, other, pixel, depth, target, weight, error,
):  # fmt: skip
    """Fill `error`: how far, in pixels, each look falls from its target."""
    for piece in numba.prange(CHUNKS):
        out = np.empty(12)
        first, last = len(cell) * piece // CHUNKS, len(cell) * (piece + 1) // CHUNKS
        for k in range(first, last):
            _place(
                rotation, position, focal, scale, correction, cell, image, other, pixel, depth,
                k, out,
            )  # fmt: skip
            if out[11] < 1e-6:
                error[k] = np.inf
                continue
            f = focal[other[k]] / out[11]
            error[k] = np.hypot(f * out[9] - target[k, 0], f * out[10] - target[k, 1])


@numba.njit(cache=True, parallel=True)
@no_type_check
def normal_equations(
    rotation, position, focal, scale, correction,
    cell, image, other, pixel, depth, target, weight,
    start, cell_prior, width, column, images,
    matrix, right, cell_matrix, cell_right,
):  # fmt: skip
    """Fill the cameras' equations, cells eliminated, and each touched cell's own."""
    touched = len(start) - 1
    for piece in numba.prange(CHUNKS):
        out, jac, residual = np.empty(12), np.empty((2, 17)), np.empty(2)
        columns = np.empty(16, np.int64)
        place = np.full(images, -1, np.int64)  # of an image among those that look at this cell
        looking = np.empty(images, np.int64)
        cross = np.empty((images, 8))
        for t in range(touched * piece // CHUNKS, touched * (piece + 1) // CHUNKS):
            begin, end = start[t], start[t + 1]
            i = image[begin]
            count = 1
            looking[0], place[i] = i, 0
            cross[0] = 0.0
            own = cell_prior[t]
            pull = -cell_prior[t] * np.log(correction[cell[begin]])
            for k in range(begin, end):
                j = other[k]
                w = _look(
                    rotation, position, focal, scale, correction, cell, image, other, pixel,
                    depth, target, weight, width, k, out, jac, residual,
                )  # fmt: skip
                if w <= 0:
                    continue
                if place[j] < 0:
                    place[j] = count
                    looking[count] = j
                    cross[count] = 0.0
                    count += 1
                at = place[j]
                for p in range(8):
                    columns[p], columns[8 + p] = column[8 * i + p], column[8 * j + p]
                for row in range(2):
                    cell_way = jac[row, 16]
                    own += w * cell_way * cell_way
                    pull -= w * cell_way * residual[row]
                    for p in range(16):
                        cp = columns[p]
                        if cp < 0:
                            continue
                        value = w * jac[row, p]
                        right[piece, cp] -= value * residual[row]
                        if p < 8:
                            cross[0, p] += value * cell_way
                        else:
                            cross[at, p - 8] += value * cell_way
                        for q in range(16):
                            if columns[q] >= 0:
                                matrix[piece, cp, columns[q]] += value * jac[row, q]
            own = max(own, 1e-12)
            cell_matrix[t], cell_right[t] = own, pull
            # Eliminate the cell.
            for m in range(count):
                for p in range(8):
                    cp = column[8 * looking[m] + p]
                    if cp < 0:
                        continue
                    value = cross[m, p] / own
                    right[piece, cp] -= value * pull
                    for n in range(count):
                        for q in range(8):
                            cq = column[8 * looking[n] + q]
                            if cq >= 0:
                                matrix[piece, cp, cq] -= value * cross[n, q]
            for m in range(count):
                place[looking[m]] = -1


@numba.njit(cache=True, parallel=True)
@no_type_check
def cell_steps(
    rotation, position, focal, scale, correction,
    cell, image, other, pixel, depth, target, weight,
    start, width, step, cell_matrix, cell_right, touched_step,
):  # fmt: skip
    """Fill the step of each touched cell that goes with the cameras' step."""
    touched = len(start) - 1
    for piece in numba.prange(CHUNKS):
        out, jac, residual = np.empty(12), np.empty((2, 17)), np.empty(2)
        for t in range(touched * piece // CHUNKS, touched * (piece + 1) // CHUNKS):
            total = cell_right[t]
            for k in range(start[t], start[t + 1]):
                i, j = image[k], other[k]
                w = _look(
                    rotation, position, focal, scale, correction, cell, image, other, pixel,
                    depth, target, weight, width, k, out, jac, residual,
                )  # fmt: skip
                if w <= 0:
                    continue
                for row in range(2):
                    along = 0.0
                    for p in range(8):
                        along += jac[row, p] * step[8 * i + p] + jac[row, 8 + p] * step[8 * j + p]
                    total -= w * jac[row, 16] * along
            touched_step[t] = total / cell_matrix[t]
