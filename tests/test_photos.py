"""Photos without poses: rotated upright, focal lengths from EXIF, valid names."""

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import ImageOps

from lift3d.datasets import read_scene
from lift3d.datasets.photos import FILM_DIAGONAL, Photos, read_photo
from lift3d.scene.errors import InputError

ORIENTATION, FOLDER = 0x0112, 0x8769


def photo(path, size=(60, 40), orientation=None, **tags):
    """A smooth picture without symmetry, so that each way of turning it differs."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    pixels = (255 * np.stack([x, y, x * y], -1)).astype(np.uint8)
    exif = Pillow.Exif()
    if orientation:
        exif[ORIENTATION] = orientation
    names = {"focal": 0x920A, "equivalent": 0xA405, "plane": 0xA20E, "unit": 0xA210, "x": 0xA002}
    for name, value in tags.items():
        exif.get_ifd(FOLDER)[names[name]] = value
    Pillow.fromarray(pixels).save(
        path, exif=exif, **({"quality": 97} if "j" in path.suffix else {})
    )
    return pixels


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_photo_is_upright_for_every_exif_orientation(tmp_path, orientation, suffix):
    path = tmp_path / f"a.{suffix}"
    photo(path, orientation=orientation)
    photo(tmp_path / "b.jpg")
    view = read_scene(tmp_path).views[0]
    with Pillow.open(path) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored).convert("RGB")).astype(int)
    assert (view.camera.width, view.camera.height) == expected.shape[1::-1]
    assert np.abs(view.image() - expected).max() <= 4


def test_the_focal_length_is_the_35_mm_equivalent_by_the_diagonal(tmp_path):
    photo(tmp_path / "a.jpg", (80, 60), equivalent=43)
    photo(tmp_path / "b.jpg", (60, 80))
    a, b = read_scene(tmp_path).views
    assert a.camera.K[0, 0] == a.camera.K[1, 1] == pytest.approx(43 * 100 / FILM_DIAGONAL)
    assert a.camera.K[:2, 2].tolist() == [39.5, 29.5]
    assert b.camera.K[0, 0] == 1.2 * 80
    assert read_scene(tmp_path).notes == (
        "focal length of 1 of 2 photos from EXIF; 1 guessed as 1.2 longest sides: give it in "
        "pixels with `reader:photos --reader.focal N`",
    )


def test_a_focal_length_of_0_is_an_error_and_not_unset(tmp_path):
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b.jpg")
    with pytest.raises(InputError, match="focal is 0"):
        read_scene(tmp_path, Photos(focal=0.0))


def test_the_focal_length_counts_at_the_size_the_photo_was_taken_in(tmp_path):
    """10 mm behind 254 pixels per inch (10 per mm) are 100 pixels; half of them when halved."""
    photo(tmp_path / "a.jpg", (60, 40), focal=10.0, plane=254.0, unit=2)
    photo(tmp_path / "b.jpg", (60, 40), focal=10.0, plane=100.0, unit=3, x=120)
    assert [v.camera.K[0, 0] for v in read_scene(tmp_path).views] == pytest.approx([100, 50])


def test_an_implausible_focal_length_is_replaced_by_the_guess(tmp_path):
    photo(tmp_path / "a.jpg", equivalent=60000)
    photo(tmp_path / "b.jpg", focal=5.0)
    assert [v.camera.K[0, 0] for v in read_scene(tmp_path).views] == [72.0, 72.0]


def test_names_are_unique_and_in_the_order_of_their_numbers(tmp_path):
    for file in ("IMG 10.jpg", "IMG 9.jpg", "IMG 9.png", ".hidden.jpg"):
        photo(tmp_path / file)
    names = [view.name for view in read_scene(tmp_path).views]
    assert names == ["IMG_9", "IMG_9-png", "IMG_10"]


def test_views_have_no_pose_no_depth_and_no_scale(tmp_path):
    photo(tmp_path / "a.jpg")
    photo(tmp_path / "b.webp", (40, 60))
    scene = read_scene(tmp_path)
    assert scene.source == f"reader photos at {tmp_path}"
    assert not scene.metric
    for view in scene.views:
        assert view.camera.world_from_camera is None
        assert view.depth() is None


def test_a_photo_that_is_not_an_image_is_skipped_and_named(tmp_path):
    for name in "abc":
        photo(tmp_path / f"{name}.jpg")
    (tmp_path / "b.jpg").write_bytes(b"nothing")
    scene = read_scene(tmp_path)
    assert [view.name for view in scene.views] == ["a", "c"]
    assert scene.skipped[0].name == "b"
    assert "is not an image that can be read" in scene.skipped[0].reason


def test_a_truncated_photo_is_refused_when_it_is_loaded(tmp_path):
    photo(tmp_path / "a.jpg", (200, 200))
    data = (tmp_path / "a.jpg").read_bytes()
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match="truncated JPEG"):
        read_photo(tmp_path / "a.jpg", 1)


def test_a_scan_whose_poses_are_missing_is_not_taken_for_photos(tmp_path):
    for i in range(2):
        photo(tmp_path / f"frame-{i:06d}.color.png")
        depth = np.full((40, 60), 1000, np.uint16)
        Pillow.fromarray(depth).save(tmp_path / f"frame-{i:06d}.range.png")
    with pytest.raises(InputError, match="no reader knows this"):
        read_scene(tmp_path)


def test_the_tower_is_read_as_seven_photos(shared_data):
    scene = read_scene(shared_data("mv_nle_tower"))
    assert len(scene) == 7
    assert sorted({view.image().shape for view in scene.views}) == [
        (1000, 1334, 3),
        (1334, 1000, 3),
    ]
