"""The command's streams, whatever its caller left open."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

_COLOUR = re.compile("(\x1b\\[[0-9;]*m)")


def arrange_streams() -> None:
    """Make stdout and stderr usable.

    What is written to a closed stream is lost, as with /dev/null. Characters that the encoding of
    a stream lacks are printed as their codes.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if not _usable(number, writing=number > 0):
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _usable(number: int, writing: bool) -> bool:
    """Whether the stream is open; a file that was opened in the place of a closed one is not."""
    import fcntl

    try:
        mode = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
    except OSError:
        return False
    return not writing or mode != os.O_RDONLY


class _Shown:
    """A stream that shows control characters as codes, but for colours on a terminal."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write to the stream."""
        from lift3d.scene.printing import printable

        parts = _COLOUR.split(text) if self._stream.isatty() else [text]
        shown = (part if _COLOUR.fullmatch(part) else printable(part) for part in parts)
        return int(self._stream.write("".join(shown)))


@contextlib.contextmanager
def shown_streams() -> Iterator[None]:
    """Within the block, what a library prints of the command line does nothing to the terminal."""
    out: Any = _Shown(sys.stdout)
    err: Any = _Shown(sys.stderr)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        yield
