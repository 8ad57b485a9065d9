import numpy as np
import pytest

from lift3d.reconstruction.pairs import PairsConfig, check_connected
from lift3d.scene.errors import InputError

NAMES = [f"p{k}" for k in range(6)]


def test_complete_is_every_pair_once():
    pairs = PairsConfig(graph="complete").choose(NAMES)
    assert len(pairs) == len(set(pairs)) == 15
    assert all(a < b for a, b in pairs)


def test_a_window_pairs_the_next_pictures_and_can_close_the_loop():
    assert PairsConfig(graph="window", window=1).choose(NAMES[:4]) == [(0, 1), (1, 2), (2, 3)]
    looped = PairsConfig(graph="window", window=1, loop=True).choose(NAMES[:4])
    assert looped == [(0, 1), (0, 3), (1, 2), (2, 3)]


def test_a_window_wider_than_the_pictures_is_every_pair():
    assert len(PairsConfig(graph="window", window=9, loop=True).choose(NAMES)) == 15


def test_few_pictures_are_paired_completely_and_many_are_not():
    config = PairsConfig()
    assert config.resolved(12) == "complete"
    assert config.uses_features(13)
    assert not config.uses_features(12)


def test_similar_pairs_similar_pictures_and_neighbours():
    features = np.array([[0, 0], [9, 0], [0, 9], [0.1, 0], [9.1, 0], [0, 9.1]], np.float32)
    pairs = PairsConfig(graph="similar", similar=1).choose(NAMES, features)
    assert {(0, 3), (1, 4), (2, 5)} <= set(pairs)
    assert set(pairs) - {(0, 3), (1, 4), (2, 5)} == {(k, k + 1) for k in range(5)}


def test_pairs_from_a_file_by_name_or_file_name(tmp_path):
    file = tmp_path / "pairs.txt"
    file.write_text("# mine\np0 p1\n\np2.jpg p1\np1 p0\n")
    assert PairsConfig(file=file).choose(NAMES[:3]) == [(0, 1), (1, 2)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p0 p1\n", "leave out 4 of 6 pictures: p2, p3, p4, p5"),
        ("p0 q1\n", "line 1: unknown picture 'q1'"),
        ("p0 p1 p2\n", "expected two picture names"),
    ],
)
def test_bad_pairs_are_an_error_that_names_the_fault(tmp_path, text, message):
    file = tmp_path / "pairs.txt"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        PairsConfig(file=file).choose(NAMES)


def test_a_missing_file_and_invalid_numbers_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        PairsConfig(file=tmp_path / "no").choose(NAMES)
    with pytest.raises(InputError, match="must be 1 or more"):
        PairsConfig(graph="window", window=0).choose(NAMES)


def test_the_smaller_part_is_the_one_left_out():
    with pytest.raises(InputError, match="leave out 2 of 5 pictures: p3, p4"):
        check_connected(NAMES[:5], [(0, 1), (1, 2), (3, 4)])
