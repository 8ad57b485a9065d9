"""What a box means without weights, alone and with clicks and masks beside it."""

from dataclasses import replace

import numpy as np
import pytest
from walls import HEIGHT, WIDTH, wall_scene

from lift3d.association.surface import Surface
from lift3d.correction.clicks.answering import answer
from lift3d.correction.clicks.boxing import boxed
from lift3d.correction.clicks.choosing import meant
from lift3d.correction.clicks.cutting import cut_out
from lift3d.correction.clicks.place import Place
from lift3d.correction.clicks.pointing import Click
from lift3d.reconstruction.fusion import BACKENDS
from lift3d.scene import Prompt
from lift3d.scene.errors import InputError

SQUARE = (60, 40, 40, 2)
"""Left, top, side and id of a square on the wall, in pixels of the first view."""
RIGHT = 70
"""The square is two superpoints, left of this column and from it on."""


@pytest.fixture(scope="module")
def place():
    """A wall (superpoint 0) and a square in it, whose halves (1, 2) the tree joins first."""
    scene = wall_scene([SQUARE], [0, 10, 20])
    points = BACKENDS["voxel"](voxel=0.02).build().fuse(scene)
    column, row = (np.rint(points.xyz[:, :2] / 0.02 + [79.5, 59.5])).astype(int).T
    in_square = (column >= 60) & (column < 100) & (row >= 40) & (row < 80)
    superpoint = np.where(in_square, np.where(column < RIGHT, 1, 2), 0).astype(np.int32)
    surface = Surface(
        superpoint, np.array([[0, 1], [0, 2], [1, 2]], np.int32),
        np.array([0.1, 0.1, 0.9], np.float32), np.array([[1, 2], [0, 3]], np.int32),
        np.array([0.9, 0.1], np.float32), np.array([0, 3, 3], np.int32),
        np.array([0, 1, 1], np.int32),
    )  # fmt: skip
    return Place(points, surface, {view.name: view for view in scene.views})


def around(left, top, right, bottom):
    return np.array([left, top, right, bottom], float)


def prompt(box, *clicks, mask=None):
    """`clicks`: column, row, and whether they are on the object."""
    xy = np.array([each[:2] for each in clicks], float).reshape(-1, 2)
    return Prompt(xy, np.array([each[2] for each in clicks], bool), mask, box)


def test_a_box_means_what_lies_in_it_and_not_the_wall_behind(place):
    found = boxed(place, {"view000": around(55, 35, 104, 84)})
    assert found.tolist() == [False, True, True]
    # The wall alone fills this one, but it goes on beyond it.
    assert not boxed(place, {"view000": around(10, 10, 50, 50)})[1:].any()
    right = boxed(place, {"view000": around(RIGHT, 40, 99, 79)})
    assert right.tolist() == [False, False, True]


def test_boxes_in_several_views_are_added_up(place):
    wide = {"view000": around(60, 40, 99, 79), "view010": around(50, 40, 89, 79)}
    assert boxed(place, wide).tolist() == [False, True, True]


def test_the_answer_to_a_box_is_the_object_in_all_views(place):
    result = answer(place, [{"view000": prompt(around(58, 38, 101, 81))}])
    for name, view in place.views.items():
        truth = view.instances() == SQUARE[3]
        mask = result.in_view(name)[0].mask
        assert (mask & truth).sum() > 0.95 * (mask | truth).sum()


def test_clicks_correct_a_box(place):
    half = around(RIGHT, 40, 99, 79)
    assert answer(place, [{"view000": prompt(half)}]).points().size
    more = meant(place, [Click("view000", np.array([64.0, 60.0]), True)], {"view000": half})
    assert more.pieces.tolist() == [False, True, True]
    assert len(more.positive) == 2  # the middle of what the box holds, and the click
    less = meant(
        place,
        [Click("view000", np.array([64.0, 60.0]), False)],
        {"view000": around(60, 40, 99, 79)},
    )
    assert less.pieces.tolist() == [False, False, True]


def test_a_click_in_a_box_that_holds_nothing_means_its_object(place):
    nothing = around(10, 10, 12, 12)
    assert not boxed(place, {"view000": nothing}).any()
    found = meant(place, [Click("view000", np.array([80.0, 60.0]), True)], {"view000": nothing})
    assert found.pieces.tolist() == [False, True, True]


def test_where_what_was_found_does_not_fill_a_box_the_colours_decide(place):
    """Three fifths of a superpoint are in the square; what else is there fills a quarter of it."""
    column, row = (np.rint(place.points.xyz[:, :2] / 0.02 + [79.5, 59.5])).astype(int).T
    level = (row >= 40) & (row < 80)
    parts = [level & (column >= 40) & (column < 90), level & (column >= 90) & (column < 100)]
    straddling = np.select(parts, [1, 2], 0).astype(np.int32)
    other = Place(place.points, replace(place.surface, superpoint=straddling), place.views)
    box = around(60, 40, 99, 79)
    assert boxed(other, {"view000": box}).tolist() == [False, True, True]
    grey = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)  # no colours: what lies in the box
    same = {**place.views, "view000": replace(place.views["view000"], load_image=lambda: grey)}
    assert boxed(Place(place.points, other.surface, same), {"view000": box}).tolist() == [
        False, False, True,
    ]  # fmt: skip


def test_a_box_beside_a_mask_says_a_little_more(place):
    """The mask shows the left half of the square, a box in another view both."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[40:80, 60:RIGHT] = True
    alone = answer(place, [{"view000": prompt(None, mask=mask)}])
    both = answer(place, [{
        "view000": prompt(None, mask=mask), "view020": prompt(around(40, 40, 79, 79)),
    }])  # fmt: skip
    right = place.surface.superpoint == 2
    assert alone.probability[0, right].mean() < 0.1
    assert both.probability[0, right].mean() > alone.probability[0, right].mean()
    assert both.probability[0, place.surface.superpoint == 1].mean() > 0.9


def test_a_box_in_which_the_picture_shows_nothing_cuts_out_nothing(place):
    assert cut_out(place.views["view000"], None, prompt(around(10, 10, 50, 50))) is None


@pytest.mark.parametrize(
    ("box", "words"),
    [
        (around(90, 30, 50, 80), "upside down"),
        (around(50, 80, 90, 30), "upside down"),
        (around(-40, 30, -5, 80), "outside of view view000, which has 160x120"),
        (around(50, 120, 90, 140), "outside of view view000, which has 160x120"),
    ],
)
def test_a_box_that_can_hold_nothing_is_refused(place, box, words):
    with pytest.raises(InputError, match=words):
        answer(place, [{"view000": prompt(box)}])


def test_a_box_may_reach_beyond_the_picture(place):
    result = answer(place, [{"view020": prompt(around(-5, 38, 81, 81))}])
    assert set(place.surface.superpoint[result.points()]) == {1, 2}
