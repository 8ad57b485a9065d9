// Pieces of the page.
// @ts-check

export const byId = (id) => /** @type {any} */ (document.getElementById(id));

/** All elements of a selector. */
export const all = (selector) => /** @type {any[]} */ ([...document.querySelectorAll(selector)]);

/** An element with text; names of objects come from people and are never taken for HTML. */
export function element(tag, text = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** One of the icons of icons.svg, in the colour of the text around it. */
export function icon(name) {
  const space = "http://www.w3.org/2000/svg";
  const made = document.createElementNS(space, "svg");
  made.setAttribute("class", "icon");
  made.setAttribute("aria-hidden", "true");
  const use = document.createElementNS(space, "use");
  use.setAttribute("href", `/app/icons.svg#${name}`);
  made.append(use);
  return made;
}

/** Show a switch of the header as on or off. */
export function pressed(name, on) {
  const [button] = all(`header [data-do="${name}"]`);
  button.setAttribute("aria-pressed", String(on));
  return button;
}
