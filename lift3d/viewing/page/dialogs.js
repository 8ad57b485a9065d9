// Questions to the person.
// @ts-check
import { byId, element } from "./elements.js";

/** Name, class and colour of objects. @param {any} app @param {number[]} ids */
export function rename(app, ids) {
  const dialog = byId("naming");
  const [first] = ids;
  const each = app.store.objects.get(first);
  byId("naming-what").textContent = ids.length === 1 ? app.store.describe(first) : `${ids.length} objects`;
  byId("naming-name").value = ids.length === 1 ? each.name : "";
  byId("naming-class").value = each.class;
  for (const [list, what] of [["names", "name"], ["classes", "class"]]) {
    const likely = ids.length === 1 ? each.guesses.map(([word]) => word) : [];
    const used = new Set([...likely, ...app.store.state.objects.map((one) => one[what]).filter(Boolean)]);
    byId(list).replaceChildren(...[...used].map((value) => element("option", "", { value })));
  }
  byId("naming-guesses").replaceChildren(
    ...(ids.length === 1 ? each.guesses : []).map(([word, fits]) => {
      const button = element("button", word, { type: "button", title: `fits the pictures by ${fits.toFixed(2)}` });
      button.addEventListener("click", () => {
        byId("naming-name").value = word;
        byId("naming-name").focus();
      });
      return button;
    }),
  );
  const shown = `#${each.colour.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
  const colour = byId("naming-colour");
  const own = byId("naming-own");
  colour.value = shown;
  own.checked = !each.chosen;
  colour.oninput = () => (own.checked = false);
  dialog.showModal();
  byId("naming-name").select();
  app.named = async () => {
    dialog.close();
    const name = byId("naming-name").value.trim();
    const kind = byId("naming-class").value.trim();
    for (const id of ids) {
      const one = app.store.objects.get(id);
      if (ids.length === 1 ? name !== one.name : name) await app.act("name", { id, name });
      if (kind !== one.class) await app.act("classify", { id, class_name: kind });
      // Of several objects only a colour that was chosen now counts.
      const wanted = own.checked ? "" : colour.value;
      if (wanted !== one.chosen && (ids.length === 1 || (wanted && wanted !== shown)))
        await app.act("colour", { id, colour: wanted });
    }
  };
}

/** A question; the number of the answer, 0 for Esc. @returns {Promise<number>} */
export function ask(text, choices) {
  const dialog = byId("asking");
  byId("asking-what").textContent = text;
  return new Promise((answer) => {
    const buttons = choices.map((each, i) => {
      const button = element("button", each, i === choices.length - 1 ? { class: "main" } : {});
      button.addEventListener("click", () => {
        dialog.close();
        answer(i);
      });
      return button;
    });
    byId("asking-choices").replaceChildren(...buttons);
    dialog.addEventListener("cancel", () => answer(0), { once: true });
    dialog.showModal();
    buttons[buttons.length - 1].focus();
  });
}
