"""Which superpoints clicks mean: nested nodes, chosen by how a person corrects."""

from dataclasses import replace

import numpy as np
import pytest
from walls import wall_scene

from lift3d.association.surface import Surface
from lift3d.correction.clicks.answering import answer, other_views
from lift3d.correction.clicks.choosing import meant, middle
from lift3d.correction.clicks.place import Place
from lift3d.correction.clicks.pointing import Click, PointClick, in_best_view, point_at
from lift3d.reconstruction.fusion import BACKENDS
from lift3d.scene import Prompt

COLUMNS = [0, 40, 60, 100]
"""Left ends of four upright strips of the wall, in pixels of the first view."""
SHIFTS = [0, 10, 20]


@pytest.fixture(scope="module")
def strips():
    """A wall in four strips, ((0, 1), (2, 3)); the association took (0, 1) and (2, 3)."""
    scene = wall_scene([(left, 0, 160, number) for number, left in enumerate(COLUMNS)], SHIFTS)
    points = BACKENDS["voxel"](voxel=0.02).build().fuse(scene)
    column = points.xyz[:, 0] / 0.02 + 79.5
    strip = np.searchsorted(COLUMNS, column + 0.5, side="right") - 1
    surface = Surface(
        np.maximum(strip, 0).astype(np.int32), np.array([[0, 1], [1, 2], [2, 3]], np.int32),
        np.array([0.9, 0.2, 0.8], np.float32), np.array([[0, 1], [2, 3], [4, 5]], np.int32),
        np.array([0.9, 0.8, 0.2], np.float32), np.array([4, 4, 5, 5], np.int32),
        np.array([1, 1, 2, 2], np.int32),
    )  # fmt: skip
    return Place(points, surface, {view.name: view for view in scene.views})


def click(x, positive=True, view="view000", y=60.0):
    return Click(view, np.array([float(x), y]), positive)


def pieces(place, *clicks):
    return meant(place, clicks).pieces.tolist()


def test_a_correction_takes_the_node_that_it_is_the_middle_of(strips):
    assert pieces(strips, click(30)) == [True, True, False, False]
    # 60 to 99 is strip 2, 60 to 159 strips 2 and 3.
    assert pieces(strips, click(30), click(80)) == [True, True, True, False]
    assert pieces(strips, click(30), click(109)) == [True, True, True, True]
    assert pieces(strips, click(30), click(50, False)) == [True, False, False, False]
    assert pieces(strips, click(30), click(20, False), click(50)) == [True, True, False, False]


def test_of_many_views_some_are_compared_and_any_may_be_clicked(strips, monkeypatch):
    """A first correction must not wait until thousands of views have been looked at."""
    monkeypatch.setattr("lift3d.correction.clicks.place.MOST_COMPARED", 2)
    place = Place(strips.points, strips.surface, strips.views)
    looked = []
    look = place._look
    monkeypatch.setattr(place, "_look", lambda view: looked.append(view.name) or look(view))
    place.prepare()
    assert place.compared == looked == ["view000", "view020"]
    here, there = click(70, view="view010"), click(40, False, view="view010")  # 10 pixels on
    assert pieces(place, here) == [False, False, True, True]
    assert pieces(place, click(30), here) == [True, True, True, False]
    assert pieces(place, click(30), there) == [True, False, False, False]
    assert looked == ["view000", "view020", "view010"]
    found = answer(place, [{"view000": Prompt(click(30).xy[None], np.array([True]))}])
    assert other_views(found, 5) == ["view020"]
    assert set(other_views(found)) == {"view010", "view020"}
    point = point_at(place, "view010", here.xy)
    assert in_best_view(place, PointClick(point, True)).view in place.compared


def test_a_correction_at_the_edge_of_all_nodes_says_nothing_of_the_points(strips):
    found = meant(strips, [click(30), click(61)])
    assert found.pieces.tolist() == [True, True, False, False]
    assert found.positive == meant(strips, [click(30)]).positive
    assert pieces(strips, click(30), click(59, False)) == [True, True, False, False]


