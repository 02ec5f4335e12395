// The page: connects the query, the map, the gallery and the inventory.

import { readAddress, writeAddress, type Address } from "./address.js";
import {
  ApiError, get, imageUrl, request, send, urlOf,
  type Feature, type Hit, type Mark, type Model, type Place, type Query, type Search, type Store, type Tile,
} from "./api.js";
import { Banner } from "./banner.js";
import { Cut } from "./cut.js";
import { byId, h, plural } from "./dom.js";
import { Gallery } from "./gallery.js";
import type { ViewName } from "./geometry.js";
import { InventoryPanel } from "./inventory.js";
import { PlanetMap, TILES_BELOW } from "./map.js";
import { ModelWatch } from "./model.js";
import { clearQueryPanel, EMPTY, isEmpty, needsModel, showParts, showQueryPanel } from "./query.js";
import { ScoreRaster, setRamp } from "./raster.js";
import { firstSteps, showStore } from "./store.js";
import { showTile } from "./tile.js";

// Tiles that the server returns for a view at most: `_MAX_FOOTPRINTS` of web/app.py.
const MAX_TILES = 400;

export class App {
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
    onPolygon: (region) => {
      byId("polygon").setAttribute("aria-pressed", "false");
      this.setRegion(null, region);
    },
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

  private readonly model = new ModelWatch((model) => this.onModel(model));
  private readonly banner = new Banner({
    onRetry: () => get<Store>(`/store?store=${encodeURIComponent(this.store?.name ?? "")}`).then((store) => this.refreshStore(store)),
    onBack: async () => {
      this.status("The server is back.");
      await this.inventory.flush();
      this.gallery.refreshAll(); // images that could not be loaded
      if (!this.search && !isEmpty(this.query)) await this.run();
    },
  });

  async start(): Promise<void> {
    this.theme(localStorage.getItem("theme") ?? "system");
    await this.openStore(readAddress(location.hash).store);
    await this.restore(true);
    document.body.dataset.ready = "1";
    this.blank();
  }

  // --- the store -------------------------------------------------------------------------

  private async openStore(name: string | null): Promise<void> {
    this.store = await get<Store>("/store" + (name ? `?store=${encodeURIComponent(name)}` : ""));
    document.body.classList.remove("audit");
    this.raster = this.store.raster ? new ScoreRaster(this.store.raster) : null;
    this.search = null;
    this.selected = null;
    this.map.setScore(null);
    this.map.setHits([]);
    this.map.setSelected(null);
    byId("cut").hidden = true;
    showStore(this.store);
    byId("suggestions").replaceChildren(...this.store.landforms.map((text) =>
      h("button", { type: "button", onclick: () => this.ask({ ...this.anew(), text: [text] }) }, text)));
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
    this.model.open(this.store);
    await this.inventory.open(this.store);
  }

  /** Show another store of the server; the texts and images of the query are kept, tiles are not. */
  async switchStore(name: string): Promise<void> {
    const { text, not_text, pictures, bbox, region } = this.query;
    this.running = true; // the entry of the present store in the history is not rewritten
    try {
      await this.openStore(name);
    } finally {
      this.running = false;
    }
    this.cut.value = 0;
    this.query = { ...structuredClone(EMPTY), text, not_text, pictures, bbox, region };
    if (isEmpty(this.query)) this.clear();
    else await this.run();
  }

  /** What may have changed when a server was started again. */
  private refreshStore(store: Store): void {
    if (store.set_hash !== this.store.set_hash) {
      location.reload(); // other tiles
      return;
    }
    this.store = store;
    showStore(store);
    this.model.open(store);
    this.inventory.refreshStore(store);
  }

  private waiting = false; // a query of the user starts when the model is loaded
  private running = false; // a search or a store is on its way

  private onModel(model: Model): void {
    this.store.model = model;
    if (model.state === "none" && model.text) this.status(`Text search is not available: ${model.reason}`);
    if (model.state !== "loading" && this.waiting) void this.run();
  }

