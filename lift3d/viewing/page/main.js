// The page: puts its parts together; what the server says, what is shown.
// @ts-check
import { Ahead } from "./ahead.js";
import { getBytes, getJson, listen, person, post, requests, Trouble } from "./api.js";
import { Cloud, around } from "./cloud.js";
import { ask } from "./dialogs.js";
import { MODES, actionsOf, buttons } from "./doing.js";
import { all, byId } from "./elements.js";
import { frusta } from "./geometry.js";
import { Going } from "./going.js";
import { drawMarks } from "./marks.js";
import { Objects } from "./objects.js";
import { Orbit } from "./orbit.js";
import { Picture } from "./picture.js";
import { Brush, Lasso } from "./painting.js";
import { onCloud, onPicture } from "./pointer.js";
import { History, Queue } from "./queue.js";
import { Store } from "./store.js";
import { thumbnails } from "./thumbnails.js";
import { showStatus } from "./status.js";
import { Strip } from "./strip.js";
import { Click, Select, Split } from "./tools.js";

const AT_ONCE = 4; // chunks that are fetched at the same time

class App {
  constructor(info) {
    this.info = info;
    this.requests = requests;
    this.store = new Store(info);
    this.orbit = new Orbit(info.up);
    this.cloud = new Cloud(byId("cloud"), info.cloud, this.orbit);
    this.picture = new Picture(
      {
        frame: byId("frame"),
        sheet: byId("sheet"),
        below: byId("below"),
        over: byId("over"),
        name: byId("view-name"),
        trouble: byId("view-trouble"),
      },
      this.store,
    );
    this.picture.cloudLabels = () => this.cloud.labels;
    this.objects = new Objects(this);
    this.queue = new Queue(this);
    this.history = new History(this);
    this.going = new Going(this);
    this.strip = new Strip(this);
    this.ahead = new Ahead(this);
    this.tools = {
      select: new Select(this),
      split: new Split(this),
      click: new Click(this),
      brush: new Brush(this),
      lasso: new Lasso(this),
    };
    this.toolName = "select";
    this.before = null; // labels under a preview
    this.dismissed = false; // the lines of the first run
    this.named = () => {}; // what Enter does in the dialog of names
    this.moved = () => {}; // the camera has moved; see pointer.js
    this.rested = () => {}; // a picture was drawn; see there
    onCloud(this);
    onPicture(this);
    this.store.on(["selection", "hidden", "state"], () => this.repaint());
    this.store.on(["hover"], () => this.rehover());
    this.store.on(["selection", "state", "bar", "view"], () => this.later());
    this.store.on(["selection"], () => this.toolName === "select" && this.clearPreview());
    this.store.on(["view"], () => {
      this.cloud.shownCamera = this.store.view;
      if (this.cloud.showCameras) this.cloud.restart();
    });
    this.cloud.onDrawn = () => {
      drawMarks(this);
      this.rested();
    };
    buttons(this);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.cloud.theme());
    new ResizeObserver(() => this.cloud.wake()).observe(byId("middle"));
  }

  get tool() {
    return this.tools[this.toolName];
  }

  // Starting.

  /** @param {Promise<any>} asked the state, which was asked for already */
  async begin(asked) {
    const { info } = this;
    this.cloud.mode = MODES.indexOf("colour"); // until the objects are known
    document.title = `${info.name} · lift3d`;
    byId("name").textContent = info.name;
    byId("name").title = info.folder;
    document.body.classList.toggle("read-only", info.readOnly);
    this.going.lookAtAll();
    const ends = frusta(info.views, 0.05 * this.orbit.size);
    if (ends.length) this.cloud.setCameras(ends);
    const fetched = this.fetchCloud();
    if (!info.cloud.points) this.trouble("the cloud of this run has no points");
    if (!info.views.length) this.picture.parts.name.textContent = "this run has no views";
    this.store.update(await asked);
    this.store.revision = this.store.state.revision;
    this.cloud.mode = MODES.indexOf("labels");
    const worst = info.views.map((_, i) => i).sort(
      (a, b) => (info.views[a].agreement ?? 2) - (info.views[b].agreement ?? 2),
    )[0];
    this.picture.show(worst ?? 0);
    listen(
      (told) => this.hear(told),
      (there) => this.online(there),
    );
    const oldest = await fetched;
    if (oldest < this.store.revision) await this.fetchChanges(oldest);
    this.ready = true;
    this.later();
    while (this.cloud.drawn < this.cloud.count) await pause(50);
    this.cloud.warm();
    this.quietly("/api/drawn");
  }

  /** All chunks of the cloud. @returns {Promise<number>} the revision of the oldest one */
  async fetchCloud() {
    const { chunks } = this.info.cloud;
    let next = 0;
    let oldest = Infinity;
    const fetchNext = async () => {
      while (next < chunks) {
        const k = next++;
        const { buffer, header } = await getBytes(`/cloud/${k}`);
        oldest = Math.min(oldest, header("X-Revision"));
        // In order, since what is drawn is a first part of all points.
        while (this.cloud.count < k * this.info.cloud.chunk) await pause(15);
        this.cloud.add(k, buffer, header("X-Wide"));
        this.later();
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, fetchNext));
    this.cloud.restart();
    return oldest;
  }

  // What the server says.

  async hear(told) {
    if (told.people) this.store.people = told.people;
    if (told.clicks) this.ahead.take(told.clicks);
    if (told.text && told.person !== person) this.say(`${told.who}: ${told.text}`);
    const edited = told.revision > this.store.revision;
    if (edited) await this.catchUp();
    else if (told.again) await this.takeNews();
    this.store.tell("bar");
  }

  /** Catch up once the cloud rests, since the list made anew would stop a turn. */
  takeNews() {
    this.news ??= (async () => {
      // After the one before: what stands in line would be fetched after a turn has begun.
      await this.caughtUp();
      while (this.cloud.moving) {
        await pause(100);
        await this.caughtUp();
      }
      this.news = null; // what is told from here on is news again
      await this.catchUp();
    })();
    return this.news;
  }

  /** Wait for what is being fetched. Whoever asked for it hears of a failure. */
  caughtUp() {
    return (this.catching ?? Promise.resolve()).catch(() => {});
  }

  async online(there) {
    if (this.store.online === there) return;
    this.store.online = there;
    if (there) await this.catchUp();
    this.later();
  }

  /** Take over all edits since the revision that is shown. */
  async catchUp() {
    // One after the other: each begins where the one before has ended.
    this.catching = this.caughtUp().then(async () => {
      const state = await this.quietly("/api/state");
      if (!state) return;
      if (state.revision !== this.store.revision) await this.fetchChanges(this.store.revision);
      this.store.revision = state.revision;
      this.store.update(state);
    });
    await this.catching;
  }

  async fetchChanges(since) {
    const { buffer } = await getBytes(`/cloud/changes?since=${since}`);
    const both = new Uint32Array(buffer);
    const n = both.length / 2;
    this.clearPreview();
    this.cloud.relabel(both.subarray(0, n), both.subarray(n));
  }

  /** Do an edit; true once it is on the disk. Says why where it is refused. */
  async act(what, more = {}, on = this.store.revision) {
    try {
      const kept = await this.during(what, () => post("/api/edit", { do: what, on, ...more }));
      await this.catchUp();
      this.say(kept.text);
      return true;
    } catch (error) {
      if (error.status === 409) {
        await this.catchUp();
        if (await ask(`${error.message} Do it all the same, on what is there now?`, ["Leave it", "Do it"]))
          return this.act(what, more, this.store.revision);
        return false;
      }
      this.say(error.message, true);
      return false;
    }
  }

  /** Something from the server, with a word while it takes long; null (and said) where it fails. */
  async working(what, ask) {
    try {
      return await this.during(what, ask);
    } catch (error) {
      this.say(error.message, true);
      return null;
    }
  }

  async during(what, ask) {
    const timer = setTimeout(() => {
      this.store.busy = `${what} …`;
      this.later();
    }, 250);
    try {
      return await thumbnails.after(ask());
    } finally {
      clearTimeout(timer);
      this.store.busy = "";
      this.later();
    }
  }

  quietly(address) {
    return this.quiet(() => getJson(address));
  }

  async quiet(ask) {
    try {
      return await ask();
    } catch {
      return null; // only a convenience was asked for; the next click asks again
    }
  }

  // Showing.

  repaint() {
    const { store, cloud } = this;
    const hidden = [...store.hidden].sort().join();
    const changed = hidden !== this.hiddenBefore;
    this.hiddenBefore = hidden;
    cloud.hides = store.hidden.size > 0;
    cloud.dimmed = store.selected.size > 0 || store.preview.size > 0;
    cloud.marked = cloud.dimmed || store.hovered > 0;
    cloud.setPalette(store.palette(), changed);
  }

  /** Paint what the mouse has left and what it is over, and nothing else. */
  rehover() {
    const { store, cloud } = this;
    const boxes = [];
    for (const id of [store.left, store.hovered].filter(Boolean)) {
      const { low, high } = store.objects.get(id) ?? {};
      const box = low && cloud.boxOf(low, high);
      if (!box || this.before) return this.repaint(); // a proposal may lie anywhere
      boxes.push(box);
    }
    cloud.marked = store.selected.size > 0 || store.hovered > 0 || store.left > 0;
    if (boxes.length) cloud.setPalette(store.palette(), false, boxes.reduce(around));
  }

  /** Show parts that are only proposed in colours of their own. */
  preview(parts, colours) {
    this.clearPreview(false);
    const { cloud, store } = this;
    const ids = store.temporary(parts.length);
    const all = parts.reduce((sum, part) => sum + part.length, 0);
    const places = new Uint32Array(all);
    const labels = new Uint32Array(all);
    let at = 0;
    parts.forEach((part, i) => {
      places.set(part, at);
      labels.fill(ids[i], at, at + part.length);
      store.preview.set(ids[i], colours[i % colours.length]);
      at += part.length;
    });
    this.before = { places, labels: places.map((place) => cloud.labels[place]) };
    cloud.relabel(places, labels);
    this.repaint();
    this.picture.fetchPlaces();
    this.later();
  }

  clearPreview(paint = true) {
    if (!this.before) return;
    this.cloud.relabel(this.before.places, this.before.labels);
    this.before = null;
    this.store.preview.clear();
    this.picture.later();
    if (paint) this.repaint();
  }

  tip(x, y = 0, text = "") {
    const tip = byId("tip");
    tip.hidden = x === null;
    if (x === null) return;
    tip.textContent = text;
    const width = byId("middle").clientWidth;
    tip.style.left = `${Math.max(4, Math.min(x + 14, width - tip.offsetWidth - 4))}px`;
    tip.style.top = `${y + 18}px`;
  }

  say(text, wrong = false) {
    const box = byId("trouble");
    box.textContent = text;
    box.hidden = false;
    box.classList.toggle("wrong", wrong);
    clearTimeout(this.saying);
    this.saying = setTimeout(() => (box.hidden = true), wrong ? 7000 : 2600);
  }

  trouble(text) {
    this.say(text, true);
    clearTimeout(this.saying);
  }

  later() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      showStatus(this);
      drawMarks(this);
    });
  }

  showTab(name) {
    document.body.dataset.tab = name;
    for (const each of all("nav button"))
      each.setAttribute("aria-pressed", String(each.dataset.tab === name));
  }

  largest() {
    const ids = [...this.store.selected];
    ids.sort((a, b) => this.store.objects.get(b).points - this.store.objects.get(a).points);
    return this.store.title(ids[0]);
  }

  get actions() {
    return actionsOf(this);
  }

  use(name) {
    if (this.info.readOnly && name !== "select") return;
    this.tool.stop();
    this.toolName = name;
    for (const each of all("[data-tool]"))
      each.setAttribute("aria-pressed", String(each.dataset.tool === name));
    byId("middle").classList.toggle("crosshair", this.tool.cursor !== "");
    byId("frame").classList.toggle("crosshair", this.tool.cursor !== "");
    this.tool.start();
    this.later();
  }
}

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** A request that failed where nobody waited for it is told too. */
function tellTroubles() {
  addEventListener("unhandledrejection", (event) => {
    if (!(event.reason instanceof Trouble)) return;
    event.preventDefault();
    const box = byId("trouble");
    box.textContent = event.reason.message;
    box.hidden = false;
  });
}

async function start() {
  tellTroubles();
  try {
    const asked = getJson("/api/state");
    asked.catch(() => {}); // told where it is awaited
    const app = new App(await getJson("/api/run"));
    const options = new URLSearchParams(location.search);
    if (options.has("stats")) byId("stats").hidden = false;
    if (options.has("test")) /** @type {any} */ (window).lift3d = app;
    await app.begin(asked);
  } catch (error) {
    const box = byId("trouble");
    box.textContent = error.message;
    box.hidden = false;
  }
}

start();
