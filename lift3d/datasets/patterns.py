"""Match files to frames: the text that the stars of a pattern match is the frame's key."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lift3d.datasets.images import SUFFIXES
from lift3d.scene.errors import InputError


@dataclass(frozen=True)
class Found:
    """A file that a pattern found."""

    path: Path
    name: str
    """Name of the view."""


Files = dict[str, Found]
"""Frame key -> file, in capture order."""


def collect(root: Path, pattern: str) -> Files:
    """The files under `root` that match, by key, numbers in numeric order (2 before 10).

    `frame-*.color.png` finds `frame-000007.color.png` with key "7", name "frame-000007".
    A pattern that ends in a star finds images of any format. InputError where two files have the
    same key.
    """
    matcher = _regex(pattern)
    any_image = pattern.endswith("*")
    files: Files = {}
    for relative in glob.glob(pattern, root_dir=root):
        relative = relative.replace("\\", "/")
        match = matcher.fullmatch(relative)
        if match is None or (any_image and os.path.splitext(relative)[1].lower() not in SUFFIXES):
            continue
        key = "/".join(str(int(part)) if part.isdecimal() else part for part in match.groups())
        found = Found(root / relative, _name(pattern, relative))
        if key in files:
            raise InputError(
                f"{files[key].path} and {found.path} both belong to frame {key!r}; keep one of them"
            )
        files[key] = found
    return {key: files[key] for key in sorted(files, key=natural)}


def any_match(root: Path, pattern: str) -> bool:
    """Whether the pattern (with or without stars) matches at least one file."""
    return any(True for _ in glob.iglob(pattern, root_dir=root))


def natural(key: str) -> tuple[int, float, list[tuple[int, int, str]]]:
    """Sort key: numbers by value, before text; numbers inside text by value too.

    >>> sorted(["b", "10", "2", "seq/10", "seq/9"], key=natural)
    ['2', '10', 'b', 'seq/9', 'seq/10']
    """
    try:
        return 0, float(key), []
    except ValueError:
        parts = re.findall(r"\d+|\D+", key)
        return 1, 0.0, [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts]


def contents(root: Path) -> str:
    """The content of a folder for error messages: counts per suffix, folders by name."""
    if not root.is_dir():
        return "not a folder"
    counts: Counter[str] = Counter()
    folders = []
    for entry in sorted(root.iterdir()):
        if entry.is_dir():
            folders.append(f"{entry.name}/ ({sum(1 for _ in entry.iterdir())} entries)")
        else:
            counts[entry.suffix.lower() or "without suffix"] += 1
    kinds = [f"{n} {suffix}" for suffix, n in counts.most_common(8)]
    return ", ".join(kinds + folders[:8]) or "nothing"


def _regex(pattern: str) -> re.Pattern[str]:
    if "**" in pattern or any(c in pattern for c in "?[]") or "*" not in pattern:
        raise InputError(
            f"pattern {pattern!r}: use single stars for what changes from frame to frame, "
            "such as depth/*.png"
        )
    body = "([^/]*)".join(re.escape(piece) for piece in pattern.split("*"))
    return re.compile(body + r"\.[^/.]+" if pattern.endswith("*") else body)


def _name(pattern: str, relative: str) -> str:
    """Folders matched by stars, and the file name up to the end of its last star."""
    *pattern_folders, pattern_file = pattern.split("/")
    *folders, file = relative.split("/")
    words = [f for p, f in zip(pattern_folders, folders, strict=True) if "*" in p]
    if pattern_file.endswith("*"):
        words.append(os.path.splitext(file)[0])
    elif "*" in pattern_file:
        tail = pattern_file.rpartition("*")[2]
        words.append(file[: len(file) - len(tail)])
    return "-".join(words)
