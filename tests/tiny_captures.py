"""The tiny scan in the layouts of capture apps and of data sets that came from phones."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from scipy.spatial.transform import Rotation
from tiny_scan import COLOR_K, COLOR_SIZE, TinyScan, save, stored, text, tiny_scan

OPENGL = np.diag([1.0, -1, -1, 1])
"""Camera axes of ARKit: x right, y up, z backward."""
HALF_SIZE = (40, 30)
HALF_K = np.array([[0.5, 0, -0.25], [0, 0.5, -0.25], [0, 0, 1]]) @ COLOR_K
"""The colour camera at half the size, where pixel centres are whole numbers."""
CORNER = np.array([[0.0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
"""What a principal point from the corner of the picture has more."""


def phone_scan(names: list[str]) -> TinyScan:
    """Depth registered to colour, at half the size."""
    return tiny_scan(depth=(HALF_K, HALF_SIZE), views=len(names), names=names)


def sure(scan: TinyScan, value: int) -> np.ndarray:
    return np.full(scan.depths[0].shape, value, np.uint8)


def quaternion(matrix: np.ndarray) -> list[float]:
    return Rotation.from_matrix(matrix[:3, :3]).as_quat().tolist()


def polycam(root: Path) -> TinyScan:
    scan = phone_scan(["7312500000", "7312510000", "7312520000"])
    K, (width, height) = scan.K + CORNER, COLOR_SIZE
    for name, image, depth, pose in zip(*views(scan), strict=True):
        save(root / f"keyframes/images/{name}.jpg", image)
        save(root / f"keyframes/depth/{name}.png", stored(depth))
        save(root / f"keyframes/confidence/{name}.png", sure(scan, 255))
        stored_pose = pose @ OPENGL
        camera = {f"t_{r}{c}": stored_pose[r, c] for r in range(3) for c in range(4)}
        camera |= {"fx": K[0, 0], "fy": K[1, 1], "cx": K[0, 2], "cy": K[1, 2]}
        camera |= {"width": width, "height": height, "blur_score": 9.0}
        write(root / f"keyframes/cameras/{name}.json", camera)
    write(root / "mesh_info.json", {})
    return scan


def polycam_corrected(root: Path) -> TinyScan:
    """The corrected cameras are right, the others are not."""
    scan = polycam(root)
    frames = root / "keyframes"
    for kind in ("images", "cameras"):
        (frames / kind).rename(frames / f"corrected_{kind}")
    for name in scan.names:
        save(frames / f"images/{name}.jpg", 255 - scan.images[0])
        write(frames / f"cameras/{name}.json", {})
    return scan


def stray(root: Path) -> TinyScan:
    """With pictures in rgb/; a video is lossy."""
    scan = phone_scan(["000000", "000001", "000002"])
    lines = ["timestamp, frame, x, y, z, qx, qy, qz, qw"]
    for i, (name, image, depth, pose) in enumerate(zip(*views(scan), strict=True)):
        save(root / f"rgb/{name}.png", image)
        save(root / f"depth/{name}.png", stored(depth))
        save(root / f"confidence/{name}.png", sure(scan, 2))
        values = [*pose[:3, 3], *quaternion(pose)]  # the app writes OpenCV's axes
        lines.append(f"{100 + i / 10}, {name}, " + ", ".join(f"{v:.9f}" for v in values))
    (root / "odometry.csv").write_text("\n".join(lines))
    np.savetxt(root / "camera_matrix.csv", scan.K + CORNER, delimiter=", ")
    return scan


def stray_old(root: Path) -> TinyScan:
    """An early version: no heading, depth as .npy in millimetres."""
    scan = stray(root)
    rows = [line.split(", ")[2:] for line in (root / "odometry.csv").read_text().splitlines()[1:]]
    (root / "odometry.csv").write_text("\n".join(", ".join(row) for row in rows))
    for name, depth in zip(scan.names, scan.depths, strict=True):
        (root / f"depth/{name}.png").unlink()
        np.save(root / f"depth/{name}.npy", stored(depth))
    return scan


def scanner_app(root: Path) -> TinyScan:
    """Only every second frame has a picture."""
    scan = phone_scan(["frame_00000", "frame_00002", "frame_00004"])
    for number in range(6):
        i = number // 2
        name, pose = f"{number:05d}", scan.poses[i] @ OPENGL
        pose[3, 3] = 0.99999994
        camera = {"intrinsics": (scan.K + CORNER).ravel().tolist(), "frame_index": number}
        write(root / f"frame_{name}.json", camera | {"cameraPoseARFrame": pose.ravel().tolist()})
        save(root / f"depth_{name}.png", stored(scan.depths[i]))
        save(root / f"conf_{name}.png", sure(scan, 2))
        if number % 2 == 0:
            save(root / f"frame_{name}.jpg", scan.images[i])
    write(root / "info.json", {"title": "Room"})
    return scan


def record3d_metadata(scan: TinyScan) -> dict:
    poses = [pose @ OPENGL for pose in scan.poses]
    return {
        "w": COLOR_SIZE[0],
        "h": COLOR_SIZE[1],
        "fps": 60,
        "K": (scan.K + CORNER).T.ravel().tolist(),
        "poses": [[*quaternion(pose), *pose[:3, 3].tolist()] for pose in poses],
    }


def record3d_exr(root: Path) -> TinyScan:
    import OpenEXR

    scan = phone_scan(["0", "1", "2"])
    home = root / "EXR_RGBD"
    (home / "depth").mkdir(parents=True)
    kind = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    for name, image, depth, _ in zip(*views(scan), strict=True):
        save(home / f"rgb/{name}.jpg", image)
        OpenEXR.File(dict(kind), {"R": depth}).write(str(home / f"depth/{name}.exr"))
    write(home / "metadata.json", record3d_metadata(scan))
    return scan


def record3d_unzipped(root: Path) -> TinyScan:
    import lzfse

    scan = phone_scan(["0", "1", "2"])
    for name, image, depth, _ in zip(*views(scan), strict=True):
        save(root / f"rgbd/{name}.jpg", image)
        (root / f"rgbd/{name}.depth").write_bytes(lzfse.compress(depth.tobytes()))
        (root / f"rgbd/{name}.conf").write_bytes(lzfse.compress(sure(scan, 2).tobytes()))
    lens = [*(scan.K + CORNER)[[0, 1, 0, 1], [0, 1, 2, 2]]]
    more = {"dw": HALF_SIZE[0], "dh": HALF_SIZE[1], "perFrameIntrinsicCoeffs": [lens] * 3}
    write(root / "metadata", record3d_metadata(scan) | {"K": [1, 0, 0, 0, 1, 0, 0, 0, 1]} | more)
    return scan


def arkitscenes(root: Path) -> TinyScan:
    """Depth is a few milliseconds late; a picture without a pose near its time is no fault."""
    times = [6845.424, 6845.523, 6845.622]
    scan = phone_scan([f"41069021_{time:.3f}" for time in times])
    home = root / "41069021_frames"
    K, (width, height) = scan.K + CORNER, COLOR_SIZE
    lines = []
    for time, (name, image, depth, pose) in zip(times, zip(*views(scan), strict=True), strict=True):
        late = f"41069021_{time + 0.004:.3f}"
        save(home / f"lowres_wide/{name}.png", image)
        save(home / f"lowres_depth/{late}.png", stored(depth))
        save(home / f"confidence/{late}.png", sure(scan, 2))
        lens = f"{width} {height} {K[0, 0]} {K[1, 1]} {K[0, 2]} {K[1, 2]}"
        file = home / f"lowres_wide_intrinsics/{name}.pincam"
        file.parent.mkdir(exist_ok=True)
        file.write_text(lens)
        inverse = np.linalg.inv(pose)
        values = [*cv2.Rodrigues(inverse[:3, :3])[0].ravel(), *inverse[:3, 3]]
        lines.append(" ".join(f"{v:.9f}" for v in [time - 0.003, *values]))
    save(home / "lowres_wide/41069021_6845.473.png", scan.images[0])
    (home / "lowres_wide.traj").write_text("\n".join(lines))
    return scan


def rscan(root: Path) -> TinyScan:
    scan = phone_scan([f"frame-{i:06d}" for i in range(3)])
    home = root / "sequence"
    for name, image, depth, pose in zip(*views(scan), strict=True):
        save(home / f"{name}.color.jpg", image)
        save(home / f"{name}.depth.pgm", stored(depth))
        text(home / f"{name}.pose.txt", pose)
    (home / "_info.txt").write_text(
        "m_versionNumber = 4\nm_sensorName = Phab2Pro\n"
        + info("Color", scan.K, COLOR_SIZE)
        + info("Depth", scan.depth_K, HALF_SIZE)
        + f"m_depthShift = 1000\nm_frames.size = {len(scan.names)}\n"
    )
    return scan


def info(kind: str, K: np.ndarray, size: tuple[int, int]) -> str:
    whole = np.eye(4)
    whole[:3, :3] = K
    numbers = " ".join(f"{v:.9g}" for v in whole.ravel())
    still = " ".join(f"{v:g}" for v in np.eye(4).ravel())
    return (
        f"m_{kind.lower()}Width = {size[0]}\nm_{kind.lower()}Height = {size[1]}\n"
        f"m_calibration{kind}Intrinsic = {numbers}\nm_calibration{kind}Extrinsic = {still}\n"
    )


def scannetpp_iphone(root: Path) -> TinyScan:
    scan = phone_scan([f"frame_{i:06d}" for i in (0, 10, 20)])
    cameras = {}
    for name, image, depth, pose in zip(*views(scan), strict=True):
        save(root / f"iphone/rgb/{name}.jpg", image)
        save(root / f"iphone/depth/{name}.png", stored(depth))
        cameras[name] = {
            "pose": np.eye(4).tolist(),
            "aligned_pose": pose.tolist(),
            "intrinsic": (scan.K + CORNER).tolist(),
        }
    write(root / "iphone/pose_intrinsic_imu.json", cameras)
    write(root / "dslr/nerfstudio/transforms.json", {"frames": []})
    return scan


def open3d_system(root: Path) -> TinyScan:
    """As a RealSense's recorder writes it; the pictures are numbered from 1, the poses from 0."""
    scan = tiny_scan(names=["000001", "000002", "000003"], views=3)
    blocks = []
    for i, (name, image, depth, pose) in enumerate(zip(*views(scan), strict=True)):
        save(root / f"color/{name}.jpg", image)
        save(root / f"depth/{name}.png", stored(depth))
        rows = "\n".join(" ".join(f"{v:.9f}" for v in row) for row in pose)
        blocks.append(f"{i} {i} {i + 1}\n{rows}")
    (root / "scene").mkdir()
    (root / "scene/trajectory.log").write_text("\n".join(blocks))
    size = {"width": COLOR_SIZE[0], "height": COLOR_SIZE[1]}
    write(root / "camera_intrinsic.json", size | {"intrinsic_matrix": scan.K.T.ravel().tolist()})
    return scan


