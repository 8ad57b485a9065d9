"""Prompts in any views -> a mask and a score in every view, points, and an object if wanted."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64
from PIL import Image

from lift3d.correction.clicks.answering import (
    Answer,
    Carried,
    ClickConfig,
    Prompts,
    answer,
    check,
    labelled,
)
from lift3d.correction.clicks.place import Place
from lift3d.correction.clicks.preparing import place_of
from lift3d.correction.maps import read_pixels
from lift3d.datasets import read_scene as open_scene
from lift3d.datasets.selection import select
from lift3d.export.ply import write_cloud
from lift3d.geometry.visibility import DepthTolerance
from lift3d.run.layout import Layout, run_of
from lift3d.run.record import is_run
from lift3d.run.settings import LiftConfig
from lift3d.run.wording import Scorer, Words
from lift3d.scene import LabelledPoints, Prompt, Scene
from lift3d.scene.errors import InputError, MissingExtra, did_you_mean
from lift3d.scene.guarded import reading
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.local_origin import localised
from lift3d.scene.progress import Progress, Quiet
from lift3d.scene.protocols import Segmenter, SegmenterConfig
from lift3d.scene.storage import atomic, fresh_folder

if TYPE_CHECKING:
    from lift3d.networks.mvsam.predicting import Predictor
    from lift3d.run.run import Run


@dataclass(frozen=True, eq=False)
class Answered:
    """What `Run.prompt` gives: the points and the masks of each object that was asked for."""

    answer: Answer
    seconds: Mapping[str, float]
    """`prepare`, and `answer` without the masks, which are made when they are asked for."""
    used: Mapping[str, Any]

    def points(self, number: int = 0) -> Int64[np.ndarray, " members"]:
        """Indices of an object's points in the cloud."""
        return self.answer.points(number)

    def masks(self, number: int = 0) -> dict[str, np.ndarray]:
        """The mask of an object in every view, (height, width) bool; empty where it is not."""
        return {name: found[number].mask for name, found in self.answer.views()}

    def keep(self, run: Run, who: str = "") -> tuple[int, ...]:
        """Make each object one of the run, as an edit; the ids of the new objects."""
        made = []
        for number, prompts in enumerate(self.answer.objects):
            told = {"prompts": [as_json(name, each) for name, each in prompts.items()]}
            kept = run.edits.select(self.points(number), None, "prompt", who, told=told)
            made.append(kept.edit.new[0])
        run.edits.write()
        return tuple(made)

    def write(self, folder: Path) -> tuple[int, ...]:
        """`masks/VIEW.png` (0 or 255), `points.ply` and `answer.json`; how many views show each
        object.

        With several objects `masks/NUMBER/VIEW.png`, NUMBER from 1, and labels 1, 2, ... in the
        cloud.
        """
        began = time.perf_counter()
        count = len(self.answer.objects)
        views: dict[str, list[dict[str, Any]]] = {}
        with fresh_folder(folder / "masks") as part:
            for name, found in self.answer.views():
                for number, each in enumerate(found):
                    inside = part / str(number + 1) if count > 1 else part
                    with atomic(inside / f"{name}.png") as file:
                        Image.fromarray(each.mask.astype(np.uint8) * 255).save(file)
                views[name] = [
                    {
                        "in_view": bool(each.mask.any()),
                        "score": each.score,
                        "pixels": int(each.mask.sum()),
                        "from": each.used,
                    }
                    for each in found
                ]
        place = self.answer.place
        label = np.zeros(len(place.points), np.int32)
        for number in range(count):
            label[self.points(number)] = number + 1
        own = np.flatnonzero(label)
        probability = self.answer.probability.max(0)[own].astype(np.float32)
        write_cloud(
            folder / "points.ply",
            LabelledPoints(place.points.take(own), label[own], probability),
        )
        content = {
            "objects": [
                {
                    "prompts": [as_json(name, each) for name, each in prompts.items()],
                    "points": len(self.points(number)),
                    "lookup_iou": _number(self.answer.lookup_iou, number),
                    "views": {name: found[number] for name, found in views.items()},
                }
                for number, prompts in enumerate(self.answer.objects)
            ],
            "used": dict(self.used),
            "seconds": {
                **{name: round(each, 3) for name, each in self.seconds.items()},
                "write": round(time.perf_counter() - began, 3),
            },
        }
        with atomic(folder / "answer.json") as file:
            file.write_text(json.dumps(content, indent=1))
        return tuple(
            sum(found[number]["in_view"] for found in views.values()) for number in range(count)
        )


