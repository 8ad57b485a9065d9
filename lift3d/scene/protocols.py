"""What a backend of each kind must offer.

A backend is one file with two classes: its settings, a frozen dataclass that is a `...Config` of
this module, and what the settings' `build` makes, which does the work. Settings also say what the
rest of lift3d has to know of the backend (`needs_matcher`, `ids_agree`, ...), so that nothing goes
by names. `register` or an entry point makes a backend known: docs/backends.md has one of each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

from lift3d.scene import Masks, Matches, Points, Prompt, Scene, Skipped, View
from lift3d.scene.mask_sets import ViewMasks


@runtime_checkable
class Reader(Protocol):
    """An outside format to a scene: a frozen dataclass of options, all with defaults.

    There is nothing to build: the options read.
    """

    expects: ClassVar[str]
    """What it reads, in words, for the message when no reader fits."""
    takes_words: ClassVar[bool] = False
    """Whether INPUT need not be a path that exists (a word, an address)."""
    guesses: ClassVar[bool] = False
    """Whether its defaults are a guess about the layout: such readers are asked last."""

    def matches(self, path: Path) -> bool:
        """Whether `path` looks like this format; cheap, decodes no image."""
        ...

    def read(self, path: Path) -> Scene:
        """The scene, lazily: no image is decoded. InputError where it cannot be read."""
        ...


@runtime_checkable
class Reconstructor(Protocol):
    """Images to cameras and depth."""

    def reconstruct(
        self,
        scene: Scene,
        progress: Callable[[int, int], None] | None = None,
        folder: Path | None = None,
    ) -> Scene:
        """The scene with every view posed; views that cannot be are skipped and counted.

        `folder` is where it may leave files of its own, to go on from after a kill or for the
        user (a COLMAP model); without one it uses a temporary folder or memory.
        """
        ...


@runtime_checkable
class Fuser(Protocol):
    """Depth maps to one point cloud."""

    notes: tuple[str, ...]
    """What the last `fuse` chose by itself and dropped, in words."""
    skipped: tuple[Skipped, ...]
    """Views that the last `fuse` could not use, and why."""

    def fuse(self, scene: Scene, progress: Callable[[int, int], None] | None = None) -> Points:
        """The surface in the world frame. InputError where no view can be used."""
        ...


@runtime_checkable
class Matcher(Protocol):
    """Two views to correspondences."""

    def match(self, a: View, b: View) -> Matches:
        """Pixels of `a` and `b` that show the same place; empty where nothing is shared."""
        ...


@runtime_checkable
class Segmenter(Protocol):
    """One image to masks."""

    def check(self, scene: Scene) -> None:
        """InputError where the scene cannot be segmented: asked before long work begins."""
        return

    def segment(self, view: View) -> Masks:
        """Masks of everything in the view."""
        ...

    def prompt(self, view: View, prompts: Sequence[Prompt]) -> Masks:
        """One mask per prompt, in their order: the best answer to each."""
        ...

    def alternatives(self, view: View, prompt: Prompt) -> Masks:
        """Up to three answers to one prompt, small to large (subpart, part, whole)."""
        return self.prompt(view, [prompt])


@runtime_checkable
class HasFeatures(Protocol):
    """A segmenter that also gives features of the image."""

    def features(self, view: View) -> Float32[np.ndarray, "rows columns channels"]:
        """Features on an even grid over the image, row by row; the same channels in all views."""
        ...


@runtime_checkable
class Tracker(Protocol):
    """Masks of single views to masks whose ids persist."""

    skipped: list[Skipped]
    """Views that the last `track` left unlabelled because they cannot be read, so far."""

    def track(self, scene: Scene) -> Iterator[ViewMasks]:
        """The masks of each view, in scene order, streaming: a label map each.

        Where masks overlap or have scores, a `MaskSet` (`lift3d.scene.mask_sets.view_masks`) in
        its place keeps them for the association.

        An id that appears in two views claims to be the same object in both.
        """
        ...


@runtime_checkable
class SceneSegmenter(Protocol):
    """All views of a scene to label maps: a network that sees them together, or segmenter and
    tracker (`lift3d.segmentation.tracked`).
    """

    def check(self, scene: Scene) -> None:
        """InputError where the scene cannot be segmented: asked before long work begins."""
        return

    @property
    def skipped(self) -> list[Skipped]:
        """Views that `label` left unlabelled so far because they cannot be read."""
        return []

    def label(
        self, scene: Scene, prompts: Mapping[str, Sequence[Prompt]] | None = None
    ) -> Iterator[ViewMasks]:
        """The masks of each view, in scene order: of everything, or of what is prompted.

        A label map each, or a `MaskSet` where masks overlap or have scores.

        `prompts` are by the name of the view that they are in. An id that appears in two views
        claims to be the same object in both.
        """
        ...


class BackendConfig:
    """Settings of a backend: the subclasses are frozen dataclasses whose fields are options."""

    def settled(self, seed: int) -> BackendConfig:
        """The same with everything decided that was left open, as `run.json` records it.

        `seed` is the run's.
        """
        return self

    def for_scene(self, scene: Scene) -> BackendConfig:
        """The same with what follows the scale of the reconstructed scene, such as tolerances."""
        return self


class Seeded(BackendConfig):
    """Settings with a field `seed`, which is the run's where it is None."""

    seed: int | None

    def settled(self, seed: int) -> BackendConfig:
        """The same with a seed."""
        return self if self.seed is not None else replace(self, seed=seed)  # type: ignore[type-var]


