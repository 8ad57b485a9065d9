"""Reader for a video: the sharpest frame of each span of motion becomes a view."""

from __future__ import annotations

import os
import tempfile
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from lift3d.datasets.colmap_scene import centred_camera
from lift3d.datasets.frames import finish
from lift3d.scene import Image, Scene, View
from lift3d.scene.errors import FrameError, InputError, option_words
from lift3d.scene.printing import is_text, only_text
from lift3d.scene.protocols import Reader

SUFFIXES = (".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm")
FLOW_WIDTH, SHARP_WIDTH = 160, 640
"""Widths in pixels for motion and for sharpness; blur is visible only at the larger one. Chosen by
hand."""
HEAD = 1 << 18
"""Bytes at the start of a Matroska file that hold its tags."""
PARTS = 6
"""Motion is summed in this many parts along each side; chosen by hand."""
NEAR = 100
"""A frame at most this far ahead is reached by decoding, a farther one by seeking; chosen by
hand."""


@dataclass(frozen=True)
class Video(Reader):
    """A video of one place from a moving camera, without poses and depth."""

    expects: ClassVar[str] = f"a video ({', '.join(s[1:] for s in SUFFIXES)})"

    motion: float = 0.06
    """Motion between two chosen frames: at most about this share of the image width, and at
    least half of it."""
    max_frames: int = 150
    """Most frames; of more, evenly spaced ones are kept."""
    focal: float | None = None
    """Focal length in pixels; unset: a guess (1.2 longest sides)."""

    def matches(self, path: Path) -> bool:
        """Whether the file has the suffix of a video, and is no recording of a depth sensor."""
        return path.is_file() and path.suffix.lower() in SUFFIXES and not has_depth(path)

    def read(self, path: Path) -> Scene:
        """The scene. Decodes the complete video once; InputError where that fails."""
        if self.motion <= 0 or self.max_frames < 2:
            raise InputError(
                f"--reader.motion is {self.motion} and --reader.max-frames {self.max_frames}; "
                "expected above 0 and at least 2"
            )
        found = _scan(path, self.motion)
        chosen = found.chosen
        if len(chosen) > self.max_frames:
            kept = np.linspace(0, len(chosen) - 1, self.max_frames).round().astype(int)
            chosen = [chosen[i] for i in kept]
        if len(chosen) < 2:
            raise InputError(
                f"{path}: the picture hardly moves in {found.total} frames; a scene needs views "
                f"from different places (or a smaller motion: "
                f"{option_words('video', 'motion', 'N')}, now {self.motion:g})"
            )
        camera = centred_camera(*found.size, self.focal)
        views = [
            View(
                name=f"frame_{frame.index:06d}",
                camera=camera,
                load_image=partial(load_frame, path, frame.index, frame.checksum),
            )
            for frame in chosen
        ]
        notes = [
            f"{len(chosen)} of {found.total} frames chosen by motion and sharpness "
            f"({found.fps:.3g} frames a second)"
        ]
        # Containers without an index only estimate their number of frames.
        lost = found.promised - found.total
        if lost > max(2, 0.01 * found.promised):
            notes.append(
                f"the video ends early: {lost} of {found.promised} frames cannot be decoded; "
                "copy it again to have them"
            )
        if self.focal is None:
            notes.append(
                "focal length guessed as 1.2 longest sides; give it in pixels with "
                f"{option_words('video', 'focal', 'N')}"
            )
        source = f"reader video at {path}"
        return finish(path, views, (), source, notes, metric=False, name=path.stem)


def has_depth(path: Path) -> bool:
    """Whether the file is an Azure Kinect's recording, a Matroska file with a track of depth."""
    if path.suffix.lower() != ".mkv":
        return False
    with path.open("rb") as file:
        return b"K4A_" in file.read(HEAD)


@dataclass(frozen=True)
class _Chosen:
    """A frame of the video; the checksum verifies that seeking has found it again."""

    index: int
    checksum: int


@dataclass(frozen=True)
class _Scan:
    chosen: list[_Chosen]
    total: int
    promised: int
    fps: float
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class _Small:
    """The data of a candidate frame."""

    index: int
    checksum: int
    sharpness: float
    grey: np.ndarray
    drift: np.ndarray
    """Motion of each part of the picture since the first frame, as shares of its width."""


def _scan(path: Path, motion: float) -> _Scan:
    """Decode the video once and choose the sharpest frame of each span of motion.

    A span starts at the last chosen frame. Frames that moved by at least half of `motion` from it
    are candidates; the first that moved by all of it ends the span.
    """
    import cv2

    capture = _open(path)
    chosen: list[_Chosen] = []
    start: _Small | None = None  # where the span starts: before the first choice, frame 0
    best: _Small | None = None
    now: _Small | None = None
    total, size = 0, (0, 0)
    for index, image in enumerate(_frames(capture)):
        total, size = index + 1, (image.shape[1], image.shape[0])
        now = _small(index, image, now)
        start = start or now
        # In the sum, shake cancels out, and motion by rotation and translation adds up.
        moved = float(np.linalg.norm(now.drift - start.drift, axis=-1).mean())
        if chosen and moved < motion / 2:
            continue
        if best is None or (moved < motion and now.sharpness > best.sharpness):
            best = now
        # The first span ends after half of `motion` from frame 0, the others after all of it.
        if moved >= (motion if chosen else motion / 2):
            chosen.append(_Chosen(best.index, best.checksum))
            start, best = best, None
    if best is not None:
        chosen.append(_Chosen(best.index, best.checksum))
    promised, fps = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    if not total:
        raise InputError(
            f"{path}: not one frame can be decoded ({path.stat().st_size} bytes); copy the video "
            "again, or convert it (`ffmpeg -i IN -c:v libx264 OUT.mp4`)"
        )
    return _Scan(chosen, total, promised, float(fps), size)


