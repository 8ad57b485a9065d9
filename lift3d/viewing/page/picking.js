// What is drawn at a place of the cloud, by the numbers that are drawn with the colours.
// @ts-check
import { CAMERA } from "./shaders.js";

const REACH = 4; // CSS pixels around the mouse

export class Picking {
  /** @param {import("./cloud.js").Cloud} cloud */
  constructor(cloud) {
    this.cloud = cloud;
    this.copy = null; // numbers of the whole picture, once it is complete
    this.copied = null;
  }

  /** A target is drawn into. */
  forget(target) {
    if (target === this.copied) this.copy = this.copied = null;
  }

  /** Numbers of what is drawn in a rectangle of the canvas, in CSS pixels: [kind, number] or 0. */
  numbersIn(x, y, width, height) {
    const { canvas, front } = this.cloud;
    if (!front) return { width: 0, height: 0, data: new Uint8Array(0), scale: 1, left: 0, top: 0 };
    const scale = front.width / canvas.clientWidth;
    const left = Math.max(0, Math.floor(x * scale));
    const top = Math.max(0, Math.floor(y * scale));
    const w = Math.max(0, Math.min(front.width - left, Math.max(1, Math.ceil(width * scale))));
    const h = Math.max(0, Math.min(front.height - top, Math.max(1, Math.ceil(height * scale))));
    const bottom = front.height - top - h;
    return { width: w, height: h, data: this.read(front, left, bottom, w, h), scale, left, top };
  }

  read(front, left, bottom, width, height) {
    if (!this.complete(front)) return this.drawn(front, left, bottom, width, height);
    this.copyOf(front);
    const data = new Uint8Array(4 * width * height);
    for (let row = 0; row < height; row++) {
      const at = 4 * ((bottom + row) * front.width + left);
      data.set(this.copy.subarray(at, at + 4 * width), 4 * row * width);
    }
    return data;
  }

  /** Reading waits for everything that is being drawn: once for the whole picture, not each time. */
  copyOf(front) {
    if (this.copied === front) return;
    this.copy = this.drawn(front, 0, 0, front.width, front.height);
    this.copied = front;
  }

  complete(front) {
    const { cloud } = this;
    return front === cloud.targets.still && !cloud.moving && cloud.drawn >= cloud.count;
  }

  drawn(front, left, bottom, width, height) {
    const { gl } = this.cloud;
    const data = new Uint8Array(4 * width * height);
    if (!data.length) return data;
    gl.bindFramebuffer(gl.FRAMEBUFFER, front.frame);
    gl.readBuffer(gl.COLOR_ATTACHMENT1);
    gl.readPixels(left, bottom, width, height, gl.RGBA, gl.UNSIGNED_BYTE, data);
    gl.readBuffer(gl.COLOR_ATTACHMENT0);
    return data;
  }

  /** The point or camera nearest to a place of the canvas. */
  at(x, y) {
    const { cloud } = this;
    const found = this.numbersIn(x - REACH, y - REACH, 2 * REACH + 1, 2 * REACH + 1);
    let best = null;
    let nearest = Infinity;
    for (let row = 0; row < found.height; row++)
      for (let column = 0; column < found.width; column++) {
        const at = 4 * (row * found.width + column);
        const kind = found.data[at + 3];
        if (!kind) continue;
        const px = (found.left + column + 0.5) / found.scale;
        const py = (found.top + found.height - row - 0.5) / found.scale;
        const far = Math.hypot(px - x, py - y) + (kind === CAMERA ? 1 : 0);
        if (far < nearest) {
          nearest = far;
          const number = found.data[at] | (found.data[at + 1] << 8) | (found.data[at + 2] << 16);
          best = { kind, number };
        }
      }
    if (!best) return null;
    if (best.kind === CAMERA) return { camera: best.number };
    const point = best.number;
    return { point, id: cloud.labels[point], xyz: cloud.position(point) };
  }
}
