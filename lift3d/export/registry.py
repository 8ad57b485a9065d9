"""All formats by name, in the order of the help."""

from __future__ import annotations

from lift3d.export import (
    colmap,
    corrections,
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
from lift3d.scene.errors import InputError
from lift3d.scene.registry import KINDS

FORMATS = KINDS["export"].built_in(
    {
        module.FORMAT.name: module.FORMAT
        for module in (
            *(ply, nerfstudio, colmap, splat, gaussian_grouping, objectgs),
            *(pointcept, scannet, scannetpp, npz, glb, rerun, corrections),
        )
    },
    Format,
)


def help_text() -> str:
    """One line per format, for `lift3d export --help`; the error of a broken plug-in."""
    lines = []
    for name in FORMATS:
        try:
            lines.append(f"{name}: {FORMATS[name].about}")
        except InputError as error:
            lines.append(str(error))
    return "\n".join(lines)


def table() -> str:
    """The built-in formats as the Markdown table of docs/exports.md."""
    head = ("Format", "What is written", "Frames", "First pixel centre", "Limits", "Read by")
    rows = [head, ("---",) * len(head)]
    for name in FORMATS.own:
        each = FORMATS[name]
        limits = each.limits or "—"
        rows.append((f"`{name}`", each.files, each.frames, each.first_pixel, limits, each.read_by))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
