"""The tools of the page: what a person does with mouse and keys is on the disk afterwards."""

import shutil

import numpy as np
import pytest
from page_browser import Page, chromium, large, lines
from page_client import served
from tiny_export import joined_run, lifted_run

from lift3d.correction.clicks.asking import inner_points
from lift3d.run.run import Run


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def lifted(tmp_path_factory, browser):
    return lifted_run(tmp_path_factory.mktemp("page"), views=6, width=96, height=72)


@pytest.fixture(scope="module")
def joined_once(tmp_path_factory, browser):
    return joined_run(tmp_path_factory.mktemp("joined") / "run")


@pytest.fixture
def joined(joined_once, tmp_path):
    """A run with a tree of joins, of the test's own."""
    return shutil.copytree(joined_once, tmp_path / "run")


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


class Chairs:
    """Everything in a picture is like a chair, and a little like a stool."""

    def names(self, names):
        rows = {"chair": (1, 0), "stool": (0.8, 0.6)}
        return np.array([rows.get(each, (0, 1)) for each in names], np.float32)

    def masks(self, image, masks):
        return np.tile(np.float32([1, 0]), (len(masks.stack), 1))


def lasso(page, box):
    """Draw a rectangle in the cloud with the mouse; left, top, right, bottom in it."""
    left, top, _, _ = page.box("cloud")
    corners = [(box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3])]
    page.page.mouse.move(left + corners[0][0], top + corners[0][1])
    page.page.mouse.down()
    for x, y in [*corners[1:], corners[0]]:
        page.page.mouse.move(left + x, top + y, steps=4)
    page.page.mouse.up()
    return page.js("lift3d.tool.taken.size")


def paint(page, pixels, **keys):
    """One stroke of the brush over pixels of the shown picture."""
    for key in keys:
        page.page.keyboard.down(key)
    page.page.mouse.move(*page.in_picture(pixels[0]))
    page.page.mouse.down()
    for each in pixels[1:]:
        page.page.mouse.move(*page.in_picture(each), steps=3)
    page.page.mouse.up()
    for key in keys:
        page.page.keyboard.up(key)
    page.settled()
    return np.array(page.js("[...(lift3d.picture.painted ?? [])]"), bool)


def test_two_clicks_and_m_merge_and_undo_and_redo_follow(page, run):
    before = page.js("lift3d.store.objects.size")
    a, b = large(page, 2)
    page.select(a, b)
    page.edited(lambda: page.press("m"))
    assert page.js("lift3d.store.objects.size") == before - 1
    assert [each["do"] for each in lines(run)] == ["merge"]
    page.until("document.getElementById('bar').textContent.includes('1 edit, all kept')")
    page.edited(lambda: page.press("Control+z"))
    assert page.js("lift3d.store.objects.size") == before
    page.edited(lambda: page.press("Control+Shift+Z"))
    assert page.js("lift3d.store.objects.size") == before - 1
    page.press("Control+s")
    page.until("lift3d.store.state.written >= lift3d.store.revision")
    written = Run.open(run)
    kept = lines(run)[0]["into"]
    gone = b if kept == a else a
    assert gone not in written.cloud.instance
    assert not any((labels == gone).any() for labels in written.labels.values())
    automatic = written.automatic.instance
    assert set(automatic[written.cloud.instance == kept].tolist()) == {a, b}


def test_split_by_two_clicks_shows_the_parts_first(page, run):
    largest = large(page, 1)[0]
    height = page.box("cloud")[3]
    page.select(largest)
    page.press("x")
    page.settled()
    assert page.box("cloud")[3] == height  # what is said must not move what is clicked
    places = page.js(
        f"""(() => {{ const c = lift3d.cloud, w = c.canvas.clientWidth, h = c.canvas.clientHeight;
            const all = []; for (let y = 6; y < h; y += 6) for (let x = 6; x < w; x += 6)
              if (c.pick(x, y)?.id === {largest}) all.push([x, y]);
            return [all[0], all[all.length - 1]]; }})()"""
    )
    left, top, _, _ = page.box("cloud")
    for x, y in places:
        page.click((left + x, top + y))
        page.settled()
    page.until("lift3d.tool.counts?.length === 2")
    page.until("document.body.textContent.includes('Enter splits')")
    assert lines(run) == []  # a preview is no edit
    shown = page.js("lift3d.tool.counts")
    marks = page.js("lift3d.tool.marks.map((each) => [each.xyz, each.colour])")
    for xyz, colour in marks:  # each click lies in a part of its own colour
        x, y, _ = page.js(f"lift3d.cloud.where({xyz})")
        assert page.js(f"lift3d.store.colour(lift3d.cloud.pick({x}, {y}).id)") == colour
    page.edited(lambda: page.press("Enter"))
    edit = lines(run)[0]
    assert edit["do"] == "split"
    assert edit["points"] == shown[1]
    page.until("lift3d.toolName === 'select'")


