"""Words to objects: CLIP compares what the views show of each object of a run with the words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64

from lift3d.correction.clicks.place import Place
from lift3d.scene import Image, Masks
from lift3d.scene.errors import InputError

VIEWS = 3
"""Views of each object that are compared, those that show most of it. Chosen by hand."""
OTHERS = ("object", "things", "stuff", "texture")
"""Words that anything fits, of LERF (Kerr et al. 2023, section 3.4)."""
SHARPNESS = 10.0
"""Factor of the cosines, likewise."""
RELEVANT = 0.5
"""An object is meant above this relevancy, likewise."""


@runtime_checkable
class Scorer(Protocol):
    """Embeds words and masks in one space, rows of length 1 (`lift3d.networks.clip`)."""

    def names(self, names: Sequence[str]) -> Float32[np.ndarray, "names channels"]:
        """One row per name."""
        ...

    def masks(self, image: Image, masks: Masks) -> Float32[np.ndarray, "masks channels"]:
        """One row per mask."""
        ...


class Vocabulary:
    """Words that objects may be called; each is embedded once."""

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        self._rows: dict[str, Float64[np.ndarray, " channels"]] = {}

    def rows(self, words: Sequence[str]) -> Float64[np.ndarray, "words channels"]:
        """One row per word."""
        new = [each for each in dict.fromkeys(words) if each not in self._rows]
        if new:
            self._rows |= zip(new, self._scorer.names(new).astype(np.float64), strict=True)
        return np.stack([self._rows[each] for each in words])

    def relevancy(
        self, features: Float64[np.ndarray, "objects channels"], words: Sequence[str]
    ) -> Float64[np.ndarray, "objects words"]:
        """How much better each object fits each word than words that fit anything, 0 to 1.

        The least, over those words, of the softmax of both cosines (LERF, equation 1).
        """
        any_word = (features @ self.rows(OTHERS).T).max(1, keepdims=True)
        return 1 / (1 + np.exp(SHARPNESS * (any_word - features @ self.rows(words).T)))

    def best(
        self, features: Float64[np.ndarray, "objects channels"], words: Sequence[str], count: int
    ) -> list[list[tuple[str, float]]]:
        """For each object up to `count` words above `RELEVANT`, the best first."""
        found = self.relevancy(features, words)
        order = np.argsort(-found, axis=1, kind="stable")[:, :count]
        return [
            [(words[at], round(float(row[at]), 3)) for at in best if row[at] > RELEVANT]
            for row, best in zip(found, order, strict=True)
        ]


def unit_mean(rows: Sequence[np.ndarray]) -> Float64[np.ndarray, " channels"]:
    """The mean of rows, of length 1."""
    mean = np.mean(np.asarray(rows, np.float64), axis=0)
    return mean / max(float(np.linalg.norm(mean)), 1e-12)


class Words:
    """The features of the objects of a run, computed once."""

    def __init__(self, place: Place, scorer: Scorer) -> None:
        """InputError where nothing was lifted: there are no objects then."""
        if place.label is None:
            raise InputError("words need the objects of a run; lift the scan first, or click")
        self._scorer, self._label = scorer, place.label.copy()
        self._words = Vocabulary(scorer)
        self.ids, self.features = _features(place, scorer)

    def of(self, place: Place, scorer: Scorer) -> bool:
        """Whether these are the features of the objects as they are now."""
        if scorer is not self._scorer or place.label is None:
            return False
        return np.array_equal(self._label, place.label)

    def meant(self, text: str) -> tuple[list[int], dict[int, float]]:
        """The ids of the relevant objects, at least that of the best one; and all relevancies."""
        if not len(self.ids):
            raise InputError("no view shows an object of this run; click instead")
        found = self._words.relevancy(self.features, [text])[:, 0]
        chosen = (found > RELEVANT) | (found == found.max())
        table = {int(i): round(float(each), 4) for i, each in zip(self.ids, found, strict=True)}
        return [int(each) for each in self.ids[chosen]], table


def _features(
    place: Place, scorer: Scorer
) -> tuple[np.ndarray, Float64[np.ndarray, "objects channels"]]:
    """Ids, and the mean feature, of length 1, of each object over the views that show most."""
    assert place.label is not None
    label = np.append(place.label, 0)
    sizes: dict[int, list[tuple[int, str]]] = {}
    for name in place.views:
        seen = place.seen(name).points
        ids, counts = np.unique(label[seen.point], return_counts=True)
        for each, count in zip(ids.tolist(), counts.tolist(), strict=True):
            if each > 0:
                sizes.setdefault(each, []).append((count, name))
    wanted: dict[str, list[int]] = {}
    for each, views in sizes.items():
        for _, name in sorted(views, reverse=True)[:VIEWS]:
            wanted.setdefault(name, []).append(each)
    rows: dict[int, list[np.ndarray]] = {}
    for name, numbers in wanted.items():
        view = place.view(name)
        stack = np.stack([_mask(place, name, label == each) for each in numbers])
        masks = Masks(stack, np.ones(len(numbers), np.float32))
        for number, row in zip(numbers, scorer.masks(view.image(), masks), strict=True):
            rows.setdefault(number, []).append(row)
    found = sorted(rows)
    return np.array(found, np.int64), np.array([unit_mean(rows[each]) for each in found])


def _mask(place: Place, name: str, inside: np.ndarray) -> np.ndarray:
    """The pixels of a view that show the points `inside`."""
    from lift3d.correction.clicks.answering import pixels

    return pixels(place, name, inside[:-1].astype(np.float64)) > 0.5
