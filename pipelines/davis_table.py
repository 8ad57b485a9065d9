"""Compute MastSAM's tables on DAVIS or MOSE, beside the paper's figures, with stricter scores.

python pipelines/davis_table.py ROOT --out OUT

Every sequence of ROOT is labelled by each method and scored (`davis/`). Each free GPU, or
free worker without networks, takes the next sequence. The result of each sequence and method is a
file under OUT; run the same command again to continue. README.md has the commands for the paper's
weights.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import tyro
from davis import Comparison, Result, tables
from davis.video import PAPER, STRICT
from rich.table import Table

from lift3d.datasets.davis import sequences
from lift3d.networks.known import KNOWN
from lift3d.networks.sam.automatic import AutomaticConfig
from lift3d.networks.weights import find
from lift3d.scene.errors import InputError, did_you_mean
from lift3d.scene.storage import atomic
from lift3d.segmentation.matching.flow import FlowMatcherConfig
from lift3d.segmentation.matching.mast3r import Mast3rMatcherConfig
from lift3d.segmentation.regions import RegionsConfig
from lift3d.segmentation.sam import SamConfig
from lift3d.segmentation.sam_transformers import SamTransformersConfig
from lift3d.segmentation.tracking.byocl import ByoclConfig
from lift3d.segmentation.tracking.independent import IndependentConfig
from lift3d.segmentation.tracking.mastsam import MastsamConfig

METHODS: dict[str, Any] = {
    "byocl": ByoclConfig(),
    "mastsam": MastsamConfig(preset="paper"),
    "mastsam-best": MastsamConfig(preset="best"),
    "independent": IndependentConfig(),
    "mastsam-no-init": MastsamConfig(preset="paper", initialise=False),
}
TITLES = {
    "byocl": "BYOCL",
    "mastsam": "MastSAM",
    "mastsam-best": "MastSAM, our preset",
    "independent": "SAM per frame",
    "mastsam-no-init": "MastSAM without initialisation",
}
PUBLISHED: dict[str, tuple[float | None, ...]] = {
    "byocl": (0.3906, 0.527, 0.4621, 0.6671, 78.73),
    "mastsam": (0.4553, 0.5228, 0.5226, 0.5988, 92.32),
    "independent": (0.6787, 0.786, 0.9891, 0.6965, None),
    "mastsam-no-init": (0.3678, 0.4211, 0.5682, 0.3780, None),
}
"""IoU, F1, precision, recall, consistency in percent, as the paper prints them."""
TABLES = {
    "Table I": ("byocl", "mastsam", "mastsam-best"),
    "Table II": ("independent", "mastsam", "mastsam-best", "mastsam-no-init"),
}
PAPER_MASKS = AutomaticConfig(
    points_per_side=5,
    min_score=0.90,
    crop_layers=1,
    crop_points_divisor=2,
    smallest=9000 / (854 * 480),
)
"""Settings of SAM's automatic masks in the paper's scripts."""


@dataclass(frozen=True)
class Options:
    """The videos, the methods and the output folder."""

    root: tyro.conf.Positional[Path]
    """A DAVIS (2016, 2017) or MOSE folder, with JPEGImages/ and Annotations/."""
    out: Path
    """Folder of the results; existing ones are reused."""
    segmenter: Literal["regions", "sam", "sam-hf"] = "regions"
    """Where masks come from; regions needs no weights."""
    checkpoint: str | None = None
    """SAM's weights: a name from `lift3d weights`, or a path; for sam-hf a folder."""
    matcher: Literal["flow", "mast3r"] = "flow"
    """Where matches come from, for the trackers and for H; flow needs no weights."""
    weights: str = Mast3rMatcherConfig().weights
    """MASt3R's weights: a name from `lift3d weights`, or a path."""
    sequences: tuple[str, ...] = ()
    """Only these sequences."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Only these methods."""
    frames: int | None = None
    """Use only this many frames from the start of each sequence."""
    size: int | None = None
    """Scale images down so that their longer side has this many pixels."""
    workers: int | None = None
    """Number of worker processes: by default one per GPU, or per core without GPUs; 0: none."""
    masks: AutomaticConfig = field(default_factory=lambda: PAPER_MASKS)
    """Settings of SAM's automatic masks; the defaults are the paper's."""

    def check(self) -> None:
        """InputError for values out of range."""
        for name in self.methods:
            if name not in METHODS:
                raise InputError(did_you_mean(name, METHODS, "method"))
        if self.segmenter != "regions" and self.checkpoint is None:
            raise InputError(f"--segmenter {self.segmenter} needs --checkpoint")
        if (self.frames or 2) < 2 or (self.size or 64) < 32 or (self.workers or 0) < 0:
            raise InputError("expected --frames >= 2, --size >= 32, --workers >= 0")

    @property
    def network(self) -> bool:
        """Whether a network is used."""
        return self.segmenter != "regions" or self.matcher == "mast3r"

    def comparison(self) -> Comparison:
        """The comparison to run; InputError where weights are missing."""
        weights = [self.checkpoint] if self.segmenter == "sam" else []
        weights += [self.weights] if self.matcher == "mast3r" else []
        return Comparison(
            self.out,
            {name: METHODS[name] for name in self.methods},
            self._segmentation(),
            self._matching(),
            ", ".join(f"{name} of {find(name).stat().st_size} bytes" for name in weights if name),
            self.frames,
            self.size,
        )

    def _segmentation(self) -> Any:
        if self.segmenter == "regions":
            return RegionsConfig()
        assert self.checkpoint is not None
        if self.segmenter == "sam":
            return SamConfig(find(self.checkpoint), automatic=self.masks)
        return SamTransformersConfig(self.checkpoint, automatic=self.masks)

    def _matching(self) -> Any:
        if self.matcher == "flow":
            return FlowMatcherConfig()
        return Mast3rMatcherConfig(self.weights)