def test_a_correction_keeps_the_first_click_in_the_middle(strips):
    """Strip 0 away, column 45 is 6 pixels from the border; column 100 is as far as any."""
    whole = replace(strips.surface, node=np.full(4, 6, np.int32))
    place = Place(strips.points, whole, strips.views)
    assert pieces(place, click(42), click(20, False)) == [True] * 4
    assert pieces(place, click(100), click(20, False)) == [False, True, True, True]


def test_a_correction_takes_away_all_but_a_node_around_the_first_click(strips):
    whole = replace(strips.surface, node=np.full(4, 6, np.int32))
    place = Place(strips.points, whole, strips.views)
    assert pieces(place, click(50), click(109, False)) == [False, True, False, False]
    assert pieces(place, click(30), click(109, False)) == [True, True, False, False]


def test_a_first_click_at_the_rim_says_that_more_is_missing(strips):
    """Column 46 is nearer to the middle of strip 1 than of strips 0 and 1, column 62 is not."""
    assert pieces(strips, click(62)) == [False, False, True, True]
    assert pieces(strips, click(62), click(46)) == [True] * 4
    assert pieces(strips, click(109), click(46)) == [False, True, True, True]


def test_what_is_missing_needs_less_where_it_is_no_border(strips):
    # Both are near the rim of their strips.
    assert pieces(strips, click(30), click(62)) == [True, True, False, False]
    assert pieces(strips, click(30), click(155)) == [True, True, False, True]


def test_a_correction_is_made_where_what_is_wrong_shows(strips):
    """Another view sees all of strip 3, of which the clicked one has only a rim."""
    scene = wall_scene([(left, 0, 160, number) for number, left in enumerate(COLUMNS)], [-50, 40])
    one, other = (view.name for view in scene.views)
    whole = replace(strips.surface, node=np.full(4, 6, np.int32))
    place = Place(strips.points, whole, {view.name: view for view in scene.views})
    counted = place.sees(whole.superpoint == 3)
    assert counted[one] < 0.3 * counted[other]
    assert place.pieces_seen[:, 3].tolist() == list(counted.values())
    told = click(120, view=one), click(155, False, view=one)
    assert pieces(place, *told) == [True] * 4
    alone = Place(strips.points, whole, {one: place.views[one]})
    assert pieces(alone, *told) == [True, True, True, False]


def test_other_clicks_are_not_contradicted(strips):
    # The middle of strips 2 and 3 together.
    assert pieces(strips, click(30), click(109)) == [True] * 4
    told = click(30), click(80, False), click(109)
    assert pieces(strips, *told) == [True, True, False, True]
    assert pieces(strips, click(30), click(20, False)) == [True, True, False, False]


def test_a_first_click_without_a_measurement_or_a_superpoint_still_means_the_object(strips):
    scene = strips.views["view000"]
    depth = scene.depth().copy()
    depth[50:70, 20:40] = 0
    holed = {**strips.views, "view000": replace(scene, load_depth=lambda: depth)}
    place = Place(strips.points, strips.surface, holed)
    both = meant(place, [click(30), click(80)])
    assert both.pieces.tolist() == [True, True, True, False]
    assert len(both.positive) == 2
    assert pieces(place, click(50, y=20.0), click(30, False)) == [True, True, False, False]
    depth[50:70, 70:90] = 0  # a further one without a measurement says nothing
    assert pieces(Place(strips.points, strips.surface, holed), click(30), click(80)) == [
        True, True, False, False,
    ]  # fmt: skip
    noise = strips.surface.superpoint.copy()
    near = place.seen("view001" if "view001" in holed else "view010").nearest[55:66, 45:56]
    noise[near[near >= 0]] = -1
    loose = Place(strips.points, replace(strips.surface, superpoint=noise), strips.views)
    assert pieces(loose, click(50, view="view010")) == [True, True, False, False]


