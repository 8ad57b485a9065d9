"""Every choice of a run. The command line is made of these classes as they stand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from tyro.conf import Positional

from lift3d import reconstruction, segmentation
from lift3d.association import AssociationConfig
from lift3d.datasets import detect
from lift3d.geometry.scale import fitted
from lift3d.geometry.visibility import DepthTolerance
from lift3d.reconstruction import fusion
from lift3d.scene import Scene
from lift3d.scene.errors import InputError, did_you_mean
from lift3d.scene.protocols import (
    BackendConfig,
    Fuser,
    Matcher,
    Reader,
    Reconstructor,
    SceneSegmenter,
    SceneSegmenterConfig,
    Segmenter,
)
from lift3d.scene.registry import KINDS
from lift3d.segmentation import matching, tracking
from lift3d.segmentation.tracked import Tracked


class Automatic(ABC):
    """A choice that is made for the scene: what stands for a backend until it is known."""

    @abstractmethod
    def chosen(self, config: LiftConfig, scene: Scene | None) -> Any:
        """The backend's settings; without a scene, as for one with depth and poses."""


@dataclass(frozen=True)
class AutoReader(Automatic):
    """The first reader that INPUT looks right to; `lift3d info` says which one it is."""

    def chosen(self, config: LiftConfig, scene: Scene | None) -> Reader:
        """The reader's options."""
        return detect(config.input)


@dataclass(frozen=True)
class AutoReconstruction(Automatic):
    """Depth and poses as they came with the pictures; where fewer than half have one `colmap`.

    It needs no weights; `reconstruction:mast3r` does, and gives dense depth.
    """

    def chosen(self, config: LiftConfig, scene: Scene | None) -> BackendConfig:
        """The backend's settings, by the scene as it was read."""
        name = "sensor" if scene is None or _enough_posed(scene) else "colmap"
        found: BackendConfig = reconstruction.BACKENDS[name]()
        return found


@dataclass(frozen=True)
class AutoMatching(Automatic):
    """Correspondences from depth and poses where depth is dense, else from optical flow."""

    def chosen(self, config: LiftConfig, scene: Scene | None) -> BackendConfig:
        """The backend's settings, by the scene as it was reconstructed."""
        dense = scene is None or scene.has_dense_depth
        found: BackendConfig = (
            matching.BACKENDS["depth"](tolerance=config.tolerance)
            if dense
            else matching.BACKENDS["flow"]()
        )
        return found


@dataclass(frozen=True)
class AutoTracking(Automatic):
    """`independent`, or `given` where the masks' ids agree between views already.

    With depth and poses the association finds the identities in 3D better than a tracker carries
    them (ARCHITECTURE.md has the figures); `tracking:mastsam` tracks all the same. A segmenter
    that sees all views needs no tracker.
    """

    def chosen(self, config: LiftConfig, scene: Scene | None) -> Any:
        """The backend's settings; itself where no tracker is needed."""
        if config.sees_all_views:
            return self
        return tracking.BACKENDS["given" if config.segmentation.ids_agree else "independent"]()


def _posed(scene: Scene) -> int:
    """How many pictures came with poses."""
    return sum(view.geometry_camera.world_from_camera is not None for view in scene.views)


def _enough_posed(scene: Scene) -> bool:
    """Whether at least half of the pictures have poses: `sensor` refuses to leave out more."""
    return 0 < _posed(scene) >= len(scene) / 2


def poses_unused(config: LiftConfig, scene: Scene) -> list[str]:
    """A warning where the automatic reconstruction passes over poses that came with pictures."""
    posed = _posed(scene)
    auto = isinstance(config.reconstruction, AutoReconstruction)
    if not auto or not posed or _enough_posed(scene):
        return []
    return [
        f"{posed} of {len(scene)} views came with a pose, fewer than half: their poses are not "
        "used and COLMAP places all views; reconstruction:sensor takes the posed views alone"
    ]


AUTOMATIC: dict[str, type] = {
    "reader": AutoReader,
    "reconstruction": AutoReconstruction,
    "matching": AutoMatching,
    "tracking": AutoTracking,
}
"""What `auto` is, for the kinds that are chosen by the scene; it is their default."""
CHOICES = ("reader", "reconstruction", "fusion", "matching", "segmentation", "tracking")
"""The kinds of backends that a run is made of; each is a field of `LiftConfig`."""