def report(
    options: Options, names: Sequence[str], results: Mapping[str, Sequence[Result]]
) -> tuple[str, dict[str, Any]]:
    """The tables in Markdown, from the existing results, and their numbers."""
    means = {method: tables.averaged(found) for method, found in results.items()}
    titled = {_title(method, options): found for method, found in means.items()}
    text = statement(options, names, results)
    parts = [(title, published(rows, means, options)) for title, rows in TABLES.items()]
    parts.append(("Stricter: one id per sequence", tables.strict(titled)))
    parts.append(("Consistency in full", tables.consistency(titled)))
    return tables.markdown(parts, text), {"means": means, "statement": text.split("\n\n")}


def published(rows: Sequence[str], means: Mapping[str, tables.Means], options: Options) -> Table:
    """A table with the paper's figures and ours in alternate rows."""
    names = ("IoU", "F1", "precision", "recall", "consistency, %")
    found = tables.table("method", "whose", *names)
    for method in (row for row in rows if row in means):
        if theirs := PUBLISHED.get(method):
            printed = [tables.number(each, 4) for each in theirs[:4]]
            found.add_row(TITLES[method], "paper", *printed, tables.number(theirs[4], 2))
        found.add_row(_title(method, options), "ours", *tables.per_image(means[method]))
    return found


def statement(
    options: Options, names: Sequence[str], results: Mapping[str, Sequence[Result]]
) -> str:
    """Text on how the figures were computed, and how they differ from the paper's."""
    frames = max((sum(each["frames"] for each in found) for found in results.values()), default=0)
    lacking = [f"{name} {len(found)}" for name, found in results.items() if len(found) < len(names)]
    lines = [
        f"Ours: {len(names)} sequences ({', '.join(names[:20])}{', ...' * (len(names) > 20)}), "
        f"{frames} frames; segmenter {options.segmenter}"
        f"{f' ({options.checkpoint})' if options.checkpoint else ''}, matcher {options.matcher}"
        f"{f' ({options.weights})' if options.matcher == 'mast3r' else ''}. "
        "Means over sequences. Which rows stand in which of the two tables is our choice.",
        f"Tables I and II, {PAPER}.",
        f"Stricter, {STRICT}. J is the IoU, F DAVIS' boundary measure. Found: share of the images "
        "with the object in which a mask has IoU >= 0.5 with it; switches: changes of that mask's "
        "id, per object; longest: longest run of such images under one id, as a share.",
        f"Consistency, H: share of the matches between neighbouring frames (by {options.matcher}) "
        "whose two ends have one id, unlabelled counting as one; H labelled: over ends that have "
        "an id; chance: what both would be if each frame's ids were permuted. One label everywhere "
        "scores 100 %. The paper does not say how it computed its own.",
    ]
    if lacking:
        lines.append(f"NOT COMPLETE: of {len(names)} sequences there are {', '.join(lacking)}.")
    if reasons := not_the_papers(options):
        lines.append(f"No figure of ours reproduces the paper's: {'; '.join(reasons)}.")
    else:
        lines.append(
            "Made with verified weights of the networks that the paper names. Which sequences, "
            "and which of SAM's sizes, it used is not known to us."
        )
    return "\n\n".join(lines)


def not_the_papers(options: Options) -> list[str]:
    """Known differences from the paper's experiment."""
    reasons = []
    if options.segmenter != "sam":
        reasons.append(f"masks are of '{options.segmenter}', not of SAM")
    elif options.checkpoint not in KNOWN:
        reasons.append(f"the weights {options.checkpoint} are not verified to be SAM's")
    if options.matcher != "mast3r":
        reasons.append(f"matches are of '{options.matcher}', not of MASt3R")
    elif options.weights not in KNOWN:
        reasons.append(f"the weights {options.weights} are not verified to be MASt3R's")
    if options.segmenter != "regions" and options.masks != PAPER_MASKS:
        reasons.append("SAM's automatic masks have other settings")
    if options.frames:
        reasons.append(f"only the first {options.frames} frames of each sequence")
    if options.size:
        reasons.append(f"images were shrunk to a longer side of {options.size}")
    return reasons


def _title(method: str, options: Options) -> str:
    return TITLES[method].replace("SAM per frame", f"{options.segmenter} per frame")


def main(given: Sequence[str] | None = None) -> int:
    """Compute missing results and print the tables; 1 where a sequence failed, 2 for bad input."""
    options = tyro.cli(Options, args=given, description=__doc__)
    try:
        options.check()
        found = sequences(options.root)
        for name in options.sequences:
            if name not in found:
                raise InputError(did_you_mean(name, found, "sequence"))
        found = {name: found[name] for name in options.sequences or found}
        comparison = options.comparison()
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    failed = comparison.run(
        found, options.network, options.workers, lambda line: print(line, file=sys.stderr)
    )
    text, numbers = report(options, list(found), comparison.results(list(found)))
    for file, content in (("tables.md", text), ("tables.json", json.dumps(numbers, indent=1))):
        with atomic(options.out / file) as part:
            part.write_text(content)
    print(text)
    for name, reason in failed.items():
        print(f"{name} failed: {reason}", file=sys.stderr)
    if failed:
        print("results are kept; run the same command again to continue", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
