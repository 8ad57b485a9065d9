"""What lift3d raises when the input, not the code, is at fault."""

import difflib
from collections.abc import Iterable
from typing import Any

OPEN3D_NEEDS = "libusb-1.0-0 libgl1 libegl1 libx11-6"
"""Packages of Debian and Ubuntu whose libraries Open3D loads when it is imported."""

POSIX_ONLY = "lift3d runs on Linux and macOS; on Windows use it in WSL (`wsl --install`)"


class InputError(ValueError):
    """Bad input or a bad option: what came, what was expected, the next step.

    The command prints the message alone and exits with status 2.
    """


class FrameError(InputError):
    """One frame cannot be used (unreadable image, empty depth); the rest of the scan can.

    Raised by a view's loaders; stages skip the frame and count it.
    """


class MissingExtra(ImportError):
    """An optional library is absent; the message names the extra that brings it."""


def words(reader: str, option: str, value: str = "") -> str:
    """What to type on the command line to set an option of a reader.

    >>> words("video", "max_frames", "N")
    '`reader:video --reader.max-frames N`'
    """
    return f"`reader:{reader} --reader.{option.replace('_', '-')} {value}".rstrip() + "`"


def open3d(what: str) -> Any:
    """The library Open3D, for `what`; imported late because that takes seconds.

    MissingExtra where it or a library of the system that it loads is absent.
    """
    from lift3d.scene.threads import prefer_openmp

    prefer_openmp()
    try:
        import open3d
    except (ImportError, OSError) as error:
        raise MissingExtra(
            f"{what} needs Open3D, which cannot be imported ({error}); on Debian or Ubuntu: "
            f"apt-get install {OPEN3D_NEEDS}"
        ) from error
    return open3d


def did_you_mean(word: str, known: Iterable[str], what: str) -> str:
    """One line for an unknown name, with the nearest known one.

    >>> did_you_mean("samm", ["regions", "sam"], "segmenter")
    "unknown segmenter 'samm'; did you mean 'sam'? (known: regions, sam)"
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {word!r}{hint} (known: {', '.join(names)})"
