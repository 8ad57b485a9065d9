"""The edits of a run and the labels that they give, live."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lift3d.correction.applying import Altered, apply
from lift3d.correction.edits import Counting, Edit
from lift3d.correction.state import KEPT_BYTES, Change, Properties, State
from lift3d.correction.stored import Unfit
from lift3d.scene import LabelledPoints


@dataclass(frozen=True)
class Corrections:
    """How many edits count; `str` says it."""

    edits: int
    people: int
    doubts: int

    def __bool__(self) -> bool:
        return self.edits > 0

    def __str__(self) -> str:
        if not self.edits:
            return "no edits"
        words = "1 edit" if self.edits == 1 else f"{self.edits:,} edits"
        words += " by 1 person" if self.people == 1 else f" by {self.people:,} people"
        return words + (f", {self.doubts:,} in doubt" if self.doubts else "")

    def as_json(self) -> dict[str, int]:
        """As JSON values; empty without edits."""
        return vars(self).copy() if self else {}

    @staticmethod
    def of_json(stored: Mapping[str, Any] | None) -> Corrections:
        """From what `as_json` gave."""
        stored = stored or {}
        return Corrections(*(int(stored.get(name, 0)) for name in ("edits", "people", "doubts")))


@dataclass(frozen=True)
class Doubt:
    """An edit that could not be applied."""

    edit: Edit
    reason: str

    def __str__(self) -> str:
        return f"edit {self.edit.n} ({self.edit}) is in doubt and not applied: {self.reason}"


@dataclass(eq=False)
class Replay:
    """A state that follows a changing list of edits, by applying and taking back."""

    state: State
    doubts: dict[int, str] = field(default_factory=dict)
    """Number of an edit that could not be applied -> why."""
    altered: dict[int, tuple[Altered, ...]] = field(default_factory=dict)
    """Number of an edit that was applied -> its objects that are not here as they were."""
    _applied: list[tuple[tuple[int, int], Change | None]] = field(default_factory=list)
    """(number of the edit, number of the line that settles it), and its change."""

    def follow(self, active: Sequence[Edit], settled: Mapping[int, Edit]) -> None:
        """Change the state to what `active`, in this order, give."""
        wanted = [(each.n, settled[each.n].n if each.n in settled else 0) for each in active]
        same = 0
        while same < min(len(wanted), len(self._applied)) and (
            wanted[same] == self._applied[same][0]
        ):
            same += 1
        self._back_to(same)
        for each, key in zip(
            active[len(self._applied) :], wanted[len(self._applied) :], strict=True
        ):
            try:
                change, altered = apply(self.state, each, settled.get(each.n))
                self.altered[each.n] = tuple(altered)
            except Unfit as error:
                self.doubts[each.n] = str(error)
                change = self.state.before()
            self._applied.append((key, change))
        self._forget()

    def _back_to(self, count: int) -> None:
        """Take back all but the first `count` edits; all of them where memory was freed."""
        if any(change is None for _, change in self._applied[count:]):
            state = self.state
            count = 0
            fresh = State(
                state.cloud, state.base, state.folder, dict(self._first), state.sets, state.views,
                state.largest,
            )  # fmt: skip
            for name in ("label", "score", "whole", "objects", "layers"):
                setattr(state, name, getattr(fresh, name))
        else:
            for _, change in reversed(self._applied[count:]):
                assert change is not None
                self.state.take_back(change)
        for (n, _), _ in self._applied[count:]:
            self.doubts.pop(n, None)
            self.altered.pop(n, None)
        del self._applied[count:]

    def _forget(self) -> None:
        room = KEPT_BYTES
        for at in reversed(range(len(self._applied))):
            key, change = self._applied[at]
            room -= 0 if change is None else change.size
            if room < 0:
                self._applied[at] = (key, None)

    def __post_init__(self) -> None:
        self._first = dict(self.state.objects)


class History:
    """Follows a list of edits; `state` has the labels that they give."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.edits: tuple[Edit, ...] = ()
        self.counting = Counting.of(())
        self._replay = Replay(state)

    def follow(self, edits: tuple[Edit, ...]) -> None:
        """Make the state that of `edits`, which may differ anywhere from those before."""
        counting = Counting.of(edits)
        self._replay.follow(counting.active, counting.settled)
        self.edits, self.counting = edits, counting

    @property
    def doubts(self) -> tuple[Doubt, ...]:
        """The edits that could not be applied, in order."""
        found = self._replay.doubts
        return tuple(Doubt(each, found[each.n]) for each in self.counting.active if each.n in found)

    @property
    def altered(self) -> tuple[Altered, ...]:
        """Objects of applied edits of another lift that are not here as they were."""
        found = self._replay.altered
        return tuple(one for each in self.counting.active for one in found.get(each.n, ()))

    @property
    def summary(self) -> Corrections:
        """How many edits count."""
        active = self.counting.active
        return Corrections(len(active), len({each.who for each in active}), len(self.doubts))


def altered_words(altered: Iterable[Altered]) -> dict[int, str]:
    """Number of each edit -> what became of its objects, in words."""
    found: dict[int, str] = {}
    for each in altered:
        before = f"{found[each.edit.n]}; " if each.edit.n in found else ""
        found[each.edit.n] = f"{before}{each}"
    return found


def objects_of(
    confidence: Mapping[int, float], views: Mapping[int, int], cloud: LabelledPoints
) -> dict[int, Properties]:
    """The automatic objects, by id."""
    ids = {*confidence, *views, *np.unique(cloud.instance).tolist()}
    return {
        each: Properties(confidence.get(each, 0.0), views.get(each, 0))
        for each in sorted(ids)
        if each > 0
    }
