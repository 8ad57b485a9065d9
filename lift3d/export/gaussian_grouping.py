"""Export for Gaussian Grouping: `images/`, `object_mask/`, `sparse/0/`, for its `train.py -s`.

Poses and pixels are as in a COLMAP project (camera-from-world, OpenCV axes, first pixel centre at
0.5). Its reader supports only PINHOLE cameras and ignores the principal point, which must be the
middle of the picture; --undistort moves it there. Masks are 8-bit, 0 = no object.
"""

from __future__ import annotations

from pathlib import Path

from lift3d.export.content import Content, Format, Tick, small_ids
from lift3d.export.frames import Limits, check_frames
from lift3d.export.object_masks import WIDEST, write_masks

LIMITS = Limits("gaussian-grouping", coefficients=0, centred=True, widest=WIDEST)


def write(content: Content, folder: Path, tick: Tick) -> list[str]:
    """Write the training folder."""
    return write_masks(content, folder, LIMITS, tick)[1]


def check(content: Content) -> None:
    """Check cameras and ids."""
    check_frames(content, LIMITS)
    small_ids(content, LIMITS.where)


FORMAT = Format(
    name="gaussian-grouping",
    about="COLMAP project with object_mask/, 8-bit",
    files="`images/`, `object_mask/`, `sparse/0/`, `ids.json`",
    frames="as `colmap`",
    first_pixel="0.5, 0.5, and the principal point is the middle",
    limits="255 objects; undistorted; principal point in the middle; 1600 pixels wide",
    read_by="Gaussian Grouping's `train.py -s`",
    write=write,
    check=check,
    pictures=True,
)
