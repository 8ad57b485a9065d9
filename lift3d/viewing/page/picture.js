// One view: its picture with the labels over it, linked with the cloud both ways.
// @ts-check
import { getBytes, getJson, getPicture } from "./api.js";
import { smoothed } from "./edges.js";
import { thumbnails } from "./thumbnails.js";

export class Picture {
  /**
   * @param {{frame: HTMLElement, sheet: HTMLElement, below: HTMLCanvasElement,
   *          over: HTMLCanvasElement, name: HTMLElement, trouble: HTMLElement}} parts
   * @param {import("./store.js").Store} store
   */
  constructor(parts, store) {
    this.parts = parts;
    this.store = store;
    this.mode = "labels";
    this.bare = false; // Space is held
    this.mark = null; // [x, y] of the place that was clicked
    this.painted = null; // mask of the brush
    this.paintColour = [255, 255, 255];
    this.cursor = null; // [x, y, radius] of the brush
    this.line = null; // [[x, y], ...] of a cut or a box
    this.places = null; // the point of each pixel plus 1, 0 none: to show what is proposed
    this.placesOf = -1; // the view whose points these are
    this.cloudLabels = () => new Uint32Array(0); // of the points, with what is proposed
    this.labels = null;
    this.present = new Set(); // ids in the labels
    this.smooth = null; // colours without noise, for the brush
    this.revision = -1;
    this.zoomed = { scale: 1, x: 0, y: 0 };
    this.listen();
    store.on(["selection", "hidden"], () => this.later());
    store.on(["hover"], () => (this.shows(store.left) || this.shows(store.hovered)) && this.later());
    store.on(["state"], () => this.refresh());
  }

  /** Whether the view has pixels of an object. */
  shows(id) {
    return id > 0 && this.present.has(id);
  }

  get view() {
    return this.store.info.views[this.store.view];
  }

  /** Show a view, with a place marked. */
  async show(number, mark = null) {
    const { store, parts } = this;
    if (!store.info.views.length) return;
    const other = store.view !== number || !this.labels;
    this.mark = mark;
    store.view = number;
    parts.name.textContent = parts.name.title = `view ${this.view.name}`;
    if (other) {
      this.painted = null;
      this.line = null;
      this.labels = null;
      this.reset();
      for (const each of [parts.below, parts.over]) {
        each.width = this.view.width;
        each.height = this.view.height;
      }
      parts.sheet.style.aspectRatio = `${this.view.width} / ${this.view.height}`;
      store.tell("view");
      await Promise.all([this.load(number), this.refresh(), this.fetchPlaces()]);
    }
    this.later();
  }

  /** The picture itself, or the heat map. */
  async load(number) {
    const { parts } = this;
    const pen = parts.below.getContext("2d");
    const what = this.mode === "heat" ? "heat" : "image";
    try {
      const bitmap = await thumbnails.after(getPicture(`/view/${number}/${what}`));
      if (number !== this.store.view) return;
      parts.trouble.hidden = true;
      pen.imageSmoothingEnabled = true;
      pen.drawImage(bitmap, 0, 0, parts.below.width, parts.below.height);
      this.smooth = null;
    } catch (error) {
      if (number !== this.store.view) return;
      pen.fillStyle = "#777";
      pen.fillRect(0, 0, parts.below.width, parts.below.height);
      parts.trouble.textContent = error.message;
      parts.trouble.hidden = false;
    }
  }

  /** The labels of the view that is shown, at the present revision. */
  async refresh() {
    const { store } = this;
    const number = store.view;
    if (!store.info.views.length) return;
    try {
      const { buffer, header } = await thumbnails.after(getBytes(`/view/${number}/labels`));
      if (number !== store.view) return;
      this.labels = new Uint32Array(buffer);
      this.present = idsIn(this.labels);
      this.revision = header("X-Revision");
    } catch (error) {
      if (number !== store.view) return;
      this.labels = new Uint32Array(this.view.width * this.view.height);
      this.parts.trouble.textContent = error.message;
      this.parts.trouble.hidden = false;
    }
    this.later();
  }

