"""Every library is declared where it is needed, and nothing is declared that is not used."""

import ast
import re
import sys
import tomllib
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.reconstruction.fusion.tsdf import TsdfConfig
from lift3d.run.record import host
from lift3d.scene import LabelledPoints, Points, Scene
from lift3d.scene.errors import OPEN3D_NEEDS, MissingExtra
from lift3d.viewing.window import show

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = PROJECT["dependencies"]
EXTRAS = PROJECT["optional-dependencies"]
IMPORTED_AS = {
    "open3d-cpu": "open3d",
    "opencv-python-headless": "cv2",
    "openexr": "OpenEXR",
    "pillow": "PIL",
    "pillow-heif": "pillow_heif",
    "pytest-xdist": "xdist",
    "rerun-sdk": "rerun",
    "scikit-image": "skimage",
    "scikit-learn": "sklearn",
    "segment-anything": "segment_anything",
}
"""Distributions whose module has another name."""
WITH = {"grpc": "ray", "tokenizers": "transformers"}
"""Modules that come with another library (grpc with `ray[client]`)."""
ELSEWHERE = {"ga_scene"}
"""Comes with the data of the test that imports it."""
TOOLS = {"beartype", "mypy", "xdist", "ruff"}
"""Of the extra `dev`: run, but not imported."""


def modules(requirements):
    """The top-level modules of requirements such as `numpy>=1.26; sys_platform == 'linux'`."""
    names = [re.match(r"[A-Za-z0-9._-]+", each)[0] for each in requirements]
    return {IMPORTED_AS.get(name, name) for name in names}


@cache
def imported(folder):
    """Module -> one file that imports it, for other people's libraries in a folder."""
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(), str(path))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            else:
                continue
            for name in names:
                found.setdefault(name.split(".")[0], path.relative_to(ROOT))
    folders = (folder, "pipelines", "tests", *(["benchmarks"] if folder == "tests" else []))
    ours = {path.stem for each in folders for path in (ROOT / each).rglob("*")}
    others = found.keys() - ours - ELSEWHERE - {"lift3d"} - sys.stdlib_module_names
    return {WITH.get(name, name): str(found[name]) for name in others}


@pytest.mark.parametrize("module", sorted(modules(CORE)))
def test_each_core_dependency_is_imported_by_the_package(module):
    assert module in imported("lift3d")


def test_each_library_that_the_package_imports_is_declared():
    declared = modules(CORE)
    for name, extra in EXTRAS.items():
        declared |= modules(extra) if name not in ("dev", "train") else set()
    missing = {m: path for m, path in imported("lift3d").items() if m not in declared}
    assert not missing


@pytest.mark.parametrize("folder", ["pipelines", "benchmarks", "viewers", "data", "tests"])
def test_each_library_that_another_folder_imports_is_declared(folder):
    declared = modules(CORE).union(*map(modules, EXTRAS.values()))
    missing = {m: path for m, path in imported(folder).items() if m not in declared}
    assert not missing


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_each_library_of_an_extra_is_used(extra):
    folders = {"dev": ("tests", "benchmarks"), "train": ("pipelines",)}.get(extra, ("lift3d",))
    used = set().union(*map(imported, folders)) | TOOLS
    # Backends name the libraries that they need as text.
    source = "".join(p.read_text() for f in folders for p in (ROOT / f).rglob("*.py"))
    unused = {m for m in modules(EXTRAS[extra]) - used if f'"{m}"' not in source}
    assert not unused


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/meminfo is Linux's")
def test_the_hosts_memory_is_what_the_system_says():
    kilobytes = int(re.search(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())[1])
    assert host()["memory_gb"] == pytest.approx(kilobytes / 2**20, abs=0.1)


def open_window():
    zeros = np.zeros((1, 3), np.float32)
    points = Points(zeros, zeros.astype(np.uint8), zeros, np.ones(1, np.float32))
    show(LabelledPoints(points, np.ones(1, np.int32), np.ones(1, np.float32)), ())


def fuse_by_tsdf():
    TsdfConfig().build().fuse(Scene("test", (), True, "test"))


def render_a_room():
    SyntheticConfig(views=1).read().views[0].image()


@pytest.mark.parametrize("use", [open_window, fuse_by_tsdf, render_a_room])
def test_where_open3d_cannot_be_imported_the_message_names_what_it_lacks(use, monkeypatch):
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(MissingExtra, match=f"apt-get install {OPEN3D_NEEDS}"):
        use()


def test_the_makefile_and_the_readme_name_the_packages_that_open3d_needs():
    assert f"APT := {OPEN3D_NEEDS}\n" in (ROOT / "Makefile").read_text()
    assert f"apt-get install {OPEN3D_NEEDS}`" in (ROOT / "README.md").read_text()


def test_open3d_is_imported_only_where_its_absence_is_explained():
    using = [
        p
        for p in (ROOT / "lift3d").rglob("*.py")
        if re.search(r"^\s*import open3d", p.read_text(), re.M)
    ]
    assert [path.name for path in using] == ["errors.py"]
