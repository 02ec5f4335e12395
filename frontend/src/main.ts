// The page: connects the query, the map, the gallery and the inventory.

import {
  ApiError, get, imageUrl, request, send, urlOf,
  type Feature, type Hit, type Mark, type Model, type Place, type Query, type Search, type Store, type Tile,
} from "./api.js";
import { Cut } from "./cut.js";
import { byId, count, h, plural } from "./dom.js";
import { Gallery } from "./gallery.js";
import { formatPosition, type ViewName } from "./geometry.js";
import { InventoryPanel } from "./inventory.js";
import { PlanetMap, TILES_BELOW } from "./map.js";
import { ScoreRaster, setRamp } from "./raster.js";
import "./style.css";

// Tiles that the server returns for a view at most: `_MAX_FOOTPRINTS` of web/app.py.
const MAX_TILES = 400;

const EMPTY: Query = {
  text: [], like: [], not_like: [], not_text: [], pictures: [], bbox: null, region: null, learned: false,
};

class App {
  store!: Store;
  query: Query = structuredClone(EMPTY);
  search: Search | null = null;
  raster: ScoreRaster | null = null;
  private selected: string | null = null;
  private loadingMore = false;
  private exhausted = false;
  private generation = 0;
  readonly cut = new Cut((value) => this.recolour(value));
  readonly map = new PlanetMap(byId("map"), {
    onSelect: (lon, lat) => void this.selectAt(lon, lat),
    onLike: (lon, lat) => void this.likeAt(lon, lat),
    onHit: (id) => this.select(id, { reveal: false }),
    onMove: () => { this.saveUrl(false); void this.showTiles(); },
    onPointer: (text) => { byId("pointer").textContent = text; },
    onBox: (box) => this.setRegion(box, null),
    onPolygon: (region) => this.setRegion(null, region),
  });
  readonly gallery = new Gallery({
    onFocus: (index) => this.onFocus(index),
    onOpen: () => this.openTile(),
    onLike: (id) => this.like(id),
    onMark: (index, mark) => { this.gallery.focus(index); void this.mark(mark); },
    onMore: () => void this.more(),
  });
  readonly inventory = new InventoryPanel({
    onSearch: (search, learned) => void this.show(search, learned),
    onPage: (hits, text) => this.showAudit(hits, text),
    onLeave: () => this.leaveAudit(),
    onMarks: (marks) => this.onMarks(marks),
    onProblem: (error) => this.problem(error),
    onStatus: (text) => this.status(text),
  });

  async start(): Promise<void> {
    this.listen();
    this.theme(localStorage.getItem("theme") ?? "system");
    await this.openStore(new URLSearchParams(location.hash.slice(1)).get("store"));
    await this.restore();
    document.body.dataset.ready = "1";
    this.blank();
  }

  // --- the store -------------------------------------------------------------------------

  private async openStore(name: string | null): Promise<void> {
    this.store = await get<Store>("/store" + (name ? `?store=${encodeURIComponent(name)}` : ""));
    const select = byId<HTMLSelectElement>("stores");
    select.replaceChildren(...this.store.stores.map((one) => h("option", { value: one, selected: one === this.store.name }, one)));
    select.hidden = this.store.stores.length < 2;
    this.raster = this.store.raster ? new ScoreRaster(this.store.raster) : null;
    this.search = null;
    const images = this.store.pictures
      ? this.store.pictures < this.store.sampled ? `images: ${this.store.pictures} of ${this.store.sampled} sampled tiles can be read` : ""
      : "no images: start the server with --images DIR";
    byId("empty-text").textContent = [
      `${plural(this.store.tiles, "tile")} embedded by ${this.store.model.id}`,
      this.store.missing ? `incomplete: ${plural(this.store.missing, "shard")} missing` : "",
      this.store.positioned < this.store.tiles ? `${count(this.store.tiles - this.store.positioned)} tiles without a position` : "",
      images,
    ].filter(Boolean).join(" · ");
    byId("suggestions").replaceChildren(...this.store.landforms.map((text) =>
      h("button", { type: "button", onclick: () => this.ask({ ...this.anew(), text: [text] }) }, text)));
    byId("basemap-credit").textContent = byId("basemap-credit").title = this.store.basemap ?? "";
    if (this.store.basemap) {
      const image = new Image();
      image.onload = () => this.map.setBase(image);
      image.src = urlOf("/basemap");
    }
    get<Feature[]>("/features").then((features) => this.map.setFeatures(features), () => undefined);
    if (this.store.raster) {
      const { west, north, columns, rows, cell_lon, cell_lat } = this.store.raster;
      const width = columns * cell_lon;
      const high = rows * cell_lat;
      if (width < 120 && high < 90) this.map.fit([west, north - high, west + width, north]);
      else this.map.fitPlanet();
    }
    byId("map").classList.toggle("no-positions", !this.store.raster);
    this.modelState(this.store.model);
    if (this.store.model.state === "loading") {
      const events = new EventSource(urlOf("/events", { store: this.store.name }));
      events.addEventListener("model", (event) => {
        const model = JSON.parse((event as MessageEvent).data) as Model;
        this.modelState(model);
        if (model.state !== "loading") events.close();
      });
      events.onerror = () => { if (events.readyState === EventSource.CLOSED) events.close(); };
    }
    await this.inventory.open(this.store);
  }