@dataclass(eq=False)
class Clickable:
    """A run or a scene, ready for prompts."""

    place: Place
    kind: str
    """`run`, or `scene` where nothing was lifted."""
    names: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Ids of the objects of each name and class, for prompts in words."""
    prepared: float = 0.0
    """Seconds."""
    _words: Words | None = None

    def prompt(
        self,
        prompts: Prompts | Sequence[Prompts] = (),
        segmenter: Segmenter | None = None,
        text: str | None = None,
        config: ClickConfig | None = None,
        network: Predictor | None = None,
        scorer: Scorer | None = None,
    ) -> Answered:
        """The answer to the prompts of one object, or of several that compete for pixels.

        Prompts are by view name. `text` is instead the name or the class of objects of a run, or,
        with a `scorer` (CLIP), any words. `network` is MV-SAM, which sees all views. InputError for
        prompts that mean no object.
        """
        began, config = time.perf_counter(), config or ClickConfig()
        objects = [prompts] if isinstance(prompts, Mapping) else list(prompts)
        used: dict[str, Any] = {"kind": self.kind, "segmenter": _name_of(network or segmenter)}
        if text is not None:
            if objects:
                raise InputError("give --text or prompts in a view, not both")
            ids = self._named(text) if scorer is None else self._meant(text, scorer, used)
            used["text"], used["ids"] = text, ids
            found = labelled(self.place, ids, config)
        else:
            carried = None if network is None else self._carried(objects, network)
            found = answer(self.place, objects, segmenter, config, carried)
        seconds = {"prepare": self.prepared, "answer": time.perf_counter() - began}
        return Answered(found, seconds, used)

    def _carried(self, objects: Sequence[Prompts], network: Predictor) -> list[Carried]:
        """The masks of MV-SAM in every view, for each object."""
        check(self.place, objects)
        found: list[dict[str, Any]] = [{} for _ in objects]
        for name, masks, scores in network.answer(list(self.place.views.values()), objects):
            for own, mask, score in zip(found, masks, scores, strict=True):
                own[name] = mask, float(score)
        return [dict(each) for each in found]

    def _meant(self, text: str, scorer: Scorer, used: dict[str, Any]) -> list[int]:
        """Ids of the objects that words mean; features are kept while scorer and labels stay."""
        if self._words is None or not self._words.of(self.place, scorer):
            self._words = Words(self.place, scorer)
        ids, used["relevancy"] = self._words.meant(text)
        return ids

    def _named(self, text: str) -> list[int]:
        """Ids of the objects with a name or class; InputError for an unknown word."""
        if not self.names:
            raise InputError(
                f"nothing here has a name, so {text!r} finds nothing; name objects of a run "
                "(lift3d edit RUN name 14 chair), give --clip, or click"
            )
        known = {name.casefold(): ids for name, ids in self.names.items()}
        if text.casefold() not in known:
            raise InputError(did_you_mean(text, list(self.names), "name or class"))
        return sorted(known[text.casefold()])


def of_run(run: Run) -> Clickable:
    """A finished run; without its scan, as far as its cloud goes."""
    began = time.perf_counter()
    try:
        scene = run.whole_scene
    except InputError:
        scene = run.scene
        bare = partial(replace, load_depth=None, load_confidence=None, depth_camera=None)
        scene = scene.with_views([bare(view) for view in scene.views])
    tolerance = DepthTolerance(**run.settings["tolerance"])
    place = place_of(scene, run.points, run.surface, tolerance)
    place.label = run.edits.label
    place.prepare()
    return Clickable(place, "run", names_of(run), time.perf_counter() - began)


def names_of(run: Run) -> dict[str, list[int]]:
    """Ids of the objects with each name or class; of a run with `--classes` the class that most
    points of an object have, as a number, unless a person has said another.
    """
    names: dict[str, list[int]] = {}
    semantic = run.cloud.semantic
    for each in run.edits.objects:
        told = {each.name, each.class_name} - {""}
        if semantic is not None and not each.class_name:
            own = np.bincount(semantic[run.edits.label == each.id])
            if own.any() and own.argmax() > 0:
                told.add(str(int(own.argmax())))
        for name in told:
            names.setdefault(name, []).append(each.id)
    return names


def of_scene(
    source: Scene, config: LiftConfig, folder: Path | None = None, progress: Progress | None = None
) -> Clickable:
    """A scene that was not lifted: cameras and depth by the reconstructor, a cloud, superpoints."""
    began = time.perf_counter()
    progress = progress or Quiet()
    config = config.for_source(source)
    with progress.stage("reconstruct") as tick:
        scene = config.reconstructor().reconstruct(source, tick, folder)
    config = config.for_scene(scene)
    if scene.has_dense_depth:
        with progress.stage("fuse") as tick:
            points = config.fuser().fuse(scene, tick)
    elif scene.load_points is not None:
        points = scene.load_points()
    else:
        raise InputError(f"{source.source} has neither depth nor points; nothing can be carried")
    with progress.stage("prepare"):
        place = place_of(scene, replace(points, offset=scene.offset), None, config.tolerance)
        place.prepare()
    return Clickable(place, "scene", {}, time.perf_counter() - began)


def clickable(path: Path, config: LiftConfig, progress: Progress | None = None) -> Clickable:
    """What is at a path: a finished run, or anything that can be lifted."""
    from lift3d.run.run import Run

    folder = run_of(path)
    if Layout(folder).record.is_file() or is_run(folder):
        return of_run(Run.open(folder))
    config = config.with_reader()
    scene = select(localised(open_scene(config.input, config.reader)), config.views, config.stride)
    return of_scene(scene, config, config.out / "reconstruction", progress)


def segmenter_of(config: Any) -> Segmenter | None:
    """The segmenter that is asked about prompts; None where its masks are surfaces, not objects.

    Where the depth is dense such masks are worse than the points alone (docs/clicking.md).
    """
    if not isinstance(config, SegmenterConfig):
        raise InputError(
            "this segmentation sees all views at once and cannot be asked about clicks"
        )
    return None if config.masks_are_surfaces else config.build()


def open_mvsam(path: Path) -> Predictor:
    """MV-SAM with the weights of a file; MissingExtra without its libraries."""
    try:
        from lift3d.networks.mvsam.predicting import Predictor
    except ImportError as error:
        raise MissingExtra(
            f"MV-SAM needs {error.name}, which is not installed: pip install 'lift3d[sam]'"
        ) from error
    return Predictor.open(path)


def as_json(view: str, prompt: Prompt) -> dict[str, Any]:
    """A prompt as JSON values; of a mask the number of pixels."""
    told: dict[str, Any] = {"view": view, "xy": prompt.xy.tolist()}
    told["positive"] = prompt.positive.tolist()
    if prompt.box is not None:
        told["box"] = prompt.box.tolist()
    if prompt.mask is not None:
        told["mask_pixels"] = int(prompt.mask.sum())
    return told


def read_prompts(path: Path) -> list[dict[str, Prompt]]:
    """A JSON file with a list of objects, each a table from view to its prompt.

    `[{"000012": {"at": [[321, 204]], "not": [], "box": null, "mask": "mask.png"}}, ...]`
    """
    content = load_json(path, advice="docs/clicking.md shows an example", kind=list)
    with reading(path, "prompts in JSON", advice="docs/clicking.md shows an example"):
        return [
            {
                name: prompt_of(
                    each.get("at") or (),
                    each.get("not") or (),
                    each.get("box"),
                    None if each.get("mask") is None else path.parent / each["mask"],
                )
                for name, each in table.items()
            }
            for table in content
        ]


def prompt_of(
    at: Any,
    beside: Any = (),
    box: Any = None,
    mask: Path | None = None,
) -> Prompt:
    """A prompt of clicks on and beside the object, (n, 2) pixels (column, row); `box` is x0, y0,
    x1, y1.
    """
    on = np.asarray(at, np.float64).reshape(-1, 2)
    xy = np.concatenate([on, np.asarray(beside, np.float64).reshape(-1, 2)])
    pixels = None
    if mask is not None:
        pixels = read_pixels(mask, "give a black and white picture of the view's size")
    corners = None if box is None else np.array(box, np.float64).reshape(4)
    return Prompt(xy, np.arange(len(xy)) < len(on), pixels, corners)


def _name_of(segmenter: object | None) -> str | None:
    return None if segmenter is None else type(segmenter).__name__


def _number(values: Sequence[float], number: int) -> float | None:
    """JSON has no NaN."""
    known = number < len(values) and np.isfinite(values[number])
    return round(float(values[number]), 4) if known else None
