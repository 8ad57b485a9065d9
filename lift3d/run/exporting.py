"""Write a run in other programs' formats, without overwriting files of other origin."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lift3d.evaluation.metrics.classes import BENCHMARKS
from lift3d.evaluation.scores import at_vertices
from lift3d.export.content import Before, Content, Format, Options
from lift3d.export.corrections import given
from lift3d.export.local_origin import write_offset
from lift3d.export.registry import FORMATS
from lift3d.reconstruction.fusion import given_points
from lift3d.run.run import Run
from lift3d.run.stages import alone_in
from lift3d.scene import NO_OFFSET, LabelledPoints, Offset
from lift3d.scene.contents import content
from lift3d.scene.errors import InputError, system_words
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.labelmaps import LabelMaps, renumber, renumbered
from lift3d.scene.progress import Progress, Quiet
from lift3d.scene.storage import atomic, replace_folder, staged_folder
from lift3d.scene.typed import conforming

MARKER = ".lift3d-export.json"
"""File in an export's folder with a digest of each file that the export wrote there."""
CORRECTED = "corrected.json"
"""File in an export of a corrected run: its edits, and the objects that a person changed."""
CACHES = ("sparse/0/points3D.ply",)
"""Files that other programs make from an export, in its folder; a new export removes them."""


def export(
    run: Run,
    formats: Sequence[str],
    out: Path | None = None,
    options: Options = Options(),  # noqa: B008 - frozen
    progress: Progress | None = None,
) -> list[Path]:
    """Write the run into `out` (by default `export` in its folder); returns the paths written.

    Everything is checked before anything is written. Each format is written completely or not at
    all: `ply` into `out` itself, every other format into a subfolder with its name.
    """
    chosen = [FORMATS.find(name) for name in dict.fromkeys(formats)]
    out = run.files.exports if out is None else out
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; --out takes a folder")
    progress = progress or Quiet()
    created = None if out.exists() else out
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror}; choose another --out") from None
    try:
        with alone_in(out, out):
            return _written(run, chosen, out, options, progress)
    finally:
        if created is not None:  # empty where nothing could be written
            with contextlib.suppress(OSError):
                created.rmdir()


def _written(
    run: Run,
    chosen: Sequence[Format],
    out: Path,
    options: Options,
    progress: Progress,
) -> list[Path]:
    """Check all formats, then write them; returns the paths written."""
    if run.unwritten:
        progress.log(f"warning: {unwritten(run)}")
    for each in chosen:
        _check_free(_home(out, each.name), each.name)
    shown = _content(run, any(each.pictures for each in chosen), options)
    for each in chosen:
        each.check(shown)
    written = []
    for each in chosen:
        home = _home(out, each.name)
        try:
            with (
                progress.stage(f"export {each.name}") as tick,
                staged_folder(out / each.name) as part,
            ):
                notes = [*each.write(shown, part, tick), *_origin_note(part, each, shown.offset)]
                notes += _marked_as_corrected(shown, part, each.name)
                run.check_same()
                written += _publish(part, home, each.name)
        except OSError as error:
            what = f"{system_words(error)}; {each.name} is unchanged"
            what += ", formats named before it are complete"
            raise OSError(error.errno or errno.EIO, what, error.filename or str(home)) from error
        for note in notes:
            progress.log(note)
    return written


def _origin_note(folder: Path, form: Format, offset: Offset) -> list[str]:
    """Write the local origin beside a format that is relative to it; a note where it matters."""
    if offset == NO_OFFSET or form.coordinates == "none":
        return []
    if form.coordinates == "world":
        said = "world coordinates, far from 0, which programs of float32 cannot hold"
    else:
        said = write_offset(folder, offset)
    return [f"{form.name}: {said}"]


def _marked_as_corrected(shown: Content, part: Path, name: str) -> list[str]:
    """Write which objects a person changed beside the export, and say so; nothing without edits."""
    made = shown.corrections
    if not made:
        return []
    content = {"edits": made.as_json(), "objects": given(shown.objects)}
    with atomic(part / CORRECTED) as file:
        file.write_text(json.dumps(content, indent=1))
    note = f"{name}: these labels are corrected by hand, {made} ({CORRECTED} lists the objects)"
    benchmark = "; they are no result of the method: say so where you submit them"
    return [note + (benchmark if name in BENCHMARKS else "")]


def unwritten(run: Run) -> str:
    """The warning about edits that the public files do not have."""
    return (
        f"edits.jsonl has {run.unwritten} lines that the files of {run.folder} do not have yet; "
        f"write them first: lift3d edit {run.folder} save"
    )


