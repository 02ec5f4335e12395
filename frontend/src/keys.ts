// Keyboard shortcuts, and the dialog that lists them.

import type { App } from "./app.js";
import { byId, h } from "./dom.js";

/** Act on a key, wherever the focus is but in a text field. */
export function onKey(app: App, event: KeyboardEvent): void {
  const target = event.target as HTMLElement;
  const dialog = byId<HTMLDialogElement>("tile");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (target.matches("[role=tab]") && ["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) {
    const tabs = ["gallery", "inventory", "query"];
    const at = tabs.indexOf(target.id.slice(4));
    const to = event.key === "Home" ? 0 : event.key === "End" ? 2 : (at + (event.key === "ArrowRight" ? 1 : 2)) % 3;
    app.tab(tabs[to]!);
    byId(`tab-${tabs[to]}`).focus();
    event.preventDefault();
    return;
  }
  if (target.matches("input:not([type=range]), textarea, select")) {
    if (event.key === "Escape") target.blur();
    return;
  }
  if (byId<HTMLDialogElement>("shortcuts").open) return;
  const move = (step: number) => app.gallery.focus(app.gallery.index + step);
  const onRange = target.matches("input[type=range]");
  const onMap = target.id === "map" || target.closest("#map") !== null;
  const keys: Record<string, () => void> = {
    "/": () => byId("text").focus(),
    j: () => move(1), k: () => move(-1),
    y: () => void app.mark("yes"), n: () => void app.mark("no"), u: () => void app.mark("unsure"),
    N: () => void app.markRest(),
    Backspace: () => void app.inventory.undo(),
    " ": () => (dialog.open ? dialog.close() : void app.openTile()),
    m: () => { const id = app.gallery.focused?.id; if (id && !app.inventory.auditing) app.like(id); },
    l: () => void app.inventory.learn(),
    "[": () => app.moveCut(-4),
    "]": () => app.moveCut(4),
    "1": () => app.tab("gallery"), "2": () => app.tab("inventory"), "3": () => app.tab("query"),
    "?": () => showKeys(),
    ...(onMap || onRange ? {} : { Home: () => app.gallery.focus(0), End: () => app.gallery.focus(app.gallery.hits.length - 1) }),
  };
  if (!onRange && !onMap) {
    Object.assign(keys, {
      ArrowRight: () => move(1), ArrowLeft: () => move(-1),
      ArrowDown: () => move(app.gallery.columns), ArrowUp: () => move(-app.gallery.columns),
    });
  }
  if (target.matches("button:not([role=tab]), a, summary") && (event.key === " " || event.key === "Enter")) return;
  const key = event.key.length === 1 && event.key !== "N" ? event.key.toLowerCase() : event.key;
  const act = keys[key];
  if (!act) return;
  event.preventDefault();
  act();
  if (dialog.open && /^(y|n|u|j|k|Arrow)/.test(key)) void app.openTile();
}

/** Show the list of keys. */
export function showKeys(): void {
  const dialog = byId<HTMLDialogElement>("shortcuts");
  const rows: [string, string][] = [
    ["/", "type a query"], ["← → ↑ ↓  J K", "move through the images"], ["Y  N  U", "mark yes, no, unsure, and go to the next"],
    ["Shift N", "mark the rest of the visible images no"], ["Backspace", "take the last mark back"],
    ["Space", "full size with the neighbours"], ["M", "more like this tile"], ["L", "learn from the marks"],
    ["[  ]", "move the threshold"], ["1  2  3", "images, inventory, query"], ["?", "this list"], ["Esc", "close"],
    ["Double-click", "on the map: more like the tile there"], ["Shift and drag", "on the map: search in a box"],
  ];
  dialog.replaceChildren(
    h("h2", { id: "shortcuts-title" }, "Keyboard and mouse"),
    h("dl", { class: "keys" }, rows.flatMap(([keys, what]) => [h("dt", {}, ...keys.split("  ").map((key) => h("kbd", {}, key))), h("dd", {}, what)])),
    h("button", { type: "button", class: "primary", onclick: () => dialog.close() }, "Close"),
  );
  dialog.showModal();
}
