"""Points that several pictures show: SIFT features matched between views near each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from lift3d.reconstruction.stereo.shots import Kept, Shot
from lift3d.scene import Camera

FEATURES = 800
"""SIFT features of a picture."""
CANDIDATES = 20
"""Views near by that a view is matched with."""
FACING = 60.0
"""Degrees; views whose axes are farther apart are not matched."""
RATIO = 0.8
"""Lowe's ratio: the best match has to be this much closer than the second."""
RESIDUAL = 8.0
"""Pixels that a triangulated point may be off its features: given poses are only nearly right."""


@dataclass(frozen=True, eq=False)
class Features:
    """Features of one picture."""

    xy: Float64[np.ndarray, "features 2"]
    descriptor: Float32[np.ndarray, "features 128"]
    """Unit length (RootSIFT, Arandjelovic and Zisserman 2012)."""


@dataclass(frozen=True, eq=False)
class Tracks:
    """Points and where they are seen."""

    xyz: Float64[np.ndarray, "points 3"]
    point: Int64[np.ndarray, " observations"]
    view: Int64[np.ndarray, " observations"]
    xy: Float64[np.ndarray, "observations 2"]
    matches: int
    """Matches between two pictures, ..."""
    fitting: int
    """... and those of them that fit the poses."""

    def kept(self, good: Bool[np.ndarray, " observations"]) -> Tracks:
        """The points that still have two observations, of those that are `good`."""
        enough = np.bincount(self.point[good], minlength=len(self.xyz)) >= 2
        good = good & enough[self.point]
        number = np.cumsum(enough) - 1
        return Tracks(
            self.xyz[enough],
            number[self.point[good]],
            self.view[good],
            self.xy[good],
            self.matches,
            self.fitting,
        )


