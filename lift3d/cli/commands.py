"""The commands: one class per command, one field per option."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro import MISSING
from tyro.conf import Positional, Suppress, UseAppendAction, arg

from lift3d import segmentation
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.export.content import Options
from lift3d.run.batch.workers import Workers
from lift3d.run.settings import (
    AutoReader,
    AutoReconstruction,
    AutoTracking,
    Choice,
    LiftConfig,
    without_extras,
)
from lift3d.scene.errors import InputError
from lift3d.scene.printing import to_stdout
from lift3d.scene.workers.views import ViewWorkers
from lift3d.segmentation.transfer import TransferConfig


@dataclass(frozen=True)
class Lift(ViewWorkers, LiftConfig):
    """Lift a scan or photos to a point cloud whose points have object ids.

    Everything goes into one run folder: the labelled cloud, a label map per view, and report.html,
    which is the file to open first. If the command is interrupted, run it again: finished stages
    are kept. A changed setting repeats only the stages that depend on it.
    """

    def run(self, command: Sequence[str]) -> None:
        """Lift, then print a summary of the run."""
        from lift3d.cli.summary import print_run
        from lift3d.run.lift import lift
        from lift3d.scene.progress import for_terminal

        lift(without_extras(self), progress=for_terminal(), command=command, workers=self)
        print_run(self.out)


@dataclass(frozen=True)
class Batch(LiftConfig, Workers):
    """Lift many scans in parallel, here or on a Ray cluster, each into its own run folder.

    It takes the settings of `lift3d lift`, for all scans alike; `{scan}` in a path is replaced by
    the name of the scan. A scan that fails is listed with its error in quarantine.json and the
    others continue. The result is one table and one page, batch.html. If the command is
    interrupted, run it again: finished scans are kept.
    """

    input: Annotated[Path, Suppress] = Path()
    scans: Positional[tuple[Path, ...]] = MISSING
    """.sens files, scan folders, or `synthetic:SEED`."""
    out: Path = MISSING
    """Folder for the run folders (named after the scans), batch.json and batch.html."""
    cloud: Path | None = None
    """Label the vertices of this PLY instead of a fused cloud; `mesh`: each ScanNet scan's own."""
    again: bool = False
    """Also try scans that are in quarantine.json and have not changed since."""

    def run(self, command: Sequence[str]) -> None:
        """Lift all scans, then print the table; InputError where a scan did not succeed."""
        from lift3d.run.batch import batch
        from lift3d.run.batch.overview import print_overview, tally

        rows = batch(self.scans, self, self, self.again, command=command)
        print_overview(self.out, rows)
        if any(row.state != "done" for row in rows):
            raise InputError(f"{tally(rows)}; see {self.out}/batch.html for the reasons")


@dataclass(frozen=True)
class Info:
    """Show what an input holds: format, views, cameras, depth, and views left out with reasons."""

    input: Positional[Path]
    """A .sens file, a scan folder, `synthetic[:SEED]`, or a run folder."""
    reader: Choice = field(default_factory=AutoReader)
    """The format of INPUT (default: found from its files)."""

    def run(self, command: Sequence[str]) -> None:
        """Print tables."""
        from lift3d.cli.summary import print_run, print_scene, print_unfinished
        from lift3d.datasets import read_scene
        from lift3d.run.layout import Layout, run_of
        from lift3d.run.record import is_run

        folder = run_of(self.input)
        if Layout(folder).record.is_file():
            print_run(folder)
        elif is_run(folder):
            print_unfinished(folder)
        else:
            found = None if isinstance(self.reader, AutoReader) else self.reader
            print_scene(read_scene(self.input, found))


