"""The track head as a matcher: points, checks, and pixels of the full-size pictures."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the extra: pip install 'lift3d[vggt]'")

from tiny_mast3r import STEP, write_pictures  # noqa: E402
from tiny_vggt import write_checkpoint  # noqa: E402

from lift3d.datasets import read_scene  # noqa: E402
from lift3d.networks.vggt.inference import Predictor, Tracked  # noqa: E402
from lift3d.run.settings import KINDS  # noqa: E402
from lift3d.scene.errors import InputError  # noqa: E402
from lift3d.segmentation.matching.vggt import VggtMatcherConfig  # noqa: E402

WIDTH, HEIGHT = 224, 168


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    path = tmp_path_factory.mktemp("vggt")
    write_checkpoint(path / "tiny")
    write_pictures(path / "photos", 3, WIDTH, HEIGHT)
    return path


@pytest.fixture(scope="module")
def photos(place):
    return read_scene(place / "photos")


def config(place, **options):
    given = {"size": 112, "stride": 8, "device": "cpu", "precision": "float32"}
    return VggtMatcherConfig(weights=str(place / "tiny"), **(given | options))


def following(monkeypatch, hidden=False, wrong=0):
    """A stand-in for the network that knows the shift of the pictures, halved for its size."""
    calls = []

    def tracked(self, first, second, start):
        sign = -1 if not calls else 1
        calls.append(len(start))
        xy = start + np.float32(sign * STEP / 2)
        if sign > 0:
            xy[:wrong] += 50
        seen = np.ones((2, len(start)), np.float32)
        if hidden:
            seen[1, ::2] = 0.1
        return Tracked(0, np.stack([start, xy]), seen, seen * 0.5)

    monkeypatch.setattr(Predictor, "tracked", tracked)
    return calls


def test_matches_are_in_pixels_of_the_full_pictures(place, photos, monkeypatch):
    following(monkeypatch)
    found = config(place).build().match(photos.views[0], photos.views[1])
    assert np.allclose(found.xy_in_a - found.xy_in_b, STEP, atol=1e-3)
    assert len(found) > 80
    assert found.xy_in_a.min() >= STEP - 0.5  # the others left the second picture
    assert np.allclose(found.confidence, 0.5)


def test_hidden_points_and_points_that_do_not_come_back_are_dropped(place, photos, monkeypatch):
    following(monkeypatch)
    every = len(config(place).build().match(photos.views[0], photos.views[1]))
    calls = following(monkeypatch, wrong=10)
    assert len(config(place).build().match(photos.views[0], photos.views[1])) == every - 10
    assert calls[1] == every
    calls = following(monkeypatch, wrong=10)
    assert len(config(place, back=0.0).build().match(*photos.views[:2])) == every
    assert len(calls) == 1
    following(monkeypatch, hidden=True)
    assert len(config(place).build().match(photos.views[0], photos.views[1])) < 0.6 * every


def test_the_network_itself_gives_matches_inside_the_pictures(place, photos):
    """Random weights: only that points are tracked from picture to picture."""
    matcher = config(place, visibility=0.0, back=1000.0).build()
    found = matcher.match(photos.views[0], photos.views[2])
    for xy in (found.xy_in_a, found.xy_in_b):
        assert ((xy > -1) & (xy < [WIDTH, HEIGHT])).all()
    again = matcher.match(photos.views[0], photos.views[2])
    assert np.array_equal(found.xy_in_b, again.xy_in_b)


def test_the_points_tracker_runs_on_its_matches(place, photos, monkeypatch):
    tracking = KINDS["tracking"]["mastsam"]()
    segmenter = KINDS["segmentation"]["regions"](level_alone=0.45, smallest_alone=0.001).build()

    def tracked(self, first, second, start):
        seen = np.ones((2, len(start)), np.float32)
        return Tracked(0, np.stack([start, start - np.float32(STEP / 2)]), seen, seen)

    monkeypatch.setattr(Predictor, "tracked", tracked)
    matcher = config(place, back=0.0).build()
    maps = list(tracking.build(segmenter, matcher).track(photos))
    assert len(maps) == 3
    first, second = (set(np.unique(each).tolist()) - {0} for each in maps[:2])
    assert first & second


@pytest.mark.parametrize(
    ("options", "message"), [({"stride": 0}, "stride is 0"), ({"size": 100}, "multiple of 14")]
)
def test_wrong_settings_are_errors(place, options, message):
    with pytest.raises(InputError, match=message):
        config(place, **options).build()
