"""The stages of reconstruction by VGGT: prepare, predict windows, join them, scale, refine."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lift3d.networks.mast3r.pairstore import PairStore
from lift3d.networks.vggt.checkpoint import load
from lift3d.networks.vggt.inference import Predictor, PredictorConfig, WindowPrediction
from lift3d.networks.vggt.preprocess import Prepared, prepare, together
from lift3d.networks.weights import find
from lift3d.reconstruction.alignment.inputs import Known
from lift3d.reconstruction.estimates import with_estimate
from lift3d.reconstruction.vggt import VggtReconstructionConfig
from lift3d.reconstruction.vggt.known import given_poses, metres, network_K
from lift3d.reconstruction.vggt.refining import matches_of, refined
from lift3d.reconstruction.vggt.windows import Placed, chained, joined, windows_of
from lift3d.scene import NO_OFFSET, Scene, Skipped, Transform, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.fingerprint import fingerprint
from lift3d.scene.sources import code_of

PREDICTIONS = "predictions"
NEAR_ROTATION, NEAR_POSITION = float(np.deg2rad(2.0)), 0.05
"""Standard deviations of poses that are `near`: radians, metres. Chosen by hand, as MASt3R's."""
Tick = Callable[[int, int], None]


class VggtReconstruction:
    """Photos to cameras, dense depth and confidence."""

    def __init__(self, config: VggtReconstructionConfig) -> None:
        self.config = config
        model, self.info = load(find(config.weights))
        self.predictor: Predictor = PredictorConfig(
            config.device, config.precision, config.chunk
        ).build(model)

    def reconstruct(
        self, scene: Scene, progress: Tick | None = None, folder: Path | None = None
    ) -> Scene:
        """The scene with the cameras and depth that the network sees.

        Depth is at the network's size, with its own camera. Predictions of windows are kept in
        `folder` until all are done, so that a killed run can continue. Raises InputError if fewer
        than two pictures can be read, or if memory runs out.
        """
        views, images, skipped = self._prepared(scene)
        run = _Run(self.config, self.predictor, scene, views, images, progress, folder)
        placed, notes, metric = run.placed()
        kept = [
            _posed(view, image, placed, k, self.config.min_confidence)
            for k, (view, image) in enumerate(zip(views, images, strict=True))
        ]
        return replace(
            scene,
            views=tuple(kept),
            metric=metric,
            offset=NO_OFFSET if self.config.poses == "estimate" else scene.offset,
            skipped=(*scene.skipped, *skipped),
            notes=(*scene.notes, f"VGGT ({self.info.path.name}): {len(kept)} pictures", *notes),
        )

    def _prepared(self, scene: Scene) -> tuple[list[View], list[Prepared], list[Skipped]]:
        views, images, skipped = [], [], []
        for view in scene.views:
            try:
                images.append(prepare(view.image(), self.config.mode, self.config.size))
                views.append(view)
            except FrameError as error:
                skipped.append(Skipped(view.name, str(error)))
        if len(views) < 2:
            raise InputError(
                f"{scene.source}: {len(views)} of {len(scene)} pictures can be read; "
                "reconstruction needs at least 2, which show the same from different places"
            )
        return views, together(images), skipped


