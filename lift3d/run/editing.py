"""The making of an edit: applied to what is there now, then written as a line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32, Int64

from lift3d.correction.edits import Edit, remove_files
from lift3d.correction.history import Doubt
from lift3d.correction.maps import write_pixels
from lift3d.correction.places import Place, PointSet
from lift3d.correction.splitting import Parts, touched_most
from lift3d.correction.state import MOST_CONFIDENT, Properties
from lift3d.correction.stored import OBJECTS, digest_of
from lift3d.run.session import Session, touched, user
from lift3d.scene import NO_OFFSET
from lift3d.scene.errors import InputError
from lift3d.scene.storage import save_arrays

SHAPED = ("merge", "split", "name", "class", "colour")
"""Kinds of edits that keep the points of their objects: what they say is still true of that shape
where another lift has other objects there. Not so what removes or accepts a machine's object."""
SHAPE_POINTS = 50_000
"""Most points of an object that is kept so, 24 bytes each; walls and floors are found again."""
CHANGES_KEPT = 200
"""Changes that are kept in memory for `since`; older ones count as changes of all points."""
NEW_CONFIDENCE = 0.5
"""Confidence of an object made of points that had none. Chosen by hand."""


@dataclass(frozen=True, eq=False)
class Kept:
    """What an edit, an undo or a redo has changed."""

    edit: Edit
    revision: int
    index: Int64[np.ndarray, " changed"]
    """Points whose label changed."""
    before: Int32[np.ndarray, " changed"]
    label: Int32[np.ndarray, " changed"]
    objects: tuple[int, ...]
    """Ids that appear, change or vanish."""
    doubts: tuple[Doubt, ...]
    """Edits that are in doubt since."""


@dataclass(frozen=True)
class Saved:
    """The stages that were brought up to the edits, and those that wait, with the reason."""

    done: tuple[str, ...]
    waiting: tuple[str, ...] = ()
    reason: str = ""


