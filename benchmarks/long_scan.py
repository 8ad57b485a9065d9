"""Measure time per view and memory of every stage of a lift, against the number of views.

Run `python benchmarks/long_scan.py`; the numbers go to benchmarks/results/long_scan.json.
A furnished room is rendered once and written as a ScanNet folder. The long scan repeats its views,
each with its own name and a pose moved by about a millimetre, with simulated masks. The masks are
files, so that no segmenter dominates the times: these are for reading, fusion, tracking,
association with voting, H and the report. Each length runs in its own process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from lift3d.association import associate
from lift3d.datasets import read_scene
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.export.instances import write_instances
from lift3d.export.ply import coloured_by_label, write_cloud
from lift3d.reconstruction.fusion.voxel import VoxelConfig
from lift3d.run.lift import lift
from lift3d.run.settings import LiftConfig
from lift3d.scene import Camera, Points
from lift3d.scene.labelmaps import Lazy, read_label_map, write_label_map
from lift3d.scene.overlap import paint
from lift3d.scene.progress import Tick
from lift3d.scene.threads import arrange_threads
from lift3d.segmentation import tracking
from lift3d.segmentation.folder import FolderConfig
from lift3d.segmentation.simulated import SimulatedConfig

MOVED = 0.0005
"""Standard deviation of a pose's shift along each axis, metres."""
BASE = 120
"""Number of rendered views."""


def render(folder: Path, colour: tuple[int, int], depth: tuple[int, int], severity: str) -> None:
    """Write the views to repeat: colour, depth, pose, masks; intrinsics of both cameras."""
    seen = SyntheticConfig(views=BASE, width=colour[0], height=colour[1]).read()
    measured = SyntheticConfig(views=BASE, width=depth[0], height=depth[1]).read()
    segmenter = SimulatedConfig(severity=severity).build()  # type: ignore[arg-type]
    folder.mkdir(parents=True)
    for index, (view, with_depth) in enumerate(zip(seen.views, measured.views, strict=True)):
        metres = with_depth.depth()
        assert metres is not None
        write_frame(folder, str(index), view.image(), metres, view.camera)
        write_label_map(folder, f"mask{index}", paint(segmenter.segment(view).stack))
    for name, camera in (("color", seen.views[0].camera), ("depth", measured.views[0].camera)):
        write_intrinsics(folder / f"intrinsic_{name}.txt", camera)


def write_frame(
    folder: Path, name: str, image: np.ndarray, metres: np.ndarray, camera: Camera
) -> None:
    """Write colour as JPEG, depth in millimetres as PNG, and the pose."""
    from PIL import Image

    Image.fromarray(image).save(folder / f"{name}.jpg", quality=90)
    stored = np.round(1000 * metres).astype(np.uint16)
    Image.fromarray(stored).save(folder / f"{name}.png", compress_level=1)
    np.savetxt(folder / f"{name}.txt", camera.pose)


def write_intrinsics(path: Path, camera: Camera) -> None:
    """Write K as ScanNet's exporter does, 4x4."""
    K = np.eye(4)
    K[:3, :3] = camera.K
    np.savetxt(path, K)


def cycle(base: Path, folder: Path, views: int, seed: int = 0) -> tuple[Path, Path]:
    """Write a scan of this many views: links to the rendered files and masks, with new poses."""
    scan, masks = folder / "scan", folder / "masks"
    for each in ("color", "depth", "pose", "intrinsic"):
        (scan / each).mkdir(parents=True)
    masks.mkdir()
    rng = np.random.default_rng(seed)
    for name in ("color", "depth"):
        os.link(base / f"intrinsic_{name}.txt", scan / "intrinsic" / f"intrinsic_{name}.txt")
    for index in range(views):
        of = index % BASE
        os.link(base / f"{of}.jpg", scan / "color" / f"{index}.jpg")
        os.link(base / f"{of}.png", scan / "depth" / f"{index}.png")
        os.link(base / f"mask{of}.png", masks / f"{index}.png")
        pose = np.loadtxt(base / f"{of}.txt")
        pose[:3, 3] += rng.normal(0, MOVED, 3)
        np.savetxt(scan / "pose" / f"{index}.txt", pose)
    return scan, masks


