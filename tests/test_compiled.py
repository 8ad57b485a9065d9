"""Compiled functions need no place for a cache, and no cache can harm them."""

import ast
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from numba.core import caching

from lift3d.scene import compiled as module
from lift3d.scene.compiled import compiled

PACKAGE = Path(__file__).resolve().parents[1] / "lift3d"


def square(values):
    return values * values


def made():
    return compiled()(square)


def works(function):
    return function(np.arange(4.0)).tolist() == [0.0, 1.0, 4.0, 9.0]


@pytest.fixture
def places(monkeypatch, tmp_path):
    """Of numba's places only those below this folder can be written, `tmp` is for temporary files;
    returns it.
    """
    ensure = caching._CacheLocator.ensure_cache_path

    def only_here(self):
        if not Path(self.get_cache_path()).is_relative_to(tmp_path):
            raise PermissionError("read-only")
        ensure(self)

    monkeypatch.setattr(caching._CacheLocator, "ensure_cache_path", only_here)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    module._temporary.cache_clear()
    yield tmp_path
    module._temporary.cache_clear()


def test_without_a_place_the_cache_is_in_a_private_temporary_folder(places):
    assert works(made())
    (folder,) = places.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.rglob("*.nbc"))
    again = made()
    assert works(again)
    assert sum(again.stats.cache_hits.values()) == 1


@pytest.mark.parametrize("kind", ["writable by all", "a link", "a file", "of another user"])
def test_a_temporary_folder_that_others_may_write_to_is_not_used(places, kind, monkeypatch):
    folder = places / f"lift3d-numba-{os.getuid()}"
    if kind == "a file":
        folder.touch()
    elif kind == "a link":
        (places / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(places / "elsewhere")
    else:
        folder.mkdir()
        folder.chmod(0o777 if kind == "writable by all" else 0o700)
    if kind == "of another user":
        other = os.getuid() + 1
        monkeypatch.setattr(os, "getuid", lambda: other)
        folder.rename(places / f"lift3d-numba-{other}")
    assert works(made())
    assert not list(places.rglob("*.nb?"))


def test_a_damaged_cache_is_made_again(places):
    """As a power cut leaves it."""
    assert works(made())
    for path in places.rglob("*.nb?"):
        path.write_bytes(b"")
    assert works(made())
    again = made()
    assert works(again)
    assert sum(again.stats.cache_hits.values()) == 1


def test_a_full_disk_costs_only_the_cache(places, monkeypatch):
    def full(self, name, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_data", full)
    assert works(made())


def test_every_compiled_function_goes_through_here():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            named = isinstance(node, ast.Attribute) and node.attr in ("njit", "jit", "vectorize")
            assert not named or path == PACKAGE / "scene/compiled.py", path
