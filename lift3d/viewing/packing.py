"""The cloud as the page gets it: chunks of arrays, 13 bytes a point.

Points are sent in one random order with a fixed seed, so any first part is an even sample of the
cloud: the page shows the first chunk at once and draws fewer points while something moves.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float32, Int8, Int32, Int64

from lift3d.geometry.visibility import cloud_spacing
from lift3d.scene import Points

CHUNK = 1 << 18
"""Points in a chunk."""
MOST = 8_000_000
"""Points that a browser gets at most; a larger cloud is thinned to as many."""
SMOOTH, MEAN = 6.0, 4.0
"""Side of the cubes in distances of neighbouring points, and the weight of their mean normal.
Chosen by hand: the near walls of the demo vanish wholly instead of leaving single points."""
NO_NORMAL = -128
"""Both bytes of a normal that is not known."""


@dataclass(frozen=True, eq=False)
class Packed:
    """A cloud in the order and the units in which it is sent."""

    order: Int64[np.ndarray, " sent"]
    """Index in the cloud of each point sent."""
    low: Float32[np.ndarray, "3"]
    """Corner of the box: position = low + step * whole number, or the position itself."""
    step: Float32[np.ndarray, "3"] | None
    """Size of a step along each axis; None where positions are sent as float32."""
    points: Points
    normal: Float32[np.ndarray, "points 3"]
    """Normals of all points, smoothed: by them the page leaves out what faces away."""
    _fixed: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return -(-len(self.order) // CHUNK)

    def chunk(self, number: int, instance: Int32[np.ndarray, " points"], wide: bool) -> bytes:
        """Positions, labels, colours, normals of one chunk, one array after the other.

        `instance` has the label of each point of the whole cloud; labels have 32 bits where they
        are `wide` and 16 otherwise. Raises IndexError where there is no such chunk.
        """
        index = self._index(number)
        xyz, rest = self.fixed(number)
        label = np.maximum(instance[index], 0).astype(np.uint32 if wide else np.uint16)
        return b"".join((xyz, label.tobytes(), rest))

    def fixed(self, number: int) -> tuple[bytes, bytes]:
        """What no edit changes of a chunk: positions; colours and normals. Made once."""
        if number not in self._fixed:
            index = self._index(number)
            xyz = self.points.xyz[index]
            if self.step is not None:
                xyz = np.rint((xyz - self.low) / self.step).clip(0, 65535).astype(np.uint16)
            normal = packed_normals(self.normal[index])
            rest = self.points.rgb[index].tobytes() + normal.tobytes()
            self._fixed[number] = xyz.tobytes(), rest
        return self._fixed[number]

    def _index(self, number: int) -> Int64[np.ndarray, " chunk"]:
        if not 0 <= number < self.chunks:
            raise IndexError(number)
        return self.order[number * CHUNK : (number + 1) * CHUNK]


def pack(points: Points, seed: int = 0) -> Packed:
    """Choose the order, and how exact positions have to be.

    16 bits a coordinate where a step is below half the distance of neighbouring points; 32
    otherwise, as with a few points far from the scene.
    """
    order = np.random.default_rng(seed).permutation(len(points))[:MOST]
    if not len(points):
        zero = np.zeros(3, np.float32)
        return Packed(order, zero, zero + 1, points, points.normal)
    low, high = points.xyz.min(0), points.xyz.max(0)
    step = np.maximum((high - low) / 65535, np.finfo(np.float32).tiny).astype(np.float32)
    between = cloud_spacing(points)
    fine = step.max() < 0.5 * between
    normal = smoothed_normals(points, SMOOTH * between)
    return Packed(order, low, step if fine else None, points, normal)


def smoothed_normals(points: Points, side: float) -> Float32[np.ndarray, "points 3"]:
    """Normals with most of the noise averaged out, over cubes of `side`.

    Normals that point to different sides, as those of a thin board do, are averaged apart.
    """
    own = points.normal
    if not len(points) or not side > 0:
        return own
    cell = np.floor((points.xyz - points.xyz.min(0)) / side).astype(np.int64)
    axis = np.abs(own).argmax(1)
    towards = 2 * axis + (np.take_along_axis(own, axis[:, None], 1)[:, 0] > 0)
    key = 6 * (cell @ np.array([1, 1 << 19, 1 << 38])) + towards
    group = np.unique(key, return_inverse=True)[1]
    summed = np.stack([np.bincount(group, own[:, each]) for each in range(3)], 1)
    mean = unit_vectors(summed)[group]
    return unit_vectors(own + MEAN * mean).astype(np.float32)


def unit_vectors(vectors: Float[np.ndarray, "points 3"]) -> Float[np.ndarray, "points 3"]:
    """Vectors of length 1; zeros stay."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def packed_normals(normal: Float32[np.ndarray, "points 3"]) -> Int8[np.ndarray, "points 2"]:
    """Unit vectors as two bytes: projected onto an octahedron that is unfolded (Meyer et al. 2010).

    >>> packed_normals(np.array([[0, 0, 1], [0, 0, 0]], np.float32)).tolist()
    [[0, 0], [-128, -128]]
    """
    length = np.abs(normal).sum(1)
    known = length > 0.5
    flat = normal / np.where(known, length, 1)[:, None]
    x, y = flat[:, 0], flat[:, 1]
    # The lower half is folded outwards over the edges of the upper one.
    folded_x = (1 - np.abs(y)) * np.where(x >= 0, 1, -1)
    folded_y = (1 - np.abs(x)) * np.where(y >= 0, 1, -1)
    below = flat[:, 2] < 0
    packed = np.stack([np.where(below, folded_x, x), np.where(below, folded_y, y)], 1)
    packed = np.rint(127 * packed).astype(np.int8)
    packed[~known] = NO_NORMAL
    return packed


def core_box(xyz: Float32[np.ndarray, "points 3"]) -> list[list[float]]:
    """The box of nearly all points: a few far away must not make the scene small."""
    if not len(xyz):
        return [[-1.0] * 3, [1.0] * 3]
    some = xyz[:: max(1, len(xyz) // 200_000)]
    low, few, most, high = np.percentile(some, [0.5, 10, 90, 99.5], axis=0)
    # Of the few points that a reconstruction from photos has, more than half a percent are wrong.
    reach = most - few
    return [np.maximum(low, few - reach).tolist(), np.minimum(high, most + reach).tolist()]
