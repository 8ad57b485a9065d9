"""One click, all views: prompts to masks in every view and to points."""

import json
from functools import partial

import numpy as np
import pytest
from tiny_export import lifted_run
from walls import TrueMasks, wall_scene

from lift3d.cli import main
from lift3d.correction.clicks.answering import ClickConfig, answer, everything
from lift3d.correction.clicks.asking import ask, coarse_prompt
from lift3d.correction.clicks.nearest import Cells
from lift3d.correction.clicks.nodes import clicked, explaining
from lift3d.correction.clicks.preparing import place_of
from lift3d.correction.clicks.walker import EXACT, walk
from lift3d.correction.joins import JoinTree
from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.reconstruction.fusion import BACKENDS
from lift3d.run.prompting import as_json, prompt_of, read_prompts
from lift3d.run.run import Run
from lift3d.scene import Prompt, Scene
from lift3d.scene.errors import InputError
from lift3d.segmentation.regions import Regions, RegionsConfig

SQUARES = [(40, 30, 40, 5), (100, 40, 30, 9)]
SHIFTS = [0, 10, 20, 60, 200]


def iou(one, other):
    return (one & other).sum() / max((one | other).sum(), 1)


@pytest.fixture(scope="module")
def wall():
    scene = wall_scene(SQUARES, SHIFTS)
    points = BACKENDS["voxel"](voxel=0.02).build().fuse(scene)
    return scene, place_of(scene, points)


def masks(result, number=0):
    return {name: found[number].mask for name, found in result.views()}


def test_a_mask_in_one_view_is_carried_to_all_views_that_show_the_object(wall):
    scene, place = wall
    truth = {view.name: view.instances() == 5 for view in scene.views}
    result = answer(place, [{"view000": prompt_of([], mask=None)}], None) if False else None
    result = answer(place, [{"view000": Prompt(np.zeros((0, 2)), np.zeros(0, bool), truth["view000"])}])
    found = masks(result)
    for name in ("view010", "view020", "view060"):
        assert iou(found[name], truth[name]) > 0.9
    assert not found["view200"].any()
    assert result.in_view("view200")[0].score == 0
