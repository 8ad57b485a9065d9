// The cloud: points in the memory of the graphics card, drawn with a budget, picked by number.
// @ts-check
import { project } from "./geometry.js";
import { program, texture } from "./gl.js";
import { Picking } from "./picking.js";
import * as S from "./shaders.js";

const MOVING = 33; // milliseconds that a frame may take while something moves
const RESTING = 60; // ... and a slice of the rest
const POINT_SIDE = 26; // pixels, at most, with the rim
const FEWEST = { moving: 20_000, still: 60_000 }; // fewer hardly take less time

export class Cloud {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {any} info `cloud` of /api/run
   * @param {import("./orbit.js").Orbit} orbit
   */
  constructor(canvas, info, orbit) {
    this.canvas = canvas;
    this.info = info;
    this.orbit = orbit;
    this.count = 0; // points that have arrived, all from the start
    this.mode = 0;
    this.cull = info.normals;
    this.showUnlabelled = true;
    this.showCameras = false;
    this.shownCamera = -1;
    this.marked = false;
    this.dimmed = false;
    this.moving = false;
    this.hides = false; // some objects are hidden
    this.drawn = -1;
    this.sampled = false;
    this.onDrawn = () => {};
    this.stats = { frames: 0, worst: 0, last: 0, points: 0 };
    // Milliseconds, measured while drawing: of a point, and of the picture made from what was drawn.
    this.perPoint = { moving: 5e-4, still: 5e-4 };
    this.composing = { moving: 8, still: 8 };
    this.composed = 0;
    this.dirty = null; // rectangle of the canvas to compose anew; null for all of it
    this.whole = null; // target of the last whole picture
    const gl = canvas.getContext("webgl2", { antialias: false, alpha: false, depth: false });
    if (!gl) throw new Error("this browser has no WebGL2; the list and the pictures still work");
    this.gl = gl;
    this.allocate();
    this.points = program(gl, S.POINTS_VERTEX, S.POINTS_FRAGMENT);
    this.lines = program(gl, S.LINES_VERTEX, S.LINES_FRAGMENT);
    this.rims = program(gl, S.SCREEN_VERTEX, S.RIM_FRAGMENT);
    this.shades = new Map(); // programs by what they show
    this.targets = { still: null, moving: null, screen: null, small: null };
    this.picking = new Picking(this);
    this.theme();
    this.restart();
  }