  /** Points that are only proposed have ids of their own in the cloud: show them here too. */
  async fetchPlaces() {
    const number = this.store.view;
    if (!this.store.preview.size) return;
    if (this.placesOf === number) return this.later();
    const { view } = this;
    try {
      const { buffer } = await thumbnails.after(getBytes(`/view/${number}/points`));
      if (number !== this.store.view) return;
      this.places = new Uint32Array(buffer);
      this.placesOf = this.places.length === view.width * view.height ? number : -1;
    } catch {
      return; // the cloud shows it in any case
    }
    this.later();
  }

  /** The labels with what is proposed over them. */
  get shownLabels() {
    const { labels, places, store } = this;
    if (!store.preview.size || this.placesOf !== store.view) return labels;
    const ids = this.cloudLabels();
    const found = labels.slice();
    for (let at = 0; at < found.length; at++) {
      const id = places[at] && ids[places[at] - 1];
      if (id && store.preview.has(id)) found[at] = id;
    }
    return found;
  }

  /** Colours without noise, three bytes a pixel; null where a heat map is shown. */
  get colours() {
    if (this.mode === "heat") return null;
    const { width, height } = this.parts.below;
    const pen = this.parts.below.getContext("2d");
    this.smooth ??= smoothed(pen.getImageData(0, 0, width, height));
    return this.smooth;
  }

  setMode(mode) {
    const reload = (mode === "heat") !== (this.mode === "heat");
    this.mode = mode;
    if (reload) this.load(this.store.view);
    this.later();
  }

