// What to look at, and what was done: the upper and the lower part of the left side.
// @ts-check
import { person } from "./api.js";
import { byId, element, icon } from "./elements.js";

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
      const { queue, noQueue } = this.store.state;
      const text = noQueue || (queue.length ? "done; the others were left" : "nothing that looks wrong");
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
    this.app.going.lookAt(each);
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
      else if (each.altered) text.append(element("div", each.altered, { class: "altered" }));
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
