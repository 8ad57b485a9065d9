"""The Python front door: every public name, the page that teaches it, the examples."""

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lift3d as l3
from lift3d.scene.errors import InputError

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("name", l3.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name):
    assert getattr(l3, name).__doc__


def test_public_names_are_those_that_type_checkers_see():
    import ast

    tree = ast.parse((ROOT / "lift3d/__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname or alias.name for node in block.body for alias in node.names}
    assert seen == set(l3.__all__)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lft'"):
        l3.lft  # noqa: B018 - the name is what is asked for


def test_importing_the_package_imports_nothing_heavy():
    code = (
        "import sys, lift3d\n"
        "assert 'numpy' not in sys.modules and 'lift3d.run' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_page_runs_as_it_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed, tried = doctest.testfile(str(ROOT / "docs/python.md"), module_relative=False)
    assert tried > 20
    assert not failed


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda p: p.stem)
def test_the_examples_run_and_are_short(path, tmp_path):
    assert len(path.read_text().splitlines()) <= 100
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "objects" in done.stdout


def test_arrays_become_a_scene():
    images = [np.zeros((4, 6, 3), np.uint8)] * 2
    depth = [np.full((4, 6), 2, np.float32)] * 2
    scene = l3.Scene.from_arrays(images, np.eye(3), [np.eye(4)] * 2, depth, names=["a", "b"])
    assert [view.name for view in scene.views] == ["a", "b"]
    assert scene.views[1].depth()[0, 0] == 2
    assert (scene.views[0].camera.width, scene.views[0].camera.height) == (6, 4)
    own = l3.Scene.from_arrays(images, [np.eye(3), 2 * np.eye(3)], [np.eye(4)] * 2)
    assert own.views[1].camera.K[0, 0] == 2
    with pytest.raises(InputError, match="2 images and 1 poses"):
        l3.Scene.from_arrays(images, np.eye(3), [np.eye(4)])
    with pytest.raises(InputError, match="2 images and 1 matrices K"):
        l3.Scene.from_arrays(images, [np.eye(3)], [np.eye(4)] * 2)


def test_a_backend_by_name_has_its_options_checked():
    assert l3.backend("segmentation", "regions", level=0.25).level == 0.25
    with pytest.raises(InputError, match="did you mean 'regions'"):
        l3.backend("segmentation", "region")
    with pytest.raises(InputError, match="did you mean 'level'"):
        l3.backend("segmentation", "regions", levle=0.25)
    with pytest.raises(InputError, match="did you mean 'segmentation'"):
        l3.backend("segmentaton", "regions")


def test_the_page_lists_every_attribute_of_a_run():
    page = (ROOT / "docs/python.md").read_text()
    table = page.partition("| `Run` |")[2].partition("\n\n")[0]
    listed = set(re.findall(r"`(\w+)[`(]", table)) - {"json"}
    public = {name for name in vars(l3.Run) if not name.startswith("_")} - {"open"}
    assert listed == public | {"folder", "files"}
