"""Grids of depth corrections, and the matches as observations of their cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64, Int64

from lift3d.reconstruction.alignment.inputs import AlignmentConfig, Pair
from lift3d.reconstruction.alignment.refine import Observations
from lift3d.reconstruction.alignment.relative import Frame
from lift3d.scene import Matches

MANY = 60
"""With more images than this, cells are twice as large, to keep refinement short. Chosen by hand;
not tuned on data."""


def cell_size(config: AlignmentConfig, members: list[int]) -> int:
    """Edge of a cell in pixels; doubled if there are more than `MANY` images."""
    return config.cell * (1 if len(members) <= MANY else 2)


class Cells:
    """The grids of all images, with consecutive cell numbers."""

    def __init__(
        self, shapes: Sequence[tuple[int, int]], members: Sequence[int], size: int
    ) -> None:
        self.size = size
        self.grids: dict[int, tuple[int, int]] = {}
        self.first: dict[int, int] = {}
        self.count = 0
        for image in members:
            height, width = shapes[image]
            self.grids[image] = (-(-height // size), -(-width // size))
            self.first[image] = self.count
            self.count += self.grids[image][0] * self.grids[image][1]

    def at(self, image: int, xy: Float64[np.ndarray, "pixels 2"]) -> Int64[np.ndarray, " pixels"]:
        """The cell of each pixel."""
        column, row = np.rint(xy).astype(np.int64).T // self.size
        return self.first[image] + row * self.grids[image][1] + column

    def of(self, image: int, values: np.ndarray) -> np.ndarray:
        """The image's part of an array over all cells, as a grid; a view, not a copy."""
        rows, columns = self.grids[image]
        first = self.first[image]
        return values[first : first + rows * columns].reshape(rows, columns)


def observations_of(
    pairs: list[Pair],
    frames: list[Frame | None],
    matches: Mapping[Pair, Matches],
    cells: Cells,
) -> Observations:
    """Two observations per match, one in each direction, ordered by cell."""
    parts: list[tuple[np.ndarray, ...]] = []
    for a, b in pairs:
        each = matches[a, b]
        xy_a, xy_b = each.xy_in_a.astype(np.float64), each.xy_in_b.astype(np.float64)
        for i, j, xy, there in ((a, b, xy_a, xy_b), (b, a, xy_b, xy_a)):
            of_i, of_j = frames[i], frames[j]
            assert of_i is not None
            assert of_j is not None
            xyz, seen = of_i.lift(xy)
            parts.append(
                (
                    cells.at(i, xy)[seen],
                    np.full(seen.sum(), i, np.int32),
                    np.full(seen.sum(), j, np.int32),
                    (xy - of_i.centre)[seen],
                    np.log(xyz[seen, 2]),
                    (there - of_j.centre)[seen],
                    each.confidence[seen].astype(np.float64),
                )
            )
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    order = np.argsort(columns[0], kind="stable")
    return Observations(*(np.ascontiguousarray(column[order]) for column in columns))