def _content(run: Run, pictures: bool, options: Options) -> Content:
    """The data that the formats are written from."""
    cloud, confidence, colours = run.cloud, run.confidence, run.palette
    objects = run.objects
    new = _kept(cloud, options.largest)
    if new is not None:
        cloud = replace(cloud, instance=renumber(cloud.instance, new))
        confidence = {new[each]: value for each, value in confidence.items() if each in new}
        colours = {new[each]: value for each, value in colours.items() if each in new}
        kept = [replace(each, id=new[each.id]) for each in objects if each.id in new]
        objects = tuple(sorted(kept, key=lambda each: each.id))
    vertices = None
    if options.vertices is not None:
        vertices = at_vertices(
            cloud, given_points(options.vertices, cloud.points.offset).xyz, run.scene.metric
        )

    shown = Content(
        name=_file_name(run.name),
        cloud=cloud,
        confidence=confidence,
        views=run.whole_scene if pictures else None,
        label_maps=run.labels if new is None else renumbered(run.labels, new),
        at_vertices=vertices,
        options=options,
        colours=colours,
        objects=objects,
        corrections=run.corrections,
        automatic=_before(run),
    )
    unknown = sorted(set(options.keep) - set(shown.all_ids)) if options.keep else []
    if unknown:
        raise InputError(f"{run.folder} has no object {', '.join(map(str, unknown))} to keep")
    return shown


def _before(run: Run) -> Before | None:
    if not run.corrections:
        return None
    maps = LabelMaps(run.files.automatic.labels, list(run.cameras))
    return Before(run.automatic, maps, run.files.edits.read_bytes())


def _kept(cloud: LabelledPoints, largest: int | None) -> dict[int, int] | None:
    """Kept id -> new id, from 1 by size; None where all ids stay as they are."""
    if largest is None:
        return None
    if largest < 1:
        raise InputError(f"largest is {largest}; expected how many objects to keep, 1 or more")
    ids, counts = np.unique(cloud.instance[cloud.instance > 0], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:largest]
    return {int(each): number for number, each in enumerate(ids[order], start=1)}


def _file_name(name: str) -> str:
    """A scene's name with only characters that are safe in file names.

    >>> _file_name("my scan/7")
    'my_scan_7'
    """
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name) or "scene"


def _home(out: Path, name: str) -> Path:
    return out if name == "ply" else out / name


def _check_free(home: Path, name: str) -> None:
    """InputError where files would be lost that no export has written."""
    if home.exists() and not home.is_dir():
        raise InputError(f"{home} is a file; move it away or choose another --out")
    if not home.is_dir():
        return
    ours = _marked(home)
    there = {each.relative_to(home).as_posix(): each for each in _targets(home, name)}
    digests = dict(zip(there, content(*there.values()), strict=True))
    foreign = [
        each
        for each, digest in digests.items()
        if each not in CACHES and digest not in ours.get(each, [])
    ]
    if foreign:
        few = ", ".join(foreign[:3])
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise InputError(
            f"{home} has files that no export wrote, or that were changed since ({few}{more}); "
            "move them away or choose another --out, so that nothing of yours is lost"
        )


def _marked(home: Path) -> dict[str, list[str]]:
    """Files that exports have written here: path -> digests that the file may have."""
    try:
        files = load_json(home / MARKER, kind=dict).get("files")
        return dict(conforming(files, dict[str, list[str]], home / MARKER, ""))
    except InputError:
        return {}


def _mark(home: Path, name: str, files: Mapping[str, list[str]]) -> None:
    about = f"written by lift3d export --to {name}, which may replace it"
    with atomic(home / MARKER) as part:
        part.write_text(json.dumps({"about": about, "files": files}, indent=1))


def _targets(home: Path, name: str) -> Iterable[Path]:
    """Files that writing the format removes or replaces."""
    if name != "ply":
        return (p for p in sorted(home.rglob("*")) if p.is_file() and p != home / MARKER)
    # Only files at the top and objects/; the folders of other formats are checked separately.
    inside = (home / "objects").rglob("*")
    beside = (p for p in home.iterdir() if p.name != MARKER)
    return sorted(p for p in [*beside, *inside] if p.is_file())


def _publish(staged: Path, home: Path, name: str) -> list[Path]:
    """Move a completely written format to its place; returns the paths to print.

    If the process is killed during the move, `alone_in` restores the earlier folder at the next
    start.
    """
    files = {p.relative_to(staged).as_posix(): p for p in sorted(staged.rglob("*")) if p.is_file()}
    digests = content(*files.values())
    new = {each: [str(digest)] for each, digest in zip(files, digests, strict=True)}
    _mark(staged, name, new)
    if name != "ply":
        replace_folder(staged, home)
        return [home]
    # Until all files are moved, each may have its old or its new content.
    old = _marked(home)
    _mark(home, name, {each: old.get(each, []) + new.get(each, []) for each in {**old, **new}})
    names = sorted(each.name for each in staged.iterdir() if each.name != MARKER)
    if (home / "objects").is_dir() and "objects" not in names:
        shutil.rmtree(home / "objects")
    for each in names:
        if (staged / each).is_dir():
            replace_folder(staged / each, home / each)
        else:
            os.replace(staged / each, home / each)
    os.replace(staged / MARKER, home / MARKER)
    return [home / each for each in names]
