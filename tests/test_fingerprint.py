"""Fingerprints depend on content, settings and code, and on nothing else."""

import os
import shutil
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from lift3d.reconstruction.fusion.voxel import VoxelConfig
from lift3d.run import finishing
from lift3d.run import lift as lifting
from lift3d.scene import Camera, Scene, View, contents, sources
from lift3d.scene import parsed as parsing
from lift3d.scene.contents import content, remembered
from lift3d.scene.fingerprint import (
    NAMES_A_FILE,
    classes_in,
    fingerprint,
    pictures,
    scene_fingerprint,
)
from lift3d.scene.sources import code_of, modules_of

ROOT = Path(__file__).resolve().parents[1]


def old(path, seconds=100.0):
    """Let the file's content seem settled; its inode's date stays now."""
    when = time.time() - seconds
    os.utime(path, (when, when))


# Files.


def test_a_path_counts_by_its_content_however_it_is_spelled(tmp_path, monkeypatch):
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan/1.png").write_bytes(b"picture")
    (tmp_path / "link").symlink_to(tmp_path / "scan")
    shutil.copytree(tmp_path / "scan", tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    for inside in ("", "/1.png"):
        spelled = [
            f"scan{inside}",
            f"./link{inside}",
            f"elsewhere{inside}",
            f"{tmp_path}/scan{inside}",
        ]
        assert len({fingerprint(Path(each)) for each in spelled}) == 1
    assert fingerprint(Path("scan")) != fingerprint(Path("scan/1.png"))


def test_a_file_written_over_in_place_is_noticed_at_any_depth(tmp_path):
    """Also with the same size and the old date, which some programs set back."""
    file = tmp_path / "masks/view/1.png"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"one")
    when = file.stat().st_mtime_ns
    seen = {fingerprint(tmp_path)}
    file.write_bytes(b"two")
    os.utime(file, ns=(when, when))
    seen.add(fingerprint(tmp_path))
    file.rename(file.with_name("2.png"))
    seen.add(fingerprint(tmp_path))
    assert len(seen) == 3


def test_what_a_file_browser_leaves_in_a_folder_does_not_count(tmp_path):
    (tmp_path / "1.png").write_bytes(b"one")
    before = fingerprint(tmp_path)
    for name in (".DS_Store", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"browser")
    assert fingerprint(tmp_path) == before


def test_links_in_a_circle_and_to_nowhere_and_pipes_end(tmp_path):
    (tmp_path / "circle").symlink_to(tmp_path)
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    assert fingerprint(tmp_path) == fingerprint(tmp_path)


def test_known_files_are_not_read_again_and_changed_ones_are(tmp_path, monkeypatch):
    scan, notes = tmp_path / "scan", tmp_path / "contents"
    scan.mkdir()
    for name in "abc":
        (scan / name).write_text(name)
    monkeypatch.setattr(contents, "SETTLED", -1)
    read, whole = [], contents._block

    def counted(where):
        read.append(Path(where[0]).name)
        return whole(where)

    monkeypatch.setattr(contents, "_block", counted)
    with remembered(notes):
        before = content(scan)
    assert sorted(read) == ["a", "b", "c"]
    read.clear()
    with remembered(notes):
        assert content(scan) == before
    assert read == []
    when = (scan / "b").stat().st_mtime_ns
    (scan / "b").write_text("B")
    os.utime(scan / "b", ns=(when, when))
    with remembered(notes):
        assert content(scan) != before
    assert read == ["b"]


def test_files_that_changed_a_moment_ago_are_not_remembered(tmp_path):
    """A second change within the tick of the file system's clock would go unseen."""
    (tmp_path / "new").write_text("new")
    with remembered(tmp_path / "contents"):
        content(tmp_path / "new")
        assert not contents._known


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_a_damaged_list_of_known_files_is_ignored(tmp_path, text):
    (tmp_path / "file").write_text("content")
    (tmp_path / "contents").write_text(text)
    before = content(tmp_path / "file")
    with remembered(tmp_path / "contents"):
        assert content(tmp_path / "file") == before


def test_a_large_file_is_hashed_in_blocks_and_each_of_them_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "BLOCK", 4)
    file = tmp_path / "large.sens"
    seen = set()
    for data in (b"0123456789", b"0123456780", b"1123456789", b"01234567", b"", b"0"):
        file.write_bytes(data)
        seen |= set(content(file))
    assert len(seen) == 6


# Settings.


