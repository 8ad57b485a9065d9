"""What the stages of a run share: the folder, the settings, progress, workers, warnings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lift3d.run.layout import Layout
from lift3d.run.record import run_content
from lift3d.run.settings import LiftConfig, uses_network
from lift3d.run.stages import RunFolder
from lift3d.scene import Scene
from lift3d.scene.progress import Progress, Tick
from lift3d.scene.workers.views import Pool, ViewWorkers, opened


@dataclass
class Stages:
    """State shared by the stages of one run."""

    config: LiftConfig
    folder: RunFolder
    progress: Progress
    workers: ViewWorkers
    """Not part of any key: workers change no result."""
    warnings: list[str] = field(default_factory=list)
    scene: str = ""
    """Fingerprint of the views that are used."""

    def stage(
        self,
        name: str,
        settings: object,
        reads: Sequence[Path],
        outputs: Sequence[Path],
        work: Callable[[Tick], dict[str, Any]],
    ) -> dict[str, Any]:
        """Run a stage unless it is finished; returns its result."""

        def shown() -> dict[str, Any]:
            with self.progress.stage(name) as tick:
                return work(tick)

        record = self.folder.stage(name, settings, reads, outputs, shown, work)
        again = ", kept" if record.reused else ""
        self.progress.log(f"{name:<12} {record.seconds:7.1f} s{again}")
        self.warnings += record.result.get("warnings", [])
        for each in record.edited:
            files = [file for file in record.changed if file == each or file.startswith(f"{each}/")]
            self.warn(_changed(each, files))
        for each in record.set_aside:
            self.warn(f"{name} had to run again; its edited output was moved to {each}")
        return record.result

    def pool(self, settings: object, wanted: bool) -> AbstractContextManager[Pool | None]:
        """Workers for a stage with these settings; None where this process works alone."""
        workers = self.workers if wanted else ViewWorkers()
        return opened(workers, uses_network(settings), self.progress.log)

    def warn(self, warning: str) -> None:
        """Keep a warning for the report and show it."""
        self.warnings.append(warning)
        self.progress.log(f"warning: {warning}")

    def content(self, scene: Scene, command: Sequence[str]) -> dict[str, Any]:
        """The content of `run.json`, of the stages so far."""
        return run_content(self.config, scene, self.folder.records, command, self.warnings)

    @property
    def files(self) -> Layout:
        """The paths of the run folder."""
        return Layout(self.folder.path)


def _changed(output: str, files: Sequence[str]) -> str:
    """The warning for an output that was changed by hand, with its changed files."""
    it = f"{output} was changed since this run wrote it"
    if list(files) == [output]:
        return f"{it} and is used as it is; to have it made again, remove it"
    few = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
    which = "that file" if len(files) == 1 else "these files"
    return f"{it} ({few}) and is used as it is; to have it made again, remove {which}"
