"""Options out of a JSON file into a frozen dataclass, with errors a person can act on."""

from __future__ import annotations

import types
import typing
from typing import Any, Literal, TypeVar

from lift3d.errors import InputError, did_you_mean

T = TypeVar("T")


def checked(kind: type[T], given: Any, where: str) -> T:
    """`kind(**given)` with names and types checked; lists become tuples."""
    if not isinstance(given, dict):
        raise InputError(f"{where} holds a {type(given).__name__}; expected an object of options")
    hints = {
        name: hint
        for name, hint in typing.get_type_hints(kind).items()
        if typing.get_origin(hint) is not typing.ClassVar
    }
    values = {}
    for name, value in given.items():
        if name not in hints:
            raise InputError(f"{where}: {did_you_mean(name, hints, 'option')}")
        values[name] = tuple(value) if isinstance(value, list) else value
        if not _fits(values[name], hints[name]):
            raise InputError(f"{where}: option {name} is {value!r}; expected {_words(hints[name])}")
    return kind(**values)


def _fits(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return value in arguments
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if arguments[-1] is Ellipsis:
            return all(_fits(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _words(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    return str(getattr(hint, "__name__", hint)) if isinstance(hint, type) else str(hint)
