"""Common part of Gaussian Grouping and ObjectGS: a COLMAP project with `object_mask/`.

Masks are 8-bit, with the names and size of the pictures. Readers scale pictures wider than 1600
pixels down, but not masks, so both are written with at most that width. Ids are renumbered if
some exceed 255; `ids.json` maps the written ids to those of the run.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from lift3d.export.colmap import observed, write_model
from lift3d.export.content import Content, Tick, small_ids
from lift3d.export.frames import Limits, frames, write_png
from lift3d.scene.storage import atomic

WIDEST = 1600


def write_masks(
    content: Content, folder: Path, limits: Limits, tick: Tick
) -> tuple[dict[int, int], list[str]]:
    """Write pictures, masks and model; returns id of the run -> written id, and notes."""
    numbers = small_ids(content, limits.where)
    pictures, shrunk = [], 0
    for frame in frames(content, limits, tick):
        frame.write_image(folder / "images")
        labels = frame.labels(content.label_maps[frame.view.name])
        write_png(folder / "object_mask" / f"{frame.stem}.png", renumbered(labels, numbers))
        pictures.append(observed(content.cloud, frame))
        shrunk += frame.camera.width != frame.view.camera.width
    write_model(folder / "sparse/0", content, pictures)
    with atomic(folder / "ids.json") as part:
        part.write_text(json.dumps({str(number): each for each, number in numbers.items()}))
    notes = []
    if shrunk:
        notes.append(f"{limits.where}: {shrunk} pictures scaled down to {WIDEST} pixels wide")
    if any(each != number for each, number in numbers.items()):
        notes.append(f"{limits.where}: ids renumbered to fit 8 bits, see ids.json")
    return numbers, notes


def renumbered(labels: np.ndarray, numbers: dict[int, int]) -> np.ndarray:
    """Map ids of the run to written ids, 8-bit."""
    known, index = np.unique(labels, return_inverse=True)
    to = np.array([numbers[int(each)] if each > 0 else 0 for each in known], np.uint8)
    return to[index.reshape(labels.shape)]
