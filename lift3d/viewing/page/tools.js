// The tools. Each shows what it would do before it does it; Enter keeps, Esc leaves.
// @ts-check
import { post } from "./api.js";
import { add, cross, dot, inside, packed, runsOf, stroke, unit, unpackNormal, unpacked } from "./geometry.js";
import { PARTS } from "./store.js";

class Tool {
  /** @param {any} app */
  constructor(app) {
    this.app = app;
    this.store = app.store;
    this.cloud = app.cloud;
    this.cursor = "crosshair";
  }
  start() {}
  stop() {
    this.app.clearPreview();
  }
  cloudClick(hit, event) {}
  pictureClick(hit, event) {}
  undoClick() {}
  /** Whether the tool takes the drag instead of the camera. */
  takesDrag(event) {
    return false;
  }
  key(event) {
    return false;
  }
  async enter(event) {}
  get hint() {
    return "";
  }
  /** Places to mark in the cloud. @returns {{xyz: number[], colour: number[], text: string}[]} */
  get marks() {
    return [];
  }
}

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
    if (doubt?.proposal && !this.store.info.readOnly && doubt.ids.every((id) => this.store.selected.has(id)))
      return `${doubt.reason} · Enter: ${doubt.proposal} · Shift+N leaves it · N next`;
    if (!n) return "";
    const [one] = this.store.selected;
    const points = [...this.store.selected].reduce((sum, id) => sum + this.store.objects.get(id).points, 0);
    if (n === 1) return this.store.describe(one);
    return this.store.info.readOnly
      ? `${n} objects, ${points.toLocaleString("en")} points`
      : `${n} objects, ${points.toLocaleString("en")} points · M merges into ${this.app.largest()} · Esc`;
  }
}

export class Split extends Tool {
  start() {
    this.clicks = [];
    this.plane = null;
    this.line = null;
    this.target = this.store.selected.size === 1 ? [...this.store.selected][0] : 0;
    this.group = 0; // part that the next click belongs to; 0 is a new one
    this.counts = [];
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
    if (!this.target) {
      this.target = hit.id;
      this.store.select([hit.id]);
    }
    if (hit.id !== this.target && !this.store.preview.has(hit.id))
      return this.app.say(`that is ${this.store.title(hit.id)}, not what is being split`);
    const used = Math.max(0, ...this.clicks.map((each) => each.group));
    this.clicks.push({ xyz: hit.xyz, group: this.group || used + 1 });
    this.plane = null;
    this.group = 0;
    return this.show();
  }
  undoClick() {
    if (this.line || this.plane) this.plane = this.line = null;
    else this.clicks.pop();
    this.show();
  }
  takesDrag(event) {
    return event.altKey;
  }
  drag(points, done) {
    this.line = [points[0], points[points.length - 1]];
    this.app.later();
    if (!done) return;
    const [a, b] = this.line.map(([x, y]) => this.app.rayAt(x, y));
    const eye = this.app.orbit.eye;
    const normal = unit(cross(a, b));
    this.plane = [...normal, -dot(normal, eye)];
    this.clicks = [];
    this.show();
  }
  get body() {
    const id = this.target;
    if (this.plane) return { do: "cut", id, plane: this.plane };
    if (this.apart) return { do: "separate", id };
    return {
      do: "split",
      id,
      clicks: this.clicks.map((each) => each.xyz),
      groups: this.clicks.map((each) => each.group),
    };
  }
  get enough() {
    const groups = new Set(this.clicks.map((each) => each.group));
    return this.target && (this.plane || this.apart || groups.size >= 2);
  }
  async show() {
    this.counts = [];
    if (!this.enough) {
      this.app.clearPreview();
      return this.app.later();
    }
    const asked = (this.asked = {});
    const found = await this.app.working("splitting", () => post("/api/preview", this.body));
    if (!found || asked !== this.asked) return;
    this.counts = found.parts.map((each) => each.count);
    this.app.preview(found.parts.map((each) => unpacked(each.points)), PARTS);
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
    super.stop();
  }
  key(event) {
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
    if (!this.target) return "click each thing in the glued object once";
    const title = this.store.title(this.target);
    if (this.counts.length)
      return `${title} into ${this.counts.map((n) => n.toLocaleString("en")).join(" + ")} points · Enter splits · right click takes a click back · Esc leaves`;
    if (this.group) return `the next click belongs to part ${this.group}`;
    const n = this.clicks.length;
    return `${title}: ${n ? `${n} click${n > 1 ? "s" : ""}, ` : ""}click each thing once · Alt+drag a straight cut · 1…9 another click for a part · Esc leaves`;
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
    this.seed = null;
    this.added = [];
    this.removed = [];
    this.level = null;
    this.found = null;
  }
  cloudClick(hit, event) {
    this.place(hit, event);
  }
  pictureClick(hit, event) {
    this.place(hit, event);
  }
  place(hit, event) {
    if (!hit.xyz) return this.app.say("there is no point of the cloud at that place");
    if (!this.seed) this.seed = hit;
    else if (event.altKey) this.removed.push(hit);
    else this.added.push(hit);
    this.level = null;
    return this.show();
  }
  undoClick() {
    if (!(this.removed.pop() ?? this.added.pop())) this.seed = null;
    this.level = null;
    this.show();
  }
  async show() {
    if (!this.seed) {
      this.found = null;
      return this.app.clearPreview();
    }
    const asked = (this.asked = {});
    const found = await this.app.working("looking for the object", () =>
      post("/api/propose", {
        point: this.seed.point,
        level: this.level,
        add: this.added.map((each) => each.point),
        remove: this.removed.map((each) => each.point),
      }),
    );
    if (!found || asked !== this.asked) return;
    this.found = found;
    this.level = found.level;
    this.app.preview([unpacked(found.points)], [[255, 190, 40]]);
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
    if (!this.found) return "click an object, in the cloud or in the picture";
    const { count, level, levels } = this.found;
    return `${count.toLocaleString("en")} points · Tab whole, Shift+Tab part (${level + 1} of ${levels}) · click adds, Alt+click takes away · Enter new object · Ctrl+Enter into the selected`;
  }
  get marks() {
    const of = (each, colour, text) => ({ xyz: each.xyz, colour, text });
    return [
      ...(this.seed ? [of(this.seed, [255, 255, 255], "")] : []),
      ...this.added.map((each) => of(each, [90, 220, 120], "+")),
      ...this.removed.map((each) => of(each, [255, 90, 80], "−")),
    ];
  }
}

