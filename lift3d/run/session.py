"""The edits of a run in memory and on the disk: what is there now."""

from __future__ import annotations

import contextlib
import getpass
import threading
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int32, Int64

from lift3d.correction.applying import Altered
from lift3d.correction.edits import Edit, EditFile
from lift3d.correction.history import Corrections, Doubt, History
from lift3d.correction.maps import Fates, corrected_map, seen_by_cloud, shown_by_cloud
from lift3d.correction.state import Layer, Properties
from lift3d.geometry.visibility import DepthTolerance, Sightings
from lift3d.run.correct import automatic_map, open_history
from lift3d.run.corrected_objects import CorrectedObject, Extent, described
from lift3d.run.stages import alone_in
from lift3d.scene import LabelledPoints, LabelMap, Offset, View
from lift3d.scene.colours import Palette
from lift3d.scene.errors import InputError, did_you_mean
from lift3d.scene.labelmaps import read_label_map
from lift3d.scene.palette import distinct_colours

if TYPE_CHECKING:
    from lift3d.run.run import Run

VIEWS_KEPT = 64
"""Views whose visible points are kept in memory."""
SHOWN_KEPT = 8
"""Views whose frontmost points are kept in memory."""


class Conflict(InputError):
    """An object of the edit was changed since the revision that the person saw."""

    def __init__(self, message: str, ids: tuple[int, ...], edits: tuple[Edit, ...]) -> None:
        super().__init__(message)
        self.ids, self.edits = ids, edits


@dataclass(frozen=True, eq=False)
class Update:
    """What changed since a revision."""

    index: Int64[np.ndarray, " changed"]
    label: Int32[np.ndarray, " changed"]
    objects: tuple[int, ...]
    revision: int


@dataclass(frozen=True, eq=False)
class _Diff:
    """How labels and objects differ from an earlier time."""

    index: Int64[np.ndarray, " changed"]
    before: Int32[np.ndarray, " changed"]
    objects: frozenset[int]
    drawn: bool
    """Whether pixels changed apart from the points."""


