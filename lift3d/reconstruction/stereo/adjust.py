"""Bundle adjustment of given poses, near where they were given (Triggs et al. 2000).

Poses of trackers are off by a few pixels, too much for stereo. Points are eliminated by the Schur
complement; what is given pulls every pose back, so that the scale and the frame stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from lift3d.geometry import orthonormal
from lift3d.reconstruction.stereo.tracks import Tracks, errors, replaced
from lift3d.scene import Camera, Transform, invert

ROTATION = float(np.radians(0.5))
"""Standard deviation of a given rotation."""
PLACE = 0.005
"""Standard deviation of a given position, as a share of the median depth."""
PIXEL = 0.7
"""Standard deviation of a feature's position, in pixels; errors above twice it count less
(Huber)."""
GATES = (8.0, 4.0, 2.5)
"""Largest error of an observation that counts, in pixels, in the first, second, last rounds."""
ROUNDS = 4
"""Gauss-Newton steps at each gate."""


@dataclass(frozen=True, eq=False)
class Adjusted:
    """Cameras at adjusted poses, and the points that fit them."""

    cameras: tuple[Camera, ...]
    tracks: Tracks
    before: float
    """Median distance in pixels of the points from where they are seen, by the given poses."""
    after: float


def adjusted(cameras: Sequence[Camera], tracks: Tracks) -> Adjusted:
    """Move the cameras, within what their poses are sure of, so that points fit the pictures."""
    given = np.stack([camera.camera_from_world for camera in cameras])
    pose, K = given.copy(), np.stack([camera.K for camera in cameras])
    off = errors(cameras, tracks)
    before = float(np.median(off)) if len(off) else 0.0
    local = np.einsum("nij,nj->ni", pose[tracks.view, :3, :3], tracks.xyz[tracks.point])
    depth = np.median(local[:, 2] + pose[tracks.view, 2, 3]) if len(off) else 1.0
    spread = np.array([ROTATION] * 3 + [PLACE * abs(float(depth))] * 3)
    for gate in GATES:
        tracks = tracks.kept(_off(pose, K, tracks) < gate)
        for _ in range(ROUNDS):
            if len(tracks.xyz):
                pose, tracks = _improved(pose, given, K, tracks, spread)
    tracks = tracks.kept(_off(pose, K, tracks) < GATES[-1])
    moved = tuple(
        camera.at(invert(orthonormal(each))) for camera, each in zip(cameras, pose, strict=True)
    )
    off = errors(moved, tracks)
    return Adjusted(moved, tracks, before, float(np.median(off)) if len(off) else 0.0)


def _off(pose: np.ndarray, K: np.ndarray, tracks: Tracks) -> Float64[np.ndarray, " observations"]:
    error, z = _seen(pose, K, tracks)[:2]
    return np.where(z > 0, np.linalg.norm(error, axis=1), np.inf)


def _seen(
    pose: np.ndarray, K: np.ndarray, tracks: Tracks
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Errors in pixels, depths, and places in the camera of all observations."""
    at = pose[tracks.view]
    local = np.einsum("nij,nj->ni", at[:, :3, :3], tracks.xyz[tracks.point]) + at[:, :3, 3]
    z = local[:, 2]
    flat = local / np.where(np.abs(z) > 1e-9, z, 1e-9)[:, None]
    return np.einsum("nij,nj->ni", K[tracks.view, :2], flat) - tracks.xy, z, local


def _improved(
    pose: np.ndarray, given: np.ndarray, K: np.ndarray, tracks: Tracks, spread: np.ndarray
) -> tuple[np.ndarray, Tracks]:
    """One Gauss-Newton step."""
    error, z, local = _seen(pose, K, tracks)
    size = np.linalg.norm(error, axis=1)
    weight = np.where(z > 1e-6, np.minimum(1, 2 * PIXEL / np.maximum(size, 1e-9)), 0) / PIXEL**2
    z = np.where(z > 1e-6, z, 1e-6)
    k = K[tracks.view]
    by_local = k[:, :2, :] / z[:, None, None]
    by_local[:, :, 2] = -np.einsum("nij,nj->ni", k[:, :2, :2], local[:, :2]) / z[:, None] ** 2
    turn = np.zeros((len(z), 3, 3))  # d(local)/d(rotation) = -[local]x
    turn[:, 0, 1], turn[:, 0, 2], turn[:, 1, 2] = local[:, 2], -local[:, 1], local[:, 0]
    turn -= turn.transpose(0, 2, 1)
    by_pose = np.concatenate([by_local @ turn, by_local], 2)
    by_point = by_local @ pose[tracks.view, :3, :3]
    return _solved(pose, given, tracks, spread, (error, weight, by_pose, by_point))


def _solved(
    pose: np.ndarray,
    given: np.ndarray,
    tracks: Tracks,
    spread: np.ndarray,
    linear: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> tuple[np.ndarray, Tracks]:
    # Imported late: `lift3d --help` does not need it.
    from scipy.sparse import block_diag, bsr_array, csc_array
    from scipy.sparse.linalg import splu

    error, weight, A, B = linear
    views, points = len(pose), len(tracks.xyz)
    wA, wB = A * weight[:, None, None], B * weight[:, None, None]
    C = np.zeros((points, 3, 3))
    np.add.at(C, tracks.point, np.einsum("nki,nkj->nij", wB, B))
    C += np.eye(3) * (1e-6 * np.trace(C, axis1=1, axis2=2) / 3 + 1e-12)[:, None, None]
    c = np.zeros((points, 3))
    np.add.at(c, tracks.point, -np.einsum("nki,nk->ni", wB, error))
    D = np.zeros((views, 6, 6))
    np.add.at(D, tracks.view, np.einsum("nki,nkj->nij", wA, A))
    d = np.zeros((views, 6))
    np.add.at(d, tracks.view, -np.einsum("nki,nk->ni", wA, error))
    pull = np.diag(1 / spread**2)
    for i in range(views):
        off = pose[i] @ invert(given[i])
        D[i] += pull
        d[i] -= pull @ np.concatenate([_log(off[:3, :3]), off[:3, 3]])
    E = np.einsum("nki,nkj->nij", wA, B)
    order = np.argsort(tracks.view, kind="stable")
    start = np.concatenate([[0], np.cumsum(np.bincount(tracks.view, minlength=views))])
    cross = bsr_array((E[order], tracks.point[order], start), shape=(6 * views, 3 * points)).tocsr()
    inverse = np.linalg.inv(C)
    middle = bsr_array(
        (inverse, np.arange(points), np.arange(points + 1)), shape=(3 * points, 3 * points)
    ).tocsr()
    reduced = csc_array(block_diag(list(D)) - cross @ middle @ cross.T)
    step = splu(reduced).solve(d.ravel() - cross @ (middle @ c.ravel()))
    change = middle @ (c.ravel() - cross.T @ step)
    moved = np.stack(
        [_exp(each) @ at for each, at in zip(step.reshape(views, 6), pose, strict=True)]
    )
    return moved, replaced(tracks, tracks.xyz + change.reshape(points, 3))


def _exp(step: np.ndarray) -> Transform:
    """The transform of a small rotation vector and a shift."""
    import cv2

    moved = np.eye(4)
    moved[:3, :3] = cv2.Rodrigues(step[:3])[0]
    moved[:3, 3] = step[3:]
    return moved


def _log(rotation: np.ndarray) -> Float64[np.ndarray, "3"]:
    import cv2

    return np.asarray(cv2.Rodrigues(np.ascontiguousarray(rotation))[0]).ravel()
