"""Compiled loops over the matches for refinement.

An observation is one direction of a match: a pixel of `image` reprojected into `other`. `out`
holds, per observation: R_i X (3), R_i (X, Y, 0) (3), the point relative to the other camera's
centre in world axes (3), and the point in the other camera's frame (3).
"""

from __future__ import annotations

from typing import no_type_check

import numba
import numpy as np

from lift3d.scene.compiled import compiled

CHUNKS = 8
"""Cells are processed in this many pieces, so that sums do not depend on the number of threads."""


@compiled()
@no_type_check
def _place(rotation, position, focal, scale, correction, cell, image, other, pixel, depth, k, out):
    """Fill `out` for observation `k`; see the module's docstring."""
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


@compiled()
@no_type_check
def _jacobian(rotation, focal, i, j, out, target_x, target_y, jac, residual):
    """Both residuals and their derivatives by the image's 8, the other's 8 and the cell's value."""
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
        # Rotation by w moves p = R_i X_i by w x p, and row . (w x p) = w . (p x row).
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


@compiled()
@no_type_check
def _observation(
    rotation, position, focal, scale, correction,
    cell, image, other, pixel, depth, target, weight, width, k, out, jac, residual,
):  # fmt: skip
    """Fill derivatives and residuals of an observation; returns its weight, 0 behind a camera."""
    _place(rotation, position, focal, scale, correction, cell, image, other, pixel, depth, k, out)
    if out[11] < 1e-6:
        return 0.0
    _jacobian(rotation, focal, image[k], other[k], out, target[k, 0], target[k, 1], jac, residual)
    square = residual[0] ** 2 + residual[1] ** 2
    return weight[k] / (1 + square / width**2) ** 2


@compiled(parallel=True)
@no_type_check
def distances(
    rotation, position, focal, scale, correction,
    cell, image, other, pixel, depth, target, weight, error,
):  # fmt: skip
    """Fill `error` with reprojection errors in pixels; inf behind a camera."""
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


@compiled(parallel=True)
@no_type_check
def normal_equations(
    rotation, position, focal, scale, correction,
    cell, image, other, pixel, depth, target, weight,
    start, cell_prior, width, column, images,
    matrix, right, cell_matrix, cell_right,
):  # fmt: skip
    """Fill the normal equations of the cameras, cells eliminated, and of each observed cell."""
    touched = len(start) - 1
    for piece in numba.prange(CHUNKS):
        out, jac, residual = np.empty(12), np.empty((2, 17)), np.empty(2)
        columns = np.empty(16, np.int64)
        place = np.full(images, -1, np.int64)  # index of an image among the cell's observers
        observers = np.empty(images, np.int64)
        cross = np.empty((images, 8))
        for t in range(touched * piece // CHUNKS, touched * (piece + 1) // CHUNKS):
            begin, end = start[t], start[t + 1]
            i = image[begin]
            count = 1
            observers[0], place[i] = i, 0
            cross[0] = 0.0
            own = cell_prior[t]
            pull = -cell_prior[t] * np.log(correction[cell[begin]])
            for k in range(begin, end):
                j = other[k]
                w = _observation(
                    rotation, position, focal, scale, correction, cell, image, other, pixel,
                    depth, target, weight, width, k, out, jac, residual,
                )  # fmt: skip
                if w <= 0:
                    continue
                if place[j] < 0:
                    place[j] = count
                    observers[count] = j
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
                    cp = column[8 * observers[m] + p]
                    if cp < 0:
                        continue
                    value = cross[m, p] / own
                    right[piece, cp] -= value * pull
                    for n in range(count):
                        for q in range(8):
                            cq = column[8 * observers[n] + q]
                            if cq >= 0:
                                matrix[piece, cp, cq] -= value * cross[n, q]
            for m in range(count):
                place[observers[m]] = -1


@compiled(parallel=True)
@no_type_check
def cell_steps(
    rotation, position, focal, scale, correction,
    cell, image, other, pixel, depth, target, weight,
    start, width, step, cell_matrix, cell_right, touched_step,
):  # fmt: skip
    """Fill the steps of the observed cells by back-substitution of the cameras' step."""
    touched = len(start) - 1
    for piece in numba.prange(CHUNKS):
        out, jac, residual = np.empty(12), np.empty((2, 17)), np.empty(2)
        for t in range(touched * piece // CHUNKS, touched * (piece + 1) // CHUNKS):
            total = cell_right[t]
            for k in range(start[t], start[t + 1]):
                i, j = image[k], other[k]
                w = _observation(
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
