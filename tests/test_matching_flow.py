import itertools

import cv2
import numpy as np
import pytest
from PIL import Image

from lift3d.scene import Camera, View
from lift3d.scene.errors import InputError
from lift3d.scene.protocols import Matcher
from lift3d.segmentation.matching import BACKENDS
from lift3d.segmentation.matching.flow import FlowMatcherConfig, _texture


def view(name, image, loads=None):
    height, width = image.shape[:2]

    def load():
        if loads is not None:
            loads.append(name)
        return image

    return View(name, Camera(np.eye(3), width, height), load)


def cloth(height, width, seed=0, grain=4.0):
    """Coloured smooth noise, similar to a photograph."""
    noise = np.random.default_rng(seed).standard_normal((height, width, 3)).astype(np.float32)
    smooth = np.asarray(cv2.GaussianBlur(noise, (0, 0), grain))
    return np.clip(128 + 45 * smooth / smooth.std(), 0, 255).astype(np.uint8)


def warp_of(xy, size):
    """A rotation by 2 degrees, a small zoom and a shift, about the centre."""
    width, height = size
    angle, zoom = np.deg2rad(2.0), 1.03
    turn = zoom * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    return (xy - centre) @ turn.T + centre + [4.0, -3.0]


def warped(image):
    """The image whose pixel warp_of(x) shows what `image` shows at x."""
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [width - 1, 0], [0, height - 1]], np.float32)
    affine = cv2.getAffineTransform(corners, warp_of(corners, (width, height)).astype(np.float32))
    return np.asarray(cv2.warpAffine(image, affine, (width, height)), np.uint8)


