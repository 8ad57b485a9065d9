"""Run the network on the pictures of a window: cameras, depth, and tracks where they are wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float32, Float64
from torch import Tensor

from lift3d.networks import Precision
from lift3d.networks.device import choose_device, choose_precision, out_of_memory
from lift3d.networks.vggt.camera import matrices
from lift3d.networks.vggt.network import VGGT
from lift3d.networks.vggt.preprocess import Prepared
from lift3d.scene import invert
from lift3d.scene.errors import InputError

T = TypeVar("T")
FIELDS = (0.02, 3.0)
"""Narrowest and widest field of view in radians: the network may say 0, which is no camera."""


@dataclass(frozen=True, eq=False)
class Tracked:
    """Points of one picture found in all pictures of the window."""

    query: int
    """The picture with the points, counted in the window."""
    xy: Float32[np.ndarray, "pictures points 2"]
    """Pixels of the network's input."""
    visibility: Float32[np.ndarray, "pictures points"]
    """0 to 1."""
    confidence: Float32[np.ndarray, "pictures points"]
    """0 to 1."""


@dataclass(frozen=True, eq=False)
class WindowPrediction:
    """What the network says of some pictures that it saw together.

    The world is the camera of the first picture; the unit is the network's own, another in each
    window. In K, centres of pixels are whole numbers.
    """

    world_from_camera: Float64[np.ndarray, "pictures 4 4"]
    K: Float64[np.ndarray, "pictures 3 3"]
    depth: Float32[np.ndarray, "pictures height width"]
    confidence: Float32[np.ndarray, "pictures height width"]
    """1 and above; 0 on padding."""
    tracks: tuple[Tracked, ...] = ()

    def arrays(self) -> dict[str, np.ndarray]:
        """Named arrays to store. Half precision (0.05 %) is far finer than the accuracy."""
        largest = float(np.finfo(np.float16).max)
        stored = {"world_from_camera": self.world_from_camera, "K": self.K}
        for name in ("depth", "confidence"):
            stored[name] = np.clip(getattr(self, name), 0, largest).astype(np.float16)
        for each in self.tracks:
            stored |= {
                f"xy_{each.query}": each.xy,
                f"visibility_{each.query}": each.visibility,
                f"confidence_{each.query}": each.confidence,
            }
        return stored

    @staticmethod
    def from_arrays(stored: dict[str, np.ndarray]) -> WindowPrediction:
        """From arrays as `arrays` names them."""
        queries = sorted(int(name[3:]) for name in stored if name.startswith("xy_"))
        return WindowPrediction(
            stored["world_from_camera"],
            stored["K"],
            stored["depth"].astype(np.float32),
            stored["confidence"].astype(np.float32),
            tuple(
                Tracked(k, *(stored[f"{name}_{k}"] for name in ("xy", "visibility", "confidence")))
                for k in queries
            ),
        )


@dataclass(frozen=True)
class PredictorConfig:
    """Device, precision and memory of the network."""

    device: str = "auto"
    """'cpu', 'cuda', 'cuda:1', ...; auto takes a GPU where there is one."""
    precision: Precision = "auto"
    """Precision of the transformer; auto is bfloat16 with hardware support, else float32."""
    chunk: int | None = None
    """Pictures at a time where they do not depend on each other; None is 8 on a GPU, 1 on a CPU."""

    def build(self, model: VGGT) -> Predictor:
        """The predictor with these settings."""
        if self.chunk is not None and self.chunk < 1:
            raise InputError(f"chunk is {self.chunk}; it must be 1 or more")
        return Predictor(model, self)


