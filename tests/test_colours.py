"""Colours are stable, differ between neighbouring ids, and overlay pictures correctly."""

import numpy as np
import pytest

from lift3d.scene.colours import UNLABELLED, heat_colours, label_colours, oklch, overlay


def test_an_id_has_the_same_colour_in_every_label_map():
    alone = label_colours(np.array([7], np.int32))[0]
    among = label_colours(np.arange(5000, dtype=np.int32).reshape(50, 100))[0, 7]
    beyond_the_table = label_colours(np.array([7, 1 << 20], np.int32))[0]
    assert alone.tolist() == among.tolist() == beyond_the_table.tolist()


def test_unlabelled_is_mid_grey_and_no_object_is():
    colours = label_colours(np.arange(-1, 300, dtype=np.int32))
    assert colours[:2].tolist() == [list(UNLABELLED)] * 2
    spread = colours[2:].max(1).astype(int) - colours[2:].min(1)
    assert spread.min() > 25


def test_the_first_60_ids_have_distinct_colours():
    colours = label_colours(np.arange(60, dtype=np.int32)).astype(int)
    apart = np.abs(colours[:, None] - colours[None]).sum(-1)
    np.fill_diagonal(apart, 999)
    assert apart.min() > 30
    ids = np.arange(59)
    assert apart[ids, ids + 1].min() > 80


@pytest.mark.parametrize("shape", [(0,), (3,), (2, 0), (2, 3, 4)])
def test_label_colours_keep_the_shape(shape):
    assert label_colours(np.zeros(shape, np.int32)).shape == (*shape, 3)


def test_heat_grows_lighter_and_the_unmeasured_is_grey():
    ramp = heat_colours(np.linspace(0, 1, 20)).astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(ramp) > 0).all()
    odd = heat_colours(np.array([np.nan, -1.0, 0.0, 2.0, 1.0]))
    assert odd[0].tolist() == list(UNLABELLED)
    assert odd[1].tolist() == odd[2].tolist()
    assert odd[3].tolist() == odd[4].tolist()


def test_oklch_of_no_chroma_is_grey_and_white_is_white():
    none = np.zeros(2)
    assert oklch(np.array([0.0, 1.0]), none, none).tolist() == [[0, 0, 0], [255, 255, 255]]


def test_overlay_mixes_labelled_pixels_and_keeps_the_others_recognisable():
    image = np.full((4, 6, 3), (200, 100, 0), np.uint8)
    labels = np.zeros((4, 6), np.int32)
    labels[:, 3:] = 5
    painted = overlay(image, labels, alpha=0.25, edges=False)
    colour = label_colours(np.array([5], np.int32))[0]
    expected = np.rint(0.75 * image[0, 0] + 0.25 * colour.astype(float))
    assert np.abs(painted[0, 4] - expected).max() <= 1
    # The rest: half of itself, and 0.3 of its mean, 100.
    assert painted[0, 0].tolist() == [130, 80, 30]


def test_overlay_draws_borders_dark_on_one_side_and_coloured_on_the_other():
    image = np.zeros((2, 6, 3), np.uint8)
    labels = np.array([[1, 1, 1, 2, 2, 2]] * 2, np.int32)
    painted = overlay(image, labels, alpha=0.5)
    colours = label_colours(labels)
    assert painted[0, 2].tolist() == [20, 20, 20]
    assert painted[0, 3].tolist() == colours[0, 3].tolist()
    assert np.abs(painted[0, 0].astype(int) - colours[0, 0] / 2).max() <= 1
