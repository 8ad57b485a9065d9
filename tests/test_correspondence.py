"""Ego-Exo4D's correspondence measures, by hand."""

import math
import os
from pathlib import Path

import numpy as np
import pytest

from lift3d.evaluation.metrics.correspondence import (
    contour,
    correspondence,
    iou,
    location_error,
    small,
)
from lift3d.scene.errors import InputError

PIPELINE = Path(os.environ.get("LIFT3D_SHARED", "/work/shared")) / "facts/vggt_golden/pipeline.npz"


def box(left, top, width, height, shape=(480, 480)):
    mask = np.zeros(shape, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def test_a_moved_mask_has_its_location_error_and_a_perfect_contour():
    truth, moved = box(100, 100, 40, 40), box(130, 140, 40, 40)
    assert location_error(moved, truth) == pytest.approx(50 / math.hypot(480, 480))
    assert contour(moved, truth) == 1
    assert iou(moved, truth) == pytest.approx(0)
    half = box(120, 100, 40, 40)
    assert iou(half, truth) == pytest.approx(1 / 3)


def test_masks_are_compared_at_480_pixels_of_the_longer_side():
    assert small(np.ones((540, 960), bool)).shape == (270, 480)
    assert small(box(10, 10, 2, 2, (24, 12))).shape == (480, 240)


def test_means_are_over_pictures_with_the_object_and_existence_is_balanced():
    truth, nothing = box(100, 100, 40, 40), np.zeros((480, 480), bool)
    pairs = [
        (truth, truth, 0.9),
        (nothing, truth, 0.1),
        (truth, nothing, 0.2),
    ]
    found = correspondence(pairs)
    assert found.iou == pytest.approx(0.5)
    assert found.location_error == pytest.approx(0.5)
    assert found.contour_accuracy == pytest.approx(0.5)
    assert found.existence == pytest.approx(0.75)  # (1 of 2 + 1 of 1) / 2
    assert (found.there, found.absent) == (2, 1)
    assert "Ego-Exo4D" in found.summary()["protocol"]
    assert correspondence([]).summary()["iou"] is None


def test_masks_of_different_sizes_are_refused():
    with pytest.raises(InputError, match="its truth"):
        correspondence([(np.zeros((2, 2), bool), np.zeros((3, 3), bool), 1.0)])


@pytest.mark.skipif(not PIPELINE.exists(), reason=f"no golden numbers: {PIPELINE}")
def test_the_iou_of_vggt_segmentor_agrees():
    with np.load(PIPELINE) as stored:
        found, truth = stored["loss.logits"] > 0, stored["loss.gt"] > 0
        ours = [iou(a, b, 1e-6) for a, b in zip(found, truth, strict=True)]
        np.testing.assert_allclose(ours, stored["iou"], rtol=1e-5)
