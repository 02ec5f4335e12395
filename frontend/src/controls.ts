// What the buttons, fields and gestures of the page do.

import type { App } from "./app.js";
import { byId } from "./dom.js";
import type { ViewName } from "./geometry.js";
import { onKey, showKeys } from "./keys.js";

/** Connect the elements of the page with the application. */
export function listen(app: App): void {
  byId<HTMLFormElement>("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const texts = byId<HTMLInputElement>("text").value.split(";").map((text) => text.trim()).filter(Boolean);
    if (!texts.length && !app.query.like.length && !app.query.pictures.length) return;
    app.ask({ ...app.query, learned: false, text: texts });
    byId("text").blur();
  });
  byId("threshold").addEventListener("change", () => {
    if (byId<HTMLSelectElement>("order").value === "places") void app.reorder();
  });
  byId("order").addEventListener("change", () => void app.reorder());
  byId("merge").addEventListener("change", () => void app.reorder());
  byId<HTMLInputElement>("size").addEventListener("input", (event) => app.gallery.setSize(Number((event.target as HTMLInputElement).value)));
  byId("theme").addEventListener("click", () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = document.documentElement.dataset.theme;
    app.theme(now === "dark" || (now === "system" && dark) ? "light" : "dark");
  });
  byId("help").addEventListener("click", () => showKeys());
  byId("stores").addEventListener("change", (event) => {
    app.switchStore((event.target as HTMLSelectElement).value).catch((error: unknown) => app.problem(error));
  });
  for (const button of document.querySelectorAll<HTMLElement>("[data-view]")) {
    button.addEventListener("click", () => app.view(button.dataset.view as ViewName));
  }
  byId("in-view").addEventListener("click", () => {
    const [west, south, east, north] = app.map.extent.map((one) => Math.round(one * 1e4) / 1e4) as [number, number, number, number];
    app.setRegion([west, south, east, north], null);
  });
  byId("polygon").addEventListener("click", (event) => {
    const drawing = app.map.togglePolygon();
    (event.currentTarget as HTMLElement).setAttribute("aria-pressed", String(drawing));
    if (drawing) app.status("Click the corners of the polygon; double-click ends it.");
  });
  byId("whole").addEventListener("click", () => app.setRegion(null, null));
  for (const name of ["gallery", "inventory", "query"]) {
    byId(`tab-${name}`).addEventListener("click", () => app.tab(name));
  }
  byId("upload").addEventListener("click", () => byId("file").click());
  byId<HTMLInputElement>("file").addEventListener("change", (event) => {
    const input = event.target as HTMLInputElement;
    void app.upload([...(input.files ?? [])]).finally(() => { input.value = ""; });
  });
  const drop = byId("drop");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.hidden = !event.dataTransfer?.types.includes("Files");
  });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.hidden = true; });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.hidden = true;
    void app.upload([...(event.dataTransfer?.files ?? [])]);
  });
  window.addEventListener("popstate", () => void app.restore());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => app.theme(document.documentElement.dataset.theme ?? "system"));
  // After a click with the mouse, keys belong to the images again and not to the button.
  document.addEventListener("click", (event) => {
    if (event.detail > 0) (event.target as Element).closest<HTMLElement>("main button, header button")?.blur();
  });
  // One listener for all shortcuts, so that they work wherever the focus is but in a text field.
  document.addEventListener("keydown", (event) => onKey(app, event));
  // Another page may have marked tiles in the meantime.
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") void app.inventory.synchronize();
  });
  window.addEventListener("beforeunload", (event) => {
    if (app.inventory.queued) event.preventDefault();
  });
}
