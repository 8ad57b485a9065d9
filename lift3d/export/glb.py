"""Export GLB (binary glTF 2.0): a point mesh per object, for viewers, Blender and trimesh.

Positions are float32 in the run's world and unit, which is taken as z up; the root node converts
them to glTF's y up (x, z, -y). There are no cameras, because glTF's have no principal point.
Colours are linear floats, as glTF requires (the cloud's are sRGB; 8-bit linear loses dark colours,
and trimesh misreads 16-bit). Each object is a node `object_0003` with its id in `extras.label`;
unlabelled points are the node `unlabelled`. `_LABEL` has the id of every point as a float, which
is exact up to 16 777 216.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from lift3d.export.content import Content, Format, Tick
from lift3d.export.frames import write_bytes
from lift3d.scene import LabelledPoints
from lift3d.scene.errors import InputError

EXACT = 2**24
"""float32 represents all integers up to this exactly."""
FLOAT = 5126
VERTICES = 34962
POINTS = 0
Y_UP = [1, 0, 0, 0, 0, 0, -1, 0, 0, 1, 0, 0, 0, 0, 0, 1]
"""Column-major matrix from (x, y, z) to (x, z, -y)."""


def write(content: Content, folder: Path, tick: Tick) -> list[str]:
    """Write `cloud.glb`."""
    write_bytes(folder / "cloud.glb", glb(content.cloud, content.name))
    tick(1, 1)
    return []


def glb(cloud: LabelledPoints, name: str) -> bytes:
    """The content of the file."""
    order = np.argsort(cloud.instance, kind="stable")
    ids, starts = np.unique(cloud.instance[order], return_index=True)
    binary = _Binary()
    meshes, nodes = [], []
    for each, index in zip(ids.tolist(), np.split(order, starts[1:]), strict=True):
        title = f"object_{each:04d}" if each > 0 else "unlabelled"
        meshes.append({"name": title, "primitives": [_points(binary, cloud, index)]})
        nodes.append({"name": title, "mesh": len(meshes) - 1, "extras": {"label": each}})
    root = {"name": name, "matrix": Y_UP, "children": list(range(len(nodes)))}
    content = {
        "asset": {"version": "2.0", "generator": "lift3d"},
        "scene": 0,
        "scenes": [{"nodes": [len(nodes)]}],
        "nodes": [*nodes, root],
        "meshes": meshes,
        "materials": [
            {
                "extensions": {"KHR_materials_unlit": {}},
                "pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 1},
            }
        ],
        "extensionsUsed": ["KHR_materials_unlit"],
        "accessors": binary.accessors,
        "bufferViews": binary.views,
        "buffers": [{"byteLength": len(binary.data)}],
    }
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    size = 12 + 8 + len(text) + 8 + len(binary.data)
    return b"".join(
        [
            struct.pack("<4sII", b"glTF", 2, size),
            struct.pack("<I4s", len(text), b"JSON") + text,
            struct.pack("<I4s", len(binary.data), b"BIN\0") + binary.data,
        ]
    )


class _Binary:
    """The binary buffer with its buffer views and accessors."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, values: np.ndarray, kind: str, component: int, **more: Any) -> int:
        """Append an array; returns the index of its accessor."""
        data = np.ascontiguousarray(values).tobytes()
        self.views.append(
            {
                "buffer": 0,
                "byteOffset": len(self.data),
                "byteLength": len(data),
                "target": VERTICES,
            }
        )
        self.data += data + b"\0" * (-len(data) % 4)
        view = len(self.views) - 1
        self.accessors.append(
            {"bufferView": view, "componentType": component, "count": len(values), "type": kind}
            | more
        )
        return len(self.accessors) - 1


def _points(binary: _Binary, cloud: LabelledPoints, index: np.ndarray) -> dict[str, Any]:
    points = cloud.points.take(index)
    xyz = points.xyz
    low, high = xyz.min(0).tolist(), xyz.max(0).tolist()
    attributes = {
        "POSITION": binary.add(xyz, "VEC3", FLOAT, min=low, max=high),
        "COLOR_0": binary.add(linear(points.rgb), "VEC4", FLOAT),
        "_LABEL": binary.add(cloud.instance[index].astype(np.float32), "SCALAR", FLOAT),
    }
    length = np.linalg.norm(points.normal, axis=1)
    if (length > 0.5).all():  # glTF cannot mark unknown normals
        unit = (points.normal / length[:, None]).astype(np.float32)
        attributes["NORMAL"] = binary.add(unit, "VEC3", FLOAT)
    return {"attributes": attributes, "mode": POINTS, "material": 0}


def linear(rgb: UInt8[np.ndarray, "points 3"]) -> Float32[np.ndarray, "points 4"]:
    """Convert sRGB bytes to linear RGBA, 0 to 1, opaque."""
    value = rgb / 255
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return np.hstack([light, np.ones((len(rgb), 1))]).astype(np.float32)


def check(content: Content) -> None:
    """Check that labels are exact as floats and that the cloud has points."""
    ids = content.ids
    if ids and ids[-1] > EXACT:
        raise InputError(
            f"glb: id {ids[-1]} is above {EXACT}, which a float32 attribute cannot hold exactly; "
            "renumber the objects, or export to ply"
        )
    if not len(content.cloud):
        raise InputError("glb: the cloud has no points; glTF has no empty mesh")


FORMAT = Format(
    name="glb",
    about="glTF 2.0 points, a node per object",
    files="`cloud.glb`, a node per object, ids in `extras.label` and `_LABEL`",
    frames="the run's world, taken as z up, under a root node that makes y up",
    first_pixel="no cameras",
    limits="ids to 16 777 216",
    read_by="trimesh, Blender, web viewers",
    write=write,
    check=check,
)
