"""No byte of a name acts on a terminal, none is markup, and none costs the result."""

import ast
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from tiny_scan import tiny_scan, write_scannet, write_transforms

from lift3d.cli import main
from lift3d.export.registry import FORMATS
from lift3d.run.run import Run
from lift3d.scene.labelmaps import write_label_map
from lift3d.scene.printing import arrange_logs, only_text, plain_table, printable, to_console

ROOT = Path(__file__).resolve().parents[1]
BAD = os.fsdecode(b"k\xfc\x1b[31m[red][b]")
"""A name with a byte that is not UTF-8, a colour code of terminals, and markup of rich."""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb", "a\\x0db"),
        (os.fsdecode(b"\xff"), "\\xff"),
        ("\ud800", "\\ud800"),
        ("txt\u202egnp", "txt\\u202egnp"),
        ("Küche 7, 厨房\tend\n", "Küche 7, 厨房\tend\n"),
        ("end\r\n", "end\n"),
    ],
)
def test_what_cannot_be_shown_is_shown_as_its_code(text, shown):
    assert printable(text) == shown
    printable(text).encode()


def test_rich_reads_no_markup_in_tables_and_lines():
    from rich.console import Console

    console = Console(file=io.StringIO(), width=60)
    table = plain_table("run [/b]")
    table.add_column()
    table.add_row("[red]x[/b] :smile:")
    console.print(table)
    to_console(console, "line [/b] \x1b[31m")
    for each in ("run [/b]", "[red]x[/b] :smile:", "line [/b] \\x1b[31m"):
        assert each in console.file.getvalue()


@pytest.mark.parametrize("board", ["stage", "batch"])
def test_bars_take_any_name(board, monkeypatch):
    from rich.console import Console

    from lift3d.run.batch.board import BarBoard
    from lift3d.scene.progress import Bars

    bars = Bars() if board == "stage" else BarBoard()
    bars.console = Console(file=io.StringIO(), force_terminal=True, width=80)
    if board == "stage":
        with bars.stage("[/b]\x1bx") as tick:
            tick(1, 2)
    else:
        with bars.shown(1, lambda: [("[/b]\x1bx", 2)]):
            bars.pulse()
            bars.drawing.refresh()
    assert "[/b]\\x1bx" in bars.console.file.getvalue()


