// Tools that are clicked: select, split, one click.
// @ts-check
import { post } from "./api.js";
import { byId } from "./elements.js";
import { cross, dot, unit, unpacked } from "./geometry.js";
import { PARTS } from "./store.js";
import { Tool, inViews, line } from "./tool.js";

const PHONE = matchMedia("(max-width: 760px)");

export class Select extends Tool {
  constructor(app) {
    super(app);
    this.cursor = "";
  }
  cloudClick(hit, event) {
    this.take(hit.id, event);
  }
  pictureClick(hit, event) {
    this.take(hit.id, event);
  }
  take(id, event) {
    const { store } = this;
    if (store.adding) store.select([id], store.selected.has(id) ? "take" : "add");
    else if (event.shiftKey) store.select([id], "add");
    else if (event.ctrlKey || event.metaKey) store.select([id], "take");
    else store.select(id ? [id] : []);
    if (id) this.app.objects.reveal(id);
  }
  get hint() {
    const n = this.store.selected.size;
    const doubt = this.app.queue.shown;
    const { readOnly } = this.store.info;
    const here = doubt?.ids.length ? doubt.ids.every((id) => this.store.selected.has(id)) : !n;
    if (doubt && here && !readOnly)
      return [
        doubt.reason,
        doubt.proposal && `Enter: ${doubt.proposal}`,
        doubt.kind === "several" && "X splits by clicks",
        "Shift+N leaves it",
        "N next",
      ].filter(Boolean).join(" · ");
    if (!n) return this.idle;
    const [one] = this.store.selected;
    const points = [...this.store.selected].reduce((sum, id) => sum + this.store.objects.get(id).points, 0);
    if (n === 1) return this.store.describe(one);
    return readOnly
      ? `${n} objects, ${points.toLocaleString("en")} points`
      : `${n} objects, ${points.toLocaleString("en")} points · M merges into ${this.app.largest()} · Esc`;
  }
  /** While nothing is selected; not beside the lines of the first run, which say the same. */
  get idle() {
    const { cloud, queue } = this.app;
    if (cloud.mode === 2) return "score: bright where the views agree, dark where they do not";
    if (!byId("first").hidden) return "";
    if (PHONE.matches) return "tap an object to select it";
    const open = this.store.info.readOnly ? 0 : queue.items.length;
    return `click an object to select it${open ? ` · N goes through ${open} to look at` : ""} · ? shows every key`;
  }
}

