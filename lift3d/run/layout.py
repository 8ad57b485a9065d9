"""Where everything in a run folder lies: every file name of a run, once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Layout:
    """The paths of a run folder; none of them need exist.

    >>> Layout(Path("out/kitchen")).cloud.as_posix()
    'out/kitchen/cloud.ply'
    """

    folder: Path

    # What a person opens.
    @property
    def cloud(self) -> Path:
        """The labelled cloud, corrected where somebody has corrected it."""
        return self.folder / "cloud.ply"

    @property
    def cloud_labels(self) -> Path:
        """The same cloud in the colours of its objects."""
        return self.folder / "cloud_labels.ply"

    @property
    def labels(self) -> Path:
        """A label map per view, with the ids of the cloud."""
        return self.folder / "labels"

    @property
    def instances(self) -> Path:
        """The objects: size, box, confidence, colour."""
        return self.folder / "instances.json"

    @property
    def report(self) -> Path:
        """The page to look at first."""
        return self.folder / "report.html"

    @property
    def picture(self) -> Path:
        """The cloud from several sides."""
        return self.folder / "cloud.png"

    @property
    def labels_coloured(self) -> Path:
        """`labels` in colours, to look at."""
        return self.folder / "labels_coloured"

    @property
    def masks_coloured(self) -> Path:
        """`masks` in colours, to look at."""
        return self.folder / "masks_coloured"

    @property
    def report_outputs(self) -> tuple[Path, ...]:
        """What the stage `report` writes."""
        return self.report, self.picture, self.labels_coloured, self.masks_coloured

    # What the stages leave for each other.
    @property
    def scene(self) -> Path:
        """Views, cameras, where their depth is, and where the pictures come from."""
        return self.folder / "scene.json"

    @property
    def depth(self) -> Path:
        """Depth maps and the cloud that the reconstruction made."""
        return self.folder / "depth"

    @property
    def reconstruction(self) -> Path:
        """What the reconstruction keeps for itself."""
        return self.folder / "reconstruction"

    @property
    def points(self) -> Path:
        """The fused cloud without labels."""
        return self.folder / "points.npz"

    @property
    def masks(self) -> Path:
        """A label map per view before the views agree on ids.

        Where masks overlap or have scores, `VIEW.masks.npz` beside it has all of them
        (`lift3d.scene.mask_sets`).
        """
        return self.folder / "masks"

    @property
    def automatic(self) -> Automatic:
        """What the association found, never edited."""
        return Automatic(self.folder / "automatic")

    @property
    def edits(self) -> Path:
        """What a person corrected, one edit a line."""
        return self.folder / "edits.jsonl"

    @property
    def consistency(self) -> Path:
        """H, reprojection, and scores where the scene has a truth."""
        return self.folder / "consistency.json"

    @property
    def heat(self) -> Path:
        """A picture per view of where the others disagree."""
        return self.folder / "heat"

    # What the run says of itself.
    @property
    def record(self) -> Path:
        """Settings, versions, machine, seconds; a run that has it is finished."""
        return self.folder / "run.json"

    @property
    def evaluation(self) -> Path:
        """Scores that `lift3d evaluate` has written."""
        return self.folder / "evaluation.json"

    @property
    def exports(self) -> Path:
        """Other programs' formats, each in a folder of its own."""
        return self.folder / "export"


@dataclass(frozen=True)
class Automatic:
    """The folder of the association's own results."""

    folder: Path

    @property
    def labels(self) -> Path:
        """A label map per view."""
        return self.folder / "labels"

    @property
    def cloud(self) -> Path:
        """Object, score and class of each point of `Layout.points`."""
        return self.folder / "cloud.npz"

    @property
    def objects(self) -> Path:
        """Each object's confidence and how many views show it."""
        return self.folder / "objects.json"

    @property
    def assignments(self) -> Path:
        """Which mask of which view became which object, and why some became none."""
        return self.folder / "assignments.npz"

    @property
    def surface(self) -> Path:
        """Superpoints, which of them touch, and how they were joined to objects."""
        return self.folder / "surface.npz"
