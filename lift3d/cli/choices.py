"""Backends on the command line: `KIND:NAME`, then its options as `--KIND.OPTION`.

The choices are built when a command is parsed, so that they include plug-ins. A plug-in is
imported when its name is typed, or for `--help`, which lists all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import MISSING, Field, field, fields, make_dataclass
from typing import Annotated, Any, TypeVar, Union

from tyro.conf import arg, subcommand

from lift3d.export.registry import FORMATS
from lift3d.run.settings import AUTOMATIC, CHOICES, names
from lift3d.scene.errors import InputError, did_you_mean
from lift3d.scene.registry import KINDS

T = TypeVar("T")


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
        listed = Annotated[tuple[str, ...], arg(help=f"One or more formats: {_formats()}.")]
        changed.append(("to", listed, field(default=command.to)))  # type: ignore[attr-defined]
    if not changed:
        return command
    namespace = {"__doc__": command.__doc__, "__module__": command.__module__}
    return make_dataclass(
        command.__name__, changed, bases=(command,), namespace=namespace, frozen=True
    )


def _choice(kind: str, given: Collection[str]) -> Any:
    """A union of the kind's backends, each a subcommand `kind:name`."""
    wants_help = "--help" in given or "-h" in given
    members: list[Any] = []
    if kind in AUTOMATIC:
        auto = AUTOMATIC[kind]
        members.append(Annotated[auto, subcommand("auto", default=auto())])
    backends = KINDS[kind]
    for name in backends:
        if not (wants_help or backends.is_imported(name) or f"{kind}:{name}" in given):
            continue
        try:
            config = backends[name]
        except InputError as error:  # still listed, so that the help shows the error
            stand_in = make_dataclass(name.replace("-", "_"), [])
            members.append(Annotated[stand_in, subcommand(name, description=str(error))])
            continue
        required = any(
            each.default is each.default_factory is MISSING and each.init for each in fields(config)
        )
        default = {} if required else {"default": config()}
        members.append(Annotated[config, subcommand(name, **default)])
    return Union[tuple(members)]  # noqa: UP007 - made at run time


def _formats() -> str:
    return ", ".join(FORMATS)


def wrong_choice(given: Sequence[str]) -> str | None:
    """The error in the first word that should choose a backend; None where there is none.

    >>> wrong_choice(["lift", "scan", "--segmentation", "sam"])
    '`--segmentation sam` chooses nothing: a backend is one word without dashes, `segmentation:sam`'
    """
    for word, following in zip(given, [*given[1:], ""], strict=True):
        kind, colon, name = word.partition(":")
        if colon and kind in CHOICES:
            if name not in names(kind):
                return did_you_mean(name, names(kind), KINDS[kind].what)
            if name in KINDS[kind]:
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
            unknown = did_you_mean(name, names(kind), KINDS[kind].what)
            meant = f"such as `{kind}:{names(kind)[-1]}`; {unknown}"
        return f"`{typed}` chooses nothing: a backend is one word without dashes, {meant}"
    return None
