"""Submissions to the benchmarks: written files are read back, and foreign files are read."""

import json

import numpy as np
import pytest

from lift3d.evaluation.metrics.classes import BENCHMARKS, SCANNET, SCANNET200
from lift3d.evaluation.metrics.scannet import Prediction
from lift3d.evaluation.metrics.submission import (
    from_run_lengths,
    predictions,
    read_mask,
    read_submission,
    run_lengths,
    submitted_scenes,
    write_submission,
)
from lift3d.scene.errors import InputError

FORMS = ("scannet", "scannetpp")


def some_predictions(rng, vertices=57):
    return [
        Prediction(rng.random(vertices) < p, 3, s) for p, s in [(0.5, 0.1), (0, 1.0), (1, 1 / 3)]
    ]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_written_is_read_back(tmp_path, form):
    given = some_predictions(np.random.default_rng(0))
    written = write_submission(tmp_path, "scene0011_00", given, form)
    assert all(path.is_file() for path in written)
    assert submitted_scenes(tmp_path) == ["scene0011_00"]
    got = read_submission(tmp_path, "scene0011_00", len(given[0].mask))
    for one, other in zip(got, given, strict=True):
        assert np.array_equal(one.mask, other.mask)
        assert (one.label, one.confidence) == (other.label, other.confidence)


def test_the_files_are_as_the_benchmarks_describe_them(tmp_path):
    mask = np.array([False, True, True, False, True])
    write_submission(tmp_path / "a", "s_00", [Prediction(mask, 5, 0.25)])
    assert (tmp_path / "a/s_00.txt").read_text() == "predicted_masks/s_00_000.txt 5 0.25\n"
    assert (tmp_path / "a/predicted_masks/s_00_000.txt").read_text() == "0\n1\n1\n0\n1\n"
    write_submission(tmp_path / "b", "s_00", [Prediction(mask, 5, 0.25)], "scannetpp")
    stored = json.loads((tmp_path / "b/predicted_masks/s_00_000.json").read_text())
    assert stored == {"length": 5, "counts": "2 2 5 1"}


def test_run_lengths_are_lossless():
    rng = np.random.default_rng(1)
    for length in (0, 1, 2, 9, 300):
        for share in (0, 0.3, 1):
            mask = rng.random(length) < share
            assert np.array_equal(from_run_lengths(run_lengths(mask)), mask)


def test_foreign_masks_are_read_as_by_the_benchmark(tmp_path):
    path = tmp_path / "m.txt"
    for content in ("0\n1\n3\n0", "0\r\n1\r\n12\r\n0\r\n", "0\n-1\n1\n0\n"):
        path.write_bytes(content.encode())
        assert read_mask(path, 4).tolist() == [False, True, True, False]
    path.write_text('{"length": 4, "counts": [2, 2]}')
    assert read_mask(path, 4).tolist() == [False, True, True, False]


def test_the_later_of_two_lines_for_a_mask_is_used(tmp_path):
    """The benchmark's script keeps its entries by file name."""
    three = some_predictions(np.random.default_rng(2))
    write_submission(tmp_path, "s", three)
    with (tmp_path / "s.txt").open("a") as listing:
        listing.write("predicted_masks/s_000.txt 7.0 0.75\n")
    got = read_submission(tmp_path, "s", len(three[0].mask))
    assert [(each.label, each.confidence) for each in got] == [(7, 0.75), (3, 1), (3, 1 / 3)]


def test_a_second_submission_leaves_nothing_of_the_first(tmp_path):
    three = some_predictions(np.random.default_rng(3))
    write_submission(tmp_path, "s", three)
    write_submission(tmp_path, "s_1", three)
    write_submission(tmp_path, "s", three[:1], "scannetpp")
    names = {path.name for path in (tmp_path / "predicted_masks").iterdir()}
    assert names == {"s_000.json", "s_1_000.txt", "s_1_001.txt", "s_1_002.txt"}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("predicted_masks/s_000.txt 3", "expected `mask label confidence`"),
        ("predicted_masks/s_000.txt chair 0.5", "label and confidence: expected numbers"),
        ("../s_000.txt 3 0.5", "outside the submission"),
        ("/etc/passwd 3 0.5", "outside the submission"),
        ("predicted_masks/none.txt 3 0.5", "there is no such file"),
    ],
)
def test_a_wrong_list_is_an_error_with_the_line(tmp_path, line, told):
    (tmp_path / "s.txt").write_text(f"{line}\n")
    with pytest.raises(InputError, match=told):
        read_submission(tmp_path, "s", 3)


@pytest.mark.parametrize(
    "content",
    [
        "a\nb\n",
        "1\n0\n",
        '{"length": 100000000000, "counts": "1 2"}',
        '{"length": 3}',
        '{"length": 3, "counts": "3 2"}',
    ],
)
def test_an_invalid_mask_is_an_error_that_explains_the_format(tmp_path, content):
    path = tmp_path / "m"
    path.write_text(content)
    with pytest.raises(InputError, match="one integer per vertex, or run lengths"):
        read_mask(path, 3)
    with pytest.raises(InputError, match="has no <scene>"):
        submitted_scenes(tmp_path)
    with pytest.raises(InputError, match="without spaces"):
        write_submission(tmp_path, "my scene", [])


def test_labels_on_points_become_predictions():
    instance = np.array([0, 2, 2, 5, 9])
    got = predictions(instance, {5: 0.5, 2: 0.25, 7: 1.0, 9: 0.1}, {5: 3, 2: 4, 7: 4})
    assert [(one.label, one.confidence, one.mask.sum()) for one in got] == [
        (3, 0.5, 1),
        (4, 0.25, 2),
    ]
    assert [one.label for one in predictions(instance, {5: 0.5, 2: 0.25}, 1)] == [1, 1]


def test_the_lists_of_classes_are_those_of_the_benchmarks():
    assert len(SCANNET.things) == 18
    assert len(SCANNET.classes) == 20
    assert len(SCANNET200.classes) == 200
    assert len(SCANNET200.things) == 198
    names = {each.names[one] for each in BENCHMARKS.values() for one in each.stuff}
    assert names == {"wall", "floor"}
    assert SCANNET.names[39] == "otherfurniture"
    assert SCANNET200.names[1191] == "mattress"
    told = {b.semantic for b in BENCHMARKS.values()} | {
        b.class_agnostic for b in BENCHMARKS.values()
    }
    assert len(told) == 4
