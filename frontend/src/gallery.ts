// A virtual grid of tiles: only the visible ones are in the document.

import { imageUrl, type Hit, type Mark } from "./api.js";
import { byId, h } from "./dom.js";
import { formatPosition } from "./geometry.js";

export interface GalleryEvents {
  onFocus(index: number): void;
  onOpen(index: number): void;
  onLike(id: string): void;
  onMark(index: number, mark: Mark): void;
  onMore(): void;
}

const GAP = 8;
const CAPTION = 44;

export class Gallery {
  hits: Hit[] = [];
  index = -1;
  columns = 3;
  private readonly root = byId("gallery");
  private readonly body = h("div", { class: "gallery-body" });
  private readonly cells = new Map<number, HTMLElement>();
  private side = 120;
  private size = 3;
  private store = "";
  private showScores = true;
  private hasImages = true;
  canMark = false;

  constructor(private readonly events: GalleryEvents) {
    this.root.append(this.body);
    this.root.addEventListener("scroll", () => this.render(), { passive: true });
    new ResizeObserver(() => this.layout()).observe(this.root);
  }

  show(hits: Hit[], options: { store: string; scores?: boolean; images?: boolean; keep?: boolean; canMark?: boolean }): void {
    this.hits = hits;
    this.store = options.store;
    this.showScores = options.scores ?? true;
    this.hasImages = options.images ?? true;
    this.canMark = options.canMark ?? false;
    if (!options.keep) {
      this.index = hits.length ? 0 : -1;
      this.root.scrollTop = 0;
    }
    this.clear();
    this.layout();
  }

  /** Show something else than tiles, such as what to do first. */
  blank(content: HTMLElement): void {
    this.show([], { store: this.store });
    this.body.replaceChildren(content);
  }

  private clear(): void {
    this.body.replaceChildren();
    this.cells.clear();
  }

  setSize(size: number): void {
    this.size = size;
    this.clear();
    this.layout();
  }

  /** Update a cell after a mark. */
  refresh(index: number): void {
    this.cells.get(index)?.remove();
    this.cells.delete(index);
    this.render();
  }

  refreshAll(): void {
    this.clear();
    this.render();
  }

  private layout(): void {
    const width = this.root.clientWidth - 2 * GAP;
    const ideal = 64 + 26 * this.size;
    const columns = Math.max(1, Math.min(8, Math.round((width + GAP) / (ideal + GAP))));
    const side = Math.floor((width - GAP * (columns - 1)) / columns);
    if (columns !== this.columns || side !== this.side) this.clear();
    this.columns = columns;
    this.side = side;
    const rows = Math.ceil(this.hits.length / columns);
    this.body.style.height = `${rows * (side + CAPTION + GAP) + GAP}px`;
    this.render();
  }

  private render(): void {
    const rowHigh = this.side + CAPTION + GAP;
    const first = Math.max(0, Math.floor((this.root.scrollTop - 400) / rowHigh)) * this.columns;
    const last = Math.min(this.hits.length, Math.ceil((this.root.scrollTop + this.root.clientHeight + 400) / rowHigh) * this.columns);
    for (const [number, cell] of this.cells) {
      if (number < first || number >= last) {
        cell.remove();
        this.cells.delete(number);
      }
    }
    for (let number = first; number < last; number += 1) {
      if (this.cells.has(number)) continue;
      const cell = this.cell(number);
      this.cells.set(number, cell);
      this.body.append(cell);
    }
    if (this.hits.length && last >= this.hits.length) this.events.onMore();
    this.mark();
  }

  private cell(number: number): HTMLElement {
    const hit = this.hits[number]!;
    const row = Math.floor(number / this.columns);
    const column = number % this.columns;
    const position = formatPosition(hit.lon, hit.lat, 1);
    const image = h("img", {
      alt: "", loading: "lazy", decoding: "async", draggable: "false",
      src: this.hasImages ? imageUrl(hit.id, this.side > 170 ? 256 : 160, this.store) : null,
      onerror: (event: Event) => (event.target as HTMLElement).closest(".cell")?.classList.add("no-image"),
    });
    const button = (text: string, label: string, act: () => void, name: string) =>
      h("button", {
        type: "button", tabindex: "-1", title: label, "aria-label": label, class: name,
        onclick: (event: Event) => { event.stopPropagation(); act(); },
      }, text);
    const cell = h("div", {
      role: "option", id: `hit-${number}`, "aria-selected": "false", "data-number": number,
      "data-id": hit.id, "data-mark": hit.mark ?? "",
      class: this.hasImages ? "cell" : "cell no-image",
      "aria-setsize": this.hits.length, "aria-posinset": number + 1,
      "aria-label": `${this.showScores ? `rank ${hit.rank}, ${position}` : `image ${number + 1}`}${hit.mark ? `, marked ${hit.mark}` : ""}`,
      onclick: () => this.focus(number),
      ondblclick: () => this.events.onOpen(number),
    },
      h("div", { class: "frame" }, image, h("span", { class: "absent" }, "no image"),
        h("div", { class: "actions", "aria-hidden": "true" },
          this.canMark && button("✓", "Yes (Y)", () => this.events.onMark(number, "yes"), "yes"),
          this.canMark && button("✕", "No (N)", () => this.events.onMark(number, "no"), "no"),
          this.showScores && button("≈", "More like this (M)", () => this.events.onLike(hit.id), "like"))),
      h("div", { class: "caption" },
        h("div", {},
          h("b", {}, this.showScores ? String(hit.rank) : `${number + 1} of ${this.hits.length}`),
          hit.tiles ? h("span", { class: "merged" }, hit.tiles === 1 ? "1 tile" : `${hit.tiles} tiles`) : null,
          this.showScores && hit.score !== null ? h("span", { class: "score" }, hit.score.toFixed(3)) : null),
        this.showScores ? h("span", { class: "position" }, position) : null));
    cell.style.transform = `translate(${GAP + column * (this.side + GAP)}px, ${GAP + row * (this.side + CAPTION + GAP)}px)`;
    cell.style.width = `${this.side}px`;
    cell.style.setProperty("--side", `${this.side}px`);
    return cell;
  }

  private mark(): void {
    for (const [number, cell] of this.cells) {
      cell.setAttribute("aria-selected", String(number === this.index));
    }
    if (this.cells.has(this.index)) this.root.setAttribute("aria-activedescendant", `hit-${this.index}`);
    else this.root.removeAttribute("aria-activedescendant");
  }

  focus(index: number, { announce = true } = {}): void {
    if (!this.hits.length) return;
    this.index = Math.max(0, Math.min(this.hits.length - 1, index));
    const rowHigh = this.side + CAPTION + GAP;
    const top = Math.floor(this.index / this.columns) * rowHigh;
    if (top < this.root.scrollTop) this.root.scrollTop = top;
    else if (top + rowHigh > this.root.scrollTop + this.root.clientHeight) {
      this.root.scrollTop = top + rowHigh + GAP - this.root.clientHeight;
    }
    this.render();
    if (announce) this.events.onFocus(this.index);
  }

  get focused(): Hit | null {
    return this.hits[this.index] ?? null;
  }
}
