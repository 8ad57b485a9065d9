"""Scores of masks in videos: J and F of DAVIS, MastSAM's protocol, a stricter one, and tracks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int, Int32, Int64

from lift3d.evaluation.metrics.boundary import boundary_f
from lift3d.scene import LabelMap
from lift3d.scene.errors import InputError

FOUND = 0.5
"""Least IoU for an object to count as found in a frame (usual with CLEAR MOT)."""
PAPER = (
    "per image: in every annotated image where the object is visible, the predicted mask of "
    "highest IoU, whatever its id; means over images, then objects"
)
STRICT = (
    "one id: of the ids that ever meet the object the one of highest mean IoU over all annotated "
    "images, in all of them (absent, and rightly so: 1); means over images, then objects"
)


@dataclass(frozen=True)
class MaskScore:
    """Scores of one mask against the true mask, or means over many; all 0 to 1.

    Where both masks are empty all scores are 1; otherwise a division by an empty mask gives 0.
    """

    iou: float
    """DAVIS' J."""
    f1: float
    """F1 of pixels, 2 I / (P + T); not the boundary's F."""
    precision: float
    recall: float
    boundary: float
    """DAVIS' F."""

    @staticmethod
    def of(predicted: Bool[np.ndarray, "h w"], truth: Bool[np.ndarray, "h w"]) -> MaskScore:
        """The score of one mask."""
        both = int((predicted & truth).sum())
        ours, true = int(predicted.sum()), int(truth.sum())
        boundary = boundary_f(predicted, truth)
        if ours + true == 0:
            return MaskScore(1.0, 1.0, 1.0, 1.0, boundary)
        return MaskScore(
            iou=both / (ours + true - both),
            f1=2 * both / (ours + true),
            precision=both / ours if ours else 0.0,
            recall=both / true if true else 0.0,
            boundary=boundary,
        )

    @staticmethod
    def mean(scores: Sequence[MaskScore]) -> MaskScore:
        """The mean of each score; NaN for an empty list."""
        if not scores:
            return MaskScore(*[float("nan")] * len(fields(MaskScore)))
        return MaskScore(
            *(
                float(np.mean([getattr(score, each.name) for score in scores]))
                for each in fields(MaskScore)
            )
        )


@dataclass(frozen=True)
class Track:
    """How one true object was tracked.

    In each annotated image where it is visible the object is *found* if the predicted mask of
    highest IoU reaches `FOUND`, with that mask's id. A *switch* is an id that differs from that
    of the last image in which it was found. Its *longest* track is the longest run of consecutive
    such images in which it is found with the same id.
    """

    visible: int
    found: int
    switches: int
    longest: int


@dataclass(frozen=True)
class ObjectScore:
    """Scores of one true object of a video."""

    object: int
    per_image: MaskScore
    """By the protocol `PAPER`."""
    one_id: MaskScore
    """By the protocol `STRICT`."""
    id: int
    """The id that `one_id` chose; 0 where no mask ever overlapped the object."""
    track: Track


@dataclass(frozen=True)
class VideoScore:
    """Scores of all true objects of a video."""

    objects: tuple[ObjectScore, ...]
    images: int
    """Number of annotated images."""

    @property
    def per_image(self) -> MaskScore:
        """Mean over the objects."""
        return MaskScore.mean([each.per_image for each in self.objects])

    @property
    def one_id(self) -> MaskScore:
        """Mean over the objects."""
        return MaskScore.mean([each.one_id for each in self.objects])

    def summary(self) -> dict[str, Any]:
        """The scores as JSON values."""
        tracks = [each.track for each in self.objects]
        return {
            "images": self.images,
            "objects": len(self.objects),
            "per_image": asdict(self.per_image),
            "one_id": asdict(self.one_id),
            "found": _mean([track.found / track.visible for track in tracks]),
            "switches": sum(track.switches for track in tracks),
            "longest": _mean([track.longest / track.visible for track in tracks]),
            "protocols": {"per_image": PAPER, "one_id": STRICT},
            "each": [asdict(each) for each in self.objects],
        }


def score_video(
    truths: Sequence[Int32[np.ndarray, "_ _"] | None],
    predictions: Sequence[Int32[np.ndarray, "_ _"]],
    found: float = FOUND,
) -> VideoScore:
    """Score predicted ids, which should persist over the video, for all its true objects.

    One label map per image; a truth of None is not annotated and not scored. Label 0 is no mask
    and no object. InputError where no image is annotated or maps differ in size.
    """
    if len(truths) != len(predictions):
        raise InputError(
            f"{len(predictions)} label maps for {len(truths)} images; expected one each"
        )
    pairs = [(t, p) for t, p in zip(truths, predictions, strict=True) if t is not None]
    if not pairs:
        raise InputError("no image is annotated: there is nothing to score against")
    images = [_Image.of(truth, predicted) for truth, predicted in pairs]
    known = sorted({one for image in images for one in image.area})
    return VideoScore(tuple(_object(one, pairs, images, found) for one in known), len(pairs))


