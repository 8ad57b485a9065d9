"""Join parts of a reconstruction that share features but no photo.

Each part has a frame and a scale of its own. The similarity between two parts follows from features
that a photo of one and a photo of the other show, where both have a point: RANSAC over three points
(Umeyama 1991), refined by how far the points of each part are from their features in the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from lift3d.datasets.colmap_scene import pycolmap

TRIALS = 2000
"""Sets of three points that are tried."""
GATE = 0.0125
"""A point fits where it is at most this far from its feature, in longest sides: 8 of 640 pixels."""
LEAST = 24
"""Features that must fit, in at least two pairs of photos. With fewer, parts that only look alike
would be joined."""


@dataclass(frozen=True, eq=False)
class Side:
    """One part's side of features that two parts share; a row a feature."""

    image: Int64[np.ndarray, " features"]
    xyz: Float64[np.ndarray, "features 3"]
    """The feature's point in this part's frame; nan where it has none."""
    ray: Float64[np.ndarray, "features 2"]
    """The feature in this part's photo, without lens: x / z, y / z."""
    camera_from_part: Float64[np.ndarray, "features 3 4"]
    scale: Float64[np.ndarray, " features"]
    """Focal length in longest sides."""


@dataclass(frozen=True, eq=False)
class Similarity:
    """x -> scale * turn @ x + shift."""

    scale: float
    turn: Float64[np.ndarray, "3 3"]
    shift: Float64[np.ndarray, "3"]

    def inverse(self) -> Similarity:
        """The other way round."""
        return Similarity(1 / self.scale, self.turn.T, -self.turn.T @ self.shift / self.scale)


def similarity_of_parts(a: Side, b: Side, seed: int) -> Similarity | None:
    """a from b; None where too few shared features agree on one."""
    both = np.flatnonzero(np.isfinite(a.xyz[:, 0]) & np.isfinite(b.xyz[:, 0]))
    if len(both) < 3:
        return None
    random = np.random.default_rng(seed)
    best, most = None, 0.0
    for _ in range(TRIALS):
        rows = random.choice(both, 3, replace=False)
        tried = _fitted(b.xyz[rows], a.xyz[rows])
        if tried is None:
            continue
        fit = float(np.maximum(0, 1 - (_apart(a, b, tried) / GATE) ** 2).sum())
        if fit > most:
            best, most = tried, fit
    if best is None:
        return None
    best = _refined(a, b, best)
    fits = _apart(a, b, best) < GATE
    pairs = np.concatenate([np.stack([a.image, b.image], 1)] * 2)[_known(a, b)][fits]
    if fits.sum() < LEAST or len(np.unique(pairs, axis=0)) < 2:
        return None
    return best


def _known(a: Side, b: Side) -> np.ndarray:
    """Which rows have a point, first of b, then of a."""
    return np.isfinite(np.concatenate([b.xyz[:, 0], a.xyz[:, 0]]))


def _errors(a: Side, b: Side, a_from_b: Similarity) -> Float64[np.ndarray, "points 2"]:
    """Points of b from their features in a's photos, then of a from those in b's."""
    return np.concatenate([_off(b, a, a_from_b), _off(a, b, a_from_b.inverse())])


def _off(own: Side, other: Side, other_from_own: Similarity) -> np.ndarray:
    rows = np.isfinite(own.xyz[:, 0])
    there = other_from_own.scale * own.xyz[rows] @ other_from_own.turn.T + other_from_own.shift
    pose = other.camera_from_part[rows]
    local = np.einsum("nij,nj->ni", pose[:, :, :3], there) + pose[:, :, 3]
    z = local[:, 2]
    off = local[:, :2] / np.where(z > 1e-9, z, 1e-9)[:, None] - other.ray[rows]
    off = np.where((z > 1e-9)[:, None], off, 1e3)  # behind the camera
    return off * other.scale[rows, None]


def _apart(a: Side, b: Side, a_from_b: Similarity) -> Float64[np.ndarray, " points"]:
    return np.linalg.norm(_errors(a, b, a_from_b), axis=1)


