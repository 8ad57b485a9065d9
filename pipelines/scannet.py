"""Run the ScanNet benchmark: lift every scan, write a submission, compute AP over all scenes.

python pipelines/scannet.py SCANS... --out OUT [--address auto] [any setting of `lift3d batch`]

SCANS are scene folders with their annotation: exported pictures and `<scene>_vh_clean_2.ply`, or
folders that hold the .sens file.

1. Each scan is lifted onto the vertices of its own mesh (`--cloud mesh`), one run folder per scan
   in OUT. Where scans are fewer than GPUs, the views of each are spread over several GPUs. Run the
   same command again to continue.
2. The instances are written to OUT/submission in the benchmark's format: per scan a list and a
   mask file for each instance.
3. Instance AP over all scenes together is written to OUT/benchmark.json, each number with its
   protocol: both class-agnostic ones (see `lift3d evaluate`), and with `--classes` the one with
   classes, which needs scannetv2-labels.combined.tsv beside the scans. A scan that could not be
   lifted counts as a scan without predictions.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tyro

from lift3d.association.votes.classes import classes_of_objects
from lift3d.cli.choices import with_choices
from lift3d.cli.commands import Batch
from lift3d.evaluation.metrics.annotation import read_annotation
from lift3d.evaluation.metrics.classes import BENCHMARKS
from lift3d.evaluation.metrics.scannet import AveragePrecision, InstanceScores
from lift3d.evaluation.metrics.submission import predictions, write_submission
from lift3d.run.batch import batch
from lift3d.run.batch.overview import Row, print_overview, tally
from lift3d.run.run import Run
from lift3d.scene.errors import InputError
from lift3d.scene.storage import atomic


@dataclass(frozen=True)
class ScanNet(Batch):
    """Lift ScanNet scans onto their meshes, write the submission, score all scenes together."""

    cloud: Path | None = Path("mesh")
    """The mesh whose vertices are labelled; scores need each scan's own, `mesh`."""
    benchmark: str = "scannet"
    """`scannet` or `scannet200`: the class ids of `--classes`, and the classes that are rules."""
    table: Path | None = None
    """scannetv2-labels.combined.tsv [default: searched beside the scans and in parent folders]."""


def submit(row: Row, folder: Path, classed: bool, fallback: int) -> dict[bool, list]:
    """Write one scene's submission; returns its predictions with and without classes."""
    if row.state != "done":
        write_submission(folder, row.scan, [])
        return {True: [], False: []}
    run = Run.open(row.folder)
    cloud, confidence = run.cloud, run.confidence
    found = {False: predictions(cloud.instance, confidence, fallback), True: []}
    if classed and cloud.semantic is not None:
        of_object = classes_of_objects(cloud.instance, cloud.semantic)
        found[True] = predictions(cloud.instance, confidence, of_object)
    write_submission(folder, row.scan, found[classed])
    return found


def score(rows: Sequence[Row], config: ScanNet) -> list[AveragePrecision]:
    """AP over all scenes, by every protocol for which all scenes have the truth."""
    own = BENCHMARKS[config.benchmark]
    classed = config.classes is not None
    scores = {
        name: InstanceScores(each.things, each.class_agnostic, folded=True)
        for name, each in BENCHMARKS.items()
    }
    if classed:
        scores["classes"] = InstanceScores(own.things, own.semantic)
    for row in rows:
        found = submit(row, config.out / "submission", classed, own.things[0])
        source = Path(row.input)
        truth = read_annotation(
            source if source.is_dir() else source.parent, row.scan, config.table
        )
        for name in list(scores):
            rules = own if name == "classes" else BENCHMARKS[name]
            if truth.classes(rules) is None:
                print(f"{row.scan}: no {rules.convention} ids, so no {rules.name}", file=sys.stderr)
                del scores[name]
            else:
                scores[name].add(truth.truth(rules), found[name == "classes"])
    return [each.result() for each in scores.values()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 0 when every scan was lifted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    config: Any = tyro.cli(
        with_choices(ScanNet, given),
        args=given,
        description=__doc__,
        config=(tyro.conf.CascadeSubcommandArgs,),
    )
    try:
        if config.benchmark not in BENCHMARKS:
            raise InputError(f"--benchmark {config.benchmark}: expected {' or '.join(BENCHMARKS)}")
        rows = batch(config.scans, config, config, config.again, command=sys.argv)
        print_overview(config.out, rows)
        found = score(rows, config)
    except InputError as error:
        print(f"scannet.py: {error}", file=sys.stderr)
        return 2
    content = {
        "scans": tally(rows),
        "scores": [
            {**each.summary(), "classes": each.by_class(BENCHMARKS[config.benchmark].names)}
            for each in found
        ],
        "rows": [asdict(row) for row in rows],
    }
    with atomic(config.out / "benchmark.json") as part:
        part.write_text(json.dumps(content, indent=1))
    for each in found:
        print(each)
    return 0 if all(row.state == "done" for row in rows) else 2


if __name__ == "__main__":
    sys.exit(main())
