"""MastSAM's tables on DAVIS or MOSE: the paper's figures, ours beside them, and stricter ones.

python pipelines/davis_table.py ROOT --out OUT

Every sequence of ROOT is labelled by each method and scored (`lift3d.metrics`). The next sequence
goes to the first GPU that is free, or to the first worker where no network is asked for. Each
sequence and method leaves one file under OUT; the same command again goes on where it stopped.
README.md has the commands for the paper's weights.
"""

from __future__ import annotations

import functools
import io
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from rich import box
from rich.console import Console
from rich.table import Table

import lift3d
from lift3d.datasets import read_scene
from lift3d.datasets.davis import sequences
from lift3d.errors import InputError, did_you_mean
from lift3d.matching.flow import FlowMatcherConfig
from lift3d.matching.mast3r import Mast3rMatcherConfig
from lift3d.metrics.matched import matched_consistency
from lift3d.metrics.video import PAPER, STRICT, score_video
from lift3d.protocols import Matcher, Segmenter
from lift3d.scene import Image, LabelMap, Masks, Matches, Prompt, Scene, View
from lift3d.segmentation.automatic import AutomaticConfig
from lift3d.segmentation.regions import RegionsConfig
from lift3d.segmentation.sam import SamConfig
from lift3d.segmentation.sam_transformers import SamTransformersConfig
from lift3d.storage import atomic
from lift3d.tracking.byocl import ByoclConfig
from lift3d.tracking.independent import IndependentConfig
from lift3d.tracking.mastsam import MastsamConfig
from lift3d.weights import KNOWN, find

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
"""SAM's automatic masks as the paper's scripts ask for them."""


@dataclass(frozen=True)
class Options:
    """Which videos, by what, and where to."""

    root: tyro.conf.Positional[Path]
    """A DAVIS (2016, 2017) or MOSE folder, with JPEGImages/ and Annotations/."""
    out: Path
    """Where the results are kept, and found again."""
    segmenter: Literal["regions", "sam", "sam-hf"] = "regions"
    """regions needs no weights."""
    checkpoint: str | None = None
    """SAM's weights: a name that `lift3d weights` knows, or a path; of sam-hf a folder."""
    matcher: Literal["flow", "mast3r"] = "flow"
    """flow needs no weights; it also stands for MASt3R in H."""
    weights: str = Mast3rMatcherConfig().weights
    """MASt3R's: a name that `lift3d weights` knows, or a path."""
    sequences: tuple[str, ...] = ()
    """Only these."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Only these."""
    frames: int | None = None
    """Only the first so many frames of each sequence."""
    size: int | None = None
    """Shrink the images until their longer side has so many pixels."""
    workers: int | None = None
    """Processes at a time: by default one per GPU, or per core without one; 0 starts none."""
    masks: AutomaticConfig = field(default_factory=lambda: PAPER_MASKS)
    """SAM's automatic masks; the defaults are the paper's."""

    def check(self) -> None:
        """InputError where it makes no sense."""
        for name in self.methods:
            if name not in METHODS:
                raise InputError(did_you_mean(name, METHODS, "method"))
        if self.segmenter != "regions" and self.checkpoint is None:
            raise InputError(f"--segmenter {self.segmenter} needs --checkpoint")
        if (self.frames or 2) < 2 or (self.size or 64) < 32 or (self.workers or 0) < 0:
            raise InputError("expected --frames >= 2, --size >= 32, --workers >= 0")

    @property
    def on_gpu(self) -> bool:
        """Whether there is a network to run."""
        return self.segmenter != "regions" or self.matcher == "mast3r"

    def segmentation(self, device: str) -> Any:
        """The segmenter's settings."""
        if self.segmenter == "regions":
            return RegionsConfig()
        assert self.checkpoint is not None
        if self.segmenter == "sam":
            return SamConfig(find(self.checkpoint), device=device, automatic=self.masks)
        return SamTransformersConfig(self.checkpoint, device=device, automatic=self.masks)

    def matching(self, device: str) -> Any:
        """The matcher's settings."""
        if self.matcher == "flow":
            return FlowMatcherConfig()
        return Mast3rMatcherConfig(self.weights, device=device)

    def settings(self, method: str) -> dict[str, str]:
        """All that a result depends on."""
        weights = [self.checkpoint] if self.segmenter == "sam" else []
        weights += [self.weights] if self.matcher == "mast3r" else []
        return {
            "lift3d": lift3d.__version__,
            "method": repr(METHODS[method]),
            "preset": repr(getattr(METHODS[method], "options", None)),
            "segmentation": repr(self.segmentation("any")),
            "matching": repr(self.matching("any")),
            "weights": ", ".join(f"{name} of {_bytes(name)} bytes" for name in weights if name),
            "frames": f"first {self.frames}" if self.frames else "all",
            "size": f"longer side {self.size}" if self.size else "as stored",
        }


