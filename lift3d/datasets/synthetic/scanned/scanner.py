"""How a room is scanned: sensor, camera, drift, and where colours come from; drawn by seed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lift3d.datasets.synthetic.scanned.picture import ColourCamera
from lift3d.datasets.synthetic.scanned.sensor import DepthSensor


@dataclass(frozen=True)
class Scanner:
    """The conditions of one scan."""

    depth: DepthSensor
    colour: ColourCamera
    drift: float
    """Largest error of a position, metres."""
    voxel: float | None
    """Voxels in metres of the mesh from whose colours pictures are rendered; None for photos."""


def scanner(rng: np.random.Generator) -> Scanner:
    """A random scanner."""
    light = bool(rng.random() < 0.5)
    return Scanner(
        DepthSensor(
            structured_light=light,
            noise=rng.uniform(0.3, 1.5),
            warp=rng.uniform(0, 0.012),
            rounding=rng.uniform(0, 0.5),
            dark=rng.uniform(0.0, 0.02) if light else rng.uniform(0.01, 0.06),
            grazing=rng.uniform(0.05, 0.25),
            far=rng.uniform(3.5, 6.0),
            seed=int(rng.integers(1 << 30)),
        ),
        ColourCamera(
            bright=rng.uniform(0.8, 1.8),
            exposure=rng.uniform(0, 0.35),
            balance=rng.uniform(0, 0.1),
            open=rng.uniform(0, 0.15),
            longest=rng.uniform(0, 0.02),
            soft=rng.uniform(0.4, 1.0),
            grain=rng.uniform(0.004, 0.02),
            vignette=rng.uniform(0, 0.35),
            quality=int(rng.integers(60, 96)),
        ),
        drift=rng.uniform(0.01, 0.02),
        voxel=rng.uniform(0.01, 0.04) if rng.random() < 0.45 else None,
    )
