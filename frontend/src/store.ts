// What the page says about a store: the switch, the line on the map, the first steps, limits.

import type { Store } from "./api.js";
import { byId, count, h, plural } from "./dom.js";

/** Show the name and the facts of a store. */
export function showStore(store: Store): void {
  const select = byId<HTMLSelectElement>("stores");
  select.replaceChildren(...store.stores.map((one) => h("option", { value: one, title: one }, shortName(one, store.stores))));
  select.value = store.name;
  select.hidden = store.stores.length < 2;
  const images = store.pictures
    ? store.pictures < store.sampled ? `images: ${store.pictures} of ${store.sampled} sampled tiles can be read` : ""
    : "no images: start the server with --images DIR";
  byId("empty-text").textContent = [
    `${plural(store.tiles, "tile")} embedded by ${store.model.id}`,
    store.missing ? `incomplete: ${plural(store.missing, "shard")} missing` : "",
    store.positioned < store.tiles && store.positioned ? `${count(store.tiles - store.positioned)} tiles without a position` : "",
    images,
  ].filter(Boolean).join(" · ");
  const isPlaced = store.raster !== null;
  byId("no-positions-text").textContent = byId("empty-text").textContent;
  byId("no-positions").hidden = isPlaced;
  byId("map-buttons").hidden = !isPlaced;
  document.body.classList.toggle("no-positions", !isPlaced);
  byId<HTMLOptionElement>("order-places").disabled = !isPlaced;
  byId("basemap-credit").textContent = byId("basemap-credit").title = store.basemap ?? "";
  const badge = byId("read-only");
  badge.hidden = !store.read_only;
  badge.title = readOnlyText(store);
}

/** Return the last part of a store's path, unless another store has the same. */
function shortName(path: string, paths: string[]): string {
  const last = (one: string) => one.split(/[\\/]/).pop()!.replace(/\.store$/, "");
  return paths.filter((one) => last(one) === last(path)).length > 1 ? path : last(path);
}

/** Return why marks are refused, as a sentence; empty if they are not. */
export function readOnlyText(store: Store): string {
  if (!store.read_only) return "";
  const reason = store.read_only_reason || "this server is read-only (--read-only)";
  return `Marks and exports are refused: ${reason}.`;
}

/** Return what the panel of images shows before the first search. */
export function firstSteps(store: Store): HTMLElement {
  const step = (title: string, text: string) => h("li", {}, h("b", {}, title), text);
  const isPlaced = store.raster !== null;
  return h("ol", { class: "steps" },
    step("Describe a landform", `All ${plural(store.tiles, "tile")} are ranked by their similarity to your text${isPlaced ? " and coloured on the map" : ""}.`),
    isPlaced
      ? step("Or start from a tile", "Double-click the map, or drop an image on the page, to find what looks alike.")
      : step("Or start from an image", "Drop an image on the page to find what looks alike."),
    step("Look and decide", store.pictures
      ? "The best tiles appear here, largest similarity first; Space shows one in full with its surroundings."
      : "The best tiles appear here. Their images were not found: start the server with --images DIR."));
}
