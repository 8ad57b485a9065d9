"""A box in front of a wall, ray-cast by formula, written in every format that lift3d reads."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

WALL_Z = 3.0
BOX_LOW, BOX_HIGH = np.array([-0.4, -0.3, 2.2]), np.array([0.2, 0.3, 2.6])

COLOR_K = np.array([[75.0, 0, 39.0], [0, 74.0, 29.0], [0, 0, 1]])
DEPTH_K = np.array([[62.0, 0, 31.0], [0, 63.0, 24.5], [0, 0, 1]])
COLOR_SIZE, DEPTH_SIZE = (80, 60), (64, 48)


@dataclass(frozen=True, eq=False)
class TinyScan:
    """The written scan in lift3d's conventions, as a reader must return it."""

    names: list[str]
    poses: list[np.ndarray]
    depth_poses: list[np.ndarray]
    K: np.ndarray
    depth_K: np.ndarray
    images: list[np.ndarray]
    depths: list[np.ndarray]
    instances: list[np.ndarray]


def render(K, size, world_from_camera):
    """Image, depth and instance ids (wall 1, box 2) of the wall and the box."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    direction = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones(x.shape)], -1)
    direction = direction @ world_from_camera[:3, :3].T
    origin = world_from_camera[:3, 3]
    wall = (WALL_Z - origin[2]) / direction[..., 2]
    with np.errstate(divide="ignore"):
        low, high = (BOX_LOW - origin) / direction, (BOX_HIGH - origin) / direction
    enter, leave = np.minimum(low, high).max(-1), np.maximum(low, high).min(-1)
    hits_box = (enter < leave) & (enter > 0)
    depth = np.where(hits_box, enter, wall)
    place = origin + direction * depth[..., None]
    image = (127 + 100 * np.sin(3 * place + [0, 1, 2])).astype(np.uint8)
    return image, depth.astype(np.float32), np.where(hits_box, 2, 1).astype(np.int32)


def tiny_scan(
    color=(COLOR_K, COLOR_SIZE),
    depth=(COLOR_K, COLOR_SIZE),
    views=4,
    names=None,
    extrinsic=None,
    nearer=0.0,
):
    """Render a scan. `extrinsic`: depth_from_color of the rig; `poses` are of the colour camera.

    `nearer`: metres by which the cameras are nearer to the wall.
    """
    poses, depth_poses, images, depths, instances = [], [], [], [], []
    for i in range(views):
        turn = cv2.Rodrigues(np.array([0.02 * i, -0.03 * i, 0.01 * i]))[0]
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = turn, [0.06 * i - 0.1, 0.02 * i, 0.05 * i + nearer]
        from_depth = np.linalg.inv(extrinsic) if extrinsic is not None else np.eye(4)
        image, _, ids = render(*color, pose)
        poses.append(pose)
        images.append(image)
        instances.append(ids)
        depth_poses.append(pose @ from_depth)
        depths.append(render(*depth, depth_poses[-1])[1])
    names = names or [str(i) for i in range(views)]
    return TinyScan(names, poses, depth_poses, color[0], depth[0], images, depths, instances)


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = image[..., ::-1] if image.ndim == 3 else image
    quality = [cv2.IMWRITE_JPEG_QUALITY, 97] if path.suffix == ".jpg" else []
    assert cv2.imwrite(str(path), pixels, quality)


def stored(depth: np.ndarray, scale: float = 1000.0) -> np.ndarray:
    return np.round(depth * scale).astype(np.uint16)


def text(path: Path, matrix: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, matrix, fmt="%.9f")


def four(K: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = K
    return matrix


def write_sens(
    path: Path,
    scan: TinyScan,
    color="jpeg",
    depth="zlib",
    promised=None,
    poses=None,
    extra=b"",
    version=4,
):
    """Write the .sens format as described in data/scannet/README.md."""
    color_code = {"raw": 0, "png": 1, "jpeg": 2}[color]
    depth_code = {"raw": 0, "zlib": 1, "occi": 2}[depth]
    blob = struct.pack("<I", version) + struct.pack("<Q", 9) + b"tiny-scan"
    for matrix in (four(scan.K), np.eye(4), four(scan.depth_K), np.eye(4)):
        blob += matrix.astype("<f4").tobytes()
    height, width = scan.images[0].shape[:2]
    depth_height, depth_width = scan.depths[0].shape
    blob += struct.pack("<ii", color_code, depth_code)
    blob += struct.pack("<IIII", width, height, depth_width, depth_height)
    blob += struct.pack("<f", 1000.0)
    blob += struct.pack("<Q", len(scan.names) if promised is None else promised)
    for i, image in enumerate(scan.images):
        if color == "raw":
            color_bytes = image.tobytes()
        else:
            suffix = ".png" if color == "png" else ".jpg"
            quality = [cv2.IMWRITE_JPEG_QUALITY, 97] if color == "jpeg" else []
            color_bytes = cv2.imencode(suffix, image[..., ::-1], quality)[1].tobytes()
        depth_bytes = stored(scan.depths[i]).tobytes()
        if depth == "zlib":
            depth_bytes = zlib.compress(depth_bytes)
        blob += (poses or scan.poses)[i].astype("<f4").tobytes()
        blob += struct.pack("<QQQQ", i, i, len(color_bytes), len(depth_bytes))
        blob += color_bytes + depth_bytes
    path.write_bytes(blob + extra)


def write_scannet(root: Path, scan: TinyScan) -> None:
    for i, name in enumerate(scan.names):
        save(root / f"color/{name}.jpg", scan.images[i])
        save(root / f"depth/{name}.png", stored(scan.depths[i]))
        text(root / f"pose/{name}.txt", scan.poses[i])
    text(root / "intrinsic/intrinsic_color.txt", four(scan.K))
    text(root / "intrinsic/intrinsic_depth.txt", four(scan.depth_K))
    text(root / "intrinsic/extrinsic_color.txt", np.eye(4))
    text(root / "intrinsic/extrinsic_depth.txt", np.eye(4))


def write_posed_images(root: Path, scan: TinyScan) -> None:
    for i, name in enumerate(scan.names):
        save(root / f"{name}.jpg", scan.images[i])
        save(root / f"{name}.png", stored(scan.depths[i]))
        text(root / f"{name}.txt", scan.poses[i])
    text(root / "intrinsic.txt", four(scan.K))


def write_seven_scenes(root: Path, scan: TinyScan, folders=("",), intrinsics=True, poses=None):
    share = len(scan.names) // len(folders)
    for i, image in enumerate(scan.images):
        stem = root / folders[i // share] / f"frame-{i % share:06d}"
        depth = stored(scan.depths[i])
        depth[0, 0] = 65535
        save(stem.with_name(stem.name + ".color.png"), image)
        save(stem.with_name(stem.name + ".depth.png"), depth)
        text(stem.with_name(stem.name + ".pose.txt"), (poses or scan.poses)[i])
    if intrinsics:
        text(root / "camera-intrinsics.txt", scan.K)


def write_rgbd_json(root: Path, scan: TinyScan, **more) -> None:
    """A custom layout: OpenGL cameras, world to camera, 0.2 mm depth, confidence."""
    flip = np.diag([1.0, -1, -1, 1])
    for i in range(len(scan.names)):
        save(root / f"pictures/img_{i}.png", scan.images[i])
        save(root / f"range/d_{i:03d}.png", stored(scan.depths[i], 5000))
        save(root / f"trust/{i}.png", np.full(scan.depths[i].shape, 1, np.uint8))
        save(root / f"truth/{i}.png", scan.instances[i].astype(np.uint16))
        text(root / f"cams/{i}.txt", np.linalg.inv(scan.poses[i] @ flip)[:3])
    K = scan.K
    options = {
        "images": "pictures/img_*.png",
        "depth": "range/d_*.png",
        "confidence": "trust/*.png",
        "confidence_full": 2,
        "instances": "truth/*.png",
        "poses": "cams/*.txt",
        "pose_convention": "camera_from_world",
        "pose_axes": "opengl",
        "K": [K[0, 0], K[1, 1], K[0, 2], K[1, 2]],
        "depth_scale": 5000,
    }
    (root / "rgbd.json").write_text(json.dumps(options | more))


def write_hololens(root: Path, scan: TinyScan) -> None:
    """Only every second row of poses.txt has an image, by the index."""
    for i, name in enumerate(scan.names):
        save(root / f"images/{name}.png", scan.images[i])
        save(root / f"depth/{name}.png", stored(scan.depths[i]))
    rows = np.array([pose.ravel() for pose in scan.poses for _ in range(2)])
    rows[::2, 3] += 9.0  # a row without an image must not be used
    text(root / "poses.txt", rows)
    lines = [f"{2 * i + 1} {name}.png" for i, name in enumerate(scan.names)]
    (root / "frame_index.txt").write_text("# row -> file\n" + "\n".join(lines))
    text(root / "K.txt", scan.K)


def write_apc(root: Path, scan: TinyScan) -> None:
    lines = ["# Environment: shelf", "", "# Color camera intrinsic matrix", _lines(scan.K)]
    for i, name in enumerate(scan.names):
        depth = stored(scan.depths[i], 10000)
        save(root / f"{name}.color.png", scan.images[i])
        save(root / f"{name}.depth.png", (depth << 3) | (depth >> 13))
        save(root / f"segm/{name}.segm.png", (scan.instances[i] * 6).astype(np.uint8))
        lines += [
            f"# Camera-to-world extrinsic matrix (camera pose) for {name}",
            _lines(scan.poses[i]),
        ]
    (root / "cam.info.txt").write_text("\n".join(lines))


def write_open3d(root: Path, scan: TinyScan) -> None:
    for i, name in enumerate(scan.names):
        save(root / f"image/{name}.jpg", scan.images[i])
        save(root / f"depth/{name}.png", stored(scan.depths[i]))
    wrong = np.diag([1.0, -1, -1, 1])
    blocks = []
    for frame in range(int(scan.names[-1]) + 1):
        name = f"{frame:05d}"
        pose = scan.poses[scan.names.index(name)] if name in scan.names else wrong
        blocks.append(f"{frame} {frame} {frame + 1}\n{_lines(pose)}")
    (root / "trajectory.log").write_text("\n".join(blocks) + "\n")
    height, width = scan.images[0].shape[:2]
    (root / "camera_primesense.json").write_text(
        json.dumps(
            {"width": width, "height": height, "intrinsic_matrix": scan.K.T.ravel().tolist()}
        )
    )


def write_tum(root: Path, scan: TinyScan) -> None:
    from scipy.spatial.transform import Rotation

    lines = ["# timestamp tx ty tz qx qy qz qw"]
    for i, name in enumerate(scan.names):
        save(root / f"rgb/{name}.png", scan.images[i])
        save(root / f"depth/{float(name) + 0.008:.6f}.png", stored(scan.depths[i], 5000))
        for shift, moved in ((-0.004, 0.0), (0.012, 5.0)):  # only the nearer pose is right
            position = scan.poses[i][:3, 3] + moved
            turn = Rotation.from_matrix(scan.poses[i][:3, :3]).as_quat()
            values = [float(name) + shift, *position, *turn]
            lines.append(" ".join(f"{v:.8f}" for v in values))
    (root / "groundtruth.txt").write_text("\n".join(lines))


def write_replica(root: Path, scan: TinyScan) -> None:
    for i, name in enumerate(scan.names):
        save(root / f"results/{name}.jpg", scan.images[i])
        depth_name = name.replace("frame", "depth")
        save(root / f"results/{depth_name}.png", stored(scan.depths[i], 6553.5))
    text(root / "traj.txt", np.array([pose.ravel() for pose in scan.poses]))


def _lines(matrix: np.ndarray) -> str:
    return "\n".join(" ".join(f"{v:.9f}" for v in row) for row in matrix)


def write_transforms(root: Path, scan: TinyScan, **more) -> None:
    """nerfstudio: OpenGL cameras, principal points from the pixel's corner, depth in mm."""
    K = scan.K
    frames = []
    for name, image, depth, pose in zip(
        scan.names, scan.images, scan.depths, scan.poses, strict=True
    ):
        save(root / f"images/{name}.png", image)
        save(root / f"depth/{name}.png", stored(depth))
        frames.append(
            {
                "file_path": f"images/{name}.png",
                "depth_file_path": f"depth/{name}.png",
                "transform_matrix": (pose @ np.diag([1.0, -1, -1, 1])).tolist(),
            }
        )
    height, width = scan.images[0].shape[:2]
    content = {"camera_model": "OPENCV", "fl_x": K[0, 0], "fl_y": K[1, 1]}
    content |= {"cx": K[0, 2] + 0.5, "cy": K[1, 2] + 0.5, "w": width, "h": height}
    (root / "transforms.json").write_text(json.dumps(content | {"frames": frames[::-1]} | more))


