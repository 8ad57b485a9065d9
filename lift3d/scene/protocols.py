"""What a backend of each kind must offer. A backend is one file: frozen config, then class."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from lift3d.scene import LabelMap, Masks, Matches, Prompt, Scene, Skipped, View


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
class Matcher(Protocol):
    """Two views to correspondences."""

    def match(self, a: View, b: View) -> Matches:
        """Pixels of `a` and `b` that show the same place; empty where nothing is shared."""
        ...


@runtime_checkable
class Segmenter(Protocol):
    """An image to masks."""

    def segment(self, view: View) -> Masks:
        """Masks of everything in the view."""
        ...

    def prompt(self, view: View, prompts: Sequence[Prompt]) -> Masks:
        """One mask per prompt, in their order: the best answer to each."""
        ...

    def alternatives(self, view: View, prompt: Prompt) -> Masks:
        """Up to three answers to one prompt, small to large (subpart, part, whole)."""
        ...


@runtime_checkable
class Tracker(Protocol):
    """Masks of single views to masks whose ids persist."""

    skipped: list[Skipped]
    """Views that the last `track` left unlabelled because they cannot be read, so far."""

    def track(self, scene: Scene) -> Iterator[LabelMap]:
        """One label map per view, in view order, streaming.

        An id that appears in two views claims to be the same object in both.
        """
        ...
