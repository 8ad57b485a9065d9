"""Heat maps show the areas where views disagree, not the noise of the depth."""

import cv2
import numpy as np
from PIL import Image

from lift3d.evaluation.check import write_heat
from lift3d.run.report.pictures import heat_picture
from lift3d.scene.colours import heat_colours


def noisy(rng, shape=(240, 320)):
    """Nothing in disagreement but 5 % of all pixels, and a line of two pixels."""
    values = np.where(rng.random(shape) < 0.05, 1.0, 0.0).astype(np.float32)
    values[:, 100:102] = 1.0
    return values


def stored(path, values):
    write_heat(path, values)
    with Image.open(path) as picture:
        return np.asarray(picture), picture.mode, picture.convert("RGB")


def test_specks_and_thin_lines_are_left_out_and_areas_stay(tmp_path):
    values = noisy(np.random.default_rng(0))
    values[150:200, 200:260] = 0.9
    index, _, _ = stored(tmp_path / "a.png", values)
    area = np.zeros(values.shape, bool)
    area[150:200, 200:260] = True
    assert (index[155:195, 205:255] > 180).all()
    near = np.zeros_like(area)
    near[140:210, 190:270] = True
    assert (index[~near] == 1).all()  # none: the smallest value of the scale


def test_what_was_not_compared_stays_so_but_for_single_gaps(tmp_path):
    values = np.zeros((240, 320), np.float32)
    values[:, :120] = np.nan
    values[::7, 200::9] = np.nan
    index, _, _ = stored(tmp_path / "a.png", values)
    assert (index[:, :110] == 0).all()
    assert (index[:, 130:] == 1).all()


def test_a_heat_map_opens_in_colour_and_says_apart_agreed_and_not_compared(tmp_path):
    values = np.zeros((240, 320), np.float32)
    values[:80], values[160:] = np.nan, 1.0
    index, mode, picture = stored(tmp_path / "a.png", values)
    assert mode == "P"
    rgb = np.asarray(picture).astype(int)
    assert rgb[20, 20].tolist() == [128, 128, 128]
    assert np.abs(rgb[120, 20] - rgb[20, 20]).sum() > 100
    assert rgb[220, 20].sum() > 500
    assert index[220, 20] == 255


def test_a_view_where_nothing_was_compared_is_grey_all_over(tmp_path):
    index, _, _ = stored(tmp_path / "a.png", np.full((48, 64), np.nan, np.float32))
    assert (index == 0).all()


def slow_heat_picture(index, image):
    values = np.where(index > 0, (index.astype(np.float32) - 1) / 254, np.nan)
    values = cv2.resize(values, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    grey = image.astype(np.float32).mean(-1, keepdims=True)
    through = np.where(np.isnan(values), 0.25, np.where(values > 0, 0.15, 1.0))[..., None]
    shade = np.where(np.isnan(values)[..., None], grey, 0.55 * grey)
    mixed = through * shade + (1 - through) * heat_colours(values)
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def test_a_heat_picture_is_the_mix_of_its_definition():
    rng = np.random.default_rng(0)
    index = rng.integers(0, 256, (30, 40)).astype(np.uint8)
    image = rng.integers(0, 256, (45, 60, 3)).astype(np.uint8)
    np.testing.assert_array_equal(heat_picture(index, image), slow_heat_picture(index, image))
    values = np.where(index > 0, (index - 1.0) / 254, np.nan)
    np.testing.assert_array_equal(heat_picture(index), heat_colours(values))
