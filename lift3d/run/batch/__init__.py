"""Lift many scans, one run folder each; scans that fail are quarantined, others go on."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

from lift3d.datasets.scannet_surface import annotation_files
from lift3d.run.batch.board import Board, for_terminal
from lift3d.run.batch.overview import PAGE, TABLE, Row, ScanState, write_overview
from lift3d.run.batch.workers import Ended, Workers, run_all
from lift3d.run.lift import lift
from lift3d.run.record import RUN, STAGES, finished
from lift3d.run.settings import LiftConfig, uses_network, without_extras
from lift3d.run.stages import RECORDS, alone_in, open_run
from lift3d.scene.contents import remembered
from lift3d.scene.errors import InputError
from lift3d.scene.fingerprint import fingerprint
from lift3d.scene.guarded.json_file import load_json
from lift3d.scene.sources import package_code
from lift3d.scene.storage import atomic
from lift3d.scene.typed import conforming
from lift3d.scene.workers.local import gpus
from lift3d.scene.workers.views import ViewWorkers

QUARANTINE = "quarantine.json"
OWN = ".batch"
"""Folder with the lock and a file per scan that a worker is lifting."""
MESH = Path("mesh")
"""Value of `cloud` that stands for the mesh that ScanNet has for each scan."""
NAME = "{scan}"
"""Placeholder for the scan's name in any path of the settings."""


@dataclass(frozen=True)
class Job:
    """One scan of a batch."""

    name: str
    config: LiftConfig
    """With absolute paths; `out` is the run folder."""

    @property
    def state(self) -> str:
        """Fingerprint of the settings, the content of the scan and the code."""
        # The path of the run folder does not count.
        settings = {each.name: getattr(self.config, each.name) for each in fields(self.config)}
        del settings["out"]
        return fingerprint([settings, package_code()])


def batch(
    scans: Sequence[Path],
    settings: LiftConfig,
    workers: Workers | None = None,
    again: bool = False,
    board: Board | None = None,
    command: Sequence[str] = (),
) -> list[Row]:
    """Lift every scan into its own folder under `settings.out`; returns one row per scan, in order.

    `settings.input` is not used. A scan in quarantine is skipped until its files or settings
    change, or with `again`. The table, its page and `quarantine.json` are always written, also on
    an interrupt.
    """
    jobs = {job.name: job for job in planned(scans, settings)}
    out = settings.out.absolute()
    with _alone(out), remembered(out / OWN / "contents"):
        board = board or for_terminal()
        quarantined = _read_quarantine(out)
        rows = {name: _row(job, "not done") for name, job in jobs.items()}
        for name, job in jobs.items():
            entry = quarantined.get(name)
            if entry and not again and entry["state"] == job.state:
                rows[name] = _row(job, "quarantined", entry["error"], entry["attempts"])
                board.say(
                    f"{name}: skipped: it failed before and has not changed; --again tries it"
                )
        network = uses_network(settings)
        tasks = {
            name: partial(lift_one, job.config, list(command), out / OWN / f"{name}.json", network)
            for name, job in jobs.items()
            if rows[name].state == "not done"
        }
        workers = workers or Workers()
        with board.shown(len(tasks), partial(_running, out / OWN, jobs)):
            try:
                for name, ended in run_all(tasks, workers, network, board.say, board.pulse):
                    job, row = jobs[name], _finished(jobs[name], ended)
                    rows[name] = row
                    quarantined.pop(name, None)
                    if row.state == "quarantined":
                        quarantined[name] = _entry(job, row)
                    _write_quarantine(out, quarantined)
                    (out / OWN / f"{name}.json").unlink(missing_ok=True)
                    board.ended(row)
            finally:
                write_overview(out, list(rows.values()))
    return list(rows.values())


def planned(scans: Iterable[Path], settings: LiftConfig) -> list[Job]:
    """One job per scan, in the order given. InputError where two scans share a name, or a name
    is that of a file of the batch.
    """
    jobs: dict[str, Job] = {}
    # Without the fields of the batch: a run's settings must not depend on the list of scans.
    settings = without_extras(settings)
    for scan in scans:
        name = scan_name(scan)
        if name.lower() in ("", OWN, QUARANTINE, TABLE, PAGE):
            raise InputError(
                f"the run folder of {scan} would have the name {name!r}, which the batch needs for "
                "itself; rename the scan"
            )
        if name in jobs:
            raise InputError(
                f"{scan} and {jobs[name].config.input} would both be lifted into "
                f"{settings.out / name}; put them into different batches"
            )
        config = _for_scan(settings, scan, name)
        # A path that does not exist may be a word for a reader, such as synthetic:3.
        source = scan.absolute() if scan.exists() else scan
        jobs[name] = Job(name, replace(config, input=source, out=settings.out.absolute() / name))
    if not jobs:
        raise InputError("no scans; expected lift3d batch SCAN SCAN ... --out DIR")
    return list(jobs.values())


