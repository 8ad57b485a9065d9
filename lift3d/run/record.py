"""`run.json`: everything needed to repeat a run, and its time and memory."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from lift3d import __version__
from lift3d.correction.history import Corrections
from lift3d.datasets.advice import near_path
from lift3d.run.schema import read_run_file
from lift3d.run.settings import LiftConfig, as_json
from lift3d.run.stages import RECORDS, Record, RunFolder
from lift3d.scene import Scene
from lift3d.scene.errors import InputError
from lift3d.scene.storage import atomic

RUN = "run.json"
STAGES = ("reconstruct", "fuse", "track", "associate", "correct", "check", "report")
"""The stages of a lift, in order."""
STEREO = "stereo"
"""The stage after `reconstruct`, only of posed pictures without depth."""
LIBRARIES = (
    *("numpy", "scipy", "numba", "higra"),
    *("opencv-python-headless", "pillow", "open3d-cpu", "open3d", "plyfile"),
    *("torch", "transformers"),
)
"""Libraries whose versions may change a result."""


def write_run(folder: Path, content: Mapping[str, Any]) -> None:
    """Write `run.json`, which marks the run as finished."""
    with atomic(folder / RUN) as part:
        part.write_text(json.dumps(content, indent=1))


def run_content(
    config: LiftConfig,
    scene: Scene,
    records: Mapping[str, Record],
    command: Sequence[str],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """The content of `run.json`: settings, versions, and time and memory per stage.

    `edits` is there where the results are corrected by hand.
    """
    views = max(len(scene), 1)
    edits = Corrections.of_json(records["correct"].result).as_json()
    stages = [
        asdict(record) | {"seconds_per_view": round(record.seconds / views, 4)}
        for record in records.values()
    ]
    return {
        "command": list(command),
        "source": scene.source,
        "views": len(scene),
        "skipped": [asdict(frame) for frame in scene.skipped],
        "seed": config.seed,
        "settings": as_json(config),
        "versions": versions(),
        "host": host(),
        "stages": stages,
        **({"edits": edits} if edits else {}),
        "seconds": round(sum(record.seconds for record in records.values()), 3),
        "peak_memory_mb": max(record.peak_memory_mb for record in records.values()),
        "warnings": list(warnings),
    }


def read_json(folder: Path, name: str) -> Any:
    """The content of a JSON file of a run. InputError where the folder is no finished run."""
    path = folder / name
    if path.is_file():
        return read_run_file(path)
    if name == RUN and is_run(folder):
        raise InputError(
            f"{folder} is a run that is not finished ({progress_of(folder)}); wait for its "
            "lift, or give the same `lift3d lift` command again to continue it"
        )
    there = "is not there" if not folder.exists() else f"has no {name}"
    raise InputError(
        f"{folder} {there}; expected the folder of a finished `lift3d lift` run{near_path(folder)}"
    )


def is_run(folder: Path) -> bool:
    """Whether a lift has begun in the folder, finished or not."""
    return (folder / RECORDS).is_dir()


def finished(folder: Path) -> list[str]:
    """The names of the finished stages of a run, in order."""
    names = (STAGES[0], STEREO, *STAGES[1:])
    return [name for name in names if RunFolder(folder).has(name)]


def progress_of(folder: Path) -> str:
    """The finished stages of a run that is not finished, in words."""
    return f"finished stages: {', '.join(finished(folder)) or 'none'}"


def versions() -> dict[str, str]:
    """Versions of lift3d, Python and the installed libraries."""
    found = {"lift3d": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def host() -> dict[str, Any]:
    """A description of the machine, to interpret times."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gb": round(memory / 2**30, 1),
    }


def _processor() -> str:
    """The processor's model name; `platform.processor` is often empty on Linux."""
    described = Path("/proc/cpuinfo")
    if described.is_file():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