def test_escape_leaves_a_split_as_it_was(page, run):
    largest = large(page, 1)[0]
    before = page.js("[...lift3d.cloud.labels]")
    page.select(largest)
    page.press("x")
    page.click(page.spot(largest))
    page.click(page.spot(largest, margin=8))
    page.press("Escape")
    assert page.js("[...lift3d.cloud.labels]") == before
    assert lines(run) == []


def test_a_name_and_a_class_are_typed(page, run):
    each = large(page, 1)[0]
    page.select(each)
    page.press("r")
    page.page.keyboard.type('<b>"chair"</b>')
    page.press("Tab")
    page.page.keyboard.type("seat")
    page.press("Enter")
    page.until(f"lift3d.store.objects.get({each}).class === 'seat'")
    named = page.js(f"lift3d.store.objects.get({each}).name")
    assert named == '<b>"chair"</b>'
    row = page.js(f"document.querySelector('#objects li[data-id=\"{each}\"] .title').innerHTML")
    assert "&lt;b&gt;" in row  # shown as text, never as HTML
    assert {edit["do"] for edit in lines(run)} == {"name", "class"}


def test_a_colour_is_chosen_and_taken_back(page, run):
    each = large(page, 1)[0]
    before = page.js(f"lift3d.store.objects.get({each}).colour")
    page.select(each)
    page.press("r")
    page.page.fill("#naming-colour", "#12ab34")
    page.edited(lambda: page.page.click("#naming-yes"))
    assert page.js(f"lift3d.store.colour({each})") == [0x12, 0xAB, 0x34]
    page.press("r")
    page.page.check("#naming-own")
    page.edited(lambda: page.page.click("#naming-yes"))
    assert page.js(f"lift3d.store.colour({each})") == before
    assert [edit["do"] for edit in lines(run)] == ["colour", "colour"]


def test_a_name_that_the_pictures_propose_is_taken_by_a_click(run, browser):
    with served(run, scorer=Chairs()) as client:
        page = Page(browser, client.server.address)
        each = large(page, 1)[0]
        page.until(f"lift3d.store.objects.get({each}).guesses.length")
        row = page.js(f"document.querySelector('#objects li[data-id=\"{each}\"]').textContent")
        assert f"object {each}chair?" in row
        page.select(each)
        page.press("r")
        buttons = page.js(
            "[...document.querySelectorAll('#naming-guesses button')].map((b) => b.textContent)"
        )
        assert buttons == ["chair", "stool"]
        page.page.click("#naming-guesses button:nth-child(2)")
        page.edited(lambda: page.press("Enter"))
        assert [edit["name"] for edit in lines(run)] == ["stool"]
        assert "chair?" not in page.js(
            f"document.querySelector('#objects li[data-id=\"{each}\"]').textContent"
        )
        page.close()