class Watch:
    """Progress that records each stage's wall and processor seconds and resident memory."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}
        self._peak = 0.0
        self._over = threading.Event()
        threading.Thread(target=self._sample, daemon=True).start()

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        """Time the block."""
        self._peak = resident_mb()
        wall, cpu = time.perf_counter(), time.process_time()
        yield lambda done, total: None
        self.stages[name] = {
            "seconds": round(time.perf_counter() - wall, 2),
            "cpu_seconds": round(time.process_time() - cpu, 2),
            "peak_mb": round(max(self._peak, resident_mb())),
        }

    def log(self, line: str) -> None:
        """Log a line to stderr."""
        print(line, file=sys.stderr, flush=True)

    def _sample(self) -> None:
        while not self._over.wait(0.02):
            self._peak = max(self._peak, resident_mb())


def resident_mb() -> float:
    """Resident memory of the process now, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(scan: Path, masks: Path, out: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one lift in this process."""
    watch = Watch()
    with watch.stage("read"):
        scene = read_scene(scan)
    config = LiftConfig(
        scan,
        out,
        segmentation=FolderConfig(masks),
        check_pixels=options.check_pixels,
        tracking=tracking.BACKENDS[options.tracking](),
    )
    lifted = lift(config, scene, watch)
    found = lifted.records["associate"].result
    return {
        "views": len(lifted.scene),
        "tracking": options.tracking,
        "points": lifted.records["fuse"].result["points"],
        "instances": found["instances"],
        "masks": found["masks"],
        "stages": watch.stages,
        "peak_mb": max(each["peak_mb"] for each in watch.stages.values()),
        "ms_per_view": per_view(watch, "seconds", len(lifted.scene)),
        "cpu_ms_per_view": per_view(watch, "cpu_seconds", len(lifted.scene)),
    }


def per_view(watch: Watch, what: str, views: int) -> float:
    """Milliseconds of all stages for each view."""
    return round(1000 * sum(each[what] for each in watch.stages.values()) / views, 1)


def house(base: Path, points: int, views: int, out: Path) -> dict[str, Any]:
    """Measure association and export of a cloud of this many points: copies of one room.

    `views` of the rendered views show each copy of the room.
    """
    scan, masks = cycle(base, out / "room", BASE)
    room = read_scene(scan)
    cloud = VoxelConfig().build().fuse(room)
    copies = -(-points // len(cloud))
    away = [np.array([12.0 * (i % 4), 12.0 * (i // 4), 0.0]) for i in range(copies)]
    part = -(-points // copies)
    xyz = np.concatenate([cloud.xyz[:part] + each.astype(np.float32) for each in away])[:points]
    once = (np.tile(each[:part], (copies, 1))[:points] for each in (cloud.rgb, cloud.normal))
    tiled = Points(xyz, *once, np.tile(cloud.confidence[:part], copies)[:points])
    del cloud, xyz
    made, maps = [], {}
    for number, shift in enumerate(away):
        for index in np.linspace(0, BASE - 1, views).round().astype(int):
            view = room.views[index]
            cameras = {"camera": _moved(view.camera, shift)}
            if view.depth_camera is not None:
                cameras["depth_camera"] = _moved(view.depth_camera, shift)
            made.append(replace(view, name=f"{number}_{index}", **cameras))
            maps[made[-1].name] = masks / f"{view.name}.png"
    scene = room.with_views(made)
    watch = Watch()
    with watch.stage("associate"):
        found = associate(tiled, scene, Lazy(maps, lambda name: read_label_map(maps[name])))
    with watch.stage("export"):
        write_cloud(out / "cloud.ply", found.cloud)
        coloured = replace(found.cloud, points=coloured_by_label(found.cloud))
        write_cloud(out / "labels.ply", coloured)
        write_instances(out / "instances.json", found.cloud, found.confidence, {})
    return {
        "points": len(tiled),
        "views": len(scene),
        "instances": len(found.confidence),
        "labelled": round(float((found.cloud.instance > 0).mean()), 3),
        "stages": watch.stages,
    }


def _moved(camera: Camera, by: np.ndarray) -> Camera:
    pose = camera.pose.copy()
    pose[:3, 3] += by
    return camera.at(pose)


def table(runs: list[dict[str, Any]]) -> str:
    """Milliseconds per view, and megabytes, of every stage at every length.

    Processor time, which other programs change less than wall time.
    """
    names = list(runs[0]["stages"])
    head = f"{'views':>6} {'tracking':>12} {'colour':>9} {'depth':>8} "
    lines = [
        "processor ms per view / peak MB; last: milliseconds that passed",
        head + " ".join(f"{each:>12}" for each in [*names, "all", "passed"]),
    ]
    for run in runs:
        cells = [
            f"{1000 * run['stages'][name]['cpu_seconds'] / run['views']:.1f}/"
            f"{run['stages'][name]['peak_mb']}"
            for name in names
        ]
        cells += [f"{run['cpu_ms_per_view']}/{run['peak_mb']}", f"{run['ms_per_view']}"]
        start = f"{run['views']:>6} {run['tracking']:>12} {run['colour']:>9} {run['size']:>8} "
        lines.append(start + " ".join(f"{each:>12}" for each in cells))
    return "\n".join(lines)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--views", type=int, nargs="+", default=[500, 1500, 5578])
    options.add_argument("--size", type=int, nargs=2, default=(640, 480), help="depth size")
    options.add_argument("--colour", type=int, nargs=2, default=(1296, 968), help="colour size")
    options.add_argument("--severity", default="low", help="damage of the masks")
    options.add_argument("--tracking", default="independent", help="independent, mastsam, ...")
    options.add_argument("--check-pixels", type=int, default=LiftConfig.check_pixels)
    options.add_argument("--scratch", type=Path, help="folder to keep the rendered views in")
    options.add_argument("--add", action="store_true", help="add to the runs in the results file")
    options.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results/long_scan.json"
    )
    options.add_argument("--house", type=int, help="export a cloud of this many points")
    options.add_argument("--house-views", type=int, default=6, help="views of each of its rooms")
    options.add_argument("--one", type=Path, nargs=3, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.one:
        arrange_threads()  # as the command does: waiting threads of OpenMP take no time
        print(json.dumps(measure(*chosen.one, chosen)))
        return
    known = chosen.add and chosen.out.exists()
    runs: list[dict[str, Any]] = json.loads(chosen.out.read_text())["runs"] if known else []
    size, colour = tuple(chosen.size), tuple(chosen.colour)
    with tempfile.TemporaryDirectory(dir=chosen.scratch) as held:
        scratch = Path(held)
        base = (chosen.scratch or scratch) / f"base_{colour[0]}_{size[0]}_{chosen.severity}"
        if not base.is_dir():
            render(base, colour, size, chosen.severity)
        if chosen.house:
            held_by = house(base, chosen.house, chosen.house_views, scratch / "house")
            print(json.dumps(held_by, indent=1))
            whole = json.loads(chosen.out.read_text()) if chosen.out.exists() else {}
            chosen.out.write_text(json.dumps(whole | {"house": held_by}, indent=1) + "\n")
            return
        for views in chosen.views:
            runs.append(run_one(base, scratch / f"{views}", views, chosen))
            runs[-1] |= {"size": f"{size[0]}x{size[1]}", "colour": f"{colour[0]}x{colour[1]}"}
            runs[-1]["load_after"] = round(os.getloadavg()[0], 1)
            runs.sort(key=lambda run: (run["tracking"], run["views"]))
            whole = json.loads(chosen.out.read_text()) if chosen.out.exists() else {}
            result = whole | {
                "what": f"{BASE} views of a synthetic room cycled, poses moved by {MOVED} m; masks "
                f"of severity '{chosen.severity}' from files; fused, associated, checked, reported",
                "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
                "runs": runs,
                "table": table(runs).splitlines(),
            }
            chosen.out.write_text(json.dumps(result, indent=1) + "\n")
            print(table(runs), flush=True)


def run_one(base: Path, folder: Path, views: int, chosen: argparse.Namespace) -> dict[str, Any]:
    """Measure one length in a new process, so that the memory is of this lift alone."""
    scan, masks = cycle(base, folder, views)
    command = [sys.executable, __file__, "--one", str(scan), str(masks), str(folder / "out")]
    command += ["--check-pixels", str(chosen.check_pixels), "--tracking", chosen.tracking]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
