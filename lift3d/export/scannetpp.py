"""Export for ScanNet++'s 3D instance benchmark: `SCENE.txt` and `predicted_masks/`.

A line of `SCENE.txt` is `predicted_masks/FILE label confidence`; the file is a run-length code of
the vertices of the scored mesh: `{"length": N, "counts": "start run start run"}`, with starts
from 1. There are no coordinates and no cameras. Labels are the run's classes, or 1 without a
class.
"""

from __future__ import annotations

from pathlib import Path

from lift3d.evaluation.metrics.submission import write_submission
from lift3d.export import predictions
from lift3d.export.content import Content, Format, Tick


def write(content: Content, folder: Path, tick: Tick) -> list[str]:
    """Write the list and the masks."""
    found = (prediction for _, prediction in predictions.ticking(content, tick))
    write_submission(folder, content.name, found, "scannetpp")
    return predictions.notes(content, "scannetpp")


FORMAT = Format(
    name="scannetpp",
    about="instance predictions as its benchmark reads them",
    files="`SCENE.txt`, `predicted_masks/` (run lengths)",
    frames="no coordinates",
    first_pixel="no cameras",
    limits="the same",
    read_by="ScanNet++'s toolkit",
    write=write,
    coordinates="none",
    check=lambda content: predictions.check(content, "scannetpp"),
)
