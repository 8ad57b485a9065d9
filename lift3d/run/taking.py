"""Apply the edits of another run of the same place."""

from __future__ import annotations

import shutil
from pathlib import Path

from lift3d.correction.edits import EditFile
from lift3d.run.edits import Edits
from lift3d.run.layout import Layout
from lift3d.scene.errors import InputError
from lift3d.scene.guarded import reading
from lift3d.scene.storage import atomic


def take(edits: Edits, source: Path) -> int:
    """Copy the edits of a run, or of an `edits.jsonl` with `edits/` beside it; returns how many.

    They are found by where things are, as after another lift; what is not found is in doubt.
    InputError where this run has edits: the numbers of objects would mean two things.
    """
    kept = Layout(source).edits
    path = kept if source.is_dir() else source
    if not path.is_file():
        why = "has no edits" if source.is_dir() else "is missing: there is no such run or file"
        raise InputError(f"{source} {why}; name a run that was corrected, or its {kept.name}")
    found = EditFile(path).read()
    own = Layout(edits.folder)
    with edits.writing():
        if edits.revision:
            raise InputError(
                f"{edits.folder} has edits of its own, and ids in both would be mixed up; lift the "
                "scan into a new folder and take them there"
            )
        inside = own.edit_files.name
        names = [name for each in found for name in each.files if name.startswith(f"{inside}/")]
        with reading(path, "edits with their files beside them"):
            for name in names:
                with atomic(own.edit_files / Path(name).name) as part:
                    shutil.copyfile(path.parent / inside / Path(name).name, part)
            with atomic(own.edits) as part:
                shutil.copyfile(path, part)
        edits.warnings += [] if found == edits.all else [f"{path} changed while it was copied"]
    return len(found)