  private waiting = false; // a query of the user starts when the model is loaded
  private modelTimer = 0;

  private modelState(model: Model): void {
    this.store.model = model;
    const input = byId<HTMLInputElement>("text");
    const usable = model.text && model.state !== "none";
    input.disabled = !usable;
    input.placeholder = !model.text
      ? `${model.id} embeds images only: double-click a tile`
      : model.state === "none" ? "Text search is not available: double-click a tile" : "Describe a landform";
    for (const button of byId("suggestions").querySelectorAll("button")) button.disabled = !usable;
    byId<HTMLButtonElement>("upload").disabled = model.state === "none";
    clearInterval(this.modelTimer);
    const shown = byId("model");
    shown.hidden = model.state !== "loading";
    if (model.state === "loading") {
      const start = performance.now();
      const tick = () => { shown.textContent = `Loading the model, ${Math.round((performance.now() - start) / 1000)} s`; };
      tick();
      this.modelTimer = window.setInterval(tick, 1000);
    } else if (model.state === "none" && model.text) this.status(`Text search is not available: ${model.reason}`);
    if (model.state !== "loading" && this.waiting) void this.run();
  }

  /** What the panel of images shows before the first search. */
  private blank(): void {
    if (this.search || this.inventory.auditing) return;
    const images = this.store.pictures > 0;
    const step = (title: string, text: string) => h("li", {}, h("b", {}, title), text);
    this.gallery.blank(h("ol", { class: "steps" },
      step("Describe a landform", `All ${plural(this.store.tiles, "tile")} are ranked by their similarity to your text and coloured on the map.`),
      step("Or start from a tile", "Double-click the map, or drop an image on the page, to find what looks alike."),
      step("Look and decide", images ? "The best tiles appear here, largest similarity first; Space shows one in full with its surroundings." : "The best tiles appear here. Their images were not found: start the server with --images DIR."),
    ));
  }

  // --- queries ---------------------------------------------------------------------------

  ask(query: Query): void {
    this.query = query;
    byId<HTMLInputElement>("text").value = query.text.join("; ");
    void this.run();
  }

  /** An empty query in the present region. */
  private anew(): Query {
    return { ...structuredClone(EMPTY), bbox: this.query.bbox, region: this.query.region };
  }

  like(id: string): void {
    this.ask({ ...this.anew(), like: [id] });
  }

  private unlike(id: string): void {
    if (!this.query.text.length && !this.query.like.length && !this.query.pictures.length) return;
    this.ask({ ...this.query, learned: false, not_like: [...new Set([...this.query.not_like, id])] });
  }

  private setRegion(bbox: Query["bbox"], region: object | null): void {
    this.query = { ...this.query, bbox, region };
    const ring = (region as { coordinates?: number[][][] } | null)?.coordinates?.[0];
    this.map.setRegion(bbox ? { box: bbox } : ring ? { polygon: ring } : null);
    byId("whole").hidden = !bbox && !region;
    if (this.search) void this.run();
    else this.saveUrl(true);
  }

  private get isEmpty(): boolean {
    const { text, like, pictures } = this.query;
    return !text.length && !like.length && !pictures.length;
  }

  async run(): Promise<void> {
    this.showParts();
    if (this.query.learned) return void this.inventory.learn();
    this.waiting = false;
    if (this.isEmpty) {
      if (this.search || !this.restoring) this.clear();
      return;
    }
    const { model } = this.store;
    const needsModel = this.query.text.length + this.query.not_text.length + this.query.pictures.length > 0;
    if (needsModel && model.state === "loading") {
      this.waiting = true;
      this.status(`The search starts when ${model.id} is loaded.`);
      return;
    }
    if (needsModel && model.state === "none") {
      return this.problem(new ApiError(`Text and images cannot be searched for: ${model.reason || `${model.id} has no text encoder`}.`, "Double-click a tile.", "model", 422));
    }
    const generation = (this.generation += 1);
    document.body.classList.add("busy");
    const slow = setTimeout(() => this.status("Searching…"), 250);
    try {
      const { text, like, not_like, not_text, pictures, bbox, region } = this.query;
      const search = await send<Search>("POST", "/searches", {
        text, like, not_like, not_text, pictures, bbox, region, store: this.store.name,
      });
      if (generation === this.generation) await this.show(search, false);
    } catch (error) {
      if (error instanceof ApiError && error.code === "superseded") return;
      if (generation === this.generation) this.problem(error);
    } finally {
      clearTimeout(slow);
      if (generation === this.generation) document.body.classList.remove("busy");
    }
  }