# One sequence


def run_sequence(options: Options, name: str, images: Path, device: str) -> float:
    """Label and score one sequence by every method that has no result yet; seconds it took."""
    began = time.perf_counter()
    missing = [each for each in options.methods if kept(options, name, each) is None]
    if not missing:
        return 0.0
    scene = bounded(read_scene(images), options.frames, options.size)
    truths = [view.instances() for view in scene.views]
    segmenter, matcher = _networks(options, device)
    masks, matches = RememberedMasks(segmenter), RememberedMatches(matcher)
    for method in missing:
        masks.spared, matches.spared, started = 0.0, 0.0, time.perf_counter()
        maps = list(METHODS[method].build(masks, matches).track(scene))
        seconds = time.perf_counter() - started + masks.spared + matches.spared
        consistency = matched_consistency(scene.views, maps, matches, options.matcher)
        result = {
            "settings": options.settings(method),
            "frames": len(scene),
            "device": device,
            "seconds": seconds,  # as if it had been alone, whatever an earlier method found
            "video": score_video(truths, maps).summary(),
            "consistency": consistency.summary(),
        }
        with atomic(_file(options, name, method)) as part:
            part.write_text(json.dumps(result, indent=1))
    return time.perf_counter() - began


def kept(options: Options, name: str, method: str) -> dict[str, Any] | None:
    """The result of an earlier run with the same settings."""
    path = _file(options, name, method)
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    return found if found.get("settings") == options.settings(method) else None


def bounded(scene: Scene, frames: int | None, size: int | None) -> Scene:
    """The first frames, the images shrunk."""
    views = scene.views[:frames]
    if size is None:
        return scene.with_views(views)
    return scene.with_views([shrunk(view, size) for view in views])


def shrunk(view: View, size: int) -> View:
    """The view with its longer side at most `size`; true ids stay ids."""
    scale = size / max(view.camera.width, view.camera.height)
    if scale >= 1:
        return view
    camera = view.camera.resized(
        max(1, round(view.camera.width * scale)), max(1, round(view.camera.height * scale))
    )
    to = camera.width, camera.height
    truth = view.load_instances
    return replace(
        view,
        camera=camera,
        load_image=functools.partial(_resized, view.load_image, to),
        load_instances=functools.partial(_resized_ids, truth, to) if truth else None,
    )


class RememberedMasks:
    """A segmenter that finds the automatic masks of a view once, for all methods."""

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self._known: dict[str, tuple[np.ndarray, tuple[int, ...], Any, Any]] = {}
        self._seconds: dict[str, float] = {}
        self.spared = 0.0
        """Seconds that remembering has saved."""

    def segment(self, view: View) -> Masks:
        """As the segmenter's; kept at a bit per pixel."""
        if view.name in self._known:
            self.spared += self._seconds[view.name]
        else:
            began = time.perf_counter()
            masks = self._segmenter.segment(view)
            self._seconds[view.name] = time.perf_counter() - began
            packed = np.packbits(masks.stack)
            self._known[view.name] = (packed, masks.stack.shape, masks.scores, masks.ids)
        packed, shape, scores, ids = self._known[view.name]
        stack = np.unpackbits(packed, count=math.prod(shape)).astype(bool).reshape(shape)
        return Masks(stack, scores, ids)

    def prompt(self, view: View, prompts: Sequence[Prompt]) -> Masks:
        """The segmenter's."""
        return self._segmenter.prompt(view, prompts)

    def alternatives(self, view: View, prompt: Prompt) -> Masks:
        """The segmenter's."""
        return self._segmenter.alternatives(view, prompt)

    def __getattr__(self, name: str) -> Any:
        """What else it offers, such as features."""
        return getattr(self._segmenter, name)


class RememberedMatches:
    """A matcher that matches each pair once, for all methods and for H."""

    def __init__(self, matcher: Matcher) -> None:
        self._matcher = matcher
        self._known: dict[tuple[str, str], tuple[Matches, float]] = {}
        self.spared = 0.0
        """Seconds that remembering has saved."""

    def match(self, a: View, b: View) -> Matches:
        """As the matcher's."""
        key = a.name, b.name
        if key in self._known:
            self.spared += self._known[key][1]
        else:
            began = time.perf_counter()
            matches = self._matcher.match(a, b)
            self._known[key] = matches, time.perf_counter() - began
        return self._known[key][0]


@functools.cache
def _networks(options: Options, device: str) -> tuple[Segmenter, Matcher]:
    """Loaded once in each process."""
    return options.segmentation(device).build(), options.matching(device).build()


