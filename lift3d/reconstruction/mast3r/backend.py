"""The stages of reconstruction by MASt3R: prepare, choose pairs, predict, match, align."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from lift3d.networks.mast3r.checkpoint import CheckpointInfo, load
from lift3d.networks.mast3r.inference import Encodings, Predictor, PredictorConfig, grouped
from lift3d.networks.mast3r.network import Mast3r
from lift3d.networks.mast3r.pairstore import PairStore
from lift3d.networks.mast3r.preprocess import Prepared, prepare
from lift3d.networks.reciprocal import DescribedPair, match_pair
from lift3d.networks.weights import find
from lift3d.reconstruction.alignment import Aligned, Known, PairPrediction, align
from lift3d.reconstruction.estimates import with_estimate
from lift3d.reconstruction.mast3r import Mast3rConfig
from lift3d.reconstruction.pairs import PairsConfig
from lift3d.scene import NO_OFFSET, Depth, Matches, Scene, Skipped, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.fingerprint import fingerprint
from lift3d.scene.guarded import load_text
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.sources import code_of
from lift3d.scene.storage import atomic
from lift3d.scene.workers.views import Pool

TOGETHER = 8
"""Pairs predicted in both directions before they are matched and thinned; bounds memory."""
NEAR_FOCAL, NEAR_ROTATION, NEAR_POSITION = 0.03, float(np.deg2rad(2.0)), 0.05
"""Standard deviations for `near`: relative focal length, radians, metres. Chosen by hand; not
tuned on data."""
NEAR_SHARE = 0.03
"""Replaces `NEAR_POSITION` in scenes that are not metric: share of the cameras' median distance
from their median position. Chosen by hand; not tuned on data."""
PREDICTIONS, PAIRS = "predictions", "pairs.json"
Pair = tuple[int, int]
OneEncoded = tuple[np.ndarray, int, int]
"""Tokens of a picture, their rows and columns."""
Predicted = list[tuple[Pair, dict[str, np.ndarray]]]
"""What to store of each ordered pair."""
GroupTask = tuple[list[Pair], dict[int, OneEncoded], set[Pair], int]
"""Pairs, the encodings of their pictures, which predictions stay dense, stride of the matches."""
Tick = Callable[[int, int], None]


class Mast3rReconstruction:
    """Photos to cameras, dense depth and confidence."""

    def __init__(self, config: Mast3rConfig) -> None:
        self.config = config
        self.model: Mast3r | None
        self.model, self.info = load(find(config.weights))
        self._pool: Pool | None = None

    def take(self, pool: Pool) -> None:
        """Encode pictures, and predict and match pairs, on these workers."""
        self._pool, self.model = pool, None  # each worker loads its own

    def reconstruct(
        self, scene: Scene, progress: Tick | None = None, folder: Path | None = None
    ) -> Scene:
        """The scene with the cameras and depth that the network and alignment estimate.

        Depth is at the network's size, with its own camera. Pictures that no pair connects to the
        others are skipped. Predictions are kept in `folder`, so that a killed run can continue.
        Raises InputError if fewer than two pictures can be read or aligned.
        """
        views, images, skipped = self._prepared(scene)
        known = [self._known(scene, *each) for each in zip(views, images, strict=True)]
        network: _Here | _Spread
        if self._pool is None:
            network = _Here(self.config, self.model)
        else:
            network = _Spread(self.config, self._pool)
        run = _Run(self.config, network, self.info, views, images, folder, progress)
        aligned = run.aligned(known)
        kept = []
        for index, (view, image) in enumerate(zip(views, images, strict=True)):
            if aligned.used[index]:
                kept.append(_posed(view, image, aligned, index, self.config.min_confidence))
            else:
                skipped.append(Skipped(view.name, aligned.reason[index]))
        metric = self.info.metric
        if self.config.poses != "estimate" or self.config.depth != "estimate":
            metric = scene.metric
        note = (
            f"MASt3R ({self.info.path.name}): {len(kept)} of {len(scene)} pictures aligned, "
            f"matches fall {aligned.reprojection:.2f} px from their partners (median, at "
            f"{self.config.size} px)"
        )
        dropped = len(aligned.dropped_pairs)
        notes = [note] + [f"{dropped} pairs contradict the others and were left out"] * bool(
            dropped
        )
        return replace(
            scene,
            views=tuple(kept),
            metric=metric,
            offset=NO_OFFSET if self.config.poses == "estimate" else scene.offset,
            skipped=(*scene.skipped, *skipped),
            notes=(*scene.notes, *notes),
        )

    def _prepared(self, scene: Scene) -> tuple[list[View], list[Prepared], list[Skipped]]:
        views, images, skipped = [], [], []
        for view in scene.views:
            try:
                images.append(prepare(view.image(), self.config.size))
                views.append(view)
            except FrameError as error:
                skipped.append(Skipped(view.name, str(error)))
        if len(views) < 2:
            raise InputError(
                f"{scene.source}: {len(views)} of {len(scene)} pictures can be read; "
                "reconstruction needs at least 2"
            )
        return views, images, skipped

    def _known(self, scene: Scene, view: View, image: Prepared) -> Known:
        """The known quantities of one picture that the settings allow to use."""
        config = self.config
        known = Known()
        if config.intrinsics != "estimate":
            sigma = NEAR_FOCAL if config.intrinsics == "near" else 0.0
            K = image.network_from_original @ view.camera.K
            known = replace(known, K=K, focal_sigma=sigma)
        pose = view.camera.world_from_camera
        if config.poses != "estimate":
            if pose is None:
                raise InputError(
                    f"poses are to be {config.poses}, but {scene.source} gives none for "
                    f"{view.name}; use --reconstruction.poses estimate"
                )
            near = config.poses == "near"
            known = replace(
                known,
                world_from_camera=pose,
                rotation_sigma=NEAR_ROTATION if near else 0.0,
                position_sigma=_near_position(scene) if near else 0.0,
            )
        if config.depth == "fixed":
            known = replace(known, depth=_network_depth(view, image))
        if config.ignore is not None:
            known = replace(known, ignored=_ignored(config.ignore, view, image))
        return known


def _near_position(scene: Scene) -> float:
    """Standard deviation of a `near` position, in the unit of the given poses."""
    if scene.metric:
        return NEAR_POSITION
    poses = [view.camera.world_from_camera for view in scene.views]
    places = np.array([pose[:3, 3] for pose in poses if pose is not None])
    apart = np.linalg.norm(places - np.median(places, axis=0), axis=1)
    return max(NEAR_SHARE * float(np.median(apart)), 1e-9)


def _predictor(config: Mast3rConfig, model: Mast3r | None = None) -> Predictor:
    """The network, ready to run; loaded where it is not given."""
    model = model or load(find(config.weights))[0]
    return PredictorConfig(config.device, config.precision, config.batch).build(model)


class _Here:
    """The network in this process."""

    def __init__(self, config: Mast3rConfig, model: Mast3r | None) -> None:
        self.config = config
        self.predictor = _predictor(config, model)

    def encode(self, images: Sequence[Prepared], which: Iterable[int], tick: Tick) -> Encodings:
        """The encodings of some of the images."""
        return self.predictor.encode(images, which, tick)

    def matched(
        self, encodings: Encodings, groups: Sequence[Sequence[Pair]], dense: set[Pair]
    ) -> Iterator[Predicted]:
        """Of each group of pairs, what to store of both directions of each."""
        for pairs in groups:
            yield _predicted(self.predictor, encodings, pairs, dense, self.config.stride)


class _Spread:
    """The network in workers; each gets groups of pictures or pairs, as this process would."""

    def __init__(self, config: Mast3rConfig, pool: Pool) -> None:
        self.config, self._pool = config, pool
        self._build = partial(_predictor, config)

    def encode(self, images: Sequence[Prepared], which: Iterable[int], tick: Tick) -> Encodings:
        """The encodings of some of the images."""
        indices = list(dict.fromkeys(which))
        encodings = Encodings(PairStore(memory_bytes=PredictorConfig().encodings_bytes))
        batch = self.config.batch or TOGETHER
        groups = [
            group[first : first + batch]
            for group in grouped(indices, lambda i: (images[i].height, images[i].width))
            for first in range(0, len(group), batch)
        ]
        tasks = [[images[index] for index in group] for group in groups]
        found = self._pool.over(_encoded, self._build, tasks, _named("pictures", groups))
        for group, encoded in zip(groups, found, strict=True):
            for index, one in zip(group, encoded, strict=True):
                encodings.put(index, *one)
                tick(len(encodings), len(indices))
        return encodings

    def matched(
        self, encodings: Encodings, groups: Sequence[Sequence[Pair]], dense: set[Pair]
    ) -> Iterator[Predicted]:
        """Of each group of pairs, what to store of both directions of each."""
        tasks = _Groups(encodings, groups, dense, self.config.stride)
        return self._pool.over(_decoded, self._build, tasks, _named("pairs", groups))


class _Groups(Sequence["GroupTask"]):
    """Groups of pairs with the encodings of their pictures, which are read on access."""

    def __init__(
        self,
        encodings: Encodings,
        groups: Sequence[Sequence[Pair]],
        dense: set[Pair],
        stride: int,
    ) -> None:
        self._encodings, self._groups, self._dense = encodings, groups, dense
        self._stride = stride

    def __len__(self) -> int:
        return len(self._groups)

    def __getitem__(self, number: int) -> GroupTask:  # type: ignore[override]  # no slices
        pairs = list(self._groups[number])
        encoded = {index: self._encodings.one(index) for pair in pairs for index in pair}
        both = {order for pair in pairs for order in (pair, pair[::-1])}
        return pairs, encoded, both & self._dense, self._stride


def _encoded(predictor: Predictor, images: Sequence[Prepared]) -> list[OneEncoded]:
    """Encode some pictures, on a worker."""
    encodings = predictor.encode(images, range(len(images)))
    return [encodings.one(index) for index in range(len(images))]


def _decoded(predictor: Predictor, task: GroupTask) -> Predicted:
    """Predict and match some pairs, on a worker."""
    pairs, encoded, dense, stride = task
    encodings = Encodings(PairStore())
    for index, one in encoded.items():
        encodings.put(index, *one)
    return _predicted(predictor, encodings, pairs, dense, stride)


def _named(what: str, groups: Sequence[Sequence[Any]]) -> list[str]:
    """A name for each group in messages.

    >>> _named("pairs", [[3, 4], [5]])
    ['pairs 1 to 2', 'pairs 3 to 3']
    """
    ends = list(itertools.accumulate(map(len, groups)))
    return [
        f"{what} {end - len(group) + 1} to {end}" for group, end in zip(groups, ends, strict=True)
    ]


@dataclass(frozen=True)
class _Run:
    """One reconstruction: its pictures, folder and progress callback."""

    config: Mast3rConfig
    network: _Here | _Spread
    info: CheckpointInfo
    views: list[View]
    images: list[Prepared]
    folder: Path | None
    progress: Tick | None

    def aligned(self, known: Sequence[Known]) -> Aligned:
        """Predict the missing pairs, then align."""
        config = self.config
        place = None if self.folder is None else self.folder / PREDICTIONS
        store = PairStore(place, int(config.memory * 2**30), self._identity)
        pairs = self._predict(store, place)
        matches = {pair: _matches(store, pair) for pair in pairs}
        steps = len(self.images) + len(pairs)
        shapes = [(image.height, image.width) for image in self.images]
        aligned = align(
            shapes,
            _Stored(store, [*pairs, *(pair[::-1] for pair in pairs)]),
            matches,
            known,
            config.alignment,
            config.seed or 0,
            lambda done, total: self._report(steps + done, steps + total),
        )
        if place is not None and not config.keep_predictions:
            shutil.rmtree(place, ignore_errors=True)
        return aligned

    def _predict(self, store: PairStore, place: Path | None) -> list[Pair]:
        """Fill the store with both directions of every pair and its matches; returns the pairs."""
        config, names = self.config, [view.name for view in self.views]
        encodings = None
        pairs = _listed(place)
        if pairs is None:
            features = None
            if config.pairs.uses_features(len(names)):
                encodings = self.network.encode(self.images, range(len(names)), self._encoded)
                tokens = [encodings.store.get((i,))["tokens"] for i in range(len(names))]
                features = np.stack([each.mean(0) for each in tokens]).astype(np.float32)
            pairs = config.pairs.choose(names, features)
            if place is not None:
                with atomic(place.parent / PAIRS) as part:
                    part.write_text(json.dumps({"identity": self._identity, "pairs": pairs}))
        todo = [pair for pair in pairs if not (pair in store and pair[::-1] in store)]
        if todo and encodings is None:
            encodings = self.network.encode(
                self.images, itertools.chain.from_iterable(todo), self._encoded
            )
        dense = _dense(pairs, len(names), config.alignment.predictions_per_image)
        done = len(pairs) - len(todo)
        groups = [todo[first : first + TOGETHER] for first in range(0, len(todo), TOGETHER)]
        found = self.network.matched(encodings, groups, dense) if encodings else iter(())
        for group, predicted in zip(groups, found, strict=True):
            for order, arrays in predicted:
                store.put(order, arrays)
            done += len(group)
            self._report(len(names) + done, len(names) + len(pairs) + len(pairs))
        return pairs

    @cached_property
    def _identity(self) -> str:
        """Fingerprint of everything that the predictions depend on; alignment is not part."""
        config = self.config
        settings = [config.stride, config.pairs, config.size, config.precision]
        settings.append(config.alignment.predictions_per_image)
        code = code_of(prepare, PredictorConfig, PairsConfig, match_pair, PairPrediction, PairStore)
        shown = zip(self.views, self.images, strict=True)
        pictures = [(view.name, image.rgb) for view, image in shown]
        return fingerprint([Path(config.weights), settings, code, pictures])

    def _encoded(self, done: int, total: int) -> None:
        self._report(done, total + 2 * len(self.images))

    def _report(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)


class _Stored(Mapping[Pair, PairPrediction]):
    """The predictions in a store, read on access."""

    def __init__(self, store: PairStore, pairs: Sequence[Pair]) -> None:
        self._store, self._pairs = store, dict.fromkeys(pairs)

    def __getitem__(self, pair: Pair) -> PairPrediction:
        if pair not in self._pairs:
            raise KeyError(pair)
        names = ("points_a", "points_b", "confidence_a", "confidence_b", "steps")
        stored = self._store.get(pair, *names)
        steps = stored.pop("steps").tolist()
        return PairPrediction(
            **{name: array.astype(np.float32) for name, array in stored.items()},
            step_a=steps[0],
            step_b=steps[1],
        )

    def __iter__(self) -> Iterator[Pair]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)


def _predicted(
    predictor: Predictor,
    encodings: Encodings,
    pairs: Sequence[Pair],
    dense: Set[Pair],
    stride: int,
) -> Predicted:
    """Predict both directions of some pairs and match them; what alignment needs of each.

    The matches are with (a, b), after (b, a).
    """
    both = [order for pair in pairs for order in (pair, pair[::-1])]
    predicted = dict(predictor.decode(encodings, both))
    kept = []
    for pair in pairs:
        there, back = predicted.pop(pair), predicted.pop(pair[::-1])
        found = match_pair(
            [
                DescribedPair(
                    there["desc_1"], there["desc_2"], there["desc_conf_1"], there["desc_conf_2"]
                ),
                DescribedPair(
                    back["desc_2"], back["desc_1"], back["desc_conf_2"], back["desc_conf_1"]
                ),
            ],
            stride,
        )
        matched = {"xy_a": found.xy_in_a, "xy_b": found.xy_in_b, "confidence": found.confidence}
        for order, arrays, more in ((pair[::-1], back, {}), (pair, there, matched)):
            thin = PairPrediction(
                arrays["pts3d_1"], arrays["pts3d_2"], arrays["conf_1"], arrays["conf_2"]
            ).condensed(order in dense)
            kept.append((order, _packed(thin) | more))
    return kept


def _packed(thin: PairPrediction) -> dict[str, np.ndarray]:
    """Arrays to store. Half precision (0.05 %) is far finer than the network's accuracy."""
    largest = float(np.finfo(np.float16).max)
    return {
        "points_a": np.clip(thin.points_a, -largest, largest).astype(np.float16),
        "points_b": thin.points_b,
        "confidence_a": np.clip(thin.confidence_a, 0, largest).astype(np.float16),
        "confidence_b": thin.confidence_b,
        "steps": np.array([thin.step_a, thin.step_b]),
    }