export class Split extends Tool {
  start() {
    this.clicks = [];
    this.plane = null; // of a cut: a plane, or a line in a picture
    this.pieces = 1; // by the tree of joins, see key()
    this.line = null;
    this.target = this.store.selected.size === 1 ? [...this.store.selected][0] : 0;
    this.group = 0; // part that the next click belongs to; 0 is a new one
    this.counts = [];
    this.shown = null; // views that show the object
  }
  cloudClick(hit) {
    this.add(hit);
  }
  pictureClick(hit) {
    this.add(hit);
  }
  add(hit) {
    if (!hit.xyz) return this.app.say("there is no point of the cloud at that place");
    if (!hit.id) return this.app.say("that point has no object; select it with the lasso");
    if (!this.target || (!this.clicks.length && !this.plane && this.pieces < 2)) {
      this.target = hit.id;
      this.store.select([hit.id]);
      // The first answer waits for the object's surface: let it be made before the second click.
      this.app.quiet(() => post("/api/preview", { do: "prepare", id: hit.id }));
    }
    if (hit.id !== this.target && !this.store.preview.has(hit.id))
      return this.app.say(`that is ${this.store.title(hit.id)}, not what is being split`);
    const used = Math.max(0, ...this.clicks.map((each) => each.group));
    this.clicks.push({ xyz: hit.xyz, group: this.group || used + 1 });
    this.uncut();
    this.pieces = 1;
    this.group = 0;
    return this.show();
  }
  undoClick() {
    if (this.line || this.plane) this.uncut();
    else if (this.pieces > 1) this.pieces--;
    else this.clicks.pop();
    this.show();
  }
  takesDrag(event) {
    return event.altKey;
  }
  uncut() {
    this.plane = this.line = null;
    this.app.picture.line = null;
    this.app.picture.later();
  }
  /** A line across the object in the picture: what the camera sees on each side of it. */
  dragPicture(from, to, done) {
    const { picture } = this.app;
    picture.line = [from, to];
    picture.later();
    if (!done) return;
    if (!this.target) this.target = picture.idAt(from.map((each, i) => Math.round((each + to[i]) / 2)));
    if (!this.target) {
      this.uncut();
      return this.app.say("select the object first, or draw the line across it");
    }
    this.store.select([this.target]);
    this.plane = { view: this.store.view, line: picture.line };
    this.clicks = [];
    this.pieces = 1;
    this.show();
  }
  drag(points, done) {
    this.app.picture.line = null;
    this.line = [points[0], points[points.length - 1]];
    this.app.later();
    if (!done) return;
    const [a, b] = this.line.map(([x, y]) => this.app.going.rayAt(x, y));
    const eye = this.app.orbit.eye;
    const normal = unit(cross(a, b));
    this.plane = { plane: [...normal, -dot(normal, eye)] };
    this.clicks = [];
    this.pieces = 1;
    this.show();
  }
  get body() {
    const id = this.target;
    if (this.plane) return { do: "cut", id, ...this.plane };
    if (this.apart) return { do: "separate", id };
    if (this.pieces > 1) return { do: "divide", id, count: this.pieces };
    return {
      do: "split",
      id,
      clicks: this.clicks.map((each) => each.xyz),
      groups: this.clicks.map((each) => each.group),
    };
  }
  get enough() {
    const groups = new Set(this.clicks.map((each) => each.group));
    return this.target && (this.plane || this.apart || this.pieces > 1 || groups.size >= 2);
  }
  async show() {
    this.counts = [];
    if (!this.enough) {
      this.app.clearPreview();
      return this.app.later();
    }
    const asked = (this.asked = {});
    const found = await this.app.working("splitting", () => post("/api/preview", this.body));
    if (asked !== this.asked) return;
    if (!found) {
      this.pieces = 1;
      return this.app.clearPreview();
    }
    this.counts = found.parts.map((each) => each.count);
    this.shown = found.shown;
    if (this.pieces > 1) this.pieces = this.counts.length; // the tree may have no more
    // A part has the colour of the click in it.
    const colours = found.parts.map((_, part) => {
      const click = found.of_click?.indexOf(part) ?? -1;
      return PARTS[(click < 0 ? part : this.clicks[click].group - 1) % PARTS.length];
    });
    this.app.preview(found.parts.map((each) => unpacked(each.points)), colours);
  }
  /** Shift+X: what does not hang together. */
  separate() {
    if (!this.target) return this.app.say("select the object that is in pieces, then Shift+X");
    this.apart = true;
    return this.show();
  }
  stop() {
    this.apart = false;
    this.asked = null;
    this.clicks = [];
    this.uncut();
    super.stop();
  }
  key(event) {
    if (event.key === "Tab") {
      if (!this.target) this.app.say("click or select the object first, then Tab");
      else {
        this.pieces = Math.max(1, this.pieces + (event.shiftKey ? -1 : 1));
        this.clicks = [];
        this.uncut();
        this.show();
      }
      return true;
    }
    if (/^[1-9]$/.test(event.key)) {
      this.group = Number(event.key);
      this.app.later();
      return true;
    }
    return false;
  }
  async enter() {
    if (!this.enough) return this.app.say("click each thing once; two at least");
    const { do: what, ...more } = this.body;
    if (await this.app.act(what, more)) this.app.use("select");
  }
  get hint() {
    if (!this.target) return "click each thing in the glued object once, or draw a line across it in the picture";
    const title = this.store.title(this.target);
    if (this.counts.length)
      return `${title} into ${this.counts.map((n) => n.toLocaleString("en")).join(" + ")} points${inViews(this.shown)} · Enter splits · Tab finer, Shift+Tab coarser · right click takes a click back · Esc leaves`;
    if (this.group) return `the next click belongs to part ${this.group}`;
    const n = this.clicks.length;
    return `${title}: ${n ? `${n} click${n > 1 ? "s" : ""}, ` : ""}click each thing once · Tab finer · a line across it in the picture, or Alt+drag in the cloud, cuts straight · 1…9 another click for a part · Esc leaves`;
  }
  get marks() {
    return this.clicks.map((each) => ({
      xyz: each.xyz,
      colour: PARTS[(each.group - 1) % PARTS.length],
      text: String(each.group),
    }));
  }
  draw(pen) {
    if (!this.line) return;
    pen.setLineDash([6, 4]);
    line(pen, this.line, false);
    pen.setLineDash([]);
  }
}

