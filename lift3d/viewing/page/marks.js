// What is drawn over the cloud.
// @ts-check
import { byId } from "./elements.js";

/** Places that tools mark in the cloud, and how long frames take (`?stats`). @param {any} app */
export function drawMarks(app) {
  const { canvas } = app.cloud;
  const marks = byId("marks");
  const some = app.tool.marks.length > 0 || Boolean(app.tool.draw);
  if (!some && !app.marksShown && byId("stats").hidden) return;
  app.marksShown = some;
  const ratio = devicePixelRatio || 1;
  marks.width = canvas.clientWidth * ratio;
  marks.height = canvas.clientHeight * ratio;
  const pen = marks.getContext("2d");
  pen.scale(ratio, ratio);
  for (const each of app.tool.marks) {
    const at = app.cloud.where(each.xyz);
    if (!at) continue;
    pen.beginPath();
    pen.arc(at[0], at[1], 9, 0, 2 * Math.PI);
    pen.fillStyle = `rgb(${each.colour.join(" ")})`;
    pen.fill();
    pen.lineWidth = 2;
    pen.strokeStyle = "#111";
    pen.stroke();
    pen.fillStyle = "#111";
    pen.font = "bold 11px system-ui";
    pen.textAlign = "center";
    pen.fillText(each.text, at[0], at[1] + 4);
  }
  app.tool.draw?.(pen);
  const stats = byId("stats");
  if (!stats.hidden) {
    const { last, worst, points } = app.cloud.stats;
    stats.textContent = `${last.toFixed(0)} ms a frame, ${worst.toFixed(0)} at most\n${points.toLocaleString("en")} points in it`;
  }
}