class Session:
    """The edits of a run: what is there now."""

    def __init__(self, run: Run) -> None:
        self._run, self._files = run, run.files
        self._file = EditFile(run.files.edits)
        self._mutex, self._saving = threading.RLock(), threading.Lock()
        self._held, self._lock = 0, contextlib.ExitStack()
        cameras = run.cameras
        self._sizes = {name: (each.height, each.width) for name, each in cameras.items()}
        self._history: History | None = None
        self._size = -1
        self._log: list[tuple[int, _Diff]] = []
        self._palette: Palette = {}
        self._extents: dict[int, Extent] = {}
        self.warnings: list[str] = []
        self.seen = lru_cache(VIEWS_KEPT)(self._seen)
        self.shown = lru_cache(SHOWN_KEPT)(self._show)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self._run.folder

    @property
    def offset(self) -> Offset:
        """World coordinates of the run's local origin, which stored places are relative to."""
        return self._run.offset

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Hold the run's lock; InputError where another process has it. May be nested.

        Every method that writes holds it for its own duration; a server holds it while it runs.
        """
        with self._mutex:
            if not self._held:
                with contextlib.ExitStack() as stack:
                    stack.enter_context(alone_in(self._run.folder))
                    torn = self._file.repair()
                    self.warnings += [] if torn is None else [torn]
                    self._lock = stack.pop_all()
            self._held += 1
        try:
            yield
        finally:
            with self._mutex:
                self._held -= 1
                if not self._held:
                    self._lock.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other threads and processes from changing the edits."""
        with self._mutex, self.hold():
            self._now()
            yield

    def _now(self) -> History:
        """The history, after reading what other processes have added."""
        with self._mutex:
            if self._history is None:
                self._history = open_history(self._files, self._sizes)
            size = self._file.size()
            if size != self._size:
                self._follow(self._file.read())
                self._size = size
            return self._history

    def _follow(self, edits: tuple[Edit, ...]) -> _Diff:
        """Change the state to that of `edits`, and remember what differs."""
        assert self._history is not None
        state = self._history.state
        label, objects = state.label.copy(), dict(state.objects)
        drawn = _drawn(state.layers, state.whole)
        self._history.follow(edits)
        index = np.flatnonzero(label != state.label).astype(np.int64)
        ids = objects.keys() | state.objects.keys()
        changed = {each for each in ids if objects.get(each) != state.objects.get(each)}
        moved = set(label[index].tolist()) | set(state.label[index].tolist())
        changed |= moved
        for each in moved:
            self._extents.pop(each, None)
        diff = _Diff(
            index,
            label[index],
            frozenset(changed - {0}),
            drawn != _drawn(state.layers, state.whole),
        )
        self._log.append((len(edits), diff))
        return diff

    # What is there now.

    @property
    def revision(self) -> int:
        """Number of lines that were written: edits, undos and redos."""
        return len(self._now().edits)

    @property
    def all(self) -> tuple[Edit, ...]:
        """Every line, in order."""
        return self._now().edits

    @property
    def active(self) -> tuple[Edit, ...]:
        """The edits that count now, those in doubt too."""
        return self._now().counting.active

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """Edits that could not be applied, and why."""
        return self._now().doubts

    @property
    def altered(self) -> tuple[Altered, ...]:
        """Objects of applied edits of another lift that are not here as they were."""
        return self._now().altered

    def undone(self, who: str = "") -> tuple[Edit, ...]:
        """What `redo` brings back, the next one last."""
        return self._now().counting.undone.get(who or user(), ())

    def summary(self) -> Corrections:
        """How many edits count, and of how many people."""
        return self._now().summary

    @property
    def label(self) -> Int32[np.ndarray, " points"]:
        """The label of each point now; not to be written to."""
        return self._now().state.label

    @property
    def automatic(self) -> Int32[np.ndarray, " points"]:
        """The label of each point before all edits."""
        return self._now().state.cloud.instance

    @property
    def cloud(self) -> LabelledPoints:
        """The corrected cloud."""
        with self._mutex:
            return self._now().state.corrected()

    @property
    def properties(self) -> dict[int, Properties]:
        """Name, class, confidence and the rest of each object."""
        with self._mutex:
            return dict(self._now().state.objects)

    @property
    def objects(self) -> tuple[CorrectedObject, ...]:
        """The objects now, by id."""
        with self._mutex:
            objects = self._now().state.objects
            self._measure(objects.keys() - self._extents.keys())
            return tuple(
                described(each, own, self._extents[each]) for each, own in sorted(objects.items())
            )

    def object(self, object_id: int) -> CorrectedObject:
        """One object; InputError where there is none."""
        with self._mutex:
            own = self._properties_of(object_id)
            self._measure({object_id} - self._extents.keys())
            return described(object_id, own, self._extents[object_id])

    def _measure(self, ids: Set[int]) -> None:
        """Find the extents of objects; an edit forgets those of the objects that it changes."""
        if not ids:
            return
        label = self.label
        some = np.flatnonzero(np.isin(label, list(ids)))
        order = some[np.argsort(label[some], kind="stable")]
        ends = np.searchsorted(label[order], sorted(ids), side="right")
        starts = np.searchsorted(label[order], sorted(ids), side="left")
        for each, start, end in zip(sorted(ids), starts, ends, strict=True):
            self._extents[each] = Extent.of(self._xyz[order[start:end]], self.offset)

    def points_of(self, object_id: int) -> Int64[np.ndarray, " members"]:
        """Indices of the points of an object now."""
        return np.flatnonzero(self.label == object_id).astype(np.int64)

    @property
    def palette(self) -> Palette:
        """The colour of each object; it changes only where a person chooses another."""
        with self._mutex:
            state = self._now().state
            if not self._palette:
                self._palette = distinct_colours(state.cloud, state.whole)
            if state.objects.keys() - self._palette.keys():
                known = distinct_colours(state.corrected(), state.objects, self._palette)
                self._palette = {**self._palette, **known}
            palette = state.with_chosen(self._palette)
            return {each: palette[each] for each in state.objects}

    def label_map(self, view: str) -> LabelMap:
        """The label map of a view under all edits."""
        with self._mutex:
            state = self._now().state
            automatic = read_label_map(automatic_map(self._files, self.view(view).name))
            return corrected_map(
                state, Fates.of(state), self.view(view), automatic, lambda: self.shown(view)
            )

    def since(self, revision: int) -> Update:
        """Everything that changed after a revision, all at once.

        For a revision from before this session all points count as changed.
        """
        with self._mutex:
            history = self._now()
            later = [diff for number, diff in self._log if number > revision]
            first = min((number for number, _ in self._log), default=0)
            label = history.state.label
            index = np.unique(np.concatenate([np.zeros(0, np.int64), *(d.index for d in later)]))
            if revision < first and revision < len(history.edits):
                index = np.arange(len(label), dtype=np.int64)
            return Update(
                index, label[index], tuple(sorted(self.changed_since(revision))), len(history.edits)
            )

    def changed_since(self, revision: int) -> frozenset[int]:
        """Objects that lines after a revision are about, those that came and went too."""
        edits = self._now().edits
        found: set[int] = set()
        for each in edits[max(revision, 0) :]:
            found |= touched(each)
            if "of" in each.details:
                found |= touched(edits[each.details["of"] - 1])
        return frozenset(found)

    def view(self, name: str) -> View:
        """A view of the run; InputError for an unknown name."""
        names = list(self._sizes)
        if name not in self._sizes:
            raise InputError(did_you_mean(name, names, "view"))
        return self._run.scene.views[names.index(name)]

    def _seen(self, view: str) -> Sightings:
        return seen_by_cloud(self._run.points, self.view(view), self.tolerance)

    def _show(self, view: str) -> Sightings:
        return shown_by_cloud(self._run.points, self.view(view))

    @property
    def tolerance(self) -> DepthTolerance:
        """The run's tolerance of depth."""
        return DepthTolerance(**self._run.settings["tolerance"])

    @property
    def _xyz(self) -> np.ndarray:
        return self._now().state.cloud.points.xyz

    def _properties_of(self, object_id: int, on: int | None = None) -> Properties:
        self._check([object_id], on)
        return self._now().state.objects[object_id]

    def _check(self, ids: Sequence[int], on: int | None = None) -> None:
        """InputError where one of these is no object, `Conflict` where one changed since `on`."""
        self._refuse_conflict(set(ids), on)
        known = self._now().state.objects
        for each in ids:
            if each not in known:
                few = ", ".join(map(str, sorted(known)[:8])) + (" ..." if len(known) > 8 else "")
                raise InputError(f"the run has no object {each}; it has {few or 'none'}")

    def _refuse_conflict(self, ids: set[int], on: int | None) -> None:
        if on is None:
            return
        changed = self.changed_since(on) & ids
        if changed:
            edits = tuple(each for each in self.all[on:] if touched(each) & changed)
            by = ", ".join(f"edit {each.n} of {each.who} ({each})" for each in edits[:3])
            raise Conflict(
                f"object {min(changed)} was changed meanwhile: {by}; look at it again",
                tuple(sorted(changed)),
                edits,
            )

    def _unlocked(self, index: Int64[np.ndarray, " members"]) -> Int64[np.ndarray, " some"]:
        """Those of the points that are not of a locked object."""
        state = self._now().state
        locked = [each for each, own in state.objects.items() if own.locked]
        return index[~np.isin(state.label[index], locked)] if locked else index


def touched(edit: Edit) -> set[int]:
    """The objects that an edit is about."""
    into = {edit.into} if edit.into else set()
    return {*edit.ids, *edit.new, *(int(each) for each in edit.details.get("from", ()))} | into


def user() -> str:
    """The login name."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no entry for the user, as in some containers
        return "someone"


def _drawn(layers: tuple[Layer, ...], whole: Mapping[int, int]) -> object:
    return [(each.n, each.id) for each in layers], dict(whole)
