"""A small room that tests correct, and what they do to it."""

from pathlib import Path

import numpy as np

from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.run.settings import LiftConfig
from lift3d.segmentation.simulated import SimulatedConfig

ROOT = Path(__file__).resolve().parents[1]
ROOM = SyntheticConfig(views=6, width=96, height=72)
PUBLIC = ("labels", "cloud.ply", "cloud_labels.ply", "instances.json", "consistency.json")


def config(folder, voxel=0.05):
    return LiftConfig(
        Path("synthetic:2"), folder, reader=ROOM, voxel=voxel, segmentation=SimulatedConfig()
    )


def by_size(edits):
    return sorted(edits.objects, key=lambda each: -each.points)


def ends(run, each):
    """The two places of an object that are furthest apart along x."""
    xyz = run.points.xyz[run.edits.points_of(each)]
    return xyz[[xyz[:, 0].argmin(), xyz[:, 0].argmax()]]


def content(folder):
    files = [path for name in PUBLIC for path in sorted(folder.glob(f"{name}*"))]
    files = [each for path in files for each in ([path] if path.is_file() else path.iterdir())]
    return {each.relative_to(folder).as_posix(): each.read_bytes() for each in files}


def several(run):
    """Edits of many kinds; returns how many."""
    edits = run.edits
    a, b, c, d, e, f = (each.id for each in by_size(edits)[:6])
    edits.merge([b, c])
    edits.split(a, ends(run, a))
    edits.name(b, "long wall")
    edits.delete([e])
    mask = np.zeros((72, 96), bool)
    mask[30:50, 40:64] = True
    edits.paint("0002", mask)
    edits.select(edits.points_of(d)[:40], f)
    edits.accept([f])
    return 7
