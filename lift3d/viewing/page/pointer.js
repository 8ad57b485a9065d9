// Mouse and touch on the cloud and on the picture.
// @ts-check

import { thumbnails } from "./thumbnails.js";

const STILL = 4; // pixels that a click may move
const SETTLE = 160; // milliseconds without movement after which everything is drawn

/** @param {any} app */
export function onCloud(app) {
  const { cloud, orbit, store } = app;
  const { canvas } = cloud;
  const down = new Map(); // pointers that are pressed
  let start = null;
  let path = [];
  let pinch = 0;
  let settle = 0;
  let hover = null;
  let mouse = null; // where it was last; null outside
  let again = false; // what is under the mouse has to be found again

  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const moved = () => {
    cloud.moving = true;
    store.hover(0); // another thing may come under the mouse
    app.tip(null);
    thumbnails.hold(true);
    clearTimeout(settle);
    settle = setTimeout(() => {
      cloud.rest();
      again = true;
      thumbnails.hold(false);
    }, SETTLE);
    cloud.wake();
  };
  app.moved = moved;
  app.rested = () => {
    if (!again || cloud.moving || cloud.drawn < cloud.count) return;
    again = false;
    if (mouse && !down.size) point(mouse);
  };

  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("pointerdown", (event) => {
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, at(event));
    const own = event.button === 0 && down.size === 1 && app.tool.takesDrag(event);
    start = { at: at(event), button: event.button, far: false, own, shift: event.shiftKey };
    path = [at(event)];
    app.tip(null);
  });

  canvas.addEventListener("pointermove", (event) => {
    const here = at(event);
    const before = down.get(event.pointerId);
    if (!before) {
      if (event.pointerType === "mouse") point((mouse = here));
      return;
    }
    down.set(event.pointerId, here);
    if (event.pointerType === "mouse") mouse = here;
    if (down.size === 2) {
      start.far = true;
      const [a, b] = [...down.values()];
      const apart = Math.hypot(a[0] - b[0], a[1] - b[1]);
      if (pinch) orbit.zoom(pinch / apart, null);
      orbit.pan((here[0] - before[0]) / 2, (here[1] - before[1]) / 2, canvas.clientHeight);
      pinch = apart;
      return moved();
    }
    if (!start.far && Math.hypot(here[0] - start.at[0], here[1] - start.at[1]) < STILL) return;
    start.far = true;
    if (start.own) {
      path.push(here);
      app.tool.drag(path, false, event);
      return;
    }
    const dx = here[0] - before[0];
    const dy = here[1] - before[1];
    if (start.button === 2 || start.button === 1 || start.shift) orbit.pan(dx, dy, canvas.clientHeight);
    else orbit.turn(dx, dy);
    moved();
  });

  const up = (event) => {
    if (!down.delete(event.pointerId)) return;
    pinch = 0;
    if (!start || down.size) return;
    const { far, own, button } = start;
    if (own && far) app.tool.drag(path, true, event);
    else if (!far && event.type === "pointerup") {
      if (button === 2) app.tool.undoClick();
      else if (button === 0) click(at(event), event);
    }
    start = null;
  };
  canvas.addEventListener("pointerup", up);
  canvas.addEventListener("pointercancel", up);

  function click(here, event) {
    const [x, y] = here;
    const hit = cloud.pick(x, y);
    if (hit?.camera !== undefined) return app.picture.show(hit.camera);
    app.tool.cloudClick(hit ?? { id: 0 }, event);
    if (hit) app.going.showPlace(hit.point);
    app.later();
  }

  /** Name what is under the mouse; once a frame at most. */
  function point(here) {
    const waiting = hover !== null;
    hover = here;
    if (waiting) return;
    requestAnimationFrame(() => {
      const [x, y] = hover;
      hover = null;
      if (cloud.moving || down.size) return;
      const hit = cloud.pick(x, y);
      store.hover(hit?.id ?? 0);
      if (hit?.camera !== undefined) app.tip(x, y, `view ${store.info.views[hit.camera].name}`);
      else if (hit) app.tip(x, y, store.preview.has(hit.id) ? "proposed" : store.describe(hit.id));
      else app.tip(null);
    });
  }
  canvas.addEventListener("pointerleave", () => {
    mouse = null;
    store.hover(0);
    app.tip(null);
  });

  canvas.addEventListener("dblclick", (event) => {
    if (app.toolName !== "select") return; // two quick clicks are two clicks of the tool
    const hit = cloud.pick(...at(event));
    if (!hit?.xyz) return;
    orbit.aim(hit.xyz);
    moved();
  });

  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const hit = cloud.pick(...at(event));
      orbit.zoom(Math.exp(Math.max(-240, Math.min(240, event.deltaY)) * 0.0015), hit?.xyz ?? null);
      moved();
    },
    { passive: false },
  );
}

/** @param {any} app */
export function onPicture(app) {
  const { picture, store } = app;
  const { frame } = picture.parts;
  let last = null;
  let began = null;
  let cut = null; // the pixels where a line across an object, or a box, begins and ends
  const far = (event) => Math.hypot(event.clientX - began[0], event.clientY - began[1]) >= STILL;

  frame.addEventListener("pointermove", (event) => {
    const pixel = picture.pixel(event);
    if (cut && pixel && far(event)) app.tool.dragPicture?.(cut[0], (cut[1] = pixel), false);
    store.hover(picture.idAt(pixel));
    if (app.tool.hoverPicture) {
      app.tool.hoverPicture(pixel);
      if (last && pixel) {
        app.tool.paint(last, pixel, false, event);
        last = pixel;
      }
    }
    const box = document.getElementById("middle").getBoundingClientRect();
    const id = picture.idAt(pixel);
    const text = app.tool.beside ?? store.describe(id);
    if (pixel) app.tip(event.clientX - box.left, event.clientY - box.top, text);
    else app.tip(null);
  });
  frame.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.metaKey) app.tool.resize?.(event.deltaY < 0);
  });
  frame.addEventListener("pointerleave", () => {
    store.hover(0);
    app.tip(null);
    app.tool.hoverPicture?.(null);
  });
  frame.addEventListener("pointerdown", (event) => {
    began = [event.clientX, event.clientY];
    const pixel = picture.pixel(event);
    if (event.button !== 0 || event.shiftKey || !pixel) return;
    if (!app.tool.paint && !app.tool.dragPicture) return;
    frame.setPointerCapture(event.pointerId); // it may end outside
    if (app.tool.dragPicture) {
      cut = [pixel, null];
      return;
    }
    last = pixel;
    app.tool.paint(pixel, pixel, false, event);
  });
  frame.addEventListener("pointerup", async (event) => {
    const pixel = picture.pixel(event);
    if (last) {
      app.tool.paint(last, pixel ?? last, true, event);
      last = null;
      return;
    }
    const line = cut;
    cut = null;
    if (line?.[1]) return app.tool.dragPicture?.(...line, true); // not where Esc has left the tool
    if (!began || !pixel || far(event)) return;
    if (event.button === 2) return app.tool.undoClick();
    if (event.button !== 0) return;
    picture.mark = pixel;
    picture.later();
    const id = picture.idAt(pixel);
    if (app.toolName === "select") app.tool.pictureClick({ id }, event);
    const place = await app.quiet(() => picture.pointAt(pixel));
    if (app.toolName !== "select") app.tool.pictureClick({ id, pixel, ...(place ?? {}) }, event);
    if (place) app.going.turnTo(place.xyz);
    app.later();
  });
}
