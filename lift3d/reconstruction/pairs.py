"""Choose which pairs of pictures to match: all, neighbours in order, or similar ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float32

from lift3d.scene.errors import InputError, did_you_mean
from lift3d.scene.guarded import load_text

Pair: TypeAlias = tuple[int, int]
COMPLETE = 12
"""`auto` matches every pair up to this many pictures. Chosen by hand; not tuned on data."""


@dataclass(frozen=True)
class PairsConfig:
    """Which pairs of pictures are matched."""

    graph: Literal["auto", "complete", "window", "similar"] = "auto"
    """complete: every pair; window: neighbours in the order of the pictures; similar: pictures
    with similar features, and neighbours. auto: complete up to 12 pictures, else similar."""
    window: int = 3
    """How many pictures ahead are neighbours, for `window`; `similar` uses 1."""
    loop: bool = False
    """The last picture is a neighbour of the first."""
    similar: int = 8
    """How many of the most similar pictures each picture is paired with."""
    file: Path | None = None
    """Text file with the pairs, two picture names per line; replaces `graph`."""

    def choose(
        self, names: Sequence[str], features: Float32[np.ndarray, "pictures channels"] | None = None
    ) -> list[Pair]:
        """Pairs (a, b) with a < b, without repeats, sorted.

        `features` are needed for `similar` (see `uses_features`). Raises InputError, with the
        names, if the pairs do not connect all pictures.
        """
        count = len(names)
        graph = self.resolved(count)
        if self.file is not None:
            pairs = _from_file(self.file, names)
        elif graph == "complete":
            pairs = [(a, b) for a in range(count) for b in range(a + 1, count)]
        elif graph == "window":
            pairs = _window(count, self.window, self.loop)
        else:
            if features is None:
                raise ValueError("pairs by similarity need features")
            pairs = sorted({*_window(count, 1, self.loop), *_similar(features, self.similar)})
        check_connected(names, pairs)
        return pairs

    def resolved(self, count: int) -> str:
        """The graph for `count` pictures."""
        if self.window < 1 or self.similar < 1:
            raise InputError(
                f"pairs: window is {self.window}, similar {self.similar}; both must be 1 or more"
            )
        if self.graph == "auto":
            return "complete" if count <= COMPLETE else "similar"
        return self.graph

    def uses_features(self, count: int) -> bool:
        """Whether `choose` needs the pictures' features."""
        return self.file is None and self.resolved(count) == "similar"


def check_connected(names: Sequence[str], pairs: Sequence[Pair]) -> None:
    """Raise InputError with the names of pictures that no chain of pairs connects to the largest
    group.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = np.array(pairs, np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(ends)), ends.T), (len(names), len(names)))
    groups, group = connected_components(graph, directed=False)
    if groups > 1:
        biggest = np.bincount(group).argmax()
        left = [names[i] for i in np.flatnonzero(group != biggest).tolist()]
        some = ", ".join(left[:8]) + (f" and {len(left) - 8} more" if len(left) > 8 else "")
        raise InputError(
            f"the pairs leave out {len(left)} of {len(names)} pictures: {some}; add pairs that "
            "link them to the others, or take another graph of pairs (complete, similar)"
        )


def _window(count: int, ahead: int, loop: bool) -> list[Pair]:
    pairs = {
        (min(a, b % count), max(a, b % count))
        for a in range(count)
        for b in range(a + 1, a + 1 + ahead)
        if b < count or loop
    }
    return sorted(pair for pair in pairs if pair[0] != pair[1])


def _similar(features: Float32[np.ndarray, "pictures channels"], most: int) -> set[Pair]:
    """Pair each picture with the most similar, by the cosine of mean-centred features."""
    centred = features - features.mean(0)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -np.inf)
    pairs = set()
    for a, row in enumerate(alike):
        for b in np.argsort(-row, kind="stable")[: min(most, len(row) - 1)].tolist():
            pairs.add((min(a, b), max(a, b)))
    return pairs


def _from_file(path: Path, names: Sequence[str]) -> list[Pair]:
    index = {name: i for i, name in enumerate(names)}
    lines = load_text(path).splitlines()
    pairs = set()
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:
            raise InputError(f"{path}, line {number}: {line!r}; expected two picture names")
        ends = []
        for word in words:
            name = word if word in index else Path(word).stem
            if name not in index:
                raise InputError(f"{path}, line {number}: {did_you_mean(word, names, 'picture')}")
            ends.append(index[name])
        if ends[0] != ends[1]:
            pairs.add((min(ends), max(ends)))
    return sorted(pairs)
