"""Input of every exporter: the labelled cloud, the views, and the options."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Int32

from lift3d.correction.history import Corrections
from lift3d.export.instances import Object
from lift3d.scene import LabelledPoints, LabelMap, Offset, Scene
from lift3d.scene.colours import Palette
from lift3d.scene.errors import InputError

Tick: TypeAlias = Callable[[int, int], None]
"""Progress callback: number of finished steps, total number of steps."""


@dataclass(frozen=True)
class Options:
    """Options of an export, for all formats."""

    undistort: bool = False
    """Undistort pictures, label maps and depth."""
    depth: bool = True
    """Write depth, dense or sparse, if the format supports it."""
    text: bool = False
    """Write COLMAP models as text instead of binary."""
    keep: tuple[int, ...] = ()
    """Ids of objects to train on: in the masks of nerfstudio and COLMAP other pixels are black."""
    largest: int | None = None
    """Keep only this many of the largest objects; the others become unlabelled."""
    label_property: bool = False
    """Also write labels as a property of the splat PLY; some viewers cannot read it."""
    vertices: Path | None = None
    """Mesh whose vertices a benchmark scores (ScanNet's *_vh_clean_2.ply); unset: the cloud."""


@dataclass(frozen=True, eq=False)
class Before:
    """What a corrected run was before its corrections."""

    cloud: LabelledPoints
    label_maps: Mapping[str, LabelMap]
    edits: bytes
    """The content of `edits.jsonl`."""


@dataclass(frozen=True, eq=False)
class Content:
    """A finished run to export."""

    name: str
    """Name of the scene, valid as a file name."""
    cloud: LabelledPoints
    confidence: Mapping[int, float]
    """Confidence of each id, in the order of the run's list."""
    views: Scene | None
    """The views of the run; None if no selected format needs pictures."""
    label_maps: Mapping[str, LabelMap]
    """Label map of each view by its name, in the ids of the cloud."""
    at_vertices: Int32[np.ndarray, " vertices"] | None = None
    """Ids at the vertices that a benchmark scores; None if these are the cloud's points."""
    options: Options = field(default_factory=Options)
    colours: Palette = field(default_factory=dict)
    """Colours of the run's objects, as in its pictures."""
    objects: tuple[Object, ...] = ()
    """The run's objects by id: points, views, confidence, colour, centre, box; name, class and
    edits of those that a person changed."""
    corrections: Corrections = field(default_factory=lambda: Corrections(0, 0, 0))
    """How many edits made these labels; none for labels as the machine found them."""
    automatic: Before | None = None
    """The labels before corrections; None for a run without any."""

    @property
    def scene(self) -> Scene:
        """The views; only for formats with `pictures`."""
        if self.views is None:
            raise ValueError("this format needs pictures: set `pictures` in its Format")
        return self.views

    @property
    def offset(self) -> Offset:
        """World coordinates of the local origin of cloud and cameras."""
        return self.cloud.points.offset

    @property
    def ids(self) -> list[int]:
        """Every id above 0 on the cloud, ascending."""
        found = np.unique(self.cloud.instance)
        return [int(each) for each in found[found > 0]]

    @cached_property
    def all_ids(self) -> list[int]:
        """Every id above 0 on the cloud or in a label map; an object may have no point."""
        found = set(self.ids)
        for view in () if self.views is None else self.views.views:
            found |= set(np.unique(self.label_maps[view.name]).tolist())
        return sorted(each for each in found if each > 0)


@dataclass(frozen=True)
class Format:
    """An export format: its writer, checks and documentation."""

    name: str
    about: str
    """Short description for the help."""
    files: str
    """Written files. This and the next fields are cells of the table in docs/exports.md."""
    frames: str
    """Direction and axes of the poses, or the frame of the points."""
    first_pixel: str
    """Coordinates of the centre of the first pixel, or "no cameras"."""
    read_by: str
    """Programs that read the format."""
    write: Callable[[Content, Path, Tick], list[str]]
    """Writes into an empty folder; returns notes for the user."""
    limits: str = ""
    """Limits of the format."""
    check: Callable[[Content], None] = lambda content: None
    """Raises InputError, before anything is written, if the format cannot hold the content."""
    pictures: bool = False
    """Whether the format needs the views."""
    coordinates: Literal["local", "world", "none"] = "local"
    """Of georeferenced scenes: `world`, in double precision, or `local`, relative to the local
    origin, with `offset.json` beside the files; none: the format has no coordinates."""


def small_ids(content: Content, where: str, most: int = 255) -> dict[int, int]:
    """Id of the run -> id in the file, 1 to `most`: equal if all ids fit, else renumbered."""
    ids = content.all_ids
    if len(ids) > most:
        raise InputError(
            f"{where} holds at most {most} objects in 8 bits, the run has {len(ids)}; keep the "
            f"largest ones with --largest {most}, or export to colmap, whose label maps have 16"
        )
    if not ids or ids[-1] <= most:
        return {each: each for each in ids}
    return {each: number for number, each in enumerate(ids, start=1)}
