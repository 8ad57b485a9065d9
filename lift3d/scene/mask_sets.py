"""Masks of one view that may overlap, each with a score, in a compact form and as files.

Masks that overlap cut the image into regions: all pixels of a region are under the same masks. One
map of regions and a table of the masks over each region hold every mask exactly, however deep they
are nested (a part in a whole in a group).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float32, Int32

from lift3d.scene import DENSE, LabelMap, Masks, View, ids_in
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import LabelMaps, Lazy, LazyMapping, label_map_of, write_label_map
from lift3d.scene.storage import atomic, load_arrays

SUFFIX = ".masks.npz"
"""End of the name of a view's mask set, beside its label map `<view>.png`."""


@dataclass(frozen=True, eq=False)
class MaskSet:
    """Masks of one view that may overlap. Scores weigh what each mask says of the points.

    Ids are distinct, 1 or more. An id that appears in two views claims to be the same object.
    """

    region: LabelMap
    """Region of each pixel, from 1; 0 = under no mask."""
    start: Int32[np.ndarray, " regions_plus_one"]
    """The masks over region r are mask[start[r - 1]:start[r]]."""
    mask: Int32[np.ndarray, " entries"]
    """Index into `ids`, the topmost (smallest) mask of a region first."""
    ids: Int32[np.ndarray, " masks"]
    """Ascending."""
    scores: Float32[np.ndarray, " masks"]
    """Quality of each mask by the segmenter's own estimate, 0 to 1."""

    @staticmethod
    def of(masks: Masks, ids: Int32[np.ndarray, " masks"] | None = None) -> MaskSet:
        """The set of `masks` under `ids`, by default their own or else 1, 2, ...

        Smaller masks lie on larger ones, as `paint` paints them. Masks of the same id are one
        mask, with the larger of their scores.
        """
        from lift3d.scene.mask_regions import regions_between  # numba: heavy

        if ids is None:
            ids = masks.ids
        if ids is None:
            ids = np.arange(1, len(masks) + 1, dtype=np.int32)
        if isinstance(masks, PackedMasks) and (np.diff(ids) > 0).all():
            return replace(masks.regions, ids=ids)
        known, index = np.unique(ids, return_inverse=True)
        scores = np.zeros(len(known), np.float32)
        np.maximum.at(scores, index, np.clip(np.nan_to_num(masks.scores), 0, 1))
        region, start, mask = regions_between(masks.stack, ids, index)
        return MaskSet(region, start, mask, known.astype(np.int32), scores)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.region.shape
        return height, width

    @property
    def regions(self) -> int:
        """Number of regions."""
        return len(self.start) - 1

    @property
    def is_flat(self) -> bool:
        """True where a label map says the same: no two masks overlap and all scores are 1."""
        return len(self.mask) == self.regions and bool((self.scores == 1).all())

    @cached_property
    def labels(self) -> LabelMap:
        """The label map: each pixel has the id of its topmost mask, 0 = none."""
        return self.top[self.region]

    @cached_property
    def top(self) -> Int32[np.ndarray, " regions_and_none"]:
        """Id of the topmost mask of each region; of region 0, where there is none, 0."""
        return self._table(self.ids[self.mask[self.start[:-1]]])

    @cached_property
    def top_score(self) -> Float32[np.ndarray, " regions_and_none"]:
        """Score of the topmost mask of each region; of region 0, where there is none, 1."""
        return np.append(np.float32(1), self.scores[self.mask[self.start[:-1]]])

    def labels_of(self, preferred: Int32[np.ndarray, " some"]) -> LabelMap:
        """The label map of the topmost mask with a `preferred` id, or else the topmost."""
        wanted = np.isin(self.ids, preferred)[self.mask]
        first = self.start[:-1].copy()
        region = np.repeat(np.arange(self.regions), np.diff(self.start))
        found = np.flatnonzero(wanted)[::-1]  # the topmost is written last
        first[region[found]] = found
        return self._table(self.ids[self.mask[first]])[self.region]

    def ids_at(self, row: int, column: int) -> tuple[int, ...]:
        """Ids of all masks over a pixel, the topmost first."""
        region = int(self.region[row, column])
        if region == 0:
            return ()
        of = self.mask[self.start[region - 1] : self.start[region]]
        return tuple(int(each) for each in self.ids[of])

    def masks(self) -> Masks:
        """One mask per id, ascending; masks that cover no pixel are empty."""
        stack = np.zeros((len(self), *self.shape), bool)
        region = np.repeat(np.arange(1, self.regions + 1), np.diff(self.start))
        for index in range(len(self)):
            covers = np.zeros(self.regions + 1, bool)
            covers[region[self.mask == index]] = True
            stack[index] = covers[self.region]
        return Masks(stack, self.scores, self.ids)

    def check(self, path: Path) -> None:
        """InputError where the arrays, read from `path`, do not fit each other."""
        entries = self.start[-1] if len(self.start) else -1
        fits = (
            entries == len(self.mask)
            and (np.diff(self.start) > 0).all()
            and (self.mask >= 0).all()
            and (self.mask < len(self.ids)).all()
            and len(self.ids) == len(self.scores)
            and (np.diff(self.ids) > 0).all()
            and (self.ids > 0).all()
            and ((self.scores >= 0) & (self.scores <= 1)).all()
            and self.region.min(initial=0) >= 0
            and self.region.max(initial=0) <= self.regions
        )
        if not fits:
            raise InputError(
                f"the mask set {path} is damaged; remove it to have the masks made again"
            )

    @staticmethod
    def _table(of_region: np.ndarray) -> Int32[np.ndarray, " regions_and_none"]:
        return np.append(0, of_region).astype(np.int32)


