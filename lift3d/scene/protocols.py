"""The interfaces of backends.

A backend is one file with two classes: its settings, a frozen dataclass derived from a `...Config`
of this module, and the class that `build` of the settings returns, which does the work. Settings
also declare the backend's properties (`needs_matcher`, `ids_agree`, ...), so that no code depends
on backend names. `register` or an entry point adds a backend: docs/backends.md has an example of
each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
from jaxtyping import Float32

from lift3d.scene import Masks, Matches, Points, Prompt, Scene, Skipped, View
from lift3d.scene.mask_sets import ViewMasks

Asked: TypeAlias = Literal["masks", "prompts", "features"]
"""What a tracker asks a segmenter about a view."""


@runtime_checkable
class Reader(Protocol):
    """Reads an outside format into a scene: a frozen dataclass of options, all with defaults.

    A reader has no `build`: the options have the method `read`.
    """

    expects: ClassVar[str]
    """A short description of the format, for the message when no reader fits."""
    takes_words: ClassVar[bool] = False
    """Whether INPUT need not be an existing path (a word, an address)."""
    guesses: ClassVar[bool] = False
    """Whether its defaults guess the layout; such readers are tried last."""

    def matches(self, path: Path) -> bool:
        """Whether `path` looks like this format; cheap, decodes no image."""
        ...

    def read(self, path: Path) -> Scene:
        """The scene; no image is decoded. InputError where it cannot be read."""
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
        """The scene with every view posed; views without a pose are listed in `skipped`.

        `folder` is for files of its own: to resume after a kill, or for the user (a COLMAP
        model). Without it a temporary folder or memory is used.
        """
        ...


@runtime_checkable
class Fuser(Protocol):
    """Depth maps to one point cloud."""

    notes: tuple[str, ...]
    """Remarks on the last `fuse` for the user: automatic choices, dropped data."""
    skipped: tuple[Skipped, ...]
    """Views that the last `fuse` could not use, and why."""

    def fuse(self, scene: Scene, progress: Callable[[int, int], None] | None = None) -> Points:
        """The surface in the world frame. InputError where no view can be used."""
        ...


@runtime_checkable
class Matcher(Protocol):
    """Two views to correspondences."""

    def match(self, a: View, b: View) -> Matches:
        """Pixels of `a` and `b` that show the same place; empty where there are none."""
        ...


@runtime_checkable
class Segmenter(Protocol):
    """One image to masks."""

    def check(self, scene: Scene) -> None:
        """InputError where the scene cannot be segmented; called before long work begins."""
        return

    def segment(self, view: View) -> Masks:
        """Masks of everything in the view."""
        ...

    def prompt(self, view: View, prompts: Sequence[Prompt]) -> Masks:
        """One mask per prompt, in their order: the best one for each."""
        ...

    def alternatives(self, view: View, prompt: Prompt) -> Masks:
        """Up to three masks for one prompt, small to large (subpart, part, whole object)."""
        return self.prompt(view, [prompt])


@runtime_checkable
class HasFeatures(Protocol):
    """A segmenter that also gives features of the image."""

    def features(self, view: View) -> Float32[np.ndarray, "rows columns channels"]:
        """Features on a regular grid over the image; the same number of channels in all views."""
        ...


@runtime_checkable
class InThreads(Protocol):
    """A segmenter whose `segment` may be called from several threads at once."""

    threads: int
    """Views at a time; each needs the memory of its pictures."""


@runtime_checkable
class CanPrepare(Protocol):
    """A segmenter that works on a view once before it can be prompted, as SAM encodes it.

    Another process does that work; without this the process that prompts does it all.
    """

    def prepared(self, view: View) -> Any:
        """The result of that work, picklable."""
        ...

    def use_prepared(self, view: View, prepared: Any) -> None:
        """Answer the next prompts for this view from the result."""
        ...


@runtime_checkable
class Tracker(Protocol):
    """Masks of single views to masks with ids across views."""

    skipped: list[Skipped]
    """Unreadable views that the last `track` has left unlabelled so far."""

    def track(self, scene: Scene) -> Iterator[ViewMasks]:
        """Yield the masks of each view, in scene order: a label map each.

        Where masks overlap or have scores, a `MaskSet` (`lift3d.scene.mask_sets.view_masks`) in
        its place keeps them for the association.

        The same id in two views stands for the same object.
        """
        ...


@runtime_checkable
class SceneSegmenter(Protocol):
    """All views of a scene to label maps: a network that sees them together, or segmenter and
    tracker (`lift3d.segmentation.tracked`).
    """

    def check(self, scene: Scene) -> None:
        """InputError where the scene cannot be segmented; called before long work begins."""
        return

    @property
    def skipped(self) -> list[Skipped]:
        """Unreadable views that `label` has left unlabelled so far."""
        return []

    def label(
        self, scene: Scene, prompts: Mapping[str, Sequence[Prompt]] | None = None
    ) -> Iterator[ViewMasks]:
        """Yield the masks of each view, in scene order: of all objects, or of the prompted ones.

        A label map each, or a `MaskSet` where masks overlap or have scores.

        `prompts` is keyed by view name. The same id in two views stands for the same object.
        """
        ...


class BackendConfig:
    """Settings of a backend: the subclasses are frozen dataclasses whose fields are options."""

    def settled(self, seed: int) -> BackendConfig:
        """The same settings with open fields filled in, as `run.json` records them.

        `seed` is the run's.
        """
        return self

    def for_scene(self, scene: Scene) -> BackendConfig:
        """The same settings with lengths, such as tolerances, at the scale of the scene."""
        return self


class Seeded(BackendConfig):
    """Settings with a field `seed`; None takes the run's seed."""

    seed: int | None

    def settled(self, seed: int) -> BackendConfig:
        """The same with a seed."""
        return self if self.seed is not None else replace(self, seed=seed)  # type: ignore[type-var]