@pytest.mark.parametrize("side", [512, 256])
def test_a_known_warp_is_found_to_a_pixel_of_the_working_image(side):
    image = cloth(384, 512)
    found = FlowMatcherConfig(side=side).build().match(view("a", image), view("b", warped(image)))
    truth = warp_of(found.xy_in_a.astype(np.float64), (512, 384))
    error = np.linalg.norm(found.xy_in_b - truth, axis=1)
    possible = (side // 4) * (side * 3 // 4 // 4)
    assert len(found) > 0.8 * possible
    assert np.median(error) < 0.2 * 512 / side
    assert (error < 512 / side).mean() > 0.98
    assert found.confidence.min() >= 0
    assert found.confidence.max() <= 1


def test_a_still_picture_stays_where_it_is_at_every_scale():
    image = cloth(300, 400)
    for side in (128, 200, 400, 1000):
        found = FlowMatcherConfig(side=side).build().match(view("a", image), view("b", image))
        np.testing.assert_allclose(found.xy_in_a, found.xy_in_b, atol=0.05 * 400 / side + 0.05)
        # Centres of the scaled-down pixels, in the middle of the pixels they cover.
        scale = 400 / min(side, 400)
        np.testing.assert_allclose(found.xy_in_a[0], [(2 + 0.5) * scale - 0.5] * 2, atol=0.02)


def test_images_of_different_sizes_are_matched_in_their_own_pixels():
    image = cloth(240, 320)
    half = np.asarray(cv2.resize(image, (160, 120), interpolation=cv2.INTER_AREA))
    found = FlowMatcherConfig().build().match(view("a", image), view("b", half))
    assert len(found) > 4000
    expected = (found.xy_in_a + 0.5) / 2 - 0.5
    assert np.quantile(np.abs(found.xy_in_b - expected), 0.95) < 0.3


def moved_square():
    """A square of 80 pixels moves 24 to the right over a static background."""
    ground, square = cloth(240, 320, 1), cloth(80, 80, 2)
    before, after = ground.copy(), ground.copy()
    before[80:160, 100:180] = square
    after[80:160, 124:204] = square
    return before, after


def test_occluded_pixels_have_no_match():
    before, after = moved_square()
    config = FlowMatcherConfig(stride=2)
    # The ground right of the square is visible in `before` and occluded in `after`.
    x, y = config.build().match(view("a", before), view("b", after)).xy_in_a.T
    hidden = (x >= 182) & (x < 202) & (y >= 84) & (y < 156)
    assert hidden.sum() <= 0.05 * 10 * 36
    # The ground that the square uncovers is not visible in `before`.
    x, y = config.build().match(view("b", after), view("a", before)).xy_in_a.T
    uncovered = (x >= 102) & (x < 122) & (y >= 84) & (y < 156)
    assert uncovered.sum() <= 0.05 * 10 * 36


def test_the_square_and_the_ground_move_separately():
    before, after = moved_square()
    found = FlowMatcherConfig(stride=2).build().match(view("a", before), view("b", after))
    (x, y), step = found.xy_in_a.T, found.xy_in_b - found.xy_in_a
    on_square = (x >= 108) & (x < 172) & (y >= 88) & (y < 152)
    far_off = (x < 80) | (x > 230) | (y < 60) | (y > 180)
    assert on_square.sum() > 0.9 * 32 * 32
    assert np.median(np.abs(step[on_square] - [24, 0])) < 0.1
    assert np.median(np.abs(step[far_off])) < 0.1


def test_matches_without_texture_have_lower_confidence():
    image = np.full((200, 200, 3), 128, np.uint8)
    image[:, 100:] = cloth(200, 100)
    found = FlowMatcherConfig().build().match(view("a", image), view("b", image))
    flat = found.xy_in_a[:, 0] < 80
    textured = found.xy_in_a[:, 0] > 110
    np.testing.assert_allclose(found.confidence[flat], 0.25, atol=0.01)
    assert np.median(found.confidence[textured]) > 0.5


def test_texture_is_the_smaller_slope_in_grey_values_per_pixel():
    x, y = np.meshgrid(np.arange(60), np.arange(60))
    along_x = (3 * x).astype(np.uint8)
    np.testing.assert_allclose(_texture(along_x)[10:50, 10:50], 0, atol=1e-2)
    # Zigzags: slopes of 3 to the left half of the time, 3 downwards the other half.
    blocks = np.where((x // 4 + y // 4) % 2, 3 * (x % 4), 3 * (y % 4)).astype(np.uint8)
    assert 1 < np.median(_texture(blocks)) < 6


def test_unrelated_pictures_have_few_matches():
    found = (
        FlowMatcherConfig()
        .build()
        .match(view("a", cloth(240, 320, 1)), view("b", cloth(240, 320, 2)))
    )
    assert len(found) < 0.1 * 80 * 60


def test_the_border_and_the_stride_thin_the_grid():
    a = view("a", cloth(64, 64))
    everything = FlowMatcherConfig(stride=1, border=0).build().match(a, a)
    assert len(everything) == 64 * 64
    assert len(FlowMatcherConfig(stride=4, border=0).build().match(a, a)) == 16 * 16
    inner = FlowMatcherConfig(stride=1, border=5).build().match(a, a)
    assert inner.xy_in_a.min() == 5
    assert inner.xy_in_a.max() == 58


def test_a_stricter_tolerance_leaves_fewer():
    image = cloth(240, 320)
    pair = view("a", image), view("b", warped(image))
    counts = [len(FlowMatcherConfig(tolerance=t).build().match(*pair)) for t in (0.02, 0.2, 2.0)]
    assert counts[0] < counts[1] < counts[2]


def test_an_image_is_decoded_once_along_a_video():
    loads = []
    image = cloth(64, 96)
    views = [view(str(i), image, loads) for i in range(4)]
    matcher = FlowMatcherConfig().build()
    for before, after in itertools.pairwise(views):
        matcher.match(before, after)
        matcher.match(after, before)
    assert loads == ["0", "1", "2", "3"]


def test_the_same_pair_gives_the_same_matches():
    image = cloth(128, 128)
    a, b = view("a", image), view("b", warped(image))
    matcher = FlowMatcherConfig().build()
    first = matcher.match(a, b)
    matcher.match(b, a)
    again = matcher.match(a, b)
    np.testing.assert_array_equal(first.xy_in_b, again.xy_in_b)
    np.testing.assert_array_equal(first.confidence, again.confidence)


def test_flow_is_a_registered_matcher():
    assert isinstance(BACKENDS["flow"]().build(), Matcher)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"stride": 0}, "stride is 0"), ({"side": 8}, "side is 8"), ({"tolerance": 0.0}, "tolerance")],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        FlowMatcherConfig(**options).build()


def test_an_image_too_small_for_flow_is_named():
    a = view("stamp", cloth(10, 300))
    with pytest.raises(InputError, match="stamp has 300x10"):
        FlowMatcherConfig().build().match(a, a)


@pytest.mark.parametrize("sequence", ["blackswan", "car-shadow"])
def test_masks_propagated_along_a_real_video_agree(shared_data, sequence):
    """In neighbouring frames, matches start and end on the same object."""
    folder = shared_data("davis2016_val_subset")
    images = sorted(folder.glob(f"JPEGImages/**/{sequence}/*.jpg"))
    masks = sorted(folder.glob(f"Annotations/**/{sequence}/*.png"))
    assert len(images) == len(masks) > 20
    matcher = FlowMatcherConfig().build()
    views = [
        view(path.stem, np.asarray(Image.open(path))) for path in images[:21:5] + images[1:22:5]
    ]
    inside = [np.asarray(Image.open(path)) > 0 for path in masks[:21:5] + masks[1:22:5]]
    agree, found_on, on = [], 0, 0
    for i in range(5):
        found = matcher.match(views[i], views[i + 5])
        x, y = np.rint(found.xy_in_a).astype(int).T
        to_x, to_y = np.rint(found.xy_in_b).astype(int).T
        from_, to = inside[i][y, x], inside[i + 5][to_y, to_x]
        agree.append((from_ & to).sum() / (from_ | to).sum())
        found_on += from_.sum()
        on += inside[i].mean() * 128 * 72
    assert np.mean(agree) > 0.95
    assert found_on > 0.6 * on