def names(kind: str) -> list[str]:
    """What can be chosen for a kind of backend: `auto` where there is one, and every name."""
    return [*(["auto"] if kind in AUTOMATIC else []), *KINDS[kind]]


def backend_name(kind: str, config: object) -> str | None:
    """The name that this configuration has on the command line; None where it has none."""
    if type(config) is AUTOMATIC.get(kind):
        return "auto"
    return KINDS[kind].name_of(type(config))


def unknown_backend(word: str) -> str | None:
    """What is wrong with `segmentation:samm`; None where it names a backend or is no such word."""
    kind, colon, name = word.partition(":")
    if not colon or kind not in CHOICES or name in names(kind):
        return None
    return did_you_mean(name, names(kind), KINDS[kind].what)


Choice: TypeAlias = Any
"""A backend's settings; on the command line `KIND:NAME` and then `--KIND.OPTION`."""


@dataclass(frozen=True)
class LiftConfig:
    """Lift a scan or photos: pictures in, a cloud whose points carry object ids out.

    A run that was interrupted goes on where it stopped when the same settings are given again.
    """

    input: Positional[Path]
    """A .sens file, a scan folder, a COLMAP or nerfstudio folder, a folder of photos, a video, or
    `synthetic[:SEED]`."""
    out: Path
    """The run folder: made if need be, continued if it is a run."""
    cloud: Path | None = None
    """Label the vertices of this PLY, in their order, instead of a fused cloud."""
    classes: Path | None = None
    """A folder of class ids per pixel, one grey PNG per view, from any 2D labeller: voted onto the
    points like the objects, one class per object."""
    voxel: float | None = None
    """Size of a fused point in metres; short for --fusion.voxel."""
    views: int | None = None
    """Use at most this many views: those that show most of the place, where poses are known, else
    spread evenly."""
    stride: int = 1
    """Use every n-th view."""
    seed: int = 0
    """Of every random step: the same seed gives the same bytes."""
    epsilon: float | None = None
    """Radius of the consistency H in metres; by default chosen from the scene."""
    check_pixels: int = 4_000_000
    """The consistency H is over at most this many pixels, taken on an even grid."""
    tolerance: DepthTolerance = field(default_factory=DepthTolerance)
    association: AssociationConfig = field(default_factory=AssociationConfig)
    reader: Choice = field(default_factory=AutoReader)
    """What INPUT is read as."""
    reconstruction: Choice = field(default_factory=AutoReconstruction)
    """Where cameras and depth come from."""
    fusion: Choice = field(default_factory=fusion.BACKENDS["voxel"])
    """How depth maps become one cloud."""
    matching: Choice = field(default_factory=AutoMatching)
    """How two views are matched (for trackers that need it)."""
    segmentation: Choice = field(default_factory=segmentation.BACKENDS["regions"])
    """Where masks come from."""
    tracking: Choice = field(default_factory=AutoTracking)
    """How masks get their ids."""

    def with_reader(self) -> LiftConfig:
        """The same with the reader that fits INPUT. InputError where none does."""
        return self._chosen(("reader",), None)

    def for_source(self, source: Scene | None) -> LiftConfig:
        """The same with what is chosen by the scene as it was read: how it is reconstructed.

        InputError for choices that exclude each other.
        """
        if self.sees_all_views and not isinstance(self.tracking, AutoTracking):
            raise InputError(
                f"segmentation:{backend_name('segmentation', self.segmentation)} sees all views "
                "and gives the ids itself; leave out "
                f"tracking:{backend_name('tracking', self.tracking)}"
            )
        config = self._chosen(("reconstruction",), source)
        if self.voxel is None:
            return config
        return replace(config, fusion=replace(config.fusion, voxel=self.voxel))

    def for_scene(self, scene: Scene | None) -> LiftConfig:
        """The same with what is chosen by the scene as it was reconstructed: how views are
        matched, and by what the association goes. It is what `run.json` records.
        """
        config = self._chosen(("matching", "tracking"), scene)
        if scene is not None:
            config = config._fitted(scene)
        sure = config.segmentation.ids_agree if self.sees_all_views else config.tracking.keeps_ids
        association = config.association
        if sure:
            association = replace(association, trust_ids=True)
        if association.by_shape is None:
            dense = scene is None or scene.has_dense_depth
            surfaces = config.segmentation.masks_are_surfaces
            by_shape = surfaces and dense and not association.trust_ids
            association = replace(association, by_shape=by_shape)
        return replace(config, association=association)

    def resolved(self, scene: Scene | None = None) -> LiftConfig:
        """The same with every choice made for a scene that has its cameras and depth already.

        Without a scene, as for one with depth and poses.
        """
        return self.for_source(scene).for_scene(scene)

    def _chosen(self, kinds: tuple[str, ...], scene: Scene | None) -> LiftConfig:
        """The same with `auto` of these kinds decided, and no seed of any left open."""
        parts: dict[str, Any] = {kind: getattr(self, kind) for kind in CHOICES}
        for kind in CHOICES:
            if kind in kinds and isinstance(parts[kind], Automatic):
                parts[kind] = parts[kind].chosen(self, scene)
            if isinstance(parts[kind], BackendConfig):
                parts[kind] = parts[kind].settled(self.seed)
        return replace(self, **parts)

    def _fitted(self, scene: Scene) -> LiftConfig:
        """The same with every tolerance that follows the scale of the reconstructed scene."""
        parts: dict[str, Any] = {}
        for kind in CHOICES:
            part = getattr(self, kind)
            if isinstance(part, BackendConfig):
                parts[kind] = part.for_scene(scene)
        return replace(self, tolerance=fitted(self.tolerance, scene), **parts)

    @property
    def sees_all_views(self) -> bool:
        """Whether the segmenter labels the whole scene, so that no tracker comes after it."""
        return isinstance(self.segmentation, SceneSegmenterConfig)

    @property
    def needs_segmenter(self) -> bool:
        """Whether what the segmentation builds would be used."""
        if self.sees_all_views or isinstance(self.tracking, AutoTracking):
            return True
        return bool(self.tracking.needs_segmenter(self.segmentation))

    @property
    def needs_matcher(self) -> bool:
        """Whether views are compared."""
        return not isinstance(self.tracking, AutoTracking) and self.tracking.needs_matcher

    def check(self) -> None:
        """InputError for settings of fusion and tracking that make no sense: nothing is loaded."""
        self.fuser()
        if not isinstance(self.tracking, AutoTracking):
            self.tracking.check()

    def reconstructor(self) -> Reconstructor:
        """Images to cameras and depth; built, as all of the next, from a resolved configuration."""
        found: Reconstructor = self.reconstruction.build()
        return found

    def fuser(self) -> Fuser:
        """Depth maps to points."""
        found: Fuser = self.fusion.build()
        return found

    def segmenter(self) -> Segmenter | SceneSegmenter:
        """Images to masks, or a whole scene to label maps."""
        found: Segmenter | SceneSegmenter = self.segmentation.build()
        return found

    def matcher(self) -> Matcher:
        """Two views to correspondences."""
        found: Matcher = self.matching.build()
        return found

    def scene_segmenter(
        self,
        segmenter: Segmenter | SceneSegmenter | None = None,
        matcher: Matcher | None = None,
    ) -> SceneSegmenter:
        """What labels the views, of a resolved configuration: the segmenter itself where it sees
        all views, else with its tracker. What is not given is built.
        """
        if segmenter is None and self.needs_segmenter:
            segmenter = self.segmenter()
        if isinstance(segmenter, SceneSegmenter):
            return segmenter
        if matcher is None and self.needs_matcher:
            matcher = self.matcher()
        return Tracked(segmenter, lambda masks: self.tracking.build(masks, matcher))


def as_json(value: Any) -> Any:
    """Settings as JSON holds them; backends say their names."""
    if is_dataclass(value) and not isinstance(value, type):
        kept = {each.name: as_json(getattr(value, each.name)) for each in fields(value)}
        return _named(value) | kept
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [as_json(each) for each in value]
    return value


def _named(value: Any) -> dict[str, str]:
    """The name of a backend's settings; where they have none, their class."""
    for kind in CHOICES:
        name = backend_name(kind, value)
        if name is not None:
            return {"backend": name}
    if isinstance(value, BackendConfig | Reader):
        return {"backend": f"{type(value).__module__}:{type(value).__qualname__}"}
    return {}
