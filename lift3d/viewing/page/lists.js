// The left side: what to look at, the objects, the history.
// @ts-check
import { person } from "./api.js";
import { thumbnails } from "./thumbnails.js";

const byId = (id) => /** @type {any} */ (document.getElementById(id));

/** An element with text; names of objects come from people and are never taken for HTML. */
export function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** One of the icons of icons.svg, in the colour of the text around it. */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const made = document.createElementNS(space, "svg");
  made.setAttribute("class", "icon");
  made.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", `/app/icons.svg#${name}`);
  made.append(use);
  return made;
}

const rgb = ([r, g, b]) => `rgb(${r} ${g} ${b})`;

export class Objects {
  /** @param {any} app */
  constructor(app) {
    this.app = app;
    this.store = app.store;
    this.list = byId("objects");
    this.rows = new Map();
    this.pictures = new Map();
    this.anchor = 0;
    byId("sort").addEventListener("change", () => this.fill());
    byId("search").addEventListener("input", () => this.fill());
    byId("search").addEventListener("keydown", (event) => {
      if (event.key === "Escape" || event.key === "Enter") this.list.querySelector("li")?.focus();
    });
    this.store.on(["state"], () => this.fill());
    this.store.on(["selection", "hidden", "hover"], () => this.mark());
    this.list.addEventListener("keydown", (event) => this.key(event));
  }

  /** How much is wrong with an object, as far as one number can say. */
  static doubt(each) {
    return each.reviewed ? 2 : each.confidence;
  }

  ordered() {
    const kinds = {
      doubt: (a, b) => Objects.doubt(a) - Objects.doubt(b) || b.points - a.points,
      size: (a, b) => b.points - a.points,
      name: (a, b) => (a.name || a.class || "\uffff").localeCompare(b.name || b.class || "\uffff"),
      id: (a, b) => a.id - b.id,
    };
    const wanted = byId("search").value.trim().toLowerCase();
    const fits = (each) =>
      !wanted || `${each.id} ${each.name} ${each.class}`.toLowerCase().includes(wanted);
    const by = kinds[byId("sort").value];
    return this.store.state.objects.filter(fits).sort((a, b) => by(a, b) || a.id - b.id);
  }

  fill() {
    const shown = this.ordered();
    const scrolled = this.list.scrollTop;
    const focused = document.activeElement?.closest?.("#objects li")?.dataset.id;
    this.rows.clear();
    this.list.replaceChildren(...shown.map((each) => this.row(each)));
    this.list.scrollTop = scrolled;
    if (focused) this.rows.get(Number(focused))?.focus();
    const all = this.store.objects.size;
    byId("object-count").textContent = shown.length === all ? all : `${shown.length} of ${all}`;
    if (!shown.length)
      this.list.append(
        element("li", all ? "no object fits the search" : "this run has no objects", { class: "none" }),
      );
    this.mark();
  }

  row(each) {
    const { store } = this;
    const row = element("li", "", { role: "option", tabindex: "-1", "data-id": each.id });
    const source = `/object/${each.id}/picture?r=${each.changed}`;
    const picture = this.pictures.get(source) ?? element("img", "", { class: "cut", alt: "", draggable: "false" });
    this.pictures.set(source, picture);
    if (!picture.src) thumbnails.show(picture, source);
    picture.style.borderBottomColor = rgb(each.colour);
    const text = element("div");
    text.style.minWidth = "0";
    const title = element("div", store.title(each.id), { class: "title" });
    if (each.name) title.append(element("span", String(each.id), { class: "tag" }));
    if (each.edited) title.append(element("span", "edited", { class: "tag" }));
    if (each.reviewed) title.append(element("span", "✓ right", { class: "tag" }));
    const low = each.confidence < 0.05 && !each.reviewed;
    const about = element("div", "", { class: "about" });
    about.append(
      `${each.points.toLocaleString("en")} points · `,
      element("span", `${low ? "⚠ " : ""}${each.confidence.toFixed(2)}`, low ? { class: "warn" } : {}),
    );
    if (each.class && each.name) about.append(` · ${each.class}`);
    text.append(title, about);
    const buttons = element("div", "", { class: "row-buttons" });
    const eye = element("button", "", { tabindex: "-1", "data-eye": "" });
    const lock = element("button", "", {
      tabindex: "-1",
      class: "edits",
      "aria-pressed": each.locked,
      "aria-label": each.locked ? `unlock object ${each.id}` : `lock object ${each.id}`,
      title: each.locked ? "Unlock" : "Lock: no tool may change it",
    });
    lock.append(icon(each.locked ? "locked" : "unlocked"));
    eye.addEventListener("click", (event) => {
      event.stopPropagation();
      store.hidden.has(each.id) ? store.show([each.id]) : store.hide([each.id]);
    });
    lock.addEventListener("click", (event) => {
      event.stopPropagation();
      this.app.act(each.locked ? "unlock" : "lock", { ids: [each.id] });
    });
    buttons.append(eye, lock);
    row.append(picture, text, buttons);
    row.addEventListener("click", (event) => this.click(each.id, event));
    row.addEventListener("dblclick", () => this.app.frame([each.id]));
    row.addEventListener("pointerenter", () => store.hover(each.id));
    row.addEventListener("pointerleave", () => store.hover(0));
    this.rows.set(each.id, row);
    return row;
  }