  /** What the panel of images shows before the first search. */
  private blank(): void {
    if (!this.search && !this.inventory.auditing) this.gallery.blank(firstSteps(this.store));
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
    if (isEmpty(this.query)) return;
    this.ask({ ...this.query, learned: false, not_like: [...new Set([...this.query.not_like, id])] });
  }

  setRegion(bbox: Query["bbox"], region: object | null): void {
    this.query = { ...this.query, bbox, region };
    this.drawRegion();
    if (this.search) void this.run();
    else this.saveUrl(true);
  }

  private drawRegion(): void {
    const { bbox, region } = this.query;
    const ring = (region as { coordinates?: number[][][] } | null)?.coordinates?.[0];
    this.map.setRegion(bbox ? { box: bbox } : ring ? { polygon: ring } : null);
    byId("whole").hidden = !bbox && !region;
  }

  async run(): Promise<void> {
    this.showParts();
    if (!this.store) return; // still being opened; then `restore` runs the query
    if (this.query.learned) return void this.inventory.learn();
    this.waiting = false;
    if (isEmpty(this.query)) {
      if (this.search || !this.restoring) this.clear();
      return;
    }
    const { model } = this.store;
    const uses = needsModel(this.query);
    if (uses && model.state === "loading") {
      this.waiting = true;
      this.status(`The search starts when ${model.id} is loaded.`);
      return;
    }
    if (uses && model.state === "none") {
      return this.problem(new ApiError(`Text and images cannot be searched for: ${model.reason || `${model.id} has no text encoder`}.`, "Double-click a tile.", "model", 422));
    }
    const generation = (this.generation += 1);
    document.body.classList.add("busy");
    this.running = true;
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
      if (generation === this.generation) this.finish();
    }
  }

  private finish(): void {
    document.body.classList.remove("busy");
    this.running = false;
  }

  /** Back to the state before the first search. */
  private clear(): void {
    this.generation += 1;
    this.finish();
    this.search = null;
    this.selected = null;
    this.map.setScore(null);
    this.map.setSelected(null);
    this.map.setHits([]);
    byId("cut").hidden = true;
    byId("empty").hidden = false;
    clearQueryPanel();
    delete document.body.dataset.search;
    this.status("");
    this.blank();
    this.saveUrl(true);
  }

  /** Show a finished search: raster, threshold, hits. */
  async show(search: Search, learned: boolean): Promise<void> {
    const generation = (this.generation += 1);
    this.banner.clear();
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
    showQueryPanel(search, this.store, (text) => this.ask({ ...this.query, learned: false, not_text: [...this.query.not_text, text] }), (text) => this.status(text));
    const weak = search.stands_out === false ? " Nothing stands out from the other tiles." : "";
    this.status(`${search.title}: ${plural(search.total, "tile")} ranked.${weak}${search.notes.map((note) => ` Note: ${note}.`).join("")}`);
    this.saveUrl(true);
    this.finish();
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

  async more(): Promise<void> {
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

  async reorder(): Promise<void> {
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

  private showParts(): void {
    showParts(this.query, (query) => this.ask(query));
  }

  private recolour(cut: number): void {
    if (!this.raster) return;
    this.raster.recolour(cut);
    this.map.setScore(this.raster);
    this.saveUrl(false);
  }

  moveCut(step: number): void {
    if (!this.search || this.inventory.auditing) return;
    this.cut.set(this.cut.value + step);
    this.recolour(this.cut.value);
    if (byId<HTMLSelectElement>("order").value === "places") void this.reorder();
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

  async openTile(id = this.gallery.focused?.id): Promise<void> {
    if (!id) return;
    const auditing = this.inventory.auditing;
    try {
      const key = this.search && !auditing ? `&search=${this.search.key}` : "";
      const path = id.split("/").map(encodeURIComponent).join("/");
      const tile = await get<Tile>(`/tiles/${path}?store=${encodeURIComponent(this.store.name)}${key}`);
      this.showTile(tile, auditing);
    } catch (error) {
      await this.forgotten(error);
    }
  }

  private showTile(tile: Tile, auditing: boolean): void {
    const { id, lon, lat, width_deg, height_deg } = tile;
    if (lon !== null && lat !== null) {
      this.map.setSelected(width_deg !== null && height_deg !== null ? { id, lon, lat, width_deg, height_deg } : { lon, lat });
    }
    const mayMark = this.inventory.canMark && (!auditing || id === this.gallery.focused?.id);
    showTile(tile, this.store, auditing ? null : (this.inventory.marks.get(id)?.mark ?? null), {
      onOpen: (other) => void this.openTile(other),
      onMark: mayMark ? (mark) => void this.markTile(tile, mark) : null,
      onLike: auditing ? null : () => this.like(id),
      onUnlike: auditing ? null : () => this.unlike(id),
      onZoom: auditing || lon === null || lat === null ? null : () => this.map.zoomTo(lon, lat, TILES_BELOW / 6),
    });
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

  async mark(mark: Mark | null): Promise<void> {
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
  async markRest(): Promise<void> {
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
    this.finish();
    this.banner.problem(error);
  }

  tab(name: string): void {
    for (const one of ["gallery", "inventory", "query"]) {
      const button = byId(`tab-${one}`);
      button.setAttribute("aria-selected", String(one === name));
      button.tabIndex = one === name ? 0 : -1;
      byId(`panel-${one}`).hidden = one !== name;
    }
    if (name === "inventory") this.inventory.renew();
  }

  theme(name: string): void {
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

  /** Show the plane or a pole. */
  view(name: ViewName, centre?: [number, number], zoom?: number): void {
    this.map.setView(name, centre, zoom);
    for (const button of document.querySelectorAll<HTMLElement>("[data-view]")) {
      button.setAttribute("aria-pressed", String(button.dataset.view === name));
    }
    byId("in-view").hidden = name !== "plane";
    byId("polygon").setAttribute("aria-pressed", "false");
    this.saveUrl(true);
  }

  // --- the address -----------------------------------------------------------------------

  private urlTimer = 0;
  private restoring = true; // until the address of the page has been read

  private saveUrl(push: boolean): void {
    if (this.restoring || !this.store) return;
    const write = () => {
      if (this.running && !push) return; // the entry of a search is made when it is done
      const hash = writeAddress(this.address);
      if (hash === location.hash) return;
      if (push) history.pushState(null, "", hash);
      else history.replaceState(null, "", hash);
    };
    clearTimeout(this.urlTimer);
    if (push) write();
    else this.urlTimer = window.setTimeout(write, 200);
  }

  private get address(): Address {
    return {
      store: this.store.stores.length > 1 ? this.store.name : null,
      query: this.query, cut: this.search ? this.cut.value : 0,
      centre: this.map.centre, zoom: this.map.zoom, view: this.map.viewName, selected: this.selected,
    };
  }

  /**
   * Show what the address says: at the start, and after "Back". At the start, what a user has typed
   * while the store was opened is kept if the address has no query.
   */
  async restore(atStart = false): Promise<void> {
    const address = readAddress(location.hash);
    const keepQuery = atStart && isEmpty(address.query);
    clearTimeout(this.urlTimer);
    this.restoring = true;
    try {
      const store = address.store ?? this.store.stores[0]!;
      if (store !== this.store.name) await this.openStore(store);
      if (keepQuery) {
        const { bbox, region } = this.query.bbox || this.query.region ? this.query : address.query;
        this.query = { ...this.query, bbox, region };
      } else {
        this.query = address.query;
        byId<HTMLInputElement>("text").value = this.query.text.join("; ");
      }
      if (address.centre) this.view(address.view, address.centre, address.zoom);
      if (!this.search || !keepQuery) this.cut.value = address.cut;
      this.drawRegion();
      if (!keepQuery || !(this.search || this.running)) await this.run();
      const index = this.gallery.hits.findIndex((hit) => hit.id === address.selected);
      if (index >= 0) {
        this.gallery.focus(index, { announce: false });
        this.selected = address.selected;
      }
    } catch (error) {
      this.problem(error);
    } finally {
      this.restoring = false;
      if (keepQuery && this.search) this.saveUrl(true);
    }
  }

  async upload(files: File[]): Promise<void> {
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
}
