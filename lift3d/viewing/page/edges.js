// Strokes that stop at the edges of a picture.
// @ts-check

const STEP = 26; // largest difference of colour, 0 to 441, between neighbouring pixels of a thing
const AWAY = 70; // ... and from the pixel in the middle of the brush; both chosen by hand

/** Colours of a picture, each the mean of 3 x 3 pixels: noise is no edge. @param {ImageData} image */
export function smoothed(image) {
  const { data, width, height } = image;
  const made = new Uint8ClampedArray(3 * width * height);
  for (let row = 0; row < height; row++)
    for (let column = 0; column < width; column++)
      for (let part = 0; part < 3; part++) {
        let sum = 0;
        for (let dy = -1; dy <= 1; dy++)
          for (let dx = -1; dx <= 1; dx++) {
            const y = Math.min(height - 1, Math.max(0, row + dy));
            const x = Math.min(width - 1, Math.max(0, column + dx));
            sum += data[4 * (y * width + x) + part];
          }
        made[3 * (row * width + column) + part] = sum / 9;
      }
  return made;
}

/** Mark the pixels of a stroke that the middle of the brush reaches without crossing an edge.
 * @param {Uint8Array} mask @param {Uint8ClampedArray} colours @param {number} width
 * @param {number} height @param {number[]} a @param {number[]} b @param {number} radius */
export function heldStroke(mask, colours, width, height, a, b, radius) {
  const steps = Math.max(1, Math.ceil(Math.hypot(b[0] - a[0], b[1] - a[1]) / Math.max(1, radius / 3)));
  for (let step = 0; step <= steps; step++) {
    const share = step / steps;
    const x = Math.round(a[0] + share * (b[0] - a[0]));
    const y = Math.round(a[1] + share * (b[1] - a[1]));
    if (x >= 0 && y >= 0 && x < width && y < height)
      stamp(mask, colours, width, height, x, y, radius);
  }
}

function stamp(mask, colours, width, height, x, y, radius) {
  const differ = (one, other) =>
    Math.hypot(
      colours[3 * one] - colours[3 * other],
      colours[3 * one + 1] - colours[3 * other + 1],
      colours[3 * one + 2] - colours[3 * other + 2],
    );
  const middle = y * width + x;
  const seen = new Set([middle]);
  const open = [middle];
  while (open.length) {
    const at = open.pop();
    mask[at] = 1;
    const column = at % width;
    const row = (at - column) / width;
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      const next = at + dy * width + dx;
      if (column + dx < 0 || column + dx >= width || row + dy < 0 || row + dy >= height) continue;
      if (seen.has(next) || Math.hypot(column + dx - x, row + dy - y) > radius) continue;
      seen.add(next);
      if (differ(at, next) <= STEP && differ(middle, next) <= AWAY) open.push(next);
    }
  }
}
