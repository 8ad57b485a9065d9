from dataclasses import replace

import numpy as np

from lift3d.scene import Camera, Prompt, View
from lift3d.scene.prefetch import prefetch
from lift3d.segmentation.dissimilarity import Picture, pixel_edges
from lift3d.segmentation.regions import Regions, RegionsConfig

WIDTH, HEIGHT = 160, 120


def view(image, depth=None):
    K = np.array([[140.0, 0, 79.5], [0, 140.0, 59.5], [0, 0, 1]])
    camera = Camera(K, WIDTH, HEIGHT, np.eye(4))
    return View("0", camera, lambda: image, None if depth is None else lambda: depth)


def plain(value=128):
    return np.full((HEIGHT, WIDTH, 3), value, np.uint8)


def square(rows=slice(30, 80), columns=slice(40, 100)):
    inside = np.zeros((HEIGHT, WIDTH), bool)
    inside[rows, columns] = True
    return inside


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def best(masks, truth):
    return max(iou(mask, truth) for mask in masks.stack)


def test_a_square_of_another_colour_is_a_mask_without_depth():
    image = plain()
    image[square()] = (200, 60, 40)
    masks = RegionsConfig().build().segment(view(image))
    assert best(masks, square()) > 0.9
    assert len(masks) == 2


def test_a_box_of_the_walls_colour_is_found_by_its_depth():
    depth = np.where(square(), np.float32(1.5), np.float32(2.0))
    masks = RegionsConfig().build().segment(view(plain(), depth))
    assert best(masks, square()) > 0.9
    assert len(masks) == 2


def test_a_pattern_on_the_wall_does_not_split_the_box_before_it():
    depth = np.where(square(), np.float32(1.5), np.float32(2.0))
    faint = plain()
    faint[:, ::16] += 12
    assert best(RegionsConfig().build().segment(view(faint, depth)), square()) > 0.85


def test_floor_and_wall_of_equal_colour_are_split_at_their_edge():
    # Floor 1 m under the camera, wall 3 m ahead: they meet in the row where both have z = 3.
    row = np.arange(HEIGHT)[:, None]
    floor = 140.0 / np.maximum(row - 59.5, 1e-3)
    depth = np.broadcast_to(np.minimum(floor, 3.0), (HEIGHT, WIDTH)).astype(np.float32)
    truth = np.broadcast_to(floor < 3.0, depth.shape)
    masks = RegionsConfig().build().segment(view(plain(), depth))
    assert best(masks, truth) > 0.85
    assert best(masks, ~truth) > 0.85


def test_masks_are_disjoint_and_the_same_every_time():
    rng = np.random.default_rng(0)
    image = np.kron(rng.integers(0, 255, (6, 8, 3)), np.ones((20, 20, 1))).astype(np.uint8)
    first = RegionsConfig().build().segment(view(image))
    second = RegionsConfig().build().segment(view(image))
    assert len(first) > 20
    assert first.stack.sum(0).max() == 1
    np.testing.assert_array_equal(first.stack, second.stack)


def test_a_prompt_includes_positive_points_and_excludes_negative_points():
    image = plain()
    image[square()] = (200, 60, 40)
    image[square(columns=slice(100, 140))] = (210, 90, 40)  # a neighbour of nearly that colour
    regions = RegionsConfig().build()
    on = np.array([[60.0, 50.0], [80.0, 60.0]])
    both = Prompt(np.array([[60.0, 50.0], [120.0, 60.0]]), np.array([True, True]))
    one = Prompt(np.concatenate([on, [[120.0, 60.0]]]), np.array([True, True, False]))
    answers = regions.prompt(view(image), [both, one])
    assert iou(answers.stack[0], square(columns=slice(40, 140))) > 0.85
    assert iou(answers.stack[1], square()) > 0.85
    assert (answers.scores > 0.8).all()


def test_a_mask_prompt_chooses_between_part_and_object():
    image = plain()
    whole, part = square(), square(slice(40, 60), slice(60, 80))
    image[whole] = (200, 60, 40)
    image[part] = (200, 90, 60)
    regions = RegionsConfig().build()
    at = np.array([[70.0, 50.0]])
    seen = view(image)
    for wanted in (whole, part):
        answer = regions.prompt(seen, [Prompt(at, np.array([True]), mask=wanted)])
        assert iou(answer.stack[0], wanted) > 0.8


