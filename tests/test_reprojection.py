"""The cloud is rendered as the view sees it, and compared with the view's label map."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lift3d.evaluation.check import check
from lift3d.evaluation.reprojection import reprojection_check, visible_points
from lift3d.scene import DENSE, Camera, LabelledPoints, Points, Scene, View
from lift3d.scene.errors import InputError

K = np.array([[4.0, 0, 2], [0, 4, 1], [0, 0, 1]])


def camera(x=0.0):
    pose = np.eye(4)
    pose[0, 3] = x
    return Camera(K, 5, 3, pose)


def view_of(depth=None, depth_camera=None, name="a"):
    return View(
        name,
        camera(),
        load_image=lambda: np.zeros((3, 5, 3), np.uint8),
        load_depth=None if depth is None else lambda: depth,
        depth_camera=depth_camera,
    )


def cloud(xyz, instance):
    xyz, n = np.array(xyz, np.float32), len(instance)
    grey, up = np.zeros((n, 3), np.uint8), np.zeros((n, 3), np.float32)
    points = Points(xyz, grey, up, np.ones(n, np.float32))
    return LabelledPoints(points, np.array(instance, np.int32), np.ones(n, np.float32))


def wall(instance, z=1.0):
    """One point behind each of the 5 x 3 pixels, at depth z."""
    row, column = np.mgrid[:3, :5]
    xyz = np.stack([(column - 2) / 4 * z, (row - 1) / 4 * z, np.full((3, 5), z)], -1)
    return cloud(xyz.reshape(-1, 3), np.asarray(instance, np.int32).ravel())


def scene_of(*views):
    return Scene("wall", tuple(views), True, "test")


def reproject(labelled, view, splat):
    """The cloud's ids rendered into the view's colour camera; 0 without a point."""
    point = visible_points(labelled, view, splat)
    return np.where(point >= 0, labelled.instance[point], 0)


LABELS = np.array([[0, 1, 1, 2, 2], [0, 1, 1, 2, 2], [3, 3, 3, 3, 3]], np.int32)


def test_a_rendered_wall_has_its_ids():
    np.testing.assert_array_equal(reproject(wall(LABELS), view_of(), 0.0), LABELS)


def test_the_nearer_point_hides_the_farther():
    labelled = cloud([[0, 0, 2], [0, 0, 1], [0, 0, 3]], [7, 8, 9])
    found = reproject(labelled, view_of(), 0.0)
    assert found[1, 2] == 8
    assert np.count_nonzero(found) == 1


def test_a_point_away_from_the_measured_depth_is_not_seen():
    depth = np.zeros((3, 5), np.float32)
    depth[1] = [1.0, 1.0, 1.0, 0.0, 2.0]
    points = [
        [(c - 2) / 4 * z, 0, z] for c, z in zip(range(5), [1, 1.2, 0.8, 1, 2.01], strict=True)
    ]
    found = reproject(cloud(points, [1, 2, 3, 4, 5]), view_of(depth), 0.0)
    # Points behind and in front of the measured depth are dropped; unmeasured pixels keep theirs.
    assert found[1].tolist() == [1, 0, 0, 4, 5]


def test_depth_is_tested_in_the_depth_camera():
    # Shifted by one pixel at depth 1: depth column 1 is colour column 2.
    depth = np.zeros((3, 5), np.float32)
    depth[:, 1] = 5.0
    found = reproject(wall(LABELS), view_of(depth, camera(x=0.25)), 0.0)
    expected = LABELS.copy()
    expected[:, 2] = 0
    np.testing.assert_array_equal(found, expected)


def test_perfect_labels_agree_perfectly():
    found = reprojection_check(wall(LABELS), scene_of(view_of()), {"a": LABELS}, 0.0)
    assert (found.agreement, found.agreement_overall, found.seen) == (1.0, 1.0, 1.0)
    assert found.ids.tolist() == [1, 2, 3]
    assert found.iou.tolist() == [1.0, 1.0, 1.0]
    assert found.mean_iou == 1.0


def test_shares_and_iou_by_hand():
    # The view misses one pixel of 1, labels one pixel of 2 as 1, and has a 4 without a point.
    seen = LABELS.copy()
    seen[0, 1], seen[0, 3], seen[0, 0] = 0, 1, 4
    found = reprojection_check(wall(LABELS), scene_of(view_of()), {"a": seen}, 0.0)
    assert found.agreement == pytest.approx(11 / 12)  # of 13 labelled in the cloud, 1 lost
    assert found.agreement_overall == pytest.approx(11 / 14)
    assert found.ids.tolist() == [1, 2, 3, 4]
    assert found.iou.tolist() == pytest.approx([3 / 5, 3 / 4, 1.0, 0.0])
    assert found.per_view[0].iou.tolist() == found.iou.tolist()


def test_pixels_without_a_point_are_not_compared():
    labelled = wall(LABELS)
    half = labelled.points.xyz[:, 0] < -0.1  # the two left columns
    part = LabelledPoints(labelled.points.take(half), labelled.instance[half], labelled.score[half])
    found = reprojection_check(part, scene_of(view_of()), {"a": LABELS}, 0.0)
    assert found.seen == pytest.approx(6 / 15)
    assert found.agreement_overall == 1.0
    assert found.ids.tolist() == [1, 3]


def test_instances_are_averaged_over_the_views_that_contain_them():
    other = np.where(LABELS == 2, 1, LABELS)
    scene = scene_of(view_of(name="a"), view_of(name="b"))
    found = reprojection_check(wall(LABELS), scene, {"a": LABELS, "b": other}, 0.0)
    assert found.iou.tolist() == pytest.approx([(1 + 4 / 8) / 2, (1 + 0) / 2, 1.0])
    assert found.views.tolist() == [2, 2, 2]
    assert found.agreement == pytest.approx((13 + 9) / 26)
    assert [view.agreement for view in found.per_view] == pytest.approx([1.0, 9 / 13])
    assert json.loads(json.dumps(found.summary()))["per_view"][1]["iou"]["2"] == 0.0


@pytest.mark.parametrize("factor", [1, 3 * DENSE])
def test_random_labellings_equal_a_slow_twin(factor):
    rng = np.random.default_rng(0)
    of_cloud, of_view = factor * rng.integers(0, 5, (2, 3, 5)).astype(np.int32)
    found = reprojection_check(wall(of_cloud), scene_of(view_of()), {"a": of_view}, 0.0)
    ids = np.unique([of_cloud, of_view])
    assert found.ids.tolist() == ids[ids > 0].tolist()
    for instance, iou in zip(found.ids, found.iou, strict=True):
        a, b = of_cloud == instance, of_view == instance
        assert iou == pytest.approx((a & b).sum() / (a | b).sum())
    both = (of_cloud > 0) & (of_view > 0)
    assert found.agreement == pytest.approx((of_cloud == of_view)[both].mean())
    either = (of_cloud > 0) | (of_view > 0)
    assert found.agreement_overall == pytest.approx((of_cloud == of_view)[either].mean())


def test_a_cloud_that_no_view_sees_is_undefined_not_perfect():
    behind = cloud([[0, 0, -1]], [1])
    found = reprojection_check(behind, scene_of(view_of()), {"a": LABELS}, 0.0)
    assert found.seen == 0.0
    assert np.isnan(found.agreement)
    assert np.isnan(found.mean_iou)
    assert "undefined" in str(found)


def test_bad_input_is_an_error_that_names_the_fault():
    scene = scene_of(view_of())
    with pytest.raises(InputError, match="1 of 1 views have no label map"):
        reprojection_check(wall(LABELS), scene, {}, 0.0)
    with pytest.raises(InputError, match=r"view a: label map is 3x5, its image is 5x3"):
        reprojection_check(wall(LABELS), scene, {"a": np.ascontiguousarray(LABELS.T)}, 0.0)
    for one, other in ((wall(LABELS - 9), LABELS), (wall(LABELS), LABELS - 9)):
        with pytest.raises(InputError, match="labels must be 0 or more"):
            reprojection_check(one, scene, {"a": other}, 0.0)
    with pytest.raises(InputError, match="splat is -1"):
        reproject(wall(LABELS), view_of(), -1.0)


def test_the_check_decodes_the_depth_of_a_view_once():
    read = []

    def depth():
        read.append("depth")
        return np.ones((3, 5), np.float32)

    view = replace(view_of(), load_depth=depth)
    found, _ = check(scene_of(view), wall(LABELS), {"a": LABELS})
    assert len(read) == 1
    splat = found["reprojection"]["splat"]
    alone = reprojection_check(wall(LABELS), scene_of(view), {"a": LABELS}, splat)
    assert found["reprojection"] == {"splat": splat, **alone.summary()}
