"""Measure the labels of real scans with instance truth: AP, H, coverage and seconds.

python benchmarks/real.py DATA TOOLS [--masks regions true mild middle heavy] [--seeds 2] [--forms]

DATA has scans, and `real_truth/SCAN` with `truth.ply` and `classes.json` for those annotated. TOOLS
has `score_truth.py`, `render_truth.py`, `shuffle_ids.py` and `simulate_sam.py`, which score a cloud
and make masks of known badness from the truth. Each scan is lifted on the vertices of its truth:

- `regions`: segmented pictures;
- `true`: masks drawn from the truth, with ids shuffled in every view;
- `mild`, `middle`, `heavy`: these masks split, merged, roughened and dropped, with several seeds.

`--forms` scores `regions` also on other forms of the same scans, so that a choice has to hold on
more than two: vertices 4 cm apart, half of the views, noise of 1 % on depth, blurred colour, colour
shifted by 4 pixels, and a mesh as ScanNet gives it (fused at 2 cm, simplified to 3.5 cm, its views
rendered from its own vertex colours).
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from plyfile import PlyData
from scipy.spatial import cKDTree

from lift3d import open_scene
from lift3d.datasets.synthetic.scanned.resurfaced import Resurfaced, fused_mesh, vertices
from lift3d.export.ply import write_cloud
from lift3d.reconstruction.fusion import given_points
from lift3d.run.lift import lift
from lift3d.run.settings import LiftConfig
from lift3d.scene import LabelledPoints, Points, Scene, View
from lift3d.segmentation.folder import FolderConfig
from lift3d.segmentation.regions import RegionsConfig

SEVERITIES = ("mild", "middle", "heavy")
REACH = 0.04
"""Metres within which a vertex of another form takes the label of the truth."""


@dataclass(frozen=True, eq=False)
class Annotated:
    """A scan with truth at the vertices of `points`."""

    name: str
    scene: Scene
    points: Points
    label: np.ndarray
    classes: Path

    @staticmethod
    def of(data: Path, name: str) -> Annotated:
        """The scan as it came."""
        truth = data / "real_truth" / name
        label = PlyData.read(str(truth / "truth.ply"))["vertex"]["label"]
        points = given_points(truth / "truth.ply")
        scene = open_scene(data / name)
        return Annotated(name, scene, points, np.asarray(label, np.int32), truth / "classes.json")

    def on(self, points: Points) -> Annotated:
        """The same truth at other points."""
        far, near = cKDTree(self.points.xyz).query(points.xyz)
        label = np.where(far < REACH, self.label[near], 0).astype(np.int32)
        return replace(self, points=points, label=label)

    def seen_as(self, change: Callable[[View], View], every: int = 1) -> Annotated:
        """The same scan with other views."""
        views = tuple(change(view) for view in self.scene.views[::every])
        return replace(self, scene=replace(self.scene, views=views))


def scores(scan: Annotated, masks: Path | None, tools: Path) -> dict[str, float]:
    """Lift a scan on the vertices of its truth; regions without `masks`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cloud = LabelledPoints(scan.points, scan.label, np.ones(len(scan.label), np.float32))
        write_cloud(folder / "truth.ply", cloud)
        (folder / "classes.json").write_bytes(scan.classes.read_bytes())
        segmentation = RegionsConfig() if masks is None else FolderConfig(path=masks)
        source, out = Path(str(scan.scene.source)), folder / "run"
        config = LiftConfig(source, out, cloud=folder / "truth.ply", segmentation=segmentation)
        run = lift(config, scan.scene)
        found = json.loads(tool(tools, "score_truth", out / "cloud.ply", folder).splitlines()[0])
        printed = json.loads((out / "consistency.json").read_text())["printed"]
        return {
            "AP": found["AP"],
            "AP50": found["AP50"],
            "AP25": found["AP25"],
            "H": round(printed["foreground"]["H"], 3),
            "coverage": round(printed["coverage"], 3),
            "objects": found["predicted"],
            "truth": found["truth"],
            "seconds": round(run.records["associate"].seconds, 1),
            "seconds_per_view": round(
                sum(each.seconds for each in run.records.values()) / len(scan.scene), 3
            ),
        }


