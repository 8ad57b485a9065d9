// Which views are ready for clicks: where a segmenter answers them, it encodes a picture first.
// @ts-check
import { post } from "./api.js";
import { byId } from "./elements.js";

const PAUSE = 200; // milliseconds on one view before it is asked for: arrow keys pass many

export class Ahead {
  /** @param {any} app */
  constructor(app) {
    this.app = app;
    this.store = app.store;
    this.ready = new Set();
    this.now = null; // the view that is being encoded
    this.seconds = null; // what one takes, once that is known
    this.changes = -1;
    this.timer = 0;
    if (!this.wanted) return;
    this.store.on(["view"], () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.look(), PAUSE);
      this.show();
    });
  }

  get wanted() {
    return this.store.info.clicks && !this.store.info.readOnly;
  }

  async look() {
    const told = await this.app.quiet(() => post("/api/look", { view: this.store.view }));
    if (told) this.take(told);
  }

  /** What the server says of it; an answer may come after a later event. */
  take({ ready, now, seconds, changes }) {
    if (!ready || changes < this.changes) return;
    this.changes = changes;
    Object.assign(this, { ready: new Set(ready), now, seconds });
    this.show();
    this.app.strip.mark();
    this.app.later();
  }

  get about() {
    return this.seconds === null ? "" : `, about ${Math.max(1, Math.round(this.seconds))} s`;
  }

  /** What a click in the picture waits for; empty where nothing. */
  get waits() {
    if (!this.wanted || this.ready.has(this.store.view)) return "";
    return `first look at this picture${this.about}`;
  }

  show() {
    const mark = byId("view-clicks");
    const here = this.ready.has(this.store.view);
    mark.hidden = !this.wanted;
    mark.textContent = here ? "● clicks ready" : this.now === this.store.view ? "◌ preparing clicks" : "○";
    mark.title = here ? "A click in this picture is answered at once" : `A click waits for the ${this.waits}`;
  }
}