def _fitted(source: np.ndarray, target: np.ndarray) -> Similarity | None:
    """The similarity of three points."""
    from lift3d.geometry import similarity

    size = np.linalg.norm(np.cross(source[1] - source[0], source[2] - source[0]))
    if size <= 1e-9 * np.sum((source[1] - source[0]) ** 2):
        return None  # on a line, or the same point twice
    scale, rigid = similarity(source, target)
    return Similarity(float(scale), rigid[:3, :3], rigid[:3, 3]) if scale > 0 else None


def _refined(a: Side, b: Side, start: Similarity) -> Similarity:
    """Least squares over all points, with a robust (Cauchy) loss."""
    import cv2
    from scipy.optimize import least_squares

    def at(x: np.ndarray) -> Similarity:
        return Similarity(float(np.exp(x[0])), np.asarray(cv2.Rodrigues(x[1:4])[0]), x[4:])

    first = np.concatenate(
        [[np.log(start.scale)], cv2.Rodrigues(start.turn)[0].ravel(), start.shift]
    )
    found = least_squares(
        lambda x: _errors(a, b, at(x)).ravel(), first, loss="cauchy", f_scale=GATE / 4
    )
    return at(found.x)


def shared_features(a: Any, b: Any, database: Any) -> tuple[Side, Side]:
    """The verified matches between photos of a and photos that only b has."""
    own, other = set(a.reg_image_ids()), set(b.reg_image_ids())
    rows: list[np.ndarray] = [np.zeros((0, 4), np.int64)]
    for i in sorted(own):
        for j in sorted(other - own):
            if not database.exists_two_view_geometry(i, j):
                continue
            found = np.asarray(database.read_two_view_geometry(i, j).inlier_matches, np.int64)
            found = found.reshape(-1, 2)
            rows.append(np.column_stack([np.full(len(found), i), found[:, 0]] * 2))
            rows[-1][:, 2], rows[-1][:, 3] = j, found[:, 1]
    table = np.concatenate(rows)
    return _side(a, table[:, 0], table[:, 1]), _side(b, table[:, 2], table[:, 3])


def _side(part: Any, images: np.ndarray, features: np.ndarray) -> Side:
    count = len(images)
    xyz, ray = np.full((count, 3), np.nan), np.zeros((count, 2))
    pose, scale = np.zeros((count, 3, 4)), np.zeros(count)
    for i in np.unique(images):
        rows = images == i
        image = part.image(i)
        camera = part.camera(image.camera_id)
        seen = [image.points2D[k] for k in features[rows]]
        ray[rows] = np.asarray(camera.cam_from_img(np.array([each.xy for each in seen])))
        xyz[rows] = [
            part.point3D(each.point3D_id).xyz if each.has_point3D() else [np.nan] * 3
            for each in seen
        ]
        pose[rows] = np.asarray(image.cam_from_world().matrix())
        scale[rows] = camera.mean_focal_length() / max(camera.width, camera.height)
    return Side(images, xyz, ray, pose, scale)


def united(a: Any, b: Any, a_from_b: Similarity, database: Any, out: Path) -> None:
    """Write a model with the cameras of both parts and no points."""
    library = pycolmap()
    b.transform(library.Sim3d(a_from_b.scale, library.Rotation3d(a_from_b.turn), a_from_b.shift))
    whole = library.Reconstruction()
    whole.load(library.DatabaseCache.create(database, library.DatabaseCacheOptions()))
    for part in (b, a):  # where both have a photo, the larger part's pose counts
        for i in part.reg_image_ids():
            own, given = whole.image(i), part.image(i)
            frame = whole.frame(own.frame_id)
            frame.rig_from_world = part.frame(given.frame_id).rig_from_world
            if own.frame_id not in whole.reg_frame_ids():
                whole.register_frame(own.frame_id)
            whole.camera(own.camera_id).params = _mean_lens(a, b, own.camera_id)
    whole.write(str(out))


def _mean_lens(a: Any, b: Any, camera: int) -> np.ndarray:
    """The parameters of a camera, the mean of the parts that have it, weighed by photos."""
    having = [part for part in (a, b) if part.exists_camera(camera)]
    weight = [part.num_reg_images() for part in having]
    return np.average([np.asarray(part.camera(camera).params) for part in having], 0, weight)