@dataclass(frozen=True)
class _Run:
    """One reconstruction: its pictures, progress callback and folder."""

    config: VggtReconstructionConfig
    predictor: Predictor
    scene: Scene
    views: list[View]
    images: list[Prepared]
    progress: Tick | None
    folder: Path | None

    def placed(self) -> tuple[Placed, list[str], bool]:
        """All pictures in one frame, remarks, and whether the unit is the metre."""
        config, scene = self.config, self.scene
        known: Mapping[int, Transform] = {}
        if config.poses != "estimate":
            known = given_poses(scene, self.views, config.poses)
        windows = self._windows()
        predictions = self._predicted(windows)
        placed, notes, metric = joined(windows, predictions, known), [], bool(known)
        if placed.gaps:
            notes.append(
                f"{len(windows)} windows of pictures were joined; shared places are "
                f"{max(placed.gaps):.1%} of their depth apart in the worst of them (median)"
            )
        placed = self._with_known(placed, known)
        if known:
            metric = scene.metric
        elif config.scale == "auto":
            found = metres(scene, self.views, self.images, placed)
            metric = found is not None
            if found is not None:
                placed = _scaled(placed, found[0])
                notes.append(f"the unit is the metre, by {found[1]}")
        if not metric:
            notes.append("the scale is arbitrary")
        if config.refine:
            placed, note = self._refined(placed, windows, predictions, known, metric)
            notes.append(note)
        self._tick(self._steps, self._steps)
        return placed, notes, metric

    def _windows(self) -> list[list[int]]:
        config, count = self.config, len(self.images)
        order = list(range(count))
        if config.order == "similar" and count > config.window:
            order = chained(self.predictor.features(self.images))
        return [
            [order[k] for k in window]
            for window in windows_of(count, config.window, config.overlap)
        ]

    def _predicted(self, windows: list[list[int]]) -> list[WindowPrediction]:
        """The prediction of each window; those of a killed run are read from the folder."""
        config = self.config
        place = None if self.folder is None else self.folder / PREDICTIONS
        store = PairStore(place, int(config.memory * 2**30), self._identity(windows))
        for number, window in enumerate(windows):
            if (number,) not in store:
                images = [self.images[k] for k in window]
                queries: list[int] = []
                if config.refine:
                    chosen = np.linspace(0, len(window) - 1, min(config.queries, len(window)))
                    queries = chosen.round().astype(int).tolist()
                found = self.predictor.window(images, queries, config.points)
                store.put((number,), found.arrays())
            self._tick(sum(map(len, windows[: number + 1])), self._steps)
        predictions = [
            WindowPrediction.from_arrays(store.get((number,))) for number in range(len(windows))
        ]
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)
        return predictions

    def _identity(self, windows: list[list[int]]) -> str:
        """Fingerprint of everything that the predictions depend on."""
        config = self.config
        settings: list[Any] = [config.mode, config.size, config.precision]
        settings += [config.refine and [config.queries, config.points], windows]
        code = code_of(prepare, PredictorConfig, WindowPrediction, PairStore)
        pictures = [
            (view.name, image.rgb) for view, image in zip(self.views, self.images, strict=True)
        ]
        return fingerprint([Path(find(config.weights)), settings, code, pictures])

    def _with_known(self, placed: Placed, known: Mapping[int, Transform]) -> Placed:
        """With the given K and poses where they are to be kept."""
        pose, K, depth = placed.world_from_camera.copy(), placed.K.copy(), list(placed.depth)
        if self.config.intrinsics == "fixed":
            for k, (view, image) in enumerate(zip(self.views, self.images, strict=True)):
                own = network_K(view, image)
                # What pictures fix is depth over focal length times the distance of cameras.
                change = np.sqrt(own[0, 0] * own[1, 1] / (K[k, 0, 0] * K[k, 1, 1]))
                depth[k] = (depth[k] * np.float32(change)).astype(np.float32)
                K[k] = own
        if self.config.poses == "fixed":
            for k, given in known.items():
                pose[k] = given
        return replace(placed, world_from_camera=pose, K=K, depth=depth)

    def _refined(
        self,
        placed: Placed,
        windows: list[list[int]],
        predictions: list[WindowPrediction],
        known: Mapping[int, Transform],
        metric: bool,
    ) -> tuple[Placed, str]:
        """The pictures after bundle adjustment, and what it did."""
        config = self.config
        near = config.poses == "near"
        unit = 1.0 if metric else _reach(placed)
        about = [
            Known(
                K=placed.K[k] if config.intrinsics == "fixed" else None,
                world_from_camera=known.get(k),
                rotation_sigma=NEAR_ROTATION if near else 0.0,
                position_sigma=NEAR_POSITION * unit if near else 0.0,
            )
            for k in range(len(self.images))
        ]
        aspect = np.array([_aspect(image) for image in self.images])
        if config.intrinsics == "fixed":
            aspect = placed.K[:, 1, 1] / placed.K[:, 0, 0]
        matches = matches_of(windows, [each.tracks for each in predictions])
        found = refined(placed, aspect, matches, about, config.iterations)
        if not np.isfinite(found.before):
            return placed, "not refined: too few tracked points are visible in two pictures"
        if found.after >= found.before:
            return placed, "not refined: bundle adjustment brought no match closer"
        return found.placed, (
            f"refined: matches fall {found.after:.2f} px from their partners, {found.before:.2f} "
            f"before (median, at {config.size} px)"
        )

    @property
    def _steps(self) -> int:
        windows = windows_of(len(self.images), self.config.window, self.config.overlap)
        return sum(map(len, windows)) + 1

    def _tick(self, done: int, total: int) -> None:
        if self.progress is not None:
            self.progress(done, total)


def _scaled(placed: Placed, factor: float) -> Placed:
    pose = placed.world_from_camera.copy()
    pose[:, :3, 3] *= factor
    depth = [(each * np.float32(factor)).astype(np.float32) for each in placed.depth]
    return replace(placed, world_from_camera=pose, depth=depth)


def _reach(placed: Placed) -> float:
    """Median distance of the cameras from their middle: what stands for a metre without one."""
    at = placed.world_from_camera[:, :3, 3]
    return max(float(np.median(np.linalg.norm(at - np.median(at, axis=0), axis=1))), 1e-9)


def _aspect(image: Prepared) -> float:
    """Vertical over horizontal focal length at the network's size, of square pixels."""
    return float(image.original_from_network[0, 0] / image.original_from_network[1, 1])


def _posed(view: View, image: Prepared, placed: Placed, k: int, least: float) -> View:
    """The view with its camera and its depth at the network's size."""
    pose, K = placed.world_from_camera[k], placed.K[k]
    raw = placed.confidence[k]
    depth = np.where((raw >= least) & np.isfinite(placed.depth[k]), placed.depth[k], np.float32(0))
    # 1 and above to 0 to 1, as other reconstructors give it.
    confidence = np.where(raw > 0, raw / (1 + raw), 0).astype(np.float32)
    return with_estimate(view, image.original_from_network, K, pose, depth, confidence)