def tool(tools: Path, name: str, *words: object) -> str:
    """What a tool prints."""
    command = [sys.executable, str(tools / f"{name}.py"), *map(str, words)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def masks_of(name: str, data: Path, tools: Path, folder: Path, seeds: int) -> dict[str, list[Path]]:
    """Folders of masks by kind, one for each seed."""
    drawn = folder / name / "drawn"
    tool(tools, "render_truth", data / name, data / "real_truth" / name, drawn)
    kinds: dict[str, list[Path]] = {"true": [folder / name / "true"]}
    tool(tools, "shuffle_ids", drawn / "instance", kinds["true"][0])
    for severity in SEVERITIES:
        kinds[severity] = [folder / name / f"{severity}{seed}" for seed in range(seeds)]
        for seed, out in enumerate(kinds[severity]):
            tool(tools, "simulate_sam", drawn, out, "--severity", severity, "--seed", seed)
    return kinds


def forms(scan: Annotated) -> dict[str, Annotated]:
    """Other forms of a scan."""
    rng = np.random.default_rng(0)
    cell = np.unique((scan.points.xyz / 0.04).astype(int), axis=0, return_index=True)[1]
    return {
        "vertices 4 cm apart": scan.on(scan.points.take(np.sort(cell))),
        "half of the views": scan.seen_as(lambda view: view, every=2),
        "depth noise 1 %": scan.seen_as(partial(noisy, rng=rng)),
        "colour blurred": scan.seen_as(partial(repainted, change=blurred)),
        "colour 4 px off": scan.seen_as(partial(repainted, change=shifted)),
        "its own mesh": meshed(scan),
    }


def noisy(view: View, rng: np.random.Generator) -> View:
    """Gaussian noise of 1 % of the depth."""
    seed = int(rng.integers(1 << 30))

    def load() -> np.ndarray:
        depth = view.depth()
        assert depth is not None
        noise = np.random.default_rng(seed).standard_normal(depth.shape)
        return (depth * (1 + 0.01 * noise)).astype(np.float32)

    return replace(view, load_depth=load)


def repainted(view: View, change: Callable[[np.ndarray], np.ndarray]) -> View:
    """The view with its picture changed."""
    return replace(view, load_image=lambda: change(view.image()))


def blurred(image: np.ndarray) -> np.ndarray:
    """A Gaussian of 2 pixels."""
    return cv2.GaussianBlur(image, (0, 0), 2.0)


def shifted(image: np.ndarray) -> np.ndarray:
    """4 pixels to the right; the border is repeated."""
    return np.concatenate([np.repeat(image[:, :1], 4, axis=1), image[:, :-4]], axis=1)


def meshed(scan: Annotated, voxel: float = 0.02, edge: float = 0.035) -> Annotated:
    """Vertices of a simplified mesh, and views rendered from the vertex colours of the full one."""
    mesh = fused_mesh(scan.scene, voxel)
    surface = Resurfaced(mesh)

    def rendered(view: View) -> View:
        image, depth = surface.render(view.camera)
        return replace(view, load_image=lambda: image, load_depth=lambda: depth, depth_camera=None)

    return scan.on(vertices(mesh, edge)).seen_as(rendered)


def main() -> None:
    """Print a row for each scan and kind of masks, and write all to --out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("tools", type=Path)
    parser.add_argument("--masks", nargs="+", default=["regions", "true", *SEVERITIES])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--forms", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/real.json"))
    options = parser.parse_args()
    table: dict[str, dict[str, float]] = {}

    def row(name: str, scan: Annotated, folders: list[Path | None]) -> None:
        each = [scores(scan, folder, options.tools) for folder in folders]
        mean = {key: round(float(np.mean([one[key] for one in each])), 3) for key in each[0]}
        table[f"{scan.name}: {name}"] = mean
        print(f"{scan.name}: {name}", mean, flush=True)

    with tempfile.TemporaryDirectory() as folder:
        for truth in sorted((options.data / "real_truth").glob("*/truth.ply")):
            scan = Annotated.of(options.data, truth.parent.name)
            damaged = set(options.masks) - {"regions"}
            kinds = (
                masks_of(scan.name, options.data, options.tools, Path(folder), options.seeds)
                if damaged
                else {}
            )
            for kind in options.masks:
                row(kind, scan, [None] if kind == "regions" else list(kinds[kind]))
            for name, form in forms(scan).items() if options.forms else ():
                row(f"regions, {name}", form, [None])
    machine = {
        "processor": platform.processor() or platform.machine(),
        "system": platform.platform(),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps({"machine": machine, "table": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
