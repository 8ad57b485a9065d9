"""The edits of a run and the labels that they give, live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lift3d.correction.edits import Counting, Edit
from lift3d.correction.state import Properties, Replay, State
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
    def summary(self) -> Corrections:
        """How many edits count."""
        active = self.counting.active
        return Corrections(len(active), len({each.who for each in active}), len(self.doubts))


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
