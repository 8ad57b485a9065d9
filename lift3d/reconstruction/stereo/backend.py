"""Depth maps for a posed scene, view by view, with files so that a killed run goes on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int8

from lift3d.reconstruction.stereo.adjust import Adjusted, adjusted
from lift3d.reconstruction.stereo.consistency import agreed, brought, without_speckles
from lift3d.reconstruction.stereo.matching import Estimate, estimate
from lift3d.reconstruction.stereo.neighbours import (
    PARALLEL,
    Neighbourhood,
    neighbourhoods,
    parallax,
)
from lift3d.reconstruction.stereo.shots import Kept, Shot, working_camera
from lift3d.reconstruction.stereo.tracks import find_tracks
from lift3d.scene import Camera, Depth, Scene, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.fingerprint import fingerprint, scene_fingerprint
from lift3d.scene.guarded.arrays import load_npz
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.sources import code_of
from lift3d.scene.storage import DAMAGED, atomic, load_arrays, save_arrays

STATE = "state.json"
AGREE = 2
"""Views that must agree on a depth; a view's own may be one of them."""
SUPPORT = 1.3
"""Sum of the quality of the views that agree, below which a pixel stays empty. Of every fourth view
of the HoloLens kitchen 53 % of the pixels are answered, 92.5 % of them within 5 %; with 2.0 42 and
94 %."""
SURE = 3.0
"""The same, from which on the confidence is 1."""
PICTURES, MAPS = 32, 24
"""Pictures and depth maps held at a time."""
FIT = 0.4
"""Share of feature matches that fit the poses, below which the poses or the lens are doubted."""
OFF = 2.0
"""Pixels that poses may be off (median) before it is told."""
FEW = 0.25
"""Share of pixels answered below which it is told."""


@dataclass(frozen=True)
class StereoConfig:
    """Depth of posed photos without a sensor, from the pictures themselves."""

    size: int = 640
    """Longest side of the pictures that are compared, and of the depth maps, in pixels."""
    sources: int = 7
    """Views that each view is compared with."""
    planes: int = 96
    """Depths that are tried at first, evenly spaced in inverse depth."""
    adjust: bool = True
    """Adjust the given poses to the pictures, for the comparison alone; the scene keeps its own."""
    seed: int | None = None
    """Seed of the random steps, by default the run's."""

    def settled(self, seed: int) -> StereoConfig:
        """The same with a seed; `seed` is the run's."""
        return self if self.seed is not None else replace(self, seed=seed)


@dataclass(frozen=True, eq=False)
class Estimated:
    """Depth of one view."""

    depth: Float32[np.ndarray, "height width"]
    """Along z in world units; 0 where it is not known."""
    confidence: Float32[np.ndarray, "height width"]
    """0 to 1; 0 where depth is not known."""
    normal: Int8[np.ndarray, "height width 3"]
    """In the camera's frame, towards the camera, times 127; 0 where depth is not known."""


@dataclass(frozen=True)
class Answer:
    """What became of a scene."""

    camera: dict[str, Camera]
    """View -> the camera of its depth map, for the views that have one."""
    share: dict[str, float]
    """View -> share of the pixels with depth."""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def answered(self) -> float:
        """Share of the pixels of all views."""
        return float(np.mean(list(self.share.values()))) if self.share else 0.0


