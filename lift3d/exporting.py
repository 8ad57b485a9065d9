"""A run in other programs' formats."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from lift3d.errors import InputError, did_you_mean
from lift3d.export.ply import read_cloud, write_cloud
from lift3d.runs import RUN, read_json
from lift3d.scene import LabelledPoints


def export(folder: Path, formats: Sequence[str], out: Path | None = None) -> list[Path]:
    """Write the run into `out` (by default `export` in its folder); the files."""
    for name in formats:
        if name not in EXPORTERS:
            raise InputError(did_you_mean(name, EXPORTERS, "format"))
    read_json(folder, RUN)  # a finished run
    cloud = read_cloud(folder / "cloud.ply")
    out = folder / "export" if out is None else out
    return [path for name in formats for path in EXPORTERS[name](cloud, out)]


def _ply(cloud: LabelledPoints, out: Path) -> Iterator[Path]:
    """The whole cloud, and each object on its own."""
    yield _written(out / "cloud.ply", cloud)
    order = np.argsort(cloud.instance, kind="stable")
    ids, starts = np.unique(cloud.instance[order], return_index=True)
    for each, index in zip(ids.tolist(), np.split(order, starts[1:]), strict=True):
        if each > 0:
            one = LabelledPoints(
                cloud.points.take(index), cloud.instance[index], cloud.score[index]
            )
            yield _written(out / "objects" / f"{each:04d}.ply", one)


def _written(path: Path, cloud: LabelledPoints) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_cloud(path, cloud)
    return path


EXPORTERS: dict[str, Callable[[LabelledPoints, Path], Iterator[Path]]] = {"ply": _ply}
"""Format name -> writer."""
