"""What to do about an input that no reader knows: near paths, scans inside, commands to run."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterator
from pathlib import Path

from lift3d.datasets import video

LEVELS = 2
"""Folders this deep below the given one are searched for a scan."""
MOST = 100
"""Most folders that are searched."""
ARCHIVES = {
    ".zip": "unzip {file} -d {folder}",
    ".r3d": "unzip {file} -d {folder}",
    ".tar": "mkdir -p {folder} && tar -xf {file} -C {folder}",
    ".gz": "mkdir -p {folder} && tar -xf {file} -C {folder}",
    ".tgz": "mkdir -p {folder} && tar -xf {file} -C {folder}",
    ".7z": "7z x {file} -o{folder}",
}
"""How to unpack; Record3D's .r3d is a ZIP file."""
RECORDINGS = (".bag",)
"""Recordings of a RealSense, which Open3D unpacks."""
SURFACES = (".ply", ".obj", ".glb", ".gltf", ".stl", ".las", ".laz", ".e57", ".pcd", ".xyz")


def near_path(path: Path) -> str:
    """A hint for a path that does not exist: the nearest name in the folder above it."""
    above, wrong = path, ""
    while not above.exists() and above != above.parent:
        above, wrong = above.parent, above.name
    if not wrong or not above.is_dir():
        return ""
    names = sorted(each.name for each in above.iterdir())
    lower = {name.lower(): name for name in names}
    near = difflib.get_close_matches(wrong.lower(), lower, n=1)
    return f"; did you mean {above / lower[near[0]]}?" if near else ""


def folders_inside(path: Path) -> Iterator[Path]:
    """Folders below `path`, the nearest first, at most `MOST`; hidden ones are left out."""
    level, left = [path], MOST
    for _ in range(LEVELS):
        try:
            inside = [each for folder in level for each in sorted(folder.iterdir())]
        except OSError:
            return
        level = [each for each in inside if each.is_dir() and not each.name.startswith(".")]
        level = level[:left]
        left -= len(level)
        yield from level


def convert(path: Path) -> str:
    """The commands that make a scan of a file or folder that holds none; empty where unknown."""
    if path.is_dir():
        inside = sorted(each for each in path.iterdir() if each.suffix.lower() in video.SUFFIXES)
        if not inside:
            return ""
        return f"To lift the video in it: lift3d lift {_word(inside[0])} --out OUT"
    suffix, folder = path.suffix.lower(), path.with_suffix("")
    lift = f"lift3d lift {_word(folder)} --out OUT"
    if suffix in ARCHIVES:
        unpack = ARCHIVES[suffix].format(file=_word(path), folder=_word(folder))
        return f"Unpack it first:\n  {unpack}\n  {lift}"
    if suffix in RECORDINGS:
        code = (
            f"import open3d as o3d; o3d.t.io.RGBDVideoReader.create({str(path)!r})"
            f".save_frames({str(folder)!r})"
        )
        return (
            f"Unpack the recording first, with Open3D:\n  python -c {shlex.quote(code)}\n  {lift}"
        )
    if suffix in SURFACES:
        return (
            "That is a surface without pictures. Lift the scan that it was made of, with it as the "
            f"points to label:\n  lift3d lift SCAN --out OUT --cloud {_word(path)}"
        )
    return ""


def _word(path: Path) -> str:
    return shlex.quote(str(path))