export class Click extends Tool {
  start() {
    this.clicks = []; // in their order: { hit, view, positive }; the first one is on the object
    this.box = null; // { view, box }, drawn instead of the first click
    this.level = null;
    this.found = null;
    this.shownClicks = 0; // how many `found` is of
    this.asks = false; // whether a segmenter answers
  }
  cloudClick(hit, event) {
    this.place(hit, event);
  }
  pictureClick(hit, event) {
    this.place(hit, event);
  }
  place(hit, event) {
    // A click in a picture needs no point: the server takes one near by.
    if (!hit.xyz && !hit.pixel) return this.app.say("there is no point of the cloud at that place");
    const view = hit.pixel ? this.store.view : null;
    const begun = this.clicks.length || this.box;
    // Where a segmenter is at hand, a first prompt in a picture is for it, with all further ones.
    if (!begun) this.asks = Boolean(this.store.info.clicks && hit.pixel);
    if (this.asks && view === this.first) this.level = null; // other masks are offered
    this.clicks.push({ hit, view, positive: !begun || !event.altKey });
    return this.show();
  }
  /** The view of the first prompt; null in the cloud. */
  get first() {
    return (this.box ?? this.clicks[0])?.view ?? null;
  }
  /** A box around an object in the picture. */
  dragPicture([x0, y0], [x1, y1], done) {
    const { picture } = this.app;
    picture.line = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]];
    picture.later();
    if (!done) return;
    const { line } = picture;
    this.start();
    this.app.clearPreview();
    picture.line = line;
    const box = [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
    this.box = { view: this.store.view, box };
    this.asks = Boolean(this.store.info.clicks);
    this.show();
  }
  undoClick() {
    if (!this.clicks.pop()) this.unbox();
    if (this.asks || !this.clicks.length) this.level = null;
    this.show();
  }
  /** The server refused: keep what it has answered, so that the next click is not refused too. */
  takeBack() {
    this.clicks.length = Math.min(this.clicks.length, this.shownClicks);
    if (!this.found) this.unbox();
    this.level = this.found?.level ?? null;
    this.app.later();
  }
  unbox() {
    this.box = null;
    this.app.picture.line = null;
    this.app.picture.later();
  }
  get body() {
    return {
      ...this.box,
      level: this.level,
      clicks: this.clicks.map(({ hit, view, positive }) => ({
        point: hit.point,
        positive,
        ...(view !== null && { view, xy: hit.pixel }),
      })),
    };
  }
  async show() {
    const asked = (this.asked = {});
    if (!this.clicks.length && !this.box) {
      this.found = null;
      this.shownClicks = 0;
      return this.app.clearPreview();
    }
    const before = { ...this.found, clicks: this.shownClicks };
    const alone = (this.clicks.length === 1 && !this.box) || this.asks;
    const doing = alone ? "looking for the object" : "looking for the object in all views; this takes longer the first time";
    const what = (this.asks && this.app.ahead.waits) || doing;
    let body = this.body;
    do {
      const found = await this.app.working(what, () => post("/api/propose", body));
      if (asked !== this.asked) return;
      if (!found) return this.takeBack();
      this.found = found;
      this.shownClicks = this.clicks.length;
      this.level = found.level;
      if (this.clicks.length > before.clicks && found.points === before.points)
        this.app.say("this click changes nothing: click in the middle of what is wrong, or right-click to take it back");
      this.app.preview([unpacked(found.points)], [[255, 190, 40]]);
      body = { more: found.key };
    } while (this.found.views < this.found.of);
  }
  key(event) {
    if (event.key !== "Tab" || !this.found) return false;
    const step = event.shiftKey ? -1 : 1;
    this.level = Math.min(this.found.levels - 1, Math.max(0, this.found.level + step));
    this.show();
    return true;
  }
  stop() {
    this.asked = null;
    this.unbox();
    super.stop();
  }
  async enter(event) {
    if (!this.found) return this.app.say("click an object first");
    const [one] = this.store.selected;
    const id = event.ctrlKey || event.metaKey ? one : null;
    if (id === undefined) return this.app.say("Ctrl+Enter adds to the selected object; none is selected");
    if (await this.app.act("segment", { key: this.found.key, id })) this.app.use("select");
  }
  get hint() {
    if (!this.found) {
      const waits = this.app.ahead.waits;
      return `click an object, in the cloud or in the picture, or draw a box around it there${waits && ` (there: ${waits})`}`;
    }
    const { count, level, levels, views, of, shown } = this.found;
    const seen = of ? `${views} of ${of} views asked · ` : "";
    return `${seen}${count.toLocaleString("en")} points${inViews(shown)} ${levels > 1 ? `· Tab whole, Shift+Tab part (${level + 1} of ${levels}) ` : ""}· click adds, Alt+click takes away · Enter new object · Ctrl+Enter into the selected`;
  }
  get marks() {
    const [first, added, removed] = [[[255, 255, 255], ""], [[90, 220, 120], "+"], [[255, 90, 80], "−"]];
    return this.clicks.map(({ hit, positive }, n) => {
      const [colour, text] = n || this.box ? (positive ? added : removed) : first;
      return { xyz: hit.xyz, colour, text };
    }).filter(({ xyz }) => xyz);
  }
}
