"""ScanNet++'s benchmark of 3D instances: `SCENE.txt` and `predicted_masks/`.

A line of `SCENE.txt` is `predicted_masks/FILE label confidence`; the file is a run-length code of
the vertices of the mesh that is scored: `{"length": N, "counts": "start run start run"}`, starts
from 1. There are no coordinates in it and no cameras. Labels are the run's classes, 1 where it
has none.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from lift3d.export import predictions
from lift3d.export.content import Content, Format, Tick
from lift3d.export.frames import write_bytes


def write(content: Content, folder: Path, tick: Tick) -> list[str]:
    """The list and the masks."""
    lines = []
    for number, one in predictions.ticking(content, tick):
        path = f"predicted_masks/{content.name}_{number:03d}.json"
        write_bytes(folder / path, json.dumps(run_length(one.mask)).encode())
        lines.append(f"{path} {one.label} {one.confidence:.6f}")
    predictions.write_list(folder, content.name, lines)
    return predictions.notes(content, "scannetpp")


def run_length(mask: Bool[np.ndarray, " vertices"]) -> dict[str, Any]:
    """Starts (from 1) and lengths of the runs of ones.

    >>> run_length(np.array([True, False, False, True, True]))
    {'length': 5, 'counts': '1 1 4 2'}
    """
    padded = np.concatenate([[False], mask, [False]])
    edges = np.flatnonzero(padded[1:] != padded[:-1]) + 1
    edges[1::2] -= edges[::2]
    return {"length": len(mask), "counts": " ".join(map(str, edges.tolist()))}


FORMAT = Format(
    name="scannetpp",
    about="instance predictions as its benchmark reads them",
    holds="a run-length code per object over the scored mesh (--vertices); no cameras",
    write=write,
    check=lambda content: predictions.check(content, "scannetpp"),
)
