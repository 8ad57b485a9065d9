"""Pictures with the masks to train on, small and in one folder."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lift3d import open_scene
from lift3d.run.layout import Layout
from lift3d.run.run import Run
from lift3d.scene import Image, LabelMap, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.fingerprint import fingerprint
from lift3d.scene.overlap import paint
from lift3d.scene.protocols import Segmenter, SegmenterConfig
from lift3d.scene.storage import atomic

LONGEST = 400
"""Longer side of kept pictures in pixels."""


@dataclass(frozen=True)
class Picture:
    """A kept picture."""

    file: Path
    scene: str
    """The input that it is from."""
    agree: bool
    """Whether ids mean the same in all pictures of the scene: of a run."""

    def load(self) -> tuple[Image, LabelMap]:
        """The picture and the map of its masks, 0 where there is none."""
        return _loaded(self.file)


def collected(
    inputs: Sequence[str], segmentation: SegmenterConfig, out: Path, longest: int
) -> list[Picture]:
    """Write the pictures of all inputs that are not there yet.

    An input is a run, whose label maps are taken, or anything that `lift3d lift` reads, whose
    pictures are segmented; `INPUT@A:B:C` takes only these views, as a slice.
    """
    pictures, segmenter = [], segmentation.build()
    for each in inputs:
        place, _, part = each.partition("@")
        path = Path(place)
        run = Run.open(path) if Layout(path).record.is_file() else None
        scene = run.scene if run is not None else open_scene(path)
        chosen = slice(*(int(n) if n else None for n in part.split(":"))) if part else slice(None)
        folder = out / fingerprint((str(path.resolve()), longest, segmentation))[:12]
        for view in scene.views[chosen]:
            file = folder / f"{view.name}.npz"
            if not file.exists():
                try:
                    labels = _masks(view, segmenter) if run is None else run.labels[view.name]
                    _write(file, view.image(), labels, longest)
                except FrameError as error:
                    print(f"{each}: {error}", file=sys.stderr)
                    continue
            pictures.append(Picture(file, each, run is not None))
    if not pictures:
        raise InputError("no pictures to train on")
    return pictures


def _masks(view: View, segmenter: Segmenter) -> LabelMap:
    masks = segmenter.segment(view)
    return paint(masks.stack)


def _write(file: Path, image: Image, labels: LabelMap, longest: int) -> None:
    height, width = labels.shape
    scale = min(1.0, longest / max(height, width))
    size = round(width * scale), round(height * scale)
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    ids = cv2.resize(labels.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
    with atomic(file) as part, part.open("wb") as stream:
        np.savez_compressed(stream, image=small, labels=ids.astype(np.int32))


@lru_cache(maxsize=1024)
def _loaded(file: Path) -> tuple[Any, Any]:
    with np.load(file) as stored:
        return stored["image"], stored["labels"]


def described(pictures: Sequence[Picture]) -> str:
    """How many pictures are from where, as JSON."""
    count: dict[str, int] = {}
    for each in pictures:
        count[each.scene] = count.get(each.scene, 0) + 1
    return json.dumps(count)
