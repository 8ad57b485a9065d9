"""ScanNet's benchmark of 3D instances: `SCENE.txt` and `predicted_masks/`.

A line of `SCENE.txt` is `predicted_masks/FILE label confidence`; the file has a 0 or 1 for every
vertex of the mesh that is scored, in its order. There are no coordinates in it and no cameras.
Labels are the run's classes, 1 where it has none, which only class-agnostic scripts accept.
"""

from __future__ import annotations

from pathlib import Path

from lift3d.evaluation.metrics.submission import write_submission
from lift3d.export import predictions
from lift3d.export.content import Content, Format, Tick


def write(content: Content, folder: Path, tick: Tick) -> list[str]:
    """The list and the masks."""
    found = (one for _, one in predictions.ticking(content, tick))
    write_submission(folder, content.name, found, "scannet")
    return predictions.notes(content, "scannet")


FORMAT = Format(
    name="scannet",
    about="instance predictions as its benchmark reads them",
    files="`SCENE.txt`, `predicted_masks/`",
    frames="no coordinates",
    first_pixel="no cameras",
    limits="one entry per vertex of the scored mesh",
    read_by="ScanNet's instance script",
    write=write,
    check=lambda content: predictions.check(content, "scannet"),
)
