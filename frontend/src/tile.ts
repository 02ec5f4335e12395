// The dialog of a tile: its image with the neighbours, what is known of it, and what can be done.

import { imageUrl, type Mark, type Store, type Tile } from "./api.js";
import { byId, h } from "./dom.js";
import { formatPosition } from "./geometry.js";

export interface TileActions {
  onOpen(id: string): void;
  onMark: ((mark: Mark) => void) | null; // null: marks are not possible
  onLike: (() => void) | null; // null, as the next one, while the ranking is hidden
  onUnlike: (() => void) | null;
  onZoom: (() => void) | null;
}

/** Show a tile in the dialog, which is opened unless it is. */
export function showTile(tile: Tile, store: Store, mark: Mark | null, actions: TileActions): void {
  const dialog = byId<HTMLDialogElement>("tile");
  const showImages = store.pictures > 0;
  const button = (label: string, action: (() => void) | null, name = "", title: string | null = null) =>
    action && h("button", { type: "button", class: name, title, onclick: () => { dialog.close(); action(); } }, label);
  const neighbour = (id: string | null) => {
    if (!id) return h("span", {});
    const current = id === tile.id;
    return h("button", { type: "button", title: id, class: current ? "current" : "", "aria-current": current ? "true" : null, onclick: () => actions.onOpen(id) },
      h("img", { src: imageUrl(id, 96, store.name), alt: current ? `${id}, this tile` : id, loading: "lazy" }));
  };
  dialog.replaceChildren(
    h("div", { class: "tile-images" },
      showImages ? h("img", { class: "full", src: imageUrl(tile.id, 0, store.name), alt: `Tile ${tile.id}` }) : h("p", { class: "absent" }, "no image"),
      showImages && tile.neighbours.length ? h("div", { class: "neighbours", role: "group", "aria-label": "Neighbouring tiles" }, tile.neighbours.flat().map(neighbour)) : null),
    h("div", { class: "tile-text" },
      h("h2", { id: "tile-title" }, formatPosition(tile.lon, tile.lat, 3)),
      h("dl", { class: "metadata" },
        h("dt", {}, "Tile"), h("dd", {}, tile.id),
        tile.score !== null ? [h("dt", {}, "Cosine"), h("dd", {}, tile.score.toFixed(4))] : [],
        tile.quad ? [h("dt", {}, "CTX quad"), h("dd", {}, tile.quad)] : [],
        h("dt", {}, "Source"), h("dd", {}, tile.source),
        mark ? [h("dt", {}, "Mark"), h("dd", {}, mark)] : []),
      h("p", { class: "links" }, tile.links.map((link) => h("a", { href: link.url, target: "_blank", rel: "noopener noreferrer" }, link.title))),
      h("div", { class: "buttons" },
        (["yes", "no", "unsure"] as Mark[]).map((name) =>
          button(name, actions.onMark && (() => actions.onMark!(name)), `mark ${name}`, `${name} (${name[0]!.toUpperCase()})`)),
        button("More like this", actions.onLike),
        button("Not like this", actions.onUnlike),
        button("Zoom here", actions.onZoom),
        h("button", { type: "button", onclick: () => dialog.close() }, "Close"))),
  );
  if (!dialog.open) dialog.showModal();
  // Not the first neighbour: keys such as Space belong to the dialog.
  dialog.focus();
}
