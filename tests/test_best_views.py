"""Coloured copies of label maps, and the view that shows an object best."""

import numpy as np
import pytest
from PIL import Image

from lift3d.run.report.best_views import best_views, coloured_copies, write_coloured
from lift3d.run.report.pictures import CUT_OUT, cut_out
from lift3d.scene.colours import label_colours
from lift3d.scene.errors import InputError
from lift3d.scene.labelmaps import read_label_map, write_label_map


def ids(largest=3, shape=(40, 60)):
    labels = np.zeros(shape, np.int32)
    labels[5:15, 10:30] = 1
    labels[20:30, 40:] = largest
    return labels


def test_the_best_view_shows_most_of_an_object():
    small, large = ids(), ids()
    small[:] = 0
    small[8:10, 12:14] = 1
    best = best_views([(4, small), (9, large), (11, large)])
    assert (best[1].view, best[1].value, best[1].box) == (9, 200.0, (5, 15, 10, 30))


def test_an_object_at_the_border_counts_half_as_it_may_be_cut():
    whole = np.zeros((40, 60), np.int32)
    whole[20:30, 30:45] = 3  # 150 pixels, away from the border
    best = best_views([(0, ids()), (1, whole)])  # 200 pixels at the border
    assert best[3].view == 1


def test_large_ids_are_found_too():
    labels = ids(largest=1 << 20)
    assert best_views([(0, labels)])[1 << 20].box == (20, 30, 40, 60)
    labels[labels == 0] = 7  # no pixel without a label
    assert best_views([(0, labels)])[1 << 20].box == (20, 30, 40, 60)
    assert set(best_views([(0, labels)])) == {1, 7, 1 << 20}


def test_a_copy_has_the_same_ids_and_is_not_black(tmp_path):
    write_coloured(tmp_path / "v.png", ids(255))
    np.testing.assert_array_equal(read_label_map(tmp_path / "v.png"), ids(255))
    with Image.open(tmp_path / "v.png") as picture:
        rgb = np.asarray(picture.convert("RGB"))
    assert rgb.max(-1).min() > 60
    assert len(np.unique(rgb.reshape(-1, 3), axis=0)) == 3


def test_a_copy_that_cannot_hold_the_ids_is_refused_as_a_label_map(tmp_path):
    write_coloured(tmp_path / "v.png", ids(256), {256: (10, 20, 30)})
    with Image.open(tmp_path / "v.png") as picture:
        assert picture.mode == "RGB"
        np.testing.assert_array_equal(picture, label_colours(ids(256), {256: (10, 20, 30)}))
    with pytest.raises(InputError, match="save the ids, not the colours"):
        read_label_map(tmp_path / "v.png")


def test_copies_have_the_palette_and_old_copies_are_removed(tmp_path):
    for name in ("a.color", "b"):
        write_label_map(tmp_path / "labels", name, ids())
    home = tmp_path / "labels_coloured"
    home.mkdir()
    (home / "old.png").write_bytes(b"")
    palette = {1: (10, 20, 30)}
    found = list(coloured_copies(tmp_path / "labels", ["a.color", "missing", "b"], palette))
    assert [at for at, _ in found] == [0, 2]
    assert sorted(path.name for path in home.iterdir()) == ["a.color.png", "b.png"]
    with Image.open(home / "b.png") as picture:
        assert picture.convert("RGB").getpixel((12, 7)) == (10, 20, 30)


def test_a_copy_shows_labels_edited_by_hand(tmp_path):
    write_label_map(tmp_path / "labels", "v", ids())
    edited = ids()
    edited[0, 0] = 1
    Image.fromarray(edited.astype(np.uint8)).save(tmp_path / "labels" / "v.png")
    ((_, shown),) = coloured_copies(tmp_path / "labels", ["v"])
    np.testing.assert_array_equal(shown, edited)


def test_a_cut_out_shows_the_object_with_its_outline():
    labels = ids()
    image = np.full((40, 60, 3), 90, np.uint8)
    box = best_views([(0, labels)])[1].box
    picture = cut_out(image, labels, 1, box, {1: (255, 0, 0)})
    assert max(picture.shape[:2]) == CUT_OUT
    red = (picture == (255, 0, 0)).all(-1)
    inside = (picture == 90).all(-1)
    # 20 x 10 pixels of 34 x 23 (margin 8, less above), enlarged about five times.
    scale = picture.shape[1] / 36
    assert inside.sum() == pytest.approx(200 * scale**2, rel=0.1)
    assert red.sum() == pytest.approx(2 * 60 * scale, rel=0.15)