@dataclass(frozen=True)
class View:
    """Look at a run and correct it, on a page in the browser; or show it in a window.

    The page is served on this machine only, to whoever has the address that is printed. Every edit
    is kept at once in edits.jsonl in the run folder; the machine's own labels are never changed.
    From another machine: ssh -L PORT:127.0.0.1:PORT, and the same address. Ctrl+C ends.
    """

    folder: Positional[Path]
    """The run folder, or a file in it."""
    port: int = 0
    """Port of the page; 0 takes a free one."""
    host: str = "127.0.0.1"
    """Address to listen on; another one lets other machines in, and nothing is encrypted."""
    read_only: bool = False
    """Look only: no tools, no edits. Several can look at one run."""
    browser: bool = True
    """Open the browser."""
    segmentation: Choice = field(default_factory=segmentation.BACKENDS["regions"])
    """What is asked about a click in a picture, such as sam. `regions`, the default, is not: its
    masks are surfaces. Then, and for clicks in the cloud, the tree of joins answers."""
    clip: str | None = None
    """A CLIP or SigLIP as in `lift3d click --clip`: it proposes names for the objects, by what the
    pictures show of them."""
    window: bool = False
    """Open3D's window instead of the page: cloud by object, colour or score, and cameras."""
    screenshot: Path | None = None
    """Write this picture (.png or .jpg) instead; needs neither browser nor display."""

    def run(self, command: Sequence[str]) -> None:
        """Serve the page, open the window, or write the picture."""
        from lift3d.run.run import Run

        if self.window or self.screenshot is not None:
            from lift3d.viewing.window import view_run

            run = Run.open(self.folder)
            view_run(run, screenshot=self.screenshot)
            if self.screenshot is not None:
                run.check_same()
                to_stdout(self.screenshot)
            return
        from lift3d.viewing.serving import serve

        serve(
            self.folder,
            self.host,
            self.port,
            self.read_only,
            self.browser,
            self.segmentation,
            self.clip,
        )


@dataclass(frozen=True)
class Why:
    """Explain the label of a pixel: its mask, the object of the mask, and the 3D point there."""

    folder: Positional[Path]
    """The run folder."""
    view: Positional[str]
    """Name of the view, as in labels/."""
    x: Positional[float]
    """Column of the pixel, from 0 at the left."""
    y: Positional[float]
    """Row of the pixel, from 0 at the top."""

    def run(self, command: Sequence[str]) -> None:
        """Print the explanation."""
        from lift3d.run.run import Run

        to_stdout(Run.open(self.folder).why(self.view, (self.x, self.y)))


@dataclass(frozen=True)
class Click:
    """One click, all views: the object at a pixel, as a mask in every view and as points.

    INPUT is a run, a scan with poses and depth, or photos, which are reconstructed first. OUT gets
    masks/VIEW.png (0 or 255), points.ply and answer.json. docs/clicking.md has examples.
    """

    input: Positional[Path]
    """A run folder, or what `lift3d lift` takes."""
    out: Path
    """Folder for the answer."""
    view: str | None = None
    """Name of the view that the prompts are in."""
    at: UseAppendAction[tuple[str, ...]] = ()
    """A pixel X,Y on the object (column,row), or VIEW:X,Y in another view; once for each."""
    not_: Annotated[UseAppendAction[tuple[str, ...]], arg(name="not")] = ()
    """A pixel that is not on the object, as --at."""
    box: str | None = None
    """X0,Y0,X1,Y1 around the object."""
    mask: Path | None = None
    """A black and white picture: the true mask of the object in the view."""
    text: str | None = None
    """The name or the class of objects of a run, instead of prompts; with --clip any words."""
    clip: str | None = None
    """A CLIP or SigLIP of transformers, a folder or a name on the hub, that compares --text with
    what the views show of each object."""
    prompts: Path | None = None
    """A JSON file with prompts for several objects, which compete for the pixels."""
    mvsam: Path | None = None
    """Weights of MV-SAM (pipelines/train_mvsam.py): the network is asked in all views at once."""
    keep: bool = False
    """Also make it an object of the run, as an edit."""
    views: int | None = None
    """Of a scan: use at most this many views, as `lift3d lift` does."""
    stride: int = 1
    """Of a scan: use every n-th view."""
    voxel: float | None = None
    """Of a scan: voxel side of the fused cloud."""
    reader: Choice = field(default_factory=AutoReader)
    """Of a scan: its format (default: found from its files)."""
    reconstruction: Choice = field(default_factory=AutoReconstruction)
    """Of a scan: where cameras and depth come from."""
    segmentation: Choice = field(default_factory=segmentation.BACKENDS["regions"])
    """What is asked about prompts, in all views. `regions`, the default, is not: its masks are
    surfaces, and the points alone are better."""

    def run(self, command: Sequence[str]) -> None:
        """Answer, write, and print where the object is."""
        from lift3d.cli.clicking import perform

        perform(self, to_stdout)