def _matches(store: PairStore, pair: Pair) -> Matches:
    stored = store.get(pair, "xy_a", "xy_b", "confidence")
    return Matches(stored["xy_a"], stored["xy_b"], stored["confidence"])


def _listed(place: Path | None) -> list[Pair] | None:
    """The pairs that an interrupted run in this folder chose; None without such a run."""
    if place is None:
        return None
    try:
        listed = load_json(place.parent / PAIRS, kind=dict)
        identity = load_text(place / "identity.txt")
    except InputError:
        return None
    if listed.get("identity") != identity:
        return None
    return [(int(a), int(b)) for a, b in listed["pairs"]]


def _dense(pairs: Sequence[Pair], count: int, most: int) -> set[Pair]:
    """Predictions whose first picture is stored unthinned: `most` per picture, nearest first."""
    partners: list[list[int]] = [[] for _ in range(count)]
    for a, b in pairs:
        partners[a].append(b)
        partners[b].append(a)
    return {
        (a, b)
        for a, others in enumerate(partners)
        for b in sorted(others, key=lambda other: (abs(other - a), other))[:most]
    }


def _posed(view: View, image: Prepared, aligned: Aligned, index: int, least: float) -> View:
    """The view with its estimated camera and its depth at the network's size."""
    pose, K = aligned.world_from_camera[index], aligned.K[index]
    confidence = aligned.confidence[index]
    depth = np.where(confidence >= least / (1 + least), aligned.depth[index], np.float32(0))
    return with_estimate(view, image.original_from_network, K, pose, depth, confidence)


