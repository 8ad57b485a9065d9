from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lift3d.scene import Camera, Prompt, Scene, View
from lift3d.scene.errors import FrameError, InputError
from lift3d.scene.labelmaps import write_label_map
from lift3d.segmentation.folder import FolderConfig

LABELS = np.zeros((12, 16), np.int32)
LABELS[2:6, 2:6] = 7
LABELS[6:10, 8:14] = 300


def view(name="a", width=16, height=12):
    camera = Camera(np.eye(3), width, height, np.eye(4))
    return View(name, camera, lambda: np.zeros((height, width, 3), np.uint8))


def scene(*names):
    return Scene("s", tuple(view(name) for name in names), True, "test")


def test_an_id_map_keeps_its_ids(tmp_path):
    write_label_map(tmp_path, "a", LABELS)
    masks = FolderConfig(tmp_path).build().segment(view())
    assert masks.ids.tolist() == [7, 300]
    np.testing.assert_array_equal(masks.stack[1], LABELS == 300)


@pytest.mark.parametrize("kind", ["npy", "npz", "folder"])
def test_stacks_and_folders_of_binary_masks_are_read_alike(tmp_path, kind):
    stack = np.stack([LABELS == 7, LABELS == 300])
    if kind == "npy":
        np.save(tmp_path / "a.npy", stack)
    elif kind == "npz":
        np.savez(tmp_path / "a.npz", stack)
    else:
        (tmp_path / "a").mkdir()
        for index, mask in enumerate(stack):
            Image.fromarray((mask * 255).astype(np.uint8)).save(tmp_path / "a" / f"{index}.png")
    masks = FolderConfig(tmp_path).build().segment(view())
    np.testing.assert_array_equal(masks.stack, stack)


@pytest.mark.parametrize("kind", ["npy", "npz", "png"])
def test_an_empty_stack_gives_no_masks(tmp_path, kind):
    nothing = np.zeros((0, 12, 16), bool)
    if kind == "npy":
        np.save(tmp_path / "a.npy", nothing)
    elif kind == "npz":
        np.savez(tmp_path / "a.npz", nothing)
    else:
        write_label_map(tmp_path, "a", np.zeros((12, 16), np.int32))
    folder = FolderConfig(tmp_path).build()
    masks = folder.segment(view())
    assert masks.stack.shape == (0, 12, 16)
    prompt = Prompt(np.array([[3.0, 3.0]]), np.array([True]))
    answer = folder.prompt(view(), [prompt, prompt])
    assert answer.stack.shape == (2, 12, 16)
    assert not answer.stack.any()
    assert len(folder.alternatives(view(), prompt)) == 1


def test_masks_of_half_the_size_are_doubled(tmp_path):
    write_label_map(tmp_path, "a", LABELS)
    masks = FolderConfig(tmp_path).build().segment(view(width=32, height=24))
    np.testing.assert_array_equal(masks.stack[0], np.kron(LABELS == 7, np.ones((2, 2), bool)))


def test_masks_of_another_shape_are_refused(tmp_path):
    write_label_map(tmp_path, "a", LABELS)
    with pytest.raises(InputError, match="16x12, its image 64x12"):
        FolderConfig(tmp_path).build().segment(view(width=64))


def test_a_wrong_count_is_an_error_before_any_work(tmp_path):
    write_label_map(tmp_path, "a", LABELS)
    folder = FolderConfig(tmp_path).build()
    folder.check(scene("a"))
    with pytest.raises(InputError, match="masks for 1 of 3 views; none for b, c"):
        folder.check(scene("a", "b", "c"))
    lenient = FolderConfig(tmp_path, allow_missing=True).build()
    lenient.check(scene("a", "b"))
    assert len(lenient.segment(view("b"))) == 0
    with pytest.raises(InputError, match="0 of 1"):
        lenient.check(scene("b"))


def test_a_missing_folder_is_an_error_that_explains_the_option():
    with pytest.raises(InputError, match=r"--segmentation\.path"):
        FolderConfig(Path("nowhere")).build()


def test_a_damaged_stack_is_a_bad_frame(tmp_path):
    (tmp_path / "a.npy").write_bytes(b"nothing")
    with pytest.raises(FrameError, match="write it again"):
        FolderConfig(tmp_path).build().segment(view())
    np.save(tmp_path / "b.npy", np.zeros(12, bool))
    with pytest.raises(FrameError, match="boolean stack"):
        FolderConfig(tmp_path).build().segment(view("b"))


def test_a_prompt_gets_the_mask_under_its_points_and_not_under_its_negatives(tmp_path):
    write_label_map(tmp_path, "a", LABELS)
    folder = FolderConfig(tmp_path).build()
    on = Prompt(np.array([[3.0, 3.0], [4.0, 4.0], [10.0, 8.0]]), np.array([True, True, False]))
    nothing = Prompt(np.array([[0.0, 0.0]]), np.array([True]))
    answers = folder.prompt(view(), [on, nothing])
    assert answers.ids.tolist() == [7, 0]
    assert answers.scores.tolist() == [1.0, 0.0]
    assert not answers.stack[1].any()
