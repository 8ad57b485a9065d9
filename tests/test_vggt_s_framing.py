"""Points, crops, recovery and losses of VGGT-Segmentor against golden numbers."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sklearn", reason="needs scikit-learn")
from lift3d.networks.vggt_s import framing, losses, points  # noqa: E402
from lift3d.networks.vggt_s.framing import Window  # noqa: E402
from lift3d.networks.vggt_s.prompts import sampled  # noqa: E402

GOLDEN = Path(os.environ.get("LIFT3D_SHARED", "/work/shared")) / "facts/vggt_golden"
golden = pytest.mark.skipif(
    not (GOLDEN / "pipeline.npz").exists(), reason=f"no golden numbers in {GOLDEN}"
)
SIZE = 518


@pytest.fixture(scope="module")
def stored():
    with np.load(GOLDEN / "pipeline.npz") as file:
        return {name: file[name] for name in file.files}


def formula(a, b, height, width):
    y, x = np.mgrid[:height, :width]
    channels = [(a * x + b * y + 61 * c + (x * y) // 97) % 256 for c in range(3)]
    return np.stack(channels, -1).astype(np.uint8)


def ellipse(height, width, centre, radii):
    y, x = np.mgrid[:height, :width]
    return ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1


@pytest.fixture(scope="module")
def pictures():
    rule = json.loads((GOLDEN / "pipeline.json").read_text())
    a, b = rule["a"], rule["b"]
    exo = formula(a, b, 540, 960), ellipse(540, 960, (310, 420), (60, 45))
    ego = formula(b, a, 704, 704), ellipse(704, 704, (90, 600), (80, 230))
    return exo, ego


def unpacked(bits, *shape):
    return np.unpackbits(bits, count=int(np.prod(shape))).reshape(shape).astype(bool)


def as_set(xy):
    return {tuple(each) for each in np.asarray(xy).tolist()}


@golden
@pytest.mark.parametrize("count", [5, 8])
def test_points_of_a_mask_agree_with_the_official_ones(stored, count):
    shape = stored["kmeans.shape"]
    masks = unpacked(stored["kmeans.masks"], *shape).reshape(-1, *shape[-2:])
    for mask, theirs in zip(masks, stored[f"kmeans.points_{count}"], strict=True):
        found = points.of_mask(mask, count)
        assert found.shape == (count, 2)
        assert as_set(found) == as_set(theirs[0])


@golden
def test_the_tracked_points_that_are_kept_and_their_centres_agree(stored):
    kept = points.inliers(stored["track50"])
    np.testing.assert_allclose(np.sort(kept, 0), np.sort(stored["inliers"], 0))
    centres = points.clustered(stored["inliers"], 5)
    order, theirs = np.lexsort(centres.T), np.lexsort(stored["cluster5_centers"].T)
    np.testing.assert_allclose(centres[order], stored["cluster5_centers"][theirs], rtol=1e-5)


@golden
def test_crops_grow_with_the_box_as_in_the_official_code(stored):
    variants = {"3x": (180, 50, 2.4), "2x": (270, 80, 2.25), "1.5x": (360, 100, 1.8)}
    for name, (smallest, near, slope) in variants.items():
        found = [
            framing.crop_side(float(box), 540, smallest, near, slope)
            for box in stored["crop_size.box"]
        ]
        assert found == stored[f"crop_size.{name}"].tolist()


@golden
def test_the_crop_around_tracked_points_agrees(stored, pictures):
    image, mask = pictures[0]
    window = framing.around_points(stored["inliers"], 540, 960)
    left, top, right, bottom, side, *_ = stored["exo_tar.meta"].tolist()
    assert (window.left, window.top, window.width, window.height) == (left, top, side, side)
    assert (right, bottom) == (left + side, top + side)
    same_picture(window.cut(image, SIZE), stored["exo_tar.img_stride37"])
    cut = window.cut_mask(mask, SIZE)
    np.testing.assert_array_equal(cut, unpacked(stored["exo_tar.mask_bits"], SIZE, SIZE))
    np.testing.assert_allclose(
        window.inward(stored["inliers"], SIZE), stored["exo_tar.points"], atol=1e-3
    )


@golden
def test_the_squares_around_masks_and_their_enlargement_agree(stored, pictures):
    for name, (image, mask), window in (
        ("exo", pictures[0], framing.around_mask(pictures[0][1])),
        ("ego", pictures[1], framing.whole(704, 704)),
    ):
        cut, cut_mask = window.cut(image, SIZE), window.cut_mask(mask, SIZE)
        if name == "exo":
            same_picture(cut, stored["exo_src.img_stride37"])
            theirs = unpacked(stored["exo_src.mask_bits"], SIZE, SIZE)
            np.testing.assert_array_equal(cut_mask, theirs)
        else:
            same_picture(cut, stored["ego_518.img_stride37"])
        zoom = framing.zoomed(cut_mask)
        same_picture(zoom.cut(cut, SIZE), stored[f"{name}_src_zoom.img_stride37"])
        theirs = unpacked(stored[f"{name}_src_zoom.mask_bits"], SIZE, SIZE)
        np.testing.assert_array_equal(zoom.cut_mask(cut_mask, SIZE), theirs)


def same_picture(ours, theirs):
    """One grey level: other versions of OpenCV may round otherwise."""
    assert np.abs(ours[::37, ::37].astype(int) - theirs.astype(int)).max() <= 1


@golden
def test_logits_and_points_come_back_into_the_picture(stored):
    wanted = stored["recover.mask"]
    rows, columns = np.nonzero(wanted > framing.OUTSIDE)
    window = Window(
        int(columns.min()), int(rows.min()), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1
    )
    found = window.recovered(stored["recover.logits"], *wanted.shape)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    side = stored["recover.logits"].shape[0]
    within = window.inward(stored["recover.points"], side)
    np.testing.assert_allclose(window.outward(within, side), stored["recover.points"], atol=1e-4)


@golden
@pytest.mark.parametrize("number", [0, 1])
def test_masks_of_the_golden_pairs_come_back_into_their_pictures(number):
    meta = json.loads((GOLDEN / "config.json").read_text())
    crop = meta["crop_meta"][number]
    with np.load(GOLDEN / "square_pairs.npz") as file:
        shape = file[f"head.recovered_shape_{number}"].tolist()
        last = meta["head"]["passes"] - 1
        logits = file[f"head.pass{last}.mask_logits"][number, 0]
        window = framing.whole(*shape)
        if crop is not None:
            window = Window(crop["x1"], crop["y1"], crop["crop_size"], crop["crop_size"])
        found = window.recovered(logits, *shape) > 0
        theirs = unpacked(file[f"head.recovered_mask_bits_{number}"], *shape)
        assert (found != theirs).mean() < 1e-5
        xy = window.outward(file["tar_points"][number], logits.shape[0])
        np.testing.assert_allclose(xy, file[f"head.recovered_points_{number}"], rtol=1e-5)


@golden
def test_the_losses_agree(stored):
    logits, truth = (torch.from_numpy(stored[f"loss.{name}"]).float() for name in ("logits", "gt"))
    np.testing.assert_allclose(
        losses.focal(logits, truth), stored["loss.focal_per_sample"], rtol=1e-5
    )
    np.testing.assert_allclose(
        losses.dice(logits, truth), stored["loss.dice_per_sample"], rtol=1e-5
    )
    np.testing.assert_allclose(losses.loss(logits, truth), stored["loss.total"], rtol=1e-5)


@golden
def test_features_are_sampled_as_in_the_official_code(stored):
    maps, xy = (torch.from_numpy(stored[f"sample.{name}"]) for name in ("feat", "points"))
    sizes = [size for size in range(2, 2 * SIZE) if size // 2 == maps.shape[-1]]
    wanted = stored["sample.out"]
    best = min(np.abs(sampled(maps, xy, s).numpy() - wanted).max() for s in [*sizes, SIZE])
    assert best < 1e-5
