"""Export for ScanNet's 3D instance benchmark: `SCENE.txt` and `predicted_masks/`.

A line of `SCENE.txt` is `predicted_masks/FILE label confidence`; the file has 0 or 1 for every
vertex of the scored mesh, in its order. There are no coordinates and no cameras. Labels are the
run's classes, or 1 without a class; 1 is only valid for class-agnostic evaluation.
"""

from __future__ import annotations

from pathlib import Path

from lift3d.evaluation.metrics.submission import write_submission
from lift3d.export import predictions
from lift3d.export.content import Content, Format, Tick


def write(content: Content, folder: Path, tick: Tick) -> list[str]:
    """Write the list and the masks."""
    found = (prediction for _, prediction in predictions.ticking(content, tick))
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
    coordinates="none",
    check=lambda content: predictions.check(content, "scannet"),
)
