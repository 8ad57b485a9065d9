// Every key, for the help and for the keyboard. What a key does stands in main.js by its name.
// @ts-check

/** [keys, what they do, name of the action]; an empty name is explained only. */
export const KEYS = [
  ["drag", "turn", ""],
  ["right drag", "move", ""],
  ["wheel", "nearer, towards the mouse", ""],
  ["double click", "turn about this place", ""],
  ["F", "look at the selection", "frame"],
  ["Home", "look at everything", "home"],
  ["click", "select; Shift adds, Ctrl takes away", ""],
  ["A", "select all that is shown", "all"],
  ["Esc", "leave the tool, then select nothing", "escape"],
  ["H", "hide the selection", "hide"],
  ["I", "show only the selection", "isolate"],
  ["Shift+H", "show all", "show"],
  ["K", "near walls off and on", "walls"],
  ["L", "colours of objects", "labels"],
  ["C", "colours of the pictures", "colour"],
  ["S", "score: bright where the views agree", "score"],
  ["V", "cameras", "cameras"],
  ["U", "unlabelled points", "unlabelled"],
  ["← →", "previous, next view", ""],
  ["Shift+← →", "views of the selection, the worst first", ""],
  ["Space", "held: the picture without labels", ""],
  ["/", "search objects", "search"],
  ["?", "this help", "help"],
  ["M", "merge the selected into the largest", "merge"],
  ["X", "split: click each thing once, or Tab finer, Shift+Tab coarser; a line across it in the picture cuts straight, as Alt+drag in the cloud; Enter", "split"],
  ["Shift+X", "split off what does not hang together", "separate"],
  ["G", "one click, or a box drawn in the picture: Tab whole, Shift+Tab part; more clicks add, Alt takes away, in any view; Enter", "click"],
  ["B", "brush in the picture; E erases, [ ] or Ctrl+wheel size, T this view only, Alt over edges", "brush"],
  ["O", "lasso in the cloud", "lasso"],
  ["T", "lasso: the surface, or through", "through"],
  ["right click", "in a tool: take the last click back", ""],
  ["R", "name, class and colour", "rename"],
  ["Delete", "points become unlabelled", "delete"],
  ["Shift+Delete", "points go to what they touch", "dissolve"],
  ["Y", "the selection is right as it is", "accept"],
  ["N", "next thing to look at", "doubt"],
  ["Shift+N", "leave it", "leave"],
  ["Enter", "accept its proposal", ""],
  ["Ctrl+Z", "undo my last edit", "undo"],
  ["Ctrl+Shift+Z", "redo (Ctrl+Y too)", "redo"],
  ["Ctrl+S", "write cloud, label maps and scores", "save"],
];

const EDITS = new Set(
  "merge split separate click brush lasso through rename delete dissolve accept doubt leave undo redo save".split(" "),
);

/** Keys of what may be done. */
export const known = (readOnly) =>
  KEYS.filter(([, what, name]) => !readOnly || (!EDITS.has(name) && !/tool|proposal/.test(what)));

/** `Ctrl+Shift+Z` of an event. */
export function spelled(event) {
  const key = event.key.length === 1 ? event.key.toUpperCase() : event.key;
  const named = { Backspace: "Delete", Escape: "Esc" }[key] ?? key;
  const letter = /^[A-Z]$/.test(named) || named.length > 1;
  return [
    event.ctrlKey || event.metaKey ? "Ctrl+" : "",
    event.shiftKey && letter ? "Shift+" : "",
    named,
  ].join("");
}

/** The name of the action of an event, or undefined. */
export function actionOf(event) {
  const text = spelled(event);
  if (text === "Ctrl+Y") return "redo";
  return KEYS.find(([keys, , name]) => name && keys === text)?.[2];
}
