import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from PIL import Image

from lift3d.datasets.synthetic import SyntheticConfig
from lift3d.export.ply import read_cloud
from lift3d.run.lift import lift
from lift3d.run.report import pictures, views
from lift3d.run.report.best_views import BestView
from lift3d.run.report.chart import axis, bars
from lift3d.run.report.numbers import explained
from lift3d.run.report.objects import cut_outs, objects
from lift3d.run.report.verdict import by_doubt, doubts, next_step, verdict
from lift3d.run.report.views import order
from lift3d.run.run import Run
from lift3d.run.settings import LiftConfig
from lift3d.scene.colours import label_colours
from lift3d.scene.errors import FrameError
from lift3d.scene.labelmaps import read_label_map, write_label_map
from lift3d.segmentation.simulated import SimulatedConfig

VOID = {"meta", "img", "br", "input", "line", "stop"}


class Outline(HTMLParser):
    """Tags with attributes, and texts; checks that every tag is closed."""

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
    """A run of a tiny room with HTML in its name and notes."""
    room = SyntheticConfig(views=10, width=80, height=60, spacing=0.06).read()
    room = replace(room, name="<script>alert(1)</script>", notes=("a & b < c",))
    out = tmp_path_factory.mktemp("run")
    config = LiftConfig(Path("synthetic"), out / "run", segmentation=SimulatedConfig())
    lift(config, scene=room, command=("lift3d", "lift", "it's"))
    return out / "run"


@pytest.fixture(scope="module")
def page(run):
    return (run / "report.html").read_text(encoding="utf-8")


def test_the_page_is_complete_and_loads_and_runs_nothing(page):
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


def test_h_is_shown_with_the_numbers_needed_to_interpret_it(page):
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


def test_the_picture_of_the_cloud_has_many_colours(run):
    with Image.open(run / "cloud.png") as picture:
        colours = picture.convert("RGB").getcolors(maxcolors=1 << 24)
        assert picture.width > 1000
    assert len(colours) > 100


def test_a_view_without_h_has_no_bar():
    svg = str(bars(["a", "b", "c"], [0.5, None, 1.0], 0.75))
    assert svg.count("<rect") == 2


@pytest.mark.parametrize("worst", [0.999, 0.93, 0.889, 0.5, 0.04, 0.0])
def test_the_axis_begins_below_the_worst_view_and_has_few_marks(worst):
    marks = axis([1.0, worst, None])
    assert marks[0] < worst or worst == marks[0] == 0
    assert worst - marks[0] <= marks[1] - marks[0] + 1e-9
    assert marks[-1] == 1.0
    assert 2 <= len(marks) <= 7


def test_the_worst_view_is_named_and_every_bar_links_to_its_view():
    svg = str(bars(["a", "b", "c"], [0.5, 0.25, 1.0], 0.75))
    assert "worst: view b, 25.0 %" in svg
    assert re.findall(r'<a href="#view-(\d)"><rect', svg) == ["0", "1", "2"]
    assert svg.count('class="bar worst"') == 1


def test_views_that_share_a_bar_show_the_worst_of_them():
    values = [1.0] * 1000
    values[777] = 0.4
    svg = str(bars([str(at) for at in range(1000)], values, 0.9))
    assert svg.count("<rect") == 250
    assert 'href="#view-777"><rect class="bar worst"' in svg


def test_the_verdict_is_one_sentence_and_comes_first(page, run):
    outline = Outline()
    outline.feed(page)
    texts = [text.strip() for text in outline.text if text.strip()]
    sentence = next(text for text in texts if "views agree" in text)
    assert texts.index(sentence) < 8
    assert sentence.endswith(".")
    assert ". " not in sentence.replace(" %", "%")
    listed = json.loads((run / "instances.json").read_text())["instances"]
    assert sentence.startswith(f"{len(listed)} objects in 10 views")
    for part in ("doubtful", "with each other at", "with the cloud at", "worst in view", "AP50"):
        assert part in sentence
    assert texts[texts.index(sentence) + 1].startswith("Next:")
    assert texts[texts.index(sentence) + 2] == f"lift3d view {run}"


def test_worst_views_come_first_and_every_view_has_an_anchor(page, run):
    checked = json.loads((run / "consistency.json").read_text())
    found = checked["foreground"][checked["printed"]["exclude"]]["view_H"]
    shown = [int(at) for at in re.findall(r'<figure id="view-(\d+)">', page)]
    assert len(shown) == len(found)
    known = [found[at] for at in shown if found[at] is not None]
    assert known == sorted(known)
    assert all(found[at] is None for at in shown[len(known) :])
    anchors = set(re.findall(r' id="([^"]+)"', page))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= anchors


def test_every_object_is_listed_the_doubtful_ones_first(page, run):
    instances = json.loads((run / "instances.json").read_text())
    listed = [int(each) for each in re.findall(r'id="object-(\d+)"', page)]
    assert sorted(listed) == sorted(each["id"] for each in instances["instances"])
    doubtful, others = by_doubt(instances, 10)
    assert listed == [each["id"] for each, _ in doubtful] + [each["id"] for each in others]
    cards = page.split('class="card"')[1:]
    seen = {each["id"] for each in instances["instances"] if each["views"]}
    with_picture = {
        int(re.search(r"object (\d+)", card)[1]) for card in cards if "<img" in card.split("<b>")[0]
    }
    assert with_picture == seen


def test_no_picture_is_in_the_file_twice(page):
    pictures = re.findall(r'src="(data:[^"]+)"', page)
    photographs = [each for each in pictures if len(each) > 3000]
    assert len(photographs) == len(set(photographs))
    assert page.count('class="zoom"') == len(pictures)


