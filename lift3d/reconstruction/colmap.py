"""Photos to cameras and sparse points by COLMAP: SIFT, matching, mapping. No weights, no GPU."""

from __future__ import annotations

import atexit
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lift3d.datasets import colmap_scene
from lift3d.scene import Camera, Scene, Skipped, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.fingerprint import fingerprint, scene_fingerprint
from lift3d.scene.protocols import ReconstructorConfig, Seeded
from lift3d.scene.sources import code_of
from lift3d.scene.storage import atomic

IMAGES, DATABASE, MODEL, STATE = "images", "features.db", "sparse", "colmap.json"
ENOUGH = 0.9
"""Share of the photos that the global mapper must place, or the incremental one has a go too."""
CHUNK = 4
"""Images, and lots of pairs, between two ticks of progress."""
MIN_SHARED = 15
"""Photos hang together where they share so many points. The global mapper also joins parts by
less, at the wrong scale: 30 frames of a room came out 0.8 m off, the 24 that hang together 2 cm.
Chosen on that room (the HoloLens subset) and seven photos of a tower, no more."""
Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class ColmapConfig(Seeded, ReconstructorConfig):
    """Find the cameras with COLMAP, from the pictures alone."""

    mapper: Literal["global", "incremental"] = "global"
    """global: all cameras at once (GLOMAP), and one after the other too where that misses more than
    a tenth, the better kept; incremental: one after the other."""
    camera_model: Literal["SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV"] = (
        "SIMPLE_RADIAL"
    )
    """How much lens distortion is estimated."""
    shared: Literal["auto", "all", "none"] = "auto"
    """Which pictures have one camera: auto: those of one size and one focal length."""
    max_size: int = 2000
    """Pictures longer than this many pixels are searched for features at this size."""
    max_features: int = 8192
    """Features kept per picture."""
    exhaustive: int = 100
    """Up to this many pictures, each is compared with each; above, with those near in order."""
    window: int = 10
    """Above that: compared with as many neighbours, and with those 2, 4, 8, ... pictures on."""
    min_matches: int = 30
    """Pairs with fewer verified matches are no evidence to the global mapper. With COLMAP's 15 it
    joins more, wrongly: 53 of 60 frames of a room, 1.1 m off (median); with 30 it makes two parts,
    25 frames 0.31 m off and 24 frames 0.04 m."""
    threads: int = 1
    """One thread repeats itself most nearly; -1 takes every core."""
    seed: int | None = None
    """For the random steps, by default the run's; COLMAP still varies in the last digits."""

    def build(self) -> Colmap:
        """The reconstructor with these settings; MissingExtra without pycolmap."""
        colmap_scene.pycolmap()
        return Colmap(self)


class Colmap:
    """Cameras and sparse points by structure from motion; the world has no scale."""

    def __init__(self, config: ColmapConfig = ColmapConfig()) -> None:
        self.config = replace(config, seed=config.seed or 0)

    def reconstruct(
        self,
        scene: Scene,
        progress: Callable[[int, int], None] | None = None,
        folder: Path | None = None,
    ) -> Scene:
        """The views that COLMAP could place, posed, with sparse depth; the others are skipped.

        `folder` keeps images/, features.db and the finished model in sparse/; a model of the
        same pictures and settings is taken over. InputError where no two photos overlap enough.
        """
        if len(scene) < 2:
            raise InputError(f"{scene.source}: {len(scene)} photos; COLMAP needs at least 2")
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="lift3d-colmap-"))
            # The views' depth is read from the model as long as this process lives.
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
        work = _Work(self.config, scene, folder, progress or (lambda done, total: None))
        return work.result()


@dataclass(frozen=True, eq=False)
class _Model:
    """What a mapper made, and the images that were taken out of it."""

    made: Any
    weak: list[str]

    def __len__(self) -> int:
        return int(self.made.num_reg_images())


