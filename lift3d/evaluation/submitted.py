"""Evaluate a benchmark submission against the truth, scene by scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from lift3d.evaluation.metrics.annotation import read_annotation
from lift3d.evaluation.metrics.classes import BENCHMARKS, Benchmark
from lift3d.evaluation.metrics.scannet import InstanceScores
from lift3d.evaluation.metrics.submission import read_submission, submitted_scenes
from lift3d.evaluation.truth import read_ids, scannet_scene
from lift3d.scene.errors import InputError

PLUS = "scannetpp"


@dataclass(frozen=True, eq=False)
class _Scene:
    """Truth of a scene by benchmark: label * 1000 + instance."""

    ids: Mapping[str, Int64[np.ndarray, " vertices"]]
    notes: tuple[str, ...] = ()


def is_submission(folder: Path) -> bool:
    """Whether the folder is a submission: it has mask lists (*.txt) and is not a run."""
    return not (folder / "scene.json").exists() and any(folder.glob("*.txt"))


def evaluate_submission(
    folder: Path, truth: Path, benchmark: str = "scannet", table: Path | None = None
) -> dict[str, Any]:
    """AP with the classes of `benchmark`, and class-agnostic AP by every available protocol.

    `truth` is a folder of <scene>.txt or .npy with label * 1000 + instance per vertex, in the
    ids of `benchmark`, or a folder of ScanNet scans. As in the benchmark's script, only submitted
    scenes are scored: missing scenes do not lower the score.
    """
    scenes = submitted_scenes(folder)
    scores: dict[str, InstanceScores] = {}
    notes: list[str] = []
    for scene in scenes:
        known = _truth(truth, scene, benchmark, table)
        notes += [f"{scene}: {note}" for note in known.notes]
        if benchmark not in known.ids:
            raise InputError(
                f"{truth}: the classes of {scene} are not known in the ids of {benchmark}; put "
                "scannetv2-labels.combined.tsv beside the scans, or choose another --benchmark"
            )
        listed = read_submission(folder, scene, len(known.ids[benchmark]))
        if not scores:
            scores = _scores(known, benchmark)
        elif scores.keys() - {"classes"} != known.ids.keys():
            raise InputError(
                f"{scene} has another kind of annotation than {scenes[0]}; evaluate them separately"
            )
        for name, each in scores.items():
            each.add(known.ids[benchmark if name == "classes" else name], listed)
    names = BENCHMARKS[benchmark].names if benchmark in BENCHMARKS else {}
    found = {name: each.result() for name, each in scores.items()}
    summaries = [each.summary() for each in found.values()]
    if "classes" in found:
        summaries[0]["classes"] = found["classes"].by_class(names)
    return {
        "truth": str(truth),
        "submission": str(folder),
        "scenes": len(scenes),
        **{name: summaries[0][name] for name in ("protocol", "ap", "ap50", "ap25")},
        "scores": summaries,
        "panoptic": [],
        "notes": notes,
    }


def _scores(first: _Scene, benchmark: str) -> dict[str, InstanceScores]:
    """Empty scores: first with classes, then of each class-agnostic protocol."""
    if benchmark == PLUS:
        every = range(1, 1000)  # ScanNet++ numbers classes from 0 (wall); all others are scored
        protocol = "ScanNet++: the truth's instance classes"
        folded = f"class-agnostic {protocol} folded into one"
        return {
            "classes": InstanceScores(every, protocol),
            PLUS: InstanceScores(every, folded, folded=True),
        }
    own = BENCHMARKS[benchmark]
    found = {"classes": InstanceScores(own.things, own.semantic)}
    for name in first.ids:
        other: Benchmark = BENCHMARKS[name]
        found[name] = InstanceScores(other.things, other.class_agnostic, folded=True)
    return found


def _truth(truth: Path, scene: str, benchmark: str, table: Path | None) -> _Scene:
    for suffix in (".txt", ".npy"):
        path = truth / f"{scene}{suffix}"
        # Next to a mesh, <scene>.txt is ScanNet's metadata, not truth.
        if path.is_file() and scannet_scene(truth) is None:
            return _Scene({benchmark: read_ids(path).astype(np.int64)})
    for place in (truth / scene, truth):
        if scannet_scene(place) == scene:
            found = read_annotation(place, scene, table)
            known = {n: b for n, b in BENCHMARKS.items() if found.classes(b) is not None}
            return _Scene({name: found.truth(each) for name, each in known.items()}, found.notes)
    raise InputError(
        f"{truth} has no truth of {scene}; expected {scene}.txt with label * 1000 + instance per "
        f"vertex, or the scan {scene}/ with its annotation"
    )
