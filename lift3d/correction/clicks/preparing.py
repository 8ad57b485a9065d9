"""A scene that was never lifted, made ready for prompts."""

from __future__ import annotations

from collections.abc import Callable

from lift3d.association import by_evidence
from lift3d.association.shape import Shape
from lift3d.association.superpoints import superpoints, surface_graph
from lift3d.association.surface import Surface
from lift3d.correction.clicks.place import Place
from lift3d.geometry.scale import fitted
from lift3d.geometry.visibility import DepthTolerance, cloud_spacing
from lift3d.scene import Points, Scene


def place_of(
    scene: Scene,
    points: Points,
    surface: Surface | None = None,
    tolerance: DepthTolerance = DepthTolerance(),
    progress: Callable[[int, int], None] | None = None,
) -> Place:
    """The place of a scene with poses and a cloud.

    Without the surface of a lift, superpoints and tree come from the shape of the cloud alone,
    without masks.
    """
    if surface is None:
        surface = surface_of(scene, points)
    views = {view.name: view for view in scene.views}
    return Place(points, surface, views, fitted(tolerance, scene, points))


def surface_of(scene: Scene, points: Points) -> Surface:
    """Superpoints and how likely neighbours are one object, without masks."""
    gap = max(cloud_spacing(points), 1e-9)
    if scene.has_dense_depth:
        shape = Shape(points, gap, [view.camera for view in scene.views], scene.metric)
        found = shape.objects()
        return found.surface(found.object + 1)
    a, b, difference = surface_graph(points, 10)
    fine = superpoints(points, a, b, difference, scale=0.02, smallest=5, cell=10 * gap)
    return by_evidence(fine, a, b, difference, fine + 1)
