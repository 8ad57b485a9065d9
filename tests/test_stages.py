"""Stages run once, again when their inputs have changed, and are never half finished."""

import contextlib
import dataclasses
import functools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lift3d.networks.sam.embeddings import EmbeddingConfig
from lift3d.run.stages import RunFolder, alone_in, open_run
from lift3d.scene.errors import InputError
from lift3d.scene.fingerprint import fingerprint
from lift3d.scene.storage import fresh_folder
from lift3d.segmentation.sam import SamConfig


class Stages:
    """Two stages, b after a, that each write their settings; records which ones ran."""

    def __init__(self, path):
        self.path = path
        self.ran = []

    def run(self, a="a", b="b", fail=()):
        folder = RunFolder(open_run(self.path))
        for name, settings, after in (("a", a, []), ("b", b, ["a"])):

            def work(name=name, settings=settings):
                self.ran.append(name)
                (self.path / name).write_text(settings)
                if name in fail:
                    raise OSError("no space left")
                return {"wrote": settings}

            reads = [self.path / each for each in after]
            folder.stage(name, settings, reads, [self.path / name], work)
        return {name: record.result["wrote"] for name, record in folder.records.items()}

    def new(self):
        ran, self.ran = self.ran, []
        return ran


@pytest.fixture
def stages(tmp_path):
    return Stages(tmp_path / "run")


def test_a_finished_stage_is_not_repeated_and_keeps_its_result(stages):
    assert stages.run() == {"a": "a", "b": "b"}
    assert stages.new() == ["a", "b"]
    assert stages.run() == {"a": "a", "b": "b"}
    assert stages.new() == []


def test_a_changed_setting_redoes_only_what_depends_on_it(stages):
    stages.run()
    stages.new()
    stages.run(b="other")
    assert stages.new() == ["b"]
    stages.run(a="other", b="other")
    assert stages.new() == ["a", "b"]


def test_a_stage_that_failed_runs_again_and_the_one_before_it_does_not(stages):
    with pytest.raises(OSError, match="no space"):
        stages.run(fail=("b",))
    assert stages.new() == ["a", "b"]
    stages.run()
    assert stages.new() == ["b"]


def test_a_finished_stage_that_failed_when_run_again_counts_as_unfinished(stages):
    """The record is removed before the outputs are changed, as they may be half new."""
    stages.run()
    with pytest.raises(OSError, match="no space"):
        stages.run(a="other", fail=("a",))
    stages.new()
    stages.run()
    assert stages.new() == ["a"]  # and b, untouched, still belongs to this a


def test_a_missing_output_is_written_again(stages):
    stages.run()
    stages.new()
    (stages.path / "a").unlink()
    stages.run()
    assert stages.new() == ["a"]


@pytest.mark.parametrize("text", ["", "{", '{"name": "a"}', "[]", "\udcff"])
def test_a_damaged_record_counts_as_none(stages, text):
    stages.run()
    stages.new()
    (stages.path / ".stages/a.json").write_text(text, errors="surrogateescape")
    stages.run()
    assert stages.new() == ["a"]


def test_records_have_time_and_memory(stages):
    stages.run()
    record = json.loads((stages.path / ".stages/b.json").read_text())
    assert record["seconds"] >= 0
    assert record["peak_memory_mb"] > 10


def test_a_fresh_folder_replaces_the_old_one_only_when_complete(tmp_path):
    folder = tmp_path / "masks"
    with fresh_folder(folder) as part:
        (part / "old").write_text("old")
    with contextlib.suppress(RuntimeError), fresh_folder(folder) as part:
        (part / "new").write_text("new")
        raise RuntimeError
    assert [path.name for path in folder.iterdir()] == ["old"]
    with fresh_folder(folder) as part:
        (part / "new").write_text("new")
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["masks"]


