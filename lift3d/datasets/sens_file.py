"""The .sens container, version 4: an index built from the frame headers alone.

Little endian. A header, then per frame: 16 float32 pose, two uint64 times, two uint64
payload sizes, colour, depth. Payload sizes differ, so the frames are walked once; the index keeps
their offsets.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from lift3d.datasets.images import DepthCode, decode_color, to_metres
from lift3d.datasets.intrinsics import Size
from lift3d.scene import Depth, Image
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.guarded import reading

COLOR_CODES = {-1: "unknown", 0: "raw", 1: "png", 2: "jpeg"}
DEPTH_CODES = {-1: "unknown", 0: "raw", 1: "zlib", 2: "occi"}

_FIXED = struct.Struct("<64f 2i 4I f Q")  # four matrices, codes, sizes, depth shift, frames
_FRAME = struct.Struct("<16f 4Q")


@dataclass(frozen=True, eq=False)
class SensIndex:
    """Header, poses and payload offsets of one file."""

    path: Path
    sensor: str
    intrinsic_color: Float32[np.ndarray, "4 4"]
    extrinsic_color: Float32[np.ndarray, "4 4"]
    intrinsic_depth: Float32[np.ndarray, "4 4"]
    extrinsic_depth: Float32[np.ndarray, "4 4"]
    color_code: str
    depth_code: str
    color_size: Size
    depth_size: Size
    depth_shift: float
    """Stored depth units per metre."""
    promised: int
    """Number of frames by the header."""
    poses: Float32[np.ndarray, "frames 4 4"]
    """world_from_camera of the complete frames; not finite where tracking failed."""
    spans: Int64[np.ndarray, "frames 3"]
    """Offset of the colour payload, its bytes, bytes of the depth payload after it."""

    def __len__(self) -> int:
        return len(self.spans)


def read_index(path: Path) -> SensIndex:
    """The index from the frame headers, up to the first incomplete frame.

    Raises InputError for other files and other versions.
    """
    with path.open("rb", buffering=0) as file:
        end = os.fstat(file.fileno()).st_size
        start = file.read(12)
        if len(start) < 12:
            raise InputError(f"{path} is not a .sens file: found {end} bytes; copy it again")
        version, name_length = struct.unpack("<IQ", start)
        if version != 4:
            raise InputError(
                f"{path} is .sens version {version}; expected 4 (ScanNet's). "
                "Is it a .sens file at all?"
            )
        if 12 + name_length + _FIXED.size > end:
            raise InputError(
                f"{path} ends inside its header (found {end} bytes); copy or download it again"
            )
        sensor = file.read(name_length).decode("latin1")
        header = _FIXED.unpack(file.read(_FIXED.size))
        matrices = np.array(header[:64], np.float32).reshape(4, 4, 4)
        promised = header[71]
        poses, spans = _walk(file.fileno(), 12 + name_length + _FIXED.size, end, promised)
    return SensIndex(
        path=path,
        sensor=sensor,
        intrinsic_color=matrices[0],
        extrinsic_color=matrices[1],
        intrinsic_depth=matrices[2],
        extrinsic_depth=matrices[3],
        color_code=COLOR_CODES.get(header[64], str(header[64])),
        depth_code=DEPTH_CODES.get(header[65], str(header[65])),
        color_size=(header[66], header[67]),
        depth_size=(header[68], header[69]),
        depth_shift=header[70],
        promised=promised,
        poses=poses,
        spans=spans,
    )


def _walk(
    file: int, position: int, end: int, promised: int
) -> tuple[Float32[np.ndarray, "frames 4 4"], Int64[np.ndarray, "frames 3"]]:
    """Poses and spans of the complete frames from `position` on."""
    poses = bytearray()
    spans: list[tuple[int, int, int]] = []
    while len(spans) < promised and position + _FRAME.size <= end:
        head = os.pread(file, _FRAME.size, position)
        color_bytes, depth_bytes = struct.unpack_from("<2Q", head, 80)
        payload = position + _FRAME.size
        # Where the header counts a frame too many, IMU records follow. Read as a frame header,
        # they have no payload or one far larger than the file.
        if payload + color_bytes + depth_bytes > end or not color_bytes + depth_bytes:
            break
        poses += head[:64]
        spans.append((payload, color_bytes, depth_bytes))
        position = payload + color_bytes + depth_bytes
    return (
        np.frombuffer(bytes(poses), "<f4").reshape(-1, 4, 4).astype(np.float32),
        np.array(spans, np.int64).reshape(-1, 3),
    )


def load_color(path: Path, frame: int, offset: int, size: int, code: str, wh: Size) -> Image:
    """The colour of one frame."""
    data = _payload(path, offset, size)
    where = f"{path} frame {frame} colour"
    if code != "raw":
        return decode_color(data, where)
    if len(data) != wh[0] * wh[1] * 3:
        raise FrameError(f"{where}: found {len(data)} bytes, {wh[0]}x{wh[1]} RGB has another size")
    return np.frombuffer(data, np.uint8).reshape(wh[1], wh[0], 3).copy()


def load_depth(
    path: Path, frame: int, offset: int, size: int, code: str, wh: Size, units: DepthCode
) -> Depth:
    """The depth of one frame, in metres."""
    data = _payload(path, offset, size)
    where = f"{path} frame {frame} depth"
    if code == "zlib":
        with reading(where, "zlib data", FrameError):
            # One byte more than fits, so that a longer payload is noticed but not unpacked.
            unpacked = zlib.decompressobj()
            data = unpacked.decompress(data, wh[0] * wh[1] * 2 + 1)
            if not unpacked.eof:
                raise ValueError("it is cut short, or longer than a depth map")
    if len(data) != wh[0] * wh[1] * 2:
        raise FrameError(
            f"{where}: found {len(data)} bytes, {wh[0]}x{wh[1]} 16-bit depth has "
            f"{wh[0] * wh[1] * 2}"
        )
    return to_metres(np.frombuffer(data, "<u2").reshape(wh[1], wh[0]), units, where)


def _payload(path: Path, offset: int, size: int) -> bytes:
    """The bytes of a payload; FrameError where the file was truncated since it was indexed."""
    try:
        with path.open("rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, offset)
    except OSError as error:
        raise FrameError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) < size:
        raise FrameError(f"{path} at byte {offset}: found {len(data)} bytes, expected {size}")
    return data
