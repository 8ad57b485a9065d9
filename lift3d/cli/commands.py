"""What each command takes and does: one class per command, each option a field."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro import MISSING
from tyro.conf import Positional, Suppress

from lift3d import segmentation
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.export.content import Options
from lift3d.run.batch.workers import Workers
from lift3d.run.settings import AutoReader, AutoTracking, Choice, LiftConfig
from lift3d.scene.errors import InputError


@dataclass(frozen=True)
class Lift(LiftConfig):
    """Lift a scan or photos: pictures in, a cloud whose points carry object ids out.

    A run that was interrupted goes on where it stopped when the same command is given again;
    a changed setting redoes only what depends on it.
    """

    def run(self, command: Sequence[str]) -> None:
        """Lift, then show what came out."""
        from lift3d.cli.summary import print_run
        from lift3d.run.lift import lift
        from lift3d.scene.progress import for_terminal

        lift(self, progress=for_terminal(), command=command)
        print_run(self.out)


@dataclass(frozen=True)
class Batch(LiftConfig, Workers):
    """Lift many scans on Ray, each into its own folder; one table and page at the end.

    All settings of `lift3d lift` hold for every scan; `{scan}` in a path stands for its name.
    Scans that are broken are set aside in quarantine.json with their error, the rest goes on;
    the same command goes on where it stopped.
    """

    input: Annotated[Path, Suppress] = Path()
    scans: Positional[tuple[Path, ...]] = MISSING
    """.sens files, scan folders, or `synthetic:SEED`."""
    out: Path = MISSING
    """Run folders are made in it, named after the scans, and batch.json, batch.html."""
    cloud: Path | None = None
    """Label the vertices of this PLY; `mesh` is ScanNet's own of each scan."""
    again: bool = False
    """Try also what was quarantined before and has not changed since."""

    def run(self, command: Sequence[str]) -> None:
        """Lift all, then show the table; InputError where a scan is not in it."""
        from lift3d.run.batch import batch
        from lift3d.run.batch.overview import print_overview, tally

        rows = batch(self.scans, self, self, self.again, command=command)
        print_overview(self.out, rows)
        if any(row.state != "done" for row in rows):
            raise InputError(f"{tally(rows)}; {self.out}/batch.html says why")


@dataclass(frozen=True)
class Info:
    """Say what is there: format, views, cameras, depth, what is left out and why."""

    input: Positional[Path]
    """A .sens file, a scan folder, `synthetic[:SEED]`, or a run folder."""
    reader: Choice = field(default_factory=AutoReader)
    """What INPUT is read as."""

    def run(self, command: Sequence[str]) -> None:
        """Print tables."""
        from lift3d.cli.summary import print_run, print_scene
        from lift3d.datasets import read_scene
        from lift3d.run.layout import Layout

        if Layout(self.input).record.is_file():
            print_run(self.input)
        else:
            found = None if isinstance(self.reader, AutoReader) else self.reader
            print_scene(read_scene(self.input, found))


@dataclass(frozen=True)
class View:
    """Look at a run in 3D: colour, labels, score, cameras, by key."""

    folder: Positional[Path]
    """The run folder."""
    screenshot: Path | None = None
    """Render into this picture instead of opening a window; needs no display."""

    def run(self, command: Sequence[str]) -> None:
        """Open the window or write the picture."""
        from lift3d.run.run import Run
        from lift3d.viewing.window import view_run

        view_run(Run.open(self.folder), screenshot=self.screenshot)
        if self.screenshot is not None:
            print(self.screenshot)


@dataclass(frozen=True)
class Why:
    """Say why a pixel has its label: its mask, the object that became of it, the point there."""

    folder: Positional[Path]
    """The run folder."""
    view: Positional[str]
    """Name of the view, as in labels/."""
    x: Positional[float]
    """Column of the pixel, from 0 at the left."""
    y: Positional[float]
    """Row of the pixel, from 0 at the top."""

    def run(self, command: Sequence[str]) -> None:
        """Print the chain."""
        from lift3d.run.run import Run

        print(Run.open(self.folder).why(self.view, (self.x, self.y)))


@dataclass(frozen=True)
class Evaluate:
    """Score a run or a submission against the truth: AP, PQ, and with classes IoU.

    Every number names its protocol. Of a ScanNet scan both class-agnostic protocols are
    computed: ScanNetV2's 18 classes folded into one, and ScanNet200's 198.
    """

    folder: Positional[Path]
    """The run folder; or a submission, a folder of <scene>.txt with masks."""
    truth: Path
    """A PLY with the property `label` or `instance`, a .txt or .npy with one id per point of
    the run's cloud, or a ScanNet or ScanNet++ scene folder with its annotation. For a
    submission: a folder of <scene>.txt (label * 1000 + instance) or of ScanNet scans."""
    benchmark: Literal["scannet", "scannet200", "scannetpp"] = "scannet"
    """Whose class ids the run's or the submission's classes are."""
    classes: Path | None = None
    """Class maps of a 2D labeller, <view>.png in ids of the benchmark: voted onto the points."""
    views: Path | None = None
    """True ids of each picture, <view>.png: PQ of the pictures and of all together."""
    table: Path | None = None
    """scannetv2-labels.combined.tsv [default: looked for beside and above the scan]."""

    def run(self, command: Sequence[str]) -> None:
        """Print the scores; those of a run go to `evaluation.json` in its folder."""
        from lift3d.cli.summary import print_evaluation
        from lift3d.evaluation.submitted import evaluate_submission, is_submission
        from lift3d.run.evaluating import evaluate
        from lift3d.run.run import Run

        if is_submission(self.folder):
            if self.classes is not None or self.views is not None:
                raise InputError("--classes and --views are for runs; a submission has its masks")
            found = evaluate_submission(self.folder, self.truth, self.benchmark, self.table)
        else:
            run = Run.open(self.folder)
            found = evaluate(run, self.truth, self.benchmark, self.classes, self.views, self.table)
        print_evaluation(found)