def test_a_fresh_folder_does_not_contain_files_of_a_killed_run(tmp_path):
    (tmp_path / ".masks.part").mkdir()
    (tmp_path / ".masks.part/half").write_text("half")
    with fresh_folder(tmp_path / "masks") as part:
        (part / "new").write_text("new")
    assert [path.name for path in (tmp_path / "masks").iterdir()] == ["new"]


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="no run of lift3d"):
        open_run(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        open_run(tmp_path / "thesis.tex")
    with pytest.raises(InputError, match=r"cannot write|is a file"):
        open_run(tmp_path / "thesis.tex" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_two_runs_do_not_write_to_one_folder(tmp_path):
    folder = open_run(tmp_path / "run")
    with alone_in(folder), pytest.raises(InputError, match="another lift3d"), alone_in(folder):
        pass
    with alone_in(folder):  # free again
        pass


@dataclass(frozen=True)
class One:
    a: object = 1


@dataclass(frozen=True)
class Two:
    a: object = 1


def test_different_values_have_different_fingerprints():
    values = [
        *(1, 1.0, True, "1", b"1", None, "", [], (), {}, [[]], [1, 2], ["1, 2"], [12]),
        *(["a", "b"], ["ab"], [["a"], "b"], ["a", ["b"]], {"a": 1}, {"a": 2}, {"b": 1}),
        *(np.zeros(4), np.zeros((2, 2)), np.zeros(4, np.float32), np.ones(4)),
        *(One(), Two(), One(2), One(Two()), Path("a"), Path("b"), "a"),
        *(functools.partial(int, 1), functools.partial(int, 2), functools.partial(float, 1)),
    ]
    assert len({fingerprint(value) for value in values}) == len(values)
    assert [fingerprint(value) for value in values] == [fingerprint(value) for value in values]


def test_the_fingerprint_of_a_path_has_the_content_of_the_file_or_folder(tmp_path):
    file = tmp_path / "file"
    seen = {fingerprint(file)}
    file.write_text("one")
    seen.add(fingerprint(file))
    file.write_text("three")
    seen.add(fingerprint(file))
    assert len(seen) == 3
    folder = {fingerprint(tmp_path)}
    file.write_text("something longer")
    folder.add(fingerprint(tmp_path))
    file.rename(tmp_path / "renamed")
    folder.add(fingerprint(tmp_path))
    (tmp_path / "another").write_text("")
    folder.add(fingerprint(tmp_path))
    assert len(folder) == 4


def test_the_content_of_a_cache_does_not_change_the_fingerprint(tmp_path):
    """Otherwise a finished stage would run again because it had filled its cache."""
    settings = SamConfig(
        checkpoint=tmp_path / "weights.pth", embeddings=EmbeddingConfig(folder=tmp_path / "kept")
    )
    before = fingerprint(settings)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/one.embedding").write_bytes(b"1")
    assert fingerprint(settings) == before
    assert fingerprint(dataclasses.replace(settings, batch=3)) != before


def test_a_value_that_cannot_be_hashed_is_refused():
    with pytest.raises(TypeError, match="object"):
        fingerprint([object()])


class Swapped:
    """A stage that writes a folder of two files, whole or not at all, as the real ones do."""

    def __init__(self, path):
        self.path = path
        self.file = path / "masks/one.txt"

    def run(self, settings="a", fail=""):
        folder = RunFolder(open_run(self.path))

        def work():
            if fail == "before":
                raise KeyboardInterrupt
            with fresh_folder(self.path / "masks") as part:
                for name in ("one", "two"):
                    (part / f"{name}.txt").write_text(settings)
            if fail == "after":
                raise KeyboardInterrupt
            return {}

        return folder.stage("track", settings, [], [self.path / "masks"], work).set_aside


@pytest.mark.parametrize("lost", ["a killed stage", "a removed record", "a damaged record"])
def test_edits_are_kept_where_the_record_of_their_stage_is_lost(tmp_path, lost):
    run = Swapped(tmp_path / "run")
    run.run()
    record = tmp_path / "run/.stages/track.json"
    if lost == "a killed stage":
        with pytest.raises(KeyboardInterrupt):
            run.run("b", fail="before")
    elif lost == "a removed record":
        record.unlink()
    else:
        record.write_text("{}")
    run.file.write_text("mine")
    assert run.run() == ("edited/masks",)
    assert (tmp_path / "run/edited/masks/one.txt").read_text() == "mine"
    assert run.file.read_text() == "a"


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_a_killed_stage_wrote_is_not_taken_for_an_edit(tmp_path, when):
    run = Swapped(tmp_path / "run")
    run.run()
    with pytest.raises(KeyboardInterrupt):
        run.run("b", fail=when)
    assert run.run("c") == ()
    assert not (tmp_path / "run/edited").exists()
    assert run.file.read_text() == "c"
