// Points are drawn into two targets: their own colour with a shade, and their number. A second
// pass makes the picture from both, so a new colour, selection or hover draws no point again.
// @ts-check

export const POINT = 1; // last byte of the second target
export const CAMERA = 2;
export const HIDDEN = 1; // bits of a palette entry's alpha
export const SELECTED = 2;
export const HOVERED = 4;
export const WIDTH = 4096; // of the texture of labels

const LOOK_UP = `
uint labelOf(uint number) {
  return texelFetch(labels, ivec2(int(number % ${WIDTH}u), int(number / ${WIDTH}u)), 0).r;
}
vec4 entryOf(uint label) {
  uint side = uint(textureSize(palette, 0).x);
  return texelFetch(palette, ivec2(int(label % side), int(label / side)), 0);
}
bool has(vec4 entry, int bit) { return (int(entry.a * 255.0 + 0.5) & bit) != 0; }
`;

export const POINTS_VERTEX = `#version 300 es
precision highp float;
precision highp int;
precision highp usampler2D;
layout(location = 0) in vec3 position;
layout(location = 1) in vec3 colour;
layout(location = 2) in vec2 packedNormal;
uniform mat4 clipFromWorld;
uniform vec3 low, scale, eye;
uniform float diameter;   // in pixels at a depth of 1
uniform vec2 sizes;       // the least and the most, in pixels
uniform bool cull;
uniform bool showUnlabelled;
uniform usampler2D labels;
uniform sampler2D palette;
out vec4 base;
flat out uint number;
${LOOK_UP}
void main() {
  number = uint(gl_VertexID);
  vec3 place = low + scale * position;
  gl_Position = clipFromWorld * vec4(place, 1.0);
  gl_PointSize = clamp(diameter / gl_Position.w, sizes.x, sizes.y);
  float shade = 1.0;
  if (packedNormal.x > -127.5) {
    vec2 n = packedNormal / 127.0;
    vec3 normal = vec3(n, 1.0 - abs(n.x) - abs(n.y));
    float fold = max(-normal.z, 0.0);
    normal.xy += vec2(normal.x >= 0.0 ? -fold : fold, normal.y >= 0.0 ? -fold : fold);
    float facing = dot(normalize(normal), normalize(eye - place));
    shade = 0.62 + 0.38 * abs(facing);
    if (cull && facing < -0.05) gl_Position = vec4(0.0, 0.0, 2.0, 1.0);
  }
  uint label = labelOf(number);
  if (label == 0u ? !showUnlabelled : has(entryOf(label), ${HIDDEN}))
    gl_Position = vec4(0.0, 0.0, 2.0, 1.0);
  base = vec4(colour, shade);
}`;

export const POINTS_FRAGMENT = `#version 300 es
precision highp float;
precision highp int;
in vec4 base;
flat in uint number;
layout(location = 0) out vec4 colour;
layout(location = 1) out vec4 which;
void main() {
  colour = base;
  which = vec4(number & 255u, (number >> 8) & 255u, number >> 16, ${POINT}.0) / 255.0;
}`;

export const LINES_VERTEX = `#version 300 es
precision highp float;
precision highp int;
layout(location = 0) in vec3 position;
uniform mat4 clipFromWorld;
uniform int shown;
flat out uint number;
flat out int isShown;
void main() {
  number = uint(gl_VertexID) / 16u;  // 8 lines of 2 ends for each camera
  isShown = int(number) == shown ? 1 : 0;
  gl_Position = clipFromWorld * vec4(position, 1.0);
}`;

export const LINES_FRAGMENT = `#version 300 es
precision highp float;
precision highp int;
flat in uint number;
flat in int isShown;
uniform vec3 ink;
layout(location = 0) out vec4 colour;
layout(location = 1) out vec4 which;
void main() {
  colour = vec4(isShown == 1 ? vec3(1.0, 0.45, 0.1) : ink, 1.0);
  which = vec4(number & 255u, (number >> 8) & 255u, number >> 16, ${CAMERA}.0) / 255.0;
}`;

export const SCREEN_VERTEX = `#version 300 es
void main() {
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1);
  gl_Position = vec4(4.0 * corner - 1.0, 0.0, 1.0);
}`;

/** One program each: without a graphics card the branches not taken cost as much as those taken.
 * Alpha is 1 where something is selected or hovered.
 * @param {number} mode 0 labels, 1 colour, 2 score
 * @param {boolean} dimmed what is not selected is pale */
export const shadeFragment = (mode, dimmed) => `#version 300 es
precision highp float;
precision highp int;
precision highp usampler2D;
uniform sampler2D colours, numbers, palette, scores;
uniform usampler2D labels;
const int mode = ${mode};
const bool dimmed = ${dimmed};
uniform vec3 ground, grey;
out vec4 shade;
${LOOK_UP}
vec3 heat(float score) {
  return score > 0.998 ? grey
    : mix(mix(vec3(0.13, 0.05, 0.2), vec3(0.75, 0.2, 0.25), min(1.0, 2.0 * score)),
          vec3(1.0, 0.95, 0.7), max(0.0, 2.0 * score - 1.0));
}
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy);
  vec4 n = texelFetch(numbers, at, 0) * 255.0 + 0.5;
  vec4 base = texelFetch(colours, at, 0);
  int kind = int(n.a);
  vec3 colour = ground;
  bool selected = false, hovered = false;
  if (kind == ${CAMERA}) colour = base.rgb;
  if (kind == ${POINT}) {
    uint number = uint(n.r) | uint(n.g) << 8 | uint(n.b) << 16;
    uint label = labelOf(number);
    vec4 entry = label == 0u ? vec4(grey, 0.0) : entryOf(label);
    selected = has(entry, ${SELECTED});
    hovered = has(entry, ${HOVERED});
    if (mode == 0) colour = entry.rgb * base.a;
    else if (mode == 1) colour = base.rgb;
    else colour = heat(texelFetch(scores,
      ivec2(int(number % ${WIDTH}u), int(number / ${WIDTH}u)), 0).r) * base.a;
    if (dimmed && !selected) colour = mix(ground, colour, 0.45);
    if (selected) colour = mix(colour, vec3(1.0), 0.18);
    if (hovered) colour = mix(colour, vec3(1.0), 0.28);
  }
  shade = vec4(colour, selected || hovered ? 1.0 : 0.0);
}`;

/** The rim around what is selected or hovered. A pass of its own, since looking up the neighbours'
 * objects costs several times as much. */
export const RIM_FRAGMENT = `#version 300 es
precision highp float;
precision highp int;
uniform sampler2D shades;
uniform float scale;      // of the shades, which are smaller while something moves
uniform vec3 rim;
out vec4 shown;
void main() {
  ivec2 at = ivec2(gl_FragCoord.xy * scale), last = textureSize(shades, 0) - 1;
  vec4 here = texelFetch(shades, min(at, last), 0);
  float near = max(
    max(texelFetch(shades, ivec2(max(at.x - 1, 0), min(at.y, last.y)), 0).a,
        texelFetch(shades, ivec2(min(at.x + 1, last.x), min(at.y, last.y)), 0).a),
    max(texelFetch(shades, ivec2(min(at.x, last.x), max(at.y - 1, 0)), 0).a,
        texelFetch(shades, ivec2(min(at.x, last.x), min(at.y + 1, last.y)), 0).a));
  shown = vec4(near > 0.5 && here.a < 0.5 ? rim : here.rgb, 1.0);
}`;
