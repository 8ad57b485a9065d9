"""Look at a run before an edit: previews, proposals, what is doubtful, H about."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, SupportsFloat

import numpy as np
from jaxtyping import Bool, Int64

from lift3d.correction.agreement import Agreement, Sampled
from lift3d.correction.clicks.answering import check_box, check_clicks
from lift3d.correction.clicks.boxing import NO_BOXES, Boxes
from lift3d.correction.clicks.place import Place
from lift3d.correction.clicks.pointing import Click, PointClick
from lift3d.correction.doubts import Doubtful, Known, to_look_at
from lift3d.correction.joins import JoinTree
from lift3d.correction.maps import mask_of_points
from lift3d.correction.proposals import VIEWS, Proposal, propose_clicks, propose_segmented
from lift3d.correction.splitting import Parts, SurfaceOf
from lift3d.correction.state import MOST_CONFIDENT
from lift3d.run.session import Session
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import LabelMaps
from lift3d.scene.protocols import Segmenter

if TYPE_CHECKING:
    from lift3d.run.run import Run

RIM = 2 / 640
"""Share of the image's width at the rim of a stroke whose points it does not take, at least one
pixel: strokes and depth are not exact at borders. Chosen by hand."""
SURFACES_KEPT = 4
"""Surface graphs of objects that are kept in memory."""


class Looking(Session):
    """What an edit would do, and where one is needed; nothing here writes."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._surface = lru_cache(SURFACES_KEPT)(self._make_surface)
        self._sampled: Sampled | None = None
        self._placing = threading.Lock()

    def parts(self, object_id: int, clicks: Any, groups: Sequence[int] | None = None) -> Parts:
        """What `split` would make."""
        with self._mutex:
            return self._surface_of(object_id).by_clicks(np.asarray(clicks, float), groups)

    def prepare_split(self, object_id: int | None = None) -> None:
        """Do what the first split would wait for, or the first one of an object."""
        with self._mutex:
            if object_id is not None:
                self._surface_of(object_id)
                return
            state = self._now().state
            SurfaceOf(state.cloud.points, np.arange(min(2, len(state.label))), state.spacing())

    def cut_parts(self, object_id: int, plane: Sequence[SupportsFloat]) -> Parts:
        """What `cut` would make."""
        with self._mutex:
            return self._surface_of(object_id).by_plane(plane)

    def separate_parts(self, object_id: int) -> Parts:
        """What `separate` would make."""
        with self._mutex:
            return self._surface_of(object_id).connected()

    def divided_parts(self, object_id: int, count: int) -> Parts:
        """What `divide` would make: at most so many parts.

        InputError where the tree of joins has no further part, or where there is none.
        """
        tree = self._tree
        if tree is None:
            raise InputError("this run has no tree of joins, because masks kept their own ids")
        with self._mutex:
            self._check([object_id])
            index = self.points_of(object_id)
        parts = Parts.largest_first(index, tree.division(index, count))
        if parts.count < min(count, 2):
            raise InputError(f"the tree of joins has no parts of object {object_id}; click them")
        return parts

    def under(
        self, view: str, mask: Bool[np.ndarray, "height width"]
    ) -> Int64[np.ndarray, " members"]:
        """The points that a view sees under painted pixels, and the rest of superpoints of which
        these are more than half. Points of locked objects are left out.
        """
        import cv2

        mask = self._pixels(view, mask)
        seen = self.seen(view)
        side = 2 * max(1, round(RIM * mask.shape[1])) + 1
        core = cv2.erode(mask.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
        core = core if core.any() else mask
        under = core[seen.row, seen.column]
        index = seen.point[under].astype(np.int64)
        surface = self._run.surface
        if surface is not None and len(index):
            piece = surface.superpoint
            count = int(piece.max(initial=-1)) + 1
            painted = piece[seen.point[mask[seen.row, seen.column]]]
            inside = np.bincount(painted[painted >= 0], minlength=count)
            size = np.bincount(piece[piece >= 0], minlength=count)
            more = np.flatnonzero(np.append(2 * inside > size, False)[piece])
            index = np.union1d(index, more)
        return self._unlocked(index)

    def point_at(self, view: str, xy: tuple[float, float], near: float = 4.0) -> int | None:
        """The point in front at a pixel (column, row), at most `near` pixels away; else None."""
        seen = self.seen(view)
        if not len(seen):
            return None
        away = np.hypot(seen.column - xy[0], seen.row - xy[1])
        best = int(np.argmin(away))
        return int(seen.point[best]) if away[best] <= near else None

    def mask_in(self, view: str, points: Any) -> Bool[np.ndarray, "height width"]:
        """The pixels of a view that show these points."""
        shape = self._sizes[self.view(view).name]
        return mask_of_points(self.seen(view), np.asarray(points), shape)

    # One click.

    @property
    def has_tree(self) -> bool:
        """Whether one click without a segmenter is possible: not where masks kept their ids."""
        return self._tree is not None

    @cached_property
    def _tree(self) -> JoinTree | None:
        surface = self._run.surface
        return None if surface is None else JoinTree(surface)

    def propose_tree(self, point: int, level: int | None = None) -> Proposal:
        """The node of the tree of joins that holds a point.

        `level` counts from the point's superpoint up; None is the node that became its object.
        Points of locked objects are left out. InputError where there is no such node.
        """
        tree = self._tree
        if tree is None:
            raise InputError("this run has no tree of joins, because masks kept their own ids")
        count = len(self.label)
        if not 0 <= point < count:
            raise InputError(f"points are indices from 0 to {count - 1}")
        found, path = tree.level(int(point), level)
        index, score = self._free(tree.points_of(path[found]))
        told = {"at": self._xyz[point].tolist(), "positive": True, "level": found}
        return Proposal(index, "tree", score, (told,), level=found, levels=len(path))

    def propose_clicks(
        self,
        clicks: Sequence[Click | PointClick],
        level: int | None = None,
        boxes: Boxes = NO_BOXES,
    ) -> Proposal:
        """The object that clicks in any views and in the cloud mean, or boxes and clicks, without a
        segmenter: as `proposals.propose_clicks`. Points of locked objects are left out. InputError
        where there is no tree.
        """
        if self._tree is None:
            raise InputError("this run has no tree of joins, because masks kept their own ids")
        place = self._checked(clicks, boxes)
        found = propose_clicks(place, clicks, level, boxes)
        index, score = self._free(found.points)
        return replace(found, points=index, score=score)

    def _checked(self, clicks: Sequence[Click | PointClick], boxes: Boxes) -> Place:
        """What prompts are about, if they lie where there is something."""
        count = len(self.label)
        if not all(0 <= each.point < count for each in clicks if isinstance(each, PointClick)):
            raise InputError(f"points are indices from 0 to {count - 1}")
        place = self._place()
        check_clicks(place, [each for each in clicks if isinstance(each, Click)])
        for name, box in boxes.items():
            check_box(place, name, box)
        return place

    def _free(
        self, points: Int64[np.ndarray, " members"]
    ) -> tuple[Int64[np.ndarray, " some"], float]:
        """Those that are of no locked object, and the confidence of what most of them are now."""
        with self._mutex:
            index = self._unlocked(points)
            state = self._now().state
            ids, counts = np.unique(state.label[index], return_counts=True)
            most = int(ids[np.argmax(counts)]) if len(ids) else 0
            score = state.objects[most].confidence if most in state.objects else 0.0
        return index, min(score, MOST_CONFIDENT)

    def _place(self) -> Place:
        """The run made ready for clicks, with the labels of now."""
        self.prepare_click()
        place = self._run.clickable.place
        place.label = self.label
        return place

    def prepare_click(self) -> None:
        """Compute what the first correction by a click would wait for: what every view sees."""
        with self._placing:
            _ = self._run.clickable

    def propose_segmented(
        self,
        clicks: Sequence[Click | PointClick],
        segmenter: Segmenter,
        views: int = VIEWS,
        level: int | None = None,
        boxes: Boxes = NO_BOXES,
    ) -> Iterator[Proposal]:
        """The object that the same prompts mean by a segmenter, carried to other views: a proposal
        after each view, the last one final (`proposals.propose_segmented`).
        """
        return propose_segmented(
            self._checked(clicks, boxes), clicks, segmenter, views, level, boxes
        )

    # What to look at.

    def queue(self) -> tuple[Doubtful, ...]:
        """What is likely wrong, that worth most first, with an edit that would mend it."""
        run = self._run
        checked = run.consistency if run.files.consistency.exists() else {}
        reprojection = checked.get("reprojection") or {}
        agreement = None
        if "printed" in checked:
            exclude = checked["printed"]["exclude"]
            values = checked["foreground"][exclude]["view_H"]
            agreement = dict(zip(checked["views"], values, strict=True))
        with self._mutex:
            state = self._now().state
            return to_look_at(
                Known(
                    state.label,
                    state.objects,
                    self.doubts,
                    self._now().altered,
                    state.layers,
                    self._xyz,
                    self.offset,
                    run.surface,
                    self._tree,
                    run.assignments,
                    {each["id"]: each["iou"] for each in reprojection.get("instances", ())},
                    agreement,
                )
            )

    def prepare_agreement(self, pixels: int = 100_000) -> None:
        """Read the depth of all views once, so that `agreement` has numbers.

        InputError where the scan is missing or has no depth.
        """
        if self._sampled is None:
            scene = self._run.whole_scene
            maps = LabelMaps(self._files.automatic.labels, [each.name for each in scene.views])
            epsilon = float(self._run.consistency["printed"]["epsilon"])
            self._sampled = Sampled.of(scene, maps, self._xyz, epsilon, pixels)

    def agreement(self) -> Agreement | None:
        """H before and after the edits, about; None before `prepare_agreement`."""
        if self._sampled is None:
            return None
        with self._mutex:
            found = self._sampled.measured(self._now().state)
        checked = self._run.consistency
        exact = checked.get("automatic", checked)["printed"]["foreground"]
        if exact["H"] is None or exact["H_prime"] is None:
            return found
        return found.beside(exact["H"], exact["H_prime"])

    # Inside.

    def _surface_of(self, object_id: int) -> SurfaceOf:
        self._check([object_id])
        return self._surface(object_id, self.revision)

    def _make_surface(self, object_id: int, revision: int) -> SurfaceOf:
        state = self._now().state
        return SurfaceOf(state.cloud.points, self.points_of(object_id), state.spacing())

    def _pixels(self, view: str, mask: Any) -> Bool[np.ndarray, "height width"]:
        """Painted pixels; InputError where they are of another size, or none."""
        mask = np.asarray(mask) > 0
        shape = self._sizes[self.view(view).name]
        if mask.shape != shape:
            raise InputError(
                f"the painted pixels have shape {mask.shape}; view {view} has {shape[0]} rows and "
                f"{shape[1]} columns"
            )
        if not mask.any():
            raise InputError("no pixel is painted")
        return mask