  /** Back to the state before the first search. */
  private clear(): void {
    this.generation += 1;
    this.search = null;
    this.selected = null;
    this.map.setScore(null);
    this.map.setSelected(null);
    this.map.setHits([]);
    byId("cut").hidden = true;
    byId("empty").hidden = false;
    byId("panel-query").replaceChildren(h("p", { class: "hint" }, "Search first: the query and its command line are shown here."));
    delete document.body.dataset.search;
    this.status("");
    this.blank();
    this.saveUrl(true);
  }

  /** Show a finished search: raster, threshold, hits. */
  async show(search: Search, learned: boolean): Promise<void> {
    const generation = (this.generation += 1);
    this.online();
    if (this.inventory.auditing) this.inventory.pause();
    this.search = search;
    this.query = { ...this.query, learned };
    if (this.raster) {
      const response = await request(`/searches/${search.key}/raster`);
      const codes = new Uint8Array(await response.arrayBuffer());
      if (generation !== this.generation) return;
      setRamp(this.isDark);
      this.raster.load(codes, search.counts);
      this.cut.show(search);
      this.raster.recolour(this.cut.value);
      this.map.setScore(this.raster);
    }
    byId("empty").hidden = true;
    document.body.classList.remove("audit");
    this.exhausted = false;
    this.showHits(search.hits);
    this.showParts();
    this.showQuery();
    const weak = search.stands_out === false ? " Nothing stands out from the other tiles." : "";
    this.status(`${search.title}: ${plural(search.total, "tile")} ranked.${weak}${search.notes.map((note) => ` Note: ${note}.`).join("")}`);
    this.saveUrl(true);
    document.body.classList.remove("busy");
    document.body.dataset.search = search.key;
  }

  private showHits(hits: Hit[]): void {
    const marks = this.inventory.marks;
    for (const hit of hits) hit.mark = marks.get(hit.id)?.mark ?? null;
    this.map.setHits(hits);
    this.map.setScoreVisible(true);
    this.gallery.show(hits, { store: this.store.name, images: this.store.pictures > 0, canMark: this.inventory.canMark });
    if (byId<HTMLSelectElement>("order").value !== "tiles") void this.reorder();
  }

  private leaveAudit(): void {
    document.body.classList.remove("audit");
    byId("cut").hidden = !this.search || !this.raster;
    byId("empty").hidden = this.search !== null;
    this.map.setSelected(null);
    if (this.search) this.showHits(this.search.hits);
    else {
      this.map.setScoreVisible(true);
      this.blank();
    }
  }

  private showAudit(hits: Hit[], text: string): void {
    // Blind: neither scores, ranks, earlier marks nor the heat map are shown.
    document.body.classList.add("audit");
    byId("cut").hidden = true;
    byId("empty").hidden = true;
    this.map.setMarks([]);
    this.map.setTiles([]);
    this.map.setHits([]);
    this.map.setScoreVisible(false);
    this.gallery.show(hits, { store: this.store.name, scores: false, images: this.store.pictures > 0, canMark: true });
    this.status(text);
    this.tab("gallery");
    this.gallery.focus(0);
  }

  private async more(): Promise<void> {
    const order = byId<HTMLSelectElement>("order").value;
    if (!this.search || this.loadingMore || this.exhausted || this.inventory.auditing || order === "places") return;
    this.loadingMore = true;
    const search = this.search;
    try {
      const page = await get<{ hits: Hit[]; more: boolean }>(`/searches/${search.key}/hits?offset=${search.hits.length}&limit=200`);
      if (search !== this.search) return;
      for (const hit of page.hits) hit.mark = this.inventory.marks.get(hit.id)?.mark ?? null;
      search.hits.push(...page.hits);
      this.exhausted = !page.more;
      const shown = order === "unmarked" ? search.hits.filter((hit) => !hit.mark) : search.hits;
      this.gallery.show(shown, { store: this.store.name, images: this.store.pictures > 0, keep: true, canMark: this.inventory.canMark });
    } catch (error) {
      await this.forgotten(error);
    } finally {
      this.loadingMore = false;
    }
  }

  /** A search that the server no longer keeps is asked for again. */
  private async forgotten(error: unknown): Promise<void> {
    if (error instanceof ApiError && error.status === 410) await this.run();
    else this.problem(error);
  }

