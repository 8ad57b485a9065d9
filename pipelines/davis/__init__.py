"""Compare trackers on videos with true masks.

All trackers use the same segmenter's masks and the same matcher's matches. The result of each
video and tracker is kept in a file, and computed again only when the settings change.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from davis.cached import CachedMasks, CachedMatches
from davis.devices import free_devices, on_devices, one_by_one
from davis.matched import matched_consistency
from davis.shrinking import shrunk
from davis.video import score_video
from lift3d.datasets import read_scene
from lift3d.run.settings import backend_name
from lift3d.scene import Scene
from lift3d.scene.fingerprint import fingerprint
from lift3d.scene.labelmaps import by_name
from lift3d.scene.mask_sets import flat
from lift3d.scene.protocols import Matcher, Segmenter
from lift3d.scene.sources import code_of
from lift3d.scene.storage import atomic

Result = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """The trackers to compare, their inputs, and the folder of the results."""

    out: Path
    trackers: Mapping[str, Any]
    """Name -> settings."""
    segmentation: Any
    matching: Any
    """H is computed from its matches too."""
    weights: str = ""
    """Identifies the weights of networks whose settings are the same."""
    frames: int | None = None
    """Use only this many frames from the start of each video."""
    size: int | None = None
    """Scale pictures down so that their longer side has this many pixels."""

    @property
    def matcher(self) -> str:
        """The matcher's name."""
        return backend_name("matching", self.matching)

    def settings(self, tracker: str) -> dict[str, str]:
        """Everything that a result depends on."""
        config = self.trackers[tracker]
        parts = [config, self.segmentation, self.matching]
        return {
            "code": code_of(Comparison, *map(type, parts)),
            "content": fingerprint(parts),
            "method": repr(config),
            "preset": repr(getattr(config, "options", None)),
            "segmentation": repr(self.segmentation),
            "matching": repr(self.matching),
            "weights": self.weights,
            "frames": f"first {self.frames}" if self.frames is not None else "all",
            "size": f"longer side {self.size}" if self.size is not None else "as stored",
        }

    def kept(self, video: str, tracker: str) -> Result | None:
        """The result of an earlier run with the same settings."""
        try:
            found = json.loads(self._file(video, tracker).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return found if found.get("settings") == self.settings(tracker) else None

    def results(self, videos: Sequence[str]) -> dict[str, list[Result]]:
        """The existing results of each tracker."""
        return {
            tracker: [found for video in videos if (found := self.kept(video, tracker))]
            for tracker in self.trackers
        }

    def run(
        self,
        videos: Mapping[str, Path],
        network: bool,
        workers: int | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> dict[str, str]:
        """Compute missing results, one video per free worker; returns video -> error.

        `network`: whether a GPU is useful. With 0 `workers` everything runs in this process.
        """
        tasks = {
            video: functools.partial(self.run_one, video, images)
            for video, images in videos.items()
            if any(self.kept(video, tracker) is None for tracker in self.trackers)
        }
        if len(tasks) < len(videos):
            say(f"{len(videos) - len(tasks)} of {len(videos)} sequences are done already")
        if not tasks:
            return {}
        devices = free_devices(network, workers, len(tasks))
        outcomes = one_by_one(tasks, devices[0]) if workers == 0 else on_devices(tasks, devices)
        failed: dict[str, str] = {}
        began = time.perf_counter()
        for done, (video, outcome) in enumerate(outcomes, start=1):
            if isinstance(outcome, Exception):
                failed[video] = f"{type(outcome).__name__}: {outcome}"
            left = (time.perf_counter() - began) / done * (len(tasks) - done)
            text = failed.get(video) or f"{outcome:.0f} s"
            say(f"[{done}/{len(tasks)}] {video}: {text}; about {left / 60:.0f} min left")
        return failed

    def run_one(self, video: str, images: Path, device: str) -> float:
        """Run and score every tracker that has no result for the video; returns the seconds."""
        began = time.perf_counter()
        scene = self._bounded(read_scene(images))
        truths = [view.instances() for view in scene.views]
        segmenter, matcher = _networks(self.segmentation, self.matching, device)
        masks, matches = CachedMasks(segmenter), CachedMatches(matcher)
        for tracker, config in self.trackers.items():
            if self.kept(video, tracker) is not None:
                continue
            masks.saved_seconds, matches.saved_seconds, started = 0.0, 0.0, time.perf_counter()
            maps = [flat(each) for each in config.build(masks, matches).track(scene)]
            seconds = time.perf_counter() - started + masks.saved_seconds + matches.saved_seconds
            consistency = matched_consistency(
                scene.views, by_name(scene, maps), matches, self.matcher
            )
            result = {
                "settings": self.settings(tracker),
                "frames": len(scene),
                "device": device,
                "seconds": seconds,  # includes masks and matches that an earlier tracker cached
                "video": score_video(truths, maps).summary(),
                "consistency": consistency.summary(),
            }
            with atomic(self._file(video, tracker)) as part:
                part.write_text(json.dumps(result, indent=1))
        return time.perf_counter() - began

    def _bounded(self, scene: Scene) -> Scene:
        views = scene.views[: self.frames]
        if self.size is not None:
            views = tuple(shrunk(view, self.size) for view in views)
        return scene.with_views(views)

    def _file(self, video: str, tracker: str) -> Path:
        return self.out / video / f"{tracker}.json"


@functools.cache
def _networks(segmentation: Any, matching: Any, device: str) -> tuple[Segmenter, Matcher]:
    """Build both, once per process."""
    segmenter, matcher = (
        replace(config, device=device) if hasattr(config, "device") else config
        for config in (segmentation, matching)
    )
    return segmenter.build(), matcher.build()