def test_logs_and_warnings_are_printable(capsys, monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    arrange_logs()
    assert printable("\x1b") in warnings.formatwarning("\x1b", UserWarning, "file", 1)
    record = logging.LogRecord("lift3d", logging.WARNING, "", 0, "view %s", ("\x1b",), None)
    assert logging.lastResort.format(record) == "view \\x1b"


def test_everything_is_printed_in_one_place():
    """`print` and rich's `print` are called only with text that has been made printable."""
    own = {"scene/printing.py", "cli/__init__.py"}
    shown = {"table", "shown"}  # of `plain_table`
    found = []
    for path in sorted((ROOT / "lift3d").rglob("*.py")):
        name = path.relative_to(ROOT / "lift3d").as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if name not in own and isinstance(node, ast.Call) and node.args:
                called = getattr(node.func, "id", getattr(node.func, "attr", ""))
                plain = getattr(node.args[0], "id", "") in shown
                if called == "print" and not plain:
                    found.append(f"{name}: {ast.unparse(node)}")
    assert [each for each in found if "KEYS.items()" not in each] == []


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A scan and a run of it whose names are as odd as can be; the folder of the run."""
    place = tmp_path_factory.mktemp("odd")
    scan = tiny_scan(views=4)
    write_scannet(place / "scan", scan)
    for folder, suffix in (("color", ".jpg"), ("depth", ".png"), ("pose", ".txt")):
        (place / "scan" / folder / f"2{suffix}").rename(place / "scan" / folder / f"{BAD}{suffix}")
    for name, labels in zip(("0", "1", BAD, "3"), scan.instances, strict=True):
        write_label_map(place / "masks", name, labels)
    (place / "scan").rename(place / f"scan{BAD}")
    words = ["lift", place / f"scan{BAD}", "--out", place / f"run{BAD}", "--voxel", "0.1"]
    words += ["segmentation:folder", "--segmentation.path", place / "masks"]
    assert main([*map(str, words)]) == 0
    return place / f"run{BAD}"


def test_a_scan_and_a_run_with_odd_names_are_lifted(odd):
    run = Run.open(odd)
    assert list(run.labels) == ["0", "1", "3", BAD]
    assert (run.labels[BAD] > 0).any()
    page = (odd / "report.html").read_bytes().decode()
    assert "k\\xfc\\x1b[31m[red][b]" in page
    assert "\x1b" not in page


@pytest.mark.parametrize(
    "words",
    [
        ("info", "{run}"),
        ("info", "{run}/../scan{bad}"),
        ("why", "{run}", "{bad}", "9", "9"),
        ("why", "{run}", "nothing{bad}", "9", "9"),
        ("view", "{run}", "--screenshot", "{run}/{bad}.png"),
        ("evaluate", "{run}", "--truth", "{run}/cloud.ply", "--views", "{run}/labels"),
        ("evaluate", "{run}", "--truth", "{run}/{bad}.ply"),
        ("export", "{run}", "--to", "{bad}"),
        ("{bad}",),
        ("lift", "{bad}", "--out", "{bad}"),
        ("weights", "{bad}"),
        ("batch", "{bad}", "--out", "{run}"),
        ("info", "{run}", "{bad}"),
        ("evaluate", "{run}", "--truth", "{run}", "--benchmark", "{bad}"),
    ],
)
def test_every_command_takes_odd_names(odd, words, capfd):
    words = [each.format(run=odd, bad=BAD) for each in words]
    try:
        status = main(words)
    except SystemExit as end:  # of the library that parses the command line
        status = end.code
    assert status in (0, 2)
    said = capfd.readouterr()
    assert "\x1b" not in said.out + said.err
    assert "\\x1b[31m" in said.out + said.err


@pytest.mark.parametrize("name", sorted(set(FORMATS) - {"rerun"}))
def test_every_export_has_names_that_other_programs_can_read(odd, name, tmp_path):
    run = odd
    if name == "corrections":
        run = shutil.copytree(odd, tmp_path / odd.name)
        assert main(["edit", str(run), "delete", str(Run.open(run).objects[0].id)]) == 0
    more = ["--undistort", "--text"] if name == "colmap" else ["--undistort"]
    assert main(["export", str(run), "--to", name, "--out", str(tmp_path / "out"), *more]) == 0
    for path in (tmp_path / "out").rglob("*"):
        assert only_text(path.name) == path.name


def test_a_missing_picture_with_an_odd_name_is_only_left_out(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    scan = tmp_path / "scan"
    write_transforms(scan, tiny_scan(views=4))
    stored = json.loads((scan / "transforms.json").read_text())
    for frame, path in zip(stored["frames"], ("[/b]x.png", "\ud800\x1b]0;t\x07"), strict=False):
        frame["file_path"] = path
    (scan / "transforms.json").write_text(json.dumps(stored))
    assert main(["info", str(scan)]) == 0
    said = capsys.readouterr().out
    assert "[/b]x.png" in said
    assert "\\ud800\\x1b]0;t\\x07" in said


def test_a_batch_lists_scans_with_odd_names(tmp_path, odd):
    from urllib.parse import unquote_to_bytes

    from lift3d.run.batch.overview import Row, print_overview, write_overview

    rows = [Row(BAD, "in", str(tmp_path / BAD), "done"), Row(BAD, "in", "out", "failed", BAD)]
    write_overview(tmp_path, rows)
    print_overview(tmp_path, rows)
    page = (tmp_path / "batch.html").read_text(encoding="utf-8")
    link = page.partition('href="')[2].partition('"')[0]
    assert unquote_to_bytes(link) == os.fsencode(BAD) + b"/report.html"
    assert "\x1b" not in page


def test_wide_ids_and_colour_pngs_are_read_from_any_folder(tmp_path):
    from PIL import Image

    from lift3d.scene.labelmaps import read_label_map

    folder = tmp_path / BAD
    wide = np.full((6, 8), 70_000, np.int32)
    assert (read_label_map(write_label_map(folder, BAD, wide)) == wide).all()
    Image.fromarray(np.full((6, 8, 3), 5, np.uint8)).save(folder / "colour.png")
    assert (read_label_map(folder / "colour.png") == 5).all()


def test_a_video_with_an_odd_name_is_read(tmp_path):
    import cv2

    from lift3d.datasets.video import Video

    plain = tmp_path / "plain.avi"
    writer = cv2.VideoWriter(str(plain), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    pixels = np.random.default_rng(0).integers(0, 255, (48, 200, 3), np.uint8)
    for at in range(0, 60, 5):
        writer.write(np.ascontiguousarray(pixels[:, at : at + 64]))
    writer.release()
    shutil.copy(plain, tmp_path / f"{BAD}.avi")
    scene = Video().read(tmp_path / f"{BAD}.avi")
    assert (scene.views[0].image() == Video().read(plain).views[0].image()).all()


LIST = [sys.executable, "-m", "lift3d", "weights"]
SHELL = {
    "stdout": "{} >&-",
    "stderr": "{} 2>&-",
    "both": "{} >&- 2>&-",
    "all": "{} <&- >&- 2>&-",
    # What a shell script that was started with a closed stderr leaves to its programs.
    "a file in its place": "{} 2</dev/null",
}


@pytest.mark.parametrize("closed", SHELL)
def test_a_closed_stream_is_no_error(closed):
    words = " ".join(LIST)
    done = subprocess.run(["bash", "-c", SHELL[closed].format(words)], cwd=ROOT, check=False)
    assert done.returncode == 0


def test_an_error_has_its_status_with_stderr_closed():
    words = " ".join([*LIST, "nothing"])
    assert subprocess.run(["bash", "-c", f"{words} 2>&-"], cwd=ROOT, check=False).returncode == 2


def test_a_stream_of_another_encoding_gets_codes():
    environment = dict(os.environ, PYTHONIOENCODING="ascii")
    words = [sys.executable, "-m", "lift3d", "info", "Küche"]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, check=False)
    assert done.returncode == 2
    assert b"K\\xfcche does not exist" in done.stderr
