"""What corrections cost a lift that nobody corrects: pairs of lifts of the demo, with and without.

python benchmarks/correction_cost.py [--views 16] [--pairs 7]

`with` is the command as it is. `without` is the same code, except that the association's results
get their public names at once, as they would if there were no edits: the label maps are moved and
not copied, the cloud is written from memory, the tree of joins is not kept, and no stage `correct`
has a key. Each lift is a process of its own; the two kinds take turns, and which comes first
changes from pair to pair. Counted is the processor time of the process and its threads, which a
busy machine changes less than it does the time on the clock.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import lift3d.run.lift as lifting
from lift3d.association.surface import Surface
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.export.instances import write_instances
from lift3d.export.ply import coloured_by_label, write_cloud
from lift3d.run.layout import Automatic
from lift3d.run.settings import LiftConfig
from lift3d.run.stages import Record
from lift3d.run.staging import Stages
from lift3d.scene import LabelledPoints, Scene
from lift3d.scene.palette import distinct_colours


def without_corrections() -> None:
    """Take from the lift what is there for corrections alone."""
    kept: dict[str, Any] = {}

    def hold(
        automatic: Automatic,
        cloud: LabelledPoints,
        confidence: Mapping[int, float],
        views: Mapping[int, int],
    ) -> None:
        kept.update(cloud=cloud, confidence=confidence, views=views)
        for path in (automatic.cloud, automatic.objects):
            path.touch()  # outputs that the record of the stage names

    def named(run: Stages, scene: Scene) -> None:
        files, cloud = run.files, kept["cloud"]
        files.automatic.labels.rename(files.labels)
        palette = distinct_colours(cloud, kept["confidence"])
        write_cloud(files.cloud, cloud)
        write_cloud(files.cloud_labels, replace(cloud, points=coloured_by_label(cloud, palette)))
        views = {each: kept["views"].get(each, 0) for each in kept["confidence"]}
        write_instances(files.instances, cloud, kept["confidence"], views, palette)
        run.folder.records["correct"] = Record("correct", "", 0.0, 0.0, {}, {})

    lifting.write_automatic = hold
    lifting.correct_stage = named
    Surface.save = lambda self, path: path.touch()  # type: ignore[method-assign]


def lift_once(views: int, plain: bool, out: Path) -> None:
    """One lift of the demo in this process."""
    if plain:
        without_corrections()
    scene = SyntheticConfig(views=views)
    lifting.lift(LiftConfig(input=Path("synthetic:0"), out=out, reader=scene))


def seconds_of(views: int, plain: bool) -> float:
    """Processor seconds of one lift in a process of its own."""
    command = [sys.executable, __file__, "--views", str(views), "--once", str(int(plain))]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*command, "--out", f"{folder}/run"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print every pair, and the median of their ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--views", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--once", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once is not None:
        lift_once(given.views, bool(given.once), given.out)
        return
    for plain in (False, True):  # what is compiled and kept in caches, once
        seconds_of(given.views, plain)
    ratios, costs = [], []
    for pair in range(given.pairs):
        taken = {plain: seconds_of(given.views, plain) for plain in (pair % 2 == 0, pair % 2 == 1)}
        ratios.append(taken[False] / taken[True])
        costs.append(taken[False] - taken[True])
        print(
            f"without {taken[True]:.2f} s, with {taken[False]:.2f} s: {ratios[-1]:.4f}", flush=True
        )
    print(
        f"{given.views} views, {given.pairs} pairs: median ratio {statistics.median(ratios):.4f}, "
        f"from {min(ratios):.4f} to {max(ratios):.4f}; median cost {statistics.median(costs):.2f} s"
    )


if __name__ == "__main__":
    main()
