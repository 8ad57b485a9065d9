"""Many scans: none lost, none lifted twice, a broken one quarantined, workers killed."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from tiny_scan import tiny_scan, write_scannet

from lift3d import segmentation
from lift3d.cli.commands import Batch
from lift3d.run.batch import Job, _running, batch, planned, uses_network
from lift3d.run.batch.board import STAGES, BarBoard, LineBoard
from lift3d.run.batch.overview import Row, means
from lift3d.run.batch.workers import Workers, run_all
from lift3d.run.settings import LiftConfig
from lift3d.scene.errors import InputError, MissingExtra

ROOT = Path(__file__).resolve().parents[1]
BROKEN, KILLED = "scan3", "scan5"
NAMES = [f"scan{number}" for number in range(8)]


class Recorder(LineBoard):
    """A board that keeps its lines and the names of running scans."""

    def __init__(self):
        super().__init__()
        self.lines, self.seen = [], set()

    def say(self, line):
        self.lines.append(line)

    def pulse(self):
        self.seen |= {name for name, _ in self.running()}


def write_scans(root, names=NAMES):
    paths = []
    for number, name in enumerate(names):
        write_scannet(root / name, tiny_scan(nearer=0.05 * number))
        if name == BROKEN:
            for pose in (root / name / "pose").iterdir():
                pose.write_text("nan")
        paths.append(root / name)
    return paths


def kept(folder):
    """Stage records of every run, byte by byte."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.glob("*/.stages/*.json")}


def kill_the_worker_of(out, name, killed):
    """Kill it as soon as its first stage is finished."""
    marker, record = out / f".batch/{name}.json", out / f"{name}/.stages/reconstruct.json"
    patience = time.monotonic() + 120
    while time.monotonic() < patience:
        if record.exists() and marker.exists():
            killed["record"] = record.read_bytes()
            os.kill(json.loads(marker.read_text())["pid"], signal.SIGKILL)
            return
        time.sleep(0.005)


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """Eight scans, one of them broken; the worker of another is killed."""
    folder = tmp_path_factory.mktemp("batch")
    scans, out, killed = write_scans(folder / "scans"), folder / "out", {}
    killer = threading.Thread(target=kill_the_worker_of, args=(out, KILLED, killed))
    killer.start()
    board = Recorder()
    rows = batch(scans, LiftConfig(Path(), out), board=board, command=["lift3d", "batch"])
    killer.join()
    return scans, out, rows, board, killed


def test_seven_scans_are_lifted_and_one_is_quarantined(eight):
    _, out, rows, _, _ = eight
    assert [row.scan for row in rows] == NAMES
    assert {row.scan: row.state for row in rows} == {
        name: "quarantined" if name == BROKEN else "done" for name in NAMES
    }
    for row in rows:
        assert (out / row.scan / "report.html").exists() == (row.state == "done")
        if row.state == "done":
            assert (row.views, row.objects) == (4, 2)
            assert row.H > 0.9
    (entry,) = json.loads((out / "quarantine.json").read_text())
    assert entry["scan"] == BROKEN
    assert "frames cannot be used" in entry["error"]
    assert entry["folder"] == str(out / BROKEN)


def test_a_killed_worker_costs_one_attempt_and_no_finished_stage(eight):
    _, out, rows, board, killed = eight
    assert killed, "no worker was killed"
    assert (out / KILLED / ".stages/reconstruct.json").read_bytes() == killed["record"]
    for row in rows:
        assert row.attempts == (2 if row.scan == KILLED else 1)
        assert row.reused == 0 if row.scan != KILLED else row.reused >= 1
    assert any(f"{KILLED}: its worker died, attempt 1" in line for line in board.lines)


def test_the_board_shows_running_and_finished_scans(eight):
    _, out, _, board, _ = eight
    assert board.done == 8
    assert len(board.seen) > 1
    assert not list((out / ".batch").glob("*.json"))


def test_the_page_needs_no_other_file_and_links_to_every_report(eight):
    _, out, rows, _, _ = eight
    page = (out / "batch.html").read_text()
    assert not re.search(r"(src|href)=\"(https?:)?//|<script", page)
    links = re.findall(r'href="([^"]+)"', page)
    assert links == [f"{row.scan}/report.html" for row in rows if row.state == "done"]
    assert all((out / link).is_file() for link in links)
    assert "frames cannot be used" in page
    table = json.loads((out / "batch.json").read_text())
    assert table["states"] == {"done": 7, "quarantined": 1}
    assert table["mean"]["H"] == pytest.approx(np.mean([r.H for r in rows if r.H is not None]))
    assert table["mean"]["ap_scans"] == 0


def test_the_same_batch_again_lifts_nothing_but_a_repaired_scan(eight):
    scans, out, first, _, _ = eight
    before, board = kept(out), Recorder()
    rows = batch(scans, LiftConfig(Path(), out), board=board)
    assert kept(out) == before
    assert [row.reused for row in rows if row.state == "done"] == [len(STAGES)] * 7
    assert [row.seconds for row in rows] == [row.seconds for row in first]
    assert [row.state for row in rows] == [row.state for row in first]
    assert any(f"{BROKEN}: skipped: it failed before" in line for line in board.lines)

    write_scannet(scans[3], tiny_scan(nearer=0.15))
    rows = batch(scans, LiftConfig(Path(), out), board=board)
    assert [row.state for row in rows] == ["done"] * 8
    assert rows[3].reused == 0
    assert before.items() <= kept(out).items()
    assert json.loads((out / "quarantine.json").read_text()) == []


def test_every_task_ends_once_whether_it_fails_or_dies():
    tasks = {
        "good": partial(time.sleep, 0),
        "dies": partial(os._exit, 1),
        "wrong": partial(int, "x"),
        "no file": partial(os.stat, "/nowhere/at/all"),
        "large": partial(bytearray, 2**62),
        "good too": partial(time.sleep, 0),
    }
    lines = []
    found = list(run_all(tasks, Workers(retries=1), say=lines.append))
    assert sorted(name for name, _ in found) == sorted(tasks)
    ends = dict(found)
    assert {name: each.state for name, each in ends.items()} == {
        "good": "done",
        "dies": "crash",
        "wrong": "mistake",
        "no file": "system",
        "large": "memory",
        "good too": "done",
    }
    assert (ends["dies"].attempts, ends["good"].attempts) == (2, 1)
    assert "exit status 1" in ends["dies"].error
    assert "ValueError" in ends["wrong"].error
    assert len(lines) == 1


def test_needs_that_no_node_can_meet_are_refused_at_once():
    for workers in (Workers(gpus=64.0), Workers(cpus=1e4), Workers(memory=1e6)):
        with pytest.raises(InputError, match="no node has that"):
            list(run_all({}, workers))
    for wrong in (Workers(jobs=0), Workers(retries=-1)):
        with pytest.raises(InputError, match="expected"):
            list(run_all({}, wrong))


def test_a_folder_in_use_is_not_the_scans_fault(tmp_path):
    from lift3d.run.stages import alone_in, open_run

    scans = write_scans(tmp_path / "scans", ["a"])
    with alone_in(open_run(tmp_path / "out/a")):
        (row,) = batch(scans, LiftConfig(Path(), tmp_path / "out"), board=Recorder())
    assert row.state == "failed"
    assert "another lift3d" in row.error
    assert not json.loads((tmp_path / "out/quarantine.json").read_text())


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"lift3d\[batch\]"):
        list(run_all({}, Workers(address="auto")))


def test_scan_and_mesh_stand_for_each_scans_own(tmp_path):
    scans = write_scans(tmp_path, ["one", "two"])
    folder = segmentation.BACKENDS["folder"](path=Path("masks/{scan}"))
    settings = LiftConfig(Path(), tmp_path / "out", cloud=Path("mesh"), segmentation=folder)
    first, second = planned(scans, settings)
    assert first.config.segmentation.path == Path("masks/one")
    assert second.config.cloud == tmp_path / "two/two_vh_clean_2.ply"
    assert second.config.out == tmp_path / "out/two"
    assert second.config.input == tmp_path / "two"


def test_settings_of_the_batch_are_in_no_run(tmp_path):
    """Otherwise a run's report would be written again whenever the list of scans changes."""
    made = Batch(scans=(Path("synthetic:1"),), out=tmp_path / "out", jobs=3, voxel=0.1)
    (job,) = planned(made.scans, made)
    assert type(job.config) is LiftConfig
    assert job.config.voxel == 0.1


def test_two_scans_of_one_name_are_refused(tmp_path):
    settings = LiftConfig(Path(), tmp_path / "out")
    with pytest.raises(InputError, match="both be lifted into"):
        planned([tmp_path / "a/scan", tmp_path / "b/scan"], settings)
    with pytest.raises(InputError, match="no scans"):
        planned([], settings)
    for taken in ("batch.html", "batch.json", "Quarantine.json", ".batch", "/"):
        with pytest.raises(InputError, match="rename the scan"):
            planned([tmp_path / taken], settings)


def test_the_folder_of_a_run_is_refused_for_a_batch(tmp_path):
    (tmp_path / "run/.stages").mkdir(parents=True)
    with pytest.raises(InputError, match="choose another --out"):
        batch([Path("synthetic:1")], LiftConfig(Path(), tmp_path / "run"))


def test_a_change_deep_in_a_scan_changes_its_state(tmp_path):
    (scan,) = write_scans(tmp_path, ["one"])
    (job,) = planned([scan], LiftConfig(Path(), tmp_path / "out"))
    before = job.state
    assert before == job.state
    (scan / "pose/0.txt").write_text("1 2 3")
    assert job.state != before
    assert replace(job, config=replace(job.config, voxel=0.1)).state != job.state


def test_files_in_the_working_directory_change_no_scans_state(tmp_path, monkeypatch):
    """Otherwise quarantined scans would be tried again after every change there."""
    monkeypatch.chdir(tmp_path)
    (scan,) = write_scans(tmp_path / "scans", ["one"])
    (job,) = planned([scan], LiftConfig(Path(), tmp_path / "out"))
    before = job.state
    (tmp_path / "out").mkdir()
    (tmp_path / "unrelated").write_text("")
    assert job.state == before
    assert replace(job, config=replace(job.config, out=tmp_path)).state == before


def test_networks_use_a_gpu_and_plain_methods_do_not():
    plain = LiftConfig(Path(), Path())
    sam = segmentation.BACKENDS["sam-hf"]
    assert not uses_network(plain)
    assert uses_network(replace(plain, segmentation=sam(checkpoint="x")))
    assert not uses_network(replace(plain, segmentation=sam(checkpoint="x", device="cpu")))


def test_means_are_over_the_scans_that_have_the_number():
    rows = [
        Row("a", "", "", "done", ap=0.25, H=1.0),
        Row("b", "", "", "done", H=0.5),
        Row("c", "", "", "quarantined", ap=1.0),
    ]
    found = means(rows)
    assert (found["ap"], found["ap_scans"], found["H"], found["H_scans"]) == (0.25, 1, 0.75, 2)
    assert found["coverage"] is None


def test_bars_come_and_go_with_the_scans(capsys):
    board, running = BarBoard(), [("a", 2)]
    with board.shown(2, lambda: running):
        board.pulse()
        assert list(board.bars) == ["a"]
        running[:] = [("b", 6)]
        board.pulse()
        assert list(board.bars) == ["b"]
        board.ended(Row("a", "", "", "failed", "disk full"))
    assert "a: failed: disk full" in capsys.readouterr().err


def start(*arguments, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "lift3d", "batch", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0"} | environment,
        # A shell that starts tests in the background has them ignore Ctrl-C, and so their children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_ctrl_c_ends_the_workers_and_keeps_finished_stages(tmp_path):
    pytest.importorskip("ray")
    out = tmp_path / "out"
    process = start(*write_scans(tmp_path / "scans", NAMES[:3]), "--out", out)
    patience = time.monotonic() + 60
    while not any(out.glob("*/.stages/reconstruct.json")) and time.monotonic() < patience:
        time.sleep(0.05)
    pids = [json.loads(path.read_text())["pid"] for path in (out / ".batch").glob("[!.]*.json")]
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert "same command again" in output
    assert "Traceback" not in output
    assert pids
    assert not any(map(alive, pids))
    assert any(out.glob("*/.stages/reconstruct.json"))
    hidden = [path for path in out.rglob("*") if ".part" in path.name]
    assert not hidden, "a worker did not tidy up"
    assert json.loads((out / "batch.json").read_text())["states"]["not done"] >= 1


