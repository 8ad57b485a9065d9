// Going somewhere: what the cloud and the picture turn to.
// @ts-check
import { post } from "./api.js";
import { add, project, unit, unpacked } from "./geometry.js";
import { PARTS } from "./store.js";

export class Going {
  /** @param {any} app */
  constructor(app) {
    this.app = app;
  }

  lookAtAll() {
    const { info, orbit } = this.app;
    const [low, high] = info.cloud.box;
    orbit.frame(low, high, true);
    orbit.lookAsViews(info.views);
  }

  /** Look at objects from the side from which the view sees them that shows them best. */
  async frame(ids, view = null) {
    const boxes = ids.map((id) => this.app.store.objects.get(id)).filter((each) => each?.low);
    if (!boxes.length) return view;
    const low = [0, 1, 2].map((axis) => Math.min(...boxes.map((each) => each.low[axis])));
    const high = [0, 1, 2].map((axis) => Math.max(...boxes.map((each) => each.high[axis])));
    if (view === null) {
      const found = await this.app.quietly(`/api/views?ids=${ids.join(",")}`);
      view = found?.views[0]?.view ?? null;
    }
    const { info, orbit } = this.app;
    orbit.frame(low, high);
    if (view !== null && info.views[view].pose) orbit.lookFrom(info.views[view].pose);
    this.app.moved();
    return view;
  }

  /** An object was chosen in the list: show it in the cloud and in its best view. */
  async selectedHere(id) {
    const view = await this.frame([id]);
    if (view !== null) this.app.picture.show(view);
  }

  /** Turn the cloud to a place, seen from the side of the shown view. */
  turnTo(xyz) {
    const { orbit, picture } = this.app;
    orbit.aim(xyz);
    if (picture.view.pose) orbit.lookFrom(picture.view.pose);
    this.app.moved();
  }

  /** The best view of a point, with the place marked. */
  async showPlace(point) {
    const found = await this.app.quietly(`/api/place?point=${point}`);
    if (!found?.length) return;
    const same = found.find((each) => each.view === this.app.store.view);
    const best = same && this.app.toolName === "brush" ? same : found[0];
    this.app.picture.show(best.view, [best.x, best.y]);
  }

  /** Something of the queue: its objects, its view. */
  async lookAt(each) {
    this.app.use("select");
    if (each.ids.length) {
      this.app.store.select(each.ids);
      this.app.objects.reveal(each.ids[0]);
    }
    const view = await this.frame(each.ids, each.view);
    if (view !== null) this.app.picture.show(view);
    if (each.proposal !== "split") return;
    const body = { do: "proposal", key: each.key };
    const found = await this.app.working("splitting", () => post("/api/preview", body));
    if (found && this.app.queue.current === each.key)
      this.app.preview(found.parts.map((part) => unpacked(part.points)), PARTS);
  }

  /** The direction in which the eye sees a place of the canvas. */
  rayAt(x, y) {
    const { clientWidth: width, clientHeight: height } = this.app.cloud.canvas;
    const { orbit } = this.app;
    const forward = add([0, 0, 0], orbit.outwards, -1);
    const middle = add(orbit.eye, forward);
    const m = orbit.clipFromWorld(width, height);
    // Two directions across, found by projecting a step to the right and one up.
    const step = (axis) => {
      const p = project(m, add(middle, axis, 0.1), width, height);
      return [p[0] - width / 2, p[1] - height / 2];
    };
    const right = unit([m[0], m[4], m[8]]);
    const top = unit([m[1], m[5], m[9]]);
    const a = step(right)[0];
    const b = step(top)[1];
    return unit(add(add(forward, right, (0.1 * (x - width / 2)) / a), top, (0.1 * (y - height / 2)) / b));
  }
}
