"""Measure the depth of stereo on scans with their depth hidden, and masks carried through it.

python benchmarks/stereo.py DATA [--scans hololens_dvmvs_000 ...] [--views 20] [--sgbm] [--statue]

Of each scan: the share of pixels with depth, the median relative error against the sensor, the
share within 5 %, seconds a view and the load of the machine. `--sgbm` adds OpenCV's semi-global
block matching on rectified pairs of the same views. `--statue` carries the first photo's mask of
SPIn-NeRF's statue to the other 28 and gives the IoU.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from lift3d import open_scene
from lift3d.geometry import project, unproject
from lift3d.geometry.lens import inside, nearest
from lift3d.reconstruction.colmap import ColmapConfig
from lift3d.reconstruction.stereo import StereoConfig, dense_views, densify
from lift3d.reconstruction.stereo.neighbours import neighbourhoods
from lift3d.reconstruction.stereo.shots import working_camera
from lift3d.reconstruction.stereo.tracks import find_tracks
from lift3d.scene import Scene, View

SAME = 0.06
"""Depths of one point in two views differ by less than this share."""


def hidden(scene: Scene) -> Scene:
    """The scene with poses and without depth."""
    views = tuple(
        replace(view, load_depth=None, load_confidence=None, depth_camera=None)
        for view in scene.views
    )
    return replace(scene, views=views, load_points=None)


def scored(found: np.ndarray, view: View) -> tuple[int, int, np.ndarray]:
    """Pixels with sensor depth, those of them answered, and their relative errors."""
    truth = view.depth()
    assert truth is not None
    if found.shape != truth.shape:
        size = (truth.shape[1], truth.shape[0])
        found = cv2.resize(found, size, interpolation=cv2.INTER_NEAREST)
    known = np.isfinite(truth) & (truth > 0)
    both = known & (found > 0)
    return int(known.sum()), int(both.sum()), np.abs(found[both] - truth[both]) / truth[both]


def line(name: str, rows: list[tuple[int, int, np.ndarray]], wall: float, cpu: float) -> None:
    """Print one method's numbers over all views."""
    known, both = sum(r[0] for r in rows), sum(r[1] for r in rows)
    error = np.concatenate([r[2] for r in rows])
    print(
        f"{name:<10} answered {both / known:.1%}  median {np.median(error):.2%}  within 5 % "
        f"{np.mean(error < 0.05):.1%}  seconds a view {wall:.1f} ({cpu:.1f} of processor), "
        f"load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def stereo(scene: Scene, folder: Path) -> tuple[Scene, float, float]:
    """The scene with estimated depth, and the seconds of wall and processor a view."""
    wall, cpu = time.perf_counter(), time.process_time()
    answer = densify(hidden(scene), StereoConfig(seed=0), folder / "out", folder / "work")
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    for text in (*answer.notes, *answer.warnings):
        print("   ", text)
    views = tuple(dense_views(hidden(scene), folder / "out", answer.camera))
    return replace(scene, views=views), wall / len(scene), cpu / len(scene)


def block_matching(scene: Scene, size: int = 640) -> Iterator[np.ndarray]:
    """OpenCV's SGBM on each view and its best neighbour, rectified; 0 where it has no answer."""
    from lift3d.reconstruction.stereo.shots import Shot

    cameras = [working_camera(view.camera, size) for view in scene.views]
    tracks = find_tracks(cameras, lambda number: Shot.of(scene.views[number], size))
    for number, near_by in enumerate(neighbourhoods(cameras, tracks, 1)):
        camera = cameras[number]
        shape = (camera.height, camera.width)
        if near_by is None:
            yield np.zeros(shape, np.float32)
            continue
        other = cameras[near_by.sources[0]]
        yield _rectified(
            Shot.of(scene.views[number], size).grey,
            Shot.of(scene.views[near_by.sources[0]], size).grey,
            camera.K,
            other.K,
            other.camera_from_world @ camera.pose,
            near_by.near,
        )


def _rectified(
    a: np.ndarray, b: np.ndarray, K: np.ndarray, L: np.ndarray, moved: np.ndarray, near: float
) -> np.ndarray:
    size = a.shape[::-1]
    R1, R2, P1, P2, *_ = cv2.stereoRectify(
        K, np.zeros(5), L, np.zeros(5), size, moved[:3, :3], moved[:3, 3:4]
    )
    upright = abs(P2[0, 3]) > abs(P2[1, 3])
    if not upright or P2[0, 3] > 0:  # the other one is above, below or to the left
        turn = np.eye(3)
        if not upright:
            angle = -np.pi / 2 if P2[1, 3] > 0 else np.pi / 2
            c, s = np.cos(angle), np.sin(angle)
            turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
        else:
            turn = np.diag([-1.0, -1, 1])
        R1, R2 = turn @ R1, turn @ R2
    f, base = P1[0, 0], float(np.linalg.norm(moved[:3, 3]))
    own = np.array([[f, 0, size[0] / 2], [0, f, size[1] / 2], [0, 0, 1.0]])
    left, right = (
        cv2.remap(
            image,
            *cv2.initUndistortRectifyMap(k, None, R, own, size, cv2.CV_32FC1),
            cv2.INTER_LINEAR,
        )
        for image, k, R in ((a, K, R1), (b, L, R2))
    )
    most = int(np.clip(16 * np.ceil(f * base / near / 16), 16, 256))
    matcher = cv2.StereoSGBM_create(
        0, most, 5, 200, 800, 1, 31, 10, 100, 2, cv2.STEREO_SGBM_MODE_HH
    )
    disparity = matcher.compute(left, right).astype(np.float32) / 16
    y, x = np.mgrid[: size[1], : size[0]]
    ray = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(K).T @ R1.T
    u = (ray[..., 0] / ray[..., 2] * f + own[0, 2]).astype(np.float32)
    v = (ray[..., 1] / ray[..., 2] * f + own[1, 2]).astype(np.float32)
    there = cv2.remap(disparity, u, v, cv2.INTER_NEAREST, borderValue=-1)
    z = np.where(there > 0.5, f * base / np.maximum(there, 0.5), 0)
    return np.where(ray[..., 2] > 0, z / np.maximum(ray[..., 2], 1e-6), 0).astype(np.float32)


def measure(path: Path, count: int | None, sgbm: bool) -> None:
    """Print the numbers of one scan."""
    scene = open_scene(path)
    if count is not None:
        scene = replace(scene, views=scene.views[:count])
    print(f"{path.name}, {len(scene)} views", flush=True)
    with tempfile.TemporaryDirectory() as name:
        dense, wall, cpu = stereo(scene, Path(name))
        rows = []
        for view, truth in zip(dense.views, scene.views, strict=True):
            found = view.depth()
            rows.append(scored(np.zeros((1, 1), np.float32) if found is None else found, truth))
    line("lift3d", rows, wall, cpu)
    if sgbm:
        wall, cpu = time.perf_counter(), time.process_time()
        maps = list(block_matching(scene))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        rows = [scored(each, view) for each, view in zip(maps, scene.views, strict=True)]
        line("SGBM", rows, wall / len(scene), cpu / len(scene))


def statue(data: Path, folder: Path, poses: str) -> None:
    """Carry the first photo's mask through the depth to the others; print the mean IoU."""
    source = data / "spinnerf_statue"
    masks = {each.stem: _mask(each) for each in sorted((source / "masks").iterdir())}
    scene = _statue(source) if poses == "file" else open_scene(source / "images")
    if poses == "colmap":
        scene = ColmapConfig(seed=0).build().reconstruct(scene, folder=folder / "colmap")
    print(f"spinnerf_statue, poses from {poses}, {len(scene)} of {len(masks)} photos", flush=True)
    dense, wall, cpu = stereo(scene, folder)
    first = dense.views[0]
    scores = []
    for view in dense.views[1:]:
        carried = carry(first, masks[first.name], view)
        truth = masks[view.name]
        scores.append(np.sum(carried & truth) / max(np.sum(carried | truth), 1))
    shares = [np.mean(view.depth() > 0) for view in dense.views if view.load_depth is not None]
    print(
        f"IoU mean {np.mean(scores):.3f}, least {np.min(scores):.3f}, over {len(scores)} photos; "
        f"answered {np.mean(shares):.1%}; seconds a view {wall:.1f} ({cpu:.1f} of processor), "
        f"load {os.getloadavg()[0]:.1f}"
    )


def carry(first: View, mask: np.ndarray, view: View) -> np.ndarray:
    """The mask of `first` in another view, by the estimated depth alone.

    Where the view has depth, its point is looked up in `first`; holes take the points of the mask.
    """
    depth, seen = view.depth(), first.depth()
    shape = (view.camera.width, view.camera.height)
    if depth is None or seen is None:
        return np.zeros(shape[::-1], bool)
    small = cv2.resize(mask.astype(np.uint8), seen.shape[::-1], interpolation=cv2.INTER_NEAREST)
    row, column, z, index = _seen(view, depth, first)
    own = seen[row, column]
    close = (own <= 0) | (np.abs(own - z) < SAME * own)
    looked = np.zeros(depth.size, bool)
    looked[index] = close & (small[row, column] > 0)
    row, column, _, _ = _seen(first, np.where(small > 0, seen, 0), view)
    sent = np.zeros(depth.shape, np.uint8)
    sent[row, column] = 1
    sent = cv2.morphologyEx(sent, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    carried = np.where(depth > 0, looked.reshape(depth.shape), sent > 0)
    return cv2.resize(carried.astype(np.uint8), shape, interpolation=cv2.INTER_NEAREST) > 0


def _seen(
    view: View, depth: np.ndarray, other: View
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and z in `other` of the pixels of `depth`, and their numbers."""
    xyz = unproject(view.geometry_camera, depth).reshape(-1, 3)
    index = np.flatnonzero(np.isfinite(xyz[:, 0]))
    xy, z = project(other.geometry_camera, xyz[index].astype(np.float64))
    there = inside(other.geometry_camera, xy) & (z > 0)
    column, row = nearest(xy[there])
    return row, column, z[there], index[there]


def _mask(path: Path) -> np.ndarray:
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) > 0


def _statue(source: Path) -> Scene:
    """The photos with the poses of the file, which is LLFF's: down, right, back; twice the size."""
    images, poses = [], []
    files = sorted((source / "images").iterdir())
    for row in np.load(source / "poses_bounds.npy"):
        given = row[:15].reshape(3, 5)
        pose = np.eye(4)
        pose[:3] = np.stack([given[:, 1], given[:, 0], -given[:, 2], given[:, 3]], 1)
        poses.append(pose)
    images = [np.ascontiguousarray(cv2.imread(str(each))[..., ::-1]) for each in files]
    K = np.array([[740.3 / 2, 0, 251.5], [0, 742.6 / 2, 188.5], [0, 0, 1]])
    names = [each.stem for each in files]
    return Scene.from_arrays(images, K, poses, names=names, metric=False, name="statue")


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument(
        "--scans", nargs="*", default=["hololens_dvmvs_000", "open3d_livingroom1_clean"]
    )
    parser.add_argument("--views", type=int)
    parser.add_argument("--sgbm", action="store_true")
    parser.add_argument("--statue", nargs="*", choices=["file", "colmap"], default=[])
    args = parser.parse_args()
    for poses in args.statue:
        with tempfile.TemporaryDirectory() as name:
            statue(args.data, Path(name), poses)
    for scan in args.scans:
        measure(args.data / scan, args.views, args.sgbm)


if __name__ == "__main__":
    main()
