// What is searched for: the chips in the search field, and the panel "Query".

import type { Query, Search, Store } from "./api.js";
import { byId, count, h } from "./dom.js";

export const EMPTY: Query = {
  text: [], like: [], not_like: [], not_text: [], pictures: [], bbox: null, region: null, learned: false,
};

/** Whether a query has nothing to rank by. */
export function isEmpty({ text, like, pictures }: Query): boolean {
  return !text.length && !like.length && !pictures.length;
}

/** Whether a query needs the model of the store, and not only its embeddings. */
export function needsModel({ text, not_text, pictures }: Query): boolean {
  return text.length + not_text.length + pictures.length > 0;
}

/** Show the parts of a query that are not typed, each with a button that removes it. */
export function showParts(query: Query, ask: (query: Query) => void): void {
  const { like, not_like, not_text, pictures, learned } = query;
  const chip = (label: string, title: string, changed: Partial<Query>) =>
    h("span", { class: "chip", title }, label, h("button", { type: "button", "aria-label": `Remove: ${title}`, onclick: () => ask({ ...query, ...changed }) }, "×"));
  const without = (list: string[], value: string) => list.filter((one) => one !== value);
  byId("parts").replaceChildren(
    ...(learned ? [chip("learned", "Ranked by what was learned from the marks", { learned: false })] : []),
    ...like.map((id) => chip(`≈ ${id}`, `like ${id}`, { like: without(like, id) })),
    ...pictures.map((id, number) => chip(`image ${number + 1}`, "like an uploaded image", { pictures: without(pictures, id) })),
    ...not_like.map((id) => chip(`− ${id}`, `not like ${id}`, { not_like: without(not_like, id) })),
    ...not_text.map((text) => chip(`− ${text}`, `not ${text}`, { not_text: without(not_text, text) })),
  );
}

/** Fill the panel "Query" before the first search. */
export function clearQueryPanel(): void {
  byId("panel-query").replaceChildren(h("p", { class: "hint" }, "Search first: the query and its command line are shown here."));
}

/** Fill the panel "Query": the command line, a field to subtract a text, and facts of the search. */
export function showQueryPanel(search: Search, store: Store, onSubtract: (text: string) => void, onStatus: (text: string) => void): void {
  const { cli, bound, ms, total } = search;
  const not = h("input", { type: "text", id: "not-text", maxlength: "2000", "aria-label": "Text to search away from" }) as HTMLInputElement;
  byId("panel-query").replaceChildren(
    h("h2", {}, "The same search on the command line"),
    h("pre", { tabindex: "0", role: "region", "aria-label": "Command line" }, h("code", { id: "cli" }, cli)),
    h("button", { type: "button", onclick: () => void navigator.clipboard?.writeText(cli).then(() => onStatus("Copied.")) }, "Copy"),
    h("h2", {}, "Search away from a text"),
    h("form", { class: "inline", onsubmit: (event: Event) => {
      event.preventDefault();
      if (not.value.trim()) onSubtract(not.value.trim());
    } }, not, h("button", { type: "submit" }, "Subtract")),
    h("h2", {}, "This search"),
    h("dl", { class: "metadata" },
      h("dt", {}, "Store"), h("dd", {}, store.path),
      h("dt", {}, "Model"), h("dd", {}, store.model.id),
      h("dt", {}, "Tiles ranked"), h("dd", {}, count(total)),
      h("dt", {}, "Ranking"), h("dd", {}, "exact"),
      h("dt", {}, "Heat map"), h("dd", {}, bound ? `cosine within ${bound.toExponential(1)}` : "exact"),
      h("dt", {}, "Time"), h("dd", {}, Object.entries(ms).map(([step, time]) => `${step} ${Math.round(time)} ms`).join(", "))),
  );
}
