"""Options from JSON into a frozen dataclass, with checks and error messages."""

from __future__ import annotations

import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar

from lift3d.scene.errors import InputError, did_you_mean

T = TypeVar("T")


def checked(kind: type[T], given: Any, where: str) -> T:
    """`kind(**given)` with lists as tuples; InputError for wrong names or types."""
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
        try:
            values[name] = _as(value, hints[name])
        except ValueError as error:
            raise InputError(
                f"{where}: option {name} is {value!r}; expected {_words(hints[name])}"
            ) from error
    return kind(**values)


def _as(value: Any, hint: Any) -> Any:
    """The value as the type `hint`; ValueError where it has another type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return _as(value, option)
            except ValueError:
                continue
        raise ValueError(value)
    if origin is tuple and isinstance(value, list):
        each = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        return tuple(_as(item, kind) for item, kind in zip(value, each, strict=True))
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return checked(hint, value, hint.__name__)
    if hint is Path and isinstance(value, str):
        return Path(value)
    is_bool = isinstance(value, bool)
    if hint is float and isinstance(value, int | float) and not is_bool:
        return float(value)
    if origin is Literal:
        fits = value in arguments
    elif hint is int:
        fits = isinstance(value, int) and not is_bool
    else:
        fits = isinstance(hint, type) and origin is None and isinstance(value, hint)
    if not fits:
        raise ValueError(value)
    return value


def _words(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    return str(getattr(hint, "__name__", hint)) if isinstance(hint, type) else str(hint)
