"""lift3d: pictures of a static scene to a point cloud whose points carry object labels.

    import lift3d as l3

    run = l3.lift("scans/kitchen", "out/kitchen")
    run.cloud.instance  # the object of each point

docs/python.md teaches the rest. Names are imported when they are first used, so that
`import lift3d` is instant and changes nothing in the process.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lift3d.association import Association, AssociationConfig
    from lift3d.evaluation.truth import read_truth
    from lift3d.export.instances import Object
    from lift3d.export.ply import read_cloud, write_cloud
    from lift3d.run.api import (
        associate,
        backend,
        consistency,
        evaluate,
        fuse,
        lift,
        open_scene,
        segment,
    )
    from lift3d.run.run import Run
    from lift3d.run.why import Why
    from lift3d.scene import (
        Camera,
        LabelledPoints,
        Masks,
        Matches,
        Points,
        Prompt,
        Scene,
        View,
    )
    from lift3d.scene.errors import FrameError, InputError, MissingExtra
    from lift3d.scene.labelmaps import LabelMaps, read_label_map, write_label_map
    from lift3d.scene.registry import register
    from lift3d.viewing.window import view_run as view

__version__ = "0.1.0"

_PUBLIC = {
    "lift3d.run.api": (
        *("open_scene", "lift", "backend", "fuse", "segment", "associate", "consistency"),
        "evaluate",
    ),
    "lift3d.run.run": ("Run",),
    "lift3d.export.instances": ("Object",),
    "lift3d.run.why": ("Why",),
    "lift3d.scene": (
        *("Scene", "View", "Camera", "Points", "LabelledPoints", "Masks", "Matches", "Prompt"),
    ),
    "lift3d.association": ("Association", "AssociationConfig"),
    "lift3d.scene.labelmaps": ("LabelMaps", "read_label_map", "write_label_map"),
    "lift3d.export.ply": ("read_cloud", "write_cloud"),
    "lift3d.evaluation.truth": ("read_truth",),
    "lift3d.viewing.window": ("view_run as view",),
    "lift3d.scene.registry": ("register",),
    "lift3d.scene.errors": ("InputError", "FrameError", "MissingExtra"),
}
"""Every public name by the module that has it."""

_MODULES = {
    each.split(" as ")[-1]: (module, each.split(" as ")[0])
    for module, names in _PUBLIC.items()
    for each in names
}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, own = _MODULES[name]
    return getattr(importlib.import_module(module), own)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
