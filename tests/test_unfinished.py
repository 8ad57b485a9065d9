"""Only a finished run is scored, shown and exported; on a read-only disk it stays one."""

import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from tiny_export import lifted_run

from lift3d import cli
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.run import evaluating, record, stages
from lift3d.run.lift import lift
from lift3d.run.run import Run
from lift3d.run.settings import LiftConfig
from lift3d.run.stages import RunFolder
from lift3d.scene.errors import InputError
from lift3d.scene.storage import atomic
from lift3d.segmentation import BACKENDS

SCENE = SyntheticConfig(views=4, width=64, height=48)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return lifted_run(tmp_path_factory.mktemp("made"), views=4).parent


@pytest.fixture
def here(made, tmp_path):
    """A copy of the masks and the run; the folder of the run."""
    shutil.copytree(made, tmp_path / "here")
    return tmp_path / "here/run"


def again(folder, **changed):
    """Lift into the folder as it was made, or with changed settings."""
    masks = BACKENDS["folder"](path=folder.parent / "masks", ids="consistent")
    config = LiftConfig(Path("synthetic"), folder, voxel=0.08, segmentation=masks)
    return lift(dataclasses.replace(config, **changed), SCENE.read())


COMMANDS = [
    ("evaluate", "{run}", "--truth", "{run}/cloud.ply"),
    ("view", "{run}", "--screenshot", "{run}/picture.png"),
    ("export", "{run}", "--to", "npz"),
    ("why", "{run}", "0000", "9", "9"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_run_that_is_not_finished_is_refused(here, words, capsys):
    (here / "run.json").unlink()
    (here / ".stages/check.json").unlink()
    assert cli.main([each.format(run=here) for each in words]) == 2
    said = capsys.readouterr().err
    assert "a run that is not finished (finished stages: reconstruct, fuse" in said
    assert "same `lift3d lift` command again" in said
    assert not {"evaluation.json", "picture.png", "export"} & {each.name for each in here.iterdir()}


def test_info_says_how_far_a_run_has_come(here, capsys):
    (here / "run.json").unlink()
    assert cli.main(["info", str(here)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "not finished; finished stages: reconstruct, fuse, track" in said
    for path in (here / ".stages").glob("*.json"):
        path.unlink()
    assert cli.main(["info", str(here)]) == 0
    assert "finished stages: none" in capsys.readouterr().out


def test_a_run_is_unfinished_before_anything_of_it_changes(here, monkeypatch):
    """Also before edited outputs are moved away."""
    seen = []
    real = RunFolder._set_aside

    def watched(self, name, outputs):
        seen.append((self.path / "run.json").exists())
        return real(self, name, outputs)

    monkeypatch.setattr(RunFolder, "_set_aside", watched)
    again(here, epsilon=0.02)
    assert seen
    assert not any(seen)


def lifted_meanwhile(run):
    """As if a lift with other settings had ended since `run` was opened."""
    assert run.cloud
    stored = json.loads(run.files.record.read_text())
    stored["stages"][3]["key"] = "another"
    run.files.record.write_text(json.dumps(stored))


def test_a_run_that_was_lifted_again_meanwhile_is_not_scored(here):
    run = Run.open(here)
    lifted_meanwhile(run)
    with pytest.raises(InputError, match="lifted again while it was read"):
        run.evaluate(here / "cloud.ply")
    with pytest.raises(InputError, match="lifted again while it was read"):
        run.export("npz")
    assert not (here / "evaluation.json").exists()
    assert not (here / "export").exists()


@pytest.mark.parametrize("stages", [None, 3, [{}], ["key"]])
def test_a_damaged_record_is_an_error_in_words(here, stages):
    stored = json.loads((here / "run.json").read_text()) | {"stages": stages}
    (here / "run.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match="damaged"):
        Run.open(here).check_same()


def test_a_run_whose_lift_only_kept_everything_is_scored(here):
    run = Run.open(here)
    assert run.cloud
    again(here)
    assert run.evaluate(here / "cloud.ply")["scores"]


@pytest.fixture
def read_only(here, monkeypatch):
    """A folder of a run in which nothing can be written."""
    access, opened = os.access, os.open

    def cannot(path, mode, **more):
        return access(path, mode, **more) and not (
            mode & os.W_OK and Path(path).is_relative_to(here)
        )

    def refused(path, *rest, **more):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    def reading(path, flags, *rest, **more):
        writing = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writing and Path(os.fsdecode(path)).is_relative_to(here):
            refused(path)
        return opened(path, flags, *rest, **more)

    monkeypatch.setattr(os, "access", cannot)
    monkeypatch.setattr(os, "open", reading)
    for module in (evaluating, record, stages):
        monkeypatch.setattr(module, "atomic", refused)
    return here


def test_a_finished_run_on_a_read_only_disk_can_be_lifted_again(read_only, capsys):
    (read_only / ".masks.1-00000000.part").mkdir()  # of a killed process; cannot be removed
    assert all(each.reused for each in again(read_only).records.values())
    assert Run.open(read_only).record["views"] == 4


def test_a_run_on_a_read_only_disk_is_scored_and_says_that_scores_are_not_kept(read_only):
    found = Run.open(read_only).evaluate(read_only / "cloud.ply")
    assert found["scores"]
    assert "the scores are not kept: Read-only file system" in found["notes"][0]


def test_a_full_disk_is_no_reason_to_lose_scores_in_silence(here, monkeypatch):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(evaluating, "atomic", full)
    with pytest.raises(OSError, match="No space"):
        Run.open(here).evaluate(here / "cloud.ply")


def test_a_changed_setting_on_a_read_only_disk_is_an_error(read_only):
    with pytest.raises(OSError, match="Read-only"):
        again(read_only, epsilon=0.02)


def test_a_failed_write_of_a_first_record_is_an_error(here, monkeypatch):
    (here / "run.json").unlink()

    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(record, "atomic", full)
    with pytest.raises(OSError, match="No space"):
        again(here)
    monkeypatch.setattr(record, "atomic", atomic)
    again(here)
    assert Run.open(here)
