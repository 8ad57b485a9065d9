"""Show a run's cloud in Open3D, with one object highlighted.

python viewers/labelled_cloud.py OUT [ID]
"""

import sys

import numpy as np

from lift3d.run.run import Run
from lift3d.scene.colours import label_colours


def main() -> None:
    """Show OUT/cloud.ply; with ID, all other points are dimmed."""
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    import open3d

    run = Run.open(sys.argv[1])
    cloud = run.cloud
    colours = label_colours(cloud.instance, run.palette).astype(np.float64) / 255
    if len(sys.argv) == 3:
        chosen = cloud.instance == int(sys.argv[2])
        print(f"object {sys.argv[2]}: {chosen.sum()} points")
        colours[~chosen] = 0.25 * colours[~chosen] + 0.6

    shown = open3d.geometry.PointCloud()
    shown.points = open3d.utility.Vector3dVector(cloud.points.xyz.astype(np.float64))
    shown.normals = open3d.utility.Vector3dVector(cloud.points.normal.astype(np.float64))
    shown.colors = open3d.utility.Vector3dVector(colours)
    open3d.visualization.draw_geometries([shown], window_name=sys.argv[1])


if __name__ == "__main__":
    main()
