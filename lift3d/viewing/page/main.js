// The page: puts its parts together and says what every key and button does.
// @ts-check
import { Ahead } from "./ahead.js";
import { getBytes, getJson, listen, person, post, requests, Trouble } from "./api.js";
import { Cloud, around } from "./cloud.js";
import { ask, rename } from "./dialogs.js";
import { all, byId, element, pressed } from "./elements.js";
import { add, project, unit, unpacked } from "./geometry.js";
import { actionOf, known } from "./keys.js";
import { Objects } from "./objects.js";
import { Orbit } from "./orbit.js";
import { Picture } from "./picture.js";
import { Brush, Lasso } from "./painting.js";
import { onCloud, onPicture } from "./pointer.js";
import { History, Queue } from "./queue.js";
import { PARTS, Store } from "./store.js";
import { thumbnails } from "./thumbnails.js";
import { showStatus } from "./status.js";
import { Strip } from "./strip.js";
import { Click, Select, Split } from "./tools.js";

const MODES = ["labels", "colour", "score"];
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
      this.drawMarks();
      this.rested();
    };
    this.buttons();
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
    this.lookAtAll();
    this.setCameras();
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

  lookAtAll() {
    const [low, high] = this.info.cloud.box;
    this.orbit.frame(low, high, true);
    this.orbit.lookAsViews(this.info.views);
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

  setCameras() {
    const depth = 0.05 * this.orbit.size;
    const ends = [];
    for (const { K, pose, width, height } of this.info.views) {
      const world = (x, y, z) => {
        const p = pose ?? [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0];
        const at = (row) => p[4 * row] * x + p[4 * row + 1] * y + p[4 * row + 2] * z + p[4 * row + 3];
        return [at(0), at(1), at(2)];
      };
      const corner = (u, v) =>
        world(((u - K[2]) / K[0]) * depth, ((v - K[5]) / K[4]) * depth, depth);
      const eye = world(0, 0, 0);
      const corners = [corner(0, 0), corner(width, 0), corner(width, height), corner(0, height)];
      corners.forEach((each, i) => ends.push(...eye, ...each, ...each, ...corners[(i + 1) % 4]));
    }
    if (ends.length) this.cloud.setCameras(new Float32Array(ends));
  }

  // What the server says.

  async hear(told) {
    if (told.people) this.store.people = told.people;
    if (told.clicks) this.ahead.take(told.clicks);
    if (told.text && told.person !== person) this.say(`${told.who}: ${told.text}`);
    const edited = told.revision > this.store.revision;
    if (told.again && !edited) await this.still(); // the list made anew would stop the turn
    if (told.again || edited) await this.catchUp();
    this.store.tell("bar");
  }

  /** Wait until the cloud does not move. */
  async still() {
    while (this.cloud.moving) await pause(100);
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
    this.catching = (this.catching ?? Promise.resolve()).then(async () => {
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

  drawMarks() {
    const { canvas } = this.cloud;
    const marks = byId("marks");
    const some = this.tool.marks.length > 0 || Boolean(this.tool.draw);
    if (!some && !this.marksShown && byId("stats").hidden) return;
    this.marksShown = some;
    const ratio = devicePixelRatio || 1;
    marks.width = canvas.clientWidth * ratio;
    marks.height = canvas.clientHeight * ratio;
    const pen = marks.getContext("2d");
    pen.scale(ratio, ratio);
    for (const each of this.tool.marks) {
      const at = this.cloud.where(each.xyz);
      if (!at) continue;
      pen.beginPath();
      pen.arc(at[0], at[1], 9, 0, 2 * Math.PI);
      pen.fillStyle = `rgb(${each.colour.join(" ")})`;
      pen.fill();
      pen.lineWidth = 2;
      pen.strokeStyle = "#111";
      pen.stroke();
      pen.fillStyle = "#111";
      pen.font = "bold 11px system-ui";
      pen.textAlign = "center";
      pen.fillText(each.text, at[0], at[1] + 4);
    }
    this.tool.draw?.(pen);
    const stats = byId("stats");
    if (!stats.hidden) {
      const { last, worst, points } = this.cloud.stats;
      stats.textContent = `${last.toFixed(0)} ms a frame, ${worst.toFixed(0)} at most\n${points.toLocaleString("en")} points in it`;
    }
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
      this.drawMarks();
    });
  }

  showTab(name) {
    document.body.dataset.tab = name;
    for (const each of all("nav button"))
      each.setAttribute("aria-pressed", String(each.dataset.tab === name));
  }

  // Going somewhere.

  /** Look at objects from the side from which the view sees them that shows them best. */
  async frame(ids, view = null) {
    const boxes = ids.map((id) => this.store.objects.get(id)).filter((each) => each?.low);
    if (!boxes.length) return view;
    const low = [0, 1, 2].map((axis) => Math.min(...boxes.map((each) => each.low[axis])));
    const high = [0, 1, 2].map((axis) => Math.max(...boxes.map((each) => each.high[axis])));
    if (view === null) {
      const found = await this.quietly(`/api/views?ids=${ids.join(",")}`);
      view = found?.views[0]?.view ?? null;
    }
    this.orbit.frame(low, high);
    if (view !== null && this.info.views[view].pose) this.orbit.lookFrom(this.info.views[view].pose);
    this.moved();
    return view;
  }

  /** An object was chosen in the list: show it in the cloud and in its best view. */
  async selectedHere(id) {
    const view = await this.frame([id]);
    if (view !== null) this.picture.show(view);
  }

  /** Turn the cloud to a place, seen from the side of the shown view. */
  turnTo(xyz) {
    const { pose } = this.picture.view;
    this.orbit.aim(xyz);
    if (pose) this.orbit.lookFrom(pose);
    this.moved();
  }

  /** The best view of a point, with the place marked. */
  async showPlace(point) {
    const found = await this.quietly(`/api/place?point=${point}`);
    if (!found?.length) return;
    const same = found.find((each) => each.view === this.store.view);
    const best = same && this.toolName === "brush" ? same : found[0];
    this.picture.show(best.view, [best.x, best.y]);
  }

  /** Something of the queue: its objects, its view. */
  async lookAt(each) {
    this.use("select");
    if (each.ids.length) {
      this.store.select(each.ids);
      this.objects.reveal(each.ids[0]);
    }
    const view = await this.frame(each.ids, each.view);
    if (view !== null) this.picture.show(view);
    if (each.proposal !== "split") return;
    const body = { do: "proposal", key: each.key };
    const found = await this.working("splitting", () => post("/api/preview", body));
    if (found && this.queue.current === each.key)
      this.preview(found.parts.map((part) => unpacked(part.points)), PARTS);
  }

  rayAt(x, y) {
    const { clientWidth: width, clientHeight: height } = this.cloud.canvas;
    const { orbit } = this;
    const forward = add([0, 0, 0], orbit.outwards, -1);
    const middle = add(orbit.eye, forward);
    const m = orbit.clipFromWorld(width, height);
    // Two directions across, found by projecting a step to the right and one up.
    const step = (axis) => {
      const p = project(m, add(middle, axis, 0.1), width, height);
      return [p[0] - width / 2, p[1] - height / 2];
    };
    const right = unit([m[0], m[4], m[8]]);
    const top = unit([m[1], m[5], m[9]]);
    const a = step(right)[0];
    const b = step(top)[1];
    return unit(add(add(forward, right, (0.1 * (x - width / 2)) / a), top, (0.1 * (y - height / 2)) / b));
  }

  largest() {
    const ids = [...this.store.selected];
    ids.sort((a, b) => this.store.objects.get(b).points - this.store.objects.get(a).points);
    return this.store.title(ids[0]);
  }

  // Doing.

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

  async setMode(name) {
    this.cloud.mode = MODES.indexOf(name);
    for (const each of MODES) pressed(each, each === name);
    if (name === "score" && this.scoresOf !== this.store.revision) {
      this.scoresOf = this.store.revision;
      for (let k = 0; k < this.info.cloud.chunks; k++) {
        const { buffer } = await getBytes(`/cloud/${k}/scores`);
        this.cloud.setScores(k, new Uint8Array(buffer));
      }
    }
    this.cloud.wake();
  }

  /** What keys and buttons do, by name. */
  get actions() {
    const { store, cloud } = this;
    const ids = [...store.selected];
    const switched = (name, field) => () => {
      cloud[field] = !cloud[field];
      pressed(name, cloud[field]);
      cloud.restart();
    };
    return {
      labels: () => this.setMode("labels"),
      colour: () => this.setMode("colour"),
      score: () => this.setMode("score"),
      walls: switched("walls", "cull"),
      cameras: switched("cameras", "showCameras"),
      unlabelled: switched("unlabelled", "showUnlabelled"),
      frame: () => (ids.length ? this.frame(ids) : this.actions.home()),
      home: () => {
        this.lookAtAll();
        this.moved();
      },
      all: () => store.select([...store.objects.keys()].filter((id) => !store.hidden.has(id))),
      escape: () => {
        if (this.toolName !== "select") return this.use("select");
        this.picture.mark = null;
        store.select([]);
      },
      hide: () => store.hide(ids),
      isolate: () => ids.length && store.isolate(ids),
      show: () => store.show(),
      search: () => {
        this.showTab("list");
        byId("search").focus();
      },
      help: () => byId("help").showModal(),
      previous: () => this.strip.step(-1, false),
      next: () => this.strip.step(1, false),
      merge: () => this.merge(ids),
      split: () => this.use("split"),
      separate: () => {
        this.use("split");
        this.tool.separate();
      },
      click: () => this.use("click"),
      brush: () => this.use("brush"),
      lasso: () => this.use("lasso"),
      through: () => {
        store.through = !store.through;
        const button = pressed("through", store.through);
        button.textContent = `lasso: ${store.through ? "through" : "surface"}`;
        this.later();
      },
      adding: () => {
        store.adding = !store.adding;
        pressed("adding", store.adding);
      },
      rename: () => ids.length && rename(this, ids),
      delete: () => ids.length && this.act("delete", { ids, to: "unlabelled" }),
      dissolve: () => ids.length && this.act("delete", { ids, to: "neighbours" }),
      accept: () => ids.length && this.act("accept", { ids }),
      doubt: () => this.queue.next(),
      leave: () => this.queue.leave(),
      undo: () => this.act("undo"),
      redo: () => this.act("redo"),
      save: () => this.save(),
    };
  }

  async merge(ids) {
    if (ids.length < 2) return this.say("select two or more objects to merge");
    const names = new Set(ids.map((id) => this.store.objects.get(id).name).filter(Boolean));
    const more = { ids };
    if (names.size > 1) {
      const choices = [...names];
      const chosen = await ask("Both have names. Which is kept?", ["Cancel", ...choices]);
      if (!chosen) return;
      const kept = choices[chosen - 1];
      more.into = ids.find((id) => this.store.objects.get(id).name === kept);
    }
    if (await this.act("merge", more)) {
      const [left] = ids.filter((id) => this.store.objects.has(id));
      if (left) this.store.select([left]);
    }
  }

  async save() {
    const saved = await this.working("writing cloud, label maps and scores", () => post("/api/save", {}));
    if (!saved) return;
    await this.catchUp();
    this.say(saved.text);
  }

  buttons() {
    for (const each of all("[data-do]"))
      each.addEventListener("click", () => this.actions[each.dataset.do]());
    for (const each of all("[data-tool]"))
      each.addEventListener("click", () => this.use(each.dataset.tool));
    for (const each of all("nav [data-tab]"))
      each.addEventListener("click", () => this.showTab(each.dataset.tab));
    for (const each of all("[data-mode]"))
      each.addEventListener("click", () => {
        for (const one of all("[data-mode]"))
          one.setAttribute("aria-pressed", String(one === each));
        this.picture.setMode(each.dataset.mode);
      });
    byId("naming-yes").addEventListener("click", () => this.named());
    byId("naming-no").addEventListener("click", () => byId("naming").close());
    byId("naming").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && event.target.tagName === "INPUT") this.named();
    });
    byId("help-close").addEventListener("click", () => byId("help").close());
    byId("keys").replaceChildren(
      ...known(this.info.readOnly).map(([keys, what]) => {
        const row = element("div");
        row.append(element("kbd", keys), element("span", what));
        return row;
      }),
    );
    addEventListener("keydown", (event) => this.key(event));
    addEventListener("keyup", (event) => {
      if (event.key !== " ") return;
      this.picture.bare = false;
      this.picture.later();
    });
  }

  key(event) {
    const { target } = event;
    if (document.querySelector("dialog[open]")) return;
    if (target.matches?.("input, select, textarea")) {
      if (event.key === "Escape") target.blur();
      return;
    }
    const onButton = target.matches?.("button, summary");
    if (this.toolName !== "select" && this.tool.key(event)) return event.preventDefault();
    if (event.key === " " && !onButton) {
      this.picture.bare = true;
      this.picture.later();
      return event.preventDefault();
    }
    if (event.key === "Enter" && !onButton) {
      event.preventDefault();
      if (this.toolName !== "select") return this.tool.enter(event);
      return this.queue.accept();
    }
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault();
      return this.strip.step(event.key === "ArrowLeft" ? -1 : 1, event.shiftKey);
    }
    const action = actionOf(event);
    if (!action || !known(this.info.readOnly).some(([, , name]) => name === action)) return;
    event.preventDefault();
    this.dismissed ||= action === "escape";
    this.actions[action]();
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
