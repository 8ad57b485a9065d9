"""Videos with masks: the annotated frames, and the meaning of the values of a mask."""

import pickle

import numpy as np
import pytest
from PIL import Image as Pillow

from lift3d import cli
from lift3d.datasets import detect, read_scene
from lift3d.datasets.davis import Davis, Mose, read_annotation, sequences
from lift3d.scene.errors import InputError

HEIGHT, WIDTH = 12, 20


def save(path, values, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Pillow.fromarray(values.astype(np.uint8))
    if mode == "P":
        image = image.convert("L")
        image = Pillow.frombytes("P", image.size, image.tobytes())
        image.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
    image.save(path)


def square(value=255, at=4):
    mask = np.zeros((HEIGHT, WIDTH))
    mask[2:8, at : at + 5] = value
    return mask


def video(root, folder, frames=3, masks=None, mode="L", value=255):
    """Frames 0 .. n and masks of the frames `masks` (all, if None)."""
    for index in range(frames):
        picture = np.full((HEIGHT, WIDTH, 3), 40 * index)
        save(root / "JPEGImages" / folder / f"{index:05d}.jpg", picture)
        if masks is None or index in masks:
            save(root / "Annotations" / folder / f"{index:05d}.png", square(value, index), mode)
    (root / "Annotations").mkdir(exist_ok=True)
    return root / "JPEGImages" / folder


def test_a_sequence_is_found_by_its_folder_of_images(tmp_path):
    path = video(tmp_path, "480p/swan")
    assert isinstance(detect(path), Davis)
    scene = read_scene(path)
    assert scene.name == "swan"
    assert scene.source == f"reader davis at {path}"
    assert [view.name for view in scene.views] == ["00000", "00001", "00002"]
    assert not scene.metric
    for index, view in enumerate(scene.views):
        assert view.camera.world_from_camera is None
        assert view.depth() is None
        assert np.abs(view.image().astype(int) - 40 * index).max() <= 2
        np.testing.assert_array_equal(view.instances(), square(1, index))
        copy = pickle.loads(pickle.dumps(view))
        np.testing.assert_array_equal(copy.instances(), view.instances())


def test_the_only_sequence_of_a_root_is_taken(tmp_path):
    video(tmp_path, "480p/swan")
    assert read_scene(tmp_path).name == "swan"


def test_of_several_sequences_one_must_be_named(tmp_path):
    video(tmp_path, "480p/camel")
    path = video(tmp_path, "480p/swan", frames=2)
    with pytest.raises(InputError, match=r"2 sequences \(camel, swan\); give the folder of one"):
        read_scene(tmp_path)
    assert len(read_scene(tmp_path, Davis(sequence="swan"))) == 2
    with pytest.raises(InputError, match="did you mean 'swan'"):
        read_scene(tmp_path, Davis(sequence="swam"))
    assert sequences(tmp_path) == {
        "camel": tmp_path / "JPEGImages/480p/camel",
        "swan": path,
    }


def test_of_several_resolutions_480p_is_taken_unless_another_is_named(tmp_path):
    video(tmp_path, "480p/swan", frames=2)
    video(tmp_path, "Full-Resolution/swan", frames=3)
    assert len(read_scene(tmp_path)) == 2
    assert len(read_scene(tmp_path, Davis(resolution="Full-Resolution"))) == 3
    with pytest.raises(InputError, match="did you mean '480p'"):
        read_scene(tmp_path, Davis(resolution="480"))


def test_mose_has_no_folder_for_the_resolution(tmp_path):
    path = video(tmp_path, "0a1b2c", mode="P", value=3)
    for each in (tmp_path, path):
        assert isinstance(detect(each), Mose)
        scene = read_scene(each)
        assert scene.name == "0a1b2c"
        np.testing.assert_array_equal(scene.views[1].instances(), square(3, 1))
    assert sequences(tmp_path) == {"0a1b2c": path}


def test_a_palette_gives_its_indices_and_255_is_void(tmp_path):
    mask = square(2)
    mask[9:] = 255
    save(tmp_path / "a.png", mask, "P")
    np.testing.assert_array_equal(read_annotation(tmp_path / "a.png"), square(2))
    save(tmp_path / "b.png", square(255), "P")
    assert not read_annotation(tmp_path / "b.png").any()


def test_white_on_black_is_object_one(tmp_path):
    save(tmp_path / "a.png", square(255))
    np.testing.assert_array_equal(read_annotation(tmp_path / "a.png"), square(1))
    save(tmp_path / "b.png", square(0))
    assert not read_annotation(tmp_path / "b.png").any()


def test_frames_without_a_mask_have_none_and_info_counts_them(tmp_path, capsys):
    path = video(tmp_path, "480p/swan", frames=3, masks=[0])
    scene = read_scene(path)
    assert [view.instances() is None for view in scene.views] == [False, True, True]
    cli.main(["info", str(path)])
    said = " ".join(capsys.readouterr().out.split())
    assert "1 of 3 frames are annotated" in said
    assert "reader davis" in said


def test_a_folder_of_photos_is_not_taken_for_a_video(tmp_path):
    path = video(tmp_path, "480p/swan", masks=[])
    (tmp_path / "Annotations").rmdir()
    assert not Davis().matches(path)
    assert not Davis().matches(tmp_path)
    assert not Mose().matches(tmp_path)
    with pytest.raises(InputError, match="expected DAVIS"):
        read_scene(tmp_path, "davis")
    with pytest.raises(InputError, match="expected JPEGImages"):
        sequences(tmp_path)


def test_the_real_sequences_are_read(shared_data):
    root = shared_data("davis2016_val_subset")
    counts = {"blackswan": 50, "car-shadow": 40}
    for name, path in sequences(root).items():
        scene = read_scene(path)
        assert len(scene) == counts[name]
        assert scene.notes[0] == f"{len(scene)} of {len(scene)} frames are annotated"
        view = scene.views[0]
        assert view.image().shape == (480, 854, 3)
        assert np.unique(view.instances()).tolist() == [0, 1]
