"""Match files to frames: the text that the stars of a pattern match is the frame's key."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
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
    A pattern that ends in a star finds images of any format. Capitals do not matter, nor does a
    suffix that is there twice (`0007.png.png` is frame 7). InputError where two files have the
    same key.
    """
    pattern = _slashes(pattern)
    matcher = _regex(pattern)
    any_image = pattern.endswith("*")
    files: Files = {}
    for relative in _expand(root, pattern.split("/")):
        match = matcher.fullmatch(relative)
        if match is None or (any_image and os.path.splitext(relative)[1].lower() not in SUFFIXES):
            continue
        parts = [_without_suffix(part) for part in match.groups()]
        key = "/".join(str(int(part)) if part.isdecimal() else part for part in parts)
        found = Found(root / relative, _name(pattern, relative))
        if key in files:
            raise InputError(
                f"{files[key].path} and {found.path} both belong to frame {key!r}; keep one of them"
            )
        files[key] = found
    return {key: files[key] for key in sorted(files, key=natural)}


def any_match(root: Path, pattern: str) -> bool:
    """Whether the pattern (with or without stars) matches at least one file."""
    return any(True for _ in _expand(root, _slashes(pattern).split("/")))


def find(root: Path, relative: str) -> Path | None:
    """The file or folder of this relative path; capitals do not matter. None without one."""
    if not relative:
        return root if root.exists() else None
    found = next(_expand(root, _slashes(relative).split("/")), None)
    return None if found is None else root / found


def names_in(folder: Path) -> list[str]:
    """The names in a folder, sorted; none where there is no such folder."""
    return list(_listed(folder).names)


@contextmanager
def folders_listed_once() -> Iterator[None]:
    """In this block each folder is listed once, for many patterns tried on the same folders."""
    token = _LISTED.set({})
    try:
        yield
    finally:
        _LISTED.reset(token)


def near(root: Path, pattern: str) -> str:
    """A hint for a pattern that matches nothing: the same with the suffix of the files there."""
    folder, _, file = _slashes(pattern).rpartition("/")
    stem, suffix = os.path.splitext(file)
    if "*" in folder or stem != "*" or not (root / folder).is_dir():
        return ""
    there = Counter(each.suffix for each in (root / folder).iterdir() if each.suffix)
    other = next((s for s, _ in there.most_common() if s.lower() in SUFFIXES and s != suffix), None)
    return f"; did you mean {folder + '/' if folder else ''}*{other}?" if other else ""


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
    body += r"\.[^/.]+" if pattern.endswith("*") else ""
    return re.compile(body, re.IGNORECASE)


def _slashes(pattern: str) -> str:
    """The pattern with the separators of Linux and macOS."""
    return pattern.replace("\\", "/").removeprefix("./")


class _Listing:
    """The names in a folder; none where there is no such folder."""

    def __init__(self, folder: Path) -> None:
        try:
            self.names = sorted(name for name in os.listdir(folder) if "\n" not in name)
        except OSError:
            self.names = []
        self.lower = [name.lower() for name in self.names]
        self.text = "\n".join(self.lower)

    def fitting(self, part: str) -> Iterator[str]:
        """The names that match a part of a pattern; capitals do not matter."""
        body = "[^\n]*".join(map(re.escape, part.lower().split("*")))
        # One search over all names is much faster than one for each, and mostly finds nothing.
        if not re.search(f"^{body}$", self.text, re.MULTILINE):
            return
        matcher = re.compile(body)
        hidden = part.startswith(".")
        for name, low in zip(self.names, self.lower, strict=True):
            if matcher.fullmatch(low) and (hidden or not name.startswith(".")):
                yield name


_LISTED: ContextVar[dict[Path, _Listing] | None] = ContextVar("_LISTED", default=None)


def _expand(folder: Path, parts: list[str], before: str = "") -> Iterator[str]:
    """Paths relative to `folder` that match the parts of a pattern."""
    part, *inner = parts
    exact = "*" not in part and (folder / part).exists()
    for name in [part] if exact else _listed(folder).fitting(part):
        if not inner:
            yield before + name
        elif (folder / name).is_dir():
            yield from _expand(folder / name, inner, f"{before}{name}/")


def _listed(folder: Path) -> _Listing:
    kept = _LISTED.get()
    if kept is None:
        return _Listing(folder)
    if folder not in kept:
        kept[folder] = _Listing(folder)
    return kept[folder]


def _without_suffix(name: str) -> str:
    """The name without suffixes of pictures, which some programs write twice."""
    stem, suffix = os.path.splitext(name)
    return _without_suffix(stem) if stem and suffix.lower() in SUFFIXES else name


def _name(pattern: str, relative: str) -> str:
    """Folders matched by stars, and the file name up to the end of its last star."""
    *pattern_folders, pattern_file = pattern.split("/")
    *folders, file = relative.split("/")
    words = [f for p, f in zip(pattern_folders, folders, strict=True) if "*" in p]
    if pattern_file.endswith("*"):
        words.append(_without_suffix(os.path.splitext(file)[0]))
    elif "*" in pattern_file:
        tail = pattern_file.rpartition("*")[2]
        words.append(_without_suffix(file[: len(file) - len(tail)]))
    return "-".join(words)
