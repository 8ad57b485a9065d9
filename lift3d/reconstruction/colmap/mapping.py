"""Matched photos to models: COLMAP's mappers, and the parts they leave joined."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lift3d.datasets.colmap_scene import pycolmap
from lift3d.reconstruction.colmap.joining import shared_features, similarity_of_parts, united
from lift3d.reconstruction.colmap.models import (
    PARALLEL,
    Model,
    checked_model,
    matching_photos,
    parallax,
    placed,
    quality,
)
from lift3d.reconstruction.colmap.rematching import rematch

if TYPE_CHECKING:
    from lift3d.reconstruction.colmap.backend import ColmapConfig

ENOUGH = 0.9
"""Share of photos that must be placed with fixed lenses; below it free ones are tried, too. Chosen
by hand; not tuned on data."""
DRIFT = 0.05
"""Share by which adjusting may change a focal length that the parts agreed on: few photos of a
short walk fix it badly."""
LENS = 4
"""Photos of the smallest part whose lens counts."""
PART = 3
"""Photos of the smallest part that is joined to another."""
RADII = 0.11, 0.075, 0.055
"""How far from their predicted places features are sought, in longest sides, turn by turn: joined
parts lie some degrees off at first. Chosen on the HoloLens subset."""
SURE = 16
"""Photos of the smallest model whose points say where to match again, and whose principal point is
adjusted."""
PLACES = 15, 0.15
"""Matches, and share of them, that place a photo. COLMAP's own: 30 and a quarter."""
LOOSE = 8, 0.05
"""The same, in a model that only says where to match again."""
ANEW = 3
"""Models made anew a turn, each with a seed of its own: the one that the pairs fit best is kept.
One of many photos, whose mapping takes minutes."""
LOSS = 0.5
"""Pixels from which on a point counts less in the last adjustment."""