@dataclass(frozen=True)
class _Work:
    """One reconstruction in its folder."""

    config: ColmapConfig
    scene: Scene
    folder: Path
    progress: Tick

    def result(self) -> Scene:
        state = self._finished()
        if state is None:
            state = self._run()
        self.progress(4 * len(self.scene), 4 * len(self.scene))
        return self._scene(state)

    @cached_property
    def _key(self) -> str:
        """Changes with the settings, the pictures, their cameras and the code."""
        return fingerprint([self.config, scene_fingerprint(self.scene), code_of(Colmap)])

    def _finished(self) -> dict[str, Any] | None:
        try:
            state = json.loads((self.folder / STATE).read_text(encoding="utf-8"))
            same = state["key"] == self._key
        except (OSError, ValueError, KeyError, TypeError):
            same = False
        if not same:
            for name in (IMAGES, MODEL):
                shutil.rmtree(self.folder / name, ignore_errors=True)
            for name in (DATABASE, STATE):
                (self.folder / name).unlink(missing_ok=True)
            return None
        return state if state["done"] else None

    def _run(self) -> dict[str, Any]:
        colmap = colmap_scene.pycolmap()
        self.folder.mkdir(parents=True, exist_ok=True)
        state: dict[str, Any] = {"key": self._key, "done": False}
        self._save(state)
        colmap.set_random_seed(self.config.seed)
        files, unreadable = self._write_images()
        if len(files) < 2:
            raise InputError(f"{self.scene.source}: fewer than 2 photos can be read")
        self._extract(colmap, files)
        self._match(colmap, list(files.values()))
        state |= self._map(colmap)
        state |= {"done": True, "files": files, "unreadable": unreadable}
        self._save(state)
        return state

    def _save(self, state: dict[str, Any]) -> None:
        with atomic(self.folder / STATE) as part:
            part.write_text(json.dumps(state), encoding="utf-8")

    def _tick(self, stage: int, share: float) -> None:
        """Stages 0 to 3: writing, features, matches, mapping; equal parts of the bar."""
        n = len(self.scene)
        self.progress(min(stage * n + round(share * n), 4 * n), 4 * n)

    def _write_images(self) -> tuple[dict[str, str], dict[str, str]]:
        """View name -> file in images/, and view name -> why it cannot be read."""
        import cv2

        folder = self.folder / IMAGES
        folder.mkdir(exist_ok=True)
        files: dict[str, str] = {}
        unreadable: dict[str, str] = {}
        for number, view in enumerate(self.scene.views, start=1):
            # COLMAP separates the names in its lists by spaces.
            file = re.sub(r"[^\w.-]", "_", view.name) + ".jpg"
            if file in files.values():
                file = f"{number}-{file}"
            try:
                if not (folder / file).is_file():
                    pixels = np.ascontiguousarray(view.image()[..., ::-1])
                    with atomic(folder / file) as part:
                        cv2.imwrite(str(part), pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])
                files[view.name] = file
            except FrameError as error:
                unreadable[view.name] = str(error)
            self._tick(0, number / len(self.scene))
        return files, unreadable

    def _extract(self, colmap: Any, files: dict[str, str]) -> None:
        """SIFT; pictures that have their features in the database are passed over."""
        options = colmap.FeatureExtractionOptions()
        options.max_image_size = self.config.max_size
        options.num_threads = self.config.threads
        options.sift.max_num_features = self.config.max_features
        views = {files[view.name]: view for view in self.scene.views if view.name in files}
        done = 0
        for group in _groups(views, self.config.shared):
            reader = colmap.ImageReaderOptions()
            reader.camera_model = self.config.camera_model
            camera = views[group[0]].camera
            if not colmap_scene.focal_is_guessed(camera):
                reader.camera_params = _parameters(camera, self.config.camera_model)
            for some in _chunks(group, CHUNK):
                reader.existing_camera_id = self._camera_id(colmap, group)
                colmap.extract_features(
                    str(self.folder / DATABASE),
                    str(self.folder / IMAGES),
                    list(some),
                    colmap.CameraMode.SINGLE,
                    reader,
                    options,
                    colmap.Device.cpu,
                )
                done += len(some)
                self._tick(1, done / len(views))

    def _camera_id(self, colmap: Any, group: Sequence[str]) -> int:
        """The camera that pictures of this group have in the database already; -1 for none."""
        with colmap.Database.open(str(self.folder / DATABASE)) as database:
            for image in database.read_all_images():
                if image.name in group:
                    return int(image.camera_id)
        return -1

    def _match(self, colmap: Any, files: Sequence[str]) -> None:
        """Matches of the pairs, verified; pairs in the database are passed over."""
        options = colmap.FeatureMatchingOptions()
        options.num_threads = self.config.threads
        verification = colmap.TwoViewGeometryOptions()
        verification.ransac.random_seed = self.config.seed
        pairing = colmap.ImportedPairingOptions()
        pairs = list(self._pairs(files))
        done = 0
        listing = self.folder / "pairs.txt"
        for some in _chunks(pairs, CHUNK * CHUNK):
            listing.write_text("".join(f"{a} {b}\n" for a, b in some), encoding="utf-8")
            pairing.match_list_path = str(listing)
            colmap.match_image_pairs(
                str(self.folder / DATABASE), options, pairing, verification, colmap.Device.cpu
            )
            done += len(some)
            self._tick(2, done / len(pairs))
        listing.unlink()

    def _pairs(self, files: Sequence[str]) -> Iterator[tuple[str, str]]:
        if len(files) <= self.config.exhaustive:
            yield from combinations(files, 2)
            return
        near = set(range(1, self.config.window + 1))
        far = {2**i for i in range(self.config.window + 1)}
        for i, a in enumerate(files):
            yield from (
                (a, files[i + step]) for step in sorted(near | far) if i + step < len(files)
            )

    def _map(self, colmap: Any) -> dict[str, Any]:
        """The best model in sparse/; what to remember of it and the others."""
        models: list[_Model] = []
        if self.config.mapper == "global":
            models = self._global(colmap)
        if _placed(models) < ENOUGH * len(self.scene):
            models = max(models, self._incremental(colmap), key=_placed)
        self._tick(3, 0.9)
        if not models:
            raise InputError(
                f"{self.scene.source}: no two photos overlap enough: COLMAP could place none of "
                f"{len(self.scene)}. Take photos that share at least half of what they show, from "
                "different places, of something with texture"
            )
        models.sort(key=lambda model: -len(model))
        shutil.rmtree(self.folder / MODEL, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as part:
            models[0].made.write(part)
            shutil.copytree(part, self.folder / MODEL)
        return {"sizes": [len(model) for model in models], "weak": models[0].weak}

    def _global(self, colmap: Any) -> list[_Model]:
        options = colmap.GlobalPipelineOptions()
        options.num_threads = self.config.threads
        options.random_seed = self.config.seed
        options.min_num_matches = self.config.min_matches
        if any(colmap_scene.focal_is_guessed(view.camera) for view in self.scene.views):
            # It divides by focal lengths before it refines them, so they are estimated first.
            calibration = colmap.ViewGraphCalibrationOptions()
            calibration.random_seed = self.config.seed
            colmap.calibrate_view_graph(str(self.folder / DATABASE), calibration)
        return self._run_mapper(colmap.global_mapping, options)

    def _incremental(self, colmap: Any) -> list[_Model]:
        options = colmap.IncrementalPipelineOptions()
        options.num_threads = self.config.threads
        options.random_seed = self.config.seed
        options.min_model_size = 2
        return self._run_mapper(colmap.incremental_mapping, options)

    def _run_mapper(self, mapper: Callable[..., dict[int, Any]], options: Any) -> list[_Model]:
        with tempfile.TemporaryDirectory(dir=self.folder) as part:
            try:
                found = mapper(
                    str(self.folder / DATABASE), str(self.folder / IMAGES), part, options
                )
            except (RuntimeError, ValueError):
                return []
        models = [_Model(model, _prune(model)) for _, model in sorted(found.items())]
        return [model for model in models if len(model) > 1]

    def _scene(self, state: dict[str, Any]) -> Scene:
        model = self.folder / MODEL
        posed = colmap_scene.cameras(model)
        files, unreadable = state["files"], state["unreadable"]
        views: list[View] = []
        skipped: list[Skipped] = []
        for view in self.scene.views:
            file = files.get(view.name, "")
            if view.name in unreadable:
                skipped.append(Skipped(view.name, unreadable[view.name]))
            elif file in state["weak"]:
                reason = f"shares fewer than {MIN_SHARED} points with the photos that were placed"
                skipped.append(Skipped(view.name, reason))
            elif file not in posed:
                skipped.append(Skipped(view.name, "COLMAP could not place it: too few matches"))
            else:
                camera = posed[file]
                views.append(
                    colmap_scene.posed_view(view.name, camera, view.load_image, model, file)
                )
        notes = [f"COLMAP placed {len(views)} of {len(self.scene)} photos; the scale is arbitrary"]
        if len(state["sizes"]) > 1:
            others = ", ".join(map(str, state["sizes"][1:]))
            notes.append(f"other parts that do not connect were left out: {others} photos")
        return replace(
            self.scene,
            views=tuple(views),
            metric=False,
            skipped=(*self.scene.skipped, *skipped),
            notes=(*self.scene.notes, *notes),
            load_points=partial(colmap_scene.load_points, model),
        )


def _groups(views: dict[str, View], shared: str) -> list[list[str]]:
    """Files that have one camera."""
    groups: dict[Any, list[str]] = {}
    for number, (file, view) in enumerate(views.items()):
        camera = view.camera
        size = (camera.width, camera.height)
        key: Any = {
            "auto": (*size, camera.K.tobytes()),
            "all": size,
            "none": number,
        }[shared]
        groups.setdefault(key, []).append(file)
    return list(groups.values())


def _parameters(camera: Camera, model: str) -> str:
    """What COLMAP calls the camera's parameters, where the focal length is known."""
    fx, fy = camera.K[0, 0], camera.K[1, 1]
    k1, k2, p1, p2 = (*camera.distortion, 0.0, 0.0, 0.0, 0.0)[:4]
    known = {"f": (fx + fy) / 2, "fx": fx, "fy": fy, "k1": k1, "k2": k2, "p1": p1, "p2": p2}
    known |= {"cx": camera.K[0, 2] + 0.5, "cy": camera.K[1, 2] + 0.5}
    return ",".join(repr(float(known[name])) for name in colmap_scene.MODELS[model].split())


def _prune(model: Any) -> list[str]:
    """Take out of the model what does not hang together with its largest part; the names.

    The global mapper places every image that has a relative rotation to another, be it without
    a single point, and may end with lenses that cannot be.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    images = sorted(model.reg_image_ids())
    lenses = [model.camera(model.image(i).camera_id) for i in images]
    at = {
        i: n
        for n, (i, lens) in enumerate(zip(images, lenses, strict=True))
        if not lens.has_bogus_params(0.1, 10.0, 1.0)
    }
    shared: Counter[tuple[int, int]] = Counter()
    for point in model.points3D.values():
        seen = {at[e.image_id] for e in point.track.elements if e.image_id in at}
        shared.update(combinations(sorted(seen), 2))
    strong = [pair for pair, count in shared.items() if count >= MIN_SHARED]
    a, b = np.array(strong, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(len(images),) * 2)
    part = connected_components(graph, directed=False)[1]
    kept = part == np.bincount(part).argmax()
    names = []
    for i, keep in zip(images, kept, strict=True):
        if not keep:
            names.append(str(model.image(i).name))
            model.deregister_frame(model.image(i).frame_id)
    return names


def _placed(models: Sequence[_Model]) -> int:
    """Photos in the largest model."""
    return max((len(model) for model in models), default=0)


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[i : i + size] for i in range(0, len(items), size))
