"""Export of a person's corrections as training data: labels before and after.

`cloud.npz`: `xyz rgb normal confidence` of the cloud, `automatic` and `corrected` (ids, 0 =
unlabelled), `decided` (True where a person changed the point's object or accepted it).
`views/NAME.npz`: `automatic` and `corrected` label maps, of views in which they differ.
`objects.json`: what a person gave each object, and the numbers of its edits. `edits.jsonl`: the
edits, with the prompts of those made by a click. Ids mean the same in all of them. Points are in
the run's world; there are no cameras.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from lift3d.export.content import Content, Format, Tick
from lift3d.export.instances import Object
from lift3d.scene.errors import InputError
from lift3d.scene.printing import only_text
from lift3d.scene.storage import atomic


def given(objects: tuple[Object, ...]) -> list[dict[str, Any]]:
    """What a person gave each object; objects that no person touched are left out."""
    return [
        {
            "id": each.id,
            "name": each.name,
            "class": each.class_name,
            "edited": list(each.edited),
            "reviewed": each.reviewed,
        }
        for each in objects
        if each.edited or each.reviewed
    ]


def write(content: Content, folder: Path, tick: Tick) -> list[str]:
    """Write the pairs; label maps that did not change are left out."""
    before = content.automatic
    assert before is not None
    cloud, now = before.cloud, content.cloud
    touched = [each["id"] for each in given(content.objects)]
    changed = cloud.instance != now.instance
    arrays: dict[str, Any] = {
        **vars(cloud.points),
        "automatic": cloud.instance,
        "corrected": now.instance,
        "decided": changed | np.isin(now.instance, touched),
    }
    with atomic(folder / "cloud.npz") as part:
        np.savez_compressed(part, **arrays)
    same = 0
    for number, name in enumerate(content.label_maps, start=1):
        was, is_now = before.label_maps[name], content.label_maps[name]
        if np.array_equal(was, is_now):
            same += 1
        else:
            with atomic(folder / "views" / f"{only_text(name)}.npz") as part:
                np.savez_compressed(part, automatic=was, corrected=is_now)
        tick(number, len(content.label_maps))
    with atomic(folder / "objects.json") as part:
        part.write_text(json.dumps(given(content.objects), indent=1))
    with atomic(folder / "edits.jsonl") as part:
        part.write_bytes(before.edits)
    return (
        [f"corrections: {same} of {len(content.label_maps)} views did not change"] if same else []
    )


def check(content: Content) -> None:
    """InputError where the run has no corrections, or ids were changed for the export."""
    if content.automatic is None:
        raise InputError("the run has no corrections to export; make some: lift3d edit --help")
    if content.options.largest is not None:
        raise InputError("corrections: ids must stay as they are; leave out --largest")


FORMAT = Format(
    name="corrections",
    about="a person's corrections as training data: labels before and after",
    files=(
        "`cloud.npz` with `xyz rgb normal automatic corrected decided`, `views/NAME.npz` with "
        "`automatic corrected`, `objects.json`, `edits.jsonl`"
    ),
    frames="the run's world",
    first_pixel="no cameras",
    limits="only of runs with edits",
    read_by="NumPy",
    write=write,
    check=check,
)
