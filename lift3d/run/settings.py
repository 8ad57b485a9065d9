"""Every choice of a run. tyro turns these classes into the command line as they stand."""

from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, Union

from tyro.conf import Positional, subcommand

from lift3d import reconstruction, segmentation
from lift3d.association import AssociationConfig
from lift3d.geometry.scale import fitted
from lift3d.geometry.visibility import DepthTolerance
from lift3d.reconstruction import fusion
from lift3d.scene import Scene
from lift3d.scene.errors import did_you_mean
from lift3d.scene.protocols import Matcher, Reconstructor, Segmenter, Tracker
from lift3d.segmentation import matching, tracking


@dataclass(frozen=True)
class AutoReconstruction:
    """Depth and poses as they came with the pictures; where fewer than half have one `colmap`.

    It needs no weights; `reconstruction:mast3r` does, and gives dense depth.
    """

    def chosen(self, config: "LiftConfig", scene: Scene | None) -> Any:
        """The backend's settings."""
        name = "sensor" if scene is None or _enough_posed(scene) else "colmap"
        return reconstruction.BACKENDS[name]()


@dataclass(frozen=True)
class AutoMatching:
    """Correspondences from depth and poses where there are any, else from optical flow."""

    def chosen(self, config: "LiftConfig", scene: Scene | None) -> Any:
        """The backend's settings."""
        if scene is not None and not any(view.load_depth for view in scene.views):
            return matching.BACKENDS["flow"]()
        return matching.BACKENDS["depth"](tolerance=config.tolerance)


@dataclass(frozen=True)
class AutoTracking:
    """`independent`, or `given` where the masks' ids agree between views already.

    With depth and poses the association finds the identities in 3D better than a tracker carries
    them (ARCHITECTURE.md has the figures); `tracking:mastsam` tracks all the same.
    """

    def chosen(self, config: "LiftConfig", scene: Scene | None) -> Any:
        """The backend's settings."""
        agree = getattr(config.segmentation, "ids", None) == "consistent"
        name = "given" if agree else "independent"
        return tracking.BACKENDS[name]()


def _posed(scene: Scene) -> int:
    """How many pictures came with poses."""
    return sum(view.geometry_camera.world_from_camera is not None for view in scene.views)


def _enough_posed(scene: Scene) -> bool:
    """Whether at least half of the pictures have poses: `sensor` refuses to leave out more."""
    return 0 < _posed(scene) >= len(scene) / 2


def poses_unused(config: "LiftConfig", scene: Scene) -> list[str]:
    """A warning where the automatic reconstruction passes over poses that came with pictures."""
    posed = _posed(scene)
    auto = isinstance(config.reconstruction, AutoReconstruction)
    if not auto or not posed or _enough_posed(scene):
        return []
    return [
        f"{posed} of {len(scene)} views came with a pose, fewer than half: their poses are not "
        "used and COLMAP places all views; reconstruction:sensor takes the posed views alone"
    ]


KINDS: dict[str, dict[str, type]] = {
    "reconstruction": {"auto": AutoReconstruction, **reconstruction.BACKENDS},
    "fusion": fusion.BACKENDS,
    "matching": {"auto": AutoMatching, **matching.BACKENDS},
    "segmentation": segmentation.BACKENDS,
    "tracking": {"auto": AutoTracking, **tracking.BACKENDS},
}
"""Backends by kind and name; the first of each kind is the default."""


def backend_name(kind: str, config: object) -> str:
    """The name that this configuration has on the command line."""
    return next(name for name, each in KINDS[kind].items() if type(config) is each)


def unknown_backend(word: str) -> str | None:
    """What is wrong with `segmentation:samm`; None where it names a backend or is no such word."""
    kind, colon, name = word.partition(":")
    if not colon or kind not in KINDS or name in KINDS[kind]:
        return None
    return did_you_mean(name, KINDS[kind], f"{kind} backend")


if TYPE_CHECKING:
    Reconstruction: TypeAlias = Any
    Fusion: TypeAlias = Any
    Matching: TypeAlias = Any
    Segmentation: TypeAlias = Any
    Tracking: TypeAlias = Any
