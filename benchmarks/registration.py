"""Colour beside depth: how far it is made to lie, what is told, and what is left after the fit.

    python benchmarks/registration.py DATA

The depth of a real scan is seen from a camera that differs from the colour's, and said to have the
colour's, as files of Kinects do. The scan as it is comes first: nothing should be told of it.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from lift3d import open_scene
from lift3d.geometry import project, unproject
from lift3d.geometry.visibility import front_points
from lift3d.reconstruction.registration import find_registration, registered
from lift3d.scene import Depth, Scene, View

SCANS = ("hololens_dvmvs_000", "open3d_livingroom1_clean", "apc_shelf_scene0000")
WRONG = {
    "fx 11 %, cx 5, cy -6 px, 2.5 cm": (1.11, 5.0, -6.0, -0.025),
    "fx -10 %, 3 cm": (0.9, 0.0, 0.0, 0.03),
    "5 cm": (1.0, 0.0, 0.0, -0.05),
    "cx 15, cy 8 px": (1.0, 15.0, 8.0, 0.0),
}
"""Factor of the focal length, shift of the principal point, metres to the right."""
RESULTS = Path(__file__).resolve().parent / "results"


class Held:
    """A loader of an array in memory."""

    def __init__(self, depth: Depth) -> None:
        self.depth = depth

    def __call__(self) -> Depth:
        """The array."""
        return self.depth


def displaced(view: View, focal: float, cx: float, cy: float, right: float) -> View:
    """The view with its depth seen from another camera, which is said to be the colour's too."""
    depth, K, aside = view.depth(), view.camera.K.copy(), np.eye(4)
    assert depth is not None
    K[[0, 1], [0, 1]] *= focal
    K[:2, 2] += cx, cy
    aside[0, 3] = right
    camera = replace(view.camera, K=K, world_from_camera=view.camera.pose @ aside)
    twice = cv2.resize(depth, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    xyz = unproject(view.geometry_camera.resized(*twice.shape[::-1]), twice).reshape(-1, 3)
    _, z = front_points(xyz[np.isfinite(xyz).all(1)], camera, 0.0)
    z[~np.isfinite(z)] = 0
    return replace(view, camera=camera, depth_camera=None, load_depth=Held(z))


def beside(scene: Scene, true: Scene) -> list[float]:
    """Median and 95th percentile of the distance of surface points from their true pixels."""
    found = []
    for view, right in list(zip(scene.views, true.views, strict=True))[::4]:
        depth = view.depth()
        assert depth is not None
        xyz = unproject(view.geometry_camera, depth).reshape(-1, 3)
        xyz = xyz[np.isfinite(xyz).all(1)][::50]
        ours, theirs = project(view.camera, xyz)[0], project(right.camera, xyz)[0]
        found.append(np.linalg.norm(ours - theirs, axis=1))
    return [round(float(each), 2) for each in np.nanpercentile(np.concatenate(found), [50, 95])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()
    rows = []
    for name in SCANS:
        true = open_scene(arguments.data / name)
        for what, change in {"as it is": None, **WRONG}.items():
            scene = true
            if change is not None:
                scene = replace(true, views=tuple(displaced(v, *change) for v in true.views))
            start = time.perf_counter()
            found = find_registration(scene)
            seconds = time.perf_counter() - start
            assert found is not None
            row = {
                "scan": name,
                "camera": what,
                "beside": beside(scene, true),
                "told": found.wrong,
                "found": [round(found.median, 2), round(found.largest, 2)],
                "gain": round(found.gain, 3),
                "left": beside(registered(scene, found), true),
                "seconds": round(seconds, 1),
            }
            rows.append(row)
            print(row, flush=True)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "registration.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
