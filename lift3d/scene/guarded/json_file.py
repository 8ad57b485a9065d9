"""Read JSON, and numbers and names from it."""

from __future__ import annotations

import json
import math
import reprlib
from pathlib import Path
from typing import Any

from lift3d.scene.errors import InputError
from lift3d.scene.guarded import load_bytes, reading


def load_json(
    path: Path, error: type[InputError] = InputError, advice: str = "", kind: type = object
) -> Any:
    """The content of a JSON file; `error` where it is not JSON or its top is no `kind`."""
    data = load_bytes(path, error, advice)
    with reading(path, "JSON", error, advice):
        try:
            content = json.loads(data.decode("utf-8-sig"))
        except RecursionError:
            raise ValueError("it is nested too deeply") from None
        if not isinstance(content, kind):
            raise TypeError(f"it holds {json_kind(content)}, not {_NAMES.get(kind, kind)}")
    return content


_NAMES: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    type(None): "null",
}


def json_kind(value: object) -> str:
    """The kind of a JSON value in words.

    >>> json_kind([1, 2])
    'a list'
    """
    return _NAMES.get(type(value), type(value).__name__)


def finite(value: object, where: str) -> float:
    """A JSON number as a float; InputError for another kind, NaN and infinity.

    >>> finite(3, "w")
    3.0
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
        raise InputError(f"{where} is not finite; expected a number")
    raise InputError(f"{where} is {shown(value)}; expected a number")


def shown(value: object, longest: int = 60) -> str:
    """A JSON value as text for a message, cut where it is long."""
    cut = reprlib.Repr()
    cut.maxlevel, cut.maxstring, cut.maxlong, cut.maxother = 2, longest, longest, longest
    return cut.repr(value)[: 2 * longest]
