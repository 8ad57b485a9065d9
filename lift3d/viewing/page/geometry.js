// Vectors, matrices (column-major, as WebGL takes them) and polygons. Nothing here knows the page.
// @ts-check

/** @typedef {[number, number, number]} Vector */

/** @param {ArrayLike<number>} a @param {ArrayLike<number>} b @returns {number} */
export const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];

/** @param {ArrayLike<number>} a @param {ArrayLike<number>} b @returns {Vector} */
export const cross = (a, b) => [
  a[1] * b[2] - a[2] * b[1],
  a[2] * b[0] - a[0] * b[2],
  a[0] * b[1] - a[1] * b[0],
];

/** a + scale * b @param {ArrayLike<number>} a @param {ArrayLike<number>} b @returns {Vector} */
export const add = (a, b, scale = 1) => [
  a[0] + scale * b[0],
  a[1] + scale * b[1],
  a[2] + scale * b[2],
];

/** @param {ArrayLike<number>} a @returns {number} */
export const length = (a) => Math.hypot(a[0], a[1], a[2]);

/** @param {ArrayLike<number>} a @returns {Vector} */
export function unit(a) {
  const size = length(a) || 1;
  return [a[0] / size, a[1] / size, a[2] / size];
}

/** Two horizontal axes for an up direction. @param {ArrayLike<number>} up @returns {[Vector, Vector]} */
export function acrossOf(up) {
  const x = Math.abs(up[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0];
  const first = unit(add(x, up, -dot(x, up)));
  return [first, cross(up, first)];
}

/** camera_from_world of an eye that looks along `forward`; WebGL's camera looks along -z. */
export function lookAlong(eye, forward, up) {
  const right = unit(cross(forward, up));
  const top = cross(right, forward);
  return new Float32Array([
    right[0], top[0], -forward[0], 0,
    right[1], top[1], -forward[1], 0,
    right[2], top[2], -forward[2], 0,
    -dot(right, eye), -dot(top, eye), dot(forward, eye), 1,
  ]); // prettier-ignore
}

/** clip_from_camera; `tangent` is that of half the vertical angle of view. */
export function perspective(tangent, aspect, near, far) {
  const depth = 1 / (near - far);
  return new Float32Array([
    1 / (tangent * aspect), 0, 0, 0,
    0, 1 / tangent, 0, 0,
    0, 0, (far + near) * depth, -1,
    0, 0, 2 * far * near * depth, 0,
  ]); // prettier-ignore
}

/** The product of two 4x4 matrices. @returns {Float32Array} */
export function multiply(a, b) {
  const made = new Float32Array(16);
  for (let column = 0; column < 4; column++)
    for (let row = 0; row < 4; row++) {
      let sum = 0;
      for (let k = 0; k < 4; k++) sum += a[4 * k + row] * b[4 * column + k];
      made[4 * column + row] = sum;
    }
  return made;
}

/** Column, row and depth of a point, for a picture of `width` x `height`; null behind the eye. */
export function project(clipFromWorld, point, width, height) {
  const m = clipFromWorld;
  const [x, y, z] = point;
  const w = m[3] * x + m[7] * y + m[11] * z + m[15];
  if (w <= 0) return null;
  const across = (m[0] * x + m[4] * y + m[8] * z + m[12]) / w;
  const down = (m[1] * x + m[5] * y + m[9] * z + m[13]) / w;
  return [(0.5 + 0.5 * across) * width, (0.5 - 0.5 * down) * height, w];
}

/** Whether a polygon [[x, y], ...] contains a place (even-odd rule). */
export function inside(polygon, x, y) {
  let within = false;
  for (let i = 0, j = polygon.length - 1; i < polygon.length; j = i++) {
    const [ax, ay] = polygon[i];
    const [bx, by] = polygon[j];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) within = !within;
  }
  return within;
}

/** The unit vector of two bytes, as `packed_normals` of packing.py makes them; null if unknown. */
export function unpackNormal(a, b) {
  if (a === -128) return null;
  const x = a / 127;
  const y = b / 127;
  const z = 1 - Math.abs(x) - Math.abs(y);
  const fold = Math.max(-z, 0);
  return unit([x + (x >= 0 ? -fold : fold), y + (y >= 0 ? -fold : fold), z]);
}

/** The pixels of a mask as runs: [start, length, start, length, ...]. @param {Uint8Array} mask */
export function runsOf(mask) {
  const runs = [];
  for (let at = mask.indexOf(1); at !== -1; ) {
    let end = at;
    while (end < mask.length && mask[end]) end++;
    runs.push(at, end - at);
    at = mask.indexOf(1, end);
  }
  return runs;
}

/** Set the pixels within `radius` of a line from a to b in a mask of `width` x `height`. */
export function stroke(mask, width, height, a, b, radius) {
  const along = [b[0] - a[0], b[1] - a[1]];
  const squared = along[0] ** 2 + along[1] ** 2 || 1;
  const top = Math.max(0, Math.floor(Math.min(a[1], b[1]) - radius));
  const bottom = Math.min(height - 1, Math.ceil(Math.max(a[1], b[1]) + radius));
  const left = Math.max(0, Math.floor(Math.min(a[0], b[0]) - radius));
  const right = Math.min(width - 1, Math.ceil(Math.max(a[0], b[0]) + radius));
  for (let row = top; row <= bottom; row++)
    for (let column = left; column <= right; column++) {
      const t = ((column - a[0]) * along[0] + (row - a[1]) * along[1]) / squared;
      const s = Math.min(1, Math.max(0, t));
      const far = Math.hypot(column - a[0] - s * along[0], row - a[1] - s * along[1]);
      if (far <= radius) mask[row * width + column] = 1;
    }
}

/** Whole numbers as base64 of uint32, as the server takes points. @param {Iterable<number>} numbers */
export function packed(numbers) {
  const bytes = new Uint8Array(Uint32Array.from(numbers).buffer);
  let text = "";
  for (let at = 0; at < bytes.length; at += 32768)
    text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return btoa(text);
}

/** The reverse of `packed`. @param {string} text @returns {Uint32Array} */
export function unpacked(text) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at++) bytes[at] = raw.charCodeAt(at);
  return new Uint32Array(bytes.buffer);
}

/** Lines of the cameras of views, 16 ends each. @param {any[]} views @param {number} depth */
export function frusta(views, depth) {
  const ends = [];
  for (const { K, pose, width, height } of views) {
    const world = (x, y, z) => {
      const p = pose ?? [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0];
      const at = (row) => p[4 * row] * x + p[4 * row + 1] * y + p[4 * row + 2] * z + p[4 * row + 3];
      return [at(0), at(1), at(2)];
    };
    const corner = (u, v) =>
      world(((u - K[2]) / K[0]) * depth, ((v - K[5]) / K[4]) * depth, depth);
    const eye = world(0, 0, 0);
    const corners = [corner(0, 0), corner(width, 0), corner(width, height), corner(0, height)];
    corners.forEach((each, i) => ends.push(...eye, ...each, ...each, ...corners[(i + 1) % 4]));
  }
  return new Float32Array(ends);
}
