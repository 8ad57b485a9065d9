// The list of objects.
// @ts-check
import { all, byId, element, icon } from "./elements.js";
import { thumbnails } from "./thumbnails.js";

const rgb = ([r, g, b]) => `rgb(${r} ${g} ${b})`;

/** What an object without a name is likely called, by its pictures; empty where that is not known. */
const guessed = (each) => (each.name || each.class ? "" : each.guesses[0]?.[0] ?? "");

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
    this.store.on(["selection", "hidden"], () => this.mark());
    this.store.on(["hover"], () => {
      for (const id of [this.store.left, this.store.hovered])
        this.rows.get(id)?.classList.toggle("hovered", id === this.store.hovered);
    });
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
      !wanted || `${each.id} ${each.name} ${each.class} ${guessed(each)}`.toLowerCase().includes(wanted);
    const by = kinds[byId("sort").value];
    return this.store.state.objects.filter(fits).sort((a, b) => by(a, b) || a.id - b.id);
  }

  fill() {
    const shown = this.ordered();
    const scrolled = this.list.scrollTop;
    const focused = all("#objects li:focus")[0]?.dataset.id;
    this.rows.clear();
    this.list.replaceChildren(...shown.map((each) => this.row(each)));
    this.list.scrollTop = scrolled;
    if (focused) this.rows.get(Number(focused))?.focus();
    const count = this.store.objects.size;
    byId("object-count").textContent = shown.length === count ? count : `${shown.length} of ${count}`;
    if (!shown.length)
      this.list.append(
        element("li", count ? "no object fits the search" : "this run has no objects", { class: "none" }),
      );
    this.mark();
  }

  row(each) {
    const { store } = this;
    const row = element("li", "", { role: "option", tabindex: "-1", "data-id": each.id });
    const source = `/object/${each.id}/picture?r=${each.changed}`;
    const picture = this.pictures.get(source) ?? element("img", "", { alt: "", draggable: "false" });
    this.pictures.set(source, picture);
    if (!picture.src) thumbnails.show(picture, source);
    const cut = element("span", "", { class: "cut" });
    cut.append(picture);
    cut.style.borderBottomColor = rgb(each.colour);
    const text = element("div");
    text.style.minWidth = "0";
    const title = element("div", store.title(each.id), { class: "title" });
    if (each.name) title.append(element("span", String(each.id), { class: "tag" }));
    if (guessed(each))
      title.append(
        element("i", `${guessed(each)}?`, {
          class: "guess",
          title: `by the pictures: ${each.guesses.map(([word, fits]) => `${word} ${fits.toFixed(2)}`).join(", ")}; R names it`,
        }),
      );
    if (each.edited) title.append(element("span", "edited", { class: "tag" }));
    if (each.reviewed) title.append(element("span", "✓ right", { class: "tag" }));
    const low = each.confidence < 0.05 && !each.reviewed;
    const about = element("div", "", { class: "about" });
    const points = each.points;
    about.append(
      element("span", `${low ? "⚠ " : ""}${each.confidence.toFixed(2)}`, low ? { class: "warn" } : {}),
      each.class && each.name ? ` · ${each.class}` : "",
      ` · ${points < 10_000 ? points : `${Math.round(points / 1000)} k`} points`,
      each.views ? ` · ${each.views} views` : "",
    );
    about.title = `confidence ${each.confidence.toFixed(2)}, ${points.toLocaleString("en")} points, in ${each.views} views`;
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
    row.append(cut, text, buttons);
    row.addEventListener("click", (event) => this.click(each.id, event));
    row.addEventListener("dblclick", () => this.app.going.frame([each.id]));
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
    this.app.going.selectedHere(id);
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
