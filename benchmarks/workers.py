"""One scan on several workers: seconds of its stage `track`, the same bytes, nothing done twice.

    python benchmarks/workers.py [--views 300] [--milliseconds 50] [--waits] [--no-ray]

A stand-in segmenter takes 50 ms of a core for each picture; with --waits it waits instead, as a
process does whose GPU works. One process, two processes, two with one killed, two Ray nodes on this
machine, two with one worker killed. Starting the workers is part of the seconds. Each run ends
after the stage: what follows reads only its masks (tests/test_workers.py compares whole runs).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from slow_segmenter import SlowConfig, lines

from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.run.lift import lift
from lift3d.run.settings import LiftConfig
from lift3d.scene.progress import Lines, Tick
from lift3d.scene.workers.views import ViewWorkers

RESULTS = Path(__file__).resolve().parent / "results"


def write_scan(folder: Path, views: int) -> Path:
    """A synthetic room as a folder of pictures, depth and poses."""
    scene = SyntheticConfig(views=views, width=160, height=120).read()
    for name in ("color", "depth", "pose", "intrinsic"):
        (folder / name).mkdir(parents=True)
    K = np.eye(4)
    K[:3, :3] = scene.views[0].camera.K
    for kind in ("color", "depth"):
        np.savetxt(folder / "intrinsic" / f"intrinsic_{kind}.txt", K)
    for number, view in enumerate(scene.views):
        depth = view.depth()
        assert depth is not None
        cv2.imwrite(str(folder / f"color/{number}.jpg"), view.image()[..., ::-1])
        cv2.imwrite(str(folder / f"depth/{number}.png"), (depth * 1000).astype(np.uint16))
        np.savetxt(folder / f"pose/{number}.txt", view.camera.pose)
    return folder


def digest(run: Path) -> str:
    """One digest of all masks."""
    found = hashlib.sha256()
    for file in sorted((run / "masks").iterdir()):
        found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()[:16]


class Enough(Exception):
    """The stage has been measured."""


class UntilTracked(Lines):
    """Ends the run before the stage after `track`."""

    def stage(self, name: str) -> contextlib.AbstractContextManager[Tick]:
        """Lines, up to the stage."""
        if name == "associate":
            raise Enough
        return super().stage(name)


@contextlib.contextmanager
def two_nodes(folder: Path) -> Iterator[str]:
    """The address of a Ray cluster of two nodes on this machine, a core each."""
    paths = [str(Path(__file__).parent), *filter(None, sys.path)]
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "PYTHONPATH": os.pathsep.join(paths),
    }
    port = 20000 + os.getpid() % 20000
    common = ["--num-cpus=1", "--object-store-memory=100000000", "--block"]
    started = []
    try:
        for host, more in (
            ("127.0.0.2", [f"--port={port}", "--head", "--include-dashboard=false"]),
            ("127.0.0.3", [f"--address=127.0.0.2:{port}"]),
        ):
            log = folder / f"{host}.log"
            command = [str(Path(sys.executable).parent / "ray"), "start"]
            with log.open("w") as file:
                started.append(
                    subprocess.Popen(
                        [*command, f"--node-ip-address={host}", *more, *common],
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                )
            while "block forever" not in log.read_text():
                if started[-1].poll() is not None:
                    raise SystemExit(f"the Ray node {host} did not start: {log.read_text()}")
                time.sleep(0.2)
        yield f"127.0.0.2:{port}"
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait()


def measured(
    name: str, scan: Path, folder: Path, settings: SlowConfig, workers: ViewWorkers
) -> dict[str, object]:
    """One run: seconds of the stage `track`, a digest, and how often views were done.

    At work: from the beginning of the first view to that of the last.
    """
    print(name, file=sys.stderr, flush=True)
    config = LiftConfig(scan, folder / name, segmentation=settings)
    load = os.getloadavg()[0]
    with contextlib.suppress(Enough):
        lift(config, None, UntilTracked(), workers=workers)
    record = json.loads((folder / name / ".stages/track.json").read_text())
    done = Counter(line.split()[0] for line in lines(settings.log))
    begun = sorted(line.split()[2] for line in lines(settings.log))
    return {
        "name": name,
        "seconds": record["seconds"],
        "seconds at work": round(float(begun[-1]) - float(begun[0]), 1),
        "digest": digest(folder / name),
        "done twice": sorted(view for view, times in done.items() if times > 1),
        "processes": len({line.split()[1] for line in lines(settings.log)}),
        "load before": round(load, 2),
    }


def main() -> None:
    """Measure, print, and write results/workers.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--views", type=int, default=300)
    parser.add_argument("--milliseconds", type=float, default=50.0)
    parser.add_argument("--waits", action="store_true")
    parser.add_argument("--no-ray", action="store_true")
    asked = parser.parse_args()
    rows = []
    how = {"milliseconds": asked.milliseconds, "waits": asked.waits}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        scan = write_scan(folder / "scan", asked.views)
        middle = str(asked.views // 2)
        plan = [("alone", None, ""), ("two", 2, ""), ("two, one killed", 2, middle)]
        for name, count, dies in plan:
            settings = SlowConfig(folder / f"{name}.log", **how, dies=dies)
            rows.append(measured(name, scan, folder, settings, ViewWorkers(count)))
        if not asked.no_ray:
            with two_nodes(folder) as address:
                for name, dies in (("two nodes", ""), ("two nodes, one killed", middle)):
                    settings = SlowConfig(folder / f"{name}.log", **how, dies=dies)
                    workers = ViewWorkers(None, address)
                    rows.append(measured(name, scan, folder, settings, workers))
    assert len({row["digest"] for row in rows}) == 1, rows
    for row in rows:
        print(row)
    RESULTS.mkdir(exist_ok=True)
    name = "workers_waiting" if asked.waits else "workers"
    (RESULTS / f"{name}.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
