"""The settings of a run. The command line has one option per field of these classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
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
from lift3d.reconstruction.stereo import StereoConfig
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
from lift3d.scene.typed import checked
from lift3d.segmentation import matching, tracking
from lift3d.segmentation.tracked import Tracked


class Automatic(ABC):
    """A placeholder for a backend that is chosen when the scene is known."""

    @abstractmethod
    def chosen(self, config: LiftConfig, scene: Scene | None) -> Any:
        """The chosen backend's settings; without a scene, those for one with depth and poses."""


@dataclass(frozen=True)
class AutoReader(Automatic):
    """The first reader that accepts INPUT; `lift3d info INPUT` prints its format."""

    def chosen(self, config: LiftConfig, scene: Scene | None) -> Reader:
        """The reader's options."""
        return detect(config.input)


@dataclass(frozen=True)
class AutoReconstruction(Automatic):
    """The poses and depth of the input; `colmap` where fewer than half of its views have a pose.

    Neither needs weights. `reconstruction:mast3r` and `reconstruction:vggt` do, and give dense
    depth for photos.
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
    """`independent`, or `given` where the segmenter's ids already agree between views.

    With depth and poses the association in 3D identifies objects better than a tracker does
    (ARCHITECTURE.md has the figures), so no tracker runs unless one is chosen, such as
    `tracking:mastsam`. A segmenter that sees all views needs none.
    """

    def chosen(self, config: LiftConfig, scene: Scene | None) -> Any:
        """The backend's settings; itself where no tracker is needed."""
        if config.sees_all_views:
            return self
        return tracking.BACKENDS["given" if config.segmentation.ids_agree else "independent"]()


def _posed(scene: Scene) -> int:
    """Number of pictures that have poses."""
    return sum(view.geometry_camera.world_from_camera is not None for view in scene.views)


def _enough_posed(scene: Scene) -> bool:
    """Whether at least half of the pictures have poses, as `sensor` needs."""
    return 0 < _posed(scene) >= len(scene) / 2


def poses_unused(config: LiftConfig, scene: Scene) -> list[str]:
    """A warning where the automatic reconstruction ignores poses of the input."""
    posed = _posed(scene)
    auto = isinstance(config.reconstruction, AutoReconstruction)
    if not auto or not posed or _enough_posed(scene):
        return []
    return [
        f"{posed} of {len(scene)} views have a pose, fewer than half: these poses are not used "
        "and COLMAP estimates all of them; reconstruction:sensor uses the posed views alone"
    ]


AUTOMATIC: dict[str, type] = {
    "reader": AutoReader,
    "reconstruction": AutoReconstruction,
    "matching": AutoMatching,
    "tracking": AutoTracking,
}
"""The class of `auto`, the default of the kinds that are chosen by the scene."""
CHOICES = ("reader", "reconstruction", "fusion", "matching", "segmentation", "tracking")
"""The kinds of backends; each is a field of `LiftConfig`."""


def names(kind: str) -> list[str]:
    """The choices for a kind of backend: `auto` where the kind has it, and every name."""
    return [*(["auto"] if kind in AUTOMATIC else []), *KINDS[kind]]


def backend_name(kind: str, config: object) -> str | None:
    """The name of this configuration on the command line; None where it has none."""
    if type(config) is AUTOMATIC.get(kind):
        return "auto"
    return KINDS[kind].name_of(type(config))


def unknown_backend(word: str) -> str | None:
    """The error for a word like `segmentation:samm`; None for other words and known backends."""
    kind, colon, name = word.partition(":")
    if not colon or kind not in CHOICES or name in names(kind):
        return None
    return did_you_mean(name, names(kind), KINDS[kind].what)


Choice: TypeAlias = Any
"""A backend's settings; on the command line `KIND:NAME` and then `--KIND.OPTION`."""


