"""Check values from JSON and .npz files against type annotations, with error messages.

`checked` makes a frozen dataclass of options. `conforming` checks a whole JSON value against a
type, mostly a TypedDict. `arrays_fit` checks arrays against jaxtyping's shapes and dtypes.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from jaxtyping import jaxtyped

from lift3d.scene.errors import InputError, did_you_mean
from lift3d.scene.guarded.json_file import shown

T = TypeVar("T")


class WrongType(ValueError):
    """A value that is not of the expected type: where it is, the value, and the type."""

    def __init__(self, place: str, value: object, hint: object) -> None:
        self.place, self.value, self.hint = place, value, hint
        super().__init__(f"{place or 'it'} is {shown(value)}; expected {_words(hint)}")


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
                f"{where}: option {name} is {shown(value)}; expected {_words(hints[name])}"
            ) from error
    return kind(**values)


def conforming(value: Any, hint: Any, path: Path | str, advice: str) -> Any:
    """`value`, which was read from `path`, where it has the type `hint`; InputError elsewhere.

    Known are the types of JSON, unions, Literal, `list[X]`, `dict[str, X]`, `tuple[X, ...]` and
    TypedDict (keys that it does not name are allowed). Numbers have to be finite.
    """
    try:
        _as(value, hint)
    except WrongType as error:
        raise InputError(f"{path} is damaged ({error}); {advice}") from error
    return value


def arrays_fit(arrays: Mapping[str, np.ndarray], kind: type) -> None:
    """ValueError where an array has not the dtype and shape of its field in the dataclass."""
    hints = typing.get_type_hints(kind)
    with jaxtyped("context"):  # equal names of axes are equal lengths
        for each in dataclasses.fields(kind):
            if each.name in arrays and not isinstance(arrays[each.name], hints[each.name]):
                found = arrays[each.name]
                raise ValueError(f"{each.name} is {found.dtype} {found.shape}")


def _as(value: Any, hint: Any, place: str = "") -> Any:
    """The value as the type `hint`, lists as tuples; WrongType where it has another type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    wrong: WrongType | None = None
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return _as(value, option, place)
            except WrongType as error:
                # Of an object or list, say which part of it is wrong.
                wrong = error if error.place != place else wrong
        raise wrong or WrongType(place, value, hint)
    if typing.is_typeddict(hint):
        return _as_typed_dict(value, hint, place)
    if origin is dict and isinstance(value, dict):
        return {
            name: _as(each, arguments[1], f"{place}.{name}"[:80]) for name, each in value.items()
        }
    if origin is list and isinstance(value, list):
        return [_as(each, arguments[0], f"{place}[{i}]") for i, each in enumerate(value)]
    if origin is tuple and isinstance(value, list | tuple):
        each = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(each) != len(value):
            raise WrongType(place, value, hint)
        return tuple(
            _as(v, k, f"{place}[{i}]") for i, (v, k) in enumerate(zip(value, each, strict=True))
        )
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return checked(hint, value, hint.__name__)
    if hint is Path and isinstance(value, str):
        fits, value = "\0" not in value, Path(value)
    elif origin is Literal:
        fits = value in arguments
    elif hint is float:
        fits, value = _is_number(value), float(value) if _is_number(value) else value
    elif hint is int:
        fits = _is_number(value) and isinstance(value, int)
    elif hint is str:
        fits = isinstance(value, str) and "\0" not in value
    elif hint is None:
        fits = value is None
    else:
        fits = isinstance(hint, type) and origin is None and isinstance(value, hint)
    if not fits:
        raise WrongType(place, value, hint)
    return value


def _as_typed_dict(value: Any, hint: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WrongType(place, value, dict)
    for name, kind in typing.get_type_hints(hint, include_extras=True).items():
        # Not from __required_keys__: with postponed annotations it has all keys.
        optional = typing.get_origin(kind) is typing.NotRequired
        kind = typing.get_args(kind)[0] if optional else kind
        if name in value:
            _as(value[name], kind, f"{place}.{name}".lstrip("."))
        elif not optional:
            raise WrongType(f"{place}.{name}".lstrip("."), None, kind)
    return value


def _is_number(value: Any) -> bool:
    """Whether it is a number of 64 bits, and finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**63


def _words(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(repr, typing.get_args(hint)))
    return str(getattr(hint, "__name__", hint)) if isinstance(hint, type) else str(hint)
