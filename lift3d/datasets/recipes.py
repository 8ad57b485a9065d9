"""Known captures as options of the RGB-D folder reader. A new capture is one entry here.

The first that matches is taken, so the more particular stand first.
"""

from lift3d.datasets.rgbd_folder import RgbdFolder, named

_OPTIONS = {
    # deep-video-mvs' HoloLens captures, when only some of the images were kept: the index
    # says which row of poses.txt each image has.
    "hololens-subset": RgbdFolder(
        images="images/*.png",
        depth="depth/*.png",
        poses="poses.txt",
        pose_format="rows",
        frame_index="frame_index.txt",
        intrinsics="K.txt",
    ),
    "hololens": RgbdFolder(
        images="images/*.png",
        depth="depth/*.png",
        poses="poses.txt",
        pose_format="rows",
        intrinsics="K.txt",
    ),
    # Amazon Picking Challenge, Princeton: a RealSense F200 on a robot arm. Its 0.1 mm depth
    # is stored rotated by three bits; beyond 2 m the short-range sensor only glitches.
    "apc-shelf": RgbdFolder(
        images="frame-*.color.png",
        depth="frame-*.depth.png",
        instances="segm/frame-*.segm.png",
        instances_divide=6,
        poses="cam.info.txt",
        pose_format="headed",
        intrinsics="cam.info.txt#Color camera intrinsic matrix",
        depth_scale=10000.0,
        depth_rotate_right=3,
        depth_max=2.0,
    ),
    # Open3D's reconstruction system: its input beside its output trajectory.
    "open3d-trajectory": RgbdFolder(
        images="image/*.jpg",
        depth="depth/*.png",
        poses="trajectory.log",
        pose_format="log",
        intrinsics="camera_primesense.json",
    ),
    # TUM RGB-D: the authors advise the driver's default K, because depth was registered with it.
    "tum": RgbdFolder(
        images="rgb/*.png",
        depth="depth/*.png",
        poses="groundtruth.txt",
        pose_format="tum",
        K=(525.0, 525.0, 319.5, 239.5),
        depth_scale=5000.0,
    ),
    # Replica as rendered for iMAP and NICE-SLAM: 1200x680, 90 degrees wide.
    "replica": RgbdFolder(
        images="results/frame*.jpg",
        depth="results/depth*.png",
        poses="traj.txt",
        pose_format="rows",
        K=(600.0, 600.0, 599.5, 339.5),
        depth_scale=6553.5,
    ),
}
RECIPES = {name: named(name, options) for name, options in _OPTIONS.items()}
