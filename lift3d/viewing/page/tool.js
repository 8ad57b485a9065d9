// What all tools have in common. Each shows what it would do before it does it; Enter keeps, Esc
// leaves.
// @ts-check

export class Tool {
  /** @param {any} app */
  constructor(app) {
    this.app = app;
    this.store = app.store;
    this.cloud = app.cloud;
    this.cursor = "crosshair";
  }
  start() {}
  stop() {
    this.app.clearPreview();
  }
  cloudClick(hit, event) {}
  pictureClick(hit, event) {}
  undoClick() {}
  /** Whether the tool takes the drag instead of the camera. */
  takesDrag(event) {
    return false;
  }
  key(event) {
    return false;
  }
  async enter(event) {}
  get hint() {
    return "";
  }
  /** Places to mark in the cloud. @returns {{xyz: number[], colour: number[], text: string}[]} */
  get marks() {
    return [];
  }
}

/** ` in 31 views`: how many show the points; nothing while the server is still looking. */
export const inViews = (shown) => (shown ? ` in ${shown} view${shown > 1 ? "s" : ""}` : "");

/** A line in the cloud: a cut, a lasso. */
export function line(pen, points, closed) {
  for (const [width, colour] of [[3, "#000"], [1.5, "#fff"]]) {
    pen.lineWidth = width;
    pen.strokeStyle = colour;
    pen.beginPath();
    points.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    if (closed) pen.closePath();
    pen.stroke();
  }
}
