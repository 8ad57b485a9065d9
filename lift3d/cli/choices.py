"""Backends on the command line: `KIND:NAME`, then its options as `--KIND.OPTION`.

The choices are put together when a command is read, so that plug-ins are among them. A plug-in is
imported when its name is typed, or when help is asked for, which lists them all.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import MISSING, Field, field, fields, make_dataclass
from typing import Annotated, Any, TypeVar, Union

from tyro.conf import arg, subcommand

from lift3d.export.registry import FORMATS, help_text
from lift3d.run.settings import AUTOMATIC, CHOICES, names, unknown_backend
from lift3d.scene.errors import InputError, did_you_mean
from lift3d.scene.registry import KINDS

T = TypeVar("T")


def with_choices(command: type[T], given: Collection[str]) -> type[T]:
    """A command's class whose fields for backends take every backend there is.

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
    asked = _asked(given)
    members: list[Any] = []
    if kind in AUTOMATIC:
        auto = AUTOMATIC[kind]
        members.append(Annotated[auto, subcommand("auto", default=auto())])
    backends = KINDS[kind]
    for name in backends:
        if not (asked or backends.is_imported(name) or f"{kind}:{name}" in given):
            continue
        try:
            members.append(_member(name, backends[name]))
        except Exception as error:  # whatever a plug-in raises
            if name in backends.own:
                raise
            if asked:  # listed all the same: help is where one looks for it
                stand_in = make_dataclass("Broken", [])
                members.append(Annotated[stand_in, subcommand(name, description=str(error))])
            elif f"{kind}:{name}" in given:
                raise InputError(f"{kind}:{name} cannot be set up: {error!r}") from error
    return Union[tuple(members)]  # noqa: UP007 - made at run time


def _member(name: str, config: Any) -> Any:
    """A backend's settings under its name; with their defaults, if none has to be given."""
    required = any(
        each.default is each.default_factory is MISSING and each.init for each in fields(config)
    )
    default = {} if required else {"default": config()}
    return Annotated[config, subcommand(name, **default)]


def _formats(given: Collection[str]) -> str:
    """The help of the option that takes names of formats; what each is only where it is shown."""
    if not _asked(given):  # no plug-in is imported for it
        return f"Formats, one or several: {', '.join(FORMATS)}."
    return f"Formats, one or several:\n{help_text()}"


def _asked(given: Collection[str]) -> bool:
    """Whether help is asked for."""
    return "--help" in given or "-h" in given


def wrong_choice(given: Sequence[str]) -> str | None:
    """What is wrong with the first word that was meant to choose a backend; None where none is.

    >>> wrong_choice(["lift", "scan", "--segmentation", "sam"])
    '`--segmentation sam` chooses nothing: a backend is one word without dashes, `segmentation:sam`'
    """
    for word, following in zip(given, [*given[1:], ""], strict=True):
        unknown = unknown_backend(word)
        if unknown is not None:
            return unknown
        kind, _, name = word.partition(":")
        if kind in CHOICES and name in KINDS[kind]:
            KINDS[kind][name]  # a plug-in that is broken says so
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
