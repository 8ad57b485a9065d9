"""Benchmark submissions: a list per scene and a mask file per instance.

`<scene>.txt` has a line `predicted_masks/<scene>_000.txt LABEL CONFIDENCE` per instance. A mask
is text with 0 or 1 per vertex of the mesh (ScanNet), or JSON run lengths (ScanNet++).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Bool, Int

from lift3d.datasets.poses import numbers
from lift3d.evaluation.metrics.scannet import Prediction
from lift3d.scene.errors import InputError
from lift3d.scene.guarded import load_bytes, load_text, reading
from lift3d.scene.guarded.json_file import load_json, shown
from lift3d.scene.storage import atomic

MASKS = "predicted_masks"
Format: TypeAlias = Literal["scannet", "scannetpp"]
SUFFIX: dict[str, str] = {"scannet": ".txt", "scannetpp": ".json"}


def predictions(
    instance: Int[np.ndarray, " vertices"],
    confidence: Mapping[int, float],
    label: int | Mapping[int, int],
) -> list[Prediction]:
    """One prediction per id above 0 that has vertices, in the order of `confidence`.

    `label`: one class for all instances, or a class per id; ids without a class are omitted.
    """
    found = set(np.unique(instance).tolist())
    classes = dict.fromkeys(confidence, label) if isinstance(label, int) else label
    return [
        Prediction(instance == each, classes[each], float(score))
        for each, score in confidence.items()
        if each > 0 and each in found and each in classes
    ]


def write_submission(
    folder: Path, scene: str, instances: Iterable[Prediction], form: Format = "scannet"
) -> list[Path]:
    """Write one scene's list and masks into `folder`; returns the files, the list first.

    Masks of an earlier submission of the scene are removed. The list is written last, so that it
    never refers to a missing mask. InputError for a scene name with spaces or slashes.
    """
    if not scene or any(each.isspace() or each in "/\\" for each in scene):
        raise InputError(f"scene name {scene!r}: expected one without spaces and slashes")
    for stale in _own_masks(folder, scene):
        stale.unlink()
    listing = folder / f"{scene}.txt"
    listing.unlink(missing_ok=True)
    written, lines = [], []
    for number, each in enumerate(instances):
        path = folder / MASKS / f"{scene}_{number:03d}{SUFFIX[form]}"
        with atomic(path) as part:
            if form == "scannet":
                part.write_bytes(np.where(each.mask, b"1\n", b"0\n").tobytes())
            else:
                part.write_text(json.dumps(run_lengths(each.mask)))
        lines.append(f"{MASKS}/{path.name} {int(each.label)} {float(each.confidence)!r}\n")
        written.append(path)
    with atomic(listing) as part:
        part.write_text("".join(lines))
    return [listing, *written]


def submitted_scenes(folder: Path) -> list[str]:
    """The scenes of a submission; InputError if there is none."""
    scenes = sorted(each.stem for each in folder.glob("*.txt") if not each.name.startswith("."))
    if not scenes:
        raise InputError(f"{folder} has no <scene>.txt; expected a submission to a benchmark")
    return scenes


def read_submission(folder: Path, scene: str, vertices: int) -> list[Prediction]:
    """The instances of one scene in file order, with masks of `vertices` in either format.

    As in the benchmark, a mask is all vertices that are not 0. If two lines name the same mask,
    the later label and confidence replace the first line's.
    """
    listing = folder / f"{scene}.txt"
    lines = load_text(listing).splitlines()
    stated: dict[Path, tuple[int, float]] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            path, label, confidence = _entry(listing, number, line.split())
            stated[path] = label, confidence
    return [Prediction(read_mask(path, vertices), *each) for path, each in stated.items()]


def read_mask(path: Path, vertices: int) -> Bool[np.ndarray, " vertices"]:
    """Read a mask file of a scene with so many vertices; its content decides the format."""
    content = load_bytes(path)
    expected = "a mask: one integer per vertex, or run lengths as JSON"
    with reading(path, expected, advice="write the submission again"):
        if content[:1] == b"{":
            code = load_json(path)
            if code["length"] != vertices:
                raise ValueError(f"its length is {shown(code['length'])}, not {vertices}")
            return from_run_lengths(code)
        mask = _from_text(content)
        if len(mask) != vertices:
            raise ValueError(f"it has {len(mask)} entries, the scene {vertices} vertices")
    return mask


def run_lengths(mask: Bool[np.ndarray, " vertices"]) -> dict[str, Any]:
    """ScanNet++'s run-length code: start (from 1) and length of every run of vertices.

    >>> run_lengths(np.array([True, True, False, True]))
    {'length': 4, 'counts': '1 2 4 1'}
    """
    edge = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    start, stop = edge[::2], edge[1::2]
    counts = np.stack([start + 1, stop - start], axis=1).ravel().tolist()
    return {"length": len(mask), "counts": " ".join(str(each) for each in counts)}


def from_run_lengths(code: Mapping[str, Any]) -> Bool[np.ndarray, " vertices"]:
    """The mask of a run-length code; ValueError if runs do not fit the length.

    >>> from_run_lengths({"length": 4, "counts": "1 2 4 1"}).tolist()
    [True, True, False, True]
    """
    length, counts = int(code["length"]), code["counts"]
    words = counts.split() if isinstance(counts, str) else list(counts)
    numbers = np.array([int(each) for each in words], np.int64)
    if length < 0 or len(numbers) % 2:
        raise ValueError(f"{len(numbers)} counts over {length} vertices are not pairs")
    start, size = numbers[::2] - 1, numbers[1::2]
    if (start < 0).any() or (size < 0).any() or (start + size > length).any():
        raise ValueError(f"a run is outside the {length} vertices")
    covered = np.zeros(length + 1, np.int64)
    np.add.at(covered, start, 1)
    np.add.at(covered, start + size, -1)
    return np.cumsum(covered[:-1]) > 0


def _entry(listing: Path, number: int, words: Sequence[str]) -> tuple[Path, int, float]:
    where = f"{listing}, line {number}"
    if len(words) != 3:
        raise InputError(f"{where}: expected `mask label confidence`, got {' '.join(words)!r}")
    folder = Path(os.path.realpath(listing.parent))  # Path.resolve raises for a link to itself
    path = Path(os.path.realpath(folder / words[0]))
    if not path.is_relative_to(folder):
        raise InputError(
            f"{where}: {words[0]} is outside the submission; give a path relative to it"
        )
    label, confidence = numbers(" ".join(words[1:]), f"{where}: label and confidence")
    if not (abs(label) <= np.iinfo(np.int32).max and np.isfinite(confidence)):
        raise InputError(f"{where}: label {label:g} and confidence {confidence:g} are not usable")
    return path, int(label), float(confidence)  # the benchmark also accepts labels such as 5.0


def _from_text(content: bytes) -> Bool[np.ndarray, " vertices"]:
    text = np.frombuffer(content if content.endswith(b"\n") else content + b"\n", np.uint8)
    if len(text) % 2 == 0 and (text[1::2] == ord("\n")).all():
        digit = text[::2]
        if ((digit >= ord("0")) & (digit <= ord("9"))).all():
            return digit != ord("0")
    return np.array([int(each) for each in content.split()], np.int64) != 0


def _own_masks(folder: Path, scene: str) -> Iterable[Path]:
    """Masks of the scene, without those of scenes whose name has it as a prefix."""
    for path in (folder / MASKS).glob(f"{scene}_*"):
        if path.suffix in SUFFIX.values() and path.stem.removeprefix(f"{scene}_").isdecimal():
            yield path