class Predictor:
    """Runs the network. It moves the given model and changes its precision."""

    def __init__(self, model: VGGT, config: PredictorConfig = PredictorConfig()) -> None:
        self.device = choose_device(config.device)
        self.precision = choose_precision(config.precision, self.device)
        self.model = model.to(self.device).compute_in(self.precision)
        self.model.chunk = config.chunk or (8 if self.device.type == "cuda" else 1)

    def window(
        self, images: Sequence[Prepared], queries: Sequence[int] = (), points: int = 0
    ) -> WindowPrediction:
        """Cameras and depth of pictures of one size, all seen together.

        From each picture in `queries` about `points` points, evenly spread, are tracked. The
        tracker follows points of its first picture, so the feature maps are put in that order.
        """

        def run() -> WindowPrediction:
            tokens = self.model.aggregate(self._batch(images))
            encoded = self.model.camera(tokens)[-1]
            fields = encoded[..., 7:].clamp(*FIELDS)
            encoded = torch.cat([encoded[..., :7], fields], -1)
            pose, K = matrices(encoded, tokens.height, tokens.width)
            depth, confidence = self.model.depth(tokens)
            tracks = []
            features = self.model.track_features(tokens) if len(queries) else None
            for query in queries:
                assert features is not None
                order = [query, *(k for k in range(len(images)) if k != query)]
                start = torch.from_numpy(spread(images[query], points)[None]).to(self.device)
                found = self.model.track(features[:, order], start)
                back = np.argsort(order)
                tracks.append(
                    Tracked(
                        query,
                        *(
                            _numpy(each[0])[back]
                            for each in (found.xy[-1], found.visibility, found.confidence)
                        ),
                    )
                )
            inside = np.stack([image.inside for image in images])
            return WindowPrediction(
                _poses(_numpy(pose[0])),
                _centred(_numpy(K[0])),
                np.where(inside, _numpy(depth[0, ..., 0]), np.float32(0)),
                np.where(inside, _numpy(confidence[0]), np.float32(0)),
                tuple(tracks),
            )

        return self._careful(run, f"{len(images)} pictures at once")

    def features(self, images: Sequence[Prepared]) -> Float32[np.ndarray, "pictures channels"]:
        """One vector a picture, by which pictures that show the same are known: the mean token."""

        def run() -> np.ndarray:
            found = []
            for image in images:
                with self.model.mixed(self.device):
                    tokens = self.model.aggregator.embed(self._batch([image])[0], 1)
                found.append(_numpy(tokens[0].float().mean(0)))
            return np.stack(found)

        return self._careful(run, "one picture")

    def tracked(
        self, first: Prepared, second: Prepared, start: Float32[np.ndarray, "points 2"]
    ) -> Tracked:
        """Where points of the first picture are in the second; both have one size."""

        def run() -> Tracked:
            tokens = self.model.aggregate(
                self._batch([first, second]), self.model.config.intermediate_layer_idx
            )
            features = self.model.track_features(tokens)
            found = self.model.track(features, torch.from_numpy(start[None]).to(self.device))
            return Tracked(
                0, *(_numpy(x[0]) for x in (found.xy[-1], found.visibility, found.confidence))
            )

        return self._careful(run, "2 pictures at once")

    def _batch(self, images: Sequence[Prepared]) -> Tensor:
        return torch.from_numpy(np.stack([image.pixels for image in images])[None]).to(self.device)

    def _careful(self, run: Callable[[], T], what: str) -> T:
        """`run` with fewer pictures at a time whenever memory runs out."""
        while True:
            try:
                with torch.inference_mode(), self._exact():
                    return run()
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if self.model.chunk == 1:
                    raise InputError(
                        f"out of memory: VGGT saw {what} on {self.device}. Use a smaller window "
                        "(--reconstruction.window 8), a smaller size (a multiple of 14), "
                        "precision 'bfloat16', or device 'cpu'"
                    ) from error
                self.model.chunk //= 2
            if self.device.type == "cuda":  # outside `except`, where the error's tensors are freed
                torch.cuda.empty_cache()

    def _exact(self) -> AbstractContextManager[None]:
        """A context without TF32, which rounds the inputs of convolutions to 10 bits."""
        if self.device.type == "cuda":
            return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)
        return nullcontext()


def spread(image: Prepared, points: int) -> Float32[np.ndarray, "points_ 2"]:
    """About so many pixels (x, y), at the centres of a regular grid over the picture."""
    height = image.height - image.top - image.bottom
    width = image.width - image.left - image.right
    columns = max(round((points * width / height) ** 0.5), 1)
    rows = max(round(points / columns), 1)
    x = image.left + (np.arange(columns) + 0.5) * width / columns - 0.5
    y = image.top + (np.arange(rows) + 0.5) * height / rows - 0.5
    return np.stack(np.meshgrid(x, y), -1).reshape(-1, 2).astype(np.float32)


def _poses(camera_from_world: np.ndarray) -> Float64[np.ndarray, "pictures 4 4"]:
    whole = np.tile(np.eye(4), (len(camera_from_world), 1, 1))
    whole[:, :3] = camera_from_world
    return np.stack([invert(each) for each in whole])


def _centred(K: np.ndarray) -> Float64[np.ndarray, "pictures 3 3"]:
    """K with whole numbers at centres of pixels: the picture's middle is the same place."""
    K = K.astype(np.float64)
    K[:, :2, 2] -= 0.5
    return K


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().contiguous().numpy()
