"""The page in a browser: what it shows, and to whom."""

import shutil

import numpy as np
import pytest
from page_browser import Page, chromium, large, lines
from page_client import relabelled, served
from tiny_export import lifted_run

from lift3d.run.run import Run
from lift3d.scene import Points
from lift3d.scene.labelmaps import read_label_map


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def lifted(tmp_path_factory, browser):
    return lifted_run(tmp_path_factory.mktemp("page"), views=6, width=96, height=72)


@pytest.fixture
def run(lifted, tmp_path):
    shutil.copytree(lifted, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def page(run, browser):
    """A page of a run of its own, 1280 x 800."""
    with served(run) as client:
        page = Page(browser, client.server.address)
        yield page
        page.close()


def test_it_shows_every_point_and_object_and_asks_no_other_host(page, run):
    cloud = Run.open(run).cloud
    assert page.js("lift3d.cloud.count") == len(cloud)
    assert page.js("document.querySelectorAll('#objects li').length") == len(Run.open(run).objects)
    assert len(page.hosts) == 1
    page.until("!document.getElementById('first').hidden")
    shown = np.array(page.js("[...lift3d.cloud.labels]"))[: len(cloud)]
    assert np.bincount(shown).tolist() == np.bincount(cloud.instance).tolist()


def test_the_object_under_the_mouse_is_named_and_selected_where_it_is_clicked(page):
    for each in large(page, 4):
        at = page.spot(each)
        page.page.mouse.move(*at)
        page.until(f"lift3d.store.hovered === {each}")
        assert page.js("document.getElementById('tip').textContent").startswith(f"{each} · ")
        page.click(at)
        page.until(f"lift3d.store.selected.has({each}) && lift3d.store.selected.size === 1")
    page.until("lift3d.picture.mark")
    page.press("Escape")
    assert page.selected == []
    assert not page.js("lift3d.picture.mark")


def test_what_comes_under_the_mouse_as_the_cloud_turns_is_named_once_it_rests(page):
    (each,) = large(page, 1)
    x, y = page.spot(each)
    page.page.mouse.move(x, y)
    page.until(f"lift3d.store.hovered === {each}")
    left, top, _, _ = page.box("cloud")
    others = 0
    for turn in (150, 250, 350):
        page.js(f"lift3d.orbit.turn({turn}, 0), lift3d.moved()")
        assert page.js("lift3d.store.hovered") == 0
        assert page.js("document.getElementById('tip').hidden")
        page.settled()
        now = page.js(f"lift3d.cloud.pick({x - left}, {y - top})?.id ?? 0")
        page.until(f"lift3d.store.hovered === {now}")
        others += now != each
    assert others


def test_clicks_in_a_picture_select_what_its_label_map_says(page, run):
    names = list(Run.open(run).cameras)
    for view in (0, 3):
        page.view(view)
        labels = read_label_map(run / f"labels/{names[view]}.png")
        for pixel in ((10, 8), (48, 36), (80, 60), (30, 65)):
            expected = int(labels[pixel[1], pixel[0]])
            page.press("Escape")
            page.click(page.in_picture(pixel))
            if expected:
                page.until(f"lift3d.store.selected.has({expected})")


def test_hide_isolate_and_show_all(page):
    a, b = large(page, 2)
    page.select(a)
    page.press("h")
    page.settled()
    assert a not in large(page, 1)
    page.press("Shift+H")
    page.settled()
    page.select(b)
    page.press("i")
    page.until("lift3d.store.hidden.size > 0")
    assert large(page, 1) == [b]


def test_two_browsers_see_each_others_edits(run, browser):
    with served(run) as client:
        one, two = (Page(browser, client.server.address) for _ in range(2))
        two.until("lift3d.store.people === 2")
        a, b = large(one, 2)
        one.select(a, b)
        one.edited(lambda: one.press("m"))
        two.until("lift3d.store.revision === 1", seconds=10)
        assert two.js("lift3d.store.objects.size") == one.js("lift3d.store.objects.size")
        two.press("Control+z")
        two.until("document.getElementById('trouble').textContent.includes('undo')")
        one.close()
        two.close()


def test_an_edit_of_what_another_has_changed_asks_first(run, browser):
    with served(run) as client:
        page = Page(browser, client.server.address)
        a = large(page, 1)[0]
        page.select(a)
        page.js("lift3d.catchUp = async () => {}")  # as if the news had not arrived yet
        client.who = "u-other"
        client.edit("name", id=a, name="theirs")
        page.press("Delete")
        page.until("document.getElementById('asking').open")
        page.press("Escape")
        assert [edit["do"] for edit in lines(run)] == ["name"]
        page.close()


def test_the_page_says_that_its_server_is_gone(run, browser):
    with served(run) as client:
        page = Page(browser, client.server.address)
        page.context.set_offline(True)
        page.press("Control+z")
        page.js("lift3d.act('undo')")
        page.until("document.getElementById('trouble').textContent.includes('does not answer')")
        page.close()


def test_a_read_only_page_has_no_tools(lifted, browser):
    with served(lifted, read_only=True) as client:
        page = Page(browser, client.server.address)
        page.select(large(page, 1)[0])
        page.press("x", "Delete", "m")
        assert page.js("lift3d.toolName") == "select"
        assert not page.page.is_visible('[data-tool="split"]')
        page.until("document.getElementById('bar').textContent.includes('read only')")
        page.close()


def test_a_phone_gets_tabs_and_scrolls_nowhere_sideways(run, browser):
    with served(run) as client:
        page = Page(browser, client.server.address, 390, 780, has_touch=True)
        assert page.js("document.documentElement.scrollWidth") <= 390
        page.page.tap('nav [data-tab="list"]')
        assert page.page.is_visible("#objects li")
        first = "#objects li:nth-child({})"
        page.page.tap(first.format(1))
        page.until("lift3d.store.selected.size === 1")
        page.page.tap('nav [data-tab="cloud"]')
        page.settled()
        assert page.page.is_visible("#cloud")
        assert not page.page.is_visible('[data-tool="brush"]')
        page.edited(lambda: page.page.tap('[data-do="delete"]'))
        page.edited(lambda: page.page.tap('[data-do="undo"]'))
        assert [edit["do"] for edit in lines(run)] == ["delete", "undo"]
        page.close()


def test_the_list_is_reached_and_used_by_keyboard(page):
    page.press("/")
    assert page.js("document.activeElement.id") == "search"
    page.press("Enter")
    first = page.js("Number(document.activeElement.dataset.id)")
    page.press("ArrowDown", "Enter")
    assert len(page.selected) == 1
    assert page.selected != [first]
    page.press("Escape", "?")
    assert page.js("document.getElementById('help').open")
    keys = page.js("document.querySelectorAll('#keys kbd').length")
    assert keys > 25
    page.press("Escape")
    assert not page.js("document.getElementById('help').open")


@pytest.mark.parametrize("kind", ["sparse", "no objects", "300 objects", "large ids"])
def test_odd_runs_open_and_say_what_there_is(kind, run, browser):
    cloud = Run.open(run).cloud
    points, ids = cloud.points, cloud.instance.copy()
    if kind == "sparse":  # as of photos: few points, no normals
        few = np.arange(0, len(ids), 40)
        points = Points(
            points.xyz[few],
            points.rgb[few],
            np.zeros((len(few), 3), np.float32),
            points.confidence[few],
        )
        ids = ids[few]
    elif kind == "no objects":
        ids[:] = 0
    elif kind == "300 objects":
        ids = (np.arange(len(ids)) * 300 // len(ids) + 1).astype(np.int32)
    else:
        ids[ids > 0] += 70_000
    relabelled(run, points, ids)
    expected = len(np.unique(ids[ids > 0]))
    with served(run) as client:
        page = Page(browser, client.server.address)
        assert page.js("lift3d.store.objects.size") == expected
        assert page.js("lift3d.cloud.count") == len(ids)
        rows = page.js("document.querySelectorAll('#objects li[data-id]').length")
        assert rows == expected
        if expected:
            page.select(large(page, 1, fewest=5)[0])
        else:
            told = "document.querySelector('#objects .none')"
            assert "no objects" in page.js(f"{told}.textContent")
            assert page.js(f"{told}.clientHeight") < 40  # one line
        page.close()


def test_what_hover_repaints_in_part_looks_as_if_all_had_been_painted(page):
    """The screen's pixels after each hover, and after a whole new picture of the same."""
    pixels = """(() => { const c = lift3d.cloud, g = c.gl, t = c.targets.screen;
      const d = new Uint8Array(4 * t.width * t.height);
      g.bindFramebuffer(g.FRAMEBUFFER, t.frame);
      g.readPixels(0, 0, t.width, t.height, g.RGBA, g.UNSIGNED_BYTE, d);
      g.bindFramebuffer(g.FRAMEBUFFER, null);
      let sum = 0; for (let i = 0; i < d.length; i++) sum = (sum * 31 + d[i]) >>> 0;
      return sum; })()"""
    seen = set()
    for id_ in large(page, 3):
        page.page.mouse.move(*page.spot(id_))
        page.until(f"lift3d.store.hovered === {id_} && !lift3d.cloud.asked")
        part = page.js(pixels)
        page.js("lift3d.cloud.wake()")
        page.until("!lift3d.cloud.asked")
        assert page.js(pixels) == part
        seen.add(part)
    assert len(seen) == 3


def test_a_state_that_arrives_late_does_not_undo_a_later_one(page, run):
    """The first state that is asked for comes a second later than the next edit."""
    page.select(*large(page, 2))
    page.js(
        """(() => { const real = window.fetch; let held = false;
          window.fetch = async (...asked) => {
            const answer = await real(...asked);
            if (!held && String(asked[0]).startsWith("/api/state")) {
              held = true;
              await new Promise((done) => setTimeout(done, 1000));
            }
            return answer; };
          lift3d.hear({ again: true }).then(() => (window.arrived = true)); return 0; })()"""
    )
    page.edited(lambda: page.press("m"))
    page.until("window.arrived === true")
    assert page.js("lift3d.store.state.revision") == page.js("lift3d.store.revision") == 1
    assert len(lines(run)) == 1


def test_news_in_line_waits_too_when_a_turn_begins(page):
    page.settled()
    page.js(
        """(() => { const real = window.fetch; window.states = 0;
          window.fetch = async (...asked) => {
            if (String(asked[0]).startsWith("/api/state")) window.states += 1;
            await new Promise((done) => setTimeout(done, 200));
            return real(...asked); };
          lift3d.hear({ again: true });
          lift3d.hear({ again: true });
          lift3d.hear({ again: true }).then(() => (window.heard = true));
          setTimeout(() => { lift3d.cloud.moving = true; }, 50);
          return new Promise((done) => setTimeout(done, 1000)); })()"""
    )
    assert page.js("window.states") == 1
    page.js("lift3d.cloud.moving = false")
    page.until("window.heard === true && window.states > 1")


def test_the_page_catches_up_after_changes_that_did_not_arrive(page, run):
    page.select(*large(page, 2))
    page.js(
        """(() => { const real = window.fetch; let failed = false;
          window.fetch = async (...asked) => {
            if (failed || !String(asked[0]).startsWith("/cloud/changes")) return real(...asked);
            window.failed = failed = true;
            throw new TypeError("Failed to fetch"); }; })()"""
    )
    page.press("m")
    page.until("window.failed === true")
    page.js(
        "lift3d.hear({ revision: lift3d.store.revision + 1 }).then(() => (window.heard = true))"
    )
    page.until("window.heard === true")
    assert page.js("lift3d.store.revision") == 1
    assert len(lines(run)) == 1


def test_news_waits_until_the_cloud_rests_and_an_edit_does_not(page):
    page.settled()
    page.js(
        """(() => { const real = window.fetch; window.states = 0;
          window.fetch = (...asked) => {
            if (String(asked[0]).startsWith("/api/state")) window.states += 1;
            return real(...asked); };
          lift3d.cloud.moving = true;
          lift3d.hear({ again: true }).then(() => (window.heard = true));
          return new Promise((done) => setTimeout(done, 400)); })()"""
    )
    assert page.js("window.states") == 0
    page.js("lift3d.hear({ revision: lift3d.store.revision + 1 })")
    page.until("window.states > 0")
    assert page.js("window.heard") is None
    page.js("lift3d.cloud.moving = false")
    page.until("window.heard === true && window.states > 1")
