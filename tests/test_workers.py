"""The views of one scan on several workers: the same bytes, in order, none lost, none twice."""

import os
import pickle
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numba
import numpy as np
import pytest
from standin import StandInConfig, done, processes
from tiny_scan import tiny_scan, write_scannet

from lift3d.run.batch.workers import Workers, share_of
from lift3d.run.lift import lift
from lift3d.run.run import Run
from lift3d.run.settings import LiftConfig
from lift3d.scene import Masks
from lift3d.scene.errors import InputError
from lift3d.scene.mask_sets import MaskSet, PackedMasks
from lift3d.scene.progress import Quiet
from lift3d.scene.workers.crew import Share
from lift3d.scene.workers.job import CannotSend, sendable
from lift3d.scene.workers.local import LocalCrew
from lift3d.scene.workers.views import Pool, ViewWorkers
from lift3d.segmentation.tracking.byocl import ByoclConfig
from lift3d.segmentation.tracking.mastsam import MastsamConfig

VIEWS = 6
TWO = ViewWorkers(2)
MADE = ("masks", "labels", "automatic", "cloud.ply", "instances.json", "consistency.json")


class Lines(Quiet):
    def __init__(self):
        self.lines = []

    def log(self, line):
        self.lines.append(line)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "room"
    write_scannet(path, tiny_scan(views=VIEWS))
    return path


def made(run):
    """Every file of the results, byte by byte."""
    roots = [run.folder / name for name in MADE]
    files = [file for root in roots for file in (root.rglob("*") if root.is_dir() else [root])]
    return {str(f.relative_to(run.folder)): f.read_bytes() for f in files if f.is_file()}


@pytest.fixture(scope="module")
def alone(scan, tmp_path_factory):
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone")
    config = LiftConfig(scan, folder / "out", segmentation=StandInConfig(folder / "log"))
    return made(lift(config))


def test_two_workers_write_the_same_bytes_and_do_each_view_once(scan, alone, tmp_path):
    settings = StandInConfig(tmp_path / "log")
    config = LiftConfig(scan, tmp_path / "out", segmentation=settings)
    run = lift(config, workers=TWO)
    assert made(run) == alone
    assert sorted(done(settings.log).items()) == [(str(view), 1) for view in range(VIEWS)]
    assert os.getpid() not in processes(settings.log)
    assert len(processes(settings.log)) == 2
    again = lift(config)  # the number of workers is in no key
    assert all(record.reused for record in again.records.values())


def test_views_of_a_killed_worker_are_done_again_and_it_is_said(scan, alone, tmp_path):
    settings = StandInConfig(tmp_path / "log", dies="2", times=1)
    shown = Lines()
    run = lift(LiftConfig(scan, tmp_path / "out", segmentation=settings), None, shown, (), TWO)
    assert made(run) == alone
    assert done(settings.log) == {str(view): 1 + (view == 2) for view in range(VIEWS)}
    assert any("view 2: its worker died, attempt 1 (killed by SIGKILL)" in x for x in shown.lines)


def test_a_view_that_kills_every_worker_ends_the_run(scan, tmp_path):
    settings = StandInConfig(tmp_path / "log", dies="1", times=99)
    with pytest.raises(InputError, match=r"view 1: its worker died 3 times \(killed by SIGKILL\)"):
        lift(LiftConfig(scan, tmp_path / "out", segmentation=settings), workers=TWO)


@pytest.mark.parametrize("torn", [True, False])
def test_an_error_is_reported_as_with_one_worker(scan, tmp_path, torn):
    ends = []
    for number, workers in enumerate((None, TWO)):
        settings = StandInConfig(tmp_path / f"log{number}", fails="3", torn=torn)
        config = LiftConfig(scan, tmp_path / f"out{number}", segmentation=settings)
        try:
            run = lift(config, workers=workers)
            warnings = run.records["track"].result["warnings"]
            ends.append((warnings, made(run)))
        except ZeroDivisionError as error:
            ends.append(str(error))
    assert ends[0] == ends[1]
    assert "view 3 is torn" in str(ends[0][0] if torn else ends[0])


@pytest.mark.parametrize("tracker", [MastsamConfig(), MastsamConfig(init_every=3), ByoclConfig()])
def test_a_tracker_that_needs_order_gives_the_same_behind_workers(scan, tmp_path, tracker):
    results = []
    for number, workers in enumerate((None, TWO)):
        config = LiftConfig(scan, tmp_path / f"{number}", tracking=tracker)
        results.append(made(lift(config, workers=workers)))
    assert results[0] == results[1]


def test_a_segmenter_that_cannot_be_sent_works_in_this_process(scan, alone, tmp_path):
    class Local(StandInConfig):
        """Its class is in no module."""

    settings, shown = Local(tmp_path / "log"), Lines()
    run = lift(LiftConfig(scan, tmp_path / "out", segmentation=settings), None, shown, (), TWO)
    assert made(run) == alone
    assert processes(settings.log) == {os.getpid()}
    assert any("cannot be sent to another process" in line for line in shown.lines)


def test_a_path_with_the_name_of_a_script_can_be_sent(monkeypatch):
    assert sendable(Path("/usr/lib/python3/pytest/__main__.py"), "a path")
    own = type("Own", (), {"__module__": "__main__"})
    monkeypatch.setattr(sys.modules["__main__"], "Own", own, raising=False)
    with pytest.raises(CannotSend, match="into a module"):
        sendable(own(), "it")


