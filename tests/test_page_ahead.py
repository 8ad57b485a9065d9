"""Views are encoded before they are clicked, the one that is looked at first."""

import json
import shutil
import threading
import time

import numpy as np
import pytest
from page_browser import Page, chromium
from page_client import served
from tiny_export import lifted_run

from lift3d.run.run import Run
from lift3d.scene import Camera, Masks, Prompt, View
from lift3d.scene.errors import InputError
from lift3d.scene.protocols import Segmenter
from lift3d.viewing import ahead
from lift3d.viewing.ahead import Ahead, near

CLICK = Prompt(np.array([[1.0, 1.0]]), np.array([True]))


class Encoder(Segmenter):
    """A segmenter that notes what it encodes; its masks are those of `labels`."""

    def __init__(self, labels=None):
        self.labels, self.encoded, self.used = labels, [], None
        self.go = threading.Event()
        self.go.set()

    def prepared(self, view):
        assert self.go.wait(200)
        self.encoded.append(view.name)
        return view.name

    def use_prepared(self, view, prepared):
        assert view.name == prepared
        self.used = prepared

    def prompt(self, view, prompts):
        assert self.used == view.name
        masks = [self._mask(view, *each.xy[each.positive][0].astype(int)) for each in prompts]
        return Masks(np.array(masks), np.ones(len(masks), np.float32))

    def _mask(self, view, column, row):
        if self.labels is None:
            return np.ones((4, 4), bool)
        labels = self.labels[view.name]
        return labels == labels[row, column]


def views(*places):
    """Views at places along x, all looking the same way; those at None have no pose."""
    K, made = np.array([[4.0, 0, 2], [0, 4, 2], [0, 0, 1]]), []
    for number, x in enumerate(places):
        pose = (
            None
            if x is None
            else np.array([[1.0, 0, 0, x], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
        )
        made.append(View(str(number), Camera(K, 4, 4, pose), lambda: np.zeros((4, 4, 3), np.uint8)))
    return made


def until(true):
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(ahead, "QUIET", 0.0)


def test_neighbours_are_those_placed_and_turned_most_like_a_view():
    scene = views(0.0, 5.0, 1.0, None, 2.0)
    assert near(scene, 0) == [2, 4, 1]
    assert near(scene, 0, 1) == [2]
    assert near(scene, 3) == []


def test_the_view_that_is_looked_at_is_encoded_first_then_those_near_it(at_once):
    encoder, told = Encoder(), []
    looked = Ahead(encoder, views(0.0, 9.0, 1.0, 2.0, 3.0, 4.0), lambda: told.append(1))
    looked.look(0)
    until(lambda: len(looked.state["ready"]) == 5)
    assert encoder.encoded == ["0", "2", "3", "4", "5"]  # not the far one
    assert looked.state["now"] is None
    assert looked.state["seconds"] is not None
    assert looked.state["changes"] == 10
    assert len(told) == 10  # when each begins and when it ends
    looked.close()


def test_what_is_looked_at_now_goes_before_what_was_wanted_earlier(at_once):
    encoder = Encoder()
    encoder.go.clear()
    looked = Ahead(encoder, views(0.0, 1.0, 50.0, 51.0), lambda: None)
    looked.look(0)
    until(lambda: looked.state["now"] == 0)
    looked.look(2)
    encoder.go.set()
    until(lambda: len(looked.state["ready"]) == 4)
    assert encoder.encoded[:3] == ["0", "2", "3"]
    looked.close()


def test_a_click_uses_what_was_encoded_and_encodes_what_was_not():
    encoder = Encoder()
    scene = views(0.0, 1.0)
    looked = Ahead(encoder, scene, lambda: None)
    for _ in range(2):
        for view in scene:
            assert looked.prompt(view, [CLICK]).stack.all()
    assert encoder.encoded == ["0", "1"]
    looked.close()


def test_a_picture_that_cannot_be_read_is_passed_over(at_once):
    class Reading(Encoder):
        def prepared(self, view):
            if view.name == "0":
                raise InputError("cannot be read")
            return super().prepared(view)

    looked = Ahead(Reading(), views(0.0, 1.0), lambda: None)
    looked.look(0)
    until(lambda: looked.state["ready"] == [1])
    with pytest.raises(InputError, match="cannot be read"):
        looked.prompt(looked._views[0], [CLICK])
    looked.close()


def test_a_segmenter_that_cannot_work_ahead_is_asked_as_it_is():
    class Plain(Segmenter):
        def prompt(self, view, prompts):
            return Masks(np.ones((1, 4, 4), bool), np.ones(1, np.float32))

    looked = Ahead(Plain(), views(0.0, 1.0), lambda: None)
    looked.look(0)
    assert looked.prompt(looked._views[0], [CLICK]).stack.all()
    assert looked.state == {"ready": [], "now": None, "seconds": None, "changes": 0}


def largest(page):
    """A pixel (column, row) of the largest object in the picture."""
    labels = page.js("[...lift3d.picture.labels]")
    at = max(range(len(labels)), key=lambda each: labels.count(labels[each]) * (labels[each] > 0))
    return at % 96, at // 96


def test_the_page_shows_which_views_are_ready_for_clicks(tmp_path, at_once):
    folder = lifted_run(tmp_path / "lifted", views=6, width=96, height=72)
    shutil.copytree(folder, tmp_path / "run")
    encoder = Encoder(Run.open(folder).labels)
    encoder.go.clear()
    with chromium() as browser, served(tmp_path / "run", segmenter=encoder) as client:
        page = Page(browser, client.server.address)
        shown = "document.getElementById('view-clicks').textContent"
        page.until(f"{shown}.includes('preparing')")
        page.js("lift3d.ahead.take({ ready: [], now: null, seconds: null, changes: 0 })")  # late
        assert "preparing" in page.js(shown)
        page.press("g")
        page.until("document.getElementById('hint').textContent.includes('first look')")
        encoder.go.set()
        page.until("document.querySelectorAll('#strip .ready').length >= 3")
        page.until(f"{shown}.includes('clicks ready')")
        page.until("!document.getElementById('hint').textContent.includes('first look')")
        before = len(encoder.encoded)
        view = page.js("lift3d.store.view")
        page.page.mouse.click(*page.in_picture(largest(page)))
        page.until("lift3d.tool.found !== null")
        assert encoder.encoded[:before].count(page.js(f"lift3d.info.views[{view}].name")) == 1
        page.until("lift3d.tool.found.views === lift3d.tool.found.of")
        page.view((view + 1) % 6)  # further prompts are for the segmenter too, in any view
        page.page.mouse.click(*page.in_picture(largest(page)))
        page.until("lift3d.tool.shownClicks === 2")
        page.until("lift3d.tool.found.views === lift3d.tool.found.of")
        page.edited(lambda: page.press("Enter"))
        edit = json.loads((tmp_path / "run/edits.jsonl").read_text())
        assert edit["tool"] == "segmenter"
        names = page.js("lift3d.info.views.map((each) => each.name)")
        assert [each["view"] for each in edit["prompts"]][:2] == [
            names[view],
            names[(view + 1) % 6],
        ]
        page.close()


def test_looking_is_refused_for_views_that_are_not_there_and_without_a_segmenter_nothing_is(
    tmp_path,
):
    folder = lifted_run(tmp_path / "lifted", views=4, width=48, height=36)
    with served(folder) as client:
        assert client.post("/api/look", view=0) == (200, {})
        assert client.post("/api/look", view=99)[0] == 404
        assert client.post("/api/look", view="1")[0] == 400
    with served(folder, read_only=True) as client:
        assert client.post("/api/look", view=0)[0] == 403
