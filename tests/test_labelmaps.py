"""Ids survive the file, whatever wrote it; damaged and wrong files give different errors."""

import inspect
import zlib

import numpy as np
import pytest
from PIL import Image

from lift3d.scene import Camera, Scene, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.labelmaps import (
    LabelMaps,
    by_name,
    check_label_maps,
    derived,
    find_label_map,
    read_label_map,
    renumbered,
    write_label_map,
)


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


def test_a_written_png_has_no_row_filters(tmp_path):
    data = write_label_map(tmp_path, "v", ids(3)).read_bytes()
    at = data.index(b"IDAT")
    rows = zlib.decompress(data[at + 4 : at + 4 + int.from_bytes(data[at - 4 : at])])
    assert set(rows[:: 1 + 2 * 7]) == {0}


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


# --- the label maps of all views


def stored(folder, *names):
    for number, name in enumerate(names):
        write_label_map(folder, name, np.full((2, 3), number, np.int32))


def test_label_maps_of_a_folder_are_in_view_order_and_read_on_access(tmp_path):
    maps = LabelMaps(tmp_path, ["b", "a"])
    assert (list(maps), len(maps), "a" in maps, "c" in maps) == (["b", "a"], 2, True, False)
    stored(tmp_path, "a", "b", "c")  # written after the mapping was made
    assert {name: int(labels[0, 0]) for name, labels in maps.items()} == {"b": 1, "a": 0}
    with pytest.raises(KeyError):
        maps["c"]


def test_a_missing_or_damaged_label_map_says_the_next_step(tmp_path):
    maps = LabelMaps(tmp_path, ["a"])
    with pytest.raises(InputError, match=r"has no label map of view a; remove .* and run again"):
        maps["a"]
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"is not an image.*; remove .* and run again") as found:
        maps["a"]
    assert not isinstance(found.value, FrameError)  # no stage may continue without it


def test_found_label_maps_are_only_those_with_a_file(tmp_path):
    stored(tmp_path, "b")
    assert list(LabelMaps.found(tmp_path, ["a", "b"])) == ["b"]
    with pytest.raises(InputError, match=r"no class map of any of 2 views; .* such as c\.png"):
        LabelMaps.found(tmp_path, ["c", "d"], "class map")


def test_derived_label_maps_are_computed_on_access():
    made = []

    def change(name, labels):
        made.append(name)
        return labels + 1

    maps = derived({"a": np.zeros((1, 1), np.int32), "b": np.ones((1, 1), np.int32)}, change)
    made.clear()  # the type check in tests reads one
    assert (list(maps), len(maps), "a" in maps, made) == (["a", "b"], 2, True, [])
    assert (maps["b"].item(), made) == (2, ["b"])


def test_renumbered_ids_that_are_not_named_become_0():
    maps = renumbered({"a": np.array([[3, 7], [0, 9]], np.int32)}, {7: 1, 9: 5})
    assert maps["a"].tolist() == [[0, 1], [0, 5]]
    assert maps["a"].dtype == np.int32


def test_views_without_a_label_map_are_named_before_any_file_is_read():
    camera = Camera(np.eye(3), 3, 2)
    views = tuple(View(name, camera, lambda: None) for name in "abcdef")
    scene = Scene("few", views, True, "test")
    with pytest.raises(InputError, match=r"4 of 6 views have no label map \(b, c, e, \.\.\.\)"):
        check_label_maps(dict.fromkeys("ad", np.zeros((2, 3), np.int32)), scene)
    untyped = inspect.unwrap(check_label_maps)  # the check of types in tests would be first
    with pytest.raises(InputError, match=r"came as list; expected a mapping .*by_name"):
        untyped([np.zeros((2, 3), np.int32)], scene)
    with pytest.raises(InputError, match="2 label maps for 6 views"):
        by_name(scene, [np.zeros((2, 3), np.int32)] * 2)
    assert list(by_name(scene, [np.zeros((2, 3), np.int32)] * 6)) == list("abcdef")
