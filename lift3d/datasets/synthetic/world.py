"""A world of objects: meshes with a material each, as flat arrays for the ray caster."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float32, Int32

from lift3d.datasets.synthetic.shapes import Mesh, Number
from lift3d.scene import Transform

STRUCTURE = ("wall", "floor", "ceiling")
"""Semantic classes 1 to 3, which evaluation ignores."""
CATEGORIES = (
    *STRUCTURE,
    *("table", "chair", "shelf", "book", "lamp", "sofa", "pillow", "box", "picture", "rug"),
    *("monitor", "plant", "bed", "desk", "cabinet", "vase", "bin", "door", "keyboard", "mug"),
    *("worktop", "sink", "oven", "fridge", "bottle", "bowl", "cloth", "bag", "clothes"),
    *("curtain", "cable", "radiator", "window", "tray", "armchair"),
)
"""Semantic class i + 1 is CATEGORIES[i]."""

PLAIN, CHECKER, STRIPES, CLOUDS, GRADIENT, GRAIN, SPECKLE, STAINS, PRINT = range(9)

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Material:
    """Two colours (0 to 1) mixed by a pattern over the surface."""

    colour: Colour
    second: Colour = (0.5, 0.5, 0.5)
    pattern: int = PLAIN
    size: Number = 0.1
    """Metres of one checker, stripe or cloud; the length of a gradient."""
    shine: Number = 0.0
    """How often a depth sensor measures nothing, 0 to 1."""


def place(x: Number, y: Number, z: Number = 0.0, turn: Number = 0.0) -> Transform:
    """world_from_object of an object at x, y, z, rotated about z by `turn` radians."""
    cos, sin = np.cos(turn), np.sin(turn)
    return np.array([[cos, -sin, 0, x], [sin, cos, 0, y], [0, 0, 1, z], [0, 0, 0, 1]], np.float64)


def tilt(angle: Number) -> Transform:
    """A rotation about x by `angle` radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0, 0], [0, cos, -sin, 0], [0, sin, cos, 0], [0, 0, 0, 1]], np.float64)


@dataclass(frozen=True, eq=False)
class World:
    """All objects as flat arrays; a piece is one mesh of one material."""

    vertices: Float32[np.ndarray, "vertices 3"]
    triangles: Int32[np.ndarray, "triangles 3"]
    piece: Int32[np.ndarray, " triangles"]
    instance: Int32[np.ndarray, " pieces"]
    """Object id of each piece, from 1."""
    semantic: Int32[np.ndarray, " pieces"]
    piece_from_world: Float32[np.ndarray, "pieces 3 4"]
    colours: Float32[np.ndarray, "pieces 2 3"]
    pattern: Int32[np.ndarray, " pieces"]
    size: Float32[np.ndarray, " pieces"]
    shine: Float32[np.ndarray, " pieces"]

    @property
    def objects(self) -> dict[int, str]:
        """Category of every instance id."""
        pairs = zip(self.instance.tolist(), self.semantic.tolist(), strict=True)
        return {number: CATEGORIES[semantic - 1] for number, semantic in pairs}


@dataclass
class SceneObject:
    """One object under construction; all its pieces have its id."""

    number: int
    semantic: int
    world_from_object: Transform
    builder: Builder

    def add(self, mesh: Mesh, material: Material, at: Transform | None = None) -> None:
        """Add a piece, `at` in the object's frame (or at its origin)."""
        world_from_piece = self.world_from_object if at is None else self.world_from_object @ at
        self.builder.pieces.append((self, mesh, material, world_from_piece))


@dataclass
class Builder:
    """Collects objects and converts them to arrays."""

    rng: np.random.Generator
    pieces: list[tuple[SceneObject, Mesh, Material, Transform]] = field(default_factory=list)
    count: int = 0

    def add_object(self, category: str, world_from_object: Transform) -> SceneObject:
        """A new object with the next id."""
        self.count += 1
        return SceneObject(self.count, CATEGORIES.index(category) + 1, world_from_object, self)

    def world(self) -> World:
        """All pieces as arrays."""
        vertices, triangles, piece, frames = [], [], [], []
        start = 0
        for index, (_, mesh, _, world_from_piece) in enumerate(self.pieces):
            vertices.append(mesh.vertices @ world_from_piece[:3, :3].T + world_from_piece[:3, 3])
            triangles.append(mesh.triangles + start)
            piece.append(np.full(len(mesh.triangles), index))
            frames.append(np.linalg.inv(world_from_piece)[:3])
            start += len(mesh.vertices)
        materials = [material for _, _, material, _ in self.pieces]
        return World(
            np.concatenate(vertices).astype(np.float32),
            np.concatenate(triangles).astype(np.int32),
            np.concatenate(piece).astype(np.int32),
            np.array([each.number for each, *_ in self.pieces], np.int32),
            np.array([each.semantic for each, *_ in self.pieces], np.int32),
            np.stack(frames).astype(np.float32),
            np.array([(m.colour, m.second) for m in materials], np.float32),
            np.array([m.pattern for m in materials], np.int32),
            np.array([m.size for m in materials], np.float32),
            np.array([m.shine for m in materials], np.float32),
        )