def scan_name(scan: Path) -> str:
    """The name of the scan's run folder.

    >>> [scan_name(Path(each)) for each in ("a/scene0011_00.sens", "b/room/", "synthetic:3")]
    ['scene0011_00', 'room', 'synthetic_3']
    """
    name = Path(os.path.abspath(scan)).name
    stem = Path(name).stem if scan.is_file() or scan.suffix == ".sens" else name
    return stem.replace(":", "_")


def lift_one(config: LiftConfig, command: list[str], marker: Path, network: bool = False) -> None:
    """Lift one scan, on a worker. The file `marker` exists while it runs and has the process id.

    With a `network` the views are spread over the GPUs of the worker.
    """
    try:
        with alone_in(open_run(config.out)):
            pass
    except InputError as error:  # not the scan's fault
        raise OSError(str(error)) from error
    with atomic(marker) as part:
        part.write_text(json.dumps({"pid": os.getpid()}))
    try:
        views = ViewWorkers(max(1, len(gpus())) if network else 1)
        lift(config, command=command, workers=views)
    finally:
        marker.unlink(missing_ok=True)


def _for_scan(value: Any, scan: Path, name: str) -> Any:
    """Settings with `{scan}` and `mesh` filled in, and absolute paths, valid on every node."""
    changed: dict[str, Any] = {}
    for each in fields(value):
        old = getattr(value, each.name)
        if is_dataclass(old):
            changed[each.name] = _for_scan(old, scan, name)
        elif isinstance(old, Path):
            path = Path(str(old).replace(NAME, name))
            if each.name == "cloud" and path == MESH and not path.exists():
                path = annotation_files(scan if scan.is_dir() else scan.parent, name)[0]
            # A path that does not exist may be a name, such as that of weights.
            changed[each.name] = path.absolute() if path.exists() or each.name == "cloud" else path
    return replace(value, **changed)


def _finished(job: Job, ended: Ended) -> Row:
    """The row of a scan whose worker has ended."""
    if ended.state == "done":
        try:
            return Row.of_run(job.name, job.config, ended)
        except InputError as error:
            message = f"{error}; check that driver and workers see the same files"
            return _row(job, "failed", message, ended.attempts)
    # A full disk and a folder in use are not the scan's fault: the next batch tries again.
    state: ScanState = "failed" if ended.state == "system" else "quarantined"
    return _row(job, state, ended.error, ended.attempts)


def _row(job: Job, state: ScanState, error: str = "", attempts: int = 0) -> Row:
    return Row(job.name, str(job.config.input), str(job.config.out), state, error, attempts)


def _running(folder: Path, jobs: dict[str, Job]) -> list[tuple[str, int]]:
    """Scans being lifted, and how many of `STAGES`, which every lift has, are finished."""
    names = sorted(path.stem for path in folder.glob("[!.]*.json"))
    return [
        (name, sum(each in STAGES for each in finished(jobs[name].config.out)))
        for name in names
        if name in jobs
    ]


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Lock the folder of a batch; InputError where it is a run's, or another batch has it."""
    if (out / RUN).exists() or (out / RECORDS).exists():
        raise InputError(f"{out} is the folder of one run; choose another --out for a batch")
    try:
        (out / OWN / RECORDS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror}; choose another --out") from None
    with alone_in(out / OWN):
        for stale in (out / OWN).glob("*.json"):
            stale.unlink()
        yield


class Entry(TypedDict):
    """A scan in `quarantine.json`."""

    scan: str
    input: str
    folder: str
    error: str
    attempts: int
    state: str


def _entry(job: Job, row: Row) -> dict[str, Any]:
    kept = ("scan", "input", "folder", "error", "attempts")
    return {name: value for name, value in asdict(row).items() if name in kept} | {
        "state": job.state
    }


def _read_quarantine(out: Path) -> dict[str, dict[str, Any]]:
    path = out / QUARANTINE
    if not path.exists():
        return {}
    entries = conforming(load_json(path, advice="remove it"), list[Entry], path, "remove it")
    return {each["scan"]: each for each in entries}


def _write_quarantine(out: Path, entries: dict[str, dict[str, Any]]) -> None:
    with atomic(out / QUARANTINE) as part:
        part.write_text(json.dumps([entries[name] for name in sorted(entries)], indent=1))