@dataclass(frozen=True, eq=False)
class _Image:
    """Overlap of the predicted masks of one image with its true objects."""

    ids: Int64[np.ndarray, " masks"]
    sizes: Int64[np.ndarray, " masks"]
    area: dict[int, int]
    """Pixels of each visible object."""
    shared: dict[int, Int64[np.ndarray, " masks"]]
    """Pixels that each mask shares with each visible object."""

    @staticmethod
    def of(truth: Int32[np.ndarray, "_ _"], predicted: Int32[np.ndarray, "_ _"]) -> _Image:
        if truth.shape != predicted.shape:
            raise InputError(
                f"a label map is {predicted.shape[1]}x{predicted.shape[0]}, its truth "
                f"{truth.shape[1]}x{truth.shape[0]}; label at the size of the images"
            )
        ids, mask = _compact(predicted)
        objects, one = _compact(truth)
        table = np.bincount((one * len(ids) + mask).ravel(), minlength=len(objects) * len(ids))
        table = table.reshape(len(objects), len(ids))
        real = ids > 0
        return _Image(
            ids[real],
            table.sum(0)[real],
            {int(o): int(row.sum()) for o, row in zip(objects, table, strict=True) if o > 0},
            {int(o): row[real] for o, row in zip(objects, table, strict=True) if o > 0},
        )

    def iou(self, one: int) -> Float64[np.ndarray, " masks"]:
        """IoU of each mask with the object."""
        if one not in self.area:
            return np.zeros(len(self.ids))
        return self.shared[one] / (self.area[one] + self.sizes - self.shared[one])


def _object(
    one: int, pairs: Sequence[tuple[LabelMap, LabelMap]], images: Sequence[_Image], found: float
) -> ObjectScore:
    best = [_best(image, one) for image in images]
    chosen = _one_id(images, one)
    per_image, one_id = [], []
    for (truth, predicted), image, (own, _) in zip(pairs, images, best, strict=True):
        true = truth == one
        if one in image.area:
            # An id of 0 stands for no mask.
            per_image.append(MaskScore.of((predicted == own) & (own > 0), true))
        one_id.append(MaskScore.of((predicted == chosen) & (chosen > 0), true))
    visible = [
        own if iou >= found else 0
        for image, (own, iou) in zip(images, best, strict=True)
        if one in image.area
    ]
    return ObjectScore(
        one, MaskScore.mean(per_image), MaskScore.mean(one_id), chosen, _track(visible)
    )


def _best(image: _Image, one: int) -> tuple[int, float]:
    """Id and IoU of the best mask; the smaller id on a tie, 0 where no mask overlaps it."""
    iou = image.iou(one)
    if not iou.any():
        return 0, 0.0
    at = int(iou.argmax())
    return int(image.ids[at]), float(iou[at])


def _one_id(images: Sequence[_Image], one: int) -> int:
    """The id of highest mean IoU; in images without the object an absent id scores 1."""
    total: dict[int, float] = {}
    for image in images:
        for own, iou in zip(image.ids.tolist(), image.iou(one).tolist(), strict=True):
            # Relative to an id that is absent everywhere, which scores 1 without the object.
            total[own] = total.get(own, 0.0) + (iou if one in image.area else -1.0)
    met = {own for image in images for own in image.ids[image.iou(one) > 0].tolist()}
    return max(sorted(met), key=total.__getitem__) if met else 0


def _track(ids: Sequence[int]) -> Track:
    """The track, from the id that the visible object was found with in each image, 0 if not."""
    switches = longest = run = last = 0
    for before, own in zip([0, *ids], ids, strict=False):
        run = 0 if own == 0 else run + 1 if own == before else 1
        longest = max(longest, run)
        if own:
            switches += last not in (0, own)
            last = own
    return Track(len(ids), sum(own > 0 for own in ids), switches, longest)


def _compact(
    labels: LabelMap,
) -> tuple[Int64[np.ndarray, " ids"], Int[np.ndarray, "height width"]]:
    """The ids present, ascending, and each pixel's position among them."""
    if labels.max(initial=0) < 1 << 22:  # faster than sorting
        ids = np.flatnonzero(np.bincount(labels.ravel()))
        place = np.zeros(int(ids.max(initial=0)) + 1, np.int64)
        place[ids] = np.arange(len(ids))
        return ids, place[labels]
    ids, index = np.unique(labels, return_inverse=True)
    return ids.astype(np.int64), index.reshape(labels.shape)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