def test_a_line_across_an_object_in_the_picture_cuts_it_and_shows_both_parts(page, run):
    page.view(2)
    labels = np.array(page.js("[...lift3d.picture.labels]")).reshape(72, 96)
    largest = int(np.bincount(labels[labels > 0]).argmax())
    columns = np.nonzero(labels == largest)[1]
    middle = int(np.median(columns))
    page.page.click(f'#objects li[data-id="{largest}"]')
    page.view(2)
    page.page.click('.modes [data-tool="split"]')
    page.page.mouse.move(*page.in_picture((middle, 1)))
    page.page.mouse.down()
    page.page.mouse.move(*page.in_picture((middle, 70)), steps=4)
    page.page.mouse.up()
    page.until("lift3d.tool.counts?.length === 2")
    page.settled()
    page.until("lift3d.picture.placesOf === 2")
    assert lines(run) == []
    parts = page.js("[...lift3d.store.preview.keys()]")
    shown = np.array(page.js("[...lift3d.picture.shownLabels]")).reshape(72, 96)
    sides = [np.nonzero(shown == each)[1] for each in parts]
    assert all(len(each) > 20 for each in sides)
    left, right = sorted(sides, key=lambda each: float(each.mean()))
    assert left.max() <= middle + 2
    assert right.min() >= middle - 2
    page.edited(lambda: page.press("Enter"))
    edit = lines(run)[0]
    assert (edit["do"], edit["ids"], edit["tool"]) == ("split", [largest], "plane")
    assert page.js("lift3d.picture.line") is None


def test_delete_makes_points_unlabelled(page, run):
    each = large(page, 1)[0]
    count = page.js(f"lift3d.store.objects.get({each}).points")
    unlabelled = "lift3d.cloud.labels.subarray(0, lift3d.cloud.count).filter((id) => !id).length"
    before = page.js(unlabelled)
    page.select(each)
    page.edited(lambda: page.press("Delete"))
    assert lines(run)[0]["do"] == "delete"
    assert not page.js(f"lift3d.store.objects.has({each})")
    assert page.js(unlabelled) == before + count


def test_the_lasso_takes_the_surface_or_everything_behind_it(page, run):
    _, _, width, height = page.box("cloud")
    box = (0.3 * width, 0.3 * height, 0.7 * width, 0.7 * height)
    page.press("k")  # near walls are drawn, so that much is behind something
    page.settled()
    page.press("o")
    surface = lasso(page, box)
    assert surface > 20
    page.press("t")
    through = lasso(page, box)
    assert through > surface
    page.edited(lambda: page.press("Enter"))
    edit = lines(run)[0]
    assert edit["do"] == "select"
    assert edit["points"] == through


def test_the_lasso_leaves_out_what_is_locked_or_hidden(page, run):
    locked, hidden = large(page, 2)
    page.select(hidden)
    page.press("h")
    page.until(f"lift3d.store.hidden.has({hidden})")
    row = f'#objects li[data-id="{locked}"] .row-buttons button:nth-child(2)'
    page.edited(lambda: page.page.click(row))
    page.press("t", "o")
    _, _, width, height = page.box("cloud")
    assert lasso(page, (2, 2, width - 2, height - 2)) > 0
    page.until("document.getElementById('hint').textContent.includes(' views · Enter')")
    kept = page.js(
        "[...new Set([...lift3d.tool.taken].map((i) => lift3d.before.labels"
        "[lift3d.before.places.indexOf(i)]))]"
    )
    assert locked not in kept
    assert hidden not in kept
    page.press("Escape")
    page.select(locked)
    page.press("Delete")
    page.until("document.getElementById('trouble').textContent.includes('lock')")
    assert [edit["do"] for edit in lines(run)] == ["lock"]


def test_the_brush_paints_a_new_object_into_picture_and_cloud(page, run):
    page.view(2)
    page.press("b")
    page.press("]", "]")
    page.page.mouse.move(*page.in_picture((30, 30)))
    page.page.mouse.down()
    page.page.mouse.move(*page.in_picture((60, 40)), steps=5)
    page.page.mouse.up()
    page.until("lift3d.tool.count > 0")
    page.settled()
    painted = np.array(page.js("[...lift3d.picture.painted]")) > 0
    assert painted.sum() > 300
    assert lines(run) == []
    page.edited(lambda: page.press("Enter"))
    edit = lines(run)[0]
    assert edit["do"] == "paint"
    (new,) = edit["new"]
    page.until(f"lift3d.picture.labels.includes({new})")
    labels = np.array(page.js("[...lift3d.picture.labels]"))
    assert (labels[painted] == new).all()
    # Outside only what shows points that went along.
    assert np.count_nonzero(labels[~painted] == new) < 0.2 * painted.sum()


