"""Heat maps show the areas where views disagree, not the noise of the depth."""

import numpy as np
from PIL import Image

from lift3d.evaluation.check import write_heat


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
