"""What every writer gets: the labelled cloud, the views, and what the person asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Int32

from lift3d.scene import LabelledPoints, LabelMap, Scene
from lift3d.scene.colours import Palette
from lift3d.scene.errors import InputError

Tick: TypeAlias = Callable[[int, int], None]
"""Called with how many are done and how many there are."""


@dataclass(frozen=True)
class Options:
    """What a person may ask of an export, whichever the format."""

    undistort: bool = False
    """Straighten pictures of distorted lenses; labels and depth with them."""
    depth: bool = True
    """Write depth, dense or sparse, where the format has a place for it."""
    text: bool = False
    """COLMAP models as text instead of binary."""
    keep: tuple[int, ...] = ()
    """Objects to train on: in the masks of nerfstudio and COLMAP all other pixels are black."""
    largest: int | None = None
    """Keep the ids of this many objects, the largest ones; the others become unlabelled."""
    label_property: bool = False
    """Labels as a property of the splat PLY too, at the risk of viewers that choke on it."""
    vertices: Path | None = None
    """Mesh whose vertices a benchmark scores (ScanNet's *_vh_clean_2.ply); unset: the cloud."""


@dataclass(frozen=True, eq=False)
class Content:
    """A finished run, ready to be written."""

    name: str
    """Of the scene; a file name."""
    cloud: LabelledPoints
    confidence: Mapping[int, float]
    """How well the views support each id, in the order of the run's list."""
    views: Scene | None
    """The views as lifted; None where no format that was asked for needs pictures."""
    label_maps: Mapping[str, LabelMap]
    """The ids of each view, by its name; they are the cloud's."""
    at_vertices: Int32[np.ndarray, " vertices"] | None = None
    """The ids at the vertices that a benchmark scores, where they are not the cloud's points."""
    options: Options = field(default_factory=Options)
    colours: Palette = field(default_factory=dict)
    """Of the run's objects, as its pictures have them."""

    @property
    def scene(self) -> Scene:
        """The views; only formats that say so may ask."""
        if self.views is None:
            raise ValueError("this format does not say that it needs pictures")
        return self.views

    @property
    def ids(self) -> list[int]:
        """Every id above 0 on the cloud, ascending."""
        found = np.unique(self.cloud.instance)
        return [int(each) for each in found[found > 0]]

    @cached_property
    def all_ids(self) -> list[int]:
        """Every id above 0 on the cloud or in a picture; a picture may show what got no point."""
        found = set(self.ids)
        for view in () if self.views is None else self.views.views:
            found |= set(np.unique(self.label_maps[view.name]).tolist())
        return sorted(each for each in found if each > 0)


@dataclass(frozen=True)
class Format:
    """A writer and what there is to know about it."""

    name: str
    about: str
    """A few words for the help."""
    files: str
    """What is written. This and what follows are cells of the table in docs/exports.md."""
    frames: str
    """The poses' direction and axes, or the frame of the points."""
    first_pixel: str
    """Where the centre of the first pixel is, or that there are no cameras."""
    read_by: str
    """Programs that read it."""
    write: Callable[[Content, Path, Tick], list[str]]
    """Writes into an empty folder; returns what a person should know."""
    limits: str = ""
    """What does not fit in."""
    check: Callable[[Content], None] = lambda content: None
    """Refuses, before anything is written, what the format cannot hold."""
    pictures: bool = False
    """Whether it needs the views."""


def small_ids(content: Content, where: str, most: int = 255) -> dict[int, int]:
    """Id of the run -> id in the file, 1 to `most`: the same where they fit, else renumbered."""
    ids = content.all_ids
    if len(ids) > most:
        raise InputError(
            f"{where} holds at most {most} objects in 8 bits, the run has {len(ids)}; keep the "
            f"largest ones with --largest {most}, or export to colmap, whose label maps have 16"
        )
    if not ids or ids[-1] <= most:
        return {each: each for each in ids}
    return {each: number for number, each in enumerate(ids, start=1)}