class Making(Session):
    """Makes single edits; `Edits` has a method for each kind."""

    def _make(
        self,
        do: str,
        ids: Sequence[int],
        details: Mapping[str, Any],
        who: str,
        on: int | None,
        new: int = 0,
        index: Int64[np.ndarray, " members"] | None = None,
        part: Int32[np.ndarray, " members"] | None = None,
        pixels: Bool[np.ndarray, "height width"] | None = None,
        allow_nothing: bool = False,
    ) -> Kept:
        """Make one edit; the caller is `writing`.

        `new`: how many objects it makes; `index` and `part` (from 1): its points; `pixels`: what
        was painted.
        """
        history = self._now()
        state, n = history.state, len(history.edits) + 1
        about = {*ids, *details.get("from", ())} | (
            {details["into"]} if details.get("into") else set()
        )
        self._refuse_locked(do, about)
        self._refuse_conflict(about, on)
        placed = [each for each in (*ids, details.get("into") or 0) if each]
        files: dict[str, str] = {}
        try:
            if index is not None and part is not None and len(index):
                name = f"{self._files.edit_files.name}/{n:06d}.npz"
                points = PointSet.of(index, part, self._xyz, state.spacing())
                save_arrays(self._run.folder / name, vars(points))
                files[name] = digest_of(self._run.folder / name)
            kept = self._shapes(placed) if do in SHAPED else None
            if kept is not None:
                name = f"{self._files.edit_files.name}/{n:06d}.{OBJECTS}"
                save_arrays(self._run.folder / name, vars(kept))
                files[name] = digest_of(self._run.folder / name)
            if pixels is not None:
                name = f"{self._files.edit_files.name}/{n:06d}.png"
                write_pixels(self._run.folder / name, pixels)
                files[name] = digest_of(self._run.folder / name)
            edit = Edit(
                n=n,
                do=do,
                at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                who=who or user(),
                base=state.base,
                spacing=float(f"{state.spacing():.7g}"),
                offset=() if self.offset == NO_OFFSET else self.offset,
                ids=tuple(ids),
                new=self._numbers(new),
                points=0 if index is None else len(index),
                where={each: Place.of(self._xyz[state.label == each]) for each in placed},
                files=files,
                details=details,
            )
            return self._add(edit, allow_nothing)
        except BaseException:
            remove_files(self._run.folder, files)
            raise

    def _shapes(self, ids: Sequence[int]) -> PointSet | None:
        """The points of objects, for another lift that has other objects there."""
        state = self._now().state
        members, parts = [], []
        for number, each in enumerate(sorted(set(ids)), start=1):
            own = state.points_of(each)
            if len(own) <= SHAPE_POINTS:
                members.append(own)
                parts.append(np.full(len(own), number, np.int32))
        if not sum(map(len, members)):
            return None
        index, part = np.concatenate(members).astype(np.int64), np.concatenate(parts)
        return PointSet.of(index, part, self._xyz, state.spacing())

    def _turn(self, do: str, n: int, who: str) -> Kept:
        """Undo or redo edit `n`."""
        history = self._now()
        of = history.edits[n - 1]
        if of.do not in ("lock", "unlock"):
            self._refuse_locked(do, touched(of))
        edit = Edit(
            n=len(history.edits) + 1,
            do=do,
            at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            who=who,
            base=history.state.base,
            details={"of": n},
        )
        return self._add(edit, allow_nothing=True)

    def _add(self, edit: Edit, allow_nothing: bool = False) -> Kept:
        """Apply an edit, then write its line; neither where it cannot be applied or written."""
        history = self._now()
        edits, before = history.edits, {each.edit.n for each in history.doubts}
        remembered = len(self._log)
        diff = self._follow((*edits, edit))
        doubts = tuple(each for each in history.doubts if each.edit.n not in before)
        try:
            for each in doubts:
                if each.edit.n in (edit.n, edit.details.get("of")):
                    raise InputError(f"{each.edit} cannot be applied: {each.reason}")
                raise InputError(
                    f"edit {each.edit.n} ({each.edit}) builds on edit {edit.details.get('of')}: "
                    f"{each.reason} without it; undo edit {each.edit.n} first"
                )
            if not (allow_nothing or len(diff.index) or diff.objects or diff.drawn):
                raise InputError(f"{edit}: nothing changes")
            self._file.append(edit)
        except BaseException:
            self._follow(edits)
            del self._log[remembered:]
            raise
        self._size = self._file.size()
        del self._log[:-CHANGES_KEPT]
        return Kept(
            edit,
            edit.n,
            diff.index,
            diff.before,
            history.state.label[diff.index],
            tuple(sorted(diff.objects)),
            doubts,
        )

    def _numbers(self, count: int) -> tuple[int, ...]:
        """Numbers for new objects that no object has ever had."""
        history = self._now()
        state = history.state
        given = [
            each + (0 if edit.base == state.base else state.largest)
            for edit in history.edits
            for each in edit.new
        ]
        first = max([state.largest, *state.objects, *given, 0]) + 1
        return tuple(range(first, first + count))

    def _refuse_locked(self, do: str, ids: set[int]) -> None:
        if do in ("lock", "unlock", "accept"):
            return
        state = self._now().state
        for each in sorted(ids & state.objects.keys()):
            if state.objects[each].locked:
                raise InputError(f"object {each} is locked; unlock it first")

    # Lines of several kinds.

    def _touched(self, object_id: int) -> int:
        state = self._now().state
        xyz = state.cloud.points.xyz
        return touched_most(xyz, state.label, [object_id], state.spacing())

    def _split(
        self, object_id: int, parts: Parts, told: dict[str, Any], who: str, on: int | None
    ) -> Kept:
        moved = parts.part > 0
        if not moved.any() or moved.all():
            raise InputError(f"object {object_id} stays whole: nothing is split off")
        return self._make(
            "split",
            [object_id],
            told,
            who,
            on,
            new=parts.count - 1,
            index=parts.index[moved],
            part=parts.part[moved],
        )

    def _paint(
        self,
        do: str,
        view: str,
        mask: Bool[np.ndarray, "height width"],
        index: Int64[np.ndarray, " members"],
        object_id: int | None,
        told: dict[str, Any],
        who: str,
        on: int | None,
    ) -> Kept:
        return self._give(do, index, object_id, {"view": view, **told}, who, on, pixels=mask)

    def _give(
        self,
        do: str,
        index: Int64[np.ndarray, " members"],
        object_id: int | None,
        told: dict[str, Any],
        who: str,
        on: int | None,
        confidence: float | None = None,
        pixels: Bool[np.ndarray, "height width"] | None = None,
    ) -> Kept:
        """Points, and perhaps pixels, to an object, to a new one, or to none."""
        state = self._now().state
        if object_id:
            self._check([object_id], on)
        label = state.label[index]
        ids, counts = np.unique(label, return_counts=True)
        sources = [each for each in ids.tolist() if each and each != object_id]
        details: dict[str, Any] = {**told, "from": sources}
        if object_id is not None:
            details["into"] = object_id
        else:
            if confidence is None:
                parent = int(ids[np.argmax(counts)]) if len(ids) else 0
                own = state.objects.get(parent, Properties(NEW_CONFIDENCE))
                confidence = own.confidence
            details["confidence"] = round(min(confidence, MOST_CONFIDENT), 6)
        return self._make(
            do,
            [],
            details,
            who,
            on,
            new=1 if object_id is None else 0,
            index=index,
            part=np.ones(len(index), np.int32),
            pixels=pixels,
        )

    def _set(self, do: str, object_id: int, value: str, now: str, who: str, on: int | None) -> Kept:
        value = " ".join(value.split())
        with self.writing():
            if value == now:
                raise InputError(f"object {object_id} has that {do} already; nothing changes")
            return self._make(do, [object_id], {do: value}, who, on)

    def _mark(
        self,
        do: str,
        ids: Sequence[int],
        changes: Callable[[Properties], bool],
        who: str,
        on: int | None,
    ) -> Kept:
        ids = different(ids)
        with self.writing():
            some = [each for each in ids if changes(self._properties_of(each, on))]
            if not some:
                raise InputError(f"{do}: nothing changes")
            return self._make(do, some, {}, who, on)

    def _members(self, points: Any) -> Int64[np.ndarray, " members"]:
        """Indices of points, ascending, without those of locked objects."""
        index = np.unique(np.asarray(points).ravel())
        count = len(self.label)
        if not len(index):
            raise InputError("no point is selected")
        if index.dtype.kind not in "iu" or index[0] < 0 or index[-1] >= count:
            raise InputError(f"points are indices from 0 to {count - 1}")
        index = self._unlocked(index.astype(np.int64))
        if not len(index):
            raise InputError("all of these points are of locked objects; unlock them first")
        return index

    def _no_edit(self, n: int, otherwise: str) -> str:
        """Why edit `n` cannot be turned; InputError where there is none, or it is no edit."""
        edits = self._now().edits
        if not 1 <= n <= len(edits):
            raise InputError(f"there is no edit {n}; there are {len(edits)}")
        if edits[n - 1].do in ("undo", "redo"):
            raise InputError(
                f"line {n} is no edit but its {edits[n - 1].do}; name the edit that it is about"
            )
        return f"edit {n} is {otherwise}"


def different(ids: Any) -> tuple[int, ...]:
    """Ids as given, each once."""
    ids = (ids,) if isinstance(ids, int) else ids
    return tuple(dict.fromkeys(int(each) for each in ids))
