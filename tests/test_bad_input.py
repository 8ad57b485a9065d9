"""Bad input through the command: one message that says what to do, exit status 2, no traceback."""

import numpy as np
import pytest
from test_scannet_surface import annotate
from tiny_scan import tiny_scan, write_rgbd_json, write_scannet, write_sens

from lift3d.cli import main
from lift3d.run.record import read_json
from lift3d.scene.labelmaps import write_label_map


@pytest.fixture
def lift(tmp_path, capsys):
    """Lift `tmp_path/scan`; the exit status and what was said."""

    def run(*more, scan=tmp_path / "scan"):
        status = main(["lift", str(scan), "--out", str(tmp_path / "run"), *map(str, more)])
        said = capsys.readouterr().err
        assert "Traceback" not in said
        return status, said

    return run


@pytest.fixture
def scan(tmp_path):
    """Eight frames as an exported ScanNet folder; the folder."""
    write_scannet(tmp_path / "scan", tiny_scan(views=8))
    return tmp_path / "scan"


@pytest.fixture
def masks(tmp_path):
    """The true masks of `scan`."""
    for name, labels in zip(range(8), tiny_scan(views=8).instances, strict=True):
        write_label_map(tmp_path / "masks", str(name), labels)
    return tmp_path / "masks"


def with_masks(folder):
    return ["segmentation:folder", "--segmentation.path", str(folder)]


def test_a_whole_scan_is_lifted(scan, masks, lift, tmp_path):
    """What the faults below are faults of."""
    status, said = lift(*with_masks(masks))
    assert status == 0, said
    assert read_json(tmp_path / "run", "run.json")["views"] == 8


def test_a_path_that_is_not_there(lift, tmp_path):
    status, said = lift(scan=tmp_path / "nowhere")
    assert status == 2
    assert "nowhere does not exist" in said
    assert not (tmp_path / "run").exists(), "nothing was begun"


def test_an_empty_folder(lift, tmp_path):
    (tmp_path / "scan").mkdir()
    status, said = lift()
    assert status == 2
    assert "Expected one of" in said


def test_one_image(scan, lift):
    for path in scan.glob("*/*.*"):
        if path.parent.name != "color" or path.stem != "0":
            path.unlink()
    status, said = lift()
    assert status == 2
    assert "scan" in said


@pytest.mark.parametrize("folder", ["pose", "depth"])
def test_missing_files_are_counted(scan, folder, lift):
    for path in sorted((scan / folder).iterdir())[:6]:
        path.unlink()
    status, said = lift()
    assert status == 2
    assert folder in said
    assert "8" in said
    assert "2" in said


def test_a_pose_without_an_inverse_costs_its_frame(scan, masks, lift, tmp_path):
    np.savetxt(scan / "pose/3.txt", np.zeros((4, 4)))
    assert lift(*with_masks(masks))[0] == 0
    run = read_json(tmp_path / "run", "run.json")
    assert run["views"] == 7
    assert [frame["name"] for frame in run["skipped"]] == ["3"]


def test_poses_without_an_inverse_are_an_error(scan, lift):
    for path in (scan / "pose").iterdir():
        np.savetxt(path, np.zeros((4, 4)))
    status, said = lift()
    assert status == 2
    assert "pose" in said


def test_depth_that_is_no_number_is_an_error(tmp_path, lift):
    scan = tiny_scan(views=4)
    write_rgbd_json(tmp_path / "scan", scan, depth="range/d_*.npy")
    for i, depth in enumerate(scan.depths):
        np.save(tmp_path / f"scan/range/d_{i:03d}.npy", np.full_like(depth, np.nan))
    status, said = lift()
    assert status == 2
    assert "depth" in said


def test_an_image_of_another_size_costs_its_frame(scan, masks, lift, tmp_path):
    from PIL import Image

    Image.fromarray(np.zeros((30, 20, 3), np.uint8)).save(scan / "color/5.jpg")
    assert lift(*with_masks(masks))[0] == 0
    (skipped,) = read_json(tmp_path / "run", "run.json")["skipped"]
    assert skipped["name"] == "5"
    assert "20x30" in skipped["reason"]


def test_a_truncated_image_costs_its_frame(scan, masks, lift, tmp_path):
    path = scan / "depth/2.png"
    path.write_bytes(path.read_bytes()[:-60])
    assert lift(*with_masks(masks))[0] == 0
    (skipped,) = read_json(tmp_path / "run", "run.json")["skipped"]
    assert skipped["name"] == "2"
    assert "truncated" in skipped["reason"]


def test_a_truncated_sens_gives_its_whole_frames(masks, lift, tmp_path):
    path = tmp_path / "scan.sens"
    write_sens(path, tiny_scan(views=8))
    path.write_bytes(path.read_bytes()[:-500])
    (masks / "7.png").unlink()
    status, said = lift(*with_masks(masks), scan=path)
    assert status == 0, said
    assert read_json(tmp_path / "run", "run.json")["views"] == 7


