// What keys and buttons do.
// @ts-check
import { getBytes, post } from "./api.js";
import { ask, rename } from "./dialogs.js";
import { all, byId, element, pressed } from "./elements.js";
import { actionOf, known } from "./keys.js";

export const MODES = ["labels", "colour", "score"];

/** What keys and buttons do, by name. @param {any} app */
export function actionsOf(app) {
  const { store, cloud } = app;
  const ids = [...store.selected];
  const switched = (name, field) => () => {
    cloud[field] = !cloud[field];
    pressed(name, cloud[field]);
    cloud.restart();
  };
  return {
    labels: () => setMode(app, "labels"),
    colour: () => setMode(app, "colour"),
    score: () => setMode(app, "score"),
    walls: switched("walls", "cull"),
    cameras: switched("cameras", "showCameras"),
    unlabelled: switched("unlabelled", "showUnlabelled"),
    frame: () => (ids.length ? app.going.frame(ids) : app.actions.home()),
    home: () => {
      app.going.lookAtAll();
      app.moved();
    },
    all: () => store.select([...store.objects.keys()].filter((id) => !store.hidden.has(id))),
    escape: () => {
      if (app.toolName !== "select") return app.use("select");
      app.picture.mark = null;
      store.select([]);
    },
    hide: () => store.hide(ids),
    isolate: () => ids.length && store.isolate(ids),
    show: () => store.show(),
    search: () => {
      app.showTab("list");
      byId("search").focus();
    },
    help: () => byId("help").showModal(),
    previous: () => app.strip.step(-1, false),
    next: () => app.strip.step(1, false),
    merge: () => merge(app, ids),
    split: () => app.use("split"),
    separate: () => {
      app.use("split");
      app.tool.separate();
    },
    click: () => app.use("click"),
    brush: () => app.use("brush"),
    lasso: () => app.use("lasso"),
    through: () => {
      store.through = !store.through;
      const button = pressed("through", store.through);
      button.textContent = `lasso: ${store.through ? "through" : "surface"}`;
      app.later();
    },
    adding: () => {
      store.adding = !store.adding;
      pressed("adding", store.adding);
    },
    rename: () => ids.length && rename(app, ids),
    delete: () => ids.length && app.act("delete", { ids, to: "unlabelled" }),
    dissolve: () => ids.length && app.act("delete", { ids, to: "neighbours" }),
    accept: () => ids.length && app.act("accept", { ids }),
    doubt: () => app.queue.next(),
    leave: () => app.queue.leave(),
    undo: () => app.act("undo"),
    redo: () => app.act("redo"),
    save: () => save(app),
  };
}

async function setMode(app, name) {
  app.cloud.mode = MODES.indexOf(name);
  for (const each of MODES) pressed(each, each === name);
  if (name === "score" && app.scoresOf !== app.store.revision) {
    app.scoresOf = app.store.revision;
    for (let k = 0; k < app.info.cloud.chunks; k++) {
      const { buffer } = await getBytes(`/cloud/${k}/scores`);
      app.cloud.setScores(k, new Uint8Array(buffer));
    }
  }
  app.cloud.wake();
}

async function merge(app, ids) {
  if (ids.length < 2) return app.say("select two or more objects to merge");
  const names = new Set(ids.map((id) => app.store.objects.get(id).name).filter(Boolean));
  const more = { ids };
  if (names.size > 1) {
    const choices = [...names];
    const chosen = await ask("Both have names. Which is kept?", ["Cancel", ...choices]);
    if (!chosen) return;
    const kept = choices[chosen - 1];
    more.into = ids.find((id) => app.store.objects.get(id).name === kept);
  }
  if (await app.act("merge", more)) {
    const [left] = ids.filter((id) => app.store.objects.has(id));
    if (left) app.store.select([left]);
  }
}

async function save(app) {
  const saved = await app.working("writing cloud, label maps and scores", () => post("/api/save", {}));
  if (!saved) return;
  await app.catchUp();
  app.say(saved.text);
}

/** What a click on each button does. @param {any} app */
export function buttons(app) {
  for (const each of all("[data-do]"))
    each.addEventListener("click", () => app.actions[each.dataset.do]());
  for (const each of all("[data-tool]"))
    each.addEventListener("click", () => app.use(each.dataset.tool));
  for (const each of all("nav [data-tab]"))
    each.addEventListener("click", () => app.showTab(each.dataset.tab));
  for (const each of all("[data-mode]"))
    each.addEventListener("click", () => {
      for (const one of all("[data-mode]"))
        one.setAttribute("aria-pressed", String(one === each));
      app.picture.setMode(each.dataset.mode);
    });
  byId("naming-yes").addEventListener("click", () => app.named());
  byId("naming-no").addEventListener("click", () => byId("naming").close());
  byId("naming").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.tagName === "INPUT") app.named();
  });
  byId("help-close").addEventListener("click", () => byId("help").close());
  byId("keys").replaceChildren(
    ...known(app.info.readOnly).map(([keys, what]) => {
      const row = element("div");
      row.append(element("kbd", keys), element("span", what));
      return row;
    }),
  );
  addEventListener("keydown", (event) => onKey(app, event));
  addEventListener("keyup", (event) => {
    if (event.key !== " ") return;
    app.picture.bare = false;
    app.picture.later();
  });
}

/** @param {any} app @param {KeyboardEvent} event */
function onKey(app, event) {
  const { target } = event;
  if (document.querySelector("dialog[open]")) return;
  if (target.matches?.("input, select, textarea")) {
    if (event.key === "Escape") target.blur();
    return;
  }
  const onButton = target.matches?.("button, summary");
  if (app.toolName !== "select" && app.tool.key(event)) return event.preventDefault();
  if (event.key === " " && !onButton) {
    app.picture.bare = true;
    app.picture.later();
    return event.preventDefault();
  }
  if (event.key === "Enter" && !onButton) {
    event.preventDefault();
    if (app.toolName !== "select") return app.tool.enter(event);
    return app.queue.accept();
  }
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
    event.preventDefault();
    return app.strip.step(event.key === "ArrowLeft" ? -1 : 1, event.shiftKey);
  }
  const action = actionOf(event);
  if (!action || !known(app.info.readOnly).some(([, , name]) => name === action)) return;
  event.preventDefault();
  app.dismissed ||= action === "escape";
  app.actions[action]();
}
