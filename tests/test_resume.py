"""A run that was killed at any moment and started again equals an uninterrupted run."""

import random
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCENE = ["--scene.views", "5", "--scene.width", "80", "--scene.height", "60"]
LONG = ["--scene.views", "60", "--scene.width", "160", "--scene.height", "120"]
RESULTS = ["cloud.ply", "cloud_labels.ply", "instances.json", "consistency.json", "scene.json"]


def lift3d(*arguments, dying=()):
    program = ["tests/dying.py", *map(str, dying)] if dying else ["-m", "lift3d"]
    return subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that starts tests in the background has them ignore Ctrl-C, and so their children.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def run(*arguments, dying=()):
    process = lift3d(*arguments, dying=dying)
    _, messages = process.communicate(timeout=120)
    assert "Traceback" not in messages, messages
    return process.returncode, messages


def content(folder):
    """The bytes of all results of a run."""
    paths = [folder / name for name in RESULTS]
    paths += [*(folder / "labels").iterdir(), *(folder / "masks").iterdir()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(paths)}


def records(folder):
    return {path.name: path.read_bytes() for path in (folder / ".stages").glob("[!.]*.json")}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    status, messages = run("demo", "--out", folder, *SCENE)
    assert status == 0, messages
    found = content(folder)
    assert len(found) == len(RESULTS) + 10
    assert len(found["cloud.ply"]) > 10_000
    return folder, found


def test_the_same_seed_gives_the_same_bytes(uninterrupted, tmp_path):
    assert run("demo", "--out", tmp_path / "run", *SCENE)[0] == 0
    assert content(tmp_path / "run") == uninterrupted[1]


def test_a_run_killed_many_times_ends_the_same_and_repeats_no_finished_stage(
    uninterrupted, tmp_path
):
    folder, kept, deaths = tmp_path / "run", {}, 0
    for number in (1, 2, 3, 4, 6, 8, 9, 11, 14, 20, 10_000):
        moment = ("before", "after")[deaths % 2]
        status, messages = run("demo", "--out", folder, *SCENE, dying=(moment, number))
        now = records(folder)
        assert kept.items() <= now.items(), "a finished stage was done again"
        kept = now
        if status == 0:
            break
        assert status == -signal.SIGKILL, messages
        deaths += 1
    assert status == 0
    assert deaths >= 7
    assert content(folder) == uninterrupted[1]
    hidden = [path.name for path in folder.iterdir() if ".part" in path.name]
    assert not hidden, "unfinished files of a killed run are still there"


@pytest.mark.parametrize("seed", range(3))
def test_a_run_killed_at_a_random_moment_ends_the_same(uninterrupted, tmp_path, seed):
    folder = tmp_path / "run"
    process = lift3d("demo", "--out", folder, *SCENE)
    time.sleep(random.Random(seed).uniform(0.8, 3.0))
    process.kill()
    process.communicate()
    assert run("demo", "--out", folder, *SCENE)[0] == 0
    assert content(folder) == uninterrupted[1]


def test_a_finished_run_is_not_repeated(uninterrupted):
    folder, found = uninterrupted
    before = records(folder)
    status, messages = run("demo", "--out", folder, *SCENE)
    assert status == 0
    assert messages.count(", kept") == len(before)
    assert records(folder) == before
    assert content(folder) == found


def test_an_interrupted_run_explains_how_to_continue(tmp_path):
    folder = tmp_path / "run"
    process = lift3d("demo", "--out", folder, *LONG)
    patience = time.monotonic() + 60
    while not (folder / ".stages/reconstruct.json").exists() and time.monotonic() < patience:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130, messages
    assert "the same command again" in messages
    assert "Traceback" not in messages
    assert (folder / ".stages/reconstruct.json").exists()


def test_a_full_disk_is_reported_and_finished_stages_are_kept(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    largest = (uninterrupted[0] / "points.npz").stat().st_size // 2
    status, messages = run("demo", "--out", folder, *SCENE, dying=("largest", largest))
    assert status == 1
    assert "finished stages are kept" in messages
    kept = records(folder)
    assert list(kept) == ["reconstruct.json"]
    assert run("demo", "--out", folder, *SCENE)[0] == 0
    assert kept.items() <= records(folder).items()
    assert content(folder) == uninterrupted[1]


def test_a_disk_that_fills_late_keeps_all_but_the_last_stage(uninterrupted, tmp_path):
    """On a small file system, where the machine allows to mount one."""
    folder, small = uninterrupted[0], tmp_path / "small"
    small.mkdir()
    points = (folder / "points.npz").stat().st_size
    room = (points + (folder / "cloud.ply").stat().st_size) // 1024
    mount = shutil.which("mount")
    made = mount and subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={room}k", "lift3d-test", str(small)],
        capture_output=True,
        check=False,
    )
    if not made or made.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        status, messages = run("demo", "--out", small / "run", *SCENE)
        assert status == 1
        assert "No space left" in messages or "full" in messages
        kept = records(small / "run")
        assert {"reconstruct.json", "fuse.json", "track.json"} <= kept.keys()
        remount = [mount, "-o", "remount,size=64m", str(small)]
        subprocess.run(remount, check=True)
        assert run("demo", "--out", small / "run", *SCENE)[0] == 0
        assert kept.items() <= records(small / "run").items()
        assert content(small / "run") == uninterrupted[1]
    finally:
        subprocess.run(["umount", str(small)], check=True)
