// The strip below the picture.
// @ts-check
import { byId, element } from "./elements.js";
import { thumbnails } from "./thumbnails.js";

const MOST = 60; // views that are listed

/** The strip of views: those that see the selection, the worst agreement first. */
export class Strip {
  /** @param {any} app */
  constructor(app) {
    this.app = app;
    this.store = app.store;
    this.views = [];
    this.buttons = new Map(); // by view, with their pictures
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
    byId("strip").replaceChildren(...this.views.slice(0, MOST).map((view) => this.button(view)));
    this.mark();
  }

  button(view) {
    if (!this.buttons.has(view)) this.buttons.set(view, this.made(view));
    return this.buttons.get(view);
  }

  made(view) {
    const { name, agreement } = this.store.info.views[view];
    const made = element("button", "", { "data-view": view });
    const picture = element("img", "", { alt: "", draggable: "false" });
    thumbnails.show(picture, `/view/${view}/image?small=1`);
    const percent = agreement === null ? "" : ` ${(100 * agreement).toFixed(1)} %`;
    const cut = element("span", "", { class: "cut" });
    cut.append(picture);
    made.append(cut, element("span", `${name}${percent}`));
    made.title = `view ${name}${percent && `, agreement${percent}`}`;
    made.addEventListener("click", () => this.app.picture.show(view));
    return made;
  }

  mark() {
    for (const each of byId("strip").children) {
      const view = Number(each.dataset.view);
      each.setAttribute("aria-pressed", String(view === this.store.view));
      each.classList.toggle("ready", this.app.ahead.ready.has(view));
    }
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
