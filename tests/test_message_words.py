"""What messages, help and docstrings tell people to type exists: options, commands, backends."""

import ast
import re
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

import lift3d
from lift3d.cli import COMMANDS
from lift3d.cli.commands import EXAMPLES
from lift3d.cli.options import _names, _plain
from lift3d.run.settings import AUTOMATIC, CHOICES
from lift3d.scene.registry import KINDS

PACKAGE = Path(lift3d.__file__).parent
OPTION = re.compile(r"(?<![\w-])--([a-z][a-z0-9_]*(?:[-.][a-z0-9_]+)*)(?![{<])")
COMMAND = re.compile(r"(?:`|^ +)lift3d (\w[\w-]*)", re.MULTILINE)
BACKEND = re.compile(rf"`({'|'.join(CHOICES)}):([a-z0-9][a-z0-9-]*)[ `]")
FOREIGN = re.compile(r"\b(pip|python|colmap|ffmpeg|git|ns-train|docker|ray) ")
"""Lines of a page that call another program."""
OTHERS = {
    # nerfstudio's ns-train
    *("data", "orientation-method", "center-method", "auto-scale-poses"),
    # Open3D's run_system.py
    *("config", "make", "register", "refine", "integrate"),
    # SAM's amg.py
    "convert-to-rle",
    # ray start
    "head",
    # pipelines/distill_splat.py
    "distill.device",
    # every program's
    *("help", "version", "index-url", "upgrade", "user", "install", "tyro"),
}
"""Options of other programs that our messages name."""


@cache
def options():
    """Every option of every command and backend, without dashes."""
    found = set()
    for command in EXAMPLES:
        found |= set(_names(command))
    for kind in CHOICES:
        for backend in [*KINDS[kind].own]:
            found |= set(_names(KINDS[kind][backend], f"{kind}."))
        if kind in AUTOMATIC:
            found |= set(_names(AUTOMATIC[kind], f"{kind}."))
    return {each.removeprefix("--") for each in found}


@cache
def texts():
    """Every string of the package, with the place where it stands."""
    return list(found_texts())


def found_texts():
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name == "style.py":  # CSS variables begin with two dashes too
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = "" if ">>> " in node.value else node.value  # doctests show wrong words
                yield f"{path.relative_to(PACKAGE)}:{node.lineno}", text


def unknown(text, known):
    """Options in a text that no command has."""
    words = {word for word in OPTION.findall(text) if "_" not in word} - OTHERS
    return {word for word in words if _plain(f"--{word}").removeprefix("--") not in known}


def test_every_option_in_a_text_exists():
    known = options()
    found = {place: sorted(unknown(text, known)) for place, text in texts() if "--" in text}
    wrong = {place: words for place, words in found.items() if words}
    assert not wrong


def pages():
    """Every page for users, with its path; commands of other programs are left out."""
    root = PACKAGE.parent
    for path in sorted([root / "README.md", *root.glob("docs/*.md"), *root.glob("data/**/*.md")]):
        # Of pipelines/, and of plug-ins that the page writes.
        if path.name in ("distillation.md", "backends.md"):
            continue
        lines = path.read_text().splitlines()
        ours = [line for line in lines if not FOREIGN.search(line)]
        yield str(path.relative_to(root)), "\n".join(ours)


def test_every_option_on_a_page_exists():
    known = options()
    wrong = {page: sorted(unknown(text, known)) for page, text in pages() if unknown(text, known)}
    assert not wrong


def test_every_command_in_a_text_exists():
    wrong = {
        place: word
        for place, text in [*texts(), *pages()]
        for word in COMMAND.findall(text)
        if word not in COMMANDS and word != "COMMAND"
    }
    assert not wrong


def test_every_backend_in_a_text_exists():
    wrong = {
        place: f"{kind}:{name}"
        for place, text in [*texts(), *pages()]
        for kind, name in BACKEND.findall(text)
        if name not in KINDS[kind] and name not in ("auto", "samm")  # samm: a misspelled example
    }
    assert not wrong


def test_every_option_of_a_reader_in_a_message_exists():
    """Calls of `option_words`, which writes `reader:NAME --reader.OPTION`."""
    found = 0
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "option_words":
                continue
            reader, option = node.args[:2]
            if isinstance(reader, ast.Constant) and isinstance(option, ast.Constant):
                found += 1
                names = {each.name for each in fields(KINDS["reader"][reader.value])}
                assert option.value in names, f"{path}:{node.lineno}"
    assert found > 3


@pytest.mark.parametrize("text", ["give --voxl 0.01", "`--reader.focl 3`", "use --no-such"])
def test_a_wrong_option_would_be_found(text):
    assert unknown(text, options())


def test_right_options_are_known():
    text = "--voxel 1 --reader.focal 3 --segmentation.path X --no-by-shape --association.overlaps"
    assert unknown(text, options()) <= {"no-by-shape"}