def _network_depth(view: View, image: Prepared) -> Depth | None:
    """The view's given depth at the network's size; None without dense depth.

    Raises InputError if the depth is not registered to colour.
    """
    import cv2

    depth = None if view.sparse else view.depth()
    if depth is None:
        return None
    if view.depth_camera is not None:
        raise InputError(
            f"view {view.name} has a depth camera of its own; --reconstruction.depth fixed needs "
            "depth registered to colour"
        )
    return cv2.warpAffine(
        depth,
        image.original_from_network[:2],
        (image.width, image.height),
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
    ).astype(np.float32)


def _ignored(folder: Path, view: View, image: Prepared) -> Bool[np.ndarray, "height width"]:
    """Ignored pixels at the network's size; none without a mask file."""
    import cv2

    from lift3d.scene.labelmaps import find_label_map, read_label_map

    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected masks named like the pictures")
    path = find_label_map(folder, view.name)
    if path is None:
        return np.zeros((image.height, image.width), bool)
    mask = (read_label_map(path) > 0).astype(np.uint8)
    if mask.shape != (view.camera.height, view.camera.width):
        raise InputError(
            f"{path} is {mask.shape[1]}x{mask.shape[0]}, its picture "
            f"{view.camera.width}x{view.camera.height}; masks must have the pictures' size"
        )
    return cv2.warpAffine(
        mask,
        image.original_from_network[:2],
        (image.width, image.height),
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
    ).astype(bool)
