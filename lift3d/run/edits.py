"""Correct a run: every method is one edit, on the disk when it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

import numpy as np
from jaxtyping import Bool

from lift3d.correction.proposals import Proposal
from lift3d.run.editing import Kept, Making, Saved, different
from lift3d.run.looking import Looking
from lift3d.run.session import user
from lift3d.scene.errors import InputError, did_you_mean
from lift3d.scene.palette import hex_colour
from lift3d.scene.progress import Progress


class Edits(Looking, Making):
    """The corrections of a run: its objects now, and every way to change them.

    Ids are those of objects, points are indices in the run's cloud, places are in the world (as in
    `instances.json` and `run.cloud.points.world`). A method that changes
    something returns what changed, after it is on the disk; one that would change nothing raises
    InputError. Methods may be called from several threads. The public files follow with `write`
    or `save`. `who` is who does it, by default the login name; `on` the revision that was seen:
    where an object changed since, `Conflict` is raised.
    """

    def merge(
        self, ids: Sequence[int], into: int | None = None, who: str = "", on: int | None = None
    ) -> Kept:
        """Make several objects one, by default under the id of the largest."""
        ids = different(ids)
        if len(ids) < 2:
            raise InputError("merging takes two or more objects")
        with self.writing():
            self._check(ids, on)
            if into is None:
                into = max(ids, key=lambda each: (len(self.points_of(each)), -each))
            if into not in ids:
                raise InputError(f"object {into} is not one of those to merge")
            return self._make("merge", ids, {"into": into}, who=who, on=on)

    def split(
        self,
        object_id: int,
        clicks: Any,
        groups: Sequence[int] | None = None,
        who: str = "",
        on: int | None = None,
    ) -> Kept:
        """Divide an object: each click, a place on it, is one part of it.

        `clicks` is (n, 3); with `groups`, a number per click, clicks of one number are one part.
        """
        with self.writing():
            self._check([object_id], on)
            parts = self.parts(object_id, clicks, groups)
            local = np.asarray(clicks, np.float64).reshape(-1, 3) - self.offset
            told: dict[str, Any] = {"clicks": local.tolist()}
            if groups is not None:
                told["groups"] = [int(each) for each in groups]
            return self._split(object_id, parts, {"tool": "clicks", **told}, who, on)

    def cut(
        self, object_id: int, plane: Sequence[SupportsFloat], who: str = "", on: int | None = None
    ) -> Kept:
        """Split off what lies at a x + b y + c z + d >= 0."""
        with self.writing():
            self._check([object_id], on)
            parts = self.cut_parts(object_id, plane)
            *normal, constant = (float(each) for each in plane)
            told = {"tool": "plane", "plane": [*normal, constant + np.dot(normal, self.offset)]}
            return self._split(object_id, parts, told, who, on)

    def separate(self, object_id: int, who: str = "", on: int | None = None) -> Kept:
        """Divide an object into the parts that do not hang together."""
        with self.writing():
            self._check([object_id], on)
            parts = self.separate_parts(object_id)
            return self._split(object_id, parts, {"tool": "connected"}, who, on)

    def divide(self, object_id: int, count: int = 2, who: str = "", on: int | None = None) -> Kept:
        """Divide an object into at most `count` parts: its last joins are taken back."""
        with self.writing():
            self._check([object_id], on)
            parts = self.divided_parts(object_id, count)
            return self._split(object_id, parts, {"tool": "tree"}, who, on)

    def name(self, object_id: int, name: str, who: str = "", on: int | None = None) -> Kept:
        """Name an object; an empty name takes the name away."""
        return self._set("name", object_id, name, self._properties_of(object_id, on).name, who, on)

    def classify(
        self, object_id: int, class_name: str | int, who: str = "", on: int | None = None
    ) -> Kept:
        """Give an object a class; a number is also the class of its points."""
        now = self._properties_of(object_id, on).class_name
        return self._set("class", object_id, str(class_name), now, who, on)

    def colour(self, object_id: int, colour: str, who: str = "", on: int | None = None) -> Kept:
        """Show an object in the colour `#rrggbb` everywhere; an empty text gives back its own."""
        now = self._properties_of(object_id, on).colour
        chosen = hex_colour(colour) if colour else ""
        return self._set("colour", object_id, chosen, now, who, on)

    def delete(
        self, ids: Sequence[int], to: str = "unlabelled", who: str = "", on: int | None = None
    ) -> Kept:
        """Remove objects: their points become unlabelled, or (`to="neighbours"`) go to the object
        that they touch most.
        """
        if to not in ("unlabelled", "neighbours"):
            raise InputError(did_you_mean(to, ("unlabelled", "neighbours"), "way to delete"))
        ids = different(ids)
        with self.writing():
            self._check(ids, on)
            if to == "unlabelled":
                return self._make("delete", ids, {"into": 0}, who=who, on=on)
            if len(ids) > 1:
                raise InputError("delete one object at a time to its neighbours")
            into = self._touched(ids[0])
            if not into:
                raise InputError(f"object {ids[0]} touches no other; delete it to unlabelled")
            self._check([into])
            return self._make("delete", ids, {"into": into}, who=who, on=on)

    def paint(
        self,
        view: str,
        mask: Bool[np.ndarray, "height width"],
        object_id: int | None = None,
        who: str = "",
        on: int | None = None,
        told: Mapping[str, Any] | None = None,
        everywhere: bool = True,
    ) -> Kept:
        """Give pixels of a view, and the points seen under them, to an object.

        `object_id` None makes a new one, 0 erases. `told` is kept with the edit. With
        `everywhere` False only the pixels of this view change, and no point.
        """
        with self.writing():
            mask = self._pixels(view, mask)
            index = self.under(view, mask) if everywhere else np.zeros(0, np.int64)
            details = {**dict(told or {}), **({} if everywhere else {"everywhere": False})}
            return self._paint("paint", view, mask, index, object_id, details, who, on)

    def assign(
        self,
        view: str,
        mask_id: int,
        object_id: int | None = None,
        who: str = "",
        on: int | None = None,
    ) -> Kept:
        """Give a mask of the segmenter (`masks/VIEW.png`) to an object; None makes a new one."""
        with self.writing():
            self.view(view)
            masks = self._run.masks[view]
            mask = masks == mask_id
            if mask_id <= 0 or not mask.any():
                ids = np.unique(masks[masks > 0]).tolist()
                known = ", ".join(map(str, ids)) or "none"
                raise InputError(f"view {view} has no mask {mask_id}; it has {known}")
            told = {"mask": int(mask_id)}
            index = self.under(view, mask)
            return self._paint("assign", view, mask, index, object_id, told, who, on)

    def select(
        self,
        points: Any,
        object_id: int | None = None,
        tool: str = "lasso",
        who: str = "",
        on: int | None = None,
        confidence: float | None = None,
        told: Mapping[str, Any] | None = None,
    ) -> Kept:
        """Give points to an object; None makes a new one, 0 makes them unlabelled."""
        with self.writing():
            index = self._members(points)
            details = {"tool": tool, **dict(told or {})}
            return self._give("select", index, object_id, details, who, on, confidence)

    def accept(self, ids: Sequence[int], who: str = "", on: int | None = None) -> Kept:
        """Say that objects are right as they are."""
        return self._mark("accept", ids, lambda own: not own.reviewed, who, on)

    def lock(self, ids: Sequence[int], who: str = "", on: int | None = None) -> Kept:
        """Keep objects from being changed by any edit."""
        return self._mark("lock", ids, lambda own: not own.locked, who, on)

    def unlock(self, ids: Sequence[int], who: str = "", on: int | None = None) -> Kept:
        """Let locked objects be changed again."""
        return self._mark("unlock", ids, lambda own: own.locked, who, on)

    def undo(self, n: int | None = None, who: str = "") -> Kept:
        """Take back edit `n`, by default the last one of `who`.

        InputError where later edits build on it.
        """
        who = who or user()
        with self.writing():
            counting = self._now().counting
            if n is None:
                mine = counting.done.get(who, ())
                if not mine:
                    raise InputError(f"{who} has no edit to undo")
                n = mine[-1].n
            done = {each.n for each in (*counting.active, *counting.settled.values())}
            if n not in done:
                raise InputError(self._no_edit(n, "undone already"))
            return self._turn("undo", n, who)

    def redo(self, n: int | None = None, who: str = "") -> Kept:
        """Make an undone edit count again, by default the one that `who` undid last."""
        who = who or user()
        with self.writing():
            counting = self._now().counting
            if n is None:
                mine = counting.undone.get(who, ())
                if not mine:
                    raise InputError(f"{who} has nothing to redo")
                n = mine[-1].n
            done = {each.n for each in (*counting.active, *counting.settled.values())}
            if n in done:
                raise InputError(f"edit {n} counts already")
            self._no_edit(n, "")
            return self._turn("redo", n, who)

    def settle(
        self, n: int, ids: Sequence[int] | None = None, who: str = "", on: int | None = None
    ) -> Kept:
        """Apply an edit in doubt to the present objects `ids`, by default to those of its numbers.

        To throw it away instead, undo it. InputError where it cannot be applied to them either.
        """
        with self.writing():
            doubt = next((each for each in self.doubts if each.edit.n == n), None)
            if doubt is None:
                raise InputError(self._no_edit(n, "not in doubt"))
            into = doubt.edit.into
            about = doubt.edit.ids or ((into,) if into else ())
            ids = about if ids is None else different(ids)
            if len(ids) != len(about):
                raise InputError(f"edit {n} is about {len(about)} objects; give as many")
            self._check(ids)
            kept = self._make("settle", ids, {"of": n}, who=who, on=on, allow_nothing=True)
            left = next((each for each in self.doubts if each.edit.n == n), None)
            if left is not None:
                self._turn("undo", kept.edit.n, who or user())
                raise InputError(str(left))
            return kept

    def segment(
        self, proposal: Proposal, object_id: int | None = None, who: str = "", on: int | None = None
    ) -> Kept:
        """Give the points of a proposal to an object; None makes a new one."""
        told = {"prompts": [dict(each) for each in proposal.prompts]}
        score = proposal.score
        return self.select(proposal.points, object_id, proposal.tool, who, on, score, told)

    def sweep(self, ids: Sequence[int], who: str = "", on: int | None = None) -> tuple[Kept, ...]:
        """Send each of these objects to what it touches most: an edit each, the smallest first.

        Those that touch nothing stay as they are; InputError where all of them do.
        """
        with self.writing():
            self._check(different(ids), on)
            made = []
            for each in sorted(different(ids), key=lambda e: (len(self.points_of(e)), e)):
                if self._touched(each):
                    made.append(self.delete([each], "neighbours", who))
            if not made:
                raise InputError("none of these objects touches another")
            return tuple(made)

    # The public files.

    @property
    def written(self) -> int:
        """The revision that the public files have; smaller than `revision` before `write`."""
        return self.revision - self._run.unwritten

    def write(self, progress: Progress | None = None) -> None:
        """Write the cloud, the label maps and the list of objects with all edits.

        Other threads may edit meanwhile; what they do is written next time.
        """
        from lift3d.run.finishing import rewrite

        with self._saving, self.hold():
            rewrite(self._run, progress)

    def save(self, progress: Progress | None = None) -> Saved:
        """The same, and then consistency and report, which need the scan."""
        from lift3d.run.finishing import finish

        with self._saving, self.hold():
            try:
                finish(self._run, progress)
            except InputError as error:
                return Saved(("correct",), ("check", "report"), str(error))
            return Saved(("correct", "check", "report"))
