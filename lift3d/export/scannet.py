"""ScanNet's benchmark of 3D instances: `SCENE.txt` and `pred_mask/`.

A line of `SCENE.txt` is `pred_mask/FILE label confidence`; the file has a 0 or 1 for every vertex
of the mesh that is scored, in its order. There are no coordinates in it and no cameras. Labels are
the run's classes, 1 where it has none, which only class-agnostic scripts accept.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lift3d.export import predictions
from lift3d.export.content import Content, Format, Tick
from lift3d.export.frames import write_bytes


def write(content: Content, folder: Path, tick: Tick) -> list[str]:
    """The list and the masks."""
    lines = []
    for number, one in predictions.ticking(content, tick):
        path = f"pred_mask/{content.name}_{number:03d}.txt"
        rows = np.full((len(one.mask), 2), ord("\n"), np.uint8)
        rows[:, 0] = ord("0") + one.mask
        write_bytes(folder / path, rows.tobytes())
        lines.append(f"{path} {one.label} {one.confidence:.6f}")
    predictions.write_list(folder, content.name, lines)
    return predictions.notes(content, "scannet")


FORMAT = Format(
    name="scannet",
    about="instance predictions as its benchmark reads them",
    holds="one 0 or 1 per vertex of the scored mesh (--vertices); no cameras",
    write=write,
    check=lambda content: predictions.check(content, "scannet"),
)
