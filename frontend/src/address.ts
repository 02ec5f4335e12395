// The state of the page in its address, so that it can be bookmarked and "Back" works.

import type { Query } from "./api.js";
import type { ViewName } from "./geometry.js";

export interface Address {
  store: string | null; // null: the first of the server
  query: Query;
  cut: number; // 0: not chosen
  centre: [number, number] | null;
  zoom: number | undefined;
  view: ViewName;
  selected: string | null;
}

/** Parse the fragment of an address; what is invalid in it is as if it were not given. */
export function readAddress(fragment: string): Address {
  const state = new URLSearchParams(fragment.replace(/^#/, ""));
  const box = numbers(state.get("bbox"), 4) as Query["bbox"];
  const view = state.get("p");
  return {
    store: state.get("store"),
    query: {
      text: state.getAll("q"), like: state.getAll("like"), not_like: state.getAll("not"), not_text: state.getAll("away"),
      pictures: state.getAll("image"), learned: state.get("learned") === "1", bbox: box, region: parseRegion(state.get("region")),
    },
    cut: Number(state.get("cut")) || 0,
    centre: numbers(state.get("c"), 2) as [number, number] | null,
    zoom: Number(state.get("z")) || undefined,
    view: view === "north" || view === "south" ? view : "plane",
    selected: state.get("sel"),
  };
}

/** Write the fragment of an address. */
export function writeAddress({ store, query, cut, centre, zoom, view, selected }: Address): string {
  const state = new URLSearchParams();
  if (store) state.set("store", store);
  for (const text of query.text) state.append("q", text);
  for (const id of query.like) state.append("like", id);
  for (const id of query.not_like) state.append("not", id);
  for (const text of query.not_text) state.append("away", text);
  for (const id of query.pictures) state.append("image", id);
  if (query.learned) state.set("learned", "1");
  if (query.bbox) state.set("bbox", query.bbox.join(","));
  if (query.region) state.set("region", JSON.stringify(query.region));
  if (cut) state.set("cut", String(cut));
  if (centre) state.set("c", centre.map((degrees) => degrees.toFixed(3)).join(","));
  if (zoom) state.set("z", zoom.toPrecision(4));
  if (view !== "plane") state.set("p", view);
  if (selected) state.set("sel", selected);
  return `#${state}`;
}

function numbers(text: string | null, length: number): number[] | null {
  const values = text?.split(",").map(Number) ?? [];
  return values.length === length && values.every(Number.isFinite) ? values : null;
}

function parseRegion(text: string | null): object | null {
  try {
    return text ? (JSON.parse(text) as object) : null;
  } catch {
    return null;
  }
}