class ReconstructorConfig(BackendConfig):
    """Settings of a `Reconstructor`."""

    def build(self) -> Reconstructor:
        """InputError where settings make no sense, MissingExtra without its libraries."""
        raise NotImplementedError(f"{type(self).__name__}.build")


class FuserConfig(BackendConfig):
    """Settings of a `Fuser`."""

    voxel: float | None
    """A field of every one: the size of a fused point in world units; None: by the scene."""

    def build(self) -> Fuser:
        """InputError where settings make no sense."""
        raise NotImplementedError(f"{type(self).__name__}.build")


class MatcherConfig(BackendConfig):
    """Settings of a `Matcher`."""

    def build(self) -> Matcher:
        """InputError where settings make no sense, MissingExtra without its libraries."""
        raise NotImplementedError(f"{type(self).__name__}.build")


class SegmentationConfig(BackendConfig):
    """Where masks come from: settings of a `Segmenter` or of a `SceneSegmenter`."""

    masks_are_surfaces: ClassVar[bool] = False
    """Whether a mask is a piece of surface rather than an object. Where depth is dense, objects
    are then found by the shape of the fused surface (`association.by_shape`)."""

    @property
    def ids_agree(self) -> bool:
        """Whether equal ids in different views are the same object for certain."""
        return False


class SegmenterConfig(SegmentationConfig):
    """Settings of a `Segmenter`."""

    gives_features: ClassVar[bool] = False
    """Whether what it builds `HasFeatures`."""

    def build(self) -> Segmenter:
        """InputError where settings make no sense, MissingExtra without its libraries."""
        raise NotImplementedError(f"{type(self).__name__}.build")


class SceneSegmenterConfig(SegmentationConfig):
    """Settings of a `SceneSegmenter`: it gives its own ids, so there is no tracker after it."""

    def build(self) -> SceneSegmenter:
        """InputError where settings make no sense, MissingExtra without its libraries."""
        raise NotImplementedError(f"{type(self).__name__}.build")


class TrackerConfig(BackendConfig):
    """Settings of a `Tracker`."""

    needs_matcher: ClassVar[bool] = False
    """Whether it compares views; a matcher is built only for those that do."""
    keeps_ids: ClassVar[bool] = False
    """Whether ids of the masks are kept and taken for certain."""

    def needs_segmenter(self, segmentation: SegmenterConfig) -> bool:
        """Whether it would use what these settings build; if not, nothing is built."""
        return True

    def check(self) -> None:
        """InputError where settings make no sense: asked before long work begins."""

    def build(self, segmenter: Any, matcher: Any = None) -> Tracker:
        """Over a `Segmenter` and a `Matcher`; None for what it says it does not need."""
        raise NotImplementedError(f"{type(self).__name__}.build")