def nerfcapture(root: Path) -> TinyScan:
    """Names without suffix; depth under depth_path, in units of its own."""
    unit = 10 / 65535
    scan = tiny_scan(names=["0", "1", "2"], views=3)
    K, frames = scan.K + CORNER, []
    for name, image, depth, pose in zip(*views(scan), strict=True):
        save(root / f"images/{name}.png", image)
        save(root / f"images/{name}.depth.png", stored(depth, 1 / unit))
        files = {"file_path": f"images/{name}", "depth_path": f"images/{name}.depth.png"}
        frames.append(files | {"transform_matrix": (pose @ OPENGL).tolist()})
    lens = {"fl_x": K[0, 0], "fl_y": K[1, 1], "cx": K[0, 2], "cy": K[1, 2]}
    lens |= {"w": COLOR_SIZE[0], "h": COLOR_SIZE[1]}
    write(root / "transforms.json", lens | {"integer_depth_scale": unit, "frames": frames})
    return scan


def views(scan: TinyScan) -> tuple[list, list, list, list]:
    return scan.names, scan.images, scan.depths, scan.poses


def write(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


CAPTURES = {
    "polycam": (polycam, "reader polycam"),
    "polycam-corrected": (polycam_corrected, "reader polycam"),
    "stray": (stray, "reader stray-scanner"),
    "stray-old": (stray_old, "reader stray-scanner"),
    "3d-scanner-app": (scanner_app, "reader 3d-scanner-app"),
    "record3d-exr": (record3d_exr, "reader record3d"),
    "record3d-unzipped": (record3d_unzipped, "reader record3d"),
    "arkitscenes": (arkitscenes, "reader arkitscenes"),
    "3rscan": (rscan, "reader 3rscan"),
    "scannetpp-iphone": (scannetpp_iphone, "reader scannetpp (iPhone)"),
    "open3d-system": (open3d_system, "reader open3d-system"),
    "nerfcapture": (nerfcapture, "reader nerfstudio"),
}
"""Name -> writer, and the source that the scene names."""
NEEDS = {"record3d-exr": "OpenEXR", "record3d-unzipped": "lzfse"}
"""Name -> optional library that reads it."""
