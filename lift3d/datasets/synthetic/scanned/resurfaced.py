"""A mesh fused from a scan, and the views rendered from its own colours, as of ScanNet's meshes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from lift3d import geometry
from lift3d.scene import Camera, Depth, Image, Points, Scene
from lift3d.scene.errors import open3d

FURTHEST, TRUNCATION = 6.0, 4.0
"""Metres, and voxels on either side of the surface."""


def fused_mesh(scene: Scene, voxel: float, seen: float = 2.0, smallest: int = 60) -> Any:
    """The zero crossing of a signed distance volume of all views; Open3D's legacy mesh.

    Left out are voxels of less weight than `seen` and pieces of fewer triangles than `smallest`.
    """
    library = open3d("fused meshes")
    core, image_of = library.core, library.t.geometry.Image
    volume = library.t.geometry.VoxelBlockGrid(
        ("tsdf", "weight", "color"),
        (core.float32,) * 3,
        [core.SizeVector([count]) for count in (1, 1, 3)],
        voxel,
        16,
        4096,
    )
    used = 0
    for view in scene.views:
        camera, depth = view.geometry_camera, view.depth()
        assert depth is not None
        # Open3D looks at every fourth pixel, and fails where none of them has depth.
        sampled = depth[::4, ::4]
        if not ((sampled > 0) & (sampled < FURTHEST)).any():
            continue
        image = cv2.resize(view.image(), depth.shape[::-1], interpolation=cv2.INTER_AREA)
        pictures = [image_of(x.astype(np.float32)) for x in (depth, image / 255)]
        K, pose = (
            core.Tensor(np.ascontiguousarray(each)) for each in (camera.K, camera.camera_from_world)
        )
        limits = 1.0, FURTHEST, TRUNCATION
        near = volume.compute_unique_block_coordinates(pictures[0], K, pose, *limits)
        volume.integrate(near, *pictures, K, K, pose, *limits)
        used += 1
    if not used:
        return library.geometry.TriangleMesh()
    mesh = volume.extract_triangle_mesh(seen).to_legacy()
    piece, size_of, _ = mesh.cluster_connected_triangles()
    mesh.remove_triangles_by_mask(np.asarray(size_of)[np.asarray(piece)] < smallest)
    mesh.remove_unreferenced_vertices()
    return mesh


def vertices(mesh: Any, edge: float) -> Points:
    """Vertices of the mesh simplified to cells of `edge` metres, with normals and colours."""
    coarse = mesh.simplify_vertex_clustering(edge)
    coarse.compute_vertex_normals()
    return Points(
        np.asarray(coarse.vertices).astype(np.float32),
        np.clip(np.asarray(coarse.vertex_colors) * 255, 0, 255).astype(np.uint8),
        np.asarray(coarse.vertex_normals).astype(np.float32),
        np.ones(len(coarse.vertices), np.float32),
    )


class Resurfaced:
    """Renders views of a mesh with colours at its vertices."""

    def __init__(self, mesh: Any) -> None:
        library = open3d("rendering of fused meshes")
        self._tensor = library.core.Tensor
        self._triangles = np.asarray(mesh.triangles)
        self._colours = np.asarray(mesh.vertex_colors)
        self._scene = library.t.geometry.RaycastingScene()
        if len(self._triangles):
            self._scene.add_triangles(
                self._tensor(np.asarray(mesh.vertices).astype(np.float32)),
                self._tensor(self._triangles.astype(np.uint32)),
            )

    def render(self, camera: Camera) -> tuple[Image, Depth]:
        """Colour and depth; both 0 where the mesh has a hole."""
        turned = geometry.rays(camera) @ camera.pose[:3, :3].T
        origin = np.broadcast_to(camera.pose[:3, 3], turned.shape)
        rays = np.concatenate([origin, turned], axis=-1).astype(np.float32)
        found = self._scene.cast_rays(self._tensor(rays))
        depth = found["t_hit"].numpy().copy()
        hit = np.isfinite(depth)
        of = self._triangles[found["primitive_ids"].numpy()[hit].astype(np.int64)]
        u, v = found["primitive_uvs"].numpy()[hit].T
        share = np.stack([1 - u - v, u, v], axis=1)
        image = np.zeros((*depth.shape, 3), np.uint8)
        image[hit] = np.clip(255 * np.einsum("pc,pcd->pd", share, self._colours[of]), 0, 255)
        return image, np.where(hit, depth, 0).astype(np.float32)