class PackedMasks(Masks):
    """Masks in the compact form of their regions: of a label map, or for other processes.

    The stack is made when it is first used. A `MaskSet` of them with ascending ids needs no stack.
    """

    regions: MaskSet
    """The masks under the ids 1, 2, ... in their order."""

    def __init__(self, regions: MaskSet, scores: np.ndarray, ids: np.ndarray | None) -> None:
        vars(self).update(regions=regions, scores=scores, ids=ids)

    @staticmethod
    def of(masks: Masks) -> PackedMasks:
        """The same masks, packed."""
        order = np.arange(1, len(masks) + 1, dtype=np.int32)
        return PackedMasks(MaskSet.of(masks, order), masks.scores, masks.ids)

    @staticmethod
    def of_label_map(labels: LabelMap) -> PackedMasks:
        """One mask per id above 0, ascending, with that id and score 1."""
        ids = ids_in(labels)
        order = np.arange(len(ids) + 1, dtype=np.int32)
        scores = np.ones(len(ids), np.float32)
        regions = MaskSet(_place(labels, ids), order, order[:-1], order[1:], scores)
        return PackedMasks(regions, scores, ids)

    def __len__(self) -> int:
        return len(self.scores)

    @cached_property
    def stack(self) -> Bool[np.ndarray, "masks height width"]:
        """The masks, one after the other."""
        return self.regions.masks().stack


def _place(labels: LabelMap, ids: Int32[np.ndarray, " masks"]) -> LabelMap:
    """Place of each pixel's id among all `ids` above 0 of the map, from 1; 0 for no id."""
    if labels.max(initial=0) >= DENSE or labels.min(initial=0) < 0:
        at = np.searchsorted(ids, labels, side="right")
        return np.where(labels > 0, at, 0).astype(np.int32)
    place = np.zeros(int(labels.max(initial=0)) + 1, np.int32)
    place[ids] = np.arange(1, len(ids) + 1)
    return place[labels]


ViewMasks: TypeAlias = LabelMap | MaskSet
"""The masks of one view: a label map where none overlap and all count the same."""


def view_masks(masks: Masks, ids: Int32[np.ndarray, " masks"] | None = None) -> ViewMasks:
    """A label map where that says everything (no overlap, scores of 1), else a `MaskSet`."""
    found = MaskSet.of(masks, ids)
    return found.labels if found.is_flat else found


def flat(masks: ViewMasks) -> LabelMap:
    """The label map: of masks that overlap, the smallest is on top."""
    return masks.labels if isinstance(masks, MaskSet) else masks


def view_masks_of(masks: Mapping[str, ViewMasks], view: View) -> ViewMasks:
    """The masks of a view; InputError where they have another size than the view's image."""
    found = masks[view.name]
    label_map_of({view.name: found.region if isinstance(found, MaskSet) else found}, view)
    return found


class MaskSets(LazyMapping[ViewMasks]):
    """The masks that lie in a folder: label maps, and mask sets beside those that need one.

    The label map is what people see and edit, so it counts where the two differ: a mask set whose
    topmost ids are not those of the label map is left out.
    """

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        super().__init__(names, self._read)
        self._labels = LabelMaps(folder, self)

    def _read(self, name: str) -> ViewMasks:
        labels = self._labels[name]
        path = self._labels.folder / f"{name}{SUFFIX}"
        if not path.is_file():
            return labels
        found = load_arrays(path, MaskSet)
        found.check(path)
        return found if np.array_equal(found.labels, labels) else labels


def flat_maps(masks: Mapping[str, ViewMasks]) -> Lazy:
    """The label maps of masks that may overlap."""
    return Lazy(masks, lambda name: flat(masks[name]))


def write_view_masks(folder: Path, name: str, masks: ViewMasks) -> None:
    """Save the label map under `folder`, and beside it the mask set where there is one."""
    write_label_map(folder, name, flat(masks))
    path = folder / f"{name}{SUFFIX}"
    if isinstance(masks, MaskSet):
        with atomic(path) as part:
            arrays = {each.name: getattr(masks, each.name) for each in fields(masks)}
            np.savez_compressed(part, **arrays)
    else:
        path.unlink(missing_ok=True)