  later() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.draw();
    });
  }

  /** Labels, outlines, the brush's paint and the mark. */
  draw() {
    const { over } = this.parts;
    const pen = over.getContext("2d");
    const { width, height } = over;
    pen.clearRect(0, 0, width, height);
    if (this.labels && this.labels.length === width * height && !this.bare)
      pen.putImageData(this.overlay(width, height), 0, 0);
    if (this.mark) ring(pen, this.mark, Math.max(4, width / 50), "#fff", "#000");
    if (this.cursor) ring(pen, this.cursor, this.cursor[2], "#fff", "#000");
    if (this.line) dashed(pen, this.line);
  }

  overlay(width, height) {
    const { store } = this;
    const labels = this.shownLabels;
    const image = new ImageData(width, height);
    const out = new Uint32Array(image.data.buffer);
    const colours = new Map();
    const some = store.selected.size > 0;
    const solid = this.mode === "labels" ? 110 : 0;
    const abgr = (rgb, a) => ((a << 24) | (rgb[2] << 16) | (rgb[1] << 8) | rgb[0]) >>> 0;
    const rim = new Map();
    for (const id of [...store.objects.keys(), 0]) {
      const marked = store.selected.has(id) || (id && store.hovered === id);
      let alpha = id && !store.hidden.has(id) ? solid : 0;
      if (solid && some && !store.selected.has(id)) alpha *= 0.45;
      if (marked) alpha = Math.max(alpha, 120);
      colours.set(id, abgr(store.colour(id), Math.round(alpha)));
      if (marked) rim.set(id, abgr([255, 255, 255], 255));
    }
    for (const [id, colour] of store.preview) {
      colours.set(id, abgr(colour, 170));
      rim.set(id, abgr([255, 255, 255], 255));
    }
    const painted = this.painted;
    const paint = abgr(this.paintColour, 190);
    let last, usual, edge;
    for (let at = 0; at < labels.length; at++) {
      const id = labels[at];
      if (id !== last) {
        last = id;
        usual = colours.get(id) ?? 0;
        edge = rim.get(id);
      }
      let colour = usual;
      if (edge !== undefined) {
        const column = at % width;
        if (
          (column > 0 && labels[at - 1] !== id) ||
          (column < width - 1 && labels[at + 1] !== id) ||
          (at >= width && labels[at - width] !== id) ||
          (at + width < labels.length && labels[at + width] !== id)
        )
          colour = edge;
      }
      out[at] = painted?.[at] ? paint : colour;
    }
    return image;
  }

  /** Pixel of the picture under the mouse, or null outside. */
  pixel(event) {
    const box = this.parts.over.getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left) / box.width) * this.parts.over.width);
    const y = Math.floor(((event.clientY - box.top) / box.height) * this.parts.over.height);
    const within = x >= 0 && y >= 0 && x < this.parts.over.width && y < this.parts.over.height;
    return within ? [x, y] : null;
  }

  idAt(pixel) {
    return pixel && this.labels ? this.labels[pixel[1] * this.parts.over.width + pixel[0]] : 0;
  }

  /** The point in front at a pixel: {point, xyz, id}, or null. */
  async pointAt(pixel) {
    const [x, y] = pixel;
    const found = await getJson(`/api/at?view=${this.store.view}&x=${x}&y=${y}`);
    return found.xyz ? found : null;
  }

  listen() {
    const { frame } = this.parts;
    frame.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        if (event.ctrlKey || event.metaKey) return; // the size of the brush
        const box = frame.getBoundingClientRect();
        this.zoom(Math.exp(-event.deltaY * 0.002), event.clientX - box.left, event.clientY - box.top);
      },
      { passive: false },
    );
    let last = null;
    frame.addEventListener("pointerdown", (event) => {
      if (event.button === 2 || event.shiftKey) last = [event.clientX, event.clientY];
    });
    addEventListener("pointermove", (event) => {
      if (!last) return;
      this.zoomed.x += event.clientX - last[0];
      this.zoomed.y += event.clientY - last[1];
      last = [event.clientX, event.clientY];
      this.place();
    });
    addEventListener("pointerup", () => (last = null));
    frame.addEventListener("contextmenu", (event) => event.preventDefault());
    frame.addEventListener("dblclick", () => this.reset());
  }

  /** Scale about a place of the frame. */
  zoom(factor, x, y) {
    const now = this.zoomed;
    const scale = Math.min(16, Math.max(1, now.scale * factor));
    const share = scale / now.scale;
    this.zoomed = { scale, x: x - share * (x - now.x), y: y - share * (y - now.y) };
    this.place();
  }

  reset() {
    this.zoomed = { scale: 1, x: 0, y: 0 };
    this.place();
  }

  place() {
    const { scale } = this.zoomed;
    const { sheet } = this.parts;
    if (scale === 1) this.zoomed.x = this.zoomed.y = 0;
    sheet.style.transform = `translate(${this.zoomed.x}px, ${this.zoomed.y}px) scale(${scale})`;
  }
}

/** The ids in a label map. @param {Uint32Array} labels */
function idsIn(labels) {
  const found = new Set();
  let last = -1;
  for (const id of labels) {
    if (id !== last) found.add((last = id));
  }
  return found;
}

function dashed(pen, points) {
  for (const [colour, dash] of [["#000", []], ["#fff", [5, 4]]]) {
    pen.setLineDash(dash);
    pen.lineWidth = 1.5;
    pen.strokeStyle = colour;
    pen.beginPath();
    for (const [x, y] of points) pen.lineTo(x + 0.5, y + 0.5);
    pen.stroke();
  }
  pen.setLineDash([]);
}

function ring(pen, at, radius, inner, outer) {
  const [x, y] = at;
  for (const [width, colour] of [[3, outer], [1.2, inner]]) {
    pen.lineWidth = width;
    pen.strokeStyle = colour;
    pen.beginPath();
    pen.arc(x + 0.5, y + 0.5, radius, 0, 2 * Math.PI);
    pen.stroke();
  }
}
