"""Semantic IoU of labelled vertices, as in ScanNet's benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int, Int64

from lift3d.scene.errors import InputError


@dataclass(frozen=True, eq=False)
class SemanticScore:
    """IoU of each class and their mean, 0 to 1."""

    miou: float
    """Mean over the classes with a vertex in truth or prediction; NaN without any."""
    accuracy: float
    """Share of correct vertices among the evaluated vertices."""
    per_class: Float64[np.ndarray, " classes"]
    """By class of `class_ids`; NaN for classes in neither truth nor prediction."""
    class_ids: tuple[int, ...]
    protocol: str

    def summary(self) -> dict[str, Any]:
        """Values for JSON; NaN becomes None."""
        found = {"miou": self.miou, "accuracy": self.accuracy}
        numbers = {name: None if np.isnan(each) else each for name, each in found.items()}
        return {"protocol": self.protocol, **numbers}


def semantic_score(
    scenes: Iterable[tuple[Int[np.ndarray, "_"], Int[np.ndarray, "_"]]],
    class_ids: Sequence[int],
    protocol: str,
) -> SemanticScore:
    """IoU over all scenes: pairs of true and predicted labels per vertex.

    Vertices whose true label is not in `class_ids` are not evaluated. A predicted label that is
    not in `class_ids` is a false negative of the true class.
    """
    table = np.zeros((len(class_ids), len(class_ids) + 1), np.int64)
    for truth, predicted in scenes:
        if len(truth) != len(predicted):
            raise InputError(
                f"{len(predicted)} predicted labels for {len(truth)} true labels; expected one "
                "per vertex"
            )
        table += confusion(truth, predicted, class_ids)
    right = np.diag(table)
    union = table.sum(1) + table[:, :-1].sum(0) - right
    per_class = np.divide(right, union, out=np.full(len(right), np.nan), where=union > 0)
    known = per_class[union > 0]
    evaluated = int(table.sum())
    return SemanticScore(
        float(known.mean()) if len(known) else float("nan"),
        float(right.sum() / evaluated) if evaluated else float("nan"),
        per_class,
        tuple(class_ids),
        protocol,
    )


def confusion(
    truth: Int[np.ndarray, " vertices"],
    predicted: Int[np.ndarray, " vertices"],
    class_ids: Sequence[int],
) -> Int64[np.ndarray, "classes classes_and_others"]:
    """Vertex counts by true class (rows) and predicted class; the last column is other labels."""
    classes = len(class_ids)
    row, column = _position(truth, class_ids), _position(predicted, class_ids)
    evaluated = row < classes
    pair = row[evaluated] * (classes + 1) + column[evaluated]
    return np.bincount(pair, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def _position(
    label: Int[np.ndarray, " vertices"], class_ids: Sequence[int]
) -> Int64[np.ndarray, " vertices"]:
    """Position of each label in `class_ids`; the number of classes for other labels."""
    known, index = np.unique(label, return_inverse=True)
    place = {each: at for at, each in enumerate(class_ids)}
    found = np.array([place.get(each, len(class_ids)) for each in known.tolist()], np.int64)
    return found[index] if len(found) else np.zeros(0, np.int64)
