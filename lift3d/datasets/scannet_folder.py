"""Reader for ScanNet scans exported to folders, in the common variants."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from lift3d.datasets.frames import complete, extrinsic, finish, first_size, posed
from lift3d.datasets.images import DepthCode, read_color, read_depth
from lift3d.datasets.intrinsics import fit, pinhole, read_intrinsics
from lift3d.datasets.patterns import Files, any_match, collect, contents
from lift3d.datasets.poses import numbers, read_matrix
from lift3d.datasets.rgbd_poses import read_files
from lift3d.datasets.scannet_surface import STRUCTURE, surface_loader
from lift3d.scene import Camera, Scene, Transform, View
from lift3d.scene.errors import InputError
from lift3d.scene.guarded import load_text
from lift3d.scene.protocols import Reader

EXPORTED = ("color/*", "depth/*", "pose/*.txt")
POSED_IMAGES = ("*.jpg", "*.png", "*.txt")

COLOR_K = (
    "intrinsic/intrinsic_color.txt",
    "intrinsic_color.txt",
    "intrinsics_color.txt",
    "intrinsic.txt",
    "intrinsics.txt",
    "intrinsic/intrinsic.txt",
)
DEPTH_K = ("intrinsic/intrinsic_depth.txt", "intrinsic_depth.txt", "intrinsics_depth.txt")


@dataclass(frozen=True)
class ScanNetFolder(Reader):
    """A ScanNet scan as images: color/ depth/ pose/ intrinsic/, or posed_images/<scene>."""

    expects: ClassVar[str] = (
        "color/*.jpg, depth/*.png, pose/*.txt and intrinsic/intrinsic_color.txt, or "
        "N.jpg, N.png, N.txt and intrinsic.txt in one folder"
    )

    depth_scale: float = 1000.0
    """Stored depth units per metre."""
    depth_max: float | None = None
    """Depth beyond this many metres is treated as missing."""

    def matches(self, path: Path) -> bool:
        """Whether the folder has one of the two layouts, with intrinsics."""
        known = [*COLOR_K, f"{path.name}.txt"]
        return _layout(path) is not None and any((path / name).is_file() for name in known)

    def read(self, path: Path) -> Scene:
        """The scene; InputError where files are missing for most of the frames."""
        layout = _layout(path)
        if layout is None:
            raise InputError(f"{path}: expected {self.expects}; found: {contents(path)}")
        images, depth, pose_files = (collect(path, pattern) for pattern in layout)
        keys, skipped = complete(
            path, (layout[0], images), (layout[1], depth), (layout[2], pose_files)
        )
        stored, unreadable = read_files(pose_files, {key: images[key] for key in keys})
        poses, unusable = posed(stored, {key: images[key].name for key in stored})
        skipped += unreadable + unusable
        rig = _rig(path, images, depth)
        code = DepthCode(self.depth_scale, max_metres=self.depth_max)
        views = []
        for key, world_from_rig in poses.items():
            # As in the .sens file: poses are world_from_rig, extrinsics are rig_from_camera.
            views.append(
                View(
                    name=images[key].name,
                    camera=rig.color.at(world_from_rig @ rig.rig_from_color),
                    load_image=partial(read_color, images[key].path),
                    load_depth=partial(read_depth, depth[key].path, code),
                    depth_camera=rig.depth and rig.depth.at(world_from_rig @ rig.rig_from_depth),
                )
            )
        scene = finish(path, views, skipped, f"reader scannet-folder at {path}", rig.notes)
        surface = surface_loader(path, scene.name, scene.offset)
        return dataclasses.replace(scene, load_surface=surface, void_classes=STRUCTURE)


@dataclass(frozen=True, eq=False)
class _Rig:
    """The two cameras of the rig; no depth camera where depth is registered to colour."""

    color: Camera
    depth: Camera | None
    rig_from_color: Transform
    rig_from_depth: Transform
    notes: tuple[str | None, ...]


def _layout(path: Path) -> tuple[str, str, str] | None:
    """Patterns of colour, depth and pose; None for another layout."""
    if all(any_match(path, pattern) for pattern in EXPORTED[:1] + EXPORTED[2:]):
        return EXPORTED
    posed = (collect(path, POSED_IMAGES[0]) and collect(path, POSED_IMAGES[2])) or {}
    return POSED_IMAGES if any(key.isdecimal() for key in posed) else None


def _rig(path: Path, images: Files, depth: Files) -> _Rig:
    color_size = first_size(found.path for found in images.values())
    depth_size = first_size(found.path for found in depth.values())
    facts = _facts(path / f"{path.resolve().name}.txt")
    color_K = _first_K(path, COLOR_K, facts, "color")
    depth_K = _first_K(path, DEPTH_K, facts, "depth")
    if color_K is None:
        raise InputError(
            f"{path} has no colour intrinsics; expected one of {', '.join(COLOR_K)} (fx fy cx cy, "
            "or the 4x4 matrix of ScanNet's exporter)"
        )
    color, color_note = fit(color_K, None, color_size, "colour")
    rig_from_color, ignored_color = _extrinsic(path, "color")
    if depth_K is not None:
        depth_camera, depth_note = fit(depth_K, None, depth_size, "depth")
        rig_from_depth, ignored_depth = _extrinsic(path, "depth")
        notes = (color_note, depth_note, ignored_color, ignored_depth)
        same = color_size == depth_size and np.allclose(color.K, depth_camera.K)
        if same and np.allclose(rig_from_color, rig_from_depth):
            return _Rig(color, None, rig_from_color, rig_from_depth, notes)
        return _Rig(color, depth_camera, rig_from_color, rig_from_depth, notes)
    if color_size == depth_size:
        return _Rig(color, None, rig_from_color, rig_from_color, (color_note, ignored_color))
    assumed = "no depth intrinsics: depth is taken as registered to colour at its own size"
    resized = color.resized(*depth_size)
    return _Rig(
        color, resized, rig_from_color, rig_from_color, (color_note, ignored_color, assumed)
    )


def _first_K(
    path: Path, names: tuple[str, ...], facts: dict[str, float], camera: str
) -> np.ndarray | None:
    """K from the first of the files that exists, else from the scan's `<scene>.txt`."""
    for name in names:
        if (path / name).is_file():
            return read_intrinsics(path, name)[0]
    keys = [f"{part}_{camera}" for part in ("fx", "fy", "mx", "my")]
    if all(key in facts for key in keys):
        return pinhole(tuple(facts[key] for key in keys), f"{path.name}.txt")
    return None


def _facts(path: Path) -> dict[str, float]:
    """The values of `<scene>.txt`, with lines `fx_color = 1169.6`; empty without the file."""
    if not path.is_file():
        return {}
    facts = {}
    for line in load_text(path).splitlines():
        key, _, value = line.partition("=")
        words = value.split()
        if len(words) == 1:
            try:
                facts[key.strip()] = float(numbers(words[0], str(path))[0])
            except InputError:  # sceneType = Apartment
                continue
    return facts


def _extrinsic(path: Path, camera: str) -> tuple[Transform, str | None]:
    for name in (f"intrinsic/extrinsic_{camera}.txt", f"extrinsic_{camera}.txt"):
        if (path / name).is_file():
            return extrinsic(read_matrix(path / name), camera)
    return extrinsic(None, camera)
