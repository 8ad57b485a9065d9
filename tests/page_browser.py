"""A page in headless Chromium, moved by a real mouse and real keys."""

import contextlib
import json
import shutil
import time

import pytest

INSTALL = "needs Chromium: apt-get install chromium && pip install playwright"
FLAGS = ["--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]


@contextlib.contextmanager
def chromium():
    """A browser with software WebGL; skips where there is none."""
    try:
        from playwright import sync_api as api
    except ImportError:
        pytest.skip(INSTALL)
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    with api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        except api.Error:
            pytest.skip(INSTALL)
        yield browser
        browser.close()


class Page:
    """One open page, and what it is asked through `window.lift3d` (`?test`)."""

    def __init__(self, browser, address, width=1280, height=800, patience=60, **options):
        self.context = browser.new_context(viewport={"width": width, "height": height}, **options)
        self.page = self.context.new_page()
        self.troubles, self.hosts = [], set()
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("request", lambda asked: self.hosts.add(asked.url.split("/")[2]))
        self.page.goto(address + "&test")
        self.until("window.lift3d?.ready && lift3d.cloud.drawn >= lift3d.cloud.count", patience)

    def js(self, what):
        """The value of an expression."""
        return self.page.evaluate(what)

    def until(self, what, seconds=60):
        """Wait for an expression; Playwright's own way is refused by the page's CSP."""
        end = time.monotonic() + seconds
        while not (found := self.js(what)):
            assert time.monotonic() < end, f"{what} stayed {found!r}; {self.troubles} {self.said}"
            time.sleep(0.03)
        return found

    def settled(self):
        """Wait until every request is answered, all points are drawn and nothing moves."""
        self.until(
            "!lift3d.requests.open && !lift3d.store.busy && !lift3d.cloud.moving"
            " && lift3d.cloud.drawn >= lift3d.cloud.count"
        )

    @property
    def said(self):
        """What the page says to the person."""
        return self.js("document.getElementById('trouble').textContent")

    @property
    def hint(self):
        """The line of the present tool."""
        return self.js("document.getElementById('hint').textContent")

    @property
    def selected(self):
        """Ids of the selected objects."""
        return self.js("[...lift3d.store.selected]")

    @property
    def revision(self):
        """How many lines of edits the page knows."""
        return self.js("lift3d.store.revision")

    def box(self, name):
        """Left, top, width, height of an element."""
        box = self.js(
            f"(() => {{ const b = document.getElementById('{name}').getBoundingClientRect();"
            "return [b.left, b.top, b.width, b.height]; })()"
        )
        return box

    def spot(self, id_, margin=3):
        """A pixel of the window where the cloud shows an object, away from its rim."""
        self.settled()
        self.until(f"lift3d.cloud.labels.includes({id_})")
        left, top, _, _ = self.box("cloud")
        found = self.js(
            f"""(() => {{
              const c = lift3d.cloud, w = c.canvas.clientWidth, h = c.canvas.clientHeight;
              const is = (x, y) => c.pick(x, y)?.id === {id_};
              const near = [[0,0],[-1,0],[1,0],[0,-1],[0,1]].map(([a,b])=>[{margin}*a,{margin}*b]);
              for (let y = 6; y < h - 6; y += 5) for (let x = 6; x < w - 6; x += 5)
                if (near.every(([a, b]) => is(x + a, y + b))) return [x, y];
              return null; }})()"""
        )
        assert found, f"object {id_} is not to be seen"
        return left + found[0], top + found[1]

    def click(self, at, button="left", **keys):
        """Move the mouse there and press; `keys` such as Shift=True are held."""
        for key in keys:
            self.page.keyboard.down(key)
        self.page.mouse.move(*at)
        self.page.mouse.click(*at, button=button)
        for key in keys:
            self.page.keyboard.up(key)

    def select(self, *ids):
        """Click objects in the cloud, the first alone and the others with Shift."""
        for number, each in enumerate(ids):
            self.click(self.spot(each), **({"Shift": True} if number else {}))
            self.until(f"lift3d.store.selected.has({each})")

    def press(self, *keys):
        """Press keys, with the mouse over the cloud."""
        for key in keys:
            self.page.keyboard.press(key)

    def edited(self, then):
        """Do something that makes an edit, and wait until the page has it."""
        before = self.revision
        then()
        self.until(f"lift3d.store.revision > {before}")
        self.settled()

    def in_picture(self, pixel):
        """The place in the window of a pixel of the shown view."""
        left, top, width, height = self.box("over")
        columns, rows = self.js("[lift3d.picture.view.width, lift3d.picture.view.height]")
        return left + (pixel[0] + 0.5) * width / columns, top + (pixel[1] + 0.5) * height / rows

    def view(self, number):
        """Show a view and wait for its labels."""
        self.settled()  # the answer to an earlier click would show another view
        self.js(f"lift3d.picture.show({number})")
        self.until(f"lift3d.store.view === {number} && lift3d.picture.labels?.length > 0")

    def close(self):
        """Close the page; it must not have failed anywhere."""
        self.context.close()
        assert not self.troubles, self.troubles


def lines(run):
    """The edits on the disk."""
    path = run / "edits.jsonl"
    return [json.loads(each) for each in path.read_text().splitlines()] if path.exists() else []


def large(page, count, fewest=60):
    """The objects that the cloud shows best: so many ids."""
    page.settled()
    shown = page.js(
        """(() => { const c = lift3d.cloud, n = {};
           const d = c.picking.numbersIn(0, 0, c.canvas.clientWidth, c.canvas.clientHeight).data;
           for (let i = 0; i < d.length; i += 4) if (d[i + 3] === 1) {
             const id = c.labels[d[i] | d[i+1] << 8 | d[i+2] << 16]; n[id] = (n[id] ?? 0) + 1; }
           return Object.entries(n); })()"""
    )
    ranked = sorted(((int(i), n) for i, n in shown if int(i)), key=lambda pair: -pair[1])
    assert len(ranked) >= count
    assert ranked[count - 1][1] >= fewest
    return [each for each, _ in ranked[:count]]
