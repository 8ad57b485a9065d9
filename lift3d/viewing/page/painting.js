// Two tools that draw: the brush in a picture, the lasso in the cloud.
// @ts-check
import { post } from "./api.js";
import { heldStroke } from "./edges.js";
import { add, dot, inside, packed, runsOf, stroke, unpackNormal, unpacked } from "./geometry.js";
import { Tool, inViews, line } from "./tool.js";

export class Brush extends Tool {
  start() {
    this.size = this.size ?? 6;
    this.erases = false;
    this.only = false; // this view only
    this.count = 0;
    this.shown = null; // views that show those points
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
  /** What is shown beside the mouse. */
  get beside() {
    return this.only ? "this view only" : "all views";
  }
  /** Pixels of one stroke so far; every change of the mouse adds a piece. */
  paint(from, to, done, event) {
    const { picture } = this.app;
    const { width, height } = picture.view;
    picture.painted ??= new Uint8Array(width * height);
    picture.paintColour = this.colour;
    const colours = event.altKey ? null : picture.colours;
    if (colours) heldStroke(picture.painted, colours, width, height, from, to, this.size);
    else stroke(picture.painted, width, height, from, to, this.size);
    const kept = this.store.untouchable;
    if (kept.size && picture.labels)
      for (let at = 0; at < picture.painted.length; at++)
        if (picture.painted[at] && kept.has(picture.labels[at])) picture.painted[at] = 0;
    picture.cursor = [...to, this.size];
    picture.later();
    if (done) this.show();
  }
  get body() {
    const runs = runsOf(this.app.picture.painted);
    return { view: this.store.view, runs, everywhere: !this.only };
  }
  async show() {
    const asked = (this.asked = {});
    this.count = 0;
    if (this.only) return this.app.clearPreview();
    const found = await this.app.working("looking what lies under it", () =>
      post("/api/preview", { do: "paint", ...this.body }),
    );
    if (!found || asked !== this.asked) return;
    this.count = found.parts[0].count;
    this.shown = found.shown;
    this.app.preview([unpacked(found.parts[0].points)], [this.colour]);
  }
  undoClick() {
    this.app.picture.painted = null;
    this.count = 0;
    this.app.clearPreview();
    this.app.picture.later();
  }
  resize(larger) {
    this.size = Math.min(200, Math.max(1, Math.round(this.size * (larger ? 1.4 : 0.7) + 0.1)));
    const { cursor } = this.app.picture;
    if (cursor) this.hoverPicture(cursor.slice(0, 2));
    this.app.later();
  }
  key(event) {
    if (event.key === "[" || event.key === "]") this.resize(event.key === "]");
    else if (event.key.toLowerCase() === "e") {
      this.erases = !this.erases;
      if (this.app.picture.painted) {
        this.app.picture.paintColour = this.colour;
        this.show();
      }
    } else if (event.key.toLowerCase() === "t") {
      this.only = !this.only;
      if (this.app.picture.painted) this.show();
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
    if (this.app.picture.painted && this.only)
      return `${what}: in this view only · T in all views · Enter keeps · right click: again · Esc leaves`;
    if (this.app.picture.painted)
      return `${what}: ${this.count.toLocaleString("en")} points of the cloud${inViews(this.shown) || " and all views that show them"} · Enter keeps · right click: again · Esc leaves`;
    return `the brush ${what} · E ${this.erases ? "paints" : "erases"} · [ ] size ${this.size} · stops at edges, Alt does not · T ${this.only ? "all views" : "this view only"} · Esc leaves`;
  }
}

export class Lasso extends Tool {
  start() {
    this.taken = new Set();
    this.line = null;
    this.shown = null; // views that show what is taken
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
    this.count();
  }
  /** How many views show what is taken: told before anything is kept. */
  async count() {
    const asked = (this.asked = {});
    this.shown = null;
    if (!this.taken.size) return;
    const found = await this.app.quiet(() => post("/api/preview", { do: "select", points: packed(this.taken) }));
    if (!found || asked !== this.asked) return;
    this.shown = found.shown;
    this.app.later();
  }
  undoClick() {
    this.taken.clear();
    this.asked = this.shown = null;
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
    return `${size.toLocaleString("en")} points${inViews(this.shown)} · Enter new object${into} · Delete unlabelled · Esc leaves`;
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

/** The largest depth drawn within a pixel of a place, from the numbers of the points drawn.
 * @param {any} cloud @param {number[]} box @param {Float32Array} m */
function depths(cloud, box, m) {
  const [left, top, right, bottom] = box;
  const seen = cloud.picking.numbersIn(left - 2, top - 2, right - left + 4, bottom - top + 4);
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
