"""Correspondences from depth and poses, checked for occlusion in both views."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from lift3d.geometry import project, transform
from lift3d.geometry.lens import inside, nearest, rays_at
from lift3d.geometry.scale import fitted
from lift3d.geometry.visibility import DepthTolerance
from lift3d.scene import Camera, Depth, Matches, Scene, View
from lift3d.scene.errors import InputError
from lift3d.scene.protocols import MatcherConfig


@dataclass(frozen=True)
class DepthMatcherConfig(MatcherConfig):
    """Reproject a grid of pixels into the other view by depth and poses."""

    stride: int = 4
    """Step of the grid in pixels of the depth image."""
    tolerance: DepthTolerance = field(default_factory=DepthTolerance)
    """Maximum difference of the two depth maps at a point."""
    edge: float = 0.05
    """A pixel whose depth differs from a neighbour's by more than this share is an edge."""
    edge_confidence: float = 0.25
    """Factor on a match's confidence at depth edges, where depth and colour are often shifted."""

    def for_scene(self, scene: Scene) -> DepthMatcherConfig:
        """The settings with the tolerance scaled to the scene."""
        return replace(self, tolerance=fitted(self.tolerance, scene))

    def build(self) -> DepthMatcher:
        """The matcher with these settings."""
        if self.stride < 1:
            raise InputError(f"matching stride is {self.stride}; it must be 1 or more")
        return DepthMatcher(self)


class DepthMatcher:
    """Lifts pixels of a with a's depth, projects them into b, compares with b's depth, and back."""

    def __init__(self, config: DepthMatcherConfig) -> None:
        self.config = config
        self._recent: list[tuple[View, Depth]] = []

    def match(self, a: View, b: View) -> Matches:
        """Pixels of `a` and `b` that show the same point, in colour coordinates.

        A match must agree in both directions: a's point with b's depth, and the point measured by
        b there with a's depth. Confidence is the agreement of the depths times the smaller cosine
        of the two viewing angles, reduced at depth edges.

        Raises `InputError` if a view has no depth or no pose.
        """
        depth_a, depth_b = self._depth(a), self._depth(b)
        column, row = self._seeds(depth_a)
        xyz, cosine, edge = self._lift(a.geometry_camera, depth_a, column, row)

        in_b, gap = self._gap(b.geometry_camera, depth_b, xyz)
        kept = np.flatnonzero(gap < 1)
        xyz, cosine, edge, gap = xyz[kept], cosine[kept], edge[kept], gap[kept]
        there, cosine_b, edge_b = self._lift(b.geometry_camera, depth_b, *in_b[kept].T)
        _, gap_back = self._gap(a.geometry_camera, depth_a, there)

        xy_in_b = project(b.camera, xyz)[0]
        if a.depth_camera is None:
            xy_in_a = np.stack([column, row], axis=1)[kept].astype(np.float64)
        else:
            xy_in_a = project(a.camera, xyz)[0]
        seen = (gap_back < 1) & inside(a.camera, xy_in_a) & inside(b.camera, xy_in_b)

        confidence = (1 - np.maximum(gap, gap_back) ** 2) * np.minimum(cosine, cosine_b)
        confidence[edge | edge_b] *= self.config.edge_confidence
        return Matches(
            xy_in_a[seen].astype(np.float32),
            xy_in_b[seen].astype(np.float32),
            confidence[seen].astype(np.float32),
        )

    def _depth(self, view: View) -> Depth:
        """The view's depth; the last two are cached, as a tracker uses each view twice."""
        for known, depth in self._recent:
            if known is view:
                return depth
        if view.camera.world_from_camera is None or view.geometry_camera.world_from_camera is None:
            raise InputError(
                f"matching 'depth' needs poses, view {view.name} has none; reconstruct the scene "
                "first or match by the images alone"
            )
        loaded = None if view.sparse else view.depth()
        if loaded is None:
            raise InputError(
                f"matching 'depth' needs depth, view {view.name} has none; reconstruct the scene "
                "first or match by the images alone"
            )
        self._recent = [*self._recent[-1:], (view, loaded)]
        return loaded

    def _seeds(
        self, depth: Depth
    ) -> tuple[Int64[np.ndarray, " seeds"], Int64[np.ndarray, " seeds"]]:
        """Column and row of the grid's pixels that have depth."""
        stride = self.config.stride
        grid = depth[stride // 2 :: stride, stride // 2 :: stride]
        row, column = np.nonzero(_present(grid))
        return column * stride + stride // 2, row * stride + stride // 2

    def _lift(
        self,
        camera: Camera,
        depth: Depth,
        column: Int64[np.ndarray, " pixels"],
        row: Int64[np.ndarray, " pixels"],
    ) -> tuple[
        Float64[np.ndarray, "pixels 3"],
        Float64[np.ndarray, " pixels"],
        Bool[np.ndarray, " pixels"],
    ]:
        """World points of pixels with depth, cosine of the viewing angle, and whether at an edge.

        The cosine is 1 at edges and where neighbours have no depth.
        """
        height, width = depth.shape
        ray = rays_at(camera, column, row)
        centre = depth[row, column].astype(np.float64)
        xyz = ray * centre[:, None]

        # Tangents along rows and columns, one-sided at the image's border.
        edge = np.zeros(len(row), bool)
        tangents = []
        for step_x, step_y in ((1, 0), (0, 1)):
            ends = []
            for sign in (1, -1):
                x = np.clip(column + sign * step_x, 0, width - 1)
                y = np.clip(row + sign * step_y, 0, height - 1)
                z = np.where(_present(depth[y, x]), depth[y, x], 0).astype(np.float64)
                edge |= ~(np.abs(z - centre) < self.config.edge * centre)
                # Rays of neighbours differ by one over the focal length; the change of lens
                # distortion between neighbours is negligible for an angle.
                shift = np.array([(x - column) / camera.K[0, 0], (y - row) / camera.K[1, 1]])
                neighbour = ray.copy()
                neighbour[:, :2] += shift.T
                ends.append(neighbour * z[:, None])
            tangents.append(ends[0] - ends[1])
        normal = np.cross(tangents[0], tangents[1])
        length = np.linalg.norm(normal, axis=1) * np.linalg.norm(xyz, axis=1)
        facing = np.abs((normal * xyz).sum(1))
        cosine = np.divide(facing, length, out=np.ones_like(length), where=(length > 0) & ~edge)
        return transform(camera.pose, xyz), cosine, edge

    def _gap(
        self, camera: Camera, depth: Depth, xyz: Float64[np.ndarray, "points 3"]
    ) -> tuple[Int64[np.ndarray, "points 2"], Float64[np.ndarray, " points"]]:
        """The pixel (column, row) of each point, and its difference from the measured depth.

        The difference is in tolerances: below 1 the point is visible. It is infinite, at pixel
        (0, 0), for points outside the image or without measured depth.
        """
        xy, z = project(camera, xyz)
        seen = inside(camera, xy)
        column, row = nearest(np.where(seen[:, None], xy, 0))
        measured = depth[row, column]
        allowed = self.config.tolerance.fixed + self.config.tolerance.relative * z
        known = seen & _present(measured)
        gap = np.full(len(xyz), np.inf)
        gap[known] = np.abs(measured[known] - z[known]) / allowed[known]
        return np.stack([column, row], axis=1), gap


def _present(depth: Float32[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
    """Where depth was measured; NaN, infinity and 0 mean missing."""
    return (depth > 0) & (depth < np.inf)