  private async reorder(): Promise<void> {
    const order = byId<HTMLSelectElement>("order").value;
    document.querySelector<HTMLElement>(".merge")!.hidden = order !== "places";
    if (!this.search || this.inventory.auditing) return;
    const options = { store: this.store.name, images: this.store.pictures > 0, canMark: this.inventory.canMark };
    if (order === "places") {
      const deg = Number(byId<HTMLInputElement>("merge").value) || 0.5;
      try {
        const page = await get<{ hits: Hit[] }>(`/searches/${this.search.key}/hits?limit=500&merge_deg=${deg}&cut=${this.cut.value}`);
        for (const hit of page.hits) hit.mark = this.inventory.marks.get(hit.id)?.mark ?? null;
        this.map.setHits(page.hits);
        this.gallery.show(page.hits, options);
        this.status(`${plural(page.hits.length, "place")} among the ${plural(Math.min(this.cut.tiles, 10000), "tile")} above the threshold.`);
      } catch (error) {
        await this.forgotten(error);
      }
      return;
    }
    const hits = order === "unmarked" ? this.search.hits.filter((hit) => !hit.mark) : this.search.hits;
    this.map.setHits(this.search.hits);
    this.gallery.show(hits, options);
  }

  private recolour(cut: number): void {
    if (!this.raster) return;
    this.raster.recolour(cut);
    this.map.setScore(this.raster);
    this.saveUrl(false);
  }

  private moveCut(step: number): void {
    if (!this.search || this.inventory.auditing) return;
    this.cut.set(this.cut.value + step);
    this.recolour(this.cut.value);
    if (byId<HTMLSelectElement>("order").value === "places") void this.reorder();
  }

  // --- what is shown about the query -----------------------------------------------------

  private showParts(): void {
    const { like, not_like, not_text, pictures, learned } = this.query;
    const chip = (label: string, title: string, remove: () => void) =>
      h("span", { class: "chip", title }, label, h("button", { type: "button", "aria-label": `Remove: ${title}`, onclick: remove }, "×"));
    const without = (list: string[], value: string) => list.filter((one) => one !== value);
    byId("parts").replaceChildren(
      ...(learned ? [chip("learned", "Ranked by what was learned from the marks", () => this.ask({ ...this.query, learned: false }))] : []),
      ...like.map((id) => chip(`≈ ${id}`, `like ${id}`, () => this.ask({ ...this.query, like: without(like, id) }))),
      ...pictures.map((id, number) => chip(`image ${number + 1}`, "like an uploaded image", () => this.ask({ ...this.query, pictures: without(pictures, id) }))),
      ...not_like.map((id) => chip(`− ${id}`, `not like ${id}`, () => this.ask({ ...this.query, not_like: without(not_like, id) }))),
      ...not_text.map((text) => chip(`− ${text}`, `not ${text}`, () => this.ask({ ...this.query, not_text: without(not_text, text) }))),
    );
  }

  private showQuery(): void {
    if (!this.search) return;
    const { cli, bound, ms, total } = this.search;
    const not = h("input", { type: "text", id: "not-text", maxlength: "2000", "aria-label": "Text to search away from" }) as HTMLInputElement;
    byId("panel-query").replaceChildren(
      h("h2", {}, "The same search on the command line"),
      h("pre", { tabindex: "0" }, h("code", { id: "cli" }, cli)),
      h("button", { type: "button", onclick: () => void navigator.clipboard?.writeText(cli).then(() => this.status("Copied.")) }, "Copy"),
      h("h2", {}, "Search away from a text"),
      h("form", { class: "inline", onsubmit: (event: Event) => {
        event.preventDefault();
        if (not.value.trim()) this.ask({ ...this.query, learned: false, not_text: [...this.query.not_text, not.value.trim()] });
      } }, not, h("button", { type: "submit" }, "Subtract")),
      h("h2", {}, "This search"),
      h("dl", { class: "metadata" },
        h("dt", {}, "Store"), h("dd", {}, this.store.path),
        h("dt", {}, "Model"), h("dd", {}, this.store.model.id),
        h("dt", {}, "Tiles ranked"), h("dd", {}, count(total)),
        h("dt", {}, "Ranking"), h("dd", {}, "exact"),
        h("dt", {}, "Heat map"), h("dd", {}, bound ? `cosine within ${bound.toExponential(1)}` : "exact"),
        h("dt", {}, "Time"), h("dd", {}, Object.entries(ms).map(([step, time]) => `${step} ${Math.round(time)} ms`).join(", "))),
    );
  }

  // --- selection -------------------------------------------------------------------------

  private onFocus(index: number): void {
    const hit = this.gallery.hits[index];
    if (!hit) return;
    this.selected = hit.id;
    if (hit.lon !== null && hit.lat !== null) {
      this.map.setSelected({ lon: hit.lon, lat: hit.lat });
      this.map.reveal(hit.lon, hit.lat);
    } else this.map.setSelected(null);
    this.saveUrl(false);
  }

  private select(id: string, { reveal = true } = {}): void {
    this.selected = id;
    const index = this.gallery.hits.findIndex((hit) => hit.id === id);
    if (index >= 0) {
      this.tab("gallery");
      this.gallery.focus(index, { announce: reveal });
      const hit = this.gallery.hits[index]!;
      if (!reveal && hit.lon !== null && hit.lat !== null) this.map.setSelected({ lon: hit.lon, lat: hit.lat });
    } else void this.openTile(id);
    this.saveUrl(false);
  }