@dataclass(frozen=True)
class Edit:
    """Correct a run: merge, split, name, delete objects and more; undo; list the edits.

    Every edit is a line in edits.jsonl in the run folder. Automatic labels stay as they are, and a
    later lift applies the edits again. docs/correcting.md describes each kind.
    """

    folder: Positional[Path]
    """The run folder."""
    verb: Positional[str]
    """merge, split, name, class, delete, assign, paint, accept, lock, unlock, undo, redo, settle,
    list, save (consistency and report follow too), or take (the edits of another run)."""
    words: Positional[tuple[str, ...]] = ()
    """What it is for: ids of objects, a name, a view and a mask, a run."""
    at: UseAppendAction[tuple[str, ...]] = ()
    """split: a place X,Y,Z on a thing, in the scene's world; once for each."""
    plane: str | None = None
    """split: what lies at A x + B y + C z + D >= 0 is split off; A,B,C,D."""
    into: int | None = None
    """merge: the id that stays [default: that of the largest]."""
    neighbours: bool = False
    """delete: the points go to the object that it touches most, and do not become unlabelled."""
    only_view: bool = False
    """paint: only this view's pixels change, and no point of the cloud."""
    parts: int | None = None
    """split: into at most so many parts, along the tree of joins."""
    who: str = ""
    """Who makes the edit [default: the login name]."""

    def run(self, command: Sequence[str]) -> None:
        """Make the edit and print what changed."""
        from lift3d.cli.editing import Asked, perform
        from lift3d.run.run import Run

        asked = Asked(
            self.words,
            self.at,
            self.plane,
            self.into,
            self.neighbours,
            self.only_view,
            self.parts,
            self.who,
        )
        perform(Run.open(self.folder).edits, self.verb, asked, to_stdout)


@dataclass(frozen=True)
class Evaluate:
    """Score a run or a submission against ground truth: AP, PQ, and IoU where it has classes.

    Every number is printed with its protocol. For a ScanNet scan both class-agnostic protocols
    are computed: ScanNetV2's 18 classes merged into one, and ScanNet200's 198.
    """

    folder: Positional[Path]
    """The run folder; or a submission to a benchmark: a folder with <scene>.txt files and masks."""
    truth: Path
    """A PLY with true ids on its vertices or faces (instance, object_id, label, CloudCompare's
    scalar_label), a .txt or .npy with one id or name per point of the run's cloud, or a ScanNet
    or ScanNet++ scene folder with its annotation. For a submission: a folder of <scene>.txt
    (label * 1000 + instance) or of ScanNet scans."""
    benchmark: Literal["scannet", "scannet200", "scannetpp"] = "scannet"
    """The benchmark whose class ids the run or the submission uses."""
    classes: Path | None = None
    """Folder of class maps, <view>.png with class ids of the benchmark: voted onto the points."""
    views: Path | None = None
    """True ids of each picture, <view>.png; adds the PQ per picture and over all pictures."""
    table: Path | None = None
    """scannetv2-labels.combined.tsv [default: searched beside the scan and in parent folders]."""
    automatic: bool = False
    """Score the labels before corrections by hand."""

    def run(self, command: Sequence[str]) -> None:
        """Print the scores; for a run also write them to `evaluation.json` in its folder."""
        from lift3d.cli.summary import print_evaluation
        from lift3d.evaluation.submitted import evaluate_submission, is_submission
        from lift3d.run.evaluating import evaluate
        from lift3d.run.run import Run

        if is_submission(self.folder):
            if self.classes is not None or self.views is not None or self.automatic:
                raise InputError(
                    "--classes, --views and --automatic are for runs, and this is a submission"
                )
            found = evaluate_submission(self.folder, self.truth, self.benchmark, self.table)
        else:
            run = Run.open(self.folder)
            options = self.benchmark, self.classes, self.views, self.table, self.automatic
            found = evaluate(run, self.truth, *options)
        print_evaluation(found)


@dataclass(frozen=True)
class Export(Options):
    """Write a run in formats of other programs, each format into its own folder.

    docs/exports.md describes each format: its content, frames, pixel origin, and readers.
    """

    folder: Positional[Path] = MISSING
    """The run folder."""
    to: tuple[str, ...] = MISSING
    """One or more formats; `cli.choices` lists them in the help."""
    out: Path | None = None
    """Output folder [default: `export` in the run folder]; only files of exports are replaced."""
    scan: Path | None = None
    """The scan's present path, if it was moved; most formats need its pictures."""

    def run(self, command: Sequence[str]) -> None:
        """Write, and print the paths."""
        from lift3d.run.exporting import export
        from lift3d.run.run import Run
        from lift3d.scene.progress import for_terminal

        run = Run.open(self.folder, self.scan)
        for path in export(run, self.to, self.out, self, for_terminal()):
            to_stdout(path)