def test_an_object_is_doubtful_with_little_confidence_few_points_or_one_view():
    good = {"id": 1, "confidence": 0.9, "points": 5000, "views": 7}
    assert doubts(good, 1_000_000, 10) == {}
    found = doubts({"id": 2, "confidence": 0.004, "points": 12, "views": 0}, 1_000_000, 10)
    assert found == {
        "confidence": "confidence under 0.01",
        "points": "only 12 points",
        "views": "seen in no view",
    }
    assert doubts(good | {"views": 1}, 1_000_000, 1) == {}  # there is only one view


def test_the_verdict_of_a_run_without_objects_or_comparison_stays_a_sentence():
    run = {"views": 1}
    printed = {"exclude": "view", "foreground": {"H": None}}
    checked = {"printed": printed, "foreground": {"view": {"view_H": [None]}}, "views": ["a"]}
    none = {"points": 0, "unlabelled": 0, "instances": []}
    assert verdict(run, checked, none) == "No object was found in 1 view."
    assert "masks_coloured" in next_step(run, none, "out")[0]
    one = {"id": 1, "points": 10, "views": 1, "confidence": 1.0}
    assert verdict(run, checked, {"points": 10, "unlabelled": 0, "instances": [one]}) == (
        "1 object in 1 view, none of them doubtful; "
        "the agreement of the views could not be measured."
    )


def test_views_without_any_comparison_are_spread_over_the_scan():
    assert order([None] * 100)[:3] == [6, 18, 31]
    assert sorted(order([None] * 100)) == list(range(100))
    assert order([0.5, None, 0.1]) == [2, 0, 1]


def test_differences_between_counts_are_explained():
    entries = [
        {"id": each, "points": 10, "views": views}
        for each, views in ((1, 4), (2, 3), (3, 0), (4, 1), (5, 2))
    ]
    instances = {"points": 60, "unlabelled": 10, "instances": entries}
    shown = {"H": 0.9, "H_prime": 0.8}
    printed = {"labels": 3, "coverage": 0.5, "exclude": "view", "epsilon": 0.01, "sampling": "all"}
    checked = {
        "printed": {**printed, "all": shown, "foreground": shown},
        "reprojection": {
            "agreement": 0.97,
            "mean_iou": 0.6,
            "instances": [{"id": 1, "iou": 0.9}, {"id": 2, "iou": 0.1}],
        },
        "truth": {
            "protocol": "all things (3)",
            **{"ap": 0.4, "ap50": None, "ap25": 0.5},
            "panoptic": [{"matches": 2, "missed": 1, "wrong": 1}],
        },
    }
    text = explained({"views": 4}, checked, instances)
    assert "1 object (3) without a pixel in any view; 1 id only on pixels" in text
    assert "1 of 2 objects overlap by less than half; they have 16.7 % of the points" in text
    assert "of 3 true objects found" in text
    assert "1 not found; 1 object without a true object to match; the other 2 objects" in text


def test_all_pictures_of_a_run_have_the_same_colours(run):
    palette = Run.open(run).palette
    cloud = read_cloud(run / "cloud.ply")
    coloured = read_cloud(run / "cloud_labels.ply").points.rgb
    np.testing.assert_array_equal(coloured, label_colours(cloud.instance, palette))
    for path in sorted((run / "labels").glob("*.png")):
        labels = read_label_map(path)
        copy = run / "labels_coloured" / path.name
        np.testing.assert_array_equal(read_label_map(copy), labels)
        with Image.open(copy) as picture:
            rgb = np.asarray(picture.convert("RGB"))
        np.testing.assert_array_equal(rgb, label_colours(labels, palette))
        assert (run / "masks_coloured" / path.name).is_file()


def test_an_object_whose_view_cannot_be_read_has_a_message_and_others_have_pictures():
    def broken():
        raise FrameError("a.jpg is damaged")

    room = SyntheticConfig(views=2, width=40, height=30, spacing=0.2).read()
    scene = replace(room, views=(replace(room.views[0], load_image=broken), room.views[1]))
    best = {1: BestView(0, 1.0, (0, 5, 0, 5)), 2: BestView(1, 1.0, (0, 5, 0, 5))}
    entries = [
        {"id": each, "points": 10, "views": 2, "confidence": 1.0, "bbox": None, "colour": "#fff"}
        for each in (1, 2)
    ]
    instances = {"points": 20, "unlabelled": 0, "instances": entries}
    with TemporaryDirectory() as folder:
        for view in scene.views:
            write_label_map(Path(folder), view.name, np.full((30, 40), 2, np.int32))
        found = cut_outs(instances, scene, Path(folder), best, {2: (1, 2, 3)}, 2)
    assert "a.jpg is damaged" in found[1]
    assert found[2].shape[-1] == 3
    assert "a.jpg is damaged" in objects(instances, scene, found, 2)


def test_a_view_without_a_figure_has_the_reason_beside_it():
    image = np.zeros((4, 6, 3), np.uint8)
    text = str(views._figure(0, pictures.Strip("7", image, None, None), None))
    assert "no labels: labels/ has no file of this view" in text
    assert "no disagreement: heat/ has no file of this view" in text
    assert "no number, because it has no labelled pixels that another view shows" in text


def test_views_without_a_small_picture_are_counted_with_the_reason(monkeypatch):
    monkeypatch.setattr(views, "MOST_THUMBS", 1)
    names = [f"{at}" for at in range(views.MOST_STRIPS + 3)]
    values = [0.5] * len(names)
    monkeypatch.setattr(views, "view_agreement", lambda checked: values)
    checked = {"views": names, "printed": {"foreground": {"H": 0.5}}}
    (only,) = views.thumbs_of(checked)
    text = str(views.all_views(checked, {only: np.zeros((4, 6, 3), np.uint8)}))
    assert "2 without a picture, because at most 1 small ones are shown" in text