  /** Buffers and textures for all points that will come. */
  allocate() {
    const { gl, info } = this;
    this.exact = info.step === null;
    this.xyz = this.exact ? new Float32Array(3 * info.sent) : new Uint16Array(3 * info.sent);
    this.normals = new Int8Array(2 * info.sent);
    const rows = Math.max(1, Math.ceil(info.sent / S.WIDTH));
    this.labels = new Uint32Array(rows * S.WIDTH);
    this.array = gl.createVertexArray();
    gl.bindVertexArray(this.array);
    const attribute = (place, bytes, size, type, normalised) => {
      const made = gl.createBuffer();
      gl.bindBuffer(gl.ARRAY_BUFFER, made);
      gl.bufferData(gl.ARRAY_BUFFER, Math.max(1, bytes * info.sent), gl.STATIC_DRAW);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, size, type, normalised, 0, 0);
      return made;
    };
    // Three values are stored as four: others are converted anew, all of them, after each chunk.
    this.buffers = {
      xyz: this.exact
        ? attribute(0, 12, 3, gl.FLOAT, false)
        : attribute(0, 8, 4, gl.UNSIGNED_SHORT, true),
      rgb: attribute(1, 4, 4, gl.UNSIGNED_BYTE, true),
      normal: attribute(2, 2, 2, gl.BYTE, false),
    };
    this.labelTexture = texture(gl, 0, gl.R32UI, S.WIDTH, rows);
    this.scoreTexture = null;
    this.paletteTexture = null;
    this.setPalette(new Uint8Array(256 * 256 * 4));
  }

  /** Add chunk number `k`. */
  add(k, buffer, wide) {
    const { gl, info } = this;
    const first = k * info.chunk;
    const n = Math.min(info.chunk, info.sent - first);
    let at = 0;
    const take = (Kind, size) => {
      const end = at + n * size * Kind.BYTES_PER_ELEMENT;
      const made = new Kind(buffer.slice(at, end));
      at = end;
      return made;
    };
    const xyz = take(this.exact ? Float32Array : Uint16Array, 3);
    const label = take(wide ? Uint32Array : Uint16Array, 1);
    const rgb = take(Uint8Array, 3);
    const normal = take(Int8Array, 2);
    this.xyz.set(xyz, 3 * first);
    this.normals.set(normal, 2 * first);
    this.labels.set(label, first);
    const put = (which, offset, data) => {
      gl.bindBuffer(gl.ARRAY_BUFFER, this.buffers[which]);
      gl.bufferSubData(gl.ARRAY_BUFFER, offset, data);
    };
    if (this.exact) put("xyz", 12 * first, xyz);
    else put("xyz", 8 * first, fours(xyz));
    put("rgb", 4 * first, fours(rgb));
    put("normal", 2 * first, normal);
    this.uploadLabels(first, first + n);
    this.count = Math.max(this.count, first + n);
    this.arrived = true;
    this.wake();
  }

  /** Give points other labels. @param {ArrayLike<number>} places @param {ArrayLike<number>} labels */
  relabel(places, labels) {
    if (!places.length) return;
    let low = Infinity;
    let high = 0;
    for (let i = 0; i < places.length; i++) {
      this.labels[places[i]] = labels[i];
      if (places[i] < low) low = places[i];
      if (places[i] > high) high = places[i];
    }
    this.uploadLabels(low, high + 1);
    // Labels are looked up when the picture is composed; what is hidden depends on them earlier.
    if (this.hides || !this.showUnlabelled) this.restart();
    else this.wake();
  }

  uploadLabels(from, to) {
    const { gl } = this;
    const first = Math.floor(from / S.WIDTH);
    const rows = Math.ceil(to / S.WIDTH) - first;
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.labelTexture);
    const part = this.labels.subarray(first * S.WIDTH, (first + rows) * S.WIDTH);
    gl.texSubImage2D(
      gl.TEXTURE_2D, 0, 0, first, S.WIDTH, rows, gl.RED_INTEGER, gl.UNSIGNED_INT, part,
    ); // prettier-ignore
  }

  /** Scores of chunk k, one byte each. */
  setScores(k, bytes) {
    const { gl, info } = this;
    const rows = Math.max(1, Math.ceil(info.sent / S.WIDTH));
    this.scoreTexture ??= texture(gl, 3, gl.R8, S.WIDTH, rows);
    gl.activeTexture(gl.TEXTURE3);
    gl.bindTexture(gl.TEXTURE_2D, this.scoreTexture);
    const first = (k * info.chunk) / S.WIDTH;
    const height = Math.ceil(bytes.length / S.WIDTH);
    const whole = new Uint8Array(height * S.WIDTH);
    whole.set(bytes);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, first, S.WIDTH, height, gl.RED, gl.UNSIGNED_BYTE, whole);
    this.wake();
  }

  /**
   * Colours and flags of all ids; `hides` where the flag HIDDEN of any changed, `box` where only
   * what lies in this rectangle of the canvas looks different.
   */
  setPalette(entries, hides = true, box = null) {
    const { gl } = this;
    const side = Math.sqrt(entries.length / 4);
    if (this.paletteSide !== side) {
      this.paletteTexture = texture(gl, 1, gl.RGBA8, side, side);
      this.paletteSide = side;
    }
    gl.activeTexture(gl.TEXTURE1);
    gl.bindTexture(gl.TEXTURE_2D, this.paletteTexture);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, side, side, gl.RGBA, gl.UNSIGNED_BYTE, entries);
    if (hides) this.restart();
    else this.wake(box);
  }

  /** Frusta of the views. @param {Float32Array} ends 16 ends of lines for each */
  setCameras(ends) {
    const { gl } = this;
    this.cameraArray = gl.createVertexArray();
    gl.bindVertexArray(this.cameraArray);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, ends, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 0, 0);
    this.cameraEnds = ends.length / 3;
    this.restart();
  }

  /** Colours of the theme, from the style sheet. */
  theme() {
    const of = (name) => {
      const text = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
      const number = parseInt(text.slice(1), 16);
      return [number >> 16, (number >> 8) & 255, number & 255].map((each) => each / 255);
    };
    this.colours = { ground: of("--ground"), grey: of("--unlabelled"), rim: of("--rim") };
    this.ink = of("--camera");
    this.restart();
  }

  /** The world position of a point. @returns {[number, number, number]} */
  position(place) {
    const { low, step } = this.info;
    const at = (axis) => this.xyz[3 * place + axis];
    if (this.exact) return [at(0), at(1), at(2)];
    return [low[0] + step[0] * at(0), low[1] + step[1] * at(1), low[2] + step[2] * at(2)];
  }

  /** Draw everything again, from the first point on: first a sample, then all. */
  restart() {
    this.drawn = -1;
    this.sampled = false;
    this.wake();
  }

  /** The camera has come to rest: what was drawn last is the sample. */
  rest() {
    this.moving = false;
    this.drawn = -1;
    this.wake();
  }

  /** Make a new picture with the next frame. @param {Box | null} box only this rectangle of it */
  wake(box = null) {
    this.dirty = this.asked ? box && this.dirty && around(box, this.dirty) : box;
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.frame();
    });
  }

  /** While moving, a sample of the points at once; at rest, all of them in slices. */
  frame() {
    const { canvas } = this;
    const ratio = Math.min(devicePixelRatio || 1, 2);
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
      this.drawn = -1;
      this.sampled = false;
    }
    const began = performance.now();
    if (this.moving || !this.sampled) {
      this.sample(width, height);
      this.sampled = this.count > 0;
    } else if (this.drawn < this.count) this.slice(width, height, began);
    else this.compose(this.front, width, height, this.dirty);
    this.measure(performance.now() - began);
    this.onDrawn();
    if (!this.moving && this.drawn < this.count) this.wake();
  }

  /** As many points as there is time for, in larger squares so that surfaces stay closed. */
  sample(width, height) {
    const coarse = this.composing.still > 14 ? 2 : 1;
    const target = this.target("moving", Math.ceil(width / coarse), Math.ceil(height / coarse));
    this.begin(target);
    const n = Math.min(this.count, this.budget("moving", MOVING - this.composing.moving));
    this.timed("moving", n, () => this.drawPoints(target, 0, n, n));
    this.show("moving", target, width, height);
  }

  /** The next points of all; shown once there are enough of them. */
  slice(width, height, began) {
    const target = this.target("still", width, height);
    const first = Math.max(0, this.drawn);
    if (this.drawn < 0) this.begin(target);
    else this.use(target);
    const n = Math.min(this.count - first, this.budget("still", RESTING));
    this.timed("still", n, () => this.drawPoints(target, first, n, this.count));
    this.drawn = first + n;
    // Without a graphics card the picture costs as much as many points: not every time.
    const enough = this.drawn > 0.4 * this.count && began - this.composed > 6 * this.composing.still;
    if (enough || this.drawn >= this.count) this.show("still", target, width, height);
    if (this.drawn >= this.count) this.picking.copyOf(target); // before the mouse asks for it
  }

  budget(when, milliseconds) {
    return Math.max(FEWEST[when], Math.floor(Math.max(milliseconds, 10) / this.perPoint[when]));
  }

  timed(when, n, draw) {
    const began = performance.now();
    draw();
    this.sync();
    this.stats.points = n;
    const usual = n > 5000 && !this.arrived; // the first time, points are also uploaded
    this.arrived = false;
    if (usual) this.perPoint[when] = mean(this.perPoint[when], (performance.now() - began) / n);
  }

  show(when, target, width, height) {
    const began = performance.now();
    this.front = target;
    this.compose(target, width, height);
    this.sync();
    this.composed = performance.now();
    this.composing[when] = mean(this.composing[when], Math.min(this.composed - began, 200));
  }

  measure(milliseconds) {
    const { stats } = this;
    stats.frames++;
    stats.last = milliseconds;
    stats.worst = Math.max(stats.worst, milliseconds);
  }

  /** Wait until the graphics card is done, so that times are true. */
  sync() {
    const { gl } = this;
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  }

  target(name, width, height) {
    const { gl } = this;
    const kept = this.targets[name];
    if (kept && kept.width === width && kept.height === height) return kept;
    if (kept) {
      for (const each of [kept.colour, kept.which]) gl.deleteTexture(each);
      gl.deleteRenderbuffer(kept.depth);
      gl.deleteFramebuffer(kept.frame);
    }
    const frame = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    const colour = texture(gl, 4, gl.RGBA8, width, height);
    const which = texture(gl, 5, gl.RGBA8, width, height);
    const depth = gl.createRenderbuffer();
    gl.bindRenderbuffer(gl.RENDERBUFFER, depth);
    gl.renderbufferStorage(gl.RENDERBUFFER, gl.DEPTH_COMPONENT24, width, height);
    const attach = (place, made) =>
      gl.framebufferTexture2D(gl.FRAMEBUFFER, place, gl.TEXTURE_2D, made, 0);
    attach(gl.COLOR_ATTACHMENT0, colour);
    attach(gl.COLOR_ATTACHMENT1, which);
    gl.framebufferRenderbuffer(gl.FRAMEBUFFER, gl.DEPTH_ATTACHMENT, gl.RENDERBUFFER, depth);
    const picture = name === "screen" || name === "small"; // pictures have no numbers
    const second = picture ? gl.NONE : gl.COLOR_ATTACHMENT1;
    gl.drawBuffers([gl.COLOR_ATTACHMENT0, second]);
    this.targets[name] = { frame, colour, which, depth, width, height };
    if (name === "still") this.drawn = -1;
    if (name !== "moving") this.whole = null;
    return this.targets[name];
  }

  use(target) {
    const { gl } = this;
    this.picking.forget(target);
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.frame);
    gl.viewport(0, 0, target.width, target.height);
  }

  /** Empty a target but for the cameras. */
  begin(target) {
    const { gl } = this;
    this.use(target);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    if (!this.showCameras || !this.cameraArray) return;
    gl.enable(gl.DEPTH_TEST);
    gl.useProgram(this.lines.made);
    gl.bindVertexArray(this.cameraArray);
    this.lines.set("clipFromWorld", this.clip(target));
    this.lines.set("ink", this.ink);
    this.lines.set("shown", this.shownCamera);
    gl.drawArrays(gl.LINES, 0, this.cameraEnds);
  }

  clip(target) {
    return this.orbit.clipFromWorld(target.width, target.height);
  }

  drawPoints(target, first, n, of) {
    if (n <= 0) return;
    const { gl, info, orbit, points } = this;
    gl.enable(gl.DEPTH_TEST);
    gl.useProgram(points.made);
    gl.bindVertexArray(this.array);
    this.bind();
    const tangent = orbit.tangent(target.width, target.height);
    const focal = target.height / (2 * tangent);
    const sparse = Math.sqrt(Math.max(1, info.sent / Math.max(1, of)));
    points.set("clipFromWorld", this.clip(target));
    points.set("low", this.exact ? [0, 0, 0] : info.low);
    points.set("scale", this.exact ? [1, 1, 1] : info.step.map((each) => 65535 * each));
    points.set("eye", orbit.eye);
    points.set("diameter", 1.7 * info.spacing * focal * Math.min(sparse, 8));
    points.set("sizes", [info.sent < 60_000 ? 3 : 1, info.sent < 60_000 ? 9 : 24]);
    points.set("cull", this.cull ? 1 : 0);
    points.set("showUnlabelled", this.showUnlabelled ? 1 : 0);
    points.set("labels", 0);
    points.set("palette", 1);
    gl.drawArrays(gl.POINTS, first, n);
  }

  bind() {
    const { gl } = this;
    const textures = [this.labelTexture, this.paletteTexture, null, this.scoreTexture];
    textures.forEach((each, unit) => {
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, each);
    });
  }

  /** The program of a look, made when it is first needed. */
  shadeOf(mode) {
    const key = `${mode} ${this.dimmed}`;
    if (!this.shades.has(key))
      this.shades.set(key, program(this.gl, S.SCREEN_VERTEX, S.shadeFragment(mode, this.dimmed)));
    return this.shades.get(key);
  }

  /**
   * The picture on the screen, from what was drawn: a small one is enlarged afterwards. With a box
   * only that part is made, which without a graphics card is what the mouse waits for.
   */
  compose(target, width, height, box = null) {
    const { gl } = this;
    const shade = this.shadeOf(this.mode === 2 && !this.scoreTexture ? 0 : this.mode);
    const small = target.width < width;
    const direct = !small && !this.marked; // no rim follows
    const made = direct ? null : this.target(small ? "small" : "screen", target.width, target.height);
    const part = !small && this.whole === target && box;
    if (!small) this.whole = direct ? null : target;
    if (made) this.use(made);
    else this.toScreen(width, height);
    gl.disable(gl.DEPTH_TEST);
    if (part) {
      const scale = target.width / this.canvas.clientWidth;
      const [left, top, right, bottom] = part.map((each) => Math.round(each * scale));
      gl.enable(gl.SCISSOR_TEST);
      gl.scissor(left, target.height - bottom, Math.max(0, right - left), Math.max(0, bottom - top));
    }
    gl.useProgram(shade.made);
    this.bind();
    gl.activeTexture(gl.TEXTURE4);
    gl.bindTexture(gl.TEXTURE_2D, target.colour);
    gl.activeTexture(gl.TEXTURE5);
    gl.bindTexture(gl.TEXTURE_2D, target.which);
    for (const [name, unit] of [["labels", 0], ["palette", 1], ["scores", 3], ["colours", 4], ["numbers", 5]])
      shade.set(name, unit);
    shade.set("ground", this.colours.ground);
    shade.set("grey", this.colours.grey);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
    gl.disable(gl.SCISSOR_TEST);
    if (this.marked) this.outline(made, width, height);
    else if (small) {
      gl.bindFramebuffer(gl.DRAW_FRAMEBUFFER, null);
      gl.blitFramebuffer(
        0, 0, made.width, made.height, 0, 0, width, height, gl.COLOR_BUFFER_BIT, gl.NEAREST,
      ); // prettier-ignore
    }
    gl.bindFramebuffer(gl.FRAMEBUFFER, null);
  }

  toScreen(width, height) {
    this.gl.bindFramebuffer(this.gl.FRAMEBUFFER, null);
    this.gl.viewport(0, 0, width, height);
  }

  /** Shades on the screen, with a rim around what is selected or hovered. */
  outline(made, width, height) {
    const { gl, rims } = this;
    this.toScreen(width, height);
    gl.useProgram(rims.made);
    gl.activeTexture(gl.TEXTURE4);
    gl.bindTexture(gl.TEXTURE_2D, made.colour);
    rims.set("shades", 4);
    rims.set("scale", made.width / width);
    rims.set("rim", this.colours.rim);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  /** Use the programs of hover and selection once, on one pixel: the first time takes longest. */
  warm() {
    if (!this.front || this.moving) return;
    const { marked, dimmed, canvas } = this;
    for (const [some, pale] of [[true, false], [true, true], [marked, dimmed]]) {
      Object.assign(this, { marked: some, dimmed: pale });
      this.compose(this.front, canvas.width, canvas.height, [0, 0, 1, 1]);
    }
  }

  /** What is at a place of the canvas: the point or camera nearest to it within 4 pixels. */
  pick(x, y) {
    return this.picking.at(x, y);
  }

  /** The rectangle of the canvas that shows a box of the world: [left, top, right, bottom] or null. */
  boxOf(low, high) {
    const { clientWidth, clientHeight } = this.canvas;
    const clip = this.orbit.clipFromWorld(clientWidth, clientHeight);
    let box = null;
    for (let i = 0; i < 8; i++) {
      const corner = [0, 1, 2].map((axis) => ((i >> axis) & 1 ? high : low)[axis]);
      const at = project(clip, corner, clientWidth, clientHeight);
      if (!at) return null; // it reaches behind the eye
      box = around(box ?? [at[0], at[1], at[0], at[1]], [at[0], at[1], at[0], at[1]]);
    }
    const [left, top, right, bottom] = box; // points are squares, and around them is a rim
    return [
      Math.max(0, left - POINT_SIDE),
      Math.max(0, top - POINT_SIDE),
      Math.max(0, Math.min(clientWidth, right + POINT_SIDE)),
      Math.max(0, Math.min(clientHeight, bottom + POINT_SIDE)),
    ];
  }

  /** CSS pixel of a world position, and its depth; null behind the eye. */
  where(xyz) {
    const { clientWidth, clientHeight } = this.canvas;
    return project(this.orbit.clipFromWorld(clientWidth, clientHeight), xyz, clientWidth, clientHeight);
  }
}

/** @typedef {[number, number, number, number]} Box */

/** The rectangle around two. @param {Box} a @param {Box} b @returns {Box} */
export const around = (a, b) => [
  Math.min(a[0], b[0]),
  Math.min(a[1], b[1]),
  Math.max(a[2], b[2]),
  Math.max(a[3], b[3]),
];

/** Each three values with a fourth one. */
function fours(threes) {
  const n = threes.length / 3;
  const made = new threes.constructor(4 * n);
  for (let i = 0; i < n; i++) {
    made[4 * i] = threes[3 * i];
    made[4 * i + 1] = threes[3 * i + 1];
    made[4 * i + 2] = threes[3 * i + 2];
  }
  return made;
}

/** A running mean of what something costs. */
const mean = (known, now) => 0.7 * known + 0.3 * now;
