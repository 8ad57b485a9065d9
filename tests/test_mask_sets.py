"""Masks that overlap, in their compact form and as files."""

import subprocess
import sys

import numpy as np
import pytest

from lift3d.scene import Masks
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import read_label_map, write_label_map
from lift3d.scene.mask_sets import MaskSet, MaskSets, flat, view_masks, write_view_masks
from lift3d.scene.overlap import paint


def random_masks(seed, masks=6, height=13, width=17):
    rng = np.random.default_rng(seed)
    stack = np.zeros((masks, height, width), bool)
    for mask in stack:
        top, bottom = sorted(rng.integers(0, height + 1, 2))
        left, right = sorted(rng.integers(0, width + 1, 2))
        mask[top:bottom, left:right] = rng.random((bottom - top, right - left)) < 0.9
    return Masks(stack, rng.random(masks).astype(np.float32))


def nested():
    """A whole of 4 x 4 pixels with id 7 and score 0.9, and its upper half with id 3 and 0.5."""
    stack = np.zeros((2, 6, 6), bool)
    stack[0, 1:5, 1:5] = True
    stack[1, 1:3, 1:5] = True
    return MaskSet.of(Masks(stack, np.float32([0.9, 0.5])), np.int32([7, 3]))


@pytest.mark.parametrize("seed", range(20))
def test_every_mask_is_kept_whole_under_the_masks_that_lie_on_it(seed):
    masks = random_masks(seed)
    found = MaskSet.of(masks)
    np.testing.assert_array_equal(found.masks().stack, masks.stack)
    np.testing.assert_array_equal(found.masks().scores, masks.scores)
    np.testing.assert_array_equal(found.labels, paint(masks.stack))
    for row, column in np.random.default_rng(seed).integers(0, 13, (20, 2)).tolist():
        over = set((1 + np.flatnonzero(masks.stack[:, row, column])).tolist())
        assert set(found.ids_at(row, column)) == over


def test_the_topmost_mask_is_the_smallest():
    found = nested()
    assert found.ids_at(1, 1) == (3, 7)
    assert found.ids_at(4, 1) == (7,)
    assert found.ids_at(0, 0) == ()
    assert np.bincount(found.labels.ravel()).tolist() == [20, 0, 0, 8, 0, 0, 0, 8]
    whole = found.labels_of(np.int32([7]))
    assert np.bincount(whole.ravel()).tolist() == [20, 0, 0, 0, 0, 0, 0, 16]
    np.testing.assert_array_equal(found.labels_of(np.int32([])), found.labels)


def test_masks_of_one_id_are_one_mask():
    stack = np.zeros((3, 1, 7), bool)
    stack[0, 0, :3] = stack[1, 0, 2:5] = stack[2, 0, :] = True
    found = MaskSet.of(Masks(stack, np.float32([0.2, 0.6, 1])), np.int32([4, 4, 9]))
    assert found.ids.tolist() == [4, 9]
    assert found.scores.tolist() == pytest.approx([0.6, 1])
    assert found.labels.tolist() == paint(stack, np.int32([4, 4, 9])).tolist()
    assert [found.ids_at(0, x) for x in (0, 2, 5)] == [(4, 9), (4, 9), (9,)]


def test_masks_without_overlap_and_with_scores_of_1_are_a_label_map():
    stack = np.zeros((2, 1, 4), bool)
    stack[0, 0, :2] = stack[1, 0, 2:] = True
    ones = np.ones(2, np.float32)
    assert view_masks(Masks(stack, ones)).tolist() == [[1, 1, 2, 2]]
    assert isinstance(view_masks(Masks(stack, 0.5 * ones)), MaskSet)
    stack[0] = True
    assert isinstance(view_masks(Masks(stack, ones)), MaskSet)
    nothing = view_masks(Masks(stack[:0], ones[:0]))
    assert nothing.tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("ids", [[0, 2, 9], [0, 7, 3_000_000], [0, -4, 5], [0, 0, 0]])
def test_the_masks_of_a_label_map_need_no_stack(ids):
    labels = np.int32(ids)[np.random.default_rng(0).integers(0, 3, (5, 7))]
    masks = Masks.from_label_map(labels)
    new = np.int32([11, 12])[: len(masks)]
    given = view_masks(masks, new)
    assert "stack" not in vars(masks)
    known = [each for each in ids if each > 0]
    assert masks.ids.tolist() == known
    stack = np.array([labels == each for each in known], bool).reshape(len(known), 5, 7)
    np.testing.assert_array_equal(masks.stack, stack)
    np.testing.assert_array_equal(given, paint(stack, new))


def test_what_is_written_is_what_is_read(tmp_path):
    labels = np.arange(6, dtype=np.int32).reshape(2, 3)
    write_view_masks(tmp_path, "a", nested())
    write_view_masks(tmp_path, "b", labels)
    found = MaskSets(tmp_path, ["a", "b"])
    for name, expected in vars(nested()).items():
        if not name.startswith("top"):
            np.testing.assert_array_equal(getattr(found["a"], name), expected)
    np.testing.assert_array_equal(found["b"], labels)
    np.testing.assert_array_equal(read_label_map(tmp_path / "a.png"), nested().labels)
    assert not (tmp_path / "b.masks.npz").exists()
    write_view_masks(tmp_path, "a", labels)
    assert not (tmp_path / "a.masks.npz").exists()


def test_a_label_map_that_was_edited_counts_instead_of_the_mask_set(tmp_path):
    write_view_masks(tmp_path, "a", nested())
    edited = nested().labels.copy()
    edited[0, 0] = 3
    write_label_map(tmp_path, "a", edited)
    np.testing.assert_array_equal(MaskSets(tmp_path, ["a"])["a"], edited)
    np.testing.assert_array_equal(flat(edited), edited)


def test_a_damaged_mask_set_is_an_error_that_names_the_file(tmp_path):
    write_view_masks(tmp_path, "a", nested())
    path = tmp_path / "a.masks.npz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a\.masks\.npz cannot be read"):
        MaskSets(tmp_path, ["a"])["a"]
    arrays = {key: each for key, each in vars(nested()).items() if not key.startswith("top")}
    np.savez(path, **(arrays | {"mask": arrays["mask"] + 5}))
    with pytest.raises(InputError, match=r"a\.masks\.npz is damaged"):
        MaskSets(tmp_path, ["a"])["a"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ("np.zeros((3, 4, 5), bool), np.ones(2, np.float32)", "3 masks have scores"),
        ("np.zeros((3, 4, 5), np.uint8), np.ones(3, np.float32)", "masks are uint8"),
        ("np.zeros((4, 5), bool), np.ones(4, np.float32)", "expected bool"),
        ("np.zeros((1, 4, 5), bool), np.ones(1, np.float32), np.arange(2)", "1 masks have ids"),
    ],
)
def test_masks_of_a_wrong_shape_are_refused_where_they_are_made(arrays, message):
    """In a process of its own: these tests check the annotated shapes of every call."""
    code = f"import numpy as np; from lift3d.scene import Masks; Masks({arrays})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ValueError: ")
    assert message in last
