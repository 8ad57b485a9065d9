"""Read files of others safely: one function for each kind of file.

`load_json`, `load_npy`, `load_npz`, `load_ply`, `opened_picture`: every exception of a library
becomes an InputError or a FrameError that names the file; sizes that a file declares are compared
with what it holds before memory is taken for them; what is packed is unpacked up to a limit.
A reader of another kind of file puts the call of its library into `with reading(path, ...)`.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jaxtyping import TypeCheckError

from lift3d.scene.errors import InputError, MissingExtra

UNPACKED = 1 << 30
"""Most bytes that one compressed file may unpack to."""


@contextmanager
def reading(
    path: Path | str, expected: str, error: type[InputError] = InputError, advice: str = ""
) -> Iterator[None]:
    """Turn every exception of the block into `error`, with a message that names `path`.

    `expected`: what the file should be, such as "a PLY mesh". `advice`: what to do instead of
    copying the file again. Our own errors pass. Only calls of libraries and the taking apart of
    what they return belong into the block, or mistakes in our code would look like bad files.
    """
    advice = advice or "copy or download it again"
    try:
        yield
    except (InputError, MissingExtra):
        raise
    except TypeCheckError:  # in the tests, which check every argument: a mistake in our code
        raise
    except Exception as fault:
        if isinstance(fault, MemoryError) or "OutOfMemory" in type(fault).__name__:  # torch's
            raise error(f"{path} needs more memory than there is ({first_line(fault)})") from fault
        if isinstance(fault, OSError) and fault.strerror:
            raise error(f"{path} cannot be read: {fault.strerror}") from fault
        raise error(
            f"{path} cannot be read as {expected} ({first_line(fault)}); {advice}"
        ) from fault


def file_size(path: Path, error: type[InputError] = InputError, advice: str = "") -> int:
    """Bytes of a regular file; `error` for folders, pipes and devices, which have no end."""
    try:
        found = os.stat(path)
    except FileNotFoundError as fault:
        advice = f"; {advice}" if advice else ""
        raise error(f"{path} is missing: there is no such file{advice}") from fault
    except (OSError, ValueError) as fault:  # ValueError: a zero byte in the path
        why = fault.strerror if isinstance(fault, OSError) else first_line(fault)
        raise error(f"{path} cannot be read: {why}") from fault
    if not stat.S_ISREG(found.st_mode):
        raise error(f"{path} is not a file; expected one that can be read to its end")
    return found.st_size


def load_bytes(path: Path, error: type[InputError] = InputError, advice: str = "") -> bytes:
    """The content of a regular file."""
    file_size(path, error, advice)
    with reading(path, "a file", error):
        return path.read_bytes()


def load_text(path: Path, error: type[InputError] = InputError) -> str:
    """The text of a regular file; what is not UTF-8 becomes U+FFFD."""
    return load_bytes(path, error).decode("utf-8", errors="replace")


def first_line(fault: BaseException, longest: int = 160) -> str:
    """The first line of an exception's message, without control characters; else its class.

    >>> first_line(ValueError("bad" + chr(27) + " header\\nmore"))
    'bad header'
    """
    text = next(iter(str(fault).strip().splitlines()), "")
    text = re.sub(r"[\x00-\x1f\x7f-\x9f]", "", text)
    if isinstance(fault, KeyError):
        text = f"{text} is missing"
    return text[:longest] or type(fault).__name__
