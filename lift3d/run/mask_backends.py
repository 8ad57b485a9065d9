"""The segmenter, the tracker and the matcher of a lift, built when they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lift3d.run.settings import Automatic, LiftConfig
from lift3d.run.stages import RunFolder
from lift3d.scene import Scene, Skipped, View
from lift3d.scene.mask_sets import ViewMasks
from lift3d.scene.protocols import Matcher, SceneSegmenter, Segmenter
from lift3d.scene.workers.job import CannotSend
from lift3d.scene.workers.views import Pool
from lift3d.segmentation.spread import spread


class MaskBackends:
    """Builds the segmenter, tracker and matcher. Networks are built before the first stage, to fail
    early on missing weights; where the run already has masks, only when needed.
    """

    def __init__(self, config: LiftConfig, folder: RunFolder) -> None:
        self._config = config
        self._segmenter: Segmenter | SceneSegmenter | None = None
        self._matcher: Matcher | None = None
        self._labelling: SceneSegmenter | None = None
        config.check()
        if not folder.has("track"):
            self._build()

    def _build(self) -> None:
        """Build the segmenter and the matcher where needed. An automatic matcher is chosen only
        after the reconstruction; it needs no weights.
        """
        config = self._config
        if self._segmenter is None and config.needs_segmenter:
            self._segmenter = config.segmenter()
        if (
            self._matcher is None
            and config.needs_matcher
            and not isinstance(config.matching, Automatic)
        ):
            self._matcher = config.matcher()

    def check(self, scene: Scene) -> None:
        """InputError where the segmenter is built and cannot segment the scene."""
        if self._segmenter is not None:
            self._segmenter.check(scene)

    @staticmethod
    def per_view(config: LiftConfig) -> bool:
        """Whether a segmenter sees each view alone, so that workers can do it."""
        return config.needs_segmenter and not config.sees_all_views

    def labels(
        self, config: LiftConfig, scene: Scene, views: Sequence[View], pool: Pool | None
    ) -> Iterator[ViewMasks]:
        """Yield the masks of each view; `config` must be resolved.

        `views` are those of the scene, as they can be sent to workers.
        """
        self._build()
        segmenter = self._segmenter
        if pool is not None and isinstance(segmenter, Segmenter):
            try:
                asks = config.tracking.asks
                segmenter = spread(pool, config.segmentation.build, segmenter, views, asks)
            except CannotSend as error:
                pool.say(f"{error}; so this process segments all views itself")
            else:
                self._segmenter = None  # this process may not need it any more
        built = config.scene_segmenter(segmenter, self._matcher)
        self._labelling = built
        return built.label(scene)

    @property
    def skipped(self) -> list[Skipped]:
        """Views left unlabelled because they cannot be read."""
        return [] if self._labelling is None else self._labelling.skipped
