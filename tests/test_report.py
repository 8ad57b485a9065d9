import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.run.lift import lift
from lift3d.run.report.chart import bars
from lift3d.run.settings import LiftConfig
from lift3d.segmentation.simulated import SimulatedConfig

VOID = {"meta", "img", "br", "line", "rect", "stop"}


class Outline(HTMLParser):
    """Tags, what they carry, and whether each that opens also closes."""

    def __init__(self):
        super().__init__()
        self.tags, self.open, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a tiny room whose name and notes are hostile."""
    room = SyntheticConfig(views=6, width=80, height=60, spacing=0.06).read()
    room = replace(room, name="<script>alert(1)</script>", notes=("a & b < c",))
    out = tmp_path_factory.mktemp("run")
    config = LiftConfig(Path("synthetic"), out / "run", segmentation=SimulatedConfig())
    lift(config, scene=room, command=("lift3d", "lift", "it's"))
    return out / "run"


@pytest.fixture(scope="module")
def page(run):
    return (run / "report.html").read_text(encoding="utf-8")


def test_the_page_is_whole_and_nothing_in_it_is_fetched_or_run(page):
    outline = Outline()
    outline.feed(page)
    assert outline.open == []
    assert not re.search(r"https?://(?!www\.w3\.org/)", page)
    assert not [tag for tag, _ in outline.tags if tag in ("script", "iframe", "link")]
    assert len(page) < 8_000_000


def test_names_from_outside_are_text_not_markup(page):
    assert "<script>" not in page
    outline = Outline()
    outline.feed(page)
    assert any("<script>alert(1)</script>" in text for text in outline.text)
    assert any("a & b < c" in text for text in outline.text)


def test_pictures_of_views_and_cloud_are_inside(page):
    outline = Outline()
    outline.feed(page)
    pictures = [a["src"] for tag, a in outline.tags if tag == "img"]
    assert len(pictures) >= 6 * 2 + 2
    assert all(src.startswith("data:image/") for src in pictures)


def test_h_never_stands_alone(page):
    outline = Outline()
    outline.feed(page)
    text = " ".join(outline.text)
    for beside in ("H′", "coverage", "labels", "exclude", "epsilon"):
        assert beside in text
    assert "AP50" in text
    assert "class-agnostic" in text


def test_the_command_that_repeats_the_run_is_quoted_for_a_shell(page):
    outline = Outline()
    outline.feed(page)
    assert any("lift3d lift 'it'\"'\"'s'" in text for text in outline.text)


def test_the_picture_beside_it_shows_something(run):
    with Image.open(run / "cloud.png") as picture:
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 24)
        assert picture.width > 1000
    assert len(colours) > 100


def test_a_view_without_h_has_no_bar():
    svg = str(bars(["a", "b", "c"], [0.5, None, 1.0], 0.75))
    assert svg.count("<rect") == 2