def test_the_middle_of_a_region_is_far_from_its_border():
    region = np.zeros((30, 60), bool)
    region[5:26, 5:26] = region[10:13, 40:43] = True
    assert middle(region, (15, 15)) == 1
    assert middle(region, (15, 5)) == pytest.approx(1 / 11, abs=0.01)
    assert middle(region, (11, 41)) == 1  # of its own part
    assert middle(region, (0, 0)) == 0


def test_an_answer_follows_what_the_clicks_mean(strips):
    def mask(*clicks):
        xy = np.stack([each.xy for each in clicks])
        prompt = Prompt(xy, np.array([each.positive for each in clicks]))
        return answer(strips, [{"view000": prompt}]).in_view("view010")[0].mask

    one, two, three = mask(click(30)), mask(click(30), click(80)), mask(click(30), click(61))
    assert one[60, 5:45].all()
    assert not one[60, 60:].any()
    assert two[60, 5:85].all()
    assert (one != three).mean() < 0.05


def test_clicks_in_a_view_without_depth_mean_the_objects_of_their_points(strips):
    bare = replace(strips.views["view010"], load_depth=None)
    few = np.arange(0, len(strips.points), 7)
    surface = replace(strips.surface, superpoint=strips.surface.superpoint[few])
    place = Place(strips.points.take(few), surface, {**strips.views, "view010": bare})
    assert place.seen("view010").nearest is None
    first, more = click(20, view="view010"), click(80, view="view010")
    assert pieces(place, first) == [True, True, False, False]
    assert pieces(place, first, more) == [True] * 4
    found = meant(place, [first, replace(more, positive=False)])
    assert found.pieces.tolist() == [True, True, False, False]
    assert len(found.negative) == 1


def test_a_first_click_in_a_large_hole_means_what_is_nearest(strips):
    view = strips.views["view000"]
    depth = view.depth().copy()
    depth[:, 100:] = 0
    few = np.arange(0, len(strips.points), 40)
    surface = replace(strips.surface, superpoint=strips.surface.superpoint[few])
    holed = {"view000": replace(view, load_depth=lambda: depth)}
    place = Place(strips.points.take(few), surface, holed)
    seen = place.seen("view000")
    assert seen.superpixels is not None
    row, column = np.argwhere(seen.nearest[:, 120:150] < 0)[0]
    assert pieces(place, click(column + 120, y=float(row))) == [False, False, True, True]


@pytest.mark.parametrize(("x", "added"), [(65.0, False), (159.0, True)])
def test_a_click_adds_its_object_only_where_no_mask_has_decided(strips, x, added):
    """View 0 shows all but the last strip; its mask is the first two and a rim of the third."""
    column = strips.points.xyz[:, 0] / 0.02 + 79.5
    surface = Surface(
        np.where(column > 159.5, 4, strips.surface.superpoint).astype(np.int32),
        np.array([[0, 1], [1, 2], [2, 3], [3, 4]], np.int32),
        np.array([0.9, 0.02, 0.8, 0.02], np.float32),
        np.array([[0, 1], [2, 3], [4, 6], [5, 7]], np.int32),
        np.array([0.9, 0.8, 0.8, 0.2], np.float32), np.array([5, 5, 7, 7, 7], np.int32),
        np.array([1, 1, 2, 2, 2], np.int32),
    )  # fmt: skip
    place = Place(strips.points, surface, strips.views)
    mask = np.zeros((120, 160), bool)
    mask[:, :72] = True
    prompts = {"view000": Prompt(np.zeros((0, 2)), np.zeros(0, bool), mask)}
    view = "view000" if x < 100 else "view020"
    on = np.array([[x, 60.0]])
    prompts[view] = Prompt(on, np.array([True]), prompts[view].mask if view in prompts else None)
    found = answer(place, [prompts]).probability[0]
    assert (found[surface.superpoint == 4].mean() > 0.5) == added
    assert (found[surface.superpoint == 3] < 0.5).all()