def candidates(cameras: Sequence[Camera], number: int) -> list[int]:
    """Views near `number` that look the same way: more of the near ones, and some at all distances.

    Of a video the nearest frames alone would see nothing move.
    """
    poses = np.stack([camera.pose for camera in cameras])
    axes, places = poses[:, :3, 2], poses[:, :3, 3]
    far = np.linalg.norm(places - places[number], axis=1)
    bent = np.degrees(np.arccos(np.clip(axes @ axes[number], -1, 1)))
    fit = bent < FACING
    fit[number] = False
    near = np.flatnonzero(fit)
    # A turn takes things out of sight as a step does.
    order = near[np.argsort(far[near] * (1 + bent[near] / FACING), kind="stable")]
    if len(order) > CANDIDATES:
        steps = np.geomspace(1, len(order), CANDIDATES // 2).astype(int) - 1
        order = order[np.unique(np.concatenate([steps, np.arange(CANDIDATES // 2)]))]
    return [int(each) for each in order]


def features(shot: Shot) -> Features:
    """The strongest SIFT features of a picture."""
    import cv2

    sift = cv2.SIFT.create(nfeatures=FEATURES, contrastThreshold=0.02)
    found, descriptor = sift.detectAndCompute(shot.grey, None)
    if descriptor is None or not len(found):
        return Features(np.zeros((0, 2)), np.zeros((0, 128), np.float32))
    root = np.sqrt(descriptor / np.maximum(descriptor.sum(1, keepdims=True), 1e-6))
    return Features(np.array([each.pt for each in found]), root.astype(np.float32))


def matched(a: Features, b: Features) -> Int64[np.ndarray, "matches 2"]:
    """Mutually nearest features that pass Lowe's ratio."""
    if min(len(a.xy), len(b.xy)) < 2:
        return np.zeros((0, 2), np.int64)
    alike = a.descriptor @ b.descriptor.T
    best = alike.argmax(1)
    top = np.partition(alike, -2, axis=1)[:, -2:]
    apart = np.sqrt(np.maximum(2 - 2 * top, 0))  # of the second and of the best
    mutual = alike.argmax(0)[best] == np.arange(len(best))
    rows = np.flatnonzero(mutual & (apart[:, 1] < RATIO * apart[:, 0]))
    return np.stack([rows, best[rows]], 1)


def find_tracks(
    cameras: Sequence[Camera],
    shot: Callable[[int], Shot],
    tick: Callable[[int], None] = lambda done: None,
) -> Tracks:
    """Match every view with its candidates and triangulate what fits the poses."""
    held = Kept(lambda number: features(shot(number)), 4 * CANDIDATES)
    count = np.zeros(len(cameras) + 1, np.int64)
    places: list[np.ndarray] = [np.zeros((0, 2))] * len(cameras)
    pairs: list[tuple[int, int, np.ndarray]] = []
    matches = fitting = 0
    done: set[tuple[int, int]] = set()
    for number in range(len(cameras)):
        own = held(number)
        places[number] = own.xy
        count[number + 1] = len(own.xy)
        for other in candidates(cameras, number):
            pair = (min(number, other), max(number, other))
            if pair in done:
                continue
            done.add(pair)
            theirs = held(other)
            found = matched(own, theirs)
            fits = _fits(
                cameras[number], cameras[other], own.xy[found[:, 0]], theirs.xy[found[:, 1]]
            )
            matches, fitting = matches + len(found), fitting + int(fits.sum())
            if fits.any():
                pairs.append((number, other, found[fits]))
        tick(number + 1)
    first = np.cumsum(count)
    edges = [np.stack([found[:, 0] + first[a], found[:, 1] + first[b]]) for a, b, found in pairs]
    return _tracks(cameras, first, places, edges, matches, fitting)


def _tracks(
    cameras: Sequence[Camera],
    first: np.ndarray,
    places: Sequence[np.ndarray],
    edges: Sequence[np.ndarray],
    matches: int,
    fitting: int,
) -> Tracks:
    """Connected matches are one point, unless a picture would see it twice."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    total = int(first[-1])
    ends = np.concatenate([np.zeros((2, 0), np.int64), *edges], axis=1)
    graph = coo_array((np.ones(ends.shape[1], bool), tuple(ends)), shape=(total, total))
    label = connected_components(graph, directed=False)[1]
    view = np.repeat(np.arange(len(cameras)), np.diff(first))
    xy = np.concatenate([np.zeros((0, 2)), *places])
    size = np.bincount(label, minlength=1)
    keys, once = np.unique(label * np.int64(len(cameras)) + view, return_counts=True)
    twice = np.unique(keys[once > 1] // len(cameras))
    good = size >= 2
    good[twice] = False
    seen = np.flatnonzero(good[label])
    number = np.cumsum(good) - 1
    tracks = Tracks(
        np.zeros((int(good.sum()), 3)), number[label[seen]], view[seen], xy[seen], matches, fitting
    )
    return Tracks(
        triangulated(cameras, tracks), tracks.point, tracks.view, tracks.xy, matches, fitting
    )


def triangulated(cameras: Sequence[Camera], tracks: Tracks) -> Float64[np.ndarray, "points 3"]:
    """The point nearest to the rays of each track, by least squares."""
    ray, origin = _rays_of(cameras, tracks)
    across = np.eye(3) - ray[:, :, None] * ray[:, None, :]
    count = len(tracks.xyz)
    left, right = np.zeros((count, 3, 3)), np.zeros((count, 3))
    np.add.at(left, tracks.point, across)
    np.add.at(right, tracks.point, np.einsum("nij,nj->ni", across, origin))
    return np.asarray(np.linalg.solve(left + 1e-9 * np.eye(3), right[..., None]))[..., 0]


def _rays_of(cameras: Sequence[Camera], tracks: Tracks) -> tuple[np.ndarray, np.ndarray]:
    """Direction and origin of each observation's ray in the world."""
    poses = np.stack([camera.pose for camera in cameras])
    back = np.stack([np.linalg.inv(camera.K) for camera in cameras])
    pixel = np.column_stack([tracks.xy, np.ones(len(tracks.xy))])
    local = np.einsum("nij,nj->ni", back[tracks.view], pixel)
    ray = np.einsum("nij,nj->ni", poses[tracks.view, :3, :3], local)
    return ray / np.linalg.norm(ray, axis=1, keepdims=True), poses[tracks.view, :3, 3]


def _fits(a: Camera, b: Camera, xy_a: np.ndarray, xy_b: np.ndarray) -> Bool[np.ndarray, " n"]:
    """Whether the point between two rays is in front of both cameras and near both features."""
    count = len(xy_a)
    both = Tracks(
        np.zeros((count, 3)),
        np.tile(np.arange(count), 2),
        np.repeat([0, 1], count),
        np.concatenate([xy_a, xy_b]),
        0,
        0,
    )
    off = errors([a, b], replaced(both, triangulated([a, b], both)))
    return (off[:count] < RESIDUAL) & (off[count:] < RESIDUAL)


def replaced(tracks: Tracks, xyz: np.ndarray) -> Tracks:
    """The same tracks with other points."""
    return Tracks(xyz, tracks.point, tracks.view, tracks.xy, tracks.matches, tracks.fitting)


def errors(cameras: Sequence[Camera], tracks: Tracks) -> Float64[np.ndarray, " observations"]:
    """Pixels between each observation and its point; inf where it is behind the camera."""
    pose = np.stack([camera.camera_from_world for camera in cameras])[tracks.view]
    K = np.stack([camera.K for camera in cameras])[tracks.view]
    local = np.einsum("nij,nj->ni", pose[:, :3, :3], tracks.xyz[tracks.point]) + pose[:, :3, 3]
    seen = np.einsum("nij,nj->ni", K, local)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.linalg.norm(seen[:, :2] / seen[:, 2:] - tracks.xy, axis=1)
    return np.where((local[:, 2] > 0) & np.isfinite(off), off, np.inf)
