"""What COLMAP's mappers found: parts that hold together, and whether matches contradict them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from lift3d.datasets.colmap_scene import pycolmap

MIN_SHARED = 15
"""Two photos are connected if they share this many points. The global mapper also joins parts by
fewer points, at a wrong scale: 30 frames of a room were 0.8 m off, the connected 24 only 2 cm.
Chosen on that room (the HoloLens subset) and seven photos of a tower."""
STRONG = 30
"""Verified matches of a pair that a model has to explain."""
FEW = 12
"""Verified matches of a pair that says how well a model fits."""
OFF = 0.006
"""Median distance of a pair's matches from their epipolar lines, in longest sides, from which on
the model contradicts the pair."""
PARALLEL = 1.0
"""Degrees of parallax below which a model says nothing of depth."""
DOUBT = 0.15
"""Share of contradicted pairs from which on a model is doubted."""


@dataclass(frozen=True, eq=False)
class Model:
    """A mapper's reconstruction, and the names of the images removed from it."""

    reconstruction: Any
    weak: list[str]
    pairs: int = 0
    """Pairs of its images with many verified matches, ..."""
    contradicted: int = 0
    """... and those of them whose matches do not fit its cameras."""
    misfit: float = 1.0
    """Mean over pairs of (distance of a match from its epipolar lines / OFF)², at most 1 a match.
    Few far pairs tell whether parts are joined well, so all with `FEW` matches count alike."""

    def __len__(self) -> int:
        return int(self.reconstruction.num_reg_images())

    def copy(self) -> Model:
        """The same, with a reconstruction of its own."""
        return replace(self, reconstruction=pycolmap().Reconstruction(self.reconstruction))

    @property
    def photos(self) -> set[int]:
        """The numbers of its images."""
        return set(self.reconstruction.reg_image_ids())

    @property
    def worth(self) -> float:
        """Photos placed, less the share of pairs that it contradicts."""
        return len(self) * (1 - self.contradicted / max(self.pairs, 1))

    @property
    def quality(self) -> tuple[float, float]:
        """The better of two models has more: worth, then closeness of the matches."""
        return self.worth, -self.misfit

    @property
    def doubt(self) -> str | None:
        """Why the model may be wrong."""
        if self.contradicted <= DOUBT * self.pairs:
            return None
        return (
            f"COLMAP's cameras contradict the matches of {self.contradicted} of {self.pairs} pairs "
            "of photos: the reconstruction may be wrong, for example where two places look the "
            "same; give the focal length, or take photos in between"
        )


def checked_model(reconstruction: Any, database: Any) -> Model:
    """Remove what does not hold together, and count the pairs that contradict the rest."""
    library = pycolmap()
    weak = prune(reconstruction)
    pairs, contradicted, misfits = 0, 0, []
    images = sorted(reconstruction.reg_image_ids())
    keypoints = {i: np.asarray(database.read_keypoints(i))[:, :2] for i in images}
    for pair, count in zip(*database.read_two_view_geometry_num_inliers(), strict=True):
        a, b = library.pair_id_to_image_pair(pair)
        if count < FEW or a not in keypoints or b not in keypoints:
            continue
        matches = np.asarray(database.read_two_view_geometry(a, b).inlier_matches, np.int64)
        off = _epipolar(
            reconstruction, a, b, keypoints[a][matches[:, 0]], keypoints[b][matches[:, 1]]
        )
        misfits.append(float(np.mean(np.minimum(off / OFF, 1) ** 2)))
        if count >= STRONG:
            pairs += 1
            contradicted += bool(np.median(off) > OFF)
    return Model(reconstruction, weak, pairs, contradicted, float(np.mean(misfits or [1.0])))


def parallax(model: Any) -> float:
    """Degrees between the rays to a point from its first and last photo; median over points."""
    centre = {i: np.asarray(model.image(i).projection_center()) for i in model.reg_image_ids()}
    xyz, first, last = [], [], []
    for point in model.points3D.values():
        seen = sorted({e.image_id for e in point.track.elements if e.image_id in centre})
        if len(seen) > 1:
            xyz.append(point.xyz)
            first.append(centre[seen[0]])
            last.append(centre[seen[-1]])
    if not xyz:
        return 0.0
    u, v = np.array(first) - xyz, np.array(last) - xyz
    length = np.linalg.norm(u, axis=1) * np.linalg.norm(v, axis=1)
    cosine = np.clip((u * v).sum(1) / np.maximum(length, 1e-12), -1, 1)
    return float(np.degrees(np.median(np.arccos(cosine))))


def matching_photos(database: Any) -> int:
    """Photos that have many verified matches with another."""
    library, found = pycolmap(), set()
    for pair, count in zip(*database.read_two_view_geometry_num_inliers(), strict=True):
        if count >= STRONG:
            found.update(library.pair_id_to_image_pair(pair))
    return len(found)


def _epipolar(model: Any, a: int, b: int, xy_a: np.ndarray, xy_b: np.ndarray) -> np.ndarray:
    """Distance of each match from its epipolar lines, in longest sides, symmetric."""
    one, two = model.image(a), model.image(b)
    camera_a, camera_b = model.camera(one.camera_id), model.camera(two.camera_id)
    relative = two.cam_from_world() * one.cam_from_world().inverse()
    matrix = np.asarray(relative.matrix())
    t = matrix[:, 3]
    cross = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    essential = cross @ matrix[:, :3]
    rays = [
        np.column_stack([np.asarray(camera.cam_from_img(xy)), np.ones(len(xy))])
        for camera, xy in ((camera_a, xy_a), (camera_b, xy_b))
    ]
    product = np.einsum("ni,ij,nj->n", rays[1], essential, rays[0])
    lines = np.hypot(*(rays[0] @ essential.T)[:, :2].T), np.hypot(*(rays[1] @ essential)[:, :2].T)
    focal = camera_a.mean_focal_length() / max(camera_a.width, camera_a.height)
    distance = np.abs(product) / np.maximum(np.minimum(*lines), 1e-12) * focal
    return np.asarray(distance)


def prune(model: Any) -> list[str]:
    """Remove the images not connected to the model's largest part; returns their names.

    The global mapper places every image that has a relative rotation to another, even if they
    share no point, and may estimate impossible lens parameters.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    images = sorted(model.reg_image_ids())
    lenses = [model.camera(model.image(i).camera_id) for i in images]
    at = {
        i: n
        for n, (i, lens) in enumerate(zip(images, lenses, strict=True))
        if not lens.has_bogus_params(0.1, 10.0, 1.0)
    }
    shared: Counter[tuple[int, int]] = Counter()
    for point in model.points3D.values():
        seen = {at[e.image_id] for e in point.track.elements if e.image_id in at}
        shared.update(combinations(sorted(seen), 2))
    strong = [pair for pair, count in shared.items() if count >= MIN_SHARED]
    a, b = np.array(strong, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(len(images),) * 2)
    part = connected_components(graph, directed=False)[1]
    kept = part == np.bincount(part).argmax()
    names = []
    for i, keep in zip(images, kept, strict=True):
        if not keep:
            names.append(str(model.image(i).name))
            model.deregister_frame(model.image(i).frame_id)
    return names


def placed(models: Sequence[Model]) -> int:
    """Photos in the largest model."""
    return max((len(model) for model in models), default=0)


def quality(models: Sequence[Model]) -> tuple[float, float]:
    """Quality of the best model; below that of any where there is none."""
    return max((model.quality for model in models), default=(0.0, -np.inf))
