"""ScanNet's truth from mesh, segments and aggregation, with labels of either release."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64

from lift3d.datasets.scannet_surface import annotation_files, read_surface
from lift3d.evaluation.metrics.classes import NYU40_NAMES, RAW_NAMES, Benchmark, Convention
from lift3d.evaluation.metrics.scannet import INSTANCES_PER_LABEL
from lift3d.scene import NO_OFFSET, Offset, Points
from lift3d.scene.errors import InputError
from lift3d.scene.guarded import load_text, reading
from lift3d.scene.labelmaps import renumber

TABLES = ("scannetv2-labels.combined.tsv", "scannet-labels.combined.tsv")
NYU40_LAST = 40
RAW_SHARE = 0.1
"""Share of labels above 40 from which labels without names are raw ids. Chosen by hand."""


@dataclass(frozen=True, eq=False)
class LabelTable:
    """Ids of the annotators' class names, from `scannetv2-labels.combined.tsv`."""

    nyu40: dict[str, int]
    raw: dict[str, int]
    path: Path | None = None


@dataclass(frozen=True, eq=False)
class Annotation:
    """True objects and classes of a scan's vertices, in file order."""

    points: Points
    instance: Int32[np.ndarray, " vertices"]
    """objectId + 1, 0 = none."""
    nyu40: Int32[np.ndarray, " vertices"] | None
    """Classes in nyu40 ids; None if unknown."""
    raw: Int32[np.ndarray, " vertices"] | None
    """Classes in raw ids; None if unknown."""
    notes: tuple[str, ...]
    """The convention of the labels, the reason for this choice, and objects without class."""

    def classes(self, benchmark: Benchmark) -> Int32[np.ndarray, " vertices"] | None:
        """Labels in the benchmark's ids; None if unknown."""
        return self.nyu40 if benchmark.convention == "nyu40" else self.raw

    def truth(self, benchmark: Benchmark) -> Int64[np.ndarray, " vertices"]:
        """label * 1000 + instance, the format of the benchmark's script."""
        label = self.classes(benchmark)
        if label is None:
            raise InputError(
                f"the annotation has no {benchmark.convention} ids, which {benchmark.name} "
                f"needs; put {TABLES[0]} beside the scan or above it"
            )
        if self.instance.max(initial=0) >= INSTANCES_PER_LABEL:
            raise InputError(
                f"objectId {self.instance.max() - 1} is above 998, the largest that "
                "label * 1000 + instance can encode"
            )
        return np.where(self.instance > 0, label.astype(np.int64) * INSTANCES_PER_LABEL, 0) + (
            self.instance
        )


def read_annotation(
    folder: Path, scene: str, table: Path | None = None, offset: Offset = NO_OFFSET
) -> Annotation:
    """The annotation of one scan. `table` defaults to the .tsv in the folder or above it.

    With the table, an object's class is that of the annotators' name, as in ScanNet's own export.
    Without it, classes come from the label mesh, with the convention of `label_convention`.
    Points are relative to `offset`.
    """
    paths = annotation_files(folder, scene)
    surface = read_surface(*paths, offset)
    names = surface.names or {}
    table = table or find_table(folder)
    known = None if table is None else read_table(table)
    notes: list[str] = []
    stored = surface.semantic
    convention: Convention | None = None
    if stored is not None:
        convention, why = label_convention(stored, surface.instance, names, known)
        release = "v2, nyu40 ids" if convention == "nyu40" else "v1, raw ids"
        notes.append(f"{paths[3].name}: labels of ScanNet {release} ({why})")
    if known is not None:
        written = {each: name for each, name in names.items() if (surface.instance == each).any()}
        unknown = sorted({name for name in written.values() if name not in known.raw})
        if unknown:
            notes.append(f"no class for {', '.join(unknown[:5])}: not in {known.path}")
        notes.append(f"classes of objects by {known.path}")
        nyu40 = _by_object(surface.instance, names, known.nyu40)
        raw = _by_object(surface.instance, names, known.raw)
        return Annotation(surface.points, surface.instance, nyu40, raw, tuple(notes))
    if stored is None:
        notes.append(f"no {paths[3].name} and no {TABLES[0]}: objects have no classes")
    return Annotation(
        surface.points,
        surface.instance,
        stored if convention == "nyu40" else None,
        stored if convention == "raw" else None,
        tuple(notes),
    )


def label_convention(
    label: Int32[np.ndarray, " vertices"],
    instance: Int32[np.ndarray, " vertices"],
    names: Mapping[int, str],
    table: LabelTable | None = None,
) -> tuple[Convention, str]:
    """Whether labels are nyu40 or raw ids, and the reason.

    Objects vote whose label is the id of their name in one list only: a chair is 5 in nyu40 and
    2 among the raw ids. So a few stray ids decide nothing. Without votes it is raw where more
    than `RAW_SHARE` of the labels are above 40, else nyu40.
    """
    nyu40 = NYU40_NAMES if table is None else table.nyu40
    raw = RAW_NAMES if table is None else table.raw
    votes = {"nyu40": 0, "raw": 0}
    for each, name in names.items():
        own = label[instance == each]
        if len(own):
            found, counts = np.unique(own.clip(0), return_counts=True)
            most = int(found[counts.argmax()])
            is_nyu40, is_raw = most == nyu40.get(name), most == raw.get(name)
            votes["nyu40"] += is_nyu40 and not is_raw
            votes["raw"] += is_raw and not is_nyu40
    total = votes["nyu40"] + votes["raw"]
    above = float(np.mean(label[label > 0] > NYU40_LAST)) if (label > 0).any() else 0.0
    stray = f"; {above:.1%} of the labels are above {NYU40_LAST}" if above else ""
    if votes["raw"] > votes["nyu40"]:
        return "raw", f"{votes['raw']} of {total} objects have the raw id of their name"
    if total:
        why = f"{votes['nyu40']} of {total} objects have the nyu40 id of their name{stray}"
        return "nyu40", why
    if above > RAW_SHARE:
        return "raw", f"{above:.0%} of the labels are above {NYU40_LAST}, where nyu40 ends"
    return "nyu40", f"assumed: no object has an id of only one list{stray}"


def find_table(folder: Path) -> Path | None:
    """The label table in a scan's folder or up to three folders above it; None if not found."""
    here = folder.resolve()
    places = [here, *list(here.parents)[:3]]
    found = (place / name for place in places for name in TABLES)
    return next((path for path in found if path.is_file()), None)


def read_table(path: Path) -> LabelTable:
    """`raw_category` to `nyu40id` and `id`; rows without a number have no class."""
    lines = load_text(path).splitlines()
    with reading(path, "a label table"):
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    needed = {"raw_category", "nyu40id", "id"}
    if not rows or not needed <= rows[0].keys():
        raise InputError(f"{path}: expected tab-separated columns {', '.join(sorted(needed))}")
    nyu40, raw = (
        {
            (row["raw_category"] or "").strip(): int(row[column])
            for row in rows
            if re.fullmatch(r"[0-9]{1,9}", (row[column] or "").strip())
        }
        for column in ("nyu40id", "id")
    )
    return LabelTable(nyu40, raw, path)


def _by_object(
    instance: Int32[np.ndarray, " vertices"], names: Mapping[int, str], ids: Mapping[str, int]
) -> Int32[np.ndarray, " vertices"]:
    return renumber(instance, {each: ids.get(name, 0) for each, name in names.items()})
