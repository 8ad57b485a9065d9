"""Training VGGT-Segmentor: pairs, resuming, and a tiny run on the CPU."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sklearn", reason="needs scikit-learn")
import train_vggt_segmentor as recipe_script  # noqa: E402
from tiny_vggt_s import HEAD_SIZES, tiny_network  # noqa: E402
from vggt_segmentor import pairs  # noqa: E402
from vggt_segmentor.pairs import Recipe, Sample, batch, pair  # noqa: E402
from vggt_segmentor.pictures import Picture, collected  # noqa: E402
from vggt_segmentor.training import Optimisation, Step, train  # noqa: E402

from lift3d.networks.vggt_s.network import load  # noqa: E402
from lift3d.scene.errors import InputError  # noqa: E402
from lift3d.segmentation.regions import RegionsConfig  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE = 56
EXACT = Recipe(noise=0.0, colour=0.0, zoom=0.0, crop=0.0)


def stored(folder, name="a", scene="s", agree=False, shift=0):
    """A picture with two squares, moved to the right by `shift`."""
    labels = np.zeros((80, 120), np.int32)
    labels[20:50, 30 + shift : 60 + shift] = 1
    labels[55:75, 70 + shift : 100 + shift] = 2
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 255, (3, 3), dtype=np.uint8)
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.npz"
    np.savez_compressed(file, image=colours[labels], labels=labels)
    return Picture(file, scene, agree)


def inside(xy, mask):
    column, row = np.rint(xy.numpy()).astype(int).clip(0, len(mask) - 1).T
    return mask.numpy()[row, column] > 0.5


@pytest.mark.parametrize("together", [0.0, 1.0])
def test_the_copys_mask_and_points_follow_its_warp(tmp_path, together):
    pictures = [stored(tmp_path)]
    recipe = replace(EXACT, together=together)
    for seed in range(20):
        found = pair(pictures, recipe, SIZE, 5, (seed,))
        assert bool(found.together) == bool(together)
        # The squares have colours of their own, so the truth is where that colour is.
        source, target = found.images.numpy()
        colour = source[found.mask.numpy() > 0.5][0].astype(int)
        same = np.abs(target.astype(int) - colour).max(-1) < 30
        truth = found.truth.numpy() > 0.5
        assert (same & truth).sum() / (same | truth).sum() > 0.7
        assert inside(found.source_xy, found.mask).all()
        seen = ((found.target_xy > 1) & (found.target_xy < SIZE - 2)).all(1)
        assert inside(found.target_xy[seen], found.truth).mean() > 0.7 if seen.any() else True


def test_only_the_second_group_is_mirrored_or_turned_far():
    rng = np.random.default_rng(0)
    warps = [[pairs._warp(EXACT, bool(k), SIZE, rng) for _ in range(60)] for k in (1, 0)]
    angle = [[abs(np.degrees(np.arctan2(w[1, 0], w[0, 0]))) for w in each] for each in warps]
    assert max(angle[0]) <= 15
    assert max(angle[1]) > 90
    mirrored = [[np.linalg.det(w[:2, :2]) < 0 for w in each] for each in warps]
    assert not any(mirrored[0])
    assert 15 < sum(mirrored[1]) < 45


def test_pairs_of_a_run_are_two_pictures_of_one_object(tmp_path):
    pictures = [stored(tmp_path, "a", agree=True), stored(tmp_path, "b", agree=True, shift=15)]
    for seed in range(10):
        found = pair(pictures, EXACT, SIZE, 5, (seed,), supervised=1.0)
        source, target = found.images.numpy()
        colours = [
            set(map(tuple, image[mask.numpy() > 0.5].tolist()))
            for image, mask in ((source, found.mask), (target, found.truth))
        ]
        assert colours[0] & colours[1]
        assert inside(found.target_xy, found.truth).all()


def test_the_same_seed_gives_the_same_pair_and_pictures_without_masks_are_refused(tmp_path):
    pictures = [stored(tmp_path)]
    one, two = (pair(pictures, Recipe(), SIZE, 5, (3, 1)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    empty = tmp_path / "empty.npz"
    np.savez(empty, image=np.zeros((9, 9, 3), np.uint8), labels=np.zeros((9, 9), np.int32))
    with pytest.raises(InputError, match="no masks to train on"):
        pair([Picture(empty, "s", False)], Recipe(), SIZE, 5, (0,))


def test_scans_are_segmented_and_parts_of_them_taken(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        image = np.full((60, 80, 3), 40 * number, np.uint8)
        image[20:40, 20:50] = 255 - 50 * number
        cv2.imwrite(str(photos / f"{number}.png"), image)
    found = collected([f"{photos}@1:4:2"], RegionsConfig(), tmp_path / "kept", 40)
    assert [each.file.stem for each in found] == ["1", "3"]
    image, labels = found[0].load()
    assert image.shape == (30, 40, 3)
    assert labels.max() >= 1
    assert not found[0].agree


def drawn(tmp_path, size=2):
    pictures = [stored(tmp_path / "p")]
    return lambda step, own: batch(pictures, EXACT, HEAD_SIZES.size, 3, 0, step, own)


def options(steps, **more):
    return Optimisation(
        steps=steps, batch=2, rate=3e-3, schedule="cosine", train_vggt=True, save_every=2, **more
    )


def trained(folder, draw, *steps):
    losses = []
    for number, last in enumerate(steps):
        if number < len(steps) - 1:  # stopped after so many of all
            cut = replace(options(steps[-1]), minutes=0.0)
            for _ in range(last):
                losses += train(tiny_network(), draw, cut, folder, torch.device("cpu"))
        else:
            network = tiny_network()
            losses += train(network, draw, options(last), folder, torch.device("cpu"))
    return losses


def test_a_training_that_is_continued_gives_the_same_weights(tmp_path):
    draw = drawn(tmp_path)
    whole = trained(tmp_path / "whole", draw, 4)
    parts = trained(tmp_path / "parts", draw, 2, 4)
    assert whole == pytest.approx(parts, rel=1e-5)
    one, two = (load(tmp_path / each / "last.pth", None) for each in ("whole", "parts"))
    for key, each in one.state_dict().items():
        torch.testing.assert_close(each, two.state_dict()[key], rtol=1e-4, atol=1e-5)


def test_a_tiny_network_learns_two_pictures_by_heart(tmp_path):
    draw = drawn(tmp_path)
    fixed = draw(0, range(2))
    steady = replace(options(30), schedule="steps")
    losses = train(tiny_network(), lambda step, own: fixed, steady, tmp_path, torch.device("cpu"))
    assert losses[-1] < 0.8 * losses[0]


def test_a_folder_of_another_training_is_not_continued(tmp_path):
    draw = drawn(tmp_path)
    train(tiny_network(), draw, options(1), tmp_path, torch.device("cpu"))
    other = replace(options(2), batch=3)
    with pytest.raises(InputError, match="other sizes"):
        train(tiny_network(), draw, other, tmp_path, torch.device("cpu"))


def test_a_frozen_vggt_stays_as_it_is_and_tracks_points(tmp_path):
    network = tiny_network()
    before = {key: each.clone() for key, each in network.vggt.state_dict().items()}
    frozen = replace(options(1), train_vggt=False)
    head = {key: each.clone() for key, each in network.head.state_dict().items()}
    train(network, drawn(tmp_path), frozen, tmp_path, torch.device("cpu"), tracked=True)
    for key, each in network.vggt.state_dict().items():
        assert torch.equal(each, before[key])
    assert any(not torch.equal(each, head[key]) for key, each in network.head.state_dict().items())
    kept = torch.load(tmp_path / "last.pth", weights_only=True)
    assert "vggt" not in kept


def test_the_second_half_of_a_batch_is_refined(tmp_path, monkeypatch):
    network = tiny_network()
    passes = []
    forward = network.head.forward

    def counted(*words, **more):
        passes.append((len(words[0]), words[4]))
        return forward(*words, **more)

    monkeypatch.setattr(network.head, "forward", counted)
    found = drawn(tmp_path)(0, range(3))
    Step(network, replace(options(1), refinements=2), False)(Sample(*found))
    assert passes == [(1, 1), (2, 3)]


@pytest.mark.slow
def test_the_script_trains_in_two_processes(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    image = np.full((60, 80, 3), 30, np.uint8)
    image[20:40, 20:50] = 200
    for name in "ab":
        cv2.imwrite(str(photos / f"{name}.png"), image)
    root = Path(recipe_script.__file__).resolve().parents[1]
    words = [str(root / "pipelines/train_vggt_segmentor.py"), str(photos)]
    words += ["--out", str(tmp_path / "o")]
    words += ["--small", "--optimisation.train-vggt", "--optimisation.steps", "2"]
    words += ["--optimisation.batch", "1", "--device", "cpu", "--threads", "1"]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launch, *words], capture_output=True, text=True, check=False,
        env=environment, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "o/last.pth", None).head.config.size == recipe_script.SMALL_HEAD.size
