"""The command: help with examples, options in any order, exit status."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lift3d
from lift3d import cli
from lift3d.cli import commands
from lift3d.export.ply import read_cloud
from lift3d.run.settings import LiftConfig
from lift3d.scene.errors import InputError, MissingExtra

ROOT = Path(__file__).resolve().parents[1]
TINY = ["--scene.views", "6", "--scene.width", "80", "--scene.height", "60"]


def parsed(*arguments):
    return cli._parse(["lift", *arguments])


def test_on_windows_the_command_names_the_supported_systems(monkeypatch, capsys):
    monkeypatch.setattr(sys, "platform", "win32")
    assert cli.main(["info", "scan"]) == 2
    assert "Linux and macOS" in capsys.readouterr().err


def test_without_file_locks_a_run_ends_with_a_message_instead_of_a_traceback():
    code = (
        "import sys\n"
        "sys.modules['fcntl'] = None\n"
        "from lift3d.scene.errors import InputError\n"
        "try:\n"
        "    import lift3d.run.stages\n"
        "except InputError as error:\n"
        "    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "WSL" in done.stdout


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    output = capsys.readouterr().out
    for name in ("lift", "batch", "info", "view", "evaluate", "export", "demo"):
        assert f"• {name}" in output


def test_without_words_the_help_is_printed_with_examples_and_the_place_of_the_docs(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([])
    assert end.value.code == 0
    output = capsys.readouterr().out
    assert "Try:" in output
    assert "lift3d demo --out" in output
    assert "docs/" in output


def test_the_version_is_printed(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"lift3d {lift3d.__version__}\n"


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_has_examples_in_its_help(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    output = capsys.readouterr().out
    assert f"lift3d {name} " in output.split("Try:")[1]
    assert len(output.splitlines()) > 8


@pytest.mark.parametrize("order", [["--help", "segmentation:sam"], ["segmentation:sam", "-h"]])
def test_help_has_the_options_of_chosen_backends_in_any_order(order, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["lift", *order, "tracking:mastsam"])
    assert end.value.code == 0
    output = capsys.readouterr().out
    assert "--segmentation.checkpoint" in output
    assert "--tracking.preset" in output


def test_the_list_has_the_first_line_of_each_commands_help():
    classes = {kind.__name__.lower(): kind for kind in commands.EXAMPLES}
    assert list(classes) == list(cli.COMMANDS)
    for name, kind in classes.items():
        assert kind.__doc__.splitlines()[0] == cli.COMMANDS[name]


def test_an_example_of_lift_is_valid():
    config = parsed(
        *("scans/kitchen", "--out", "out/kitchen"),
        *("segmentation:folder", "--segmentation.path", "masks", "tracking:independent"),
    )
    assert config.segmentation.path == Path("masks")
    assert type(config.tracking).__name__ == "IndependentConfig"


FOLDER = ["segmentation:folder", "--segmentation.path", "masks"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["in", "--out", "o", "--seed", "3", *FOLDER, "tracking:mastsam", "--tracking.points", "7"],
        ["in", "--out", "o", "tracking:mastsam", "--tracking.points", "7", *FOLDER, "--seed", "3"],
        [*FOLDER, "tracking:mastsam", "--tracking.points", "7", "in", "--seed", "3", "--out", "o"],
        ["--seed", "3", *FOLDER, "in", "tracking:mastsam", "--out", "o", "--tracking.points", "7"],
    ],
)
def test_backends_and_options_come_in_any_order(arguments):
    config = parsed(*arguments)
    assert (config.input, config.out, config.seed) == (Path("in"), Path("o"), 3)
    assert config.segmentation.path == Path("masks")
    assert config.tracking.points == 7


def test_only_input_and_out_are_required():
    config = parsed("in", "--out", "o")
    default = LiftConfig(Path("in"), Path("o"))
    assert all(getattr(config, name) == value for name, value in vars(default).items())


def test_an_unknown_command_gets_a_suggestion(capsys):
    assert cli.main(["lfit", "scan"]) == 2
    assert "did you mean 'lift'" in capsys.readouterr().err


def test_an_unknown_option_ends_with_status_2(capsys):
    assert cli.main(["lift", "scan", "--out", "o", "--vexol", "1"]) == 2
    assert "unknown option `--vexol`; did you mean `--voxel`?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "expected"),
    [
        (KeyboardInterrupt(), 130, "same command again"),
        (OSError(28, "No space left on device", "x.ply"), 1, "No space left on device: x.ply"),
        (OSError("4096 requested and 12 written"), 1, "disk"),
        (MemoryError(), 1, "memory"),
    ],
)
def test_a_failure_of_the_system_is_reported_in_one_line(
    error, status, expected, capsys, monkeypatch
):
    def run(self, command):
        raise error

    monkeypatch.setattr(commands.Info, "run", run)
    assert cli.main(["info", "synthetic"]) == status
    output = capsys.readouterr().err
    assert expected in output
    assert output.count("\n") == 1


def test_a_bug_is_not_hidden(monkeypatch):
    def run(self, command):
        raise ZeroDivisionError

    monkeypatch.setattr(commands.Info, "run", run)
    with pytest.raises(ZeroDivisionError):
        cli.main(["info", "synthetic"])


def test_info_shows_views_cameras_depth_and_truth(capsys):
    assert cli.main(["info", "synthetic:3"]) == 0
    output = capsys.readouterr().out
    for word in ("seed 3", "120", "320x240", "fx 277.1", "registered", "metres", "surface"):
        assert word in output


def test_info_reads_a_real_scan(shared_data, capsys):
    assert cli.main(["info", str(shared_data("apc_shelf_scene0000"))]) == 0
    output = capsys.readouterr().out
    assert "apc-shelf" in output
    assert "15" in output


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """A finished run of the demo, small, and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    done = subprocess.run(
        [sys.executable, "-m", "lift3d", "demo", "--out", str(folder), *TINY],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_the_demo_ends_with_scores_and_paths(demo):
    folder, output = demo
    for word in ("AP50", "AP25", "coverage", "H'", "cloud.ply", "report.html", "cloud.png"):
        assert word in output
    for name in ("cloud.ply", "report.html", "cloud.png"):
        assert str(folder / name) in output.replace("\n", "")
        assert (folder / name).stat().st_size > 1000


def test_info_of_a_run_shows_it_again(demo, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["info", str(demo[0])]) == 0
    assert "AP50" in capsys.readouterr().out


def test_export_writes_the_cloud_and_each_object(demo, capsys):
    folder, _ = demo
    assert cli.main(["export", str(folder), "--to", "ply"]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    cloud = read_cloud(folder / "cloud.ply")
    ids = np.unique(cloud.instance[cloud.instance > 0])
    assert [path.name for path in paths] == ["cloud.ply", "objects"]
    assert len(ids) > 2
    for each, path in zip(ids, sorted((folder / "export/objects").iterdir()), strict=True):
        part = read_cloud(path)
        assert np.array_equal(part.points.xyz, cloud.points.xyz[cloud.instance == each])
        assert (part.instance == each).all()


def test_an_unknown_format_gets_a_suggestion(demo, capsys):
    assert cli.main(["export", str(demo[0]), "--to", "pyl"]) == 2
    assert "did you mean 'ply'" in capsys.readouterr().err


def test_evaluating_a_run_against_itself_scores_1(demo, capsys, tmp_path):
    folder, _ = demo
    cloud = read_cloud(folder / "cloud.ply")
    np.save(tmp_path / "truth.npy", cloud.instance)
    np.savetxt(tmp_path / "truth.txt", cloud.instance, fmt="%d")
    for truth in (tmp_path / "truth.npy", tmp_path / "truth.txt", folder / "cloud.ply"):
        assert cli.main(["evaluate", str(folder), "--truth", str(truth)]) == 0
        found = json.loads((folder / "evaluation.json").read_text())
        assert [found["ap"], found["ap50"], found["ap25"]] == pytest.approx([1, 1, 1])
        assert found["protocol"]
    assert "protocol" in capsys.readouterr().out


def test_evaluating_against_the_scenes_own_surface_gives_the_demos_score(demo):
    """The demo's scene is smaller than `synthetic:0`, the room is the same."""
    folder, _ = demo
    assert cli.main(["evaluate", str(folder), "--truth", "synthetic:0"]) == 0
    found = json.loads((folder / "evaluation.json").read_text())
    assert 0 <= found["ap"] <= 1


@pytest.mark.parametrize(
    ("name", "content"), [("t.npy", None), ("t.txt", "1\n2\n"), ("t.txt", "a\nb\n"), ("t.csv", "")]
)
def test_a_truth_that_does_not_fit_is_named_in_the_error(demo, name, content, tmp_path, capsys):
    if content is not None:
        (tmp_path / name).write_text(content)
    assert cli.main(["evaluate", str(demo[0]), "--truth", str(tmp_path / name)]) == 2
    assert name in capsys.readouterr().err


def test_a_screenshot_needs_no_display(demo, tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.delenv("DISPLAY", raising=False)
    assert cli.main(["view", str(demo[0]), "--screenshot", str(tmp_path / "x.png")]) == 0
    pixels = np.asarray(Image.open(tmp_path / "x.png"))
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 10


def test_bars_are_for_terminals_and_lines_for_files(capsys):
    from lift3d.scene.progress import Lines, for_terminal

    assert isinstance(for_terminal(), Lines)
    with for_terminal().stage("fuse") as tick:
        tick(1, 2)
    assert capsys.readouterr().err == "fuse ...\n"


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ImportError("x.so: failed to map segment"), 1, "library cannot be loaded (x.so: failed"),
        (ModuleNotFoundError("No module named 'higra'", name="higra"), 1, "install lift3d again"),
        (OSError("Could not find libllvmlite.so"), 1, "lift3d: Could not find libllvmlite.so;"),
        (OSError("4096 requested and 12 written"), 1, "perhaps the disk is full (4096"),
        (MissingExtra("pip install 'lift3d[batch]'"), 2, "lift3d: pip install 'lift3d[batch]'"),
        (InputError("bad \x1b[31m"), 2, "lift3d: bad \\x1b[31m"),
    ],
)
def test_a_failure_of_the_system_is_a_message(error, status, said, monkeypatch, capsys):
    def fails(self, command):
        raise error

    monkeypatch.setattr(commands.Info, "run", fails)
    assert cli.main(["info", "scan"]) == status
    assert said in capsys.readouterr().err


def test_a_bug_in_lift3d_is_a_traceback(monkeypatch):
    def fails(self, command):
        raise ImportError("cannot import name 'x'", name="lift3d.scene")

    monkeypatch.setattr(commands.Info, "run", fails)
    with pytest.raises(ImportError):
        cli.main(["info", "scan"])


def test_where_libraries_cannot_be_loaded_the_message_is_shown_all_the_same():
    """NumPy is missing, which even our own errors need."""
    code = "import sys; sys.modules['numpy'] = None; from lift3d.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "info", "scan"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "a library cannot be loaded" in done.stderr
    assert "Traceback" not in done.stderr
