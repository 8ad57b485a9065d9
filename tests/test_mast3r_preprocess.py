"""Pictures are prepared to the last bit as the official code does, and pixels map back."""

import numpy as np
import pytest
from conftest import SHARED
from PIL import Image as Pillow
from PIL import ImageOps

from lift3d.networks.mast3r.preprocess import prepare
from lift3d.scene import Camera
from lift3d.scene.errors import FrameError, InputError

GOLDEN = SHARED / "facts" / "mast3r_golden"
golden = pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"needs the golden numbers in {GOLDEN}")


def read_upright(path):
    """As the official code reads: turned by EXIF, grey repeated, transparency dropped."""
    with Pillow.open(path) as file:
        return np.asarray(ImageOps.exif_transpose(file).convert("RGB"))


@golden
def test_unusual_pictures_are_prepared_as_by_the_official_code():
    expected = np.load(GOLDEN / "preprocess" / "preprocess.npz")
    assert len(expected.files) == 8
    for key in expected.files:
        name, size = key.split("@")
        ours = prepare(read_upright(GOLDEN / "preprocess" / "raw" / f"{name}.png"), int(size))
        # Every third pixel was kept, from the second on.
        np.testing.assert_array_equal(ours.rgb[1::3, 1::3], expected[key], key)


@golden
def test_the_networks_inputs_are_the_official_ones():
    inputs = np.load(GOLDEN / "nano" / "inputs.npz")
    for file, size, key in (
        ("l0", 512, "landscape.img1_u8"),
        ("l1", 512, "landscape.img2_u8"),
        ("p0", 512, "mixed.img2_u8"),
        ("s0", 224, "sq224.img1_u8"),
        ("s1", 224, "sq224.img2_u8"),
    ):
        ours = prepare(read_upright(GOLDEN / "nano" / "raw" / f"{file}.png"), size)
        np.testing.assert_array_equal(ours.rgb, inputs[key], key)
        if file == "s0":
            np.testing.assert_array_equal(ours.pixels[None], inputs["sq224.img1"])


@pytest.mark.parametrize(
    ("shape", "size", "expected"),
    [
        ((480, 640), 512, (384, 512)),
        ((640, 480), 512, (512, 384)),
        ((100, 100), 512, (384, 512)),
        ((968, 1296), 512, (368, 512)),
        ((300, 20), 224, (224, 224)),
        ((2000, 2000), 224, (224, 224)),
    ],
)
def test_sides_are_valid_for_the_network(shape, size, expected):
    prepared = prepare(np.zeros((*shape, 3), np.uint8), size)
    assert (prepared.height, prepared.width) == expected
    assert prepared.pixels.shape == (3, *expected)
    assert prepared.pixels.dtype == np.float32


@pytest.mark.parametrize("size", [512, 224])
@pytest.mark.parametrize("shape", [(700, 1000), (1201, 800), (640, 640), (301, 400)])
def test_a_spot_is_at_the_mapped_position(shape, size):
    height, width = shape
    row, column = np.mgrid[:height, :width]
    x, y = 0.53 * width, 0.46 * height
    spot = np.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * 12.0**2))
    image = np.repeat((255 * spot).astype(np.uint8)[..., None], 3, axis=2)
    prepared = prepare(image, size)
    weight = prepared.rgb[..., 0].astype(np.float64)
    found = [(weight * axis).sum() / weight.sum() for axis in np.indices(weight.shape)[::-1]]
    back = prepared.original_from_network @ [*found, 1.0]
    np.testing.assert_allclose(back, [x, y, 1], atol=0.08)


def test_image_edges_map_to_image_edges_and_cameras_follow():
    # 1024x768 halves exactly, with nothing cropped: edges -0.5 and 511.5 go to -0.5 and 1023.5.
    prepared = prepare(np.zeros((768, 1024, 3), np.uint8))
    corners = np.array([[-0.5, 511.5], [-0.5, 383.5], [1, 1]])
    np.testing.assert_allclose(
        prepared.original_from_network @ corners, [[-0.5, 1023.5], [-0.5, 767.5], [1, 1]]
    )
    camera = Camera(np.array([[900.0, 0, 510], [0, 905, 380], [0, 0, 1]]), 1024, 768)
    np.testing.assert_allclose(
        prepared.network_from_original @ camera.K, camera.resized(512, 384).K
    )


def test_bad_pictures_say_why():
    with pytest.raises(InputError, match="expected 512 or 224"):
        prepare(np.zeros((9, 9, 3), np.uint8), 300)
    with pytest.raises(FrameError, match="too thin"):
        prepare(np.zeros((10, 600, 3), np.uint8))
    with pytest.raises(FrameError, match="expected at least 1x1"):
        prepare(np.zeros((0, 600, 3), np.uint8))
