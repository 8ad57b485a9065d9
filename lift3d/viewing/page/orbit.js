// The camera of the cloud: it turns about a target, keeps upright, and zooms towards a place.
// @ts-check
import { acrossOf, add, cross, dot, length, lookAlong, multiply, perspective, unit } from "./geometry.js";

const TANGENT = Math.tan((25 * Math.PI) / 180); // of half the vertical angle of view
const ONE_WAY = 0.3; // length of the mean direction from which on the cameras look one way
const STEEPEST = (89 * Math.PI) / 180;

export class Orbit {
  /** @param {number[]} up */
  constructor(up) {
    this.up = up;
    this.across = acrossOf(up);
    this.target = [0, 0, 0];
    this.distance = 1;
    this.size = 1; // of the whole scene; bounds what is near and far
    this.yaw = 0.7;
    this.pitch = 0.6;
  }

  /** Direction from the target to the eye. */
  get outwards() {
    const flat = Math.cos(this.pitch);
    const level = add([0, 0, 0], this.across[0], flat * Math.cos(this.yaw));
    const turned = add(level, this.across[1], flat * Math.sin(this.yaw));
    return add(turned, this.up, Math.sin(this.pitch));
  }

  get eye() {
    return add(this.target, this.outwards, this.distance);
  }

  /** @param {number} width @param {number} height */
  clipFromWorld(width, height) {
    const forward = add([0, 0, 0], this.outwards, -1);
    const near = Math.max(this.distance, 0.02 * this.size) / 60;
    const far = this.distance + 4 * this.size;
    const camera = lookAlong(this.eye, forward, this.up);
    return multiply(perspective(this.tangent(width, height), width / height, near, far), camera);
  }

  /** In a tall window the horizontal angle is the one that is kept. */
  tangent(width, height) {
    return TANGENT * Math.max(1, Math.min(1.6, height / width));
  }

  /** Turn by pixels dragged. */
  turn(dx, dy) {
    this.yaw -= dx * 0.006;
    this.pitch = Math.min(STEEPEST, Math.max(-STEEPEST, this.pitch + dy * 0.006));
  }

  /** Move by pixels dragged: what is at the target's distance follows the mouse. */
  pan(dx, dy, height) {
    const pixel = (2 * TANGENT * this.distance) / height;
    const right = unit(cross(this.up, this.outwards));
    const top = cross(this.outwards, right);
    this.target = add(add(this.target, right, -dx * pixel), top, dy * pixel);
  }

  /** Come nearer by a factor, towards a place of the world if there is one under the mouse. */
  zoom(factor, place) {
    const least = 1e-3 * this.size;
    const wanted = Math.min(6 * this.size, Math.max(least, this.distance * factor));
    if (place) {
      const share = 1 - wanted / this.distance;
      this.target = add(this.target, add(place, this.target, -1), share);
    }
    this.distance = wanted;
  }

  /** Turn about another place without moving the eye sideways in the picture. */
  aim(place) {
    this.target = place;
  }

  /** See a whole box. @param {number[]} low @param {number[]} high */
  frame(low, high, whole = false) {
    const size = length(add(high, low, -1)) || 1e-3;
    if (whole) this.size = size;
    this.target = add(low, add(high, low, -1), 0.5);
    this.distance = Math.max(0.5 * size / TANGENT, 0.05 * this.size) * (whole ? 0.92 : 1.1);
  }

  /**
   * Look the way that most cameras of the run look, from above: what they did not see has no points.
   * In a room that was filmed all around, the cameras look every way, and nothing changes.
   * @param {{pose: number[] | null}[]} views
   */
  lookAsViews(views) {
    const poses = views.map((each) => each.pose).filter((pose) => pose !== null);
    const along = (axis) =>
      poses.reduce((sum, p) => sum + dot([p[2], p[6], p[10]], axis), 0) / Math.max(poses.length, 1);
    const [a, b] = this.across.map(along);
    if (Math.hypot(a, b) > ONE_WAY) this.yaw = Math.atan2(-b, -a);
  }

  /** Look from the side of a camera of the run, where one sees the face of things.
   * @param {number[]} pose world_from_camera, row by row */
  lookFrom(pose) {
    const d = unit(add([pose[3], pose[7], pose[11]], this.target, -1));
    const [a, b] = this.across;
    const rise = Math.asin(Math.min(1, Math.max(-1, dot(d, this.up))));
    this.pitch = Math.min(STEEPEST, Math.max(-STEEPEST, rise));
    this.yaw = Math.atan2(dot(d, b), dot(d, a));
  }
}
