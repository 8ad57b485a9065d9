"""Export a rerun recording, `run.rrd`, to open with `rerun run.rrd`.

`world/cloud` and `world/labels` are the points in the run's world and unit, with their colours and
with the labels' colours. `world/camera` follows the timeline `view`: pose parent-from-child
(`world_from_camera`), OpenCV axes (RDF), pinhole in pixels from the corner of the picture
(lift3d's + 0.5), with `image`, `labels` and `depth` below it. Undistorted pictures only. Class ids
are 16-bit. Needs the extra `export`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lift3d.export.content import Content, Format, Tick
from lift3d.export.frames import Frame, Limits, check_frames, frames, write_bytes
from lift3d.scene.colours import label_colours
from lift3d.scene.errors import InputError, MissingExtra

LIMITS = Limits("rerun", coefficients=0)
MOST = np.iinfo(np.uint16).max


def library() -> Any:
    """The rerun SDK; MissingExtra if it is not installed."""
    try:
        import rerun
    except ImportError as error:
        raise MissingExtra(
            "rerun recordings need rerun-sdk, which is not installed: pip install 'lift3d[export]'"
        ) from error
    return rerun


def write(content: Content, folder: Path, tick: Tick) -> list[str]:
    """Write `run.rrd`."""
    rr = library()
    recording = rr.RecordingStream("lift3d", send_properties=False)
    # In memory, about the size of the PNGs. When the SDK writes to a full disk in the background,
    # its flush() can block forever.
    memory = recording.memory_recording()
    _log_cloud(rr, recording, content)
    for number, frame in enumerate(frames(content, LIMITS, tick)):
        recording.set_time("view", sequence=number)
        _log_view(rr, recording, content, frame)
    write_bytes(folder / "run.rrd", memory.drain_as_bytes())
    return []


def _log_cloud(rr: Any, recording: Any, content: Content) -> None:
    cloud, ids = content.cloud, [0, *content.all_ids]
    colours = label_colours(np.array(ids, np.int32), content.colours)
    classes = [
        rr.AnnotationInfo(id=each, label=str(each) if each else "unlabelled", color=rgb)
        for each, rgb in zip(ids, colours.tolist(), strict=True)
    ]
    recording.log("world", rr.AnnotationContext(classes), static=True)
    xyz, instance = cloud.points.xyz, cloud.instance.astype(np.uint16)
    recording.log("world/cloud", rr.Points3D(xyz, colors=cloud.points.rgb), static=True)
    recording.log("world/labels", rr.Points3D(xyz, class_ids=instance), static=True)


def _log_view(rr: Any, recording: Any, content: Content, frame: Frame) -> None:
    import cv2

    camera, pose = frame.camera, frame.camera.pose
    K = camera.K.copy()
    K[:2, 2] += 0.5
    size = [camera.width, camera.height]
    recording.log("world/camera", rr.Transform3D(translation=pose[:3, 3], mat3x3=pose[:3, :3]))
    pinhole = rr.Pinhole(image_from_camera=K, resolution=size, camera_xyz=rr.ViewCoordinates.RDF)
    recording.log("world/camera/image", pinhole)
    # PNG is lossless and much smaller than raw pixels.
    done, data = cv2.imencode(".png", cv2.cvtColor(frame.image(), cv2.COLOR_RGB2BGR))
    assert done
    picture = rr.EncodedImage(contents=data.tobytes(), media_type="image/png")
    recording.log("world/camera/image", picture)
    labels = frame.labels(content.label_maps[frame.view.name]).astype(np.uint16)
    recording.log("world/camera/image/labels", rr.SegmentationImage(labels, opacity=0.5))
    depth = frame.depth() if content.options.depth else None
    if depth is not None and depth.shape == (camera.height, camera.width):
        recording.log("world/camera/image/depth", rr.DepthImage(depth, meter=1.0))


def check(content: Content) -> None:
    """Check SDK, cameras and ids."""
    library()
    check_frames(content, LIMITS)
    ids = content.all_ids
    if ids and ids[-1] > MOST:
        raise InputError(
            f"rerun: id {ids[-1]} is above {MOST}, the largest 16-bit class id; keep the largest "
            "objects with --largest, which renumbers them"
        )


FORMAT = Format(
    name="rerun",
    about="one recording with cloud, cameras, pictures, labels (extra `export`)",
    files="`run.rrd`: cloud, labels, cameras, pictures, depth (where as large as the picture)",
    frames="parent from child, RDF axes",
    first_pixel="0.5, 0.5",
    limits="undistorted; ids to 65 535; extra `export`",
    read_by="rerun 0.41",
    write=write,
    check=check,
    pictures=True,
)
