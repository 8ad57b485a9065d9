"""The words of `lift3d edit`: which method of the run's edits they name, and its arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lift3d.correction.history import altered_words
from lift3d.correction.maps import read_pixels
from lift3d.run.edits import Edits
from lift3d.run.taking import take
from lift3d.scene.errors import InputError, did_you_mean

NEW = "new"
"""The word for an object that is to be made."""


@dataclass(frozen=True)
class Asked:
    """The words and options of one command."""

    words: tuple[str, ...]
    at: tuple[str, ...] = ()
    plane: str | None = None
    into: int | None = None
    neighbours: bool = False
    only_view: bool = False
    parts: int | None = None
    who: str = ""

    def ids(self, at_least: int = 1) -> tuple[int, ...]:
        """All words as ids of objects."""
        if len(self.words) < at_least:
            raise InputError(f"expected {at_least} or more ids of objects, such as 41 37")
        return tuple(_number(each, "an object") for each in self.words)

    def first(self, what: str = "an object") -> int:
        """The first word as a number."""
        if not self.words:
            raise InputError(f"expected the number of {what}")
        return _number(self.words[0], what)

    def optional(self, place: int, what: str) -> int | None:
        """A word as a number; None where it is absent or `new`."""
        if len(self.words) <= place or self.words[place] == NEW:
            return None
        return _number(self.words[place], what)


def _turned(asked: Asked) -> int | None:
    """The number of the edit to undo or redo; None for the last one."""
    if len(asked.words) > 1:
        raise InputError("one edit at a time: give one number, or none for your last edit")
    return asked.optional(0, "an edit")


def _number(word: str, what: str) -> int:
    if not word.isdecimal():
        raise InputError(f"{word!r} is no number of {what}")
    return int(word)


def numbers(text: str, count: int, option: str, example: str) -> list[float]:
    """Numbers between commas; InputError where there are not `count`."""
    try:
        found = [float(each) for each in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count:
        raise InputError(f"{option} is {text!r}; expected {count} numbers, such as {example}")
    return found


def _split(edits: Edits, asked: Asked) -> Any:
    if len(asked.words) != 1:
        raise InputError("split takes one object, and --at X,Y,Z for each thing in it")
    each = asked.first()
    if asked.plane is not None:
        return edits.cut(each, numbers(asked.plane, 4, "--plane", "1,0,0,-2.5"), asked.who)
    if asked.parts is not None:
        return edits.divide(each, asked.parts, asked.who)
    if not asked.at:
        return edits.separate(each, asked.who)
    clicks = [numbers(text, 3, "--at", "1.2,0.4,0.9") for text in asked.at]
    return edits.split(each, clicks, who=asked.who)


def _name(edits: Edits, asked: Asked) -> Any:
    return edits.name(asked.first(), " ".join(asked.words[1:]), asked.who)


def _class(edits: Edits, asked: Asked) -> Any:
    return edits.classify(asked.first(), " ".join(asked.words[1:]), asked.who)


def _colour(edits: Edits, asked: Asked) -> Any:
    if len(asked.words) not in (1, 2):
        raise InputError("expected: colour OBJECT #rrggbb; without a colour it gets its own again")
    return edits.colour(asked.first(), "".join(asked.words[1:]), asked.who)


def _assign(edits: Edits, asked: Asked) -> Any:
    if len(asked.words) not in (2, 3):
        raise InputError("expected: assign VIEW MASK OBJECT; OBJECT is an id or `new`")
    mask = _number(asked.words[1], "a mask (as in masks/)")
    return edits.assign(asked.words[0], mask, asked.optional(2, "an object"), asked.who)


def _paint(edits: Edits, asked: Asked) -> Any:
    if len(asked.words) not in (2, 3):
        raise InputError("expected: paint VIEW PICTURE.png OBJECT; OBJECT is an id or `new`")
    pixels = read_pixels(Path(asked.words[1]), "give a black and white picture of the view's size")
    into = asked.optional(2, "an object")
    return edits.paint(asked.words[0], pixels, into, asked.who, everywhere=not asked.only_view)


def _settle(edits: Edits, asked: Asked) -> Any:
    ids = tuple(_number(each, "an object") for each in asked.words[1:])
    return edits.settle(asked.first("an edit"), ids or None, asked.who)


def _delete(edits: Edits, asked: Asked) -> Any:
    to = "neighbours" if asked.neighbours else "unlabelled"
    return edits.delete(asked.ids(), to, asked.who)


VERBS: Mapping[str, Callable[[Edits, Asked], Any]] = {
    "merge": lambda edits, asked: edits.merge(asked.ids(2), asked.into, asked.who),
    "split": _split,
    "name": _name,
    "class": _class,
    "colour": _colour,
    "delete": _delete,
    "assign": _assign,
    "paint": _paint,
    "accept": lambda edits, asked: edits.accept(asked.ids(), asked.who),
    "lock": lambda edits, asked: edits.lock(asked.ids(), asked.who),
    "unlock": lambda edits, asked: edits.unlock(asked.ids(), asked.who),
    "undo": lambda edits, asked: edits.undo(_turned(asked), asked.who),
    "redo": lambda edits, asked: edits.redo(_turned(asked), asked.who),
    "settle": _settle,
}
"""Each kind of edit by its word."""
OTHERS = ("list", "save", "take")
"""Words that make no edit of their own."""
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "merge": ("into",),
    "split": ("at", "plane", "parts"),
    "paint": ("only_view",),
    "delete": ("neighbours",),
}
"""Options of single kinds."""


def perform(edits: Edits, verb: str, asked: Asked, log: Callable[[str], None]) -> None:
    """Make the edit, bring the public files up to it, and say what happened."""
    if verb not in (*VERBS, *OTHERS):
        raise InputError(did_you_mean(verb, [*VERBS, *OTHERS], "edit"))
    if verb == "take" and len(asked.words) != 1:
        raise InputError("take needs one run, or its edits.jsonl: lift3d edit RUN take OTHER")
    if verb in ("list", "save") and asked.words:
        raise InputError(f"{verb} takes no more words, and there is {' '.join(asked.words)}")
    for option in sorted({each for own in OPTIONS.values() for each in own}):
        if getattr(asked, option) not in (None, False, ()) and option not in OPTIONS.get(verb, ()):
            of = next(kind for kind, own in OPTIONS.items() if option in own)
            named = option.replace("_", "-")
            raise InputError(f"--{named} is an option of {of}, not of {verb}")
    if verb == "list":
        for line in listing(edits):
            log(line)
        return
    with edits.hold():
        if verb == "save":
            saved = edits.save()
            log(f"{edits.summary()}; written: {', '.join(saved.done)}")
            if saved.waiting:
                log(f"{' and '.join(saved.waiting)} have to wait: {saved.reason}")
        elif verb == "take":
            count = take(edits, Path(asked.words[0]))
            edits.write()
            log(f"{count} edits taken; cloud, label maps and instances.json follow")
        else:
            kept = VERBS[verb](edits, asked)
            moved = f"; {len(kept.index):,} points changed" if len(kept.index) else ""
            log(f"edit {kept.edit.n}: {kept.edit}{moved}")
            edits.write()
            log(
                "cloud, label maps and instances.json follow; for consistency and report: "
                f"lift3d edit {edits.folder} save"
            )
    for warning in (*edits.warnings, *(str(each) for each in edits.doubts)):
        log(f"warning: {warning}")


def listing(edits: Edits) -> Sequence[str]:
    """A line per edit: undone, in doubt, or with objects that are not here as they were."""
    active = {each.n for each in edits.active}
    doubts = {each.edit.n: each.reason for each in edits.doubts}
    altered = altered_words(edits.altered)
    lines = []
    for each in edits.all:
        state = ""
        if each.do not in ("undo", "redo", "settle"):
            state = "" if each.n in active else "  (undone)"
        if each.n in doubts:
            state = f"  (in doubt: {doubts[each.n]})"
        elif each.n in altered:
            state = f"  ({altered[each.n]})"
        lines.append(f"{each.n:>4}  {each.at}  {each.who}  {each}{state}")
    return [*lines, str(edits.summary())]
