"""Read existing masks: one file or folder per view, named after the view."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lift3d.scene import Camera, Masks, Prompt, Scene, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.guarded import UNPACKED
from lift3d.scene.guarded.arrays import load_npy, load_npz
from lift3d.scene.labelmaps import find_label_map, read_label_map
from lift3d.scene.protocols import Segmenter, SegmenterConfig
from lift3d.segmentation.answers import best_mask


@dataclass(frozen=True)
class FolderConfig(SegmenterConfig):
    """Existing masks: PATH/<view>.png with an id per pixel, <view>.npy or .npz with a stack
    (masks, height, width), or a folder <view>/ with one binary PNG per mask.
    """

    path: Path
    """The folder of masks. `lift3d info SCAN` prints the names of the views."""
    ids: Literal["per-view", "consistent"] = "per-view"
    """`consistent`: equal ids in different views are the same object."""
    allow_missing: bool = False
    """Treat a view without a mask file as a view without masks, instead of an error."""

    @property
    def ids_agree(self) -> bool:
        """Whether `ids` is `consistent`."""
        return self.ids == "consistent"

    def build(self) -> Folder:
        """The segmenter; raises InputError if the folder does not exist."""
        if not self.path.is_dir():
            raise InputError(
                f"{self.path} is not a folder; --segmentation.path expects the folder with the "
                "masks, one <view>.png per view"
            )
        return Folder(self)


class Folder(Segmenter):
    """Masks read from files; masks of the image's aspect ratio are resized to it."""

    def __init__(self, config: FolderConfig) -> None:
        self._config = config

    def check(self, scene: Scene) -> None:
        """Raise InputError if views have no masks, before any work is done."""
        missing = [view.name for view in scene.views if self._find(view.name) is None]
        if not missing or (self._config.allow_missing and len(missing) < len(scene)):
            return
        held = [p for p in self._config.path.iterdir() if not p.name.startswith(".")]
        examples = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        found = ", ".join(sorted(p.name for p in held)[:3]) or "nothing"
        hint = (
            "name the files after the views"
            if len(missing) == len(scene)
            else "add them, or pass --segmentation.allow-missing if those views have no objects"
        )
        raise InputError(
            f"{self._config.path} has masks for {len(scene) - len(missing)} of {len(scene)} views; "
            f"none for {examples} (found {len(held)} files: {found}); {hint}"
        )

    def segment(self, view: View) -> Masks:
        """The masks of the view, with the ids of the files."""
        path = self._find(view.name)
        if path is None:
            if self._config.allow_missing:
                shape = (0, view.camera.height, view.camera.width)
                return Masks(np.zeros(shape, bool), np.zeros(0, np.float32), np.zeros(0, np.int32))
            raise FrameError(f"no masks for view {view.name} in {self._config.path}")
        masks: Iterable[np.ndarray]
        if path.is_dir():
            files = sorted(path.glob("*.png"))
            if not files:
                raise FrameError(f"{path} holds no PNG; write one binary mask per object")
            count, masks = len(files), map(read_label_map, files)
        elif path.suffix in (".npy", ".npz"):
            masks = _stack(path)
            count = len(masks)
        else:
            return Masks.from_label_map(_fitted(read_label_map(path), path, view.camera))
        pixels = count * view.camera.height * view.camera.width
        if pixels > max(UNPACKED, getattr(masks, "nbytes", 0)):
            raise FrameError(
                f"{path} has {count} masks, {pixels / 1e9:.1f} GB at the size of the image; "
                "expected fewer"
            )
        stack = np.zeros((count, view.camera.height, view.camera.width), bool)
        for out, mask in zip(stack, masks, strict=True):
            np.not_equal(_fitted(mask, path, view.camera), 0, out=out)
        ids = np.arange(1, len(stack) + 1, dtype=np.int32)
        return Masks(stack, np.ones(len(stack), np.float32), ids)

    def prompt(self, view: View, prompts: Sequence[Prompt]) -> Masks:
        """For each prompt, the mask that classifies most of its points correctly."""
        masks = self.segment(view)
        return best_mask(masks, prompts)

    def _find(self, name: str) -> Path | None:
        labels = find_label_map(self._config.path, name)
        if labels is not None:
            return labels
        others = [self._config.path / f"{name}{suffix}" for suffix in (".npy", ".npz", "")]
        return next((path for path in others if path.exists()), None)


def _stack(path: Path) -> np.ndarray:
    if path.suffix == ".npz":
        held = load_npz(path, error=FrameError)
        if not held:
            raise FrameError(f"mask stack {path} holds no array; write it again")
        stack = next(iter(held.values()))
    else:
        stack = load_npy(path, FrameError)
    if stack.ndim != 3 or stack.dtype.kind not in "bui":
        raise FrameError(
            f"{path} holds {stack.dtype} {stack.shape}; expected a boolean stack "
            "(masks, height, width)"
        )
    return stack


def _fitted(mask: np.ndarray, path: Path, camera: Camera) -> np.ndarray:
    """The mask resized to the image by nearest neighbour, which keeps ids."""
    height, width = mask.shape
    if not mask.size:
        raise FrameError(f"{path} holds masks of {width}x{height} pixels; write it again")
    if (width, height) == (camera.width, camera.height):
        return mask
    if abs(width * camera.height - height * camera.width) > max(camera.width, camera.height):
        raise InputError(
            f"{path} is {width}x{height}, its image {camera.width}x{camera.height}: the aspect "
            "ratios differ, so the mask cannot be resized; create masks of the full image"
        )
    rows = ((np.arange(camera.height) + 0.5) * height / camera.height).astype(int)
    columns = ((np.arange(camera.width) + 0.5) * width / camera.width).astype(int)
    return mask[rows][:, columns]