export class Brush extends Tool {
  start() {
    this.size = this.size ?? 6;
    this.erases = false;
    this.count = 0;
    this.app.showTab("view");
  }
  stop() {
    const { picture } = this.app;
    picture.painted = null;
    picture.cursor = null;
    picture.later();
    this.asked = null;
    super.stop();
  }
  get into() {
    if (this.erases) return 0;
    return this.store.selected.size === 1 ? [...this.store.selected][0] : null;
  }
  get colour() {
    if (this.erases) return [30, 30, 30];
    return this.into === null ? [255, 190, 40] : this.store.colour(this.into);
  }
  hoverPicture(pixel) {
    const { picture } = this.app;
    picture.cursor = pixel && [...pixel, this.size];
    picture.later();
  }
  /** Pixels of one stroke so far; every change of the mouse adds a piece. */
  paint(from, to, done) {
    const { picture } = this.app;
    const { width, height } = picture.view;
    picture.painted ??= new Uint8Array(width * height);
    picture.paintColour = this.colour;
    stroke(picture.painted, width, height, from, to, this.size);
    const kept = this.store.untouchable;
    if (kept.size && picture.labels)
      for (let at = 0; at < picture.painted.length; at++)
        if (picture.painted[at] && kept.has(picture.labels[at])) picture.painted[at] = 0;
    picture.cursor = [...to, this.size];
    picture.later();
    if (done) this.show();
  }
  get body() {
    return { view: this.store.view, runs: runsOf(this.app.picture.painted) };
  }
  async show() {
    const asked = (this.asked = {});
    const found = await this.app.working("looking what lies under it", () =>
      post("/api/preview", { do: "paint", ...this.body }),
    );
    if (!found || asked !== this.asked) return;
    this.count = found.parts[0].count;
    this.app.preview([unpacked(found.parts[0].points)], [this.colour]);
  }
  undoClick() {
    this.app.picture.painted = null;
    this.count = 0;
    this.app.clearPreview();
    this.app.picture.later();
  }
  key(event) {
    if (event.key === "[" || event.key === "]") {
      this.size = Math.min(200, Math.max(1, Math.round(this.size * (event.key === "]" ? 1.4 : 0.7) + 0.1)));
      const { cursor } = this.app.picture;
      if (cursor) this.hoverPicture(cursor.slice(0, 2));
    } else if (event.key.toLowerCase() === "e") {
      this.erases = !this.erases;
      if (this.app.picture.painted) {
        this.app.picture.paintColour = this.colour;
        this.show();
      }
    } else return false;
    this.app.later();
    return true;
  }
  async enter() {
    if (!this.app.picture.painted?.includes(1)) return this.app.say("paint in the picture first");
    const kept = await this.app.act("paint", { ...this.body, id: this.into });
    if (kept) this.undoClick();
  }
  get hint() {
    const into = this.into;
    const what = this.erases ? "erases" : into === null ? "paints a new object" : `paints into ${this.store.title(into)}`;
    if (this.app.picture.painted)
      return `${what}: ${this.count.toLocaleString("en")} points of the cloud, and all views that show them · Enter keeps · right click: again · Esc leaves`;
    return `the brush ${what} · E ${this.erases ? "paints" : "erases"} · [ ] size ${this.size} · Esc leaves`;
  }
}