def test_the_brush_stops_at_edges_of_the_picture_unless_alt_is_held(page, run):
    page.view(1)
    page.settled()
    width, height = page.js("[lift3d.picture.view.width, lift3d.picture.view.height]")
    colours = np.array(page.js("[...lift3d.picture.colours]"), float).reshape(height, width, 3)
    step = np.linalg.norm(np.diff(colours, axis=1), axis=2)
    row, column = np.unravel_index(step[12:-12, 12:-12].argmax(), step[12:-12, 12:-12].shape)
    row, column = int(row) + 12, int(column) + 12  # the strongest edge; beside it is the middle
    assert step[row, column] > 26
    page.press("b", "]", "]")
    held = paint(page, [(column - 3, row), (column - 4, row)]).reshape(height, width)
    page.page.mouse.click(*page.in_picture((2, 2)), button="right")
    page.settled()
    free = paint(page, [(column - 3, row), (column - 4, row)], Alt=True).reshape(height, width)
    assert held[row, column - 3]
    assert not held[row, column + 1 :].any()
    assert free[row, column + 1]
    assert not (held & ~free).any()
    assert held.sum() < free.sum()


def test_a_stroke_may_count_in_one_view_only(page, run):
    page.view(2)
    page.press("b", "]", "]", "t")
    painted = paint(page, [(30, 30), (60, 40)], Alt=True)
    assert painted.sum() > 300
    assert "this view only" in page.js("document.getElementById('tip').textContent")
    before = page.js("[...lift3d.cloud.labels]")
    page.edited(lambda: page.press("Enter"))
    (edit,) = lines(run)
    assert edit["everywhere"] is False
    (new,) = edit["new"]
    page.until(f"lift3d.picture.labels.includes({new})")
    labels = np.array(page.js("[...lift3d.picture.labels]"))
    assert np.array_equal(labels == new, painted)
    assert page.js("[...lift3d.cloud.labels]") == before


def test_tab_divides_along_the_tree_of_joins(browser, joined):
    with served(joined) as client:
        page = Page(browser, client.server.address)
        page.select(large(page, 1)[0])
        page.press("x")
        for key, count in (("Tab", 2), ("Tab", 3), ("Shift+Tab", 2)):
            page.press(key)
            page.until(f"lift3d.tool.counts?.length === {count}")
            page.settled()
        assert lines(joined) == []
        page.edited(lambda: page.press("Enter"))
        (edit,) = lines(joined)
        assert (edit["do"], edit["tool"]) == ("split", "tree")
        page.close()


def test_one_click_is_corrected_in_other_views_and_says_what_changes_nothing(browser, joined):
    run = Run.open(joined)
    views = [run.labels[name] for name in list(run.cameras)[:2]]
    ids, counts = np.unique(views[0][views[0] > 0], return_counts=True)
    largest, second = ids[np.argsort(-counts)[:2]]
    found = "lift3d.tool.found"
    with served(joined) as client:
        page = Page(browser, client.server.address)
        page.view(0)
        page.press("g")
        page.page.mouse.click(*page.in_picture(inner_points(views[0] == largest, 1)[0]))
        page.until(f"{found} !== null")
        page.settled()
        while page.js(f"{found}.level < {found}.levels - 1"):
            page.press("Tab")
            page.settled()
        whole, top = page.js(f"{found}.count"), page.js(f"{found}.level")
        page.view(1)  # prompts in any view
        page.page.keyboard.down("Alt")
        page.page.mouse.click(*page.in_picture(inner_points(views[1] == second, 1)[0]))
        page.page.keyboard.up("Alt")
        page.until("lift3d.tool.shownClicks === 2")
        page.settled()
        assert page.js(f"{found}.count") < whole
        assert page.js(f"{found}.level") == top  # the part or whole that was chosen stays
        less = page.js(f"{found}.count")
        page.page.keyboard.down("Alt")
        page.page.mouse.click(*page.in_picture(inner_points(views[1] == second, 1)[0]))
        page.page.keyboard.up("Alt")
        page.until("lift3d.tool.shownClicks === 3")
        assert page.js(f"{found}.count") == less
        assert "this click changes nothing" in page.said
        page.page.mouse.click(
            *page.in_picture(inner_points(views[1] == second, 1)[0]), button="right"
        )
        page.until("lift3d.tool.shownClicks === 2")
        page.edited(lambda: page.press("Enter"))
        (edit,) = lines(joined)
        assert (edit["tool"], [each["positive"] for each in edit["prompts"]]) == (
            "tree", [True, False],
        )  # fmt: skip
        assert [each["view"] for each in edit["prompts"]] == list(run.cameras)[:2]
        page.close()


