"""Files and folders are complete or absent, and earlier versions are not lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lift3d.scene import storage
from lift3d.scene.storage import atomic, fresh_folder, replace_folder, staged_folder, tidy

ENDED = subprocess.run(
    [sys.executable, "-c", "import os; print(os.getpid())"],
    capture_output=True,
    text=True,
    check=True,
).stdout.strip()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_synced_before_it_is_renamed(tmp_path, monkeypatch):
    happened = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(
        os,
        "fsync",
        lambda handle: (happened.append(os.readlink(f"/proc/self/fd/{handle}")), sync(handle)),
    )
    monkeypatch.setattr(
        os, "replace", lambda a, b: (happened.append(f"named {Path(b).name}"), rename(a, b))
    )
    with atomic(tmp_path / "a.json") as part:
        part.write_text("{}")
    assert happened == [str(part), "named a.json", str(tmp_path)]


def test_a_folder_is_synced_at_once_before_it_is_renamed(tmp_path, monkeypatch):
    """Not file by file as they are written: each would wait for the disk alone."""
    happened = []
    sync, rename = storage._sync, os.replace
    monkeypatch.setattr(storage, "_sync", lambda path: (happened.append(path.name), sync(path)))
    monkeypatch.setattr(
        os, "replace", lambda a, b: (happened.append(f"named {Path(b).name}"), rename(a, b))
    )
    with fresh_folder(tmp_path / "labels") as part:
        for name in ("1.png", "2.png"):
            with atomic(part / name) as file:
                file.write_text(name)
    assert happened[:2] == ["named 1.png", "named 2.png"]
    assert sorted(happened[2:5]) == sorted(["1.png", "2.png", part.name])
    assert happened[5:] == ["named labels", tmp_path.name]


def test_two_processes_do_not_write_to_one_temporary_name(tmp_path):
    line = (
        "import sys; from pathlib import Path; from lift3d.scene.storage import atomic\n"
        "with atomic(Path(sys.argv[1]) / 'a.json') as part: print(part.name); part.write_text('')"
    )
    code = [sys.executable, "-c", line, str(tmp_path)]
    other = subprocess.run(code, capture_output=True, text=True, check=True).stdout.strip()
    with atomic(tmp_path / "a.json") as part:
        part.write_text("")
    assert part.name != other
    assert part.suffix == ".json"


@pytest.mark.parametrize("step", [1, 2])
def test_a_process_killed_while_it_replaces_a_folder_loses_neither(tmp_path, monkeypatch, step):
    folder = tmp_path / "labels"
    with fresh_folder(folder) as part:
        (part / "old").write_text("old")
    done, rename = [], os.replace

    class Killed(BaseException):
        pass

    def dies(source, target):
        if len(done) == step:
            os._exit(9)
        done.append(target)
        rename(source, target)

    child = os.fork()
    if child == 0:
        os.replace = dies
        with fresh_folder(folder) as part:
            (part / "new").write_text("new")
            rename(part / "new", part / "new")
        os._exit(9)
    os.waitpid(child, 0)
    tidy(tmp_path)
    assert names(tmp_path) == ["labels"]
    assert names(folder) in (["old"], ["new"])
    assert names(folder) == (["old"] if step == 1 else ["new"])


def test_files_of_killed_processes_are_removed_and_those_of_living_ones_stay(tmp_path):
    machine = storage._machine()
    left = [f".a.{ENDED}-{machine}.part.json", f".masks.{ENDED}-{machine}.part"]
    (tmp_path / left[0]).write_text("half")
    (tmp_path / left[1]).mkdir()
    living = f".b.{os.getppid()}-{machine}.part.json"
    elsewhere = ".c.1-00000000.part.json"
    for name in (living, elsewhere, ".hidden.json"):
        (tmp_path / name).write_text("half")
    tidy(tmp_path)
    assert names(tmp_path) == sorted([living, elsewhere, ".hidden.json"])


def test_a_folder_that_cannot_be_named_leaves_the_old_one(tmp_path, monkeypatch):
    with fresh_folder(tmp_path / "labels") as part:
        (part / "old").write_text("old")
    with staged_folder(tmp_path / "labels") as part:
        pass
    with pytest.raises(FileNotFoundError):
        replace_folder(part, tmp_path / "labels")
    assert names(tmp_path / "labels") == ["old"]
    assert names(tmp_path) == ["labels"]


def test_two_threads_may_write_one_file(tmp_path):
    with atomic(tmp_path / "a.json") as one, atomic(tmp_path / "a.json") as other:
        one.write_text("one")
        other.write_text("other")
    assert names(tmp_path) == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "one"