  click(id, event) {
    const { store } = this;
    if (event.shiftKey && this.anchor) {
      const ids = [...this.rows.keys()];
      const ends = [ids.indexOf(this.anchor), ids.indexOf(id)].sort((a, b) => a - b);
      store.select(ids.slice(ends[0], ends[1] + 1), "add");
    } else if (event.ctrlKey || event.metaKey || store.adding) store.select([id], store.selected.has(id) ? "take" : "add");
    else store.select([id]);
    this.anchor = id;
    this.app.selectedHere(id);
  }

  mark() {
    const { store } = this;
    let first = true;
    for (const [id, row] of this.rows) {
      const selected = store.selected.has(id);
      row.setAttribute("aria-selected", selected);
      row.classList.toggle("hovered", store.hovered === id);
      row.classList.toggle("hidden-object", store.hidden.has(id));
      const eye = row.querySelector("[data-eye]");
      const hidden = store.hidden.has(id);
      if (eye.ariaPressed !== String(hidden)) eye.replaceChildren(icon(hidden ? "hidden" : "eye"));
      eye.setAttribute("aria-pressed", hidden);
      eye.setAttribute("aria-label", hidden ? `show object ${id}` : `hide object ${id}`);
      eye.title = hidden ? "Show" : "Hide";
      row.tabIndex = first ? 0 : -1;
      first = false;
    }
  }

  /** Bring the row of an object into sight. */
  reveal(id) {
    this.rows.get(id)?.scrollIntoView({ block: "nearest" });
  }

  key(event) {
    const ids = [...this.rows.keys()];
    const row = event.target.closest("li");
    const at = ids.indexOf(Number(row?.dataset.id));
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      event.stopPropagation();
      this.rows.get(ids[Math.min(ids.length - 1, Math.max(0, at + step))])?.focus();
    } else if ((event.key === "Enter" || event.key === " ") && at >= 0 && event.target === row) {
      event.preventDefault();
      event.stopPropagation();
      this.click(ids[at], event);
    }
  }
}

const SIGNS = { several: "split", one: "merge", crumb: "delete", view: "eye", edit: "undo" };

const ACCEPT = { merge: "merge", split: "split", sweep: "sweep up" };

export class Queue {
  /** @param {any} app */
  constructor(app) {
    this.app = app;
    this.store = app.store;
    this.list = byId("queue");
    this.current = "";
    this.left = new Set(JSON.parse(sessionStorage.getItem("lift3d-left") ?? "[]"));
    this.store.on(["state"], () => this.fill());
  }

  get items() {
    return this.store.state.queue.filter((each) => !this.left.has(each.key));
  }

  fill() {
    const { items } = this;
    byId("queue-count").textContent = items.length;
    this.list.replaceChildren(...items.map((each) => this.row(each)));
    if (!items.length) {
      const text = this.store.state.queue.length ? "done; the others were left" : "nothing that looks wrong";
      this.list.append(element("li", text, { class: "none" }));
    }
  }

  row(each) {
    const row = element("li", "", { "data-key": each.key, tabindex: "0" });
    row.classList.toggle("current", each.key === this.current);
    const reason = element("span", "", { class: "reason" });
    const sign = element("b", "", { class: "warn" });
    sign.append(icon(SIGNS[each.kind] ?? "eye"));
    reason.append(sign, ` ${each.reason}`);
    const choices = element("span", "", { class: "choices" });
    if (each.proposal) {
      const yes = element("button", ACCEPT[each.proposal] ?? each.proposal, { title: "Accept the proposal (Enter)" });
      yes.addEventListener("click", (event) => {
        event.stopPropagation();
        this.accept(each);
      });
      choices.append(yes);
    }
    const no = element("button", "✕", { title: "Leave it as it is (Shift+N)", "aria-label": "leave" });
    no.addEventListener("click", (event) => {
      event.stopPropagation();
      this.leave(each);
    });
    choices.append(no);
    row.append(reason, choices);
    row.addEventListener("click", () => this.show(each));
    row.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && event.target === row) this.show(each);
    });
    return row;
  }

  show(each) {
    this.current = each.key;
    for (const row of this.list.children)
      row.classList.toggle("current", row.dataset.key === each.key);
    this.list.querySelector(".current")?.scrollIntoView({ block: "nearest" });
    this.app.lookAt(each);
    this.app.later();
  }

  next() {
    const { items } = this;
    if (!items.length) return;
    const at = items.findIndex((each) => each.key === this.current);
    this.show(items[(at + 1) % items.length]);
  }

  get shown() {
    return this.items.find((each) => each.key === this.current);
  }

  async accept(each = this.shown) {
    if (!each?.proposal) return;
    const at = this.items.indexOf(each);
    if (await this.app.act("accept_proposal", { key: each.key })) this.after(at);
  }

  leave(each = this.shown) {
    if (!each) return;
    const at = this.items.indexOf(each);
    this.left.add(each.key);
    sessionStorage.setItem("lift3d-left", JSON.stringify([...this.left]));
    this.fill();
    this.after(at);
  }

  /** Go on with what stands at the place of what is done. */
  after(at) {
    const { items } = this;
    this.current = "";
    if (items.length) this.show(items[Math.min(at, items.length - 1)]);
  }
}

