"""Recipes run as scripts, as their README says, whatever the working directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

RECIPES = sorted((Path(__file__).resolve().parents[1] / "pipelines").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_shows_its_help_from_any_folder(recipe, tmp_path):
    needs = {
        "train_joining": ["sklearn"],
        "train_segmentation": ["torch"],
        "train_vggt_segmentor": ["torch"],
    }
    for library in needs.get(recipe.stem, []):
        pytest.importorskip(library)
    done = subprocess.run(
        [sys.executable, str(recipe), "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    assert done.returncode == 0, done.stderr
    assert "--out" in done.stdout
