"""Measure the labels that plain photos get: depth and poses of scans with truth are hidden.

python benchmarks/photos.py DATA TOOLS OUT [--scans hololens_dvmvs_000 ...] [--lift WORDS ...]

Lifts the pictures of each scan by `lift3d lift PICTURES --out OUT/SCAN WORDS` with its defaults
(COLMAP, stereo, `regions`), or goes on with what OUT has. The cloud is moved onto the truth by the
similarity that fits the placed cameras best (Umeyama 1991), and scored by TOOLS/score_truth.py: a
vertex of the truth takes the label of the nearest point within 5 cm.

SPIn-NeRF's statue has a true mask in every photo: the IoU of the object that fits it best, over all
photos together.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from plyfile import PlyData
from scipy.spatial import cKDTree

from lift3d import Run, open_scene
from lift3d.export.ply import write_cloud
from lift3d.geometry import similarity

PICTURES = {
    "hololens_dvmvs_000": "images",
    "open3d_livingroom1_clean": "image",
    "spinnerf_statue": "images",
}
STATUE = "spinnerf_statue"
REACH = 0.05
"""Metres within which a vertex takes a label, as in score_truth.py."""


def score(run: Run, data: Path, name: str, tools: Path) -> str:
    """Placed views, misfit of the cameras, AP / AP50 / AP25, and the share of vertices reached."""
    true = {view.name: view.camera.pose[:3, 3] for view in open_scene(data / name).views}
    by_stem = {each.name: each for each in open_scene(data / name / PICTURES[name]).views}
    names = dict(zip(sorted(by_stem), sorted(true), strict=True))
    found = {names[view.name]: view.camera.pose[:3, 3] for view in run.scene.views}
    ours = np.array(list(found.values()))
    theirs = np.array([true[each] for each in found])
    scale, rigid = similarity(ours, theirs)

    def moved(xyz: np.ndarray) -> np.ndarray:
        return scale * xyz @ rigid[:3, :3].T + rigid[:3, 3]

    off = np.median(np.linalg.norm(moved(ours) - theirs, axis=1))
    points = run.cloud.points
    xyz = moved(points.xyz.astype(float)).astype(np.float32)
    aligned = run.folder / "aligned.ply"
    write_cloud(aligned, replace(run.cloud, points=replace(points, xyz=xyz)))
    truth = data / "real_truth" / name
    command = [sys.executable, tools / "score_truth.py", aligned, truth]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    got = json.loads(printed.splitlines()[0])
    vertices = PlyData.read(truth / "truth.ply")["vertex"]
    at = np.c_[vertices["x"], vertices["y"], vertices["z"]]
    far, _ = cKDTree(xyz).query(at, distance_upper_bound=REACH)
    return (
        f"{len(found)} of {len(true)} placed, cameras {100 * off:.1f} cm off; "
        f"AP {got['AP']} / {got['AP50']} / {got['AP25']}; "
        f"{np.isfinite(far).mean():.0%} of the vertices within {100 * REACH:.0f} cm of a point"
    )


def best_object(run: Run, masks: Path) -> str:
    """IoU of the object that fits the true masks of all photos best."""
    shared = np.zeros(1 + max(each.id for each in run.objects), np.int64)
    pixels = np.zeros_like(shared)
    true = 0
    for view in run.scene.views:
        labels = run.labels[view.name]
        mask = cv2.imread(str(masks / f"{view.name}.png"), cv2.IMREAD_GRAYSCALE)
        assert mask is not None
        inside = cv2.resize(mask, labels.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
        shared += np.bincount(labels[inside], minlength=len(shared))
        pixels += np.bincount(labels.ravel(), minlength=len(shared))
        true += int(inside.sum())
    iou = (shared / np.maximum(pixels + true - shared, 1))[1:]
    return f"{len(run.scene.views)} placed; object {1 + iou.argmax()} has IoU {iou.max():.3f}"


def main() -> None:
    """Lift and score each scan, and print one line for it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("tools", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scans", nargs="+", default=list(PICTURES), choices=PICTURES)
    parser.add_argument("--lift", nargs=argparse.REMAINDER, default=[], help="more for lift3d lift")
    options = parser.parse_args()
    for name in options.scans:
        out = options.out / name
        pictures = options.data / name / PICTURES[name]
        command = [sys.executable, "-m", "lift3d", "lift", pictures, "--out", out, *options.lift]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        run = Run.open(out)
        got = (
            best_object(run, options.data / STATUE / "masks")
            if name == STATUE
            else score(run, options.data, name, options.tools)
        )
        print(f"{name}: {got}; {len(run.objects)} objects, {len(run.cloud.points):,} points")
        print("    " + "; ".join(run.records["fuse"].result["notes"]), flush=True)


if __name__ == "__main__":
    main()
