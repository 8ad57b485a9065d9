"""The recipe for MastSAM's tables, on videos of a square that moves."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_davis import save

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pipelines"))
import davis_table as recipe
from davis.devices import free_devices

HEIGHT, WIDTH, FRAMES = 48, 72, 4


def video(root, name, seed=0):
    """A bright square that moves two pixels a frame over blotches that stay."""
    rng = np.random.default_rng(seed)
    ground = np.kron(rng.integers(20, 120, (6, 9, 3)), np.ones((8, 8, 1)))
    for index in range(FRAMES):
        picture, mask = ground.copy(), np.zeros((HEIGHT, WIDTH))
        at = np.s_[14:34, 10 + 2 * index : 30 + 2 * index]
        picture[at], mask[at] = (250, 240, 60), 255
        save(root / "JPEGImages" / "480p" / name / f"{index:05d}.jpg", picture)
        save(root / "Annotations" / "480p" / name / f"{index:05d}.png", mask)


@pytest.fixture
def root(tmp_path):
    for seed, name in enumerate(("camel", "swan")):
        video(tmp_path / "davis", name, seed)
    return tmp_path / "davis"


def run(root, *more, workers=0):
    out = root.parent / "out"
    status = recipe.main([str(root), "--out", str(out), "--workers", str(workers), *more])
    return status, out


def rows(text):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|") and "--" not in line
    ]


def test_every_column_of_ours_is_filled_and_the_papers_figures_stand_beside(root, capsys):
    status, out = run(root)
    text = (out / "tables.md").read_text()
    assert status == 0
    assert text.strip() in capsys.readouterr().out
    assert ["MastSAM", "paper", "0.4553", "0.5228", "0.5226", "0.5988", "92.32"] in rows(text)
    ours = [row for row in rows(text) if "paper" not in row]
    assert not [row for row in ours if "–" in row]
    assert {row[0] for row in ours} >= {
        "BYOCL",
        "MastSAM",
        "MastSAM, our preset",
        "regions per frame",
        "MastSAM without initialisation",
    }
    means = json.loads((out / "tables.json").read_text())["means"]
    # Masks that are good in every image, and under one id only for who tracks.
    assert means["independent"]["per_image_iou"] > 0.85
    assert means["independent"]["one_id_iou"] < 0.4 < means["mastsam-best"]["one_id_iou"]
    assert means["independent"]["H"] < 0.1 < 0.6 < means["mastsam-best"]["H"]


def test_nothing_is_presented_as_the_papers(root):
    run(root, "--frames", "2", "--size", "64", "--methods", "byocl")
    text = (root.parent / "out" / "tables.md").read_text()
    assert "No figure of ours reproduces the paper's: masks are of 'regions', not of SAM" in text
    assert "matches are of 'flow', not of MASt3R; only the first 2 frames" in text
    assert "longer side of 64" in text


def test_only_verified_weights_of_its_networks_count_as_the_papers():
    options = recipe.Options(
        Path("in"), Path("out"), segmenter="sam", checkpoint="sam_vit_h", matcher="mast3r"
    )
    assert recipe.not_the_papers(options) == []
    other = replace(options, checkpoint="my.pth", weights="mine.pth")
    assert [reason.split(" are ")[0] for reason in recipe.not_the_papers(other)] == [
        "the weights my.pth",
        "the weights mine.pth",
    ]


def test_what_is_done_is_kept_and_what_is_damaged_or_other_is_done_again(root, capsys):
    run(root, "--methods", "byocl", "independent")
    files = sorted((root.parent / "out").glob("*/*.json"))
    assert len(files) == 4
    for file in files:
        file.write_text(file.read_text().replace('"seconds": ', '"seconds": 5000'))
    files[0].write_text('{"cut sh')
    capsys.readouterr()
    status, _ = run(root, "--methods", "byocl", "independent")
    assert status == 0
    said = capsys.readouterr().err
    assert "1 of 2 sequences are done already" in said
    assert "[1/1] camel" in said
    again = [json.loads(file.read_text())["seconds"] >= 5000 for file in files]
    assert again == [False, True, True, True]
    run(root, "--methods", "byocl", "independent", "--frames", "3")
    assert all(json.loads(file.read_text())["frames"] == 3 for file in files)


def test_a_sequence_that_fails_is_told_and_the_others_are_done(root, capsys):
    for file in (root / "JPEGImages" / "480p" / "camel").iterdir():
        file.write_bytes(b"no image")
    status, out = run(root, "--methods", "independent")
    assert status == 1
    said = capsys.readouterr()
    assert "camel failed: InputError" in said.err
    assert "NOT COMPLETE: of 2 sequences there are independent 1" in said.out
    assert (out / "swan" / "independent.json").exists()


def test_workers_share_the_sequences_and_find_the_same(root):
    run(root, "--methods", "byocl", "independent", workers=2)
    out = root.parent / "out"
    apart = {file: json.loads(file.read_text()) for file in out.glob("*/*.json")}
    assert len(apart) == 4
    for file in apart:
        file.unlink()
    run(root, "--methods", "byocl", "independent")
    for file, found in apart.items():
        alone = json.loads(file.read_text())
        assert alone["video"] == found["video"]
        assert alone["consistency"] == found["consistency"]


def test_each_gpu_gets_a_worker_and_without_a_network_none_is_used(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert free_devices(True, None, 9) == ["cuda:0", "cuda:1", "cuda:2"]
    assert free_devices(True, None, 2) == ["cuda:0", "cuda:1"]
    assert free_devices(True, 4, 9) == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]
    assert free_devices(False, 2, 9) == ["cpu", "cpu"]


@pytest.fixture
def one_thread():
    """Toys gain nothing from more, and lose much on a busy machine."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(before)


def test_small_random_weights_of_sam_go_through_every_column(root, tmp_path, one_thread):
    torch = one_thread
    pytest.importorskip("segment_anything")
    from tiny_sam import TOY, authors_model, liven

    torch.manual_seed(0)
    torch.save(liven(authors_model(TOY)).state_dict(), tmp_path / "sam.pth")
    status, out = run(
        root,
        *("--segmenter", "sam", "--checkpoint", str(tmp_path / "sam.pth"), "--frames", "2"),
        *("--methods", "byocl", "mastsam", "independent"),
        *("--sequences", "swan", "--masks.min-score", "-9", "--masks.min-stability", "0"),
        *("--masks.smallest", "0", "--masks.points-per-side", "2", "--masks.crop-layers", "0"),
    )
    text = (out / "tables.md").read_text()
    assert status == 0
    assert not [row for row in rows(text) if "paper" not in row and "–" in row]
    assert "sam per frame" in text
    assert "sam.pth are not verified to be SAM's" in text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--segmenter", "sam"), "needs --checkpoint"),
        (("--methods", "mastsan"), "did you mean 'mastsam'"),
        (("--sequences", "swam"), "did you mean 'swan'"),
        (("--frames", "1"), "--frames >= 2"),
        (("--segmenter", "sam", "--checkpoint", "none.pth"), "no file 'none.pth'"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(root, capsys, given, said):
    status, out = run(root, *given)
    assert status == 2
    assert said in capsys.readouterr().err
    assert not out.exists()
