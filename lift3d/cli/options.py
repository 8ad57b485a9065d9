"""Unknown options of a command, and options of backends that were not chosen.

tyro checks options too, but lists everything that it knows first. These messages are one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from lift3d.run.settings import AUTOMATIC, CHOICES
from lift3d.scene.registry import KINDS


def wrong_option(command: type, given: Sequence[str]) -> str | None:
    """The error for the first unknown option; None where tyro can check the options.

    `given` are the words of the command line, the command's name first.

    >>> from lift3d.cli.commands import Lift
    >>> wrong_option(Lift, ["lift", "scan", "--voxl", "0.01"])
    'unknown option `--voxl`; did you mean `--voxel`?'
    """
    own = {each.name: each for each in fields(command)}
    known = list(_names(command))
    for place, word in enumerate(given):
        option = word.partition("=")[0].replace("_", "-")
        if not option.startswith("--") or option in ("--", "--help") or "--tyro" in option:
            continue
        kind = option[2:].partition(".")[0]
        if kind in CHOICES and kind in own and "." in option:
            wrong = _of_backend(option, kind, own[kind], given, place)
            if wrong is not None:
                return wrong
        elif _plain(option) not in known:
            return f"unknown option `{option}`{_nearest(option, known, f'lift3d {given[0]}')}"
    return None


def _of_backend(
    option: str, kind: str, default: Field[Any], given: Sequence[str], place: int
) -> str | None:
    """The error for an option of a backend; None where the chosen backend has it."""
    words = [word for word in given if word.startswith(f"{kind}:")]
    if words:
        chosen = words[-1]
        name = chosen.partition(":")[2]
        settings = AUTOMATIC[kind] if name == "auto" else KINDS[kind][name]
        known = list(_names(settings, f"{kind}."))
        if _plain(option) in known:
            early = given.index(chosen) > place
            return f"`{option}` belongs to `{chosen}`; write that before it" if early else None
        return (
            f"`{option}` is no option of `{chosen}`"
            f"{_nearest(option, known, f'lift3d {given[0]} {chosen}')}"
        )
    assert default.default_factory is not MISSING
    used = type(default.default_factory())
    known = list(_names(used, f"{kind}."))
    if _plain(option) in known:
        return None
    imported = [name for name in KINDS[kind] if KINDS[kind].is_imported(name)]
    owners = [
        f"`{kind}:{name}`"
        for name in imported
        if _plain(option) in _names(KINDS[kind][name], f"{kind}.")
    ]
    if owners:
        which = "that" if len(owners) == 1 else "one of them"
        return f"`{option}` belongs to {', '.join(owners)}; write {which} before it"
    return (
        f"`{option}` is no option of the default of `{kind}`"
        f"{_nearest(option, known, f'lift3d {given[0]}')}"
    )


def _names(settings: type, prefix: str = "") -> Iterator[str]:
    """The options of a class of settings, those of nested settings with dots."""
    for each in fields(settings):
        # `not` is a word of Python, so its field is `not_`.
        name = prefix + each.name.rstrip("_").replace("_", "-")
        nested = None if each.default_factory is MISSING else each.default_factory()
        yield f"--{name}"
        if is_dataclass(nested) and not (not prefix and each.name in CHOICES):
            yield from _names(type(nested), f"{name}.")


def _plain(option: str) -> str:
    """The option without `no-`, which tyro puts before the name of a switch.

    >>> _plain("--reader.no-noise")
    '--reader.noise'
    """
    start, dot, last = option.removeprefix("--").rpartition(".")
    return f"--{start}{dot}{last.removeprefix('no-')}"


def _nearest(option: str, known: Sequence[str], command: str) -> str:
    near = difflib.get_close_matches(option, known, n=1)
    return f"; did you mean `{near[0]}`?" if near else f"; `{command} --help` lists the options"
