"""The protocols of benchmarks/one_click.py, by hand."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from walls import wall_scene

from lift3d.correction.clicks.answering import ClickConfig

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

import one_click_cases as cases
import one_click_protocols as protocols


@pytest.fixture(scope="module")
def case():
    scene = wall_scene([(40, 30, 40, 5), (100, 40, 30, 9)], [0, 10, 20])
    maps = {view.name: view.instances() for view in scene.views}
    return cases.prepared("wall", scene, lambda: cases.by_id(scene, maps, {1}), 0.02)


def test_the_next_click_is_at_the_centre_of_the_largest_error_of_the_worst_view():
    truth = {"a": np.zeros((40, 40), bool), "b": np.zeros((40, 40), bool)}
    truth["a"][5:15, 5:15] = truth["b"][5:15, 5:15] = True
    found = {"a": truth["a"].copy(), "b": truth["b"].copy()}
    found["b"][20:35, 20:35] = True  # 225 pixels too many, more than the 50 that are missing
    found["b"][5:15, 5:10] = False
    view, xy, positive = protocols.worst_error(found, truth, [])
    assert (view, positive) == ("b", False)
    assert xy.tolist() == [27, 27]


def test_clicks_until_an_iou_are_counted():
    rows = [{"iou": 0.7}, {"iou": 0.86}, {"iou": 0.9}]
    assert [protocols.noc(rows, each) for each in (0.8, 0.85, 0.9, 0.95)] == [2, 2, 3, 4]


def test_the_prompted_view_is_not_scored_and_absent_views_count_apart():
    empty = np.zeros((40, 40), bool)
    full = empty.copy()
    full[:, :20] = True
    truth = {"a": full, "b": full, "c": empty}
    found = {"a": empty, "b": full, "c": full}
    row = cases.scored(found, truth, ["a"])
    assert (row["iou"], row["false"], row["accuracy"]) == (1, 1, 1)


def test_one_click_and_spin_run_on_a_wall(case):
    truth = case.truth["5"]
    rows, _ = protocols.one_click(case, truth, "perfect", ClickConfig(), 2)
    assert rows[0]["iou"] > 0.9
    assert protocols.spin(case, None, 0, ClickConfig())[0]["iou"] > 0.9
    assert protocols.spin(case, (5, 5), 1, ClickConfig())[0]["iou"] >= 0
    assert cases.scored(protocols.copied(case, truth), truth, ["view000"])["iou"] < 0.9
    assert cases.scored(protocols.nearest_label(case, truth), truth, ["view000"])["iou"] > 0.9


def test_pixels_without_truth_do_not_count(case):
    truth = case.truth["5"]
    known = {name: np.zeros_like(mask) for name, mask in truth.items()}
    for name, mask in truth.items():
        known[name][mask] = True
    here = replace(case, known=known)
    rows, result = protocols.one_click(here, truth, "perfect", ClickConfig(), 1)
    counted = here.counted(here.found(result))
    assert not any((found & ~known[name]).any() for name, found in counted.items())
    assert (
        rows[0]["iou"] >= protocols.one_click(case, truth, "perfect", ClickConfig(), 1)[0][0]["iou"]
    )


def test_designs_are_compared(case):
    found = protocols.designs(case, ClickConfig())
    assert found["perfect segmenter"] >= found["both"] > 0.9
    assert found["carried"] <= found["both"] + 0.01
    assert found.keys() == {*protocols.DESIGNS, "perfect segmenter"}


def test_nvos_layout_is_read(case, tmp_path, monkeypatch):
    monkeypatch.setitem(protocols.NVOS, "wall", ("view000", "view010"))
    mask = case.truth["5"]["view000"]
    for name, pixels in (("pos_0_view000", mask), ("neg_0_view000", ~mask)):
        path = tmp_path / "scribbles" / "wall" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).convert("L").save(path)
    target = tmp_path / "masks" / "wall" / "view010_mask.png"
    target.parent.mkdir(parents=True)
    Image.fromarray(case.truth["5"]["view010"]).convert("L").save(target)
    row = protocols.nvos(case, tmp_path, "wall", (8, 2), 0, ClickConfig())
    assert row["accuracy"] > 0.5
    with pytest.raises(SystemExit, match=r"no pos\*\.png"):
        protocols.scribbles(tmp_path, "fern")


def test_masks_that_are_given_have_no_gaps_but_end_where_little_is_known():
    labels = np.zeros((4, 640), np.int32)
    labels[:, 20:40:3] = 5
    labels[:, 41] = 7
    whole = cases.without_gaps(labels)
    assert (whole[:, 20:39] == 5).all()
    assert (whole[:, 10:20] == 5).all()
    assert not whole[:, :10].any()
    assert (whole[:, 41:52] == 7).all()
    assert not whole[:, 52:].any()


def test_the_first_prompt_is_in_the_first_the_middle_or_the_largest_view(case):
    truth = {name: np.zeros((40, 40), bool) for name in "abcde"}
    for name, side in zip("abcde", (3, 6, 5, 9, 20), strict=True):  # 1 % of the pixels is 16
        truth[name][:side, :side] = True
    starts = [replace(case, start=each) for each in ("first", "middle", "largest")]
    assert [each.first_view(truth) for each in starts] == ["b", "d", "e"]
