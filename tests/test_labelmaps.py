"""Ids survive the file, whatever wrote it; damaged files are told apart from wrong ones."""

import numpy as np
import pytest
from PIL import Image

from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.labelmaps import find_label_map, read_label_map, write_label_map


def ids(largest: int, shape: tuple[int, int] = (5, 7)) -> np.ndarray:
    labels = np.zeros(shape, np.int32)
    labels[1:3, 2:5] = 1
    labels[4, 6] = largest
    return labels


@pytest.mark.parametrize(
    ("largest", "suffix"), [(0, ".png"), (255, ".png"), (65_535, ".png"), (65_536, ".tif")]
)
def test_ids_survive_the_file(tmp_path, largest, suffix):
    labels = ids(largest)
    path = write_label_map(tmp_path, "view.color", labels)
    assert path.name == f"view.color{suffix}"
    assert find_label_map(tmp_path, "view.color") == path
    back = read_label_map(path)
    assert back.dtype == np.int32
    np.testing.assert_array_equal(back, labels)


def test_a_written_png_has_16_bits(tmp_path):
    path = write_label_map(tmp_path, "v", ids(3))
    assert path.read_bytes()[24:26] == bytes([16, 0])  # IHDR: bit depth, colour type grey


def test_writing_again_in_the_other_format_leaves_one_file(tmp_path):
    write_label_map(tmp_path, "v", ids(3))
    write_label_map(tmp_path, "v", ids(70_000))
    assert [path.name for path in tmp_path.iterdir()] == ["v.tif"]
    assert read_label_map(tmp_path / "v.tif").max() == 70_000


def test_the_same_labels_give_the_same_bytes(tmp_path):
    first = write_label_map(tmp_path / "a", "v", ids(9)).read_bytes()
    assert write_label_map(tmp_path / "b", "v", ids(9)).read_bytes() == first


def test_a_view_without_a_map_has_none(tmp_path):
    assert find_label_map(tmp_path, "v") is None


def test_negative_ids_are_refused(tmp_path):
    with pytest.raises(ValueError, match="negative id -1"):
        write_label_map(tmp_path, "v", -ids(1))
    assert list(tmp_path.iterdir()) == []


def test_a_palette_image_gives_its_indices_not_its_colours(tmp_path):
    labels = ids(3)
    image = Image.fromarray(labels.astype(np.uint8), "L")
    image.putpalette([0, 0, 0, 200, 10, 10, 10, 200, 10, 9, 9, 200] + [0] * 756)
    assert image.mode == "P"
    image.save(tmp_path / "v.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "v.png"), labels)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_grey_picture_saved_as_colour_is_read(tmp_path, depth):
    import cv2

    labels = ids(200 if depth is np.uint8 else 40_001)
    cv2.imwrite(str(tmp_path / "v.png"), np.repeat(labels.astype(depth)[..., None], 3, 2))
    np.testing.assert_array_equal(read_label_map(tmp_path / "v.png"), labels)


def test_a_binary_png_is_ids_0_and_1(tmp_path):
    mask = ids(1) > 0
    Image.fromarray(mask).save(tmp_path / "v.png")
    np.testing.assert_array_equal(read_label_map(tmp_path / "v.png"), mask.astype(np.int32))


def test_a_colour_picture_is_refused_with_the_next_step(tmp_path):
    colour = np.zeros((4, 4, 3), np.uint8)
    colour[0, 0] = (1, 2, 3)
    Image.fromarray(colour).save(tmp_path / "v.png")
    with pytest.raises(InputError, match="save the ids, not the colours"):
        read_label_map(tmp_path / "v.png")


@pytest.mark.parametrize("largest", [300, 70_000])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_a_bad_frame(tmp_path, largest, kept):
    noise = np.random.default_rng(0).integers(0, largest + 1, (80, 90)).astype(np.int32)
    noise[0, 0] = largest
    path = write_label_map(tmp_path, "v", noise)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(FrameError, match=r"v\.(png|tif)"):
        read_label_map(path)


def test_a_missing_file_and_a_text_file_are_bad_frames(tmp_path):
    with pytest.raises(FrameError, match="is missing"):
        read_label_map(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(FrameError, match="not an image"):
        read_label_map(tmp_path / "text.png")
