"""What the JSON files of a run hold, as far as lift3d reads them.

People edit these files, and other programs write them again: keys that are not named here are
allowed, and what is here has to have its type.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from lift3d.run.layout import Layout
from lift3d.scene.errors import InputError
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.typed import conforming

Share = float | None
Corner = tuple[float, float, float]
ADVICE = "remove it and lift again"


class Left(TypedDict):
    """A view that was left out."""

    name: str
    reason: str


class Settings(TypedDict):
    """The settings that are read again; the file has all."""

    tolerance: dict[str, float]
    association: dict[str, Any]


class Stage(TypedDict):
    """A stage of `run.json`."""

    name: str
    key: str
    seconds: float
    seconds_per_view: float
    peak_memory_mb: float
    result: dict[str, Any]
    outputs: dict[str, str | None]
    set_aside: list[str]
    edited: list[str]
    changed: list[str]
    reused: bool


class Fused(TypedDict):
    """The result of `fuse`."""

    points: int


class Associated(TypedDict):
    """The result of `associate`."""

    points_labelled: Share


class Results(TypedDict):
    """The results of stages that are printed."""

    fuse: Fused
    associate: Associated


class RunFile(TypedDict):
    """`run.json`."""

    command: list[str]
    source: str
    views: int
    skipped: list[Left]
    settings: Settings
    stages: list[Stage]
    seconds: float
    peak_memory_mb: float
    warnings: list[str]


class Box(TypedDict):
    """Two corners of an object's box."""

    min: Corner
    max: Corner


class Entry(TypedDict):
    """An object of `instances.json`."""

    id: int
    points: int
    views: int
    confidence: float
    score: float
    colour: str
    centre: Corner | None
    bbox: Box | None
    name: NotRequired[str]
    edited: NotRequired[list[int]]
    reviewed: NotRequired[bool]


class InstancesFile(TypedDict):
    """`instances.json`."""

    points: int
    unlabelled: int
    instances: list[Entry]
    edits: NotRequired[dict[str, int]]


class Agreement(TypedDict):
    """Consistency over some pixels."""

    H: Share
    H_prime: Share


class Printed(TypedDict):
    """The consistency that is shown."""

    all: Agreement
    foreground: Agreement
    exclude: Literal["view", "self", "nothing"]
    coverage: Share
    labels: int
    epsilon: float
    sampling: str


class PerView(TypedDict):
    """Consistency with one meaning of "others"."""

    view_H: list[Share]


class Overlap(TypedDict):
    """An object's overlap with its labels."""

    id: int
    iou: float


class Reprojection(TypedDict):
    """Labels of the cloud against those of the views."""

    agreement: Share
    mean_iou: Share
    instances: list[Overlap]


class Score(TypedDict):
    """AP by one protocol."""

    protocol: str
    ap: Share
    ap50: Share
    ap25: Share


class Panoptic(TypedDict):
    """PQ by one protocol."""

    protocol: str
    pq: Share
    sq: Share
    rq: Share
    matches: int
    missed: int
    wrong: int


class Semantic(TypedDict):
    """IoU of classes."""

    protocol: str
    miou: Share
    accuracy: Share


class Scores(Score):
    """Scores against a truth."""

    scores: list[Score]
    panoptic: NotRequired[list[Panoptic]]
    semantic: NotRequired[Semantic]


class Before(TypedDict):
    """The check of the labels before corrections."""

    printed: Printed
    reprojection: Reprojection
    truth: NotRequired[Scores]


class ConsistencyFile(TypedDict):
    """`consistency.json`."""

    printed: Printed
    views: list[str]
    foreground: dict[str, PerView]
    reprojection: Reprojection
    truth: NotRequired[Scores]
    edits: NotRequired[dict[str, int]]
    automatic: NotRequired[Before]


class StoredCamera(TypedDict):
    """A camera of `scene.json`."""

    width: int
    height: int
    K: list[list[float]]
    distortion: list[float]
    world_from_camera: list[list[float]] | None


class StoredView(TypedDict):
    """A view of `scene.json`."""

    name: str
    camera: StoredCamera
    depth: str | None
    depth_camera: NotRequired[StoredCamera | None]
    sparse: NotRequired[bool]
    split: NotRequired[str]


class StoredOrigin(TypedDict):
    """Where the scan is."""

    path: str | None
    relative: NotRequired[str | None]
    reader: str | None
    options: dict[str, Any]


class SceneFile(TypedDict):
    """`scene.json`."""

    name: str
    source: str
    metric: bool
    offset: NotRequired[Corner]
    origin: StoredOrigin | None
    points: str | None
    shown: dict[str, str]
    loaders: list[str]
    views: list[StoredView]
    skipped: list[Left]
    notes: list[str]


class Support(TypedDict):
    """An object of `automatic/objects.json`."""

    id: int
    confidence: float
    views: int


class ObjectsFile(TypedDict):
    """`automatic/objects.json`."""

    objects: list[Support]


def read_run_file(path: Path) -> Any:
    """The content of a JSON file of a run; InputError where it is damaged.

    `path` is one of `Layout` or of its `automatic`; files of another name are not checked.
    """
    content = load_json(path, advice=ADVICE)
    if path.name in _KINDS:
        conforming(content, _KINDS[path.name], path, ADVICE)
        _MORE.get(path.name, lambda content, path: None)(content, path)
    return content


def _check_run(content: RunFile, path: Path) -> None:
    results = {each["name"]: each["result"] for each in content["stages"]}
    conforming(results, Results, f"{path} (stages)", ADVICE)


def _check_consistency(content: ConsistencyFile, path: Path) -> None:
    shown = content["foreground"].get(content["printed"]["exclude"])
    if shown is None or len(shown["view_H"]) != len(content["views"]):
        raise InputError(f"{path} is damaged (foreground does not fit the views); {ADVICE}")


_LAYOUT = Layout(Path())
_KINDS: dict[str, type] = {
    _LAYOUT.record.name: RunFile,
    _LAYOUT.instances.name: InstancesFile,
    _LAYOUT.consistency.name: ConsistencyFile,
    _LAYOUT.scene.name: SceneFile,
    _LAYOUT.automatic.objects.name: ObjectsFile,
}
_MORE: dict[str, Callable[[Any, Path], None]] = {
    _LAYOUT.record.name: _check_run,
    _LAYOUT.consistency.name: _check_consistency,
}
