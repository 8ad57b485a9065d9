// What the page knows, and what is selected, hidden and hovered. Those who show it listen.
// @ts-check
import { HIDDEN, HOVERED, SELECTED } from "./shaders.js";

export class Store extends EventTarget {
  /** @param {any} info what /api/run says */
  constructor(info) {
    super();
    this.info = info;
    this.revision = 0;
    this.state = { objects: [], edits: [], undone: [], doubts: 0, queue: [], noQueue: "", agreement: null };
    /** @type {Map<number, any>} */ this.objects = new Map();
    /** @type {Set<number>} */ this.selected = new Set();
    /** @type {Set<number>} */ this.hidden = new Set();
    this.hovered = 0;
    this.left = 0;
    this.people = 1;
    this.online = true;
    this.view = 0;
    this.busy = "";
    this.through = false;
    this.adding = false; // a tap adds to the selection: there is no Shift on a phone
    /** Colours of parts that are only proposed, by their temporary id. */
    this.preview = new Map();
    /** @type {Uint8Array | null} */ this.table = null;
  }

  /** @param {string} what `state`, `selection`, `hover`, `hidden`, `view`, `bar` */
  tell(what) {
    this.dispatchEvent(new Event(what));
  }

  /** @param {string[]} whats @param {() => void} heard */
  on(whats, heard) {
    for (const what of whats) this.addEventListener(what, heard);
  }

  /** Take over what the server says. */
  update(state) {
    this.state = state;
    this.objects = new Map(state.objects.map((each) => [each.id, each]));
    for (const each of [...this.selected]) if (!this.objects.has(each)) this.selected.delete(each);
    for (const each of [...this.hidden]) if (!this.objects.has(each)) this.hidden.delete(each);
    this.tell("state");
    this.tell("selection");
  }

  /** @param {number[]} ids @param {"only" | "add" | "take"} how */
  select(ids, how = "only") {
    if (how === "only") this.selected.clear();
    for (const id of ids) {
      if (!this.objects.has(id)) continue;
      if (how === "take") this.selected.delete(id);
      else this.selected.add(id);
    }
    this.tell("selection");
  }

  hover(id) {
    if (this.hovered === id) return;
    this.left = this.hovered; // what the mouse was over before
    this.hovered = id;
    this.tell("hover");
  }

  hide(ids) {
    for (const id of ids) {
      this.hidden.add(id);
      this.selected.delete(id);
    }
    this.tell("hidden");
    this.tell("selection");
  }

  /** Show only these. */
  isolate(ids) {
    const kept = new Set(ids);
    this.hidden = new Set([...this.objects.keys()].filter((each) => !kept.has(each)));
    this.tell("hidden");
  }

  show(ids = [...this.hidden]) {
    for (const id of ids) this.hidden.delete(id);
    this.tell("hidden");
  }

  /** Ids that no tool may change. */
  get untouchable() {
    const locked = this.state.objects.filter((each) => each.locked).map((each) => each.id);
    return new Set([...locked, ...this.hidden]);
  }

  /** `14 · chair · 5,652 points · confidence 0.95`; what has no name is "object 14". */
  describe(id) {
    if (!id) return "unlabelled";
    const found = this.objects.get(id);
    if (!found) return `object ${id}`;
    const parts = [String(id)];
    if (found.name) parts.push(found.name);
    if (found.class) parts.push(found.class);
    if (!found.name && !found.class && found.guesses.length) parts.push(`${found.guesses[0][0]}?`);
    parts.push(`${found.points.toLocaleString("en")} points`, `confidence ${found.confidence.toFixed(2)}`);
    return parts.join(" · ");
  }

  title(id) {
    const found = this.objects.get(id);
    return found?.name || found?.class || `object ${id}`;
  }

  colour(id) {
    return this.preview.get(id) ?? this.objects.get(id)?.colour ?? [128, 128, 128];
  }

  /** The table of colours and flags that the cloud and the pictures use. */
  palette() {
    let largest = 65_535;
    for (const id of this.objects.keys()) largest = Math.max(largest, id + 64);
    const side = 2 ** Math.ceil(Math.log2(Math.sqrt(largest + 1)));
    if (this.table?.length !== 4 * side * side) this.table = new Uint8Array(4 * side * side);
    const table = this.table.fill(0); // one for all: the mouse asks for many
    const set = (id, colour) => {
      let flags = 0;
      if (this.hidden.has(id)) flags |= HIDDEN;
      if (this.selected.has(id) || this.preview.has(id)) flags |= SELECTED;
      if (this.hovered === id) flags |= HOVERED;
      table.set([...colour, flags], 4 * id);
    };
    for (const each of this.objects.values()) set(each.id, each.colour);
    for (const [id, colour] of this.preview) set(id, colour);
    return table;
  }

  /** Ids for parts that are only proposed: above all others. */
  temporary(n) {
    let largest = 65_400;
    for (const id of this.objects.keys()) largest = Math.max(largest, id);
    return Array.from({ length: n }, (_, i) => largest + 1 + i);
  }
}

/** Colours for the parts of a split, easy to tell apart. */
export const PARTS = [
  [255, 99, 71], [64, 160, 255], [255, 200, 40], [60, 200, 120], [200, 110, 255],
  [255, 140, 190], [0, 210, 210], [170, 200, 60], [240, 240, 240], [140, 110, 80],
]; // prettier-ignore
