"""Match photos again where a model predicts that they see the same.

Photos of the same things from far apart share few features that are the most alike of the whole
photo. A model says where each of its points lies in every photo, and the feature is sought near
that place only, at the size it must have there (search by projection: Mur-Artal, Montiel, Tardos:
ORB-SLAM, 2015, section V). What is found counts where it agrees on the photo's pose, and on the
geometry of the two photos.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from lift3d.datasets.colmap_scene import pycolmap
from lift3d.scene.compiled import compiled

STRONG = 60
"""Verified matches of a pair from which on it is left as it is."""
LEAST = 12
"""Matches that must agree."""
ERROR = 4.0
"""Pixels by which they may be off, as in COLMAP's own verification."""
TURNED = 50.0
"""Largest angle in degrees between two views of a feature that still looks the same."""
NEARER = 3.0
"""Largest ratio of the distances that a feature is seen from."""
SIZE = 2.0
"""Largest ratio between a feature's size and that predicted."""
UNLIKE = 0.75
"""Largest distance of two descriptors, of length 1."""
SECOND = 0.85
"""Largest ratio of that distance to the next best in the region."""
SAME = 2.0
"""Pixels within which two features are the same place, and do not compete."""
LENGTH = 512.0
"""Length of COLMAP's descriptors."""


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo of the model, its features ordered by x."""

    camera: Any
    camera_from_world: Float64[np.ndarray, "3 4"]
    xy: Float64[np.ndarray, "features 2"]
    """Pixels; the centre of the first is (0.5, 0.5)."""
    size: Float64[np.ndarray, " features"]
    descriptor: UInt8[np.ndarray, "features 128"]
    order: Int64[np.ndarray, " features"]
    """Number in the database of each feature."""
    seen: Int64[np.ndarray, " points"]
    """Features, as ordered here, that have a point in the model."""
    xyz: Float64[np.ndarray, "points 3"]
    """Their points."""

    @property
    def centre(self) -> Float64[np.ndarray, "3"]:
        """Of projection, in the world."""
        return -self.camera_from_world[:, :3].T @ self.camera_from_world[:, 3]


def rematch(model: Any, database: Any, radius: float, seed: int) -> int:
    """Replace the matches of weak pairs by those that the model predicts; how many pairs.

    `radius` is how far from its predicted place a feature is sought, in longest sides.
    """
    photos = {i: _photo(model, i, database) for i in sorted(model.reg_image_ids())}
    found = 0
    for i in photos:
        for j in photos:
            if i < j and _verified(database, i, j) < STRONG:
                rows = [
                    _agreeing(photos[i], photos[j], radius, seed),
                    _agreeing(photos[j], photos[i], radius, seed)[:, ::-1],
                ]
                found += _replaced(database, i, j, np.concatenate(rows), photos, seed)
    return found


def _verified(database: Any, i: int, j: int) -> int:
    if not database.exists_two_view_geometry(i, j):
        return 0
    return len(np.asarray(database.read_two_view_geometry(i, j).inlier_matches).reshape(-1, 2))


def _photo(model: Any, number: int, database: Any) -> Photo:
    image = model.image(number)
    keypoints = np.asarray(database.read_keypoints(number), np.float64)
    order = np.argsort(keypoints[:, 0], kind="stable")
    keypoints = keypoints[order]
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    with_point = [(n, each) for n, each in enumerate(image.points2D) if each.has_point3D()]
    xyz = [model.point3D(each.point3D_id).xyz for _, each in with_point]
    return Photo(
        model.camera(image.camera_id),
        np.asarray(image.cam_from_world().matrix(), np.float64),
        np.ascontiguousarray(keypoints[:, :2]),
        # Columns 2 to 5 are the affine shape.
        np.sqrt(np.abs(keypoints[:, 2] * keypoints[:, 5] - keypoints[:, 3] * keypoints[:, 4])),
        np.ascontiguousarray(database.read_descriptors(number).data[order]),
        order,
        rank[np.array([n for n, _ in with_point], np.int64)],
        np.array(xyz, np.float64).reshape(-1, 3),
    )


def _agreeing(one: Photo, other: Photo, radius: float, seed: int) -> Int64[np.ndarray, "matches 2"]:
    """Features of `one` that have a point, and those of `other` that agree on its pose."""
    none = np.zeros((0, 2), np.int64)
    rows, place = _visible(one, other)
    if len(rows) < LEAST:
        return none
    features = one.seen[rows]
    away, there = (np.linalg.norm(one.xyz[rows] - each.centre, axis=1) for each in (one, other))
    match = np.asarray(
        _nearest(
            place,
            one.size[features] * away / there,
            one.descriptor[features],
            other.xy,
            other.size,
            other.descriptor,
            radius * max(other.camera.width, other.camera.height),
        )
    )
    kept = match >= 0
    if kept.sum() < LEAST:
        return none
    rows, features, match = rows[kept], features[kept], match[kept]
    options = pycolmap().AbsolutePoseEstimationOptions()
    options.ransac.max_error = ERROR
    options.ransac.random_seed = seed
    found = pycolmap().estimate_absolute_pose(other.xy[match], one.xyz[rows], other.camera, options)
    if found is None or found["num_inliers"] < LEAST:
        return none
    fits = np.asarray(found["inlier_mask"], bool)
    return np.stack([one.order[features[fits]], other.order[match[fits]]], 1)


def _visible(
    one: Photo, other: Photo
) -> tuple[Int64[np.ndarray, " rows"], Float64[np.ndarray, "rows 2"]]:
    """Points of `one` that `other` may show alike, and where, in pixels."""
    local = one.xyz @ other.camera_from_world[:, :3].T + other.camera_from_world[:, 3]
    rays = [one.xyz - each.centre for each in (one, other)]
    lengths = [np.linalg.norm(each, axis=1) for each in rays]
    near, far = np.minimum(*lengths), np.maximum(*lengths)
    alike = (rays[0] * rays[1]).sum(1) > np.cos(np.radians(TURNED)) * near * far
    rows = np.flatnonzero((local[:, 2] > 0) & alike & (far < NEARER * near))
    if len(rows) == 0:
        return rows, np.zeros((0, 2))
    place = np.asarray(other.camera.img_from_cam(local[rows])).reshape(-1, 2)
    inside = ((place >= 0) & (place < (other.camera.width, other.camera.height))).all(1)
    return rows[inside], np.ascontiguousarray(place[inside])


@compiled()
@no_type_check
def _nearest(place, size, descriptor, xy, sizes, descriptors, radius):
    """The feature most like each descriptor near its place; -1 where none is."""
    found = np.full(len(place), -1, np.int64)
    for k in range(len(place)):
        best, second = np.inf, np.inf
        at = -1
        for n in range(np.searchsorted(xy[:, 0], place[k, 0] - radius), len(xy)):
            if xy[n, 0] > place[k, 0] + radius:
                break
            dx, dy = xy[n, 0] - place[k, 0], xy[n, 1] - place[k, 1]
            if dx * dx + dy * dy > radius * radius:
                continue
            if sizes[n] > SIZE * size[k] or size[k] > SIZE * sizes[n]:
                continue
            apart = 0
            for c in range(descriptors.shape[1]):
                step = int(descriptor[k, c]) - int(descriptors[n, c])
                apart += step * step
            distance = np.sqrt(apart) / LENGTH
            if distance >= second:
                continue
            # Two features at one place, of two directions, do not compete.
            same = at >= 0 and (
                (xy[n, 0] - xy[at, 0]) ** 2 + (xy[n, 1] - xy[at, 1]) ** 2 < SAME * SAME
            )
            if distance < best:
                if not same:
                    second = best
                best, at = distance, n
            elif not same:
                second = distance
        if best <= UNLIKE and best <= SECOND * second:
            found[k] = at
    return found


def _replaced(
    database: Any, i: int, j: int, rows: np.ndarray, photos: dict[int, Photo], seed: int
) -> bool:
    """Write the matches of a pair, where enough agree on the geometry of two photos."""
    for column in (0, 1):  # one to one
        rows = rows[np.sort(np.unique(rows[:, column], return_index=True)[1])]
    if len(rows) < LEAST:
        return False
    options = pycolmap().TwoViewGeometryOptions()
    options.ransac.random_seed = seed
    options.ransac.max_error = ERROR
    options.min_num_inliers = LEAST
    # The lens is known here: a geometry that no lens explains is wrong.
    options.min_E_F_inlier_ratio = 0.0
    matches = np.ascontiguousarray(rows, np.uint32)
    sides = []
    for number in (i, j):
        keypoints = np.empty_like(photos[number].xy)
        keypoints[photos[number].order] = photos[number].xy
        sides += [photos[number].camera, keypoints]
    found = pycolmap().estimate_calibrated_two_view_geometry(*sides, matches, options)
    if len(found.inlier_matches) < LEAST:
        return False
    if database.exists_matches(i, j):
        database.delete_matches(i, j)
    if database.exists_two_view_geometry(i, j):
        database.delete_two_view_geometry(i, j)
    database.write_matches(i, j, matches)
    database.write_two_view_geometry(i, j, found)
    return True
