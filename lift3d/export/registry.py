"""Every format by its name, in the order of the help."""

from __future__ import annotations

from lift3d.export import (
    colmap,
    gaussian_grouping,
    glb,
    nerfstudio,
    npz,
    objectgs,
    ply,
    pointcept,
    rerun,
    scannet,
    scannetpp,
    splat,
)
from lift3d.export.content import Format
from lift3d.scene.registry import KINDS

FORMATS = KINDS["export"].built_in(
    {
        module.FORMAT.name: module.FORMAT
        for module in (
            *(ply, nerfstudio, colmap, splat, gaussian_grouping, objectgs),
            *(pointcept, scannet, scannetpp, npz, glb, rerun),
        )
    },
    Format,
)
