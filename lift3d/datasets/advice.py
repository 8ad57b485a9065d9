"""What to do about an input that no reader knows: near paths, scans inside, commands to run."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from lift3d.datasets import video
from lift3d.datasets.photos import UNREAD
from lift3d.datasets.rgbd_folder import OPTIONS

LEVELS = 2
"""Folders this deep below the given one are searched for a scan."""
MOST = 100
"""Most folders that are searched."""
ARCHIVES = {
    ".zip": "unzip {file} -d {folder}",
    ".r3d": "unzip {file} -d {folder}",
    ".tar": "mkdir -p {folder} && tar -xf {file} -C {folder}",
    ".tar.gz": "mkdir -p {folder} && tar -xf {file} -C {folder}",
    ".tgz": "mkdir -p {folder} && tar -xf {file} -C {folder}",
    ".7z": "7z x {file} -o{folder}",
}
"""How to unpack; Record3D's .r3d is a ZIP file."""
RECORDINGS = (".bag", ".mkv")
"""Recordings of a RealSense and of an Azure Kinect, which Open3D unpacks."""
COLOR, DEPTH = ("color", "colour", "rgb", "image", "images"), ("depth", "depths", "depth_images")
"""Usual names of folders."""
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
        level = [each for folder in level for each in _folders(folder)][:left]
        left -= len(level)
        yield from level


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            found = [each.name for each in entries if each.is_dir()]
    except OSError:
        return []
    return [path / name for name in sorted(found) if not name.startswith(".")]


def convert(path: Path) -> str:
    """The commands that make a scan of a file or folder that holds none; empty where unknown."""
    if path.is_dir():
        return _convert_folder(path)
    suffix, packed = path.suffix.lower(), _archive(path)
    folder = path.with_name(path.name[: -len(packed or suffix)] or "scan")
    lift = f"lift3d lift {_word(folder)} --out OUT"
    if packed:
        unpack = ARCHIVES[packed].format(file=_word(path), folder=_word(folder))
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


def _convert_folder(path: Path) -> str:
    entries = sorted(path.iterdir())
    packed = [each for each in entries if _archive(each) or each.suffix.lower() == ".bag"]
    if packed:
        return convert(packed[0])
    videos = [each for each in entries if each.suffix.lower() in video.SUFFIXES]
    if videos:
        return f"To lift the video in it: lift3d lift {_word(videos[0])} --out OUT"
    raw = [each for each in entries if each.suffix.lower() in UNREAD]
    if raw:
        suffix = raw[0].suffix
        return (
            f"{suffix} pictures are not read; convert them, for example with ImageMagick:\n"
            f"  magick mogrify -format jpg {_word(path)}/*{suffix}\n"
            f"  lift3d lift {_word(path)} --out OUT"
        )
    named = {each.name.lower(): each for each in entries if each.is_dir()}
    color = next((named[name] for name in COLOR if name in named), None)
    depth = next((named[name] for name in DEPTH if name in named), None)
    if color is not None and depth is not None:
        return (
            f"It has {color.name}/ and {depth.name}/, but no poses and intrinsics that are known: "
            f"name their files in {path / OPTIONS}; or lift the pictures alone, without depth:\n"
            f"  lift3d lift {_word(color)} --out OUT"
        )
    return ""


def _archive(path: Path) -> str:
    """The suffix of an archive; empty for another file."""
    return next((suffix for suffix in ARCHIVES if path.name.lower().endswith(suffix)), "")


def _word(path: Path) -> str:
    return shlex.quote(str(path))
