"""The local origin of a georeferenced scene, beside files that can only hold float32."""

from __future__ import annotations

import json
from pathlib import Path

from lift3d.scene import Offset
from lift3d.scene.storage import atomic

FILE = "offset.json"
ABOUT = "world coordinates = coordinates of these files (before any turn of axes) + offset"


def write_offset(folder: Path, offset: Offset) -> str:
    """Write `offset.json`; returns a note about it."""
    with atomic(folder / FILE) as part:
        part.write_text(json.dumps({"offset": list(offset), "about": ABOUT}, indent=1))
    x, y, z = (f"{each:.12g}" for each in offset)
    return f"relative to the local origin {x}, {y}, {z}, see {FILE}"
