"""Fixtures for all tests: the folders of the real scans, where they exist."""

import os
from pathlib import Path

import pytest

SHARED = Path(
    os.environ.get("LIFT3D_SHARED", Path(__file__).resolve().parents[1].parent / "shared")
)


@pytest.fixture
def shared_data():
    """A function from a scan's name to its folder; skips where the real scans are absent."""

    def folder(name: str) -> Path:
        path = SHARED / "data" / name
        if not path.is_dir():
            pytest.skip(f"needs the real scan {path}, which is not shipped (see data/README.md)")
        return path

    return folder
