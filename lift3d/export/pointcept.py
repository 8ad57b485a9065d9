"""Export for Pointcept: one folder of arrays per scene, for its `DefaultDataset`.

`train/SCENE/`: `coord` float32 in the run's world and unit, `color` uint8 0 to 255, `normal`
float32, `segment` and `instance` int32, -1 = ignored (unlabelled in the run; other ids are
unchanged). There are no cameras. `data_root` is the export's folder, `split` is `train`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lift3d.export.colmap import write_npy
from lift3d.export.content import Content, Format, Tick


def write(content: Content, folder: Path, tick: Tick) -> list[str]:
    """Write the arrays."""
    cloud, home = content.cloud, folder / "train" / content.name
    instance = np.where(cloud.instance > 0, cloud.instance, -1).astype(np.int32)
    # In Pointcept, 0 is a valid class; in the run, 0 is no class.
    known = cloud.semantic
    segment = np.full_like(instance, -1) if known is None else np.where(known > 0, known, -1)
    arrays = {
        "coord": cloud.points.xyz,
        "color": cloud.points.rgb,
        "normal": cloud.points.normal,
        "segment": segment.astype(np.int32),
        "instance": instance,
    }
    for number, (name, values) in enumerate(arrays.items(), start=1):
        write_npy(home / f"{name}.npy", values)
        tick(number, len(arrays))
    return ["pointcept: the run has no classes, segment is -1 everywhere"] if known is None else []


FORMAT = Format(
    name="pointcept",
    about="train/SCENE/*.npy for its DefaultDataset",
    files="`train/SCENE/{coord,color,normal,segment,instance}.npy`",
    frames="the run's world",
    first_pixel="no cameras",
    limits="−1 = unlabelled; classes only where the run has them",
    read_by="Pointcept's `DefaultDataset`",
    write=write,
)
