// Questions to the person.
// @ts-check
import { byId, element } from "./elements.js";

/** Name and class of objects. @param {any} app @param {number[]} ids */
export function rename(app, ids) {
  const dialog = byId("naming");
  const [first] = ids;
  const each = app.store.objects.get(first);
  byId("naming-what").textContent = ids.length === 1 ? app.store.describe(first) : `${ids.length} objects`;
  byId("naming-name").value = ids.length === 1 ? each.name : "";
  byId("naming-class").value = each.class;
  for (const [list, what] of [["names", "name"], ["classes", "class"]]) {
    const used = new Set(app.store.state.objects.map((one) => one[what]).filter(Boolean));
    byId(list).replaceChildren(...[...used].map((value) => element("option", "", { value })));
  }
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
