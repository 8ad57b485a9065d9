"""Backends on the command line: `KIND:NAME`, then its options as `--KIND.OPTION`.

The choices are built when a command is parsed, so that they include plug-ins. A plug-in is
imported when its name is typed, or for `--help`, which lists all of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import MISSING, Field, field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union

from tyro.conf import arg, subcommand

from lift3d.export.registry import FORMATS, help_text
from lift3d.run.settings import AUTOMATIC, CHOICES, names, unknown_backend
from lift3d.scene.errors import InputError, did_you_mean
from lift3d.scene.registry import KINDS

T = TypeVar("T")
TAKES_BACKENDS = ("lift", "batch", "info", "demo", "click")
"""The commands with fields for backends."""


def with_choices(command: type[T], given: Collection[str]) -> type[T]:
    """A command's class whose backend fields accept every registered backend.

    `given` are the words of the command line.
    """
    changed: list[tuple[str, Any, Field[Any]]] = [
        (each.name, _choice(each.name, given), field(default_factory=each.default_factory))
        for each in fields(command)  # type: ignore[arg-type]
        if each.name in CHOICES and each.default_factory is not MISSING
    ]
    if "to" in command.__annotations__:
        listed = Annotated[tuple[str, ...], arg(help=_formats(given))]
        changed.append(("to", listed, field(default=command.to)))  # type: ignore[attr-defined]
    if not changed:
        return command
    namespace = {"__doc__": command.__doc__, "__module__": command.__module__}
    return make_dataclass(
        command.__name__, changed, bases=(command,), namespace=namespace, frozen=True
    )


def _choice(kind: str, given: Collection[str]) -> Any:
    """A union of the kind's backends, each a subcommand `kind:name`."""
    wants_help = _wants_help(given)
    members: list[Any] = []
    if kind in AUTOMATIC:
        auto = AUTOMATIC[kind]
        members.append(Annotated[auto, subcommand("auto", default=auto())])
    backends = KINDS[kind]
    for name in backends:
        if not (wants_help or backends.is_imported(name) or f"{kind}:{name}" in given):
            continue
        try:
            members.append(_member(name, backends[name]))
        except Exception as error:  # whatever a plug-in raises
            if name in backends.own:
                raise
            if wants_help:  # still listed, so that the help shows the error
                stand_in = make_dataclass("Broken", [])
                members.append(Annotated[stand_in, subcommand(name, description=str(error))])
            elif f"{kind}:{name}" in given:
                raise InputError(f"{kind}:{name} cannot be set up: {error!r}") from error
    return Union[tuple(members)]  # noqa: UP007 - made at run time


def _member(name: str, config: Any) -> Any:
    """A backend's settings as a subcommand; with their defaults, unless a setting is required."""
    required = any(
        each.default is each.default_factory is MISSING and each.init for each in fields(config)
    )
    default = {} if required else {"default": config()}
    return Annotated[config, subcommand(name, **default)]


def _formats(given: Collection[str]) -> str:
    """Help of the option for formats; it describes each format only where help is shown."""
    if not _wants_help(given):  # imports no plug-in
        return f"One or more formats: {', '.join(FORMATS)}."
    return f"One or more formats:\n{help_text()}"


def _wants_help(given: Collection[str]) -> bool:
    """Whether the words of the command line have `--help`."""
    return "--help" in given or "-h" in given


def wrong_choice(given: Sequence[str]) -> str | None:
    """The error in the first word that should choose a backend; None where there is none.

    >>> wrong_choice(["lift", "scan", "--segmentation", "sam"])
    '`--segmentation sam` chooses nothing: a backend is one word without dashes, `segmentation:sam`'
    """
    for before, word, following in zip(["", *given], given, [*given[1:], ""], strict=False):
        unknown = unknown_backend(word) or _misspelled(word, before, given[0])
        if unknown is not None:
            return unknown
        kind, _, name = word.partition(":")
        if kind in CHOICES and name in KINDS[kind]:
            KINDS[kind][name]  # raises where a plug-in cannot be imported
        dashed, separator, own = word.partition("=" if "=" in word else ":")
        kind = dashed.removeprefix("--")
        if not dashed.startswith("--") or kind not in CHOICES:
            continue
        name = own if separator else following
        typed = word if separator else f"{word} {following}".rstrip()
        if name in names(kind):
            meant = f"`{kind}:{name}`"
        else:
            near = did_you_mean(name, names(kind), KINDS[kind].what)
            meant = f"such as `{kind}:{names(kind)[-1]}`; {near}"
        return f"`{typed}` chooses nothing: a backend is one word without dashes, {meant}"
    return None


def _misspelled(word: str, before: str, command: str) -> str | None:
    """The error for a positional word that was meant to choose a backend."""
    if word.startswith("-") or before.startswith("-") or command not in TAKES_BACKENDS:
        return None
    kind, colon, name = word.partition(":")
    if kind in CHOICES or "/" in word or Path(word).exists():
        return None
    if colon:
        near = difflib.get_close_matches(kind, CHOICES, n=1, cutoff=0.75)
        if not near:
            return None
        return f"unknown kind of backend {kind!r}; did you mean `{near[0]}:{name}`?"
    # The name of a reader (photos, video) may be a folder that is not there.
    kinds = [each for each in CHOICES if each != "reader" and KINDS[each].is_imported(word)]
    if before in ("", command) or not kinds:  # the first word is the input
        return None
    meant = " or ".join(f"`{each}:{word}`" for each in kinds)
    return f"there is no file {word}; to choose the backend, type {meant}"