def colmap_model(scan: TinyScan, xyz, model="PINHOLE", params=None, suffix=".png", only=None):
    """A pycolmap model of the scan whose points are `xyz`, seen by every image they fall into.

    `only`: for each point, the numbers of the views that may see it.
    """
    import pycolmap
    from scipy.spatial.transform import Rotation

    K, (height, width) = scan.K, scan.images[0].shape[:2]
    if params is None:
        params = [K[0, 0], K[1, 1], K[0, 2] + 0.5, K[1, 2] + 0.5]
    made = pycolmap.Reconstruction()
    camera = pycolmap.Camera(model=model, width=width, height=height, params=params, camera_id=1)
    made.add_camera_with_trivial_rig(camera)
    tracks = [pycolmap.Track() for _ in xyz]
    for i, (name, pose) in enumerate(zip(scan.names, scan.poses, strict=True), start=1):
        inverse = np.linalg.inv(pose)
        turn = pycolmap.Rotation3d(Rotation.from_matrix(inverse[:3, :3]).as_quat())
        rigid = pycolmap.Rigid3d(turn, inverse[:3, 3])
        pixels = [camera.img_from_cam(inverse[:3, :3] @ p + inverse[:3, 3]) for p in xyz]
        seen = [
            j
            for j, p in enumerate(pixels)
            if p is not None
            and 0 <= p[0] < width
            and 0 <= p[1] < height
            and (only is None or i - 1 in only[j])
        ]
        keypoints = np.array([pixels[j] for j in seen]).reshape(-1, 2)
        image = pycolmap.Image(name=name + suffix, keypoints=keypoints, camera_id=1, image_id=i)
        made.add_image_with_trivial_frame(image, rigid)
        for k, j in enumerate(seen):
            tracks[j].add_element(i, k)
    for p, track in zip(xyz, tracks, strict=True):
        made.add_point3D(p, track, np.array([10, 20, 30], np.uint8))
    return made


def write_colmap(root: Path, scan: TinyScan) -> None:
    """A COLMAP workspace after dense stereo; pycolmap writes the depth maps."""
    import pycolmap

    wall = np.array([[x, y, WALL_Z] for x in (-0.9, 0.0, 0.7) for y in (-0.6, 0.5)])
    (root / "sparse").mkdir(parents=True)
    colmap_model(scan, wall).write(str(root / "sparse"))
    maps = root / "stereo/depth_maps"
    maps.mkdir(parents=True)
    for name, image, depth in zip(scan.names, scan.images, scan.depths, strict=True):
        save(root / f"images/{name}.png", image)
        written = pycolmap.DepthMap.from_array(depth, 0.1, 10.0)
        written.write(str(maps / f"{name}.png.geometric.bin"))