# All sequences


def run_all(
    options: Options, found: Mapping[str, Path], say: Callable[[str], None]
) -> dict[str, str]:
    """Every sequence, each by the first that is free; what went wrong, by sequence."""
    waiting = {
        name: images
        for name, images in found.items()
        if any(kept(options, name, method) is None for method in options.methods)
    }
    if len(waiting) < len(found):
        say(f"{len(found) - len(waiting)} of {len(found)} sequences are done already")
    failed: dict[str, str] = {}
    began = time.perf_counter()
    for done, (name, outcome) in enumerate(_outcomes(options, waiting), start=1):
        if isinstance(outcome, Exception):
            failed[name] = f"{type(outcome).__name__}: {outcome}"
        left = (time.perf_counter() - began) / done * (len(waiting) - done)
        said = failed.get(name) or f"{outcome:.0f} s"
        say(f"[{done}/{len(waiting)}] {name}: {said}; about {left / 60:.0f} min left")
    return failed


def _outcomes(
    options: Options, waiting: Mapping[str, Path]
) -> Iterator[tuple[str, float | Exception]]:
    """Seconds of each sequence as it ends, or why it could not be done."""
    devices = free_devices(options, len(waiting))
    if options.workers == 0 or not waiting:
        for name, images in waiting.items():
            try:
                yield name, run_sequence(options, name, images, devices[0])
            except Exception as error:
                yield name, error
        return
    context = multiprocessing.get_context("spawn")  # a fork cannot use CUDA
    hand_out: Any = context.Queue()
    for device in devices:
        hand_out.put(device)
    threads = max(1, (os.cpu_count() or 1) // len(devices))
    with ProcessPoolExecutor(len(devices), context, _begin, (hand_out, threads)) as pool:
        running = {
            pool.submit(_on_own_device, options, name, images): name
            for name, images in waiting.items()
        }
        for future in as_completed(running):
            problem = future.exception()
            if problem is not None and not isinstance(problem, Exception):
                raise problem
            yield running[future], problem or future.result()


def free_devices(options: Options, wanted: int) -> list[str]:
    """A device for each worker: the GPUs present in turn, or the CPU for each."""
    gpus: list[str] = []
    if options.on_gpu:
        import torch

        gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    count = options.workers or len(gpus) or os.cpu_count() or 1
    return [(gpus or ["cpu"])[i % len(gpus or "1")] for i in range(max(1, min(count, wanted)))]


_own_device = "cpu"


def _begin(hand_out: Any, threads: int) -> None:
    """Each worker takes its device once, and its share of the cores."""
    global _own_device
    _own_device = hand_out.get()
    import cv2
    import numba
    from threadpoolctl import threadpool_limits

    cv2.setNumThreads(threads)
    numba.set_num_threads(min(threads, numba.get_num_threads()))
    threadpool_limits(threads)
    if _own_device != "cpu":
        import torch

        torch.cuda.set_device(_own_device)


def _on_own_device(options: Options, name: str, images: Path) -> float:
    return run_sequence(options, name, images, _own_device)


# The tables


def averaged(results: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """The means over sequences of every number that the tables print."""
    found: dict[str, float | None] = {"sequences": len(results)}
    for protocol in ("per_image", "one_id"):
        for each in ("iou", "boundary", "f1", "precision", "recall"):
            found[f"{protocol}_{each}"] = _mean([r["video"][protocol][each] for r in results])
    for each in ("found", "longest"):
        found[each] = _mean([r["video"][each] for r in results])
    found["switches"] = _mean(
        [r["video"]["switches"] / r["video"]["objects"] for r in results if r["video"]["objects"]]
    )
    for each in ("H", "H0", "H_prime", "H_labelled", "H0_labelled", "coverage", "labels"):
        found[each] = _mean([r["consistency"][each] for r in results])
    found["seconds_per_frame"] = _mean([r["seconds"] / r["frames"] for r in results])
    return found


def report(options: Options, names: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The tables in Markdown, from what is there, and their numbers."""
    results = {
        method: [each for name in names if (each := kept(options, name, method))]
        for method in options.methods
    }
    means = {method: averaged(found) for method, found in results.items()}
    console = Console(width=300, record=True, file=io.StringIO(), markup=False, highlight=False)
    for title, rows in TABLES.items():
        console.print(f"## {title}", _published(rows, means, options))
    console.print("## Stricter: one id per sequence", _strict(means, options))
    console.print("## Consistency in full", _consistency(means, options))
    text = statement(options, names, results)
    console.print(text, soft_wrap=True)
    lines = (line.rstrip() for line in console.export_text().splitlines())
    return "\n".join(lines) + "\n", {"means": means, "statement": text.split("\n\n")}


def statement(
    options: Options, names: Sequence[str], results: Mapping[str, Sequence[Mapping[str, Any]]]
) -> str:
    """What the figures are, and what they are not."""
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
    """What differs from the paper's experiment for certain."""
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
        reasons.append("SAM's automatic masks are asked for otherwise")
    if options.frames:
        reasons.append(f"only the first {options.frames} frames of each sequence")
    if options.size:
        reasons.append(f"images were shrunk to a longer side of {options.size}")
    return reasons


def _published(
    rows: Sequence[str], means: Mapping[str, Mapping[str, float | None]], options: Options
) -> Table:
    """The paper's figures and ours, one below the other."""
    names = ("IoU", "F1", "precision", "recall", "consistency, %")
    table = _table("method", "whose", *names)
    for method in (row for row in rows if row in means):
        if theirs := PUBLISHED.get(method):
            printed = [_number(each, 4) for each in theirs[:4]]
            table.add_row(TITLES[method], "paper", *printed, _number(theirs[4], 2))
        found = means[method]
        ours = [found[f"per_image_{each}"] for each in ("iou", "f1", "precision", "recall")]
        title = _title(method, options)
        table.add_row(title, "ours", *(_number(each, 4) for each in ours), _percent(found["H"]))
    return table


def _strict(means: Mapping[str, Mapping[str, float | None]], options: Options) -> Table:
    names = ("J", "F", "F1", "precision", "recall", "found", "switches", "longest")
    table = _table("method", *names)
    for method, found in means.items():
        keys = [f"one_id_{each}" for each in ("iou", "boundary", "f1", "precision", "recall")]
        numbers = [found[each] for each in (*keys, "found", "switches", "longest")]
        table.add_row(_title(method, options), *(_number(each, 3) for each in numbers))
    return table


def _consistency(means: Mapping[str, Mapping[str, float | None]], options: Options) -> Table:
    percents = {
        "H": "H", "chance": "H0", "H'": "H_prime", "H labelled": "H_labelled",
        "chance, labelled": "H0_labelled", "coverage": "coverage",
    }  # fmt: skip
    headers = [f"{name}, %" for name in percents]
    table = _table("method", *headers, "labels a sequence", "s a frame, about")
    for method, found in means.items():
        table.add_row(
            _title(method, options),
            *(_percent(found[key]) for key in percents.values()),
            _number(found["labels"], 0),
            _number(found["seconds_per_frame"], 2),
        )
    return table


def _title(method: str, options: Options) -> str:
    return TITLES[method].replace("SAM per frame", f"{options.segmenter} per frame")


def _table(*columns: str) -> Table:
    table = Table(box=box.MARKDOWN)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    return table


def _mean(values: Sequence[float | None]) -> float | None:
    """Of those that are numbers."""
    known = [value for value in values if value is not None and not math.isnan(value)]
    return float(np.mean(known)) if known else None


def _percent(value: float | None) -> str:
    return _number(None if value is None else 100 * value, 2)


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _file(options: Options, name: str, method: str) -> Path:
    return options.out / name / f"{method}.json"


@functools.cache
def _bytes(weights: str) -> int:
    return find(weights).stat().st_size


def _resized(load: Callable[[], Image], size: tuple[int, int]) -> Image:
    import cv2

    return np.asarray(cv2.resize(load(), size, interpolation=cv2.INTER_AREA), np.uint8)


def _resized_ids(load: Callable[[], LabelMap], size: tuple[int, int]) -> LabelMap:
    import cv2

    return np.asarray(cv2.resize(load(), size, interpolation=cv2.INTER_NEAREST_EXACT), np.int32)


def main(given: Sequence[str] | None = None) -> int:
    """Run what is missing, print the tables; 1 where a sequence failed."""
    options = tyro.cli(Options, args=given, description=__doc__)
    try:
        options.check()
        found = sequences(options.root)
        for name in options.sequences:
            if name not in found:
                raise InputError(did_you_mean(name, found, "sequence"))
        found = {name: found[name] for name in options.sequences or found}
        for method in options.methods:
            options.settings(method)  # weights that are not there are told before anything runs
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    failed = run_all(options, found, lambda line: print(line, file=sys.stderr, flush=True))
    text, numbers = report(options, list(found))
    for file, content in (("tables.md", text), ("tables.json", json.dumps(numbers, indent=1))):
        with atomic(options.out / file) as part:
            part.write_text(content)
    print(text)
    for name, reason in failed.items():
        print(f"{name} failed: {reason}", file=sys.stderr)
    if failed:
        print("what is done is kept: give the same command again", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
