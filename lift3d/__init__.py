"""lift3d: pictures of a static scene to a point cloud whose points carry object labels."""

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {"register": "lift3d.scene.registry"}
"""Public names and where they are; imported when asked for, so that the command starts at once."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