def test_what_the_server_refuses_is_taken_back_so_that_the_next_click_counts(browser, joined):
    run = Run.open(joined)
    labels = run.labels[next(iter(run.cameras))]
    ids, counts = np.unique(labels[labels > 0], return_counts=True)
    at = inner_points(labels == ids[counts.argmax()], 1)[0]
    with served(joined) as client:
        page = Page(browser, client.server.address)
        page.view(0)
        page.press("g")
        page.js(
            """(() => { const real = window.fetch; window.refuse = true;
              window.fetch = async (...asked) => {
                if (window.refuse && String(asked[0]).startsWith("/api/propose")) {
                  window.refuse = false;
                  return new Response('{"error": "nothing is there"}', { status: 422 }); }
                return real(...asked); }; })()"""
        )
        page.page.mouse.click(*page.in_picture(at))
        page.until("document.getElementById('trouble').textContent.includes('nothing is there')")
        assert page.js("lift3d.tool.clicks.length") == 0
        page.page.mouse.click(*page.in_picture(at))
        page.until("lift3d.tool.found !== null")
        page.settled()
        count = page.js("lift3d.tool.found.count")
        page.js("window.refuse = true")
        page.page.mouse.click(*page.in_picture((2, 2)))
        page.until("window.refuse === false && lift3d.tool.clicks.length === 1")
        assert page.js("lift3d.tool.found.count") == count
        page.js("window.refuse = true")
        page.page.mouse.move(*page.in_picture((2, 2)))
        page.page.mouse.down()
        page.page.mouse.move(*page.in_picture((20, 20)), steps=4)
        page.page.mouse.up()
        page.until("window.refuse === false && lift3d.tool.box === null")
        assert page.js("lift3d.tool.found === null && lift3d.picture.line === null")
        assert page.js("lift3d.store.preview.size") == 0
        page.close()


def test_a_box_is_drawn_in_the_picture_and_corrected_by_clicks(browser, joined):
    run = Run.open(joined)
    labels = run.labels[next(iter(run.cameras))]
    ids, counts = np.unique(labels[labels > 0], return_counts=True)
    each = ids[np.argsort(-counts)[2]]
    rows, columns = np.nonzero(labels == each)
    ends = (columns.min(), rows.min()), (columns.max(), rows.max())
    with served(joined) as client:
        page = Page(browser, client.server.address)
        page.view(0)
        page.press("g")
        page.page.mouse.move(*page.in_picture(ends[1]))  # from any corner
        page.page.mouse.down()
        page.page.mouse.move(*page.in_picture(ends[0]), steps=4)
        page.page.mouse.up()
        page.until("lift3d.tool.found !== null")
        page.settled()
        assert page.js("lift3d.picture.line.length") == 5
        count = page.js("lift3d.tool.found.count")
        assert count > 0
        page.page.mouse.click(*page.in_picture(inner_points(labels == ids[counts.argmax()], 1)[0]))
        page.until("lift3d.tool.shownClicks === 1")
        page.settled()
        page.page.mouse.click(*page.in_picture(ends[0]), button="right")
        page.until("lift3d.tool.shownClicks === 0")
        page.settled()
        assert page.js("lift3d.tool.found.count") == count
        page.edited(lambda: page.press("Enter"))
        (edit,) = lines(joined)
        assert edit["prompts"] == [
            {"view": next(iter(run.cameras)), "box": [*map(float, (*ends[0], *ends[1]))]}
        ]
        assert page.js("lift3d.picture.line") is None
        page.close()
