"""Every Markdown page: its links lead somewhere, its commands parse, the code it names exists."""

import ast
import doctest
import importlib
import os
import re
import shlex
from pathlib import Path

import pytest

from lift3d import cli
from lift3d.scene.registry import KINDS

ROOT = Path(__file__).resolve().parents[1]
HIDDEN = {"out", "build", "dist"}


def pages():
    """Markdown files of the project, without those of environments and results."""
    found = []
    for folder, inside, files in os.walk(ROOT):
        inside[:] = [name for name in inside if not name.startswith(".") and name not in HIDDEN]
        found += [Path(folder) / name for name in files if name.endswith(".md")]
    return sorted(found)


PAGES = pages()
COMMANDS = [page for page in PAGES if page.parent == ROOT / "docs" or page.name == "README.md"]
by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def without_code(text):
    """The prose: fenced blocks and code between backticks are no links."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def anchors(page):
    """What a link may name behind `#`: headings as GitHub spells them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    kept = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {each.strip().replace(" ", "-") for each in kept}


def links(text):
    """Targets of links and pictures that lie in the project."""
    found = re.findall(r"\]\(([^)\s]+)\)", without_code(text))
    return [target for target in found if "://" not in target and not target.startswith("mailto:")]


def command_lines(text):
    """Lines of fenced blocks that call lift3d, joined where they go on, without their comments."""
    blocks = re.findall(r"^```(?:sh|text|bash|console)?\n(.*?)^```", text, re.M | re.S)
    joined = "\n".join(blocks).replace("\\\n", " ").splitlines()
    spelled = [re.sub(r"^\s*(\$ |\.venv/bin/)?", "", line) for line in joined]
    return [line for line in spelled if line.startswith("lift3d ")]


def named_code(text):
    """Files of the project, and dotted names below lift3d, that stand between backticks."""
    quoted = re.findall(r"`([^`\n]+)`", text)
    places = "lift3d|tests|benchmarks|pipelines|viewers"
    files = [each for each in quoted if re.fullmatch(rf"(?:{places})/[\w/.-]*", each)]
    return files, [each for each in quoted if re.fullmatch(r"lift3d(?:\.\w+)+", each)]


def used_code(text):
    """Dotted names that the Python blocks of a page take from lift3d."""
    used = []
    for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
        if ">>> " in block:  # a session: what was typed
            block = "".join(each.source for each in doctest.DocTestParser().get_examples(block))
        if "l3." in block:
            used += [f"lift3d.{name}" for name in re.findall(r"\bl3\.(\w+)", block)]
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lift3d"):
                used += [f"{node.module}.{alias.name}" for alias in node.names]
    return used


def exists(dotted):
    """Whether a dotted name is a module, or something in one."""
    module, _, last = dotted.rpartition(".")
    try:
        importlib.import_module(dotted)
    except ImportError:
        return bool(module) and hasattr(importlib.import_module(module), last)
    return True


def parsed(line):
    """Exit status of reading the command, nothing is run: 0 where it is one, or asks for help."""
    words = shlex.split(line, comments=True)[1:]
    if words == ["--version"]:
        return 0
    try:
        if cli._check_names(words) is None:
            cli._parse(sorted(words, key=lambda word: word in ("-h", "--help")))
    except SystemExit as ended:
        return ended.code
    return 0


@by_page
def test_links_lead_to_files_and_headings(page):
    for target in links(page.read_text()):
        path, _, heading = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        assert to.exists(), f"{target} leads nowhere"
        assert to.is_relative_to(ROOT), f"{target} leads out of the project"
        assert not heading or heading in anchors(to), f"{target}: no such heading"


@by_page
def test_named_code_exists(page):
    files, modules = named_code(page.read_text())
    for each in files:
        assert (ROOT / each).exists(), f"{each} is named and is not there"
    for each in modules:
        if each.removeprefix("lift3d.") in KINDS:  # a group of entry points
            continue
        assert exists(each), f"{each} is named and is not there"


@by_page
def test_code_of_python_blocks_exists(page):
    for each in used_code(page.read_text()):
        assert exists(each), f"{each} is used and is not there"


@pytest.mark.parametrize("page", COMMANDS, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_parse(page, capsys):
    for line in command_lines(page.read_text()):
        if page.name == "backends.md":  # its backends are plug-ins: tests/test_backends_page.py
            continue
        assert parsed(line) == 0, f"{line}\n{capsys.readouterr()}"


def test_every_page_of_docs_is_in_the_index():
    listed = links((ROOT / "docs/README.md").read_text())
    missing = {page.name for page in (ROOT / "docs").glob("*.md")} - {*listed, "README.md"}
    assert not missing


def test_what_the_tests_look_for_is_found():
    text = "# A\n[x](y.md#z) `[n](o.md)`\n```\nlift3d info \\\n  SCAN  # what\n```\n`lift3d/scene`"
    assert links(text) == ["y.md#z"]
    assert command_lines(text) == ["lift3d info    SCAN  # what"]
    assert named_code(text) == (["lift3d/scene"], [])
    assert used_code("```python\nfrom lift3d.a import b\n```") == ["lift3d.a.b"]
    assert used_code("```python\nimport lift3d as l3\nl3.c()\n```") == ["lift3d.c"]
    assert not exists("lift3d.scene.nothing")


@pytest.mark.parametrize("line", ["lift3d lif SCAN", "lift3d lift SCAN --outt OUT"])
def test_a_wrong_command_is_noticed(line, capsys):
    from lift3d.scene.errors import InputError

    try:
        status = parsed(line)
    except InputError:
        status = 2
    assert status == 2