def _small(index: int, image: np.ndarray, before: _Small | None) -> _Small:
    import cv2

    height, width = image.shape[:2]
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    if width > SHARP_WIDTH:
        size = (SHARP_WIDTH, max(1, round(height * SHARP_WIDTH / width)))
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    sharpness = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    size = (FLOW_WIDTH, max(16, round(height * FLOW_WIDTH / width)))
    tiny = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    drift: np.ndarray = np.zeros((PARTS, PARTS, 2), np.float32)
    if before is not None:
        estimate = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        moved = estimate.calc(before.grey, tiny, np.zeros((*tiny.shape, 2), np.float32))
        parts = cv2.resize(moved, (PARTS, PARTS), interpolation=cv2.INTER_AREA)
        drift = before.drift + parts / FLOW_WIDTH
    return _Small(index, _checksum(image), sharpness, tiny, drift)


def load_frame(path: Path, index: int, checksum: int) -> Image:
    """One frame, RGB, identical to the one found by decoding from the start.

    In some videos seeking is inexact; then the frame is decoded from the start.
    """
    import cv2

    for exact in (False, True):
        image = _reader(path).frame(index, exact)
        if image is not None and _checksum(image) == checksum:
            return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    raise FrameError(f"{path}: frame {index} is not as it was when the video was opened")


def frame_at(path: Path, index: int) -> Image:
    """A frame of a video by its number, RGB, as stored: a rotation in the file is not applied.

    Nothing is sought, because a video of variable frame rate is sought by time. So frames in
    their order are fast, and an earlier one starts again.
    """
    import cv2

    reader = _reader(path, upright=False)
    image = reader.frame(index, exact=index < reader.next, near=index + 1)
    if image is None:
        raise FrameError(f"{path} has no frame {index}: it ends before, or is cut short")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def frame_size(path: Path) -> tuple[int, int]:
    """Width and height of a video's frames, as stored."""
    import cv2

    capture = _open(path, upright=False)
    size = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    capture.release()
    return int(size[0]), int(size[1])


class _Reader:
    """An open video and its position."""

    def __init__(self, path: Path, upright: bool) -> None:
        self.path = path
        self.upright = upright
        self.process = os.getpid()  # a fork must not share the file's position
        self.capture = _open(path, upright)
        self.next = 0

    def frame(self, index: int, exact: bool, near: int = NEAR) -> np.ndarray | None:
        """The frame; `exact` decodes from the start. Otherwise frames `near` ahead are reached by
        decoding, others by seeking.
        """
        import cv2

        if exact:
            self.capture.release()
            self.capture, self.next = _open(self.path, self.upright), 0
        elif not 0 <= index - self.next < near:
            self.capture.set(cv2.CAP_PROP_POS_FRAMES, index)
            self.next = index
        while self.next < index:
            if not self.capture.grab():
                return None
            self.next += 1
        found, image = self.capture.read()
        self.next += 1
        return image if found else None


_LOCAL = threading.local()


def _reader(path: Path, upright: bool = True) -> _Reader:
    """The open video of this thread; only the last one is kept open."""
    reader: _Reader | None = getattr(_LOCAL, "reader", None)
    kept = reader is not None and (reader.path, reader.upright) == (path, upright)
    if reader is None or not kept or reader.process != os.getpid():
        reader = _LOCAL.reader = _Reader(path, upright)
    return reader


def _open(path: Path, upright: bool = True) -> Any:
    # FFmpeg's own messages about a damaged file are off; our errors report it.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    with _utf8(path) as name:
        capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG)
    if not upright:
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
    if not capture.isOpened():
        raise InputError(
            f"{path} cannot be opened as a video (found {path.stat().st_size} bytes): it is cut "
            "short or of a kind FFmpeg does not know; copy it again"
        )
    return capture


@contextmanager
def _utf8(path: Path) -> Iterator[str]:
    """A name of the file that is UTF-8, for a while; OpenCV crashes on others."""
    if is_text(path):
        yield str(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder, f"video{only_text(path.suffix)}")
        link.symlink_to(path.absolute())
        yield str(link)


def _frames(capture: Any) -> Iterator[np.ndarray]:
    """The decoded frames, BGR, up to the end or to the first that cannot be decoded."""
    while True:
        found, image = capture.read()
        if not found:
            return
        yield image


def _checksum(image: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(image).data)
