"""The pictures that stereo compares: grey, without lens distortion, at the working size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8

from lift3d.geometry.lens import source_pixels
from lift3d.scene import Camera, View
from lift3d.scene.errors import FrameError

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Shot:
    """One picture and its camera, which has a pose and no distortion."""

    camera: Camera
    grey: UInt8[np.ndarray, "height width"]

    @staticmethod
    def of(view: View, longest: int) -> Shot:
        """The view's picture, its longer side at most `longest`. FrameError where it has none."""
        import cv2

        image = view.image()
        own = view.camera
        camera = working_camera(own, longest)
        size = (camera.width, camera.height)
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        if grey.shape[::-1] != size:
            grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
        if any(own.distortion):
            maps = source_pixels(own.resized(*size), camera)
            grey = cv2.remap(grey, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        if camera.world_from_camera is None:
            raise FrameError(f"view {view.name} has no pose")
        return Shot(camera, np.asarray(grey, np.uint8))

    def smaller(self, factor: int) -> Shot:
        """The shot with its sides divided by `factor`."""
        import cv2

        width, height = self.camera.width // factor, self.camera.height // factor
        grey = cv2.resize(self.grey, (width, height), interpolation=cv2.INTER_AREA)
        return Shot(self.camera.resized(width, height), np.asarray(grey, np.uint8))


def working_camera(camera: Camera, longest: int) -> Camera:
    """The camera at the working size, without distortion."""
    factor = min(1.0, longest / max(camera.width, camera.height))
    size = max(1, round(camera.width * factor)), max(1, round(camera.height * factor))
    return replace(camera.resized(*size), distortion=())


@dataclass(frozen=True, eq=False)
class Stack:
    """The sources of one view as arrays for kernels."""

    grey: Float32[np.ndarray, "sources rows columns"]
    size: Int64[np.ndarray, "sources 2"]
    turn: Float64[np.ndarray, "sources 3 3"]
    """`turn @ (x, y, 1) + w * shift` is the pixel in a source, for inverse depth w."""
    shift: Float64[np.ndarray, "sources 3"]

    @staticmethod
    def of(shot: Shot, sources: Sequence[Shot]) -> Stack:
        """Padded with 0 to the largest source."""
        size = np.array([each.grey.shape for each in sources], np.int64)
        grey = np.zeros((len(sources), *size.max(0)), np.float32)
        turn, shift = np.empty((len(sources), 3, 3)), np.empty((len(sources), 3))
        back = np.linalg.inv(shot.camera.K)
        for s, each in enumerate(sources):
            rows, columns = each.grey.shape
            grey[s, :rows, :columns] = each.grey
            source_from_shot = each.camera.camera_from_world @ shot.camera.pose
            turn[s] = each.camera.K @ source_from_shot[:3, :3] @ back
            shift[s] = each.camera.K @ source_from_shot[:3, 3]
        return Stack(grey, size, turn, shift)


class Kept(Generic[T]):
    """Results of `load` by number; the latest `room` are kept."""

    def __init__(self, load: Callable[[int], T], room: int) -> None:
        self._load, self._room = load, room
        self._held: dict[int, T] = {}

    def __call__(self, number: int) -> T:
        """The result for `number`, loaded where it is not kept."""
        found = self._held.pop(number) if number in self._held else self._load(number)
        self._held[number] = found
        while len(self._held) > self._room:
            del self._held[next(iter(self._held))]
        return found
