"""docs/backends.md: its examples are installed as a package, and a scan is lifted with them."""

import importlib
import json
import re
import tomllib
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lift3d import cli
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.export.content import Content
from lift3d.scene.registry import KINDS

PAGE = (Path(__file__).resolve().parents[1] / "docs/backends.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def install(folder, modules, points, name="mine"):
    """A package as pip leaves it: modules, and what it offers in its dist-info."""
    for module, text in modules.items():
        (folder / module).write_text(text)
    info = folder / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = []
    for group, offered in points.items():
        lines += [f"[{group}]", *(f"{word} = {where}" for word, where in offered.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A folder that the page's reader reads."""
    folder = tmp_path_factory.mktemp("scan")
    scene = SyntheticConfig(views=6, width=80, height=60).read()
    frames = []
    for view in scene.views:
        Image.fromarray(view.image()).save(folder / f"{view.name}.png")
        np.save(folder / f"{view.name}.npy", view.depth() * 1000)
        pose = view.camera.world_from_camera.tolist()
        names = {"image": f"{view.name}.png", "depth": f"{view.name}.npy"}
        frames.append({**names, "world_from_camera": pose})
    K = scene.views[0].camera.K.tolist()
    described = {"K": K, "width": 80, "height": 60, "frames": frames}
    (folder / "frames.json").write_text(json.dumps(described))
    return folder


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The modules of the page, offered as its pyproject says."""
    modules = {text.split("\n", 1)[0].removeprefix("# "): text for text in blocks("python")}
    (offered,) = blocks("toml")
    for each in KINDS.values():
        monkeypatch.setattr(each, "_loaded", {})
    monkeypatch.syspath_prepend(str(tmp_path))
    install(tmp_path, modules, tomllib.loads(offered)["project"]["entry-points"])


def settings(run):
    return json.loads((run / "run.json").read_text())["settings"]


def test_reader_segmenter_tracker_and_export_of_the_page_work(installed, scan, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["reader:frames-json", "--reader.depth-scale", "1000", "segmentation:grey"]
    words += ["--segmentation.levels", "3", "tracking:overlap", "--voxel", "0.05"]
    assert cli.main(["lift", str(scan), "--out", str(run), *words]) == 0, capsys.readouterr().err
    assert settings(run)["reader"] == {"backend": "frames-json", "depth_scale": 1000.0}
    assert settings(run)["segmentation"] == {"backend": "grey", "levels": 3, "smallest": 30}
    assert settings(run)["tracking"] == {"backend": "overlap", "least": 0.5}
    assert cli.main(["export", str(run), "--to", "lines"]) == 0, capsys.readouterr().err
    rows = (run / "export/lines/points.csv").read_text().splitlines()
    assert rows[0] == "x,y,z,red,green,blue,object"
    assert len(rows) > 100


def test_the_network_of_the_page_labels_all_views_without_a_tracker(
    installed, scan, tmp_path, capsys
):
    run = tmp_path / "run"
    words = ["reader:frames-json", "--reader.depth-scale", "1000", "--voxel", "0.05"]
    given = ["lift", str(scan), "--out", str(run), *words, "segmentation:palette"]
    assert cli.main(given) == 0, capsys.readouterr().err
    assert settings(run)["segmentation"]["backend"] == "palette"
    assert len(json.loads((run / "instances.json").read_text())["instances"]) > 1
    assert cli.main([*given, "tracking:independent"]) == 2
    assert "leave out tracking:independent" in capsys.readouterr().err


def test_the_pages_reader_is_found_without_its_name(installed, scan, capsys):
    assert cli.main(["info", str(scan)]) == 0
    assert "reader frames-json" in capsys.readouterr().out


def test_the_page_shows_only_commands_that_exist(installed, capsys):
    """Up to the run itself: the words are read."""
    from lift3d.run.settings import LiftConfig

    (first, _), *_ = (text.splitlines() for text in blocks("text"))
    config = cli._parse(first.split()[1:])
    assert isinstance(config, LiftConfig)
    assert config.segmentation.levels == 3


def test_the_page_names_the_table_of_every_kind_of_backend():
    rows = re.findall(r"^\| (\w+) \| `(\S+)/` \| `(\w+)` in `(\S+)` \|$", PAGE, re.MULTILINE)
    assert {kind for kind, *_ in rows} == set(KINDS)
    root = Path(__file__).resolve().parents[1]
    for kind, folder, table, file in rows:
        assert (root / folder).is_dir()
        assert f'{table} = KINDS["{kind}"].built_in(' in (root / file).read_text()


def test_every_helper_for_readers_on_the_page_exists():
    part = PAGE.partition("### A reader inside lift3d")[2].partition("## A segmenter")[0]
    named = re.findall(r"`(patterns|frames|images|intrinsics|poses|rgbd_poses)\.(\w+)", part)
    assert len(named) > 10
    for module, name in named:
        assert hasattr(importlib.import_module(f"lift3d.datasets.{module}"), name), name
    for attribute in re.findall(r"`content\.(\w+)", PAGE):
        assert attribute in {each.name for each in fields(Content)}
