"""Names that CLIP proposes for the objects of a run, from the pictures that show them best."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from lift3d.evaluation.metrics.classes import SCANNET200
from lift3d.run.corrected_objects import CorrectedObject
from lift3d.run.edits import Edits
from lift3d.run.wording import OTHERS, VIEWS, Scorer, Vocabulary, unit_mean
from lift3d.scene import Image, Masks
from lift3d.scene.errors import InputError
from lift3d.viewing.seen import Seen

PROPOSED = 3
"""Names per object."""
WORDS = tuple(SCANNET200.names.values())
"""What things in rooms are called; names and classes that a person gave are added."""
ROUND = 16
"""Objects after which the page hears of new names."""


class Names:
    """Embeds each object once, in the background, and again when its points have changed."""

    def __init__(
        self,
        edits: Edits,
        seen: Seen,
        image: Callable[[int], Image],
        scorer: Scorer,
        tell: Callable[[], None],
    ) -> None:
        """`image` gives the picture of a view by number; `tell` is called where there is news."""
        self._edits, self._seen, self._image, self._scorer = edits, seen, image, scorer
        self._tell = tell
        self._features: dict[int, tuple[int, np.ndarray | None]] = {}
        self._words = Vocabulary(scorer)
        self._known_words: tuple[str, ...] = ()
        self._wanted, self._closed = threading.Event(), False
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        """Begin; what every view sees has to be known by now."""
        self._thread.start()
        self.changed()

    def changed(self) -> None:
        """Objects may have changed."""
        self._wanted.set()

    def close(self) -> None:
        """Embed no more objects."""
        self._closed = True
        self._wanted.set()

    def proposed(self, ids: Sequence[int]) -> dict[int, list[tuple[str, float]]]:
        """Up to `PROPOSED` names of each object with their relevancy, the best first.

        Asks no network: of objects and words that are not embedded yet there is nothing.
        """
        known = {each: self._features[each][1] for each in ids if each in self._features}
        rows = {each: row for each, row in known.items() if row is not None}
        if not rows or not self._known_words:
            return {}
        found = self._words.best(np.stack(list(rows.values())), self._known_words, PROPOSED)
        return dict(zip(rows, found, strict=True))

    def _work(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._closed:
                return
            self._learn()
            fresh = [each for each in self._edits.objects if not self._done(each)]
            for number, each in enumerate(sorted(fresh, key=lambda own: -own.points), start=1):
                if self._closed:
                    return
                try:
                    self._embed(each)
                except InputError:  # it was merged meanwhile, or its pictures are gone
                    self._features.pop(each.id, None)
                if number % ROUND == 0 or number == len(fresh):
                    self._tell()

    def _learn(self) -> None:
        """Embed the words: those of rooms, and those that a person gave."""
        given = {
            text
            for own in self._edits.properties.values()
            for text in (own.name, own.class_name)
            if text and not text.isdecimal()
        }
        words = tuple(sorted({*WORDS, *given}))
        self._words.rows((*words, *OTHERS))
        self._known_words = words

    def _done(self, each: CorrectedObject) -> bool:
        """Whether nothing is to be proposed, or it is known already."""
        if each.name or each.class_name:
            return True
        return self._features.get(each.id, (-1,))[0] == max(each.edited, default=0)

    def _embed(self, each: CorrectedObject) -> None:
        which = each.id
        views, names = self._seen.views_of_objects([which])[:VIEWS], self._seen.names
        rows = []
        for view, _ in views:
            mask = self._edits.label_map(names[view]) == which
            if mask.any():
                masks = Masks(mask[None], np.ones(1, np.float32))
                rows.append(self._scorer.masks(self._image(view), masks)[0])
        feature = unit_mean(rows) if rows else None
        self._features[which] = max(each.edited, default=0), feature