else:

    def _choice(kind):
        """A union of the kind's backends, each a subcommand `kind:name`."""
        members = []
        for name, config in KINDS[kind].items():
            required = any(
                each.default is each.default_factory
                for each in fields(config)  # both MISSING
            )
            given = {} if required else {"default": config()}
            members.append(Annotated[config, subcommand(name, **given)])
        return Union[tuple(members)]  # noqa: UP007 - made at run time

    Reconstruction, Fusion, Matching, Segmentation, Tracking = map(_choice, KINDS)


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
    reader: str | None = None
    """Read INPUT as this format (see `lift3d info`) instead of finding out."""
    epsilon: float | None = None
    """Radius of the consistency H in metres; by default chosen from the scene."""
    check_pixels: int = 4_000_000
    """The consistency H is over at most this many pixels, taken on an even grid."""
    tolerance: DepthTolerance = field(default_factory=DepthTolerance)
    association: AssociationConfig = field(default_factory=AssociationConfig)
    reconstruction: Reconstruction = field(default_factory=AutoReconstruction)
    """Where cameras and depth come from."""
    fusion: Fusion = field(default_factory=KINDS["fusion"]["voxel"])
    """How depth maps become one cloud."""
    matching: Matching = field(default_factory=AutoMatching)
    """How two views are matched (for trackers that need it)."""
    segmentation: Segmentation = field(default_factory=KINDS["segmentation"]["regions"])
    """Where masks come from."""
    tracking: Tracking = field(default_factory=AutoTracking)
    """How masks get their ids."""

    def resolved(self, scene: Scene | None = None) -> "LiftConfig":
        """The same with every automatic choice made for this scene: what `run.json` records.

        Without a scene, as for one with depth and poses.
        """
        parts = {}
        for kind in KINDS:
            part = getattr(self, kind)
            parts[kind] = part.chosen(self, scene) if hasattr(part, "chosen") else part
        if self.voxel is not None:
            parts["fusion"] = replace(parts["fusion"], voxel=self.voxel)
        for kind, part in parts.items():
            if any(each.name == "seed" for each in fields(part)) and part.seed is None:
                parts[kind] = replace(part, seed=self.seed)
        association = self.association
        if backend_name("tracking", parts["tracking"]) == "given":
            association = replace(association, trust_ids=True)
        if association.things is None:
            regions = backend_name("segmentation", parts["segmentation"]) == "regions"
            dense = backend_name("reconstruction", parts["reconstruction"]) == "mast3r" or (
                scene is None
                or any(view.load_depth is not None and not view.sparse for view in scene.views)
            )
            things = regions and dense and not association.trust_ids
            association = replace(association, things=things)
        parts["association"] = association
        return replace(self, **parts)

    def fitted(self, scene: Scene) -> "LiftConfig":
        """The same with every tolerance that follows the scale of the reconstructed scene."""
        parts = {}
        for kind in KINDS:
            part = getattr(self, kind)
            tolerance = getattr(part, "tolerance", None)
            if isinstance(tolerance, DepthTolerance):
                parts[kind] = replace(part, tolerance=fitted(tolerance, scene))
        return replace(self, tolerance=fitted(self.tolerance, scene), **parts)

    def reconstructor(self) -> Reconstructor:
        """Built from a resolved configuration, as are the next three."""
        return self.reconstruction.build()

    def fuser(self) -> Any:
        """Depth maps to points."""
        return self.fusion.build()

    def segmenter(self) -> Segmenter:
        """Images to masks."""
        return self.segmentation.build()

    def matcher(self) -> Matcher:
        """Two views to correspondences."""
        return self.matching.build()

    @property
    def matches(self) -> bool:
        """Whether the tracker compares views; who does not needs no matcher."""
        return backend_name("tracking", self.tracking) not in ("byocl", "given", "independent")

    def tracker(self, segmenter: Segmenter | None = None) -> Tracker:
        """Over its segmenter, this one or a new one, and matcher."""
        matcher = self.matcher() if self.matches else None
        return self.tracking.build(segmenter or self.segmenter(), matcher)


def as_json(value: Any) -> Any:
    """Settings as JSON holds them; backends say their names."""
    if is_dataclass(value) and not isinstance(value, type):
        named = {}
        for kind, backends in KINDS.items():
            if type(value) in backends.values():
                named = {"backend": backend_name(kind, value)}
        return named | {each.name: as_json(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [as_json(each) for each in value]
    return value
