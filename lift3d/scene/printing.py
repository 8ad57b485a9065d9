"""Text for people: names and messages as they are printed, and as they stand in a report.

Names come from files, so they may hold bytes that are not UTF-8, codes that act on a terminal, or
what the library rich would read as markup. Everything that is printed goes through here.
"""

from __future__ import annotations

import logging
import re
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and line feed, characters that turn the direction of a line, and
surrogates, which stand for bytes that are not UTF-8."""


def printable(text: object) -> str:
    r"""The text with characters that cannot be shown replaced by their codes.

    >>> printable("a\x1b[31mb"), printable(b"k\xfc.png".decode(errors="surrogateescape"))
    ('a\\x1b[31mb', 'k\\xfc.png')
    """
    return _ACTING.sub(_code, str(text).replace("\r\n", "\n"))


def only_text(name: str) -> str:
    r"""A name that any program can read: `_` in place of what `printable` would replace.

    >>> only_text(b"k\xfc".decode(errors="surrogateescape"))
    'k_'
    """
    return _ACTING.sub("_", name)


def is_text(path: object) -> bool:
    """Whether `only_text` changes nothing; some libraries crash on other paths."""
    return only_text(str(path)) == str(path)


def _code(found: re.Match[str]) -> str:
    code = ord(found[0])
    if 0xDC80 <= code <= 0xDCFF:  # what Python makes of a byte in a file name
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def to_stdout(text: object) -> None:
    """Print to stdout at once, also where it is a pipe."""
    print(printable(text), flush=True)


def to_stderr(text: object) -> None:
    """Print to stderr at once."""
    print(printable(text), file=sys.stderr, flush=True)


def to_console(console: Console, text: object) -> None:
    """Print with rich, without markup."""
    from rich.text import Text

    console.print(Text(printable(text)))


def plain_table(title: object, **options: Any) -> Table:
    """A table of rich whose title and cells are text without markup."""
    from rich.table import Table
    from rich.text import Text

    class Plain(Table):
        def add_row(self, *cells: object, **more: Any) -> None:
            super().add_row(*(Text(printable(each)) for each in cells), **more)

    style = {"box": None, "pad_edge": False, "title_justify": "left"} | options
    return Plain(title=Text(printable(title), style="italic"), **style)


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


_format_warning = warnings.formatwarning


def arrange_logs() -> None:
    """Make log messages and warnings printable, in lift3d's own processes."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_Printable())
    warnings.formatwarning = lambda *told, **more: printable(_format_warning(*told, **more))