def densify(
    scene: Scene,
    config: StereoConfig,
    out: Path,
    work: Path,
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> Answer:
    """Write `out/VIEW.npz` (an `Estimated`) for every view that others overlap.

    `work` keeps what is done of a view until all are. InputError, with the reason, where no view
    can be answered: fewer than two, no overlap, cameras that only turn.
    """
    return _Work(scene, config, out, work, tick).result()


@dataclass
class _Work:
    scene: Scene
    config: StereoConfig
    out: Path
    work: Path
    tick: Callable[[int, int], None]
    views: tuple[View, ...] = field(init=False)
    cameras: list[Camera] = field(init=False)

    def __post_init__(self) -> None:
        self.views = tuple(
            each for each in self.scene.views if each.camera.world_from_camera is not None
        )
        self.cameras = [working_camera(each.camera, self.config.size) for each in self.views]

    def result(self) -> Answer:
        if len(self.views) < 2:
            raise InputError(
                f"{self.scene.source}: {len(self.views)} views with a pose; depth needs at least 2"
            )
        self._begin()
        solved = self._poses()
        shot = Kept(lambda number: self._shot(number, solved), PICTURES)
        around = neighbourhoods(solved.cameras, solved.tracks, self.config.sources)
        self._check(solved, around)
        for number, near_by in enumerate(around):
            self._match(number, near_by, shot)
            self._told(1, number + 1)
        answer = Answer({}, {}, *self._said(solved, around))
        maps = Kept(partial(_stored, self.work), MAPS)
        for number, near_by in enumerate(around):
            self._keep(number, near_by, solved, maps, answer)
            self._told(2, number + 1)
        shutil.rmtree(self.work, ignore_errors=True)
        if not answer.share or answer.answered == 0:
            raise InputError(
                f"{self.scene.source}: no depth could be found in any view: the pictures show too "
                "little texture, or what they show moved, or the poses are wrong"
            )
        if answer.answered < FEW:
            few = f"stereo found depth at only {answer.answered:.0%} of the pixels"
            return replace(answer, warnings=(*answer.warnings, few))
        return answer

    def _told(self, part: int, done: int) -> None:
        self.tick(part * len(self.views) + done, 3 * len(self.views))

    def _begin(self) -> None:
        """Empty `work` unless it is of the same pictures, settings and code."""
        key = fingerprint([self.config, scene_fingerprint(self.scene), code_of(densify)])
        path = self.work / STATE
        try:
            same = load_json(path, kind=dict).get("key") == key
        except InputError:
            same = False
        if not same:
            shutil.rmtree(self.work, ignore_errors=True)
            with atomic(path) as part:
                part.write_text(json.dumps({"key": key}))

    def _shot(self, number: int, solved: Adjusted | None = None) -> Shot:
        shot = Shot.of(self.views[number], self.config.size)
        return shot if solved is None else replace(shot, camera=solved.cameras[number])

    def _poses(self) -> Adjusted:
        tracks = find_tracks(
            self.cameras, Kept(self._shot, PICTURES), lambda done: self._told(0, done)
        )
        solved = adjusted(self.cameras, tracks)
        if self.config.adjust:
            return solved
        return replace(solved, cameras=tuple(self.cameras))

    def _check(self, solved: Adjusted, around: Sequence[Neighbourhood | None]) -> None:
        source = self.scene.source
        places = np.stack([camera.pose[:3, 3] for camera in self.cameras])
        if np.ptp(places, axis=0).max() == 0:
            raise InputError(
                f"{source}: all cameras stand at one place; depth needs pictures from different "
                "places: step to the side between two photos"
            )
        if any(around):
            return
        tracks = solved.tracks
        if tracks.matches >= 8 * len(self.views) and tracks.fitting < FIT * tracks.matches:
            raise InputError(
                f"{source}: the pictures do not fit the cameras: of {tracks.matches} features "
                f"found in two pictures only {tracks.fitting} agree with poses and focal length; "
                "check them, or reconstruct from the pictures alone with reconstruction:colmap"
            )
        if len(tracks.xyz) >= 8 and parallax(solved.cameras, tracks) < PARALLEL:
            raise InputError(
                f"{source}: the pictures show no parallax: it is the same photo again, or the "
                "camera only turned; step to the side between two photos"
            )
        raise InputError(
            f"{source}: no two views share enough to find depth: take photos that share at least "
            "half of what they show, from different places, of something with texture"
        )

    def _said(
        self, solved: Adjusted, around: Sequence[Neighbourhood | None]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Notes and warnings about poses and overlap."""
        tracks, notes, warnings = solved.tracks, [], []
        notes.append(
            f"stereo: {len(tracks.xyz)} points in several pictures; poses off by "
            f"{solved.before:.1f} pixels (median)"
            + (f", {solved.after:.1f} once adjusted" if self.config.adjust else "")
        )
        if tracks.fitting < FIT * tracks.matches or solved.before > OFF:
            warnings.append(
                f"pictures and cameras fit badly: {tracks.fitting} of {tracks.matches} features "
                f"found in two pictures agree with them, {solved.before:.1f} pixels off (median); "
                "check focal length, distortion and poses, and that nothing moved"
            )
        alone = [view.name for view, each in zip(self.views, around, strict=True) if each is None]
        if alone:
            few = ", ".join(alone[:3]) + (" ..." if len(alone) > 3 else "")
            warnings.append(f"{len(alone)} views overlap no other and get no depth: {few}")
        return tuple(notes), tuple(warnings)

    def _match(
        self, number: int, near_by: Neighbourhood | None, shot: Callable[[int], Shot]
    ) -> None:
        path = self.work / f"{number}.npz"
        if near_by is None or path.is_file():
            return
        sources = [shot(each) for each in near_by.sources]
        found = estimate(
            shot(number), sources, near_by, self.config.planes, (self.config.seed or 0) + number
        )
        save_arrays(path, vars(found))

    def _keep(
        self,
        number: int,
        near_by: Neighbourhood | None,
        solved: Adjusted,
        maps: Callable[[int], Estimate],
        answer: Answer,
    ) -> None:
        """Write the depth of a view that others confirm."""
        if near_by is None:
            return
        own, view, camera = maps(number), self.views[number], solved.cameras[number]
        inverse, quality = [own.inverse], [own.quality]
        for each in near_by.seen_by:
            if (self.work / f"{each}.npz").is_file():
                told, trust = _brought(maps(each), solved.cameras[each], camera)
                inverse.append(told)
                quality.append(trust)
        mean, support, count, by_own = agreed(np.stack(inverse), np.stack(quality))
        good = (count >= AGREE) & (support >= SUPPORT)
        depth = np.where(good, 1 / np.where(good, mean, 1), 0).astype(np.float32)
        depth = without_speckles(depth)
        sure = np.clip(support / SURE, 0.05, 1)
        confidence = np.where(depth > 0, sure, 0).astype(np.float32)
        found = Estimated(depth, confidence, _normals(camera, own, by_own, depth))
        save_arrays(self.out / f"{view.name}.npz", vars(found))
        answer.share[view.name] = float(np.mean(depth > 0))
        answer.camera[view.name] = self.cameras[number]


def _brought(other: Estimate, camera: Camera, into: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Inverse depth and quality of another view, as `into` sees them."""
    moved = into.camera_from_world @ camera.pose
    turn = into.K @ moved[:3, :3] @ np.linalg.inv(camera.K)
    size = (into.height, into.width)
    return brought(other.inverse, other.quality, turn, into.K @ moved[:3, 3], size)


def _normals(
    camera: Camera, own: Estimate, by_own: np.ndarray, depth: Depth
) -> Int8[np.ndarray, "height width 3"]:
    """Normals of the planes: inverse depth is n @ K^-1 @ (x, y, 1) over the plane's distance.

    Where the view's own plane is not the one that was kept, the plane through its neighbours.
    """
    height, width = depth.shape
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    inverse = np.where(depth > 0, 1 / np.where(depth > 0, depth, 1), 0)
    down, right = np.gradient(inverse)
    by_x = np.where(by_own, own.slope[..., 0], right)
    by_y = np.where(by_own, own.slope[..., 1], down)
    affine = np.stack([by_x, by_y, inverse - by_x * x - by_y * y], -1)
    normal = -affine @ camera.K  # towards the camera
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-12)
    normal[depth <= 0] = 0
    return np.rint(127 * normal).astype(np.int8)


def _stored(work: Path, number: int) -> Estimate:
    return load_arrays(work / f"{number}.npz", Estimate)


def read_map(path: Path, what: str) -> Depth:
    """The depth or the confidence of an `Estimated`; FrameError where the file is damaged."""
    found = load_npz(path, [what], FrameError, DAMAGED).get(what)
    if found is None or found.ndim != 2 or found.dtype.kind != "f":
        raise FrameError(f"{path} holds no {what}, one number per pixel; {DAMAGED}")
    return found.astype(np.float32)


def dense_views(scene: Scene, folder: Path, camera: Mapping[str, Camera]) -> Iterator[View]:
    """The views, with the depth of `folder` where they have it."""
    for view in scene.views:
        own = camera.get(view.name)
        if own is None or view.camera.world_from_camera is None:
            yield view
            continue
        path = folder / f"{view.name}.npz"
        same = (own.width, own.height) == (view.camera.width, view.camera.height)
        registered = same and not any(view.camera.distortion)
        yield replace(
            view,
            load_depth=partial(read_map, path, "depth"),
            load_confidence=partial(read_map, path, "confidence"),
            depth_camera=None if registered else own.at(view.camera.pose),
            sparse=False,
            estimated=True,
        )