export class Lasso extends Tool {
  start() {
    this.taken = new Set();
    this.line = null;
  }
  takesDrag() {
    return true;
  }
  drag(points, done, event) {
    this.line = points;
    this.app.later();
    if (!done) return;
    this.line = null;
    const found = within(this.app, points);
    if (!event.shiftKey && !event.ctrlKey) this.taken.clear();
    for (const each of found)
      if (event.ctrlKey) this.taken.delete(each);
      else this.taken.add(each);
    this.app.preview([Uint32Array.from(this.taken)], [[255, 190, 40]]);
  }
  undoClick() {
    this.taken.clear();
    this.app.clearPreview();
  }
  async keep(id) {
    if (!this.taken.size) return this.app.say("draw around something first");
    const points = packed(this.taken);
    const touched = await this.app.act("select", { points, id, surface: !this.store.through });
    if (touched) this.app.use("select");
  }
  enter() {
    return this.keep(null);
  }
  key(event) {
    if (event.key.toLowerCase() === "m" && !event.ctrlKey) {
      if (this.store.selected.size !== 1) this.app.say("select the one object that gets the points");
      else this.keep([...this.store.selected][0]);
      return true;
    }
    if (event.key === "Delete" || event.key === "Backspace") {
      this.keep(0);
      return true;
    }
    return false;
  }
  get hint() {
    const what = this.store.through ? "through: everything behind it too" : "surface: only what is seen";
    const { size } = this.taken;
    if (!size) return `draw around something (${what}, T changes) · Shift adds, Ctrl takes away · Esc leaves`;
    const into = this.store.selected.size === 1 ? ` · M into ${this.store.title([...this.store.selected][0])}` : "";
    return `${size.toLocaleString("en")} points · Enter new object${into} · Delete unlabelled · Esc leaves`;
  }
  draw(pen) {
    if (this.line) line(pen, this.line, true);
  }
}

/** Points inside a line around them: those in front, or everything. @returns {number[]} */
export function within(app, polygon) {
  const { cloud, store, orbit } = app;
  const xs = polygon.map(([x]) => x);
  const ys = polygon.map(([, y]) => y);
  const box = [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
  const { clientWidth: width, clientHeight: height } = cloud.canvas;
  const m = orbit.clipFromWorld(width, height);
  const kept = store.untouchable;
  const drawn = store.through ? null : depths(cloud, box, m);
  const found = [];
  const { eye } = orbit;
  for (let place = 0; place < cloud.count; place++) {
    const p = cloud.position(place);
    const w = m[3] * p[0] + m[7] * p[1] + m[11] * p[2] + m[15];
    if (w <= 0) continue;
    const x = (0.5 + (0.5 * (m[0] * p[0] + m[4] * p[1] + m[8] * p[2] + m[12])) / w) * width;
    if (x < box[0] || x > box[2]) continue;
    const y = (0.5 - (0.5 * (m[1] * p[0] + m[5] * p[1] + m[9] * p[2] + m[13])) / w) * height;
    if (y < box[1] || y > box[3] || kept.has(cloud.labels[place]) || !inside(polygon, x, y)) continue;
    if (!cloud.showUnlabelled && !cloud.labels[place]) continue;
    if (drawn) {
      if (cloud.cull) {
        const normal = unpackNormal(cloud.normals[2 * place], cloud.normals[2 * place + 1]);
        if (normal && dot(normal, add(eye, p, -1)) < 0) continue;
      }
      // As deep as what is drawn near it, or a little behind: the same surface.
      if (w > drawn(x, y) + 3 * cloud.info.spacing + 0.01 * w) continue;
    }
    found.push(place);
  }
  return found;
}

/** The largest depth drawn within a pixel of a place, from the numbers of the points drawn. */
function depths(cloud, [left, top, right, bottom], m) {
  const seen = cloud.numbersIn(left - 2, top - 2, right - left + 4, bottom - top + 4);
  const depth = new Float32Array(seen.width * seen.height);
  for (let at = 0; at < depth.length; at++) {
    if (seen.data[4 * at + 3] !== 1) continue;
    const number = seen.data[4 * at] | (seen.data[4 * at + 1] << 8) | (seen.data[4 * at + 2] << 16);
    const p = cloud.position(number);
    depth[at] = m[3] * p[0] + m[7] * p[1] + m[11] * p[2] + m[15];
  }
  return (x, y) => {
    const column = Math.floor(x * seen.scale) - seen.left;
    const row = seen.height - 1 - (Math.floor(y * seen.scale) - seen.top);
    let most = 0;
    for (let r = Math.max(0, row - 1); r <= Math.min(seen.height - 1, row + 1); r++)
      for (let c = Math.max(0, column - 1); c <= Math.min(seen.width - 1, column + 1); c++)
        most = Math.max(most, depth[r * seen.width + c]);
    return most;
  };
}

function line(pen, points, closed) {
  for (const [width, colour] of [[3, "#000"], [1.5, "#fff"]]) {
    pen.lineWidth = width;
    pen.strokeStyle = colour;
    pen.beginPath();
    points.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    if (closed) pen.closePath();
    pen.stroke();
  }
}
