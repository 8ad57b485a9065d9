"""A finished run: lazy access to everything in its folder, scores and exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np
from jaxtyping import Int64

from lift3d.association.assignments import Assignments
from lift3d.association.surface import Surface
from lift3d.correction.edits import EditFile
from lift3d.correction.history import Corrections
from lift3d.export.content import Options
from lift3d.export.instances import Object
from lift3d.export.ply import read_cloud
from lift3d.run.correct import read_automatic
from lift3d.run.layout import Layout, run_of
from lift3d.run.objects import read_objects
from lift3d.run.record import read_json
from lift3d.run.scene_file import (
    open_source,
    read_cameras,
    read_offset,
    read_points,
    read_scene,
)
from lift3d.run.stages import Record
from lift3d.run.why import Why, explain
from lift3d.scene import Camera, LabelledPoints, Offset, Points, Scene
from lift3d.scene.colours import Palette
from lift3d.scene.errors import InputError, did_you_mean
from lift3d.scene.labelmaps import LabelMaps, find_label_map, read_label_map
from lift3d.scene.mask_sets import MaskSets
from lift3d.scene.palette import colours_of
from lift3d.scene.progress import Progress

if TYPE_CHECKING:
    from lift3d.run.edits import Edits
    from lift3d.run.prompting import Answered, Clickable
    from lift3d.run.wording import Scorer
    from lift3d.scene import Prompt
    from lift3d.scene.protocols import Segmenter


class Run:
    """A finished run's folder. Each attribute is read at first use and then kept.

    `labels`, `cloud` and `objects` are the public results, with a person's corrections;
    `automatic` is the association's result before corrections.
    """

    def __init__(
        self,
        folder: Path,
        scan: Path | None = None,
        scene: Scene | None = None,
        records: Mapping[str, Record] | None = None,
    ) -> None:
        """For a folder known to be a finished run; `Run.open` checks it."""
        self.folder = Path(folder)
        self.files = Layout(self.folder)
        self._scan, self._scene, self._records = scan, scene, records

    @staticmethod
    def open(folder: Path | str, scan: Path | str | None = None) -> Run:
        """The finished run in `folder`, or of a file in one; InputError where there is none.

        `scan` is the present path of the pictures, if they were moved.
        """
        run = Run(run_of(Path(folder)), None if scan is None else Path(scan))
        assert run.record is not None  # raises InputError where the run is not finished
        return run

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @cached_property
    def record(self) -> dict[str, Any]:
        """`run.json`: command, settings, versions, machine, time and memory of every stage."""
        found: dict[str, Any] = read_json(self.folder, self.files.record.name)
        return found

    @property
    def name(self) -> str:
        """The scene's name."""
        return str(read_json(self.folder, self.files.scene.name)["name"])

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting of the lift, as JSON values."""
        return dict(self.record["settings"])

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings of the lift, such as views that could not be read."""
        return tuple(self.record["warnings"])

    @cached_property
    def records(self) -> dict[str, Record]:
        """Every stage in order: its seconds, its result, whether it was kept."""
        if self._records is not None:
            return dict(self._records)
        return {each["name"]: Record.of_json(each) for each in self.record["stages"]}

    @cached_property
    def cameras(self) -> dict[str, Camera]:
        """View name -> colour camera, in scene order."""
        return read_cameras(self.folder)

    @cached_property
    def offset(self) -> Offset:
        """World coordinates of the local origin of cameras and clouds; zeros but in georeferenced
        scenes.
        """
        return read_offset(self.folder)

    @cached_property
    def scene(self) -> Scene:
        """The views as used. Pictures are read from the scan at first use; cameras, and depth that
        the reconstruction made, are in the run itself.
        """
        return self._scene or read_scene(self.folder)

    @cached_property
    def whole_scene(self) -> Scene:
        """The views joined with their scan and its truth; InputError where the scan is missing."""
        return self._scene or read_scene(self.folder, open_source(self.folder, self._scan))

    @cached_property
    def points(self) -> Points:
        """The fused cloud without labels."""
        return read_points(self.files.points)

    @cached_property
    def cloud(self) -> LabelledPoints:
        """The labelled cloud, relative to `offset` as cameras are; `points.world` adds it."""
        return read_cloud(self.files.cloud, self.offset)

    @cached_property
    def labels(self) -> LabelMaps:
        """Each view's label map, with the ids of the cloud."""
        return LabelMaps(self.files.labels, list(self.cameras))

    @cached_property
    def masks(self) -> LabelMaps:
        """Each view's masks as segmented, before the association unified their ids.

        Of masks that overlap the smallest is on top; `mask_sets` has all.
        """
        return LabelMaps(self.files.masks, list(self.cameras))

    @cached_property
    def mask_sets(self) -> MaskSets:
        """Each view's masks with overlaps and scores: a `MaskSet`, or a label map without any."""
        return MaskSets(self.files.masks, list(self.cameras))

    @cached_property
    def objects(self) -> tuple[Object, ...]:
        """The objects, by id."""
        return read_objects(self.instances)

    @cached_property
    def instances(self) -> dict[str, Any]:
        """The content of `instances.json`."""
        found: dict[str, Any] = read_json(self.folder, self.files.instances.name)
        return found

    @cached_property
    def palette(self) -> Palette:
        """The colour of each object, the same in every picture of the run."""
        return colours_of(self.instances["instances"], self.files.instances)

    @property
    def confidence(self) -> dict[int, float]:
        """How well the views support each object, 0 to 1; AP ranks the objects by it."""
        return {each.id: each.confidence for each in self.objects}

    def points_of(self, object_id: int) -> Int64[np.ndarray, " members"]:
        """Indices of an object's points in the cloud."""
        return np.flatnonzero(self.cloud.instance == object_id)

    @cached_property
    def consistency(self) -> dict[str, Any]:
        """`consistency.json`: H, reprojection, and scores where the scene has a truth."""
        found: dict[str, Any] = read_json(self.folder, self.files.consistency.name)
        return found

    @cached_property
    def automatic(self) -> LabelledPoints:
        """The cloud with the association's labels, before corrections."""
        return read_automatic(self.files.automatic, self.points)[0]

    @cached_property
    def assignments(self) -> Assignments | None:
        """The object of each mask; None where the masks kept their own ids (`trust_ids`)."""
        path = self._of_association(self.files.automatic.assignments)
        return None if path is None else Assignments.load(path)

    @cached_property
    def surface(self) -> Surface | None:
        """The superpoints behind the objects; None where masks kept their own ids (`trust_ids`)."""
        path = self._of_association(self.files.automatic.surface)
        return None if path is None else Surface.load(path)

    def _of_association(self, path: Path) -> Path | None:
        """A file that every association writes, unless masks kept their own ids."""
        if path.exists():
            return path
        if self.settings["association"]["trust_ids"]:
            return None
        raise InputError(f"{path} is missing; give the command of the lift again to have it made")

    @cached_property
    def edits(self) -> Edits:
        """A person's corrections, and the methods that make them: `run.edits.merge([41, 37])`."""
        from lift3d.run.edits import Edits

        return Edits(self)

    @cached_property
    def clickable(self) -> Clickable:
        """The run made ready for prompts; it looks at every view once."""
        from lift3d.run.prompting import of_run

        return of_run(self)

    def prompt(
        self,
        prompts: Mapping[str, Prompt] | Sequence[Mapping[str, Prompt]] = (),
        segmenter: Segmenter | None = None,
        text: str | None = None,
        scorer: Scorer | None = None,
    ) -> Answered:
        """One click, all views: the object that prompts in any views mean, in all of them.

        `prompts` are by view name; a list of such tables means several objects, which compete for
        pixels. A prompt's `mask` is the true answer in its view. `text` names objects of the run
        instead; with a `scorer` (`lift3d.networks.clip.TextConfig(...).build()`) it is any words. A
        segmenter is asked in every view. `lift3d click` does the same.
        """
        self.clickable.place.label = self.edits.label
        if text is not None:
            from lift3d.run.prompting import names_of

            self.clickable.names = names_of(self)
        return self.clickable.prompt(prompts, segmenter, text, scorer=scorer)

    @property
    def corrections(self) -> Corrections:
        """How many edits the public results have; none for a run as the machine made it."""
        return Corrections.of_json(self.instances.get("edits"))

    @property
    def unwritten(self) -> int:
        """Number of lines in `edits.jsonl` that the public files do not have yet."""
        lines = len(EditFile(self.files.edits).read())
        return max(0, lines - int(self.records["correct"].result.get("lines", 0)))

    def forget(self) -> None:
        """Read everything that edits change anew at its next use."""
        self._records = None
        for name in ("record", "records", "cloud", "objects", "instances", "palette"):
            vars(self).pop(name, None)
        vars(self).pop("consistency", None)

    def why(self, view: str, xy: tuple[SupportsFloat, SupportsFloat]) -> Why:
        """Explain the label of the pixel `xy` (column, row) of a view; `print` the result.

        Raises InputError where there is no such view or pixel.
        """
        names = list(self.cameras)
        if view not in names:
            raise InputError(did_you_mean(view, names, "view"))
        index = names.index(view)
        automatic = find_label_map(self.files.automatic.labels, view)
        return explain(
            self.scene.views[index],
            index,
            (float(xy[0]), float(xy[1])),
            self.mask_sets[view],
            self.labels[view],
            self.cloud,
            self.assignments,
            self.surface,
            None if automatic is None else read_label_map(automatic),
        )

    def check_same(self) -> None:
        """InputError where the run was lifted again with other results since it was opened."""
        now = read_json(self.folder, self.files.record.name)
        if _keys(now) != _keys(self.record):
            raise InputError(f"{self.folder} was lifted again while it was read; start again")

    def evaluate(self, truth: Path | str, **options: Any) -> dict[str, Any]:
        """Score against ground truth and save `evaluation.json`; options: `evaluating.evaluate`."""
        from lift3d.run.evaluating import evaluate

        return evaluate(self, Path(truth), **options)

    def export(
        self,
        *formats: str,
        to: Path | str | None = None,
        options: Options = Options(),  # noqa: B008 - frozen
        progress: Progress | None = None,
    ) -> Sequence[Path]:
        """Write other programs' formats, each into its own folder below `to`.

        `to` is `export` in the run folder by default. Returns the paths written.
        """
        from lift3d.run.exporting import export

        return export(self, formats, None if to is None else Path(to), options, progress)


def _keys(record: Any) -> list[str]:
    """The keys of the stages in `run.json`, which change with their results."""
    try:
        return [str(each["key"]) for each in record["stages"]]
    except (KeyError, TypeError):
        raise InputError("run.json of this run is damaged; lift again") from None
