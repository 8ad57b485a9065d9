"""Pictures reach the network as the official loader gives them, and lead back to their pixels."""

import json

import numpy as np
import pytest
from conftest import SHARED

from lift3d.networks.vggt.preprocess import on_white, prepare, together
from lift3d.scene.errors import FrameError

GOLDEN = SHARED / "facts" / "vggt_golden"
golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"needs the golden numbers in {GOLDEN}")


def formula(height, width, a, b):
    y, x = np.mgrid[:height, :width]
    channels = [(a * x + b * y + 61 * c + (x * y) // 97) % 256 for c in range(3)]
    return np.stack(channels, 2).astype(np.uint8)


@golden
@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("mode", ["crop", "pad"])
def test_pictures_equal_those_of_the_official_loader(number, mode):
    stored = np.load(GOLDEN / "pipeline.npz")
    rule = json.loads((GOLDEN / "pipeline.json").read_text())
    height, width = stored[f"load{number}.input_hw"]
    image = prepare(formula(height, width, rule["a"] + number, rule["b"] + number), mode)
    assert list(image.pixels.shape) == stored[f"load{number}.{mode}.shape"].tolist()
    ours, theirs = image.pixels[:, ::37, ::37], stored[f"load{number}.{mode}.stride37"]
    assert np.abs(ours - theirs).max() < 1e-6


@golden
def test_transparent_pictures_lie_on_white():
    stored = np.load(GOLDEN / "pipeline.npz")
    rule = json.loads((GOLDEN / "pipeline.json").read_text())
    alpha = np.broadcast_to(6 * np.arange(40, dtype=np.uint8), (40, 40))
    image = np.dstack([formula(40, 40, rule["a"], rule["b"]), alpha])
    ours = prepare(on_white(image)).pixels[:, ::37, ::37]
    assert np.abs(ours - stored["load_rgba.stride37"]).max() < 1e-6


@pytest.mark.parametrize("mode", ["crop", "pad"])
@pytest.mark.parametrize("shape", [(300, 700), (700, 300), (518, 518)])
def test_pixels_lead_back_to_the_original(mode, shape):
    """A picture whose red and green are its column and row."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    image = np.stack([x * 255 / shape[1], y * 255 / shape[0], x * 0], 2).astype(np.uint8)
    found = prepare(image, mode)
    rows, columns = np.nonzero(found.inside)
    at = found.original_from_network @ np.stack([columns, rows, np.ones(len(rows))])
    seen = found.rgb[rows, columns].astype(float)
    inner = (np.minimum(at[:2].T, np.array(shape[::-1]) - 1 - at[:2].T) > 8).all(1)
    assert inner.mean() > 0.8
    assert np.abs(seen[inner, 0] * shape[1] / 255 - at[0, inner]).max() < 0.02 * shape[1]
    assert np.abs(seen[inner, 1] * shape[0] / 255 - at[1, inner]).max() < 0.02 * shape[0]
    assert (found.rgb[~found.inside] == 255).all()


def test_pictures_of_several_shapes_are_padded_to_one():
    wide, square = prepare(np.zeros((300, 700, 3), np.uint8)), prepare(formula(90, 90, 3, 5))
    found = together([wide, square])
    assert [image.rgb.shape for image in found] == [(518, 518, 3)] * 2
    assert found[0].inside.sum() == wide.height * wide.width
    assert found[1] is square
    before = wide.original_from_network @ [10, 20, 1]
    after = found[0].original_from_network @ [10 + found[0].left, 20 + found[0].top, 1]
    assert np.allclose(before, after)


def test_pictures_too_thin_for_a_patch_are_bad_frames():
    with pytest.raises(FrameError, match="too thin"):
        prepare(np.zeros((5, 900, 3), np.uint8))
