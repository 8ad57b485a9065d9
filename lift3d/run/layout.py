"""Every file name of a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


def run_of(path: Path) -> Path:
    """The run folder in which a file of a run lies; for any other path, the path itself."""
    above = path.parents[:2] if path.is_file() else ()
    return next((each for each in above if Layout(each).record.is_file()), path)


@dataclass(frozen=True)
class Layout:
    """The paths in a run folder, whether they exist or not.

    >>> Layout(Path("out/kitchen")).cloud.as_posix()
    'out/kitchen/cloud.ply'
    """

    folder: Path

    # What a person opens.
    @property
    def cloud(self) -> Path:
        """The labelled cloud, with corrections."""
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
        """The page to open first."""
        return self.folder / "report.html"

    @property
    def picture(self) -> Path:
        """The cloud from several sides."""
        return self.folder / "cloud.png"

    @property
    def labels_coloured(self) -> Path:
        """`labels` in colours, for people."""
        return self.folder / "labels_coloured"

    @property
    def masks_coloured(self) -> Path:
        """`masks` in colours, for people."""
        return self.folder / "masks_coloured"

    @property
    def report_outputs(self) -> tuple[Path, ...]:
        """Outputs of the stage `report`."""
        return self.report, self.picture, self.labels_coloured, self.masks_coloured

    # Results that one stage writes and another reads.
    @property
    def scene(self) -> Path:
        """Views, cameras, paths of their depth maps, and the source of the pictures."""
        return self.folder / "scene.json"

    @property
    def depth(self) -> Path:
        """Depth maps and the cloud that the reconstruction made."""
        return self.folder / "depth"

    @property
    def stereo(self) -> Path:
        """Depth maps estimated from the pictures, and `stereo.json` with their cameras."""
        return self.folder / "stereo"

    @property
    def reconstruction(self) -> Path:
        """Intermediate files of the reconstruction."""
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
        """The association's results before corrections."""
        return Automatic(self.folder / "automatic")

    @property
    def edits(self) -> Path:
        """A person's corrections, one edit per line."""
        return self.folder / "edits.jsonl"

    @property
    def edit_files(self) -> Path:
        """Points and painted pixels of edits."""
        return self.folder / "edits"

    @property
    def consistency(self) -> Path:
        """H, reprojection, and scores where the scene has a truth."""
        return self.folder / "consistency.json"

    @property
    def automatic_check(self) -> Path:
        """The numbers of the automatic labels, to compare corrected ones with."""
        return self.folder / ".stages" / "checks" / "automatic.json"

    @property
    def heat(self) -> Path:
        """A picture per view that shows where other views disagree."""
        return self.folder / "heat"

    # Records about the run, and results for other programs.
    @property
    def record(self) -> Path:
        """Settings, versions, machine, seconds; it exists only in a finished run."""
        return self.folder / "run.json"

    @property
    def evaluation(self) -> Path:
        """Scores from `lift3d evaluate`."""
        return self.folder / "evaluation.json"

    @property
    def exports(self) -> Path:
        """Exports to other programs' formats, each in its own folder."""
        return self.folder / "export"


@dataclass(frozen=True)
class Automatic:
    """The folder of the association's results before corrections."""

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
        """Each object's confidence and number of views."""
        return self.folder / "objects.json"

    @property
    def assignments(self) -> Path:
        """Mask of each view -> object, or the reason why it has none."""
        return self.folder / "assignments.npz"

    @property
    def surface(self) -> Path:
        """Superpoints, their adjacency, and how they were merged into objects."""
        return self.folder / "surface.npz"