@dataclass(frozen=True)
class Export(Options):
    """Write a run in other programs' formats, each in a folder of its own.

    docs/exports.md says of each what it holds, its frames, its pixel origin and who reads it.
    """

    folder: Positional[Path] = MISSING
    """The run folder."""
    to: tuple[str, ...] = MISSING
    """Formats, several at once; the help lists them (`cli.choices`)."""
    out: Path | None = None
    """Where to [default: `export` in the run folder]. Only what an export wrote is replaced."""
    scan: Path | None = None
    """Where the scan lies now, if not where it was lifted from; most formats need its pictures."""

    def run(self, command: Sequence[str]) -> None:
        """Write, and say what."""
        from lift3d.run.exporting import export
        from lift3d.run.run import Run
        from lift3d.scene.progress import for_terminal

        run = Run.open(self.folder, self.scan)
        for path in export(run, self.to, self.out, self, for_terminal()):
            print(path)


@dataclass(frozen=True)
class Weights:
    """List the weights of networks, or fetch one and verify it.

    Fetching goes on where it was interrupted. What was fetched is checked by its SHA-256; where
    none is published, the first file is trusted and later ones must equal it.
    """

    name: Positional[str | None] = None
    """Which to fetch or to verify; without one, the list."""
    path: Path | None = None
    """Verify this file and use it where it lies, instead of fetching."""
    folder: Path | None = None
    """Where weights are kept [default: $LIFT3D_WEIGHTS, else ~/.cache/lift3d]."""

    def run(self, command: Sequence[str]) -> None:
        """Print the list, or the path of the file."""
        from lift3d.networks.weights import fetch, known, listing
        from lift3d.scene.progress import for_terminal

        if self.name is None:
            if self.path is not None:
                raise InputError(f"which weights is {self.path}? lift3d weights NAME --path FILE")
            print(listing(self.folder))
            return
        progress = for_terminal()
        with progress.stage(f"{known(self.name).name}, MB") as tick:
            file = fetch(self.name, tick, path=self.path, folder=self.folder, log=progress.log)
        print(file)


@dataclass(frozen=True)
class Demo:
    """Lift a synthetic room whose truth is known, and score the result."""

    out: Path = Path("out/demo")
    """The run folder."""
    scene: SyntheticConfig = field(default_factory=SyntheticConfig)
    seed: int = 0
    """Of every random step of lifting."""
    voxel: float | None = None
    """Size of a fused point in metres."""
    segmentation: Choice = field(default_factory=segmentation.BACKENDS["regions"])
    """Where masks come from."""
    tracking: Choice = field(default_factory=AutoTracking)
    """How masks get their ids."""

    def run(self, command: Sequence[str]) -> None:
        """Lift, then show the scores."""
        from lift3d.cli.summary import print_run
        from lift3d.run.lift import lift
        from lift3d.scene.progress import for_terminal

        config = LiftConfig(
            input=Path(f"synthetic:{self.scene.seed}"),
            out=self.out,
            voxel=self.voxel,
            seed=self.seed,
            reader=self.scene,
            segmentation=self.segmentation,
            tracking=self.tracking,
        )
        lift(config, progress=for_terminal(), command=command)
        print_run(self.out)


EXAMPLES: dict[type, tuple[str, ...]] = {
    Lift: (
        "lift3d lift scans/scene0011_00.sens --out out/scene0011",
        "lift3d lift scans/kitchen --out out/kitchen --stride 4 --voxel 0.01",
        "lift3d lift photos --out out/photos",
        "lift3d lift walk.mp4 --out out/walk reader:video --reader.focal 1400",
        "lift3d lift scans/kitchen --out out/kitchen \\",
        "    segmentation:folder --segmentation.path masks tracking:independent",
        "lift3d lift segmentation:sam tracking:mastsam --help     # the options of these two",
    ),
    Batch: (
        "lift3d batch scans/* --out out/house --views 300",
        "lift3d batch scans/* --out out/scannet --cloud mesh --address auto --gpus 1 --memory 8",
        "lift3d batch scans/* --out out/house \\",
        "    segmentation:folder --segmentation.path masks/{scan}",
    ),
    Info: (
        "lift3d info scans/scene0011_00.sens",
        "lift3d info walk.mp4 reader:video --reader.max-frames 80",
    ),
    View: ("lift3d view out/kitchen", "lift3d view out/kitchen --screenshot kitchen.png"),
    Why: ("lift3d why out/kitchen 000120 412 230",),
    Evaluate: (
        "lift3d evaluate out/scene0011 --truth scans/scene0011_00",
        "lift3d evaluate out/kitchen --truth kitchen_truth.ply",
        "lift3d evaluate submission --truth scans --benchmark scannet200",
    ),
    Export: (
        "lift3d export out/kitchen --to ply",
        "lift3d export out/kitchen --to nerfstudio colmap splat --undistort",
        "lift3d export out/scene0011 --to scannet --vertices scene0011_00_vh_clean_2.ply",
    ),
    Weights: (
        "lift3d weights",
        "lift3d weights sam_vit_b",
        "lift3d weights sam_vit_b --path sam_vit_b_01ec64.pth",
    ),
    Demo: (
        "lift3d demo --out out/demo",
        "lift3d demo --out out/demo7 --scene.seed 7 --scene.views 60",
    ),
}
"""Shown by each command's `--help`."""
