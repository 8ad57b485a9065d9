"""Masks carried from picture to picture by VGGT-Segmentor, with small random weights."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from walls import HEIGHT, WIDTH, TrueMasks, wall_labels, wall_scene, wall_view

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("sklearn", reason="needs scikit-learn")
from tiny_vggt_s import HEAD_SIZES, VGGT_SIZES, save_tiny, tiny_network  # noqa: E402

from lift3d import cli  # noqa: E402
from lift3d.networks.vggt_s import HeadConfig, framing  # noqa: E402
from lift3d.networks.vggt_s.network import load, load_head  # noqa: E402
from lift3d.scene import Matches  # noqa: E402
from lift3d.scene.errors import InputError  # noqa: E402
from lift3d.segmentation.tracking.vggt_s import VggtS, VggtSConfig  # noqa: E402
from lift3d.segmentation.transfer import (  # noqa: E402
    Carried,
    Transfer,
    TransferConfig,
    agreement,
    by_matches,
)

SQUARES = ((20, 20, 30, 2), (90, 40, 40, 3))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("weights") / "tiny.pth")


def transfer(weights, **settings):
    return TransferConfig(str(weights), device="cpu", precision="float32", **settings).build()


def masks_of(shift=0):
    labels = wall_labels(SQUARES, shift)
    return np.stack([labels == 2, labels == 3, labels == 99])


@pytest.mark.parametrize("framing_", ["object", "whole"])
def test_objects_come_alone_or_together_with_the_same_masks(weights, framing_):
    a, b = (wall_view(SQUARES, shift) for shift in (0, 10))
    together = transfer(weights, framing=framing_, batch=4).carry(a, b, masks_of())
    alone = transfer(weights, framing=framing_, batch=1).carry(a, b, masks_of())
    assert together.masks.shape == (3, HEIGHT, WIDTH)
    np.testing.assert_array_equal(together.masks, alone.masks)
    np.testing.assert_allclose(together.confidence, alone.confidence, atol=1e-3)
    assert not together.masks[2].any()  # its mask is empty
    assert not together.present[2]


def test_whole_pictures_are_encoded_once_for_all_objects_and_once_for_the_way_back(weights):
    carrier = transfer(weights, framing="whole", batch=1)
    calls = []
    features = carrier.network.features
    carrier.network.features = lambda images: calls.append(len(images)) or features(images)
    a, b = (wall_view(SQUARES, shift) for shift in (0, 10))
    there = carrier.carry(a, b, masks_of()).masks.any()
    assert calls == [1] * (1 + there)


def test_an_object_is_there_where_its_mask_comes_back_to_itself(weights):
    carrier = transfer(weights)
    a, b = (wall_view(SQUARES, shift) for shift in (0, 10))
    moved = masks_of(10)
    answers = {"there": moved, "back": masks_of()}
    answers["back"][1] = np.roll(answers["back"][1], 20, axis=1)  # half of it comes back
    order = iter(("there", "back"))
    carrier._carried = lambda *_: (answers[next(order)], np.ones(3, np.float32))
    found = carrier.carry(a, b, masks_of())
    np.testing.assert_allclose(found.confidence, [1, 1 / 3, 0], atol=1e-6)
    assert found.present.tolist() == [True, False, False]


def test_without_the_rule_every_mask_that_is_not_empty_is_present(weights):
    carrier = transfer(weights, existence=0.0)
    carrier._carried = lambda *_: (masks_of(10), np.ones(3, np.float32))
    a, b = (wall_view(SQUARES, shift) for shift in (0, 10))
    assert carrier.carry(a, b, masks_of()).present.tolist() == [True, True, False]


def test_agreement_is_the_iou_and_0_for_two_empty_masks():
    found = agreement(masks_of(), np.roll(masks_of(), 15, axis=2))
    np.testing.assert_allclose(found, [1 / 3, 25 / 55, 0], atol=1e-6)


def test_matches_replace_the_track_head_and_unmatched_masks_stay_in_their_place():
    class Ten:
        def match(self, a, b):
            xy = np.array([[30, 30], [35, 40]], np.float32)
            return Matches(xy, xy + np.float32([10, 0]), np.ones(2, np.float32))

    a, b = (wall_view(SQUARES, shift) for shift in (0, 10))
    moved, other, _ = by_matches(Ten(), a, b, masks_of()[[0, 1, 1]])
    assert moved.tolist() == [[40, 30], [45, 40]]
    assert other.min(0).tolist() == [90, 40]


def test_pictures_that_are_no_squares_are_cut_around_the_object_at_any_size():
    mask = np.zeros((60, 200), bool)
    mask[20:40, 180:199] = True
    window = framing.around_mask(mask)
    assert (window.left, window.top, window.width) == (140, 0, 60)
    far = framing.around_points(np.array([[190.0, 10.0], [199.0, 59.0]]), 60, 200)
    assert (far.left + far.width, far.width) == (200, 60)
    near = framing.around_points(np.array([[100.0, 30.0], [104.0, 30.0]]), 60, 200)
    assert near.width == 20  # a third of the shorter side
    whole = framing.whole(60, 200)
    picture = np.full((60, 200, 3), 7, np.uint8)
    seen = whole.cut(picture, 40)
    assert seen[5, 20, 0] == 7
    assert seen[30, 20, 0] == framing.FILL
    back = whole.recovered(np.full((40, 40), 3, np.float32), 60, 200)
    assert back.shape == (60, 200)
    assert back.min() == 3


def test_a_published_head_loads_with_its_extra_entries_and_no_key_missing(tmp_path, weights):
    network = tiny_network()
    state = {f"module.{key}": each for key, each in network.head.state_dict().items()}
    state["extra"] = torch.zeros(1)
    head = load_head(state, {"size": 28, "cells": 7, "width": 16}, tmp_path)
    for key, each in head.state_dict().items():
        assert torch.equal(each, network.head.state_dict()[key])
    del state["module.mask_decoder.mask_tokens.weight"]
    with pytest.raises(InputError, match=r"mask_tokens.weight is missing"):
        load_head(state, {"size": 28, "cells": 7, "width": 16}, tmp_path)
    with pytest.raises(InputError, match="expected"):
        load_head(network.head.state_dict(), None, tmp_path)  # the published sizes


def test_wrong_weights_are_refused_with_what_to_do(tmp_path):
    torch.save({"state": 1}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="no 'model' with weights"):
        load(tmp_path / "other.pth", None)
    alone = save_tiny(tmp_path / "alone.pth", vggt=None)
    with pytest.raises(InputError, match="head's weights alone"):
        load(alone, None)
    with pytest.raises(InputError, match="lift3d weights VGGT-S"):
        TransferConfig().build()
    with pytest.raises(InputError, match="7 pixels a cell"):
        HeadConfig(size=512).check("it")
    wrong = save_tiny(tmp_path / "w.pth", config={"head": vars(HEAD_SIZES), "vggt": {"depth": 0}})
    with pytest.raises(InputError, match="depth is 0"):
        load(wrong, None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"passes": 0}, "passes of 1"), ({"existence": 2.0}, "from 0 to 1")],
)
def test_settings_out_of_range_are_refused(weights, settings, message):
    with pytest.raises(InputError, match=message):
        TransferConfig(str(weights), **settings).build()


def test_a_mask_that_the_network_cannot_see_is_not_found(weights):
    a, b = (wall_view(SQUARES, shift) for shift in (0, 10))
    speck = np.zeros((1, HEIGHT, WIDTH), bool)
    speck[0, 1, 1] = True
    found = transfer(weights, framing="whole").carry(a, b, speck)
    assert not found.masks.any()
    assert not found.present.any()


def test_memory_that_runs_out_is_said_with_what_to_do(weights):
    carrier = transfer(weights)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    carrier._carried = full
    a, b = (wall_view(SQUARES, shift) for shift in (0, 10))
    with pytest.raises(InputError, match="smaller batch"):
        carrier.carry(a, b, masks_of())


def picture(path, view):
    cv2.imwrite(str(path), view.image()[..., ::-1])
    return path


def test_the_command_writes_a_map_per_picture_and_an_answer(weights, tmp_path, capsys):
    a, b = (picture(tmp_path / f"{n}.png", wall_view(SQUARES, s)) for n, s in (("a", 0), ("b", 10)))
    masks = tmp_path / "masks.png"
    labels = wall_labels(SQUARES, 0, background=0)
    cv2.imwrite(str(masks), labels.astype(np.uint8))
    words = ["transfer", str(a), str(b), "--masks", str(masks), "--head", str(weights)]
    more = ["--device", "cpu", "--framing", "whole", "--existence", "0"]
    assert cli.main([*words, "--out", str(tmp_path / "out"), *more]) == 0, capsys.readouterr()
    answer = json.loads((tmp_path / "out/transfer.json").read_text())
    assert set(answer["pictures"]) == {"b"}
    assert set(answer["pictures"]["b"]) == {"2", "3"}
    carried = cv2.imread(str(tmp_path / "out/b.png"), cv2.IMREAD_UNCHANGED)
    assert carried.shape == (HEIGHT, WIDTH)
    assert set(np.unique(carried)) <= {0, 2, 3}
    for change, message in (
        (["--masks", str(tmp_path / "no.png")], "no file or folder"),
        (["--view", "a"], "--view is for a run"),
    ):
        assert cli.main([*words, "--out", str(tmp_path / "out"), *more, *change]) == 2
        assert message in capsys.readouterr().err
    one = ["transfer", str(a), "--masks", str(masks), "--out", str(tmp_path / "out")]
    assert cli.main(one) == 2
    assert "two or more pictures" in capsys.readouterr().err


class Perfect(Transfer):
    """Carries masks as the wall moves; what is not there has confidence 0."""

    def __init__(self):
        self.asked = []

    def carry(self, a, b, masks):
        self.asked.append((a.name, b.name, len(masks)))
        by = round((b.camera.pose[0, 3] - a.camera.pose[0, 3]) / 0.02)
        moved = np.zeros_like(masks)
        moved[..., : WIDTH - by] = masks[..., by:]
        there = moved.any((1, 2))
        return Carried(moved, there.astype(np.float32), there.astype(np.float32), there)


def test_the_tracker_keeps_ids_and_starts_objects_that_appear():
    # The third square enters at the right after a shift of 30.
    squares = ((20, 20, 30, 2), (90, 40, 40, 3), (170, 10, 30, 4))
    scene = wall_scene(squares, [0, 20, 40])
    tracker = VggtS(VggtSConfig(), TrueMasks(), Perfect())
    maps = list(tracker.track(scene))
    ids = [int(labels[50, 100 - by]) for labels, by in zip(maps, (0, 20, 40), strict=True)]
    assert len(set(ids)) == 1
    assert ids[0] > 0
    assert maps[2][20, 135] not in np.unique(maps[0])  # new
    assert maps[2][20, 135] > 0


def test_each_object_is_carried_from_the_view_where_it_is_largest():
    squares = ((20, 20, 30, 2), (90, 40, 40, 3))
    perfect = Perfect()
    tracker = VggtS(VggtSConfig(memory=2), TrueMasks(), perfect)
    list(tracker.track(wall_scene(squares, [0, 30, 60])))
    # At 30 a part of the first square has left the picture, so it comes from the first view, as
    # does the wall, of which a part was not seen before. The second square is as large in both.
    assert perfect.asked[1:] == [("view000", "view060", 2), ("view030", "view060", 1)]
    with pytest.raises(InputError, match="memory"):
        VggtSConfig(memory=0).check()


def test_the_network_takes_maps_of_its_own_width_only():
    from lift3d.networks.vggt.network import VGGT
    from lift3d.networks.vggt_s.head import UnionHead
    from lift3d.networks.vggt_s.network import Segmentor

    with pytest.raises(InputError, match="belong together"):
        Segmentor(VGGT(VGGT_SIZES), UnionHead(HeadConfig(28, 7, 24)))


@pytest.fixture(scope="module")
def lifted(weights, tmp_path_factory):
    """A tiny room, tracked with random weights."""
    from lift3d.datasets.synthetic import SyntheticConfig
    from lift3d.run.lift import lift
    from lift3d.run.settings import LiftConfig
    from lift3d.segmentation.simulated import SimulatedConfig

    folder = tmp_path_factory.mktemp("lifted") / "run"
    scene = SyntheticConfig(views=3, width=64, height=48).read()
    settings = TransferConfig(
        str(weights), framing="whole", tracked=5, existence=0.0, batch=64, device="cpu",
        precision="float32",
    )  # fmt: skip
    config = LiftConfig(
        Path("synthetic"),
        folder,
        voxel=0.08,
        segmentation=SimulatedConfig(severity="none"),
        tracking=VggtSConfig(settings, memory=1),
    )
    lift(config, scene)
    return folder


def test_a_lift_with_this_tracker_ends_with_labels(lifted):
    from lift3d.run.run import Run

    run = Run.open(lifted)
    assert (run.cloud.instance > 0).any()
    assert run.settings["tracking"]["transfer"]["framing"] == "whole"


def test_masks_of_a_view_of_a_run_go_to_all_other_views(lifted, weights, tmp_path, capsys):
    from lift3d.run.run import Run

    first, *others = Run.open(lifted).cameras
    words = ["transfer", str(lifted), "--masks", str(lifted / f"labels/{first}.png")]
    words += ["--out", str(tmp_path / "out"), "--head", str(weights), "--device", "cpu"]
    words += ["--framing", "whole", "--tracked", "5", "--existence", "0", "--batch", "64"]
    assert cli.main([*words, "--view", first]) == 0, capsys.readouterr()
    answer = json.loads((tmp_path / "out/transfer.json").read_text())
    assert list(answer["pictures"]) == others
    assert all((tmp_path / f"out/{name}.png").exists() for name in others)
    assert cli.main(words) == 2
    assert "--view" in capsys.readouterr().err
    assert cli.main([*words, "--view", f"{first}x"]) == 2
    assert "did you mean" in capsys.readouterr().err