@dataclass(frozen=True)
class Network:
    weights: str = field(default="none", metadata=NAMES_A_FILE)
    mode: str = "none"


def test_a_setting_that_names_weights_counts_by_their_content(tmp_path, monkeypatch):
    """Whatever its type; other texts do not, even where a file is called so."""
    monkeypatch.chdir(tmp_path)
    seen = {fingerprint(Network("sam"))}
    for config in ("one", "two"):
        Path("sam").mkdir(exist_ok=True)
        Path("sam/config.json").write_text(config)
        seen.add(fingerprint(Network("sam")))
    assert len(seen) == 3
    before = fingerprint(Network(mode="auto"))
    Path("auto").write_text("a file")
    assert fingerprint(Network(mode="auto")) == before


def test_a_text_that_names_a_file_counts_by_its_content(tmp_path, monkeypatch):
    """As plug-ins have them, in settings and in loaders."""
    monkeypatch.chdir(tmp_path)
    Path("made").mkdir()
    seen = set()
    for weights in ("one", "two"):
        Path("made/model.pt").write_text(weights)
        seen.add(fingerprint(Network(mode="made/model.pt")))
        seen.add(fingerprint(partial(os.fspath, f"{tmp_path}/made/model.pt")))
    assert len(seen) == 4
    assert fingerprint(Network(mode="made/none.pt")) != fingerprint(Network(mode="made/no.pt"))
    assert fingerprint("\ud800/x")


def test_settings_that_name_weights_are_marked():
    from lift3d import reconstruction, segmentation
    from lift3d.segmentation import matching

    configs = [
        *(reconstruction.BACKENDS["mast3r"], matching.BACKENDS["mast3r"]),
        segmentation.BACKENDS["sam-hf"],
    ]
    for config in configs:
        fields = config.__dataclass_fields__
        name = "weights" if "weights" in fields else "checkpoint"
        assert fields[name].metadata == NAMES_A_FILE


# Scenes.


def view(load, name="0"):
    return View(name, Camera(np.eye(3), 4, 3), load)


def scene(load):
    return Scene("made", (view(load),), metric=True, source="a notebook")


def held(array):
    return array


class Frames:
    def __init__(self, array):
        self.array = array

    def load(self):
        return self.array


@pytest.mark.parametrize(
    "loader",
    [
        lambda array: lambda: array,
        lambda array: Frames(array).load,
        lambda array: partial(held, array),
        lambda array: partial(Frames.load, Frames(array)),
        lambda array: partial(lambda given: given, array),
    ],
    ids=["lambda", "bound method", "partial", "partial of a method", "partial of a lambda"],
)
def test_a_scene_made_of_arrays_counts_by_them(loader):
    one, other = np.zeros((3, 4, 3), np.uint8), np.ones((3, 4, 3), np.uint8)
    assert scene_fingerprint(scene(loader(one))) == scene_fingerprint(scene(loader(one.copy())))
    assert scene_fingerprint(scene(loader(one))) != scene_fingerprint(scene(loader(other)))
    assert pictures([view(loader(one))]) != pictures([view(loader(other))])


def test_a_loader_of_a_module_is_not_called(tmp_path):
    load = partial(np.load, tmp_path / "picture.npy")
    assert scene_fingerprint(scene(load)) == scene_fingerprint(scene(load))
    np.save(tmp_path / "picture.npy", np.zeros((3, 4, 3), np.uint8))
    assert scene_fingerprint(scene(load)) != scene_fingerprint(
        scene(partial(np.load, tmp_path / "other.npy"))
    )


def test_arrays_of_objects_are_refused():
    with pytest.raises(TypeError, match="array of objects"):
        fingerprint(np.array([object()]))


