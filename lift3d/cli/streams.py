"""The command's streams, whatever its caller left open."""

import io
import os
import sys


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