  private async selectAt(lon: number, lat: number): Promise<void> {
    if (this.inventory.auditing) return;
    try {
      const hit = await get<Hit>(`/at?lon=${lon}&lat=${lat}&store=${encodeURIComponent(this.store.name)}`);
      this.select(hit.id, { reveal: false });
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) this.status("No tile here.");
      else this.problem(error);
    }
  }

  private async likeAt(lon: number, lat: number): Promise<void> {
    if (this.inventory.auditing) return;
    try {
      this.like((await get<Hit>(`/at?lon=${lon}&lat=${lat}&store=${encodeURIComponent(this.store.name)}`)).id);
    } catch (error) {
      this.problem(error);
    }
  }

  private async openTile(id = this.gallery.focused?.id): Promise<void> {
    if (!id) return;
    const auditing = this.inventory.auditing;
    try {
      const key = this.search && !auditing ? `&search=${this.search.key}` : "";
      const path = id.split("/").map(encodeURIComponent).join("/");
      const tile = await get<Tile>(`/tiles/${path}?store=${encodeURIComponent(this.store.name)}${key}`);
      this.showTile(tile);
    } catch (error) {
      await this.forgotten(error);
    }
  }

  private showTile(tile: Tile): void {
    const dialog = byId<HTMLDialogElement>("tile");
    const act = (action: () => void) => () => { dialog.close(); action(); };
    if (tile.lon !== null && tile.lat !== null) {
      const { lon, lat, width_deg, height_deg } = tile;
      this.map.setSelected(width_deg !== null && height_deg !== null ? { id: tile.id, lon, lat, width_deg, height_deg } as Place : { lon, lat });
    }
    const mark = this.inventory.auditing ? undefined : this.inventory.marks.get(tile.id)?.mark;
    const showImages = this.store.pictures > 0;
    dialog.replaceChildren(
      h("div", { class: "tile-images" },
        showImages ? h("img", { class: "full", src: imageUrl(tile.id, 0, this.store.name), alt: `Tile ${tile.id}` }) : h("p", { class: "absent" }, "no image"),
        showImages && tile.neighbours.length ? h("div", { class: "neighbours", "aria-label": "Neighbouring tiles" },
          tile.neighbours.flat().map((id) => id
            ? h("button", { type: "button", title: id, class: id === tile.id ? "current" : "", onclick: () => void this.openTile(id) },
                h("img", { src: imageUrl(id, 96, this.store.name), alt: id, loading: "lazy" }))
            : h("span", {}))) : null),
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
          this.inventory.canMark && (!this.inventory.auditing || tile.id === this.gallery.focused?.id) ? (["yes", "no", "unsure"] as Mark[]).map((name) =>
            h("button", { type: "button", class: `mark ${name}`, title: `${name} (${name[0]!.toUpperCase()})`, onclick: act(() => void this.markTile(tile, name)) }, name)) : [],
          this.inventory.auditing ? [] : [
            h("button", { type: "button", onclick: act(() => this.like(tile.id)) }, "More like this"),
            h("button", { type: "button", onclick: act(() => this.unlike(tile.id)) }, "Not like this"),
            tile.lon !== null ? h("button", { type: "button", onclick: act(() => this.map.zoomTo(tile.lon!, tile.lat!, TILES_BELOW / 6)) }, "Zoom here") : null],
          h("button", { type: "button", onclick: () => dialog.close() }, "Close"))),
    );
    if (!dialog.open) dialog.showModal();
  }

  /** Draw the tiles themselves when the view is close. */
  private async showTiles(): Promise<void> {
    if (!this.store?.pictures || this.map.viewName !== "plane" || this.map.zoom >= TILES_BELOW || this.inventory.auditing) {
      this.map.setTiles([]);
      return;
    }
    const [west, south, east, north] = this.map.extent;
    try {
      const places = await get<Place[]>(`/tiles?bbox=${[west, south, east, north].map((one) => one.toFixed(5)).join(",")}&store=${encodeURIComponent(this.store.name)}`);
      const pixels = (places[0]?.height_deg ?? 0.2) / this.map.zoom;
      const size = pixels > 300 ? 512 : pixels > 140 ? 256 : pixels > 70 ? 160 : 96;
      if (places.length >= MAX_TILES) this.status(`The ${MAX_TILES} tiles nearest to the centre are drawn; zoom in to see all.`);
      this.map.setTiles(places.map((place) => ({ ...place, url: imageUrl(place.id, size, this.store.name) })));
    } catch (error) {
      this.problem(error);
    }
  }

  // --- marks -----------------------------------------------------------------------------

  private async mark(mark: Mark | null): Promise<void> {
    const hit = this.gallery.focused;
    if (!hit || !this.inventory.canMark) {
      if (!this.inventory.canMark) this.status(this.inventory.whyNot);
      return;
    }
    const index = this.gallery.index;
    // Shown at once; saved in the background.
    const saved = this.markHit(hit, mark);
    this.gallery.refresh(index);
    if (mark) this.gallery.focus(index + 1);
    await saved;
  }

  private async markHit(hit: Hit, mark: Mark | null): Promise<void> {
    hit.mark = mark;
    await this.inventory.mark(hit, mark, this.search);
  }

  private async markTile(tile: Tile, mark: Mark): Promise<void> {
    const known = this.gallery.focused?.id === tile.id ? this.gallery.focused : this.gallery.hits.find((hit) => hit.id === tile.id);
    await this.markHit(known ?? { rank: 0, id: tile.id, lon: tile.lon, lat: tile.lat, score: tile.score }, mark);
    this.gallery.refreshAll();
  }

  /** The visible tiles after the focused one that have no mark are marked "no". */
  private async markRest(): Promise<void> {
    if (!this.inventory.canMark) return;
    const end = Math.min(this.gallery.hits.length, this.gallery.index + 4 * this.gallery.columns);
    for (let index = this.gallery.index; index < end; index += 1) {
      const hit = this.gallery.hits[index]!;
      if (!hit.mark) void this.markHit(hit, "no");
    }
    this.gallery.refreshAll();
    this.gallery.focus(end);
  }

  private onMarks(marks: Map<string, { lon: number | null; lat: number | null; mark: Mark }>): void {
    if (this.inventory.auditing) {
      this.gallery.refreshAll();
      return;
    }
    for (const hit of this.gallery.hits) hit.mark = marks.get(hit.id)?.mark ?? null;
    this.gallery.canMark = this.inventory.canMark;
    this.gallery.refreshAll();
    this.map.setMarks([...marks.values()]
      .filter((one): one is { lon: number; lat: number; mark: Mark } => one.lon !== null && one.lat !== null));
  }

  // --- the frame of the page -------------------------------------------------------------

  status(text: string): void {
    byId("status").textContent = text;
  }

  problem(error: unknown): void {
    document.body.classList.remove("busy");
    if (error instanceof ApiError && error.status === 0) {
      this.offline();
      return;
    }
    const text = error instanceof ApiError ? [error.message, error.remedy].filter(Boolean).join(" — ") : String(error);
    const banner = byId("banner");
    banner.replaceChildren(h("span", {}, text), h("button", { type: "button", "aria-label": "Close", onclick: () => { banner.hidden = true; } }, "×"));
    banner.dataset.kind = "error";
    banner.hidden = false;
  }

  private offline(): void {
    const banner = byId("banner");
    if (banner.dataset.kind === "offline" && !banner.hidden) return;
    banner.dataset.kind = "offline";
    banner.replaceChildren(h("span", {}, "The server does not answer. Marks are kept on this page and sent when it is back."));
    banner.hidden = false;
    const retry = async () => {
      try {
        await get<Store>("/store");
        this.online();
        this.status("The server is back.");
        await this.inventory.flush();
        if (!this.search && !this.isEmpty) await this.run();
      } catch {
        setTimeout(() => void retry(), 2000);
      }
    };
    setTimeout(() => void retry(), 2000);
  }

  private online(): void {
    const banner = byId("banner");
    if (banner.dataset.kind === "offline") banner.hidden = true;
    if (banner.dataset.kind === "error") banner.hidden = true;
    banner.dataset.kind = "";
  }

  private tab(name: string): void {
    for (const one of ["gallery", "inventory", "query"]) {
      const button = byId(`tab-${one}`);
      button.setAttribute("aria-selected", String(one === name));
      button.tabIndex = one === name ? 0 : -1;
      byId(`panel-${one}`).hidden = one !== name;
    }
  }

  private theme(name: string): void {
    document.documentElement.dataset.theme = name;
    localStorage.setItem("theme", name);
    this.map.setTheme(this.isDark);
    if (this.search) {
      this.cut.describe();
      this.recolour(this.cut.value);
    }
  }

  private get isDark(): boolean {
    const name = document.documentElement.dataset.theme;
    return name === "dark" || (name !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  }

  private view(name: ViewName): void {
    this.map.setView(name);
    for (const button of document.querySelectorAll<HTMLElement>("[data-view]")) {
      button.setAttribute("aria-pressed", String(button.dataset.view === name));
    }
    byId("polygon").hidden = byId("in-view").hidden = name !== "plane";
    byId("whole").hidden = !this.query.bbox && !this.query.region;
    this.saveUrl(true);
  }

  // --- the address -----------------------------------------------------------------------

  private urlTimer = 0;
  private restoring = true; // until the address of the page has been read

  private saveUrl(push: boolean): void {
    if (this.restoring || !this.store) return;
    const write = () => {
      const state = new URLSearchParams();
      if (this.store.stores.length > 1) state.set("store", this.store.name);
      for (const text of this.query.text) state.append("q", text);
      for (const id of this.query.like) state.append("like", id);
      for (const id of this.query.not_like) state.append("not", id);
      for (const text of this.query.not_text) state.append("away", text);
      for (const id of this.query.pictures) state.append("image", id);
      if (this.query.learned) state.set("learned", "1");
      if (this.query.bbox) state.set("bbox", this.query.bbox.join(","));
      if (this.query.region) state.set("region", JSON.stringify(this.query.region));
      if (this.search) state.set("cut", String(this.cut.value));
      const [lon, lat] = this.map.centre;
      state.set("c", `${lon.toFixed(3)},${lat.toFixed(3)}`);
      state.set("z", this.map.zoom.toPrecision(4));
      if (this.map.viewName !== "plane") state.set("p", this.map.viewName);
      if (this.selected) state.set("sel", this.selected);
      const hash = `#${state}`;
      if (hash === location.hash) return;
      if (push) history.pushState(null, "", hash);
      else history.replaceState(null, "", hash);
    };
    clearTimeout(this.urlTimer);
    if (push) write();
    else this.urlTimer = window.setTimeout(write, 200);
  }

  private async restore(): Promise<void> {
    const state = new URLSearchParams(location.hash.slice(1));
    clearTimeout(this.urlTimer);
    this.restoring = true;
    try {
      const box = state.get("bbox")?.split(",").map(Number);
      let region: object | null = null;
      try {
        region = state.get("region") ? (JSON.parse(state.get("region")!) as object) : null;
      } catch {
        region = null;
      }
      this.query = {
        ...structuredClone(EMPTY),
        text: state.getAll("q"), like: state.getAll("like"), not_like: state.getAll("not"), not_text: state.getAll("away"), pictures: state.getAll("image"),
        learned: state.get("learned") === "1",
        bbox: box?.length === 4 && box.every(Number.isFinite) ? (box as Query["bbox"]) : null, region,
      };
      byId<HTMLInputElement>("text").value = this.query.text.join("; ");
      const name = state.get("p");
      const centre = state.get("c")?.split(",").map(Number);
      const zoom = Number(state.get("z")) || undefined;
      if (centre?.length === 2 && centre.every(Number.isFinite)) {
        const view: ViewName = name === "north" || name === "south" ? name : "plane";
        this.map.setView(view, centre as [number, number], zoom);
        for (const button of document.querySelectorAll<HTMLElement>("[data-view]")) {
          button.setAttribute("aria-pressed", String(button.dataset.view === view));
        }
      }
      if (state.get("cut")) this.cut.value = Number(state.get("cut")) || 0;
      const ring = (region as { coordinates?: number[][][] } | null)?.coordinates?.[0];
      this.map.setRegion(this.query.bbox ? { box: this.query.bbox } : ring ? { polygon: ring } : null);
      byId("whole").hidden = !this.query.bbox && !region;
      const selected = state.get("sel");
      await this.run();
      if (selected && this.gallery.hits.some((hit) => hit.id === selected)) {
        this.gallery.focus(this.gallery.hits.findIndex((hit) => hit.id === selected), { announce: false });
        this.selected = selected;
      }
    } finally {
      this.restoring = false;
    }
  }

  // --- events ----------------------------------------------------------------------------

  private listen(): void {
    byId<HTMLFormElement>("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      const texts = byId<HTMLInputElement>("text").value.split(";").map((text) => text.trim()).filter(Boolean);
      if (!texts.length && !this.query.like.length && !this.query.pictures.length) return;
      this.ask({ ...this.query, learned: false, text: texts });
      byId("text").blur();
    });
    byId("threshold").addEventListener("change", () => {
      if (byId<HTMLSelectElement>("order").value === "places") void this.reorder();
    });
    byId("order").addEventListener("change", () => void this.reorder());
    byId("merge").addEventListener("change", () => void this.reorder());
    byId<HTMLInputElement>("size").addEventListener("input", (event) => this.gallery.setSize(Number((event.target as HTMLInputElement).value)));
    byId("theme").addEventListener("click", () => {
      const dark = matchMedia("(prefers-color-scheme: dark)").matches;
      const now = document.documentElement.dataset.theme;
      this.theme(now === "dark" || (now === "system" && dark) ? "light" : "dark");
    });
    byId("help").addEventListener("click", () => this.help());
    byId("stores").addEventListener("change", (event) => {
      const query = this.query;
      void this.openStore((event.target as HTMLSelectElement).value).then(() => {
        this.map.setHits([]);
        this.map.setScore(null);
        this.ask({ ...query, like: [], not_like: [], learned: false });
      }, (error) => this.problem(error));
    });
    for (const button of document.querySelectorAll<HTMLElement>("[data-view]")) {
      button.addEventListener("click", () => this.view(button.dataset.view as ViewName));
    }
    byId("in-view").addEventListener("click", () => {
      const [west, south, east, north] = this.map.extent.map((one) => Math.round(one * 1e4) / 1e4) as [number, number, number, number];
      this.setRegion([west, south, east, north], null);
    });
    byId("polygon").addEventListener("click", (event) => {
      const drawing = this.map.togglePolygon();
      (event.currentTarget as HTMLElement).setAttribute("aria-pressed", String(drawing));
      if (drawing) this.status("Click the corners of the polygon; double-click ends it.");
    });
    byId("whole").addEventListener("click", () => this.setRegion(null, null));
    for (const name of ["gallery", "inventory", "query"]) {
      byId(`tab-${name}`).addEventListener("click", () => this.tab(name));
    }
    byId("upload").addEventListener("click", () => byId("file").click());
    byId<HTMLInputElement>("file").addEventListener("change", (event) => {
      const input = event.target as HTMLInputElement;
      void this.upload([...(input.files ?? [])]).finally(() => { input.value = ""; });
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
      void this.upload([...(event.dataTransfer?.files ?? [])]);
    });
    window.addEventListener("popstate", () => void this.restore());
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.theme(document.documentElement.dataset.theme ?? "system"));
    // After a click with the mouse, keys belong to the images again and not to the button.
    document.addEventListener("click", (event) => {
      if (event.detail > 0) (event.target as Element).closest<HTMLElement>("main button, header button")?.blur();
    });
    // One listener for all shortcuts, so that they work wherever the focus is but in a text field.
    document.addEventListener("keydown", (event) => this.onKey(event));
    window.addEventListener("beforeunload", (event) => {
      if (this.inventory.queued) event.preventDefault();
    });
  }

  private async upload(files: File[]): Promise<void> {
    if (!files.length) return;
    const form = new FormData();
    for (const file of files) form.append("pictures", file);
    try {
      const answer = (await (await request("/pictures", { method: "POST", body: form })).json()) as { ids: string[] };
      this.ask({ ...this.query, learned: false, pictures: [...this.query.pictures, ...answer.ids] });
    } catch (error) {
      this.problem(error);
    }
  }

  private onKey(event: KeyboardEvent): void {
    const target = event.target as HTMLElement;
    const dialog = byId<HTMLDialogElement>("tile");
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (target.matches("[role=tab]") && ["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key)) {
      const tabs = ["gallery", "inventory", "query"];
      const at = tabs.indexOf(target.id.slice(4));
      const to = event.key === "Home" ? 0 : event.key === "End" ? 2 : (at + (event.key === "ArrowRight" ? 1 : 2)) % 3;
      this.tab(tabs[to]!);
      byId(`tab-${tabs[to]}`).focus();
      event.preventDefault();
      return;
    }
    if (target.matches("input:not([type=range]), textarea, select")) {
      if (event.key === "Escape") target.blur();
      return;
    }
    if (byId<HTMLDialogElement>("shortcuts").open) return;
    const move = (step: number) => this.gallery.focus(this.gallery.index + step);
    const onRange = target.matches("input[type=range]");
    const onMap = target.id === "map" || target.closest("#map") !== null;
    const keys: Record<string, () => void> = {
      "/": () => byId("text").focus(),
      j: () => move(1), k: () => move(-1),
      y: () => void this.mark("yes"), n: () => void this.mark("no"), u: () => void this.mark("unsure"),
      N: () => void this.markRest(),
      Backspace: () => void this.inventory.undo(),
      " ": () => (dialog.open ? dialog.close() : void this.openTile()),
      m: () => { const id = this.gallery.focused?.id; if (id && !this.inventory.auditing) this.like(id); },
      l: () => void this.inventory.learn(),
      "[": () => this.moveCut(-4),
      "]": () => this.moveCut(4),
      "1": () => this.tab("gallery"), "2": () => this.tab("inventory"), "3": () => this.tab("query"),
      "?": () => this.help(),
      ...(onMap || onRange ? {} : { Home: () => this.gallery.focus(0), End: () => this.gallery.focus(this.gallery.hits.length - 1) }),
    };
    if (!onRange && !onMap) {
      Object.assign(keys, {
        ArrowRight: () => move(1), ArrowLeft: () => move(-1),
        ArrowDown: () => move(this.gallery.columns), ArrowUp: () => move(-this.gallery.columns),
      });
    }
    if (target.matches("button:not([role=tab]), a, summary") && (event.key === " " || event.key === "Enter")) return;
    const key = event.key.length === 1 && event.key !== "N" ? event.key.toLowerCase() : event.key;
    const act = keys[key];
    if (!act) return;
    event.preventDefault();
    act();
    if (dialog.open && /^(y|n|u|j|k|Arrow)/.test(key)) void this.openTile();
  }

  private help(): void {
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
}

const app = new App();
declare global {
  interface Window {
    marsMap: App;
  }
}
window.marsMap = app; // for the console and for tests
app.start().catch((error: unknown) => app.problem(error));
