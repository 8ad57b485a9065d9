"""Carry the masks of one picture into others, and write what was found: `lift3d transfer`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lift3d.datasets.colmap_scene import centred_camera
from lift3d.datasets.images import image_size, read_color
from lift3d.run.layout import Layout
from lift3d.run.run import Run
from lift3d.scene import View
from lift3d.scene.errors import FrameError, InputError, did_you_mean
from lift3d.scene.labelmaps import write_label_map
from lift3d.scene.overlap import paint
from lift3d.scene.printing import to_stderr
from lift3d.scene.progress import Progress
from lift3d.scene.storage import atomic
from lift3d.segmentation.mask_files import READERS, read_masks
from lift3d.segmentation.transfer import Transfer, TransferConfig

ANSWER = "transfer.json"


@dataclass(frozen=True)
class Found:
    """What was found in one picture."""

    picture: str
    objects: dict[int, dict[str, Any]]
    """By id of the masks: present, confidence, pixels."""


def transfer(
    inputs: Sequence[Path],
    masks: Path,
    out: Path,
    config: TransferConfig,
    view: str | None,
    progress: Progress,
) -> list[Found]:
    """Carry masks of the first picture into the others, or of a view of a run into all others.

    Writes `NAME.png` for each picture, with the ids of the masks, and transfer.json. Raises
    InputError for pictures or masks that cannot be used.
    """
    source, targets = views_of(inputs, view)
    if masks.is_file() and masks.suffix.lower() not in READERS:
        raise InputError(f"{masks}: masks are {', '.join(sorted(READERS))}, or a folder of PNGs")
    if not masks.exists():
        raise InputError(f"no file or folder {masks}")
    given = read_masks(masks, source.camera)
    if not len(given):
        raise InputError(f"{masks} has no masks")
    ids = np.arange(1, len(given) + 1, dtype=np.int32) if given.ids is None else given.ids
    try:
        source.image()
    except FrameError as error:
        raise InputError(str(error)) from error
    carrier = config.build()
    out.mkdir(parents=True, exist_ok=True)
    found = []
    with progress.stage(f"carry {len(given)} masks") as tick:
        for number, each in enumerate(_carried(carrier, source, targets, given.stack, ids, out)):
            found.append(each)
            tick(number + 1, len(targets))
    content = {
        "source": source.name,
        "masks": str(masks),
        "existence": config.existence,
        "pictures": {each.picture: {str(k): v for k, v in each.objects.items()} for each in found},
    }
    with atomic(out / ANSWER) as part:
        part.write_text(json.dumps(content, indent=1) + "\n")
    return found


def _carried(
    carrier: Transfer, source: View, targets: Sequence[View], stack: np.ndarray, ids: np.ndarray,
    out: Path,
) -> Iterator[Found]:  # fmt: skip
    for target in targets:
        try:
            answer = carrier.carry(source, target, stack)
        except FrameError as error:
            to_stderr(f"{target.name} is left out: {error}")
            continue
        shown = answer.present
        write_label_map(out, target.name, paint(answer.masks[shown], ids[shown]))
        objects = {
            int(id_): {
                "present": bool(answer.present[place]),
                "confidence": round(float(answer.confidence[place]), 4),
                "pixels": int(answer.masks[place].sum()) if answer.present[place] else 0,
            }
            for place, id_ in enumerate(ids)
        }
        yield Found(target.name, objects)


def views_of(inputs: Sequence[Path], view: str | None) -> tuple[View, list[View]]:
    """The view that the masks are of, and the others."""
    if len(inputs) == 1:
        if not Layout(inputs[0]).record.is_file():
            raise InputError(
                f"{inputs[0]} is no finished run; give two or more pictures, or a run folder"
            )
        views = {each.name: each for each in Run.open(inputs[0]).scene.views}
        if view is None:
            raise InputError("a run has many views; name the one of the masks with --view")
        if view not in views:
            raise InputError(did_you_mean(view, views, "view"))
        return views[view], [each for name, each in views.items() if name != view]
    if view is not None:
        raise InputError("--view is for a run; of pictures the first one has the masks")
    names = [path.stem for path in inputs]
    if len(set(names[1:])) < len(names) - 1:
        raise InputError("two pictures have the same name, and so would their masks; rename one")
    first, *others = (_picture(path) for path in inputs)
    return first, others


def _picture(path: Path) -> View:
    try:
        width, height = image_size(path)
    except FrameError as error:
        raise InputError(str(error)) from error
    return View(path.stem, centred_camera(width, height), partial(read_color, path))