def test_alternatives_grow_and_hold_the_point():
    image = plain()
    image[square()] = (200, 60, 40)
    image[square(slice(40, 60), slice(60, 80))] = (200, 110, 70)
    answers = (
        RegionsConfig()
        .build()
        .alternatives(view(image), Prompt(np.array([[70.0, 50.0]]), np.array([True])))
    )
    areas = answers.stack.sum((1, 2))
    assert 2 <= len(answers) <= 3
    assert (np.diff(areas) > 0).all()
    assert answers.stack[:, 50, 70].all()


def test_a_prompt_without_positives_gets_an_empty_mask():
    nothing = Prompt(np.array([[5.0, 5.0]]), np.array([False]))
    answer = RegionsConfig().build().prompt(view(plain()), [nothing])
    assert not answer.stack.any()
    assert answer.scores[0] == 0


def test_depth_of_another_camera_is_registered_to_the_picture():
    moved = np.eye(4)
    moved[
        0, 3
    ] = -0.1  # the depth camera is 10 cm to the left, so objects are further to the right in it
    seen = view(plain())
    depth = np.where(square(columns=slice(50, 110)), np.float32(1.4), np.float32(2.8))
    two = View("0", seen.camera, seen.load_image, lambda: depth, depth_camera=seen.camera.at(moved))
    masks = RegionsConfig().build().segment(two)
    assert best(masks, square()) > 0.85


def test_without_depth_texture_gives_few_large_masks():
    grain = np.random.default_rng(0).uniform(0, 255, (HEIGHT // 8, WIDTH // 8, 3))
    image = np.kron(grain, np.ones((8, 8, 1))).astype(np.uint8)
    image[:, : WIDTH // 2] = image[:, : WIDTH // 2] // 4 + 60  # the left half is calmer
    default = RegionsConfig()
    fine = replace(default, level_alone=default.level, smallest_alone=default.smallest)
    few, many = (each.build().segment(view(image)) for each in (default, fine))
    assert len(few) < len(many) / 2
    assert few.stack.sum((1, 2)).min() >= default.smallest_alone * image[..., 0].size
    flat = view(image, np.full((HEIGHT, WIDTH), 2, np.float32))
    same = [each.build().segment(flat).stack for each in (default, fine)]
    np.testing.assert_array_equal(*same)  # with depth, the settings for none do not count


def test_views_segmented_in_threads_have_the_masks_of_one_after_the_other():
    segmenter, views = RegionsConfig().build(), []
    for step in range(6):
        image = plain()
        image[square(columns=slice(20 + 10 * step, 80 + 10 * step))] = (200, 60, 40)
        views.append(view(image, np.full((HEIGHT, WIDTH), 2 + step / 10, np.float32)))
    expected = [segmenter.segment(each).stack for each in views]
    for stack, masks in zip(expected, prefetch(views, segmenter.segment, threads=3), strict=True):
        np.testing.assert_array_equal(masks.stack, stack)


def test_the_tree_of_a_view_is_its_own_where_another_thread_keeps_another():
    class Raced(Regions):
        def __setattr__(self, name, value):
            super().__setattr__(name, value)
            if name == "_cached" and value is not None:
                super().__setattr__(name, (None, None))  # as another thread may at once

    one = view(plain())
    expected = RegionsConfig().build().segment(one).stack
    np.testing.assert_array_equal(Raced(RegionsConfig()).segment(one).stack, expected)


def test_depth_is_seen_through_the_views_own_lens():
    """Also where the view before had another; narrow, the slope of the wall is steeper."""
    depth = np.linspace(2, 4, WIDTH, dtype=np.float32) * np.ones((HEIGHT, 1), np.float32)
    K = np.array([[140.0, 0, 79.5], [0, 140.0, 59.5], [0, 0, 1]])
    weights = []
    for zoom in (1, 8, 1):
        camera = Camera(K * [[zoom, 1, 1], [1, zoom, 1], [1, 1, 1]], WIDTH, HEIGHT, np.eye(4))
        depth_steps = pixel_edges(Picture(plain(), depth, camera), 0.5, 1.2, 0.7, 2.5, 0.3)[2]
        weights.append(depth_steps)
    np.testing.assert_array_equal(weights[0], weights[2])
    assert np.abs(weights[0] - weights[1]).max() > 0.01