export class History {
  /** @param {any} app */
  constructor(app) {
    this.app = app;
    this.store = app.store;
    this.store.on(["state"], () => this.fill());
  }

  fill() {
    const { edits } = this.store.state;
    byId("history-count").textContent = edits.length || "";
    const rows = [...edits].reverse().map((each) => {
      const row = element("li", "", { "data-n": each.n });
      const text = element("span", each.text);
      if (each.doubt) text.append(element("div", `in doubt: ${each.doubt}`, { class: "warn" }));
      text.append(element("div", ""), element("small", `${each.n} · ${each.who === person ? "you" : each.who} · ${time(each.at)}`));
      const undo = element("button", "", { title: "Undo this edit", "aria-label": `undo edit ${each.n}` });
      undo.append(icon("undo"));
      undo.addEventListener("click", () => this.app.act("undo", { n: each.n }));
      row.append(text, undo);
      return row;
    });
    if (!rows.length) rows.push(element("li", "no edits yet", { class: "none" }));
    byId("history").replaceChildren(...rows);
  }
}

function time(text) {
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? text : at.toLocaleString([], { dateStyle: "short", timeStyle: "short" });
}

/** The strip of views: those that see the selection, the worst agreement first. */
export class Strip {
  /** @param {any} app */
  constructor(app) {
    this.app = app;
    this.store = app.store;
    this.views = [];
    this.store.on(["selection"], () => this.later());
    this.store.on(["view"], () => this.mark());
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.load(), 120);
  }

  async load() {
    const { store } = this;
    const ids = [...store.selected];
    const worst = (view) => store.info.views[view].agreement ?? 2;
    if (ids.length) {
      const found = await this.app.quietly(`/api/views?ids=${ids.join(",")}`);
      if (!found || ids.join() !== [...store.selected].join()) return;
      this.views = found.views.map((each) => each.view);
      // The best first; after it the worst, since that is where something is to be seen.
      const [best, ...others] = this.views;
      others.sort((a, b) => worst(a) - worst(b));
      this.views = best === undefined ? [] : [best, ...others];
      byId("strip-title").textContent = found.ready
        ? `${this.views.length} views that see the selection`
        : "views that see the selection (still looking)";
      if (!found.ready) setTimeout(() => this.later(), 2000);
    } else {
      this.views = store.info.views.map((_, view) => view).sort((a, b) => worst(a) - worst(b) || a - b);
      byId("strip-title").textContent = "All views, the worst agreement first";
    }
    byId("strip").replaceChildren(...this.views.slice(0, 60).map((view) => this.button(view)));
    this.mark();
  }

  button(view) {
    const { name, agreement } = this.store.info.views[view];
    const made = element("button", "", { "data-view": view });
    const picture = element("img", "", { alt: "", draggable: "false" });
    thumbnails.show(picture, `/view/${view}/image?small=1`);
    const percent = agreement === null ? "" : ` ${(100 * agreement).toFixed(1)} %`;
    made.append(picture, element("span", `${name}${percent}`));
    made.addEventListener("click", () => this.app.picture.show(view));
    return made;
  }

  mark() {
    for (const each of byId("strip").children)
      each.setAttribute("aria-pressed", String(Number(each.dataset.view) === this.store.view));
    const at = this.views.indexOf(this.store.view);
    const all = this.store.info.views.length;
    byId("view-place").textContent = this.store.selected.size && at >= 0
      ? `${at + 1} of ${this.views.length}`
      : `${this.store.view + 1} of ${all}`;
  }

  /** The view a step further: of the selection, or in the order of the pictures. */
  step(by, ofSelection) {
    const { store } = this;
    const list = ofSelection && this.views.length ? this.views : store.info.views.map((_, i) => i);
    const at = list.indexOf(store.view);
    if (list.length) this.app.picture.show(list[(at + by + list.length) % list.length]);
  }
}
