// The line at the bottom: what the tool waits for, what is kept, what it is worth, who is here.
// @ts-check
import { all, byId } from "./elements.js";

/** @param {any} app */
export function showStatus(app) {
  const { store, info, cloud } = app;
  const { state } = store;
  byId("first").hidden = state.edits.length > 0 || app.dismissed || store.selected.size > 0;
  byId("hint").textContent = store.busy || app.tool.hint;
  byId("hint").title = app.tool.hint; // where it is cut off
  const parts = [];
  if (info.readOnly) parts.push("read only");
  else if (!store.online) parts.push("⚠ the server is gone; what is listed as kept is on its disk");
  else {
    const n = state.edits.length;
    parts.push(n ? `${n} edit${n > 1 ? "s" : ""}, all kept` : "no edits");
    if (state.doubts) parts.push(`${state.doubts} in doubt`);
    if (state.revision > state.written) parts.push("not yet saved to the files");
    else if (n) parts.push("files are up to date");
  }
  parts.push(...agreement(state.agreement));
  const objects = state.objects.length;
  const found = state.automatic;
  parts.push(found !== undefined && found !== objects ? `${found} → ${objects} objects` : `${objects} objects`);
  const { points, sent } = info.cloud;
  if (cloud.count < sent) parts.push(`${cloud.count.toLocaleString("en")} of ${sent.toLocaleString("en")} points`);
  else if (sent < points) parts.push(`${compact(sent)} of ${compact(points)} points shown`);
  else parts.push(`${compact(points)} points`);
  if (store.hidden.size) parts.push(`${store.hidden.size} hidden`);
  if (store.people > 1) parts.push(`${store.people} people here`);
  byId("bar").textContent = parts.join(" · ");
  byId("bar").classList.toggle("warn", !store.online);
  const some = store.selected.size;
  for (const [name, least] of [["merge", 2], ["rename", 1], ["delete", 1]])
    all(`[data-do="${name}"]`)[0].disabled = some < least;
  all('[data-do="undo"]')[0].disabled = !state.edits.length;
  all('[data-do="redo"]')[0].disabled = !state.undone?.length;
}

const compact = (n) => (n < 10_000 ? String(n) : n < 1e6 ? `${Math.round(n / 1000)} k` : `${(n / 1e6).toFixed(1)} M`);

/** `≈H 96.9 → 97.1 · H′ … · coverage …`, never H alone. */
function agreement(found) {
  if (!found) return [];
  const percent = (value) => (value === null ? "–" : (100 * value).toFixed(1));
  const both = (name) => {
    const [a, b] = [percent(found.automatic[name]), percent(found.corrected[name])];
    return a === b ? a : `${a} → ${b}`;
  };
  return [`≈H ${both("H")}`, `H′ ${both("H_prime")}`, `coverage ${both("coverage")} %`];
}
