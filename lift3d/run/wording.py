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


class Words:
    """The features of the objects of a run, computed once."""

    def __init__(self, place: Place, scorer: Scorer) -> None:
        """InputError where nothing was lifted: there are no objects then."""
        if place.label is None:
            raise InputError("words need the objects of a run; lift the scan first, or click")
        self._scorer, self._label = scorer, place.label.copy()
        self.ids, self.features = _features(place, scorer)

    def of(self, place: Place, scorer: Scorer) -> bool:
        """Whether these are the features of the objects as they are now."""
        if scorer is not self._scorer or place.label is None:
            return False
        return np.array_equal(self._label, place.label)

    def relevancy(self, text: str) -> Float64[np.ndarray, " objects"]:
        """How much better each object fits the text than words that fit anything, 0 to 1.

        The least, over those words, of the softmax of both cosines (LERF, equation 1).
        """
        rows = self._scorer.names([text, *OTHERS]).astype(np.float64)
        cosine = self.features @ rows.T
        return 1 / (1 + np.exp(SHARPNESS * (cosine[:, 1:] - cosine[:, :1]).max(1)))

    def meant(self, text: str) -> tuple[list[int], dict[int, float]]:
        """The ids of the relevant objects, at least that of the best one; and all relevancies."""
        found = self.relevancy(text)
        if not len(found):
            raise InputError("no view shows an object of this run; click instead")
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
    means = np.array([np.mean(rows[each], 0) for each in found], np.float64)
    length = np.linalg.norm(means, axis=1, keepdims=True) if found else 1.0
    return np.array(found, np.int64), means / np.maximum(length, 1e-12)


def _mask(place: Place, name: str, inside: np.ndarray) -> np.ndarray:
    """The pixels of a view that show the points `inside`."""
    from lift3d.correction.clicks.answering import pixels

    return pixels(place, name, inside[:-1].astype(np.float64)) > 0.5