def listening(pid):
    """Whether a process has a socket that others can connect to, over TCP."""
    lines = [Path(f"/proc/net/{kind}").read_text().splitlines() for kind in ("tcp", "tcp6")]
    sockets = [line.split() for each in lines for line in each]
    waiting = {f"socket:[{each[9]}]" for each in sockets if each[3] == "0A"}
    handles = Path(f"/proc/{pid}/fd").iterdir()
    return any(os.readlink(each) in waiting for each in handles)


@pytest.mark.slow
def test_a_batch_opens_no_port_and_a_killed_one_leaves_nothing_behind(tmp_path):
    out = tmp_path / "out"
    process = start(*write_scans(tmp_path / "scans", NAMES[:2]), "--out", out)
    patience = time.monotonic() + 60
    while not list(out.glob(".batch/[!.]*.json")) and time.monotonic() < patience:
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    assert not any(map(listening, [process.pid, *children]))
    process.kill()
    process.communicate()
    patience = time.monotonic() + 20
    while any(map(alive, children)) and time.monotonic() < patience:
        time.sleep(0.05)
    assert not any(map(alive, children))


@pytest.mark.slow
def test_two_nodes_share_the_scans(two_nodes, tmp_path):
    address, own = two_nodes
    out = tmp_path / "out"
    scans = write_scans(tmp_path / "scans", ["a", "b", "c", "d"])
    process = start(*scans, "--out", out, "--address", address, **own)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    rows = json.loads((out / "batch.json").read_text())["scans"]
    assert {row["host"] for row in rows} == {"127.0.0.2", "127.0.0.3"}
    assert [row["state"] for row in rows] == ["done"] * 4


def test_an_address_without_a_cluster_gives_the_command_to_start_one(tmp_path):
    pytest.importorskip("ray")
    code = (
        "from lift3d.run.batch.workers import *\n"
        "try: list(run_all({}, Workers(address='nowhere')))\n"
        "except InputError as error: print('error:', error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "error: no Ray cluster at nowhere" in done.stdout, done.stderr


def test_a_stage_that_few_lifts_have_does_not_count_on_the_board(tmp_path):
    records = tmp_path / "run" / ".stages"
    records.mkdir(parents=True)
    for name in ("reconstruct", "stereo"):
        (records / f"{name}.json").write_text("{}")
    (tmp_path / "a.json").write_text("{}")
    job = Job("a", LiftConfig(Path("synthetic"), tmp_path / "run"))
    assert _running(tmp_path, {"a": job}) == [("a", 1)]