# Code.


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose function uses another module, and a third that it does not use."""
    folder = tmp_path / "packed"
    folder.mkdir()
    files = {
        "__init__": "from packed.fusing import fuse\nfrom packed.viewing import show",
        "fusing": "from packed.kernels import add\n\ndef fuse(a):\n    return add(a, 1)",
        "kernels": "def add(a, b):\n    return a + b",
        "viewing": "def show(a):\n    print(a)",
        "stage": """
            from packed import fuse, show

            def first(a: "Kind"):
                return helped(a)

            def helped(a):
                return fuse(a)

            def second(a):
                show(a)
        """,
    }
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield folder
    for name in [each for each in sys.modules if each.partition(".")[0] == "packed"]:
        del sys.modules[name]
    forget()


def forget():
    for each in (
        *(sources._source, sources._file, sources._code, sources._installed, sources._beside),
        parsing._kept,
    ):
        each.cache_clear()


def codes():
    forget()
    stage = import_module("packed.stage")
    return code_of(stage.first), code_of(stage.second)


@pytest.mark.parametrize(
    ("module", "old", "new", "first", "second"),
    [
        ("kernels", "a + b", "a - b", True, False),
        ("fusing", "add(a, 1)", "add(a, 2)", True, False),
        ("viewing", "print(a)", "print(a, a)", False, True),
        ("stage", "return fuse(a)", "return fuse(a + 1)", True, False),
        ("stage", "show(a)", "show(a + a)", False, True),
        ("kernels", "def add", "'''New words.'''\n\n# and a comment\ndef add", False, False),
        ("kernels", "return a + b", "'''Adds.'''\n\n    return (a + b)", False, False),
    ],
)
def test_code_counts_where_it_is_used_and_comments_nowhere(
    package, module, old, new, first, second
):
    before = codes()
    file = package / f"{module}.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    after = codes()
    assert (before[0] != after[0], before[1] != after[1]) == (first, second)


def test_sources_that_were_parsed_before_are_not_parsed_again_and_give_the_same(
    package, monkeypatch
):
    before = codes()
    monkeypatch.setattr(parsing, "_parse", None)  # another process, with the same text
    assert codes() == before


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"packed.kernels": 1}'])
def test_a_damaged_list_of_parsed_sources_is_ignored(package, tmp_path, text):
    before = codes()
    kept = tmp_path / "cache/lift3d/sources.json"
    assert kept.stat().st_size > 100
    kept.write_text(text)
    assert codes() == before


def test_without_a_place_for_them_sources_are_parsed_each_time(package, tmp_path):
    (tmp_path / "cache").write_text("a file, where a folder is wanted")
    assert codes() == codes()


def test_two_functions_that_import_other_things_by_one_name_depend_on_both(package):
    (package / "stage.py").write_text(
        textwrap.dedent("""
            def first(a):
                def shown():
                    from packed.viewing import show as use
                    use(a)

                def added():
                    from packed.kernels import add as use
                    use(a)

            second = first
        """)
    )
    before = codes()
    for module, old, new in (("kernels", "a + b", "a - b"), ("viewing", "(a)", "(a, a)")):
        file = package / f"{module}.py"
        file.write_text(file.read_text().replace(old, new))
        assert codes()[0] != before[0]
        before = codes()


def test_a_model_file_beside_the_code_counts(package):
    before = codes()
    (package / "learnt.npz").write_bytes(b"weights")
    assert codes()[0] != before[0]


def test_association_is_code_of_its_stage_and_of_no_earlier_one():
    earlier = modules_of(lifting._reconstruct, lifting._fuse, lifting._track, VoxelConfig)
    assert not [each for each in earlier if each.startswith("lift3d.association")]
    assert not [each for each in earlier if each.startswith("lift3d.run.report")]
    assert "lift3d.association.clusters" in modules_of(lifting._associate)
    assert "lift3d.reconstruction.fusion.kernels" in modules_of(VoxelConfig)
    assert "lift3d.association.shape.trees" in modules_of(lifting._associate)


def test_display_code_counts_for_no_stage():
    names = ("_reconstruct", "_stereo", "_fuse", "_track", "_associate")
    stages = [getattr(lifting, name) for name in names]
    used = modules_of(*stages, finishing._check, finishing._report)
    shows = {"cli", "commands", "summary", "progress", "viewing", "board", "batch", "exporting"}
    assert not used & {f"lift3d.{each}" for each in shows}


def test_modules_that_are_left_out_exist():
    for name in (*sources.CHOOSING, *sources.RECORDING):
        assert sources._file(name) is not None, f"{name} is no module any more"


def test_the_classes_of_all_settings_are_found():
    @dataclass(frozen=True)
    class Outer:
        inner: Network

    assert classes_in([1, {"a": 1}, (Outer(Network()),)]) == {Outer, Network}


def test_settings_that_differ_in_one_field_differ():
    assert fingerprint(VoxelConfig()) != fingerprint(replace(VoxelConfig(), voxel=0.5))


def test_the_code_is_the_same_in_another_process():
    line = "import lift3d.run.lift as l, lift3d.scene.sources as s; print(s.code_of(l._associate))"
    found = {
        subprocess.run(
            [sys.executable, "-c", line],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert found == {code_of(lifting._associate) + "\n"}