@dataclass(frozen=True)
class Mapping:
    """One set of matched photos."""

    database: Path
    images: Path
    config: ColmapConfig
    guessed: bool
    """Whether a focal length is unknown."""

    def models(
        self, photos: int, progress: Callable[[float], None] = lambda share: None
    ) -> list[Model]:
        """The parts that were found of so many photos, the best first."""
        found: list[list[Model]] = []
        if self.config.mapper != "global":
            for fixed in (True, False) if self._lenses_known() else (False,):
                found.append(self._finished(self._incremental(fixed), fixed))
                if placed(found[-1]) >= ENOUGH * photos:
                    break
        if self.config.mapper != "incremental":
            found.append(self._finished(self._global()))
        progress(1 / (1 + len(RADII)))
        models = _sorted(self._rematched(max(found, key=quality), photos, progress))
        return [each for each in models if each is models[0] or each.photos - models[0].photos]

    def why_none(self, count: int) -> str:
        """Why none of `count` photos could be placed, and what to do."""
        with pycolmap().Database.open(str(self.database)) as database:
            matching = matching_photos(database)
        if matching == 2:
            return (
                f"only two of {count} photos match, which COLMAP could not place; take a third of "
                "the same things from another place"
            )
        if 2 * matching > count:
            return (
                f"COLMAP could place none of {count} photos, though they match: they show no "
                "parallax. It is the same photo again, or the camera only turned, or nearly all "
                "that matches moved; step to the side between two photos"
            )
        return (
            f"no two photos overlap enough: COLMAP could place none of {count}. Take photos that "
            "share at least half of what they show, from different places, of something with "
            "texture"
        )

    def agree_on_lenses(self) -> None:
        """Replace guessed lenses in the database by those that the parts found, as known ones.

        The focal length is the mean over the parts, weighed by the features they explain; the
        distortion is that of the part that explains most.
        """
        with pycolmap().Database.open(str(self.database)) as database:
            cameras = database.read_all_cameras()
        unknown = {each.camera_id for each in cameras if not each.has_prior_focal_length}
        found: dict[int, list[tuple[int, Any]]] = {}
        # On walks through rooms the global mapper finds better lenses, though worse cameras.
        models = self._global() or self._incremental()
        for model in (each.reconstruction for each in models):
            if model.num_reg_images() < LENS:
                continue
            for number in {model.image(i).camera_id for i in model.reg_image_ids()}:
                if not model.camera(number).has_bogus_params(0.1, 10.0, 1.0):
                    weight = int(model.compute_num_observations())
                    found.setdefault(number, []).append((weight, model.camera(number)))
        with pycolmap().Database.open(str(self.database)) as database:
            for number, seen in found.items():
                if number not in unknown:
                    continue
                camera = database.read_camera(number)
                weights = [weight for weight, _ in seen]
                lens = seen[int(np.argmax(weights))][1]
                focal = np.average([each.mean_focal_length() for _, each in seen], weights=weights)
                share = focal / lens.mean_focal_length()
                params = np.array(lens.params)
                params[lens.focal_length_idxs()] *= share
                camera.params = params
                camera.has_prior_focal_length = True
                database.update_camera(camera)

    def _global(self) -> list[Model]:
        colmap = pycolmap()
        options = colmap.GlobalPipelineOptions()
        options.num_threads = self.config.threads
        options.random_seed = self.config.seed
        options.min_num_matches = self.config.min_matches
        if self.guessed and not self._lenses_known():
            # The mapper divides by focal lengths before it refines them, so estimate them first.
            calibration = colmap.ViewGraphCalibrationOptions()
            calibration.random_seed = self.config.seed
            colmap.calibrate_view_graph(str(self.database), calibration)
        return self._run(colmap.global_mapping, options)

    def _lenses_known(self) -> bool:
        with pycolmap().Database.open(str(self.database)) as database:
            return all(each.has_prior_focal_length for each in database.read_all_cameras())

    def _incremental(self, fixed: bool = False) -> list[Model]:
        """From nothing; with `fixed` lenses parts of a few photos come out well, too."""
        return self._run(pycolmap().incremental_mapping, self._options(fixed, PLACES))

    def _continued(self, start: Path, places: tuple[int, float] = PLACES) -> list[Model]:
        """From the cameras of the model in `start`."""
        colmap = pycolmap()
        options = self._options(False, places)
        options.multiple_models = False
        given = colmap.Reconstruction(str(start))
        files = str(self.database), str(self.images), str(start)
        colmap.triangulate_points(given, *files, True, options).write(str(start))
        return self._run(colmap.incremental_mapping, options, str(start))

    def _options(self, fixed: bool, places: tuple[int, float]) -> Any:
        options = pycolmap().IncrementalPipelineOptions()
        options.num_threads = self.config.threads
        options.random_seed = self.config.seed
        options.min_model_size = 2
        options.ba_refine_focal_length = options.ba_refine_extra_params = not fixed
        # Frames of a walk are near each other and show little: COLMAP's own limits, for photos
        # (16 degrees and 100 matches), place few of them.
        options.mapper.init_min_tri_angle = 6.0
        options.mapper.init_min_num_inliers = 50
        options.mapper.abs_pose_min_num_inliers, options.mapper.abs_pose_min_inlier_ratio = places
        return options

    def _run(self, mapper: Callable[..., dict[int, Any]], options: Any, *start: str) -> list[Model]:
        with tempfile.TemporaryDirectory(dir=self.images.parent) as part:
            try:
                found = mapper(str(self.database), str(self.images), part, options, *start)
            except (RuntimeError, ValueError):
                return []
        with pycolmap().Database.open(str(self.database)) as database:
            models = [checked_model(model, database) for _, model in sorted(found.items())]
        return [
            model
            for model in models
            if len(model) > 1 and parallax(model.reconstruction) >= PARALLEL
        ]

    def _finished(self, parts: Sequence[Model], adjust: bool = True) -> list[Model]:
        """The parts joined where they can be, and the lens of the first adjusted."""
        found = self._joined(parts)
        if adjust and found:
            found[0] = self._refined(found[0])
        return found

    def _rematched(
        self, models: list[Model], photos: int, progress: Callable[[float], None]
    ) -> list[Model]:
        """The models once weak pairs are matched again where the best model predicts it.

        The best goes on with the new matches, and is made anew: a model that joins parts at a wrong
        angle holds on to it.
        """
        for turn, radius in enumerate(RADII, start=1):
            models = _sorted(models)
            if not models or len(models[0]) < SURE:
                break
            if len(models[0]) == photos and not models[0].contradicted:
                break
            guide = self._adjusted(self._grown(models[0], LOOSE))
            with pycolmap().Database.open(str(self.database)) as database:
                if not rematch(guide.reconstruction, database, radius, self.config.seed or 0):
                    break
                models = [checked_model(each.reconstruction, database) for each in models]
            if self.guessed:
                self._give_lenses(guide)
            tries = [[self._refined(models[0]), *models[1:]]]
            for seed in range(ANEW if photos <= self.config.exhaustive else 1):
                other = replace(
                    self, config=replace(self.config, seed=(self.config.seed or 0) + seed)
                )
                tries.append(other._finished(other._incremental(fixed=True)))
            for found in tries:
                models = max(models, [self._adjusted(each) for each in found], key=quality)
            progress((1 + turn) / (1 + len(RADII)))
        return [self._adjusted(each) for each in models]

    def _adjusted(self, model: Model) -> Model:
        """The model adjusted with a robust (Cauchy) loss, where its matches then fit better.

        COLMAP's mappers adjust by plain least squares, in which few wrong matches of far photos
        turn whole parts. A principal point that is not known is adjusted, too.
        """
        colmap = pycolmap()
        options = colmap.BundleAdjustmentOptions()
        options.print_summary = False
        options.refine_principal_point = self.guessed and len(model) >= SURE
        options.ceres.loss_function_type = colmap.LossFunctionType.CAUCHY
        options.ceres.loss_function_scale = LOSS
        options.ceres.solver_options.num_threads = self.config.threads
        adjusted = colmap.Reconstruction(model.reconstruction)
        every = colmap.BundleAdjustmentConfig()
        for image in adjusted.reg_image_ids():
            every.add_image(image)
        every.fix_gauge(colmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
        # Not `bundle_adjustment`, which prints.
        colmap.create_default_bundle_adjuster(options, every, adjusted).solve()
        with colmap.Database.open(str(self.database)) as database:
            found = checked_model(adjusted, database)
        if len(found) < len(model) or (self.guessed and _apart(model, found) > DRIFT):
            return model
        return max(model, found, key=lambda each: -each.misfit)

    def _give_lenses(self, model: Model) -> None:
        """The model's lenses are those that new models start from."""
        with pycolmap().Database.open(str(self.database)) as database:
            for camera in database.read_all_cameras():
                if model.reconstruction.exists_camera(camera.camera_id):
                    camera.params = model.reconstruction.camera(camera.camera_id).params
                    camera.has_prior_focal_length = True
                    database.update_camera(camera)

    def _refined(self, model: Model) -> Model:
        """The model with its lens adjusted, too."""
        found = self._grown(model)
        if found.worth < model.worth or (self.guessed and _apart(model, found) > DRIFT):
            return model
        return found

    def _grown(self, model: Model, places: tuple[int, float] = PLACES) -> Model:
        """The model with its lens adjusted and more photos, if any can be placed."""
        with tempfile.TemporaryDirectory(dir=self.images.parent) as start:
            model.reconstruction.write(start)
            return max(self._continued(Path(start), places), key=len, default=model)

    def _joined(self, models: Sequence[Model]) -> list[Model]:
        """The parts, those that share features joined into one."""
        parts = sorted(models, key=len, reverse=True)
        tried: set[tuple[Model, Model]] = set()
        while pair := _next(parts, tried):
            tried.add(pair)
            whole = self._join(*pair)
            if whole is not None and whole.worth > pair[0].worth:
                rest = [each for each in parts if each not in pair]
                parts = sorted([whole, *rest], key=len, reverse=True)
        return parts

    def _join(self, a: Model, b: Model) -> Model | None:
        with (
            pycolmap().Database.open(str(self.database)) as database,
            tempfile.TemporaryDirectory(dir=self.images.parent) as start,
        ):
            sides = shared_features(a.reconstruction, b.reconstruction, database)
            a_from_b = similarity_of_parts(*sides, self.config.seed or 0)
            if a_from_b is None:
                return None
            united(a.reconstruction, b.reconstruction, a_from_b, database, Path(start))
            found = self._continued(Path(start))
        return max(found, key=len, default=None)


def _sorted(models: Sequence[Model]) -> list[Model]:
    """The best first."""
    return sorted(models, key=lambda model: model.quality, reverse=True)


def _apart(a: Model, b: Model) -> float:
    """The largest difference of focal lengths, as a share."""
    shares = [
        camera.mean_focal_length() / b.reconstruction.camera(number).mean_focal_length()
        for number, camera in a.reconstruction.cameras.items()
        if b.reconstruction.exists_camera(number)
    ]
    return max((abs(share - 1) for share in shares), default=0.0)


def _next(parts: Sequence[Model], tried: set[tuple[Model, Model]]) -> tuple[Model, Model] | None:
    """Two parts that were not tried, the largest first."""
    for i, a in enumerate(parts):
        for b in parts[i + 1 :]:
            if len(b) >= PART and (a, b) not in tried:
                return a, b
    return None