@dataclass(frozen=True)
class LiftConfig:
    """Lift a scan or photos to a point cloud whose points have object ids.

    With the same settings an interrupted run continues where it stopped.
    """

    input: Positional[Path]
    """A .sens file, a scan, COLMAP or nerfstudio folder, photos, a video, or `synthetic[:SEED]`."""
    out: Path
    """The run folder; it is created, or continued if it is a run already."""
    cloud: Path | None = None
    """Label the vertices of this PLY, in their order, instead of a cloud fused from depth."""
    classes: Path | None = None
    """Folder of class maps: <view>.png, grey, class ids from a 2D labeller, for the objects."""
    voxel: float | None = None
    """Voxel side of the fused cloud in metres, one point per voxel; short for --fusion.voxel."""
    views: int | None = None
    """Use at most this many views: those that show most of the scene; without poses every n-th."""
    stride: int = 1
    """Use every n-th view."""
    seed: int = 0
    """Seed of every random step; the same seed gives the same bytes."""
    epsilon: float | None = None
    """H compares the labels of pixels at most this far apart in 3D, metres; default: by scene."""
    check_pixels: int = 4_000_000
    """Compute the consistency H on at most this many pixels, taken on an even grid."""
    tolerance: DepthTolerance = field(default_factory=DepthTolerance)
    association: AssociationConfig = field(default_factory=AssociationConfig)
    stereo: StereoConfig = field(default_factory=StereoConfig)
    reader: Choice = field(default_factory=AutoReader)
    """The format of INPUT (default: found from its files)."""
    reconstruction: Choice = field(default_factory=AutoReconstruction)
    """Where cameras and depth come from."""
    fusion: Choice = field(default_factory=fusion.BACKENDS["voxel"])
    """How depth maps are fused into one cloud."""
    matching: Choice = field(default_factory=AutoMatching)
    """How pixels of two views are matched (for trackers that need it)."""
    segmentation: Choice = field(default_factory=segmentation.BACKENDS["regions"])
    """Where the masks of a view come from."""
    tracking: Choice = field(default_factory=AutoTracking)
    """How masks of different views get common ids."""

    def with_reader(self) -> LiftConfig:
        """A copy with the reader for INPUT. InputError where no reader accepts it."""
        return self._chosen(("reader",), None)

    def for_source(self, source: Scene | None) -> LiftConfig:
        """A copy with the choices made from the scene as read: the reconstruction.

        InputError for choices that exclude each other.
        """
        if self.sees_all_views and not isinstance(self.tracking, AutoTracking):
            raise InputError(
                f"segmentation:{backend_name('segmentation', self.segmentation)} sees all views "
                "and gives the ids itself; leave out "
                f"tracking:{backend_name('tracking', self.tracking)}"
            )
        config = self._chosen(("reconstruction",), source)
        own = config.reconstruction.for_masks(self.segmentation.made_elsewhere)
        config = replace(config, reconstruction=own)
        if self.voxel is None:
            return config
        return replace(config, fusion=replace(config.fusion, voxel=self.voxel))

    def for_scene(self, scene: Scene | None) -> LiftConfig:
        """A copy with the choices made from the reconstructed scene: matching, tracking, and the
        kind of association. `run.json` records it.
        """
        config = self._chosen(("matching", "tracking"), scene)
        if scene is not None:
            config = config._fitted(scene)
        ids_agree = (
            config.segmentation.ids_agree if self.sees_all_views else config.tracking.keeps_ids
        )
        association = config.association
        if ids_agree:
            association = replace(association, trust_ids=True)
        if association.by_shape is None:
            dense = scene is None or scene.has_dense_depth
            surfaces = config.segmentation.masks_are_surfaces
            by_shape = surfaces and dense and not association.trust_ids
            association = replace(association, by_shape=by_shape)
        return replace(config, association=association)

    def resolved(self, scene: Scene | None = None) -> LiftConfig:
        """A copy with every choice made, for a scene that already has cameras and depth.

        Without a scene, the choices for one with depth and poses.
        """
        return self.for_source(scene).for_scene(scene)

    def _chosen(self, kinds: tuple[str, ...], scene: Scene | None) -> LiftConfig:
        """A copy with `auto` of these kinds replaced, and a seed for every backend."""
        parts: dict[str, Any] = {kind: getattr(self, kind) for kind in CHOICES}
        for kind in CHOICES:
            if kind in kinds and isinstance(parts[kind], Automatic):
                parts[kind] = parts[kind].chosen(self, scene)
            if isinstance(parts[kind], BackendConfig):
                parts[kind] = parts[kind].settled(self.seed)
        return replace(self, stereo=self.stereo.settled(self.seed), **parts)

    def _fitted(self, scene: Scene) -> LiftConfig:
        """A copy with all tolerances adapted to the scale of the reconstructed scene."""
        parts: dict[str, Any] = {}
        for kind in CHOICES:
            part = getattr(self, kind)
            if isinstance(part, BackendConfig):
                parts[kind] = part.for_scene(scene)
        return replace(self, tolerance=fitted(self.tolerance, scene), **parts)

    @property
    def sees_all_views(self) -> bool:
        """Whether the segmenter labels all views together, so that no tracker is needed."""
        return isinstance(self.segmentation, SceneSegmenterConfig)

    @property
    def needs_segmenter(self) -> bool:
        """Whether the segmenter is used."""
        if self.sees_all_views or isinstance(self.tracking, AutoTracking):
            return True
        return bool(self.tracking.needs_segmenter(self.segmentation))

    @property
    def needs_matcher(self) -> bool:
        """Whether the matcher is used."""
        return not isinstance(self.tracking, AutoTracking) and self.tracking.needs_matcher

    def check(self) -> None:
        """InputError for invalid settings of fusion and tracking; loads nothing."""
        self.fuser()
        if not isinstance(self.tracking, AutoTracking):
            self.tracking.check()

    def reconstructor(self) -> Reconstructor:
        """Build the backend from images to cameras and depth.

        This and the methods below need a resolved configuration.
        """
        found: Reconstructor = self.reconstruction.build()
        return found

    def fuser(self) -> Fuser:
        """Build the backend from depth maps to points."""
        found: Fuser = self.fusion.build()
        return found

    def segmenter(self) -> Segmenter | SceneSegmenter:
        """Build the backend from an image to masks, or from a scene to label maps."""
        found: Segmenter | SceneSegmenter = self.segmentation.build()
        return found

    def matcher(self) -> Matcher:
        """Build the backend from two views to correspondences."""
        found: Matcher = self.matching.build()
        return found

    def scene_segmenter(
        self,
        segmenter: Segmenter | SceneSegmenter | None = None,
        matcher: Matcher | None = None,
    ) -> SceneSegmenter:
        """Build the backend from a scene to label maps: the segmenter itself where it sees all
        views, else the segmenter with its tracker. Parts that are not given are built.
        """
        if segmenter is None and self.needs_segmenter:
            segmenter = self.segmenter()
        if isinstance(segmenter, SceneSegmenter):
            return segmenter
        if matcher is None and self.needs_matcher:
            matcher = self.matcher()
        return Tracked(segmenter, lambda masks: self.tracking.build(masks, matcher))


