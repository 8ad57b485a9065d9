"""Exceptions for faulty input."""

import difflib
from collections.abc import Iterable
from typing import Any

OPEN3D_NEEDS = "libusb-1.0-0 libgl1 libegl1 libx11-6"
"""Packages of Debian and Ubuntu whose libraries Open3D loads when it is imported."""

MOST_LISTED = 30
"""Known names that an error lists; a scan can have thousands of views."""

POSIX_ONLY = "lift3d runs on Linux and macOS; on Windows use it in WSL (`wsl --install`)"


class InputError(ValueError):
    """Bad input or a bad option. The message gives what came, what was expected, the next step.

    The command prints only the message and exits with status 2.
    """


class FrameError(InputError):
    """One frame cannot be used (unreadable image, empty depth); the other frames can.

    Raised by a view's loaders; stages skip the frame and record it.
    """


class MissingExtra(ImportError):
    """An optional library is absent; the message names the extra that installs it."""


def option_words(reader: str, option: str, value: str = "") -> str:
    """The command-line words that set an option of a reader.

    >>> option_words("video", "max_frames", "N")
    '`reader:video --reader.max-frames N`'
    """
    return f"`reader:{reader} --reader.{option.replace('_', '-')} {value}".rstrip() + "`"


def open3d(what: str) -> Any:
    """The module Open3D, needed for `what`; imported late because that takes seconds.

    Raises MissingExtra where Open3D or a system library that it loads is absent.
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


def system_words(error: OSError) -> str:
    """What the system reports, such as a full disk.

    >>> system_words(OSError("4096 requested and 12 written"))
    'writing failed, perhaps the disk is full (4096 requested and 12 written)'
    """
    if error.strerror is None and "requested and" in str(error):  # NumPy's words for it
        return f"writing failed, perhaps the disk is full ({error})"
    return error.strerror or str(error)


def did_you_mean(word: str, known: Iterable[str], what: str) -> str:
    """An error message for an unknown name, with the nearest known one.

    >>> did_you_mean("samm", ["regions", "sam"], "segmenter")
    "unknown segmenter 'samm'; did you mean 'sam'? (known: regions, sam)"
    >>> did_you_mean("v0007.png", [f"v{each:04}" for each in range(5578)], "view")
    "unknown view 'v0007.png'; did you mean 'v0007'? (known: v0000, v0001, v0002 and 5575 more)"
    """
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listed = names if len(names) <= MOST_LISTED else names[:3]
    more = f" and {len(names) - len(listed)} more" if len(listed) < len(names) else ""
    return f"unknown {what} {word!r}{hint} (known: {', '.join(listed)}{more})"
