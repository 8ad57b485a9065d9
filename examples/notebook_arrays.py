"""From arrays in memory to a labelled cloud, without a file: what one writes in a notebook.

python examples/notebook_arrays.py

Replace `capture` by your own pictures, intrinsics, poses and depth.
"""

import numpy as np

import lift3d as l3


def capture() -> dict[str, list[np.ndarray]]:
    """Pictures, intrinsics, poses and depth, as a capture app gives them; here a synthetic room."""
    room = l3.backend("reader", "synthetic", views=10, width=160, height=120)
    views = l3.open_scene("synthetic:3", room).views
    return {
        "images": [view.image() for view in views],  # (H, W, 3) uint8, RGB
        "K": [view.camera.K for view in views],  # 3x3, pixels
        "world_from_camera": [view.camera.pose for view in views],  # 4x4, OpenCV axes
        "depth": [view.depth() for view in views],  # (H, W) float32 metres, 0 = missing
    }


def main() -> None:
    """Lift step by step and print what came out."""
    scene = l3.Scene.from_arrays(**capture())
    points = l3.fuse(scene, voxel=0.03)
    masks = l3.segment(scene, "regions")
    found = l3.associate(points, scene, masks, l3.AssociationConfig(by_shape=True))
    labels = {
        view.name: found.relabel(index, view, masks[view.name])
        for index, view in enumerate(scene.views)
    }
    H = l3.consistency(scene, labels).result.summary()["H"]
    ids, counts = np.unique(found.cloud.instance, return_counts=True)
    print(f"{len(points):,} points, {len(ids[ids > 0])} objects, H {H:.3f}")
    for object_id, count in sorted(zip(ids, counts, strict=True), key=lambda pair: -pair[1])[:5]:
        centre = np.median(points.xyz[found.cloud.instance == object_id], axis=0)
        print(f"object {object_id}: {count} points around {np.round(centre, 2)}")


if __name__ == "__main__":
    main()