def test_packed_masks_are_the_same_masks():
    rng = np.random.default_rng(0)
    masks = Masks(rng.random((7, 20, 30)) < 0.4, rng.random(7, np.float32))
    masks.stack[3] = False
    sent = pickle.loads(pickle.dumps(PackedMasks.of(masks)))
    assert len(sent) == 7
    ids = np.array([2, 3, 5, 8, 13, 21, 34], np.int32)
    for numbers in (ids, ids[::-1].copy()):
        ours, own = MaskSet.of(sent, numbers), MaskSet.of(masks, numbers)
        for name in ("region", "start", "mask", "ids", "scores"):
            assert np.array_equal(getattr(ours, name), getattr(own, name))
    assert np.array_equal(sent.stack, masks.stack)
    assert np.array_equal(sent.scores, masks.scores)


@pytest.fixture(scope="module")
def pool():
    lines = []
    pool = Pool(LocalCrew(Share(1.0), 2), 2, lines.append)
    yield pool
    pool.close()


def late_first(built, number):
    time.sleep(0.05 if number % 5 == 0 else 0)
    return number, os.getpid()


def test_results_come_in_order_whoever_is_first(pool):
    names = [str(number) for number in range(40)]
    found = list(pool.over(late_first, os.getpid, range(40), names))
    assert [number for number, _ in found] == list(range(40))
    assert len({process for _, process in found}) == 2


def with_built(built, number):
    return built, numba.get_num_threads(), os.environ["OPENBLAS_NUM_THREADS"]


def test_each_worker_builds_once_and_keeps_to_its_cores(pool):
    names = [str(number) for number in range(20)]
    build = partial(os.urandom, 8)
    first = list(pool.over(with_built, build, range(20), names))
    second = list(pool.over(with_built, build, range(20), names))
    assert len({built for built, _, _ in first + second}) == 2
    assert {(threads, blas) for _, threads, blas in first} == {(1, "1")}


def visible(built, number):
    time.sleep(0.1)
    return os.environ["CUDA_VISIBLE_DEVICES"]


def test_each_worker_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    crew = LocalCrew(Share(1.0, 1.0), 2)
    pool = Pool(crew, 2, print)
    try:
        seen = set(pool.over(visible, os.getpid, range(8), list("01234567")))
    finally:
        pool.close()
    assert seen == {"2", "5"}


@pytest.mark.parametrize(
    ("scans", "nodes", "expected"),
    [(1, [8], 8), (3, [8], 2), (3, [4, 4], 2), (9, [8], 1), (1, [4, 4], 4), (5, [], None)],
)
def test_scans_fewer_than_gpus_share_them_out(scans, nodes, expected):
    there = [{"CPUs": 32.0, "GPUs": float(each), "GB": 64.0} for each in nodes]
    share = share_of(Workers(), True, scans, there or [{"CPUs": 2.0, "GPUs": 0.0, "GB": 8.0}])
    assert share.gpus == expected
    assert share.cores == (expected or 1)


def test_numbers_of_workers_that_make_no_sense_are_refused(scan, tmp_path):
    with pytest.raises(InputError, match="workers is 0"):
        lift(LiftConfig(scan, tmp_path / "out"), workers=ViewWorkers(0))


SCRIPT = """
import sys
from pathlib import Path
from lift3d.run.lift import lift
from lift3d.run.settings import LiftConfig
from lift3d.scene.progress import Lines
from lift3d.scene.workers.views import ViewWorkers
from standin import StandInConfig
scan, out, log, address = sys.argv[1:]
settings = StandInConfig(Path(log), dies="2", times=1)
config = LiftConfig(Path(scan), Path(out), segmentation=settings)
lift(config, None, Lines(), workers=ViewWorkers(None, address))
"""


@pytest.mark.slow
def test_two_nodes_of_a_ray_cluster_share_the_views(two_nodes, scan, alone, tmp_path):
    address, own = two_nodes
    places = [scan, tmp_path / "out", tmp_path / "log"]
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, places), address],
        capture_output=True,
        text=True,
        env=os.environ | own,
        timeout=180,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert made(Run(tmp_path / "out")) == alone
    assert done(tmp_path / "log") == {str(view): 1 + (view == 2) for view in range(VIEWS)}
    assert os.getpid() not in processes(tmp_path / "log")
    assert "view 2: its worker died, attempt 1" in ended.stderr


def test_workers_end_with_the_process_that_started_them(tmp_path):
    """Also when it is killed, so that nothing is left behind."""
    code = (
        "import os, signal, time\n"
        "from lift3d.scene.workers.crew import Share, Staff\n"
        "from lift3d.scene.workers.local import LocalCrew\n"
        "crew = LocalCrew(Share(1.0), 2)\n"
        "staff = Staff(crew, 2, print)\n"
        "staff.grow(2)\n"
        "while len(staff.hands) < 2: staff.events(1.0)\n"
        "print(*(each.pid for each in crew._processes.values()), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    pids = [int(each) for each in found.stdout.split()]
    assert len(pids) == 2, found.stderr
    patience = time.monotonic() + 20
    while any(map(alive, pids)) and time.monotonic() < patience:
        time.sleep(0.05)
    assert not any(map(alive, pids))


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