class ReconstructorConfig(BackendConfig):
    """Settings of a `Reconstructor`."""

    def for_masks(self, given: bool) -> ReconstructorConfig:
        """These settings where masks are given rather than made from the pictures, or not."""
        return self

    @property
    def wants_stereo(self) -> bool:
        """Whether depth of posed views is estimated from the pictures where none has any."""
        return False

    def build(self) -> Reconstructor:
        """InputError where settings make no sense, MissingExtra without its libraries."""
        raise NotImplementedError(f"{type(self).__name__}.build")


class FuserConfig(BackendConfig):
    """Settings of a `Fuser`."""

    voxel: float | None
    """Size of a fused point in world units; None chooses it by the scene. Required field."""

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

    made_elsewhere: ClassVar[bool] = False
    """Whether the masks were there before; what pictures they were made on is then unknown."""
    masks_are_surfaces: ClassVar[bool] = False
    """Whether a mask is a patch of surface rather than an object. With dense depth, objects are
    then found by the shape of the fused surface (`association.by_shape`)."""

    @property
    def ids_agree(self) -> bool:
        """Whether equal ids in different views always mean the same object."""
        return False


class SegmenterConfig(SegmentationConfig):
    """Settings of a `Segmenter`."""

    gives_features: ClassVar[bool] = False
    """Whether the segmenter it builds is a `HasFeatures`."""

    def build(self) -> Segmenter:
        """InputError where settings make no sense, MissingExtra without its libraries."""
        raise NotImplementedError(f"{type(self).__name__}.build")


class SceneSegmenterConfig(SegmentationConfig):
    """Settings of a `SceneSegmenter`; it assigns ids itself, so no tracker follows it."""

    def build(self) -> SceneSegmenter:
        """InputError where settings make no sense, MissingExtra without its libraries."""
        raise NotImplementedError(f"{type(self).__name__}.build")


class TrackerConfig(BackendConfig):
    """Settings of a `Tracker`."""

    needs_matcher: ClassVar[bool] = False
    """Whether it needs a matcher; a matcher is built only then."""
    keeps_ids: ClassVar[bool] = False
    """Whether it keeps the ids of the masks, which are then taken as correct."""

    def needs_segmenter(self, segmentation: SegmenterConfig) -> bool:
        """Whether it uses the segmenter of these settings; built only then."""
        return True

    def asks(self, number: int) -> frozenset[Asked]:
        """What it will ask the segmenter about view `number`, so that workers can do it ahead.

        A wrong answer changes no result: what is missing is done when it is asked for.
        """
        return frozenset(("masks", "prompts"))

    def check(self) -> None:
        """InputError where settings make no sense; called before long work begins."""

    def build(self, segmenter: Any, matcher: Any = None) -> Tracker:
        """The tracker on a `Segmenter` and a `Matcher`; None where it does not need them."""
        raise NotImplementedError(f"{type(self).__name__}.build")
