"""Photos to cameras and sparse points by COLMAP: SIFT, matching, mapping. No weights, no GPU."""

from __future__ import annotations

import atexit
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lift3d.datasets import colmap_scene
from lift3d.reconstruction.colmap.mapping import Mapping
from lift3d.reconstruction.colmap.models import MIN_SHARED
from lift3d.scene import NO_OFFSET, Camera, Scene, Skipped, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.fingerprint import fingerprint, scene_fingerprint
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.protocols import ReconstructorConfig, Seeded
from lift3d.scene.sources import code_of
from lift3d.scene.storage import atomic

IMAGES, DATABASE, MODEL, STATE = "images", "features.db", "sparse", "colmap.json"
FEW = 10
"""Matches of a pair from which on it is matched again, guided."""
CHUNK = 4
"""Images between two progress reports; CHUNK² pairs between two."""
Tick = Callable[[int, int], None]


@dataclass(frozen=True)
class ColmapConfig(Seeded, ReconstructorConfig):
    """Find the cameras with COLMAP, from the pictures alone."""

    mapper: Literal["both", "incremental", "global"] = "both"
    """incremental: one camera after the other; global: all cameras at once (GLOMAP); both: each,
    and the result that the matches of all pairs contradict least is kept. On walks through a room
    either was the better one."""
    camera_model: Literal["SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV"] = (
        "SIMPLE_RADIAL"
    )
    """COLMAP's camera model; it sets which lens distortion is estimated."""
    shared: Literal["auto", "all", "none"] = "auto"
    """Which pictures share a camera; auto: those of equal size and intrinsics."""
    max_size: int = 2000
    """Longest side for feature extraction, in pixels; larger pictures are scaled down."""
    max_features: int = 8192
    """Features kept per picture."""
    contrast: float = 0.003
    """Least contrast of a feature (COLMAP's own default: 0.0067); plain rooms have few strong
    ones."""
    guided: bool = True
    """Match again along epipolar lines, which finds more, once focal lengths are known or found."""
    exhaustive: int = 100
    """Up to this many pictures, all pairs are matched; above, only pairs near in order."""
    window: int = 10
    """Above `exhaustive`: match with this many next pictures, and with those 2, 4, 8, ... ahead."""
    min_matches: int = 30
    """The global mapper ignores pairs with fewer verified matches. With COLMAP's 15 it placed 53
    of 60 frames of a room together, 1.1 m off (median); with 30 it makes two parts, 25 frames
    0.31 m off and 24 frames 0.04 m."""
    threads: int = 1
    """With one thread, results repeat most closely; -1 uses every core."""
    seed: int | None = None
    """Seed of the random steps, by default the run's; COLMAP still varies in the last digits."""
    dense: bool | None = field(default=None, compare=False)
    """Where no view has dense depth, estimate it from the pictures by stereo; False: do not."""

    @property
    def wants_stereo(self) -> bool:
        """As the setting says."""
        return self.dense is not False

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
        """The views that COLMAP could place, with pose and sparse depth; the others are skipped.

        `folder` keeps images/, features.db and the finished model in sparse/; a finished model of
        the same pictures and settings is reused. InputError if no two photos overlap enough.
        """
        if len(scene) < 2:
            raise InputError(f"{scene.source}: {len(scene)} photos; COLMAP needs at least 2")
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="lift3d-colmap-"))
            # The views read their depth from the model until the process ends.
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
        work = _Work(self.config, scene, folder, progress or (lambda done, total: None))
        return work.result()


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
            state = load_json(self.folder / STATE, kind=dict)
            same = state.get("key") == self._key
        except InputError:
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
        state |= self._map()
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
                    _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])
                    with atomic(folder / file) as part:
                        part.write_bytes(data.tobytes())
                files[view.name] = file
            except FrameError as error:
                unreadable[view.name] = str(error)
            self._tick(0, number / len(self.scene))
        return files, unreadable

    def _extract(self, colmap: Any, files: dict[str, str]) -> None:
        """Extract SIFT features of the pictures that have none in the database."""
        options = colmap.FeatureExtractionOptions()
        options.max_image_size = self.config.max_size
        options.num_threads = self.config.threads
        options.sift.max_num_features = self.config.max_features
        options.sift.peak_threshold = self.config.contrast
        views = {files[view.name]: view for view in self.scene.views if view.name in files}
        done = 0
        for group in _groups(views, self.config.shared):
            reader = colmap.ImageReaderOptions()
            reader.camera_model = self.config.camera_model
            camera = views[group[0]].camera
            if not colmap_scene.focal_is_guessed(camera):
                reader.camera_params = _parameters(camera, self.config.camera_model)
            for chunk in _chunks(group, CHUNK):
                reader.existing_camera_id = self._camera_id(colmap, group)
                colmap.extract_features(
                    str(self.folder / DATABASE),
                    str(self.folder / IMAGES),
                    list(chunk),
                    colmap.CameraMode.SINGLE,
                    reader,
                    options,
                    colmap.Device.cpu,
                )
                done += len(chunk)
                self._tick(1, done / len(views))

    def _camera_id(self, colmap: Any, group: Sequence[str]) -> int:
        """Database id of this group's camera; -1 if none of its pictures is in the database."""
        with colmap.Database.open(str(self.folder / DATABASE)) as database:
            for image in database.read_all_images():
                if image.name in group:
                    return int(image.camera_id)
        return -1

    def _match(self, colmap: Any, files: Sequence[str]) -> None:
        """Match and verify the pairs that are not in the database yet; then again, guided.

        Guided matching by a wrong focal length loses matches instead of finding more, so where it
        is not known, it is first taken from a reconstruction from plain matches.
        """
        pairs = list(self._pairs(files))
        self._match_pairs(colmap, pairs, False, (0.0, 0.7))
        if not self.config.guided:
            return
        if self._guessed:
            self._mapping.agree_on_lenses()
        with colmap.Database.open(str(self.folder / DATABASE)) as database:
            number = {image.name: image.image_id for image in database.read_all_images()}
            again = []
            for a, b in pairs:
                i, j = number[a], number[b]
                if len(database.read_matches(i, j)) >= FEW:
                    database.delete_matches(i, j)
                    database.delete_two_view_geometry(i, j)
                    again.append((a, b))
        self._match_pairs(colmap, again, True, (0.7, 1.0))

    def _match_pairs(
        self,
        colmap: Any,
        pairs: Sequence[tuple[str, str]],
        guided: bool,
        shares: tuple[float, float],
    ) -> None:
        options = colmap.FeatureMatchingOptions()
        options.num_threads = self.config.threads
        options.guided_matching = guided
        verification = colmap.TwoViewGeometryOptions()
        verification.ransac.random_seed = self.config.seed
        pairing = colmap.ImportedPairingOptions()
        first, last = shares
        done = 0
        listing = self.folder / "pairs.txt"
        for chunk in _chunks(pairs, CHUNK * CHUNK):
            listing.write_text("".join(f"{a} {b}\n" for a, b in chunk), encoding="utf-8")
            pairing.match_list_path = str(listing)
            colmap.match_image_pairs(
                str(self.folder / DATABASE), options, pairing, verification, colmap.Device.cpu
            )
            done += len(chunk)
            self._tick(2, first + (last - first) * done / len(pairs))
        listing.unlink(missing_ok=True)

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

    @property
    def _guessed(self) -> bool:
        """Whether a focal length is unknown."""
        return any(colmap_scene.focal_is_guessed(view.camera) for view in self.scene.views)

    @property
    def _mapping(self) -> Mapping:
        return Mapping(self.folder / DATABASE, self.folder / IMAGES, self.config, self._guessed)

    def _map(self) -> dict[str, Any]:
        """Write the best model to sparse/; the models' sizes and the removed images."""
        models = self._mapping.models(len(self.scene), lambda share: self._tick(3, 0.9 * share))
        self._tick(3, 0.9)
        if not models:
            raise InputError(f"{self.scene.source}: {self._mapping.why_none(len(self.scene))}")
        shutil.rmtree(self.folder / MODEL, ignore_errors=True)
        with tempfile.TemporaryDirectory(dir=self.folder) as part:
            models[0].reconstruction.write(part)
            shutil.copytree(part, self.folder / MODEL)
        best = models[0]
        return {"sizes": list(map(len, models)), "weak": best.weak, "doubt": best.doubt}

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
            notes.append(
                f"the largest of {len(state['sizes'])} parts that do not connect was taken; left "
                f"out were parts of {others} photos"
            )
        return replace(
            self.scene,
            views=tuple(views),
            metric=False,
            offset=NO_OFFSET,
            skipped=(*self.scene.skipped, *skipped),
            notes=(*self.scene.notes, *notes),
            warnings=(*self.scene.warnings, *([state["doubt"]] if state["doubt"] else [])),
            load_points=partial(colmap_scene.load_points, model),
        )


def _groups(views: dict[str, View], shared: str) -> list[list[str]]:
    """Groups of files that share a camera."""
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
    """The camera's parameters as COLMAP's comma-separated list, for `model`."""
    fx, fy = camera.K[0, 0], camera.K[1, 1]
    k1, k2, p1, p2 = (*camera.distortion, 0.0, 0.0, 0.0, 0.0)[:4]
    known = {"f": (fx + fy) / 2, "fx": fx, "fy": fy, "k1": k1, "k2": k2, "p1": p1, "p2": p2}
    known |= {"cx": camera.K[0, 2] + 0.5, "cy": camera.K[1, 2] + 0.5}
    return ",".join(repr(float(known[name])) for name in colmap_scene.MODELS[model].split())


def _chunks(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (items[i : i + size] for i in range(0, len(items), size))