def uses_network(settings: object) -> bool:
    """Whether a chosen backend can use a GPU."""
    parts = [getattr(settings, each.name) for each in fields(settings)]  # type: ignore[arg-type]
    return any(
        getattr(part, "device", "cpu") != "cpu" or uses_network(part)
        for part in parts
        if is_dataclass(part)
    )


def without_extras(settings: LiftConfig) -> LiftConfig:
    """The settings of a run alone, without the fields of a command, on which no run may depend."""
    return LiftConfig(**{each.name: getattr(settings, each.name) for each in fields(LiftConfig)})


def as_json(value: Any) -> Any:
    """Settings as JSON values; a backend's settings also have its name."""
    if is_dataclass(value) and not isinstance(value, type):
        kept = {each.name: as_json(getattr(value, each.name)) for each in fields(value)}
        return _named(value) | kept
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [as_json(each) for each in value]
    return value


def read_settings(stored: Mapping[str, Any]) -> LiftConfig:
    """The settings that `as_json` gave; InputError for those of an unknown backend or version."""
    values: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for name, value in stored.items():
        if name not in CHOICES:
            plain[name] = value
            continue
        backend = str(value.get("backend"))
        kind = AUTOMATIC[name] if backend == "auto" else KINDS[name].find(backend)
        options = {each: own for each, own in value.items() if each != "backend"}
        values[name] = checked(kind, options, f"settings of {name}")
    return replace(checked(LiftConfig, plain, "settings"), **values)


def _named(value: Any) -> dict[str, str]:
    """The backend name of these settings; for unregistered backends their class."""
    for kind in CHOICES:
        name = backend_name(kind, value)
        if name is not None:
            return {"backend": name}
    if isinstance(value, BackendConfig | Reader):
        return {"backend": f"{type(value).__module__}:{type(value).__qualname__}"}
    return {}