@dataclass(frozen=True)
class Transfer(TransferConfig):
    """Carry masks from one picture to others of the place, however far apart (VGGT-Segmentor).

    INPUTS are pictures, the masks are of the first; or a run, with --view, whose view has the
    masks. OUT gets NAME.png of each picture with the ids of the masks, and transfer.json.
    """

    inputs: Positional[tuple[Path, ...]] = MISSING
    """Pictures, or one run folder."""
    masks: Path = MISSING
    """Masks of the first picture, or of the view: as docs/masks.md describes."""
    out: Path = MISSING
    """Folder for the masks."""
    view: str | None = None
    """The view of the run that the masks are of."""

    def run(self, command: Sequence[str]) -> None:
        """Carry the masks, and print in which pictures each object is."""
        from lift3d.cli.summary import print_transfer
        from lift3d.run.transferring import transfer
        from lift3d.scene.progress import for_terminal

        found = transfer(self.inputs, self.masks, self.out, self, self.view, for_terminal())
        print_transfer(found)
        to_stdout(self.out)


@dataclass(frozen=True)
class Weights:
    """List the weights of the networks, or download and verify one file of them.

    An interrupted download is continued. The file is verified by its SHA-256. Where no SHA-256 is
    published, the first download is trusted and later ones must equal it.
    """

    name: Positional[str | None] = None
    """Name from the list, to download or verify; without it the list is printed."""
    path: Path | None = None
    """Verify this file and use it from there, instead of downloading."""
    folder: Path | None = None
    """Folder for weights [default: $LIFT3D_WEIGHTS, else ~/.cache/lift3d]."""

    def run(self, command: Sequence[str]) -> None:
        """Print the list, or the path of the file."""
        from lift3d.networks.weights import fetch, known, listing
        from lift3d.scene.progress import for_terminal

        if self.name is None:
            if self.path is not None:
                raise InputError(
                    f"no name for {self.path}; give it: lift3d weights NAME --path FILE"
                )
            to_stdout(listing(self.folder))
            return
        progress = for_terminal()
        with progress.stage(f"{known(self.name).name}, MB") as tick:
            file = fetch(self.name, tick, path=self.path, folder=self.folder, log=progress.log)
        to_stdout(file)


@dataclass(frozen=True)
class Demo:
    """Lift a synthetic room whose ground truth is known, and score the result."""

    out: Path = Path("out/demo")
    """The run folder."""
    scene: SyntheticConfig = field(default_factory=SyntheticConfig)
    seed: int = 0
    """Seed of every random step of lifting; the room has its own, --scene.seed."""
    voxel: float | None = None
    """Voxel side of the fused cloud in metres: one point per voxel."""
    segmentation: Choice = field(default_factory=segmentation.BACKENDS["regions"])
    """Where the masks of a view come from."""
    tracking: Choice = field(default_factory=AutoTracking)
    """How masks of different views get common ids."""

    def run(self, command: Sequence[str]) -> None:
        """Lift, then print the scores."""
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
        "lift3d lift scans/kitchen --out out/kitchen --workers 4 \\",
        "    segmentation:sam --segmentation.checkpoint sam_vit_b",
        "lift3d lift walk.mp4 --out out/walk reader:video --reader.focal 1400",
        "lift3d lift scans/kitchen --out out/kitchen \\",
        "    segmentation:folder --segmentation.path masks tracking:independent",
        "lift3d lift segmentation:sam tracking:mastsam --help     # options of these backends",
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
    View: (
        "lift3d view out/kitchen",
        "lift3d view out/kitchen --read-only --no-browser --port 8000",
        "lift3d view out/kitchen --screenshot kitchen.png",
    ),
    Why: ("lift3d why out/kitchen 000120 412 230",),
    Click: (
        "lift3d click out/kitchen --view 000120 --at 412,230 --out out/chair",
        "lift3d click out/kitchen --view 000120 --at 412,230 --not 500,260 --at 000140:90,200 \\",
        "    --out out/chair --keep",
        "lift3d click scans/kitchen --view 000120 --mask chair.png --out out/chair",
        "lift3d click photos --view IMG_2707 --box 210,120,370,345 --out out/statue \\",
        "    segmentation:sam --segmentation.checkpoint sam_vit_b",
        "lift3d click out/kitchen --text chair --out out/chairs",
    ),
    Edit: (
        "lift3d edit out/kitchen merge 41 37",
        "lift3d edit out/kitchen split 25 --at 1.2,0.4,0.9 --at 1.3,0.4,0.9",
        "lift3d edit out/kitchen name 14 kitchen chair",
        "lift3d edit out/kitchen delete 52 --neighbours",
        "lift3d edit out/kitchen undo",
        "lift3d edit out/kitchen list",
        "lift3d edit out/kitchen save",
    ),
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
    Transfer: (
        "lift3d transfer --masks A.png A.jpg B.jpg --out out/B",
        "lift3d transfer --masks mug.png out/kitchen --view 000120 --out out/mug --framing whole",
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