def test_an_unknown_backend_gets_did_you_mean(scan, lift):
    status, said = lift("segmentation:foldr")
    assert status == 2
    assert said.count("\n") == 1
    assert "did you mean 'folder'" in said


def test_an_unknown_reader_gets_did_you_mean(scan, lift):
    status, said = lift("--reader", "scannet-foldr")
    assert status == 2
    assert "did you mean 'scannet-folder'" in said


def test_a_mask_folder_with_too_few_masks(scan, masks, lift):
    for path in list(masks.iterdir())[:3]:
        path.unlink()
    status, said = lift(*with_masks(masks))
    assert status == 2
    assert "masks" in said
    assert "5" in said
    assert "8" in said


def test_a_mask_folder_that_is_not_there(scan, lift, tmp_path):
    status, said = lift(*with_masks(tmp_path / "nomasks"))
    assert status == 2
    assert "nomasks" in said


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["segmentation:sam", "--segmentation.checkpoint", "none.pth"], "none.pth"),
        (["segmentation:sam", "--segmentation.checkpoint", "vitt.pth"], "not a PyTorch checkpoint"),
        (
            ["segmentation:sam-hf", "--segmentation.checkpoint", "."],
            "cannot be read as a model of transformers",
        ),
        (["tracking:mastsam", "matching:mast3r", "--matching.weights", "none.pth"], "none.pth"),
    ],
)
def test_weights_that_cannot_be_used_are_told_before_any_work(
    words, named, scan, lift, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "vitt.pth").write_bytes(b"no weights")
    status, said = lift(*words)
    assert status == 2
    assert named in said
    assert "reconstruct" not in said
    assert not (tmp_path / "run").exists()


def test_masks_of_another_size(scan, masks, lift):
    for path in masks.iterdir():
        write_label_map(masks, path.stem, np.ones((10, 10), np.int32))
    status, said = lift(*with_masks(masks))
    assert status == 2
    assert "10x10" in said


def test_a_folder_of_somebody_else_is_not_written_to(scan, masks, lift, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/thesis.tex").write_text("years of work")
    status, said = lift(*with_masks(masks))
    assert status == 2
    assert "no run of lift3d" in said
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("option", [("--views", "0"), ("--stride", "0"), ("--voxel", "-1")])
def test_a_number_out_of_range(scan, option, lift):
    status, said = lift(*option)
    assert status == 2
    assert option[0].strip("-") in said


def test_a_cloud_that_is_none(scan, lift, tmp_path):
    (tmp_path / "cloud.ply").write_text("not a ply")
    status, said = lift("--cloud", tmp_path / "cloud.ply")
    assert status == 2
    assert "cloud.ply" in said


def test_a_fault_late_in_the_run_keeps_what_was_done(scan, masks, lift, tmp_path):
    content = (masks / "7.png").read_bytes()
    write_label_map(masks, "7", np.ones((10, 10), np.int32))
    assert lift(*with_masks(masks))[0] == 2
    assert (tmp_path / "run/.stages/fuse.json").exists()
    (masks / "7.png").write_bytes(content)
    status, said = lift(*with_masks(masks))
    assert status == 0
    assert said.count(", kept") == 2  # reconstruct and fuse


@pytest.mark.parametrize("command", ["view", "evaluate", "export"])
def test_a_folder_that_is_no_run(command, tmp_path, capsys):
    more = {"evaluate": ["--truth", "t.ply"], "export": ["--to", "ply"], "view": []}[command]
    if command == "view":
        more = ["--screenshot", str(tmp_path / "x.png")]
    assert main([command, str(tmp_path), *more]) == 2
    assert str(tmp_path) in capsys.readouterr().err


def cut(folder, names):
    for name in names:
        path = folder / f"{name}.png"
        path.write_bytes(path.read_bytes()[:60])


def test_a_mask_that_cannot_be_read_is_named_with_the_reason(scan, masks, lift, tmp_path):
    cut(masks, [3])
    assert lift(*with_masks(masks))[0] == 0
    warnings = read_json(tmp_path / "run", "run.json")["warnings"]
    assert any(
        "view 3 stays unlabelled" in each and str(masks / "3.png") in each for each in warnings
    )


def test_where_no_mask_can_be_read_the_error_has_the_reason(scan, masks, lift):
    cut(masks, range(8))
    status, said = lift(*with_masks(masks))
    assert status == 2
    assert "8 of them cannot be read" in said
    assert str(masks / "0.png") in said.splitlines()[-1]
    assert "mend these files" in said
    assert "another segmenter" not in said


def test_a_damaged_truth_of_the_scan_is_a_warning_and_costs_no_label(scan, masks, lift, tmp_path):
    annotate(scan, "scan")
    mesh = scan / "scan_vh_clean_2.ply"
    mesh.write_bytes(mesh.read_bytes()[:-20])
    status, said = lift(*with_masks(masks))
    assert status == 0, said
    warnings = read_json(tmp_path / "run", "run.json")["warnings"]
    assert any("not scored" in each and "scan_vh_clean_2.ply" in each for each in warnings)
    assert "truth" not in read_json(tmp_path / "run", "consistency.json")
