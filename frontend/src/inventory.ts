// The inventory: marks, learning, audits, the estimate and exports.

import {
  ApiError, get, request, send, type Hit, type Interval, type Inventory, type Mark, type Search, type Store,
} from "./api.js";
import { byId, count, h, percent, plural } from "./dom.js";
import { readOnlyText } from "./store.js";

interface Placed {
  lon: number | null;
  lat: number | null;
  mark: Mark;
}

interface Pending {
  hit: Hit;
  mark: Mark | null;
  body: object;
}

interface AuditPage {
  number: number;
  tiles: (Hit & { showing: number })[];
  done: number;
  planned: number;
}

export interface InventoryEvents {
  onSearch(search: Search, learned: boolean): void;
  onPage(hits: Hit[], text: string): void;
  onLeave(): void;
  onMarks(marks: Map<string, Placed>): void;
  onProblem(error: unknown): void;
  onStatus(text: string): void;
}

const EXPORTS: [string, string][] = [
  ["places.gpkg", "GeoPackage for QGIS"], ["places.geojson", "GeoJSON"], ["ground_truth.csv", "ground truth (lon, lat)"],
  ["negatives.csv", "tiles marked no"], ["report.md", "estimate with its method"],
];

export class InventoryPanel {
  marks = new Map<string, Placed>();
  private state: Inventory | null = null;
  private store: Store | null = null;
  private page: AuditPage | null = null;
  private history: { hit: Hit; before: Mark | null }[] = [];
  private readonly answers = new Map<Hit, Mark>(); // of the open page of an audit
  private pending: Pending[] = [];
  private sending = false;
  private domain = 0;
  private isStale = false; // marks were made since the estimate was read
  private readonly root = byId("panel-inventory");

  constructor(private readonly events: InventoryEvents) {}

  get canMark(): boolean {
    return this.state !== null && !(this.store?.read_only ?? true);
  }

  get whyNot(): string {
    if (this.store?.read_only) return readOnlyText(this.store);
    return "Marks need an inventory: start the server with --inventory NAME --landform TEXT.";
  }

  get auditing(): boolean {
    return this.page !== null;
  }

  /** Number of marks that the server has not confirmed. */
  get queued(): number {
    return this.pending.length;
  }

  async open(store: Store): Promise<void> {
    this.store = store;
    this.state = null;
    this.page = null;
    this.history = [];
    this.marks.clear();
    this.events.onMarks(this.marks);
    this.render();
    if (store.inventory) await this.refresh(true);
  }

  /** Show whether marks are refused after the server was started again. */
  refreshStore(store: Store): void {
    this.store = store;
    if (store.inventory) void this.synchronize();
    else this.render();
  }

  /** Read the marks again, which another page may have changed. */
  async synchronize(): Promise<void> {
    if (this.store?.inventory && !this.page && !this.pending.length) await this.refresh(true);
  }

  private async refresh(withMarks = false): Promise<void> {
    try {
      if (withMarks) {
        const marks = await get<{ id: string; lon: number | null; lat: number | null; mark: Mark }[]>("/marks");
        this.marks = new Map(marks.map((one) => [one.id, one]));
        this.events.onMarks(this.marks);
      }
      this.state = await get<Inventory>("/inventory");
      if (withMarks) this.events.onMarks(this.marks); // the buttons of the images appear
      if (this.state.audit && !this.page) this.render();
    } catch (error) {
      this.events.onProblem(error);
    }
    this.render();
  }

  // --- marks -----------------------------------------------------------------------------

  /** Mark a tile; shown at once, saved when the server has confirmed it. */
  async mark(hit: Hit, mark: Mark | null, search: Search | null, remember = true): Promise<void> {
    const showing = (hit as Hit & { showing?: number }).showing;
    const page = showing === undefined ? null : this.page;
    // A tile may come twice in an audit: the answers are those of the showing, not of the tile.
    const before = page ? (this.answers.get(hit) ?? null) : (this.marks.get(hit.id)?.mark ?? null);
    if (remember) this.history.push({ hit, before });
    if (page) {
      if (mark) this.answers.set(hit, mark);
      else this.answers.delete(hit);
    } else if (mark) this.marks.set(hit.id, { lon: hit.lon, lat: hit.lat, mark });
    else this.marks.delete(hit.id);
    const body = page
      ? { mark, audit: page.number, showing }
      : { mark, search: search?.key ?? null, rank: hit.rank || null, score: hit.score };
    this.isStale = true;
    this.pending.push({ hit, mark, body });
    this.count();
    if (!page) this.events.onMarks(this.marks);
    await this.flush();
    if (page && page === this.page && !this.pending.length) this.afterAuditMark();
  }

  /** Send the marks that are waiting, in their order. */
  async flush(): Promise<void> {
    if (this.sending) return;
    this.sending = true;
    try {
      while (this.pending.length) {
        const { hit, mark, body } = this.pending[0]!;
        const path = `/marks/${hit.id.split("/").map(encodeURIComponent).join("/")}`;
        try {
          const totals = mark
            ? await send<Record<Mark, number>>("PUT", path, body)
            : await send<Record<Mark, number>>("DELETE", path);
          if (this.state) this.state.marked = totals;
        } catch (error) {
          if (error instanceof ApiError && error.status === 0) {
            this.events.onProblem(error); // kept in the queue
            return;
          }
          this.pending.shift();
          if (!this.answers.delete(hit)) this.marks.delete(hit.id);
          hit.mark = null;
          this.events.onMarks(this.marks);
          this.events.onProblem(new ApiError(`not saved: ${error instanceof ApiError ? error.message : String(error)}`, error instanceof ApiError ? error.remedy : "", "mark", 500));
          continue;
        }
        this.pending.shift();
      }
    } finally {
      this.sending = false;
      this.count();
      if (!this.pending.length) this.renew();
    }
  }

  /** Show the estimate and the buttons that follow from the present marks, if the panel is open. */
  renew(): void {
    if (!this.isStale || this.page || this.root.hidden) return;
    this.isStale = false;
    this.render();
    void this.refresh();
  }

  async undo(): Promise<void> {
    const last = this.history.pop();
    if (!last) {
      this.events.onStatus("No mark of this page to take back.");
      return;
    }
    last.hit.mark = last.before;
    await this.mark(last.hit, last.before, null, false);
    this.events.onMarks(this.marks);
    this.events.onStatus("Took the last mark back.");
  }

  private count(): void {
    const element = document.getElementById("mark-count");
    if (element) element.textContent = this.countText();
    const tab = byId("tab-inventory");
    const yes = [...this.marks.values()].filter((one) => one.mark === "yes").length;
    tab.textContent = yes ? `Inventory (${count(yes)})` : "Inventory";
  }

  private countText(): string {
    const totals = { yes: 0, no: 0, unsure: 0 };
    for (const one of this.marks.values()) totals[one.mark] += 1;
    const waiting = this.pending.length ? `, ${count(this.pending.length)} not saved yet` : "";
    return `${count(totals.yes)} yes, ${count(totals.no)} no, ${count(totals.unsure)} unsure${waiting}`;
  }

  // --- learning and audits ---------------------------------------------------------------

  async learn(): Promise<void> {
    if (!this.canMark || this.page) {
      this.events.onStatus(this.page ? "An audit ranks nothing anew; close it first." : this.whyNot);
      return;
    }
    try {
      await this.flush();
      this.events.onSearch(await send<Search>("POST", "/learn", {}), true);
      await this.refresh();
    } catch (error) {
      this.events.onProblem(error);
    }
  }

  private async startAudit(): Promise<void> {
    try {
      await this.flush();
      await send("POST", "/audits", { domain: this.domain, target: 0.2 });
      await this.refresh();
      await this.nextPage();
    } catch (error) {
      this.events.onProblem(error);
    }
  }

  private async nextPage(): Promise<void> {
    if (!this.state?.audit) return;
    try {
      const page = await get<AuditPage>(`/audits/${this.state.audit.number}/page`);
      if (!page.tiles.length) {
        this.page = null;
        await this.refresh(true);
        this.events.onLeave();
        this.events.onStatus("The audit has reached its target: close it to use its marks.");
        return;
      }
      this.page = page;
      this.answers.clear();
      this.history = [];
      for (const tile of page.tiles) tile.mark = null;
      this.events.onPage(page.tiles, `Audit: ${plural(page.tiles.length, "tile")} in random order, without scores. Mark each of them.`);
      this.render();
    } catch (error) {
      this.events.onProblem(error);
    }
  }

  private afterAuditMark(): void {
    if (this.page?.tiles.every((tile) => this.answers.has(tile))) {
      void this.refresh().then(() => this.nextPage());
    } else if (this.page) {
      const left = this.page.tiles.length - this.answers.size;
      this.events.onStatus(`Audit: ${plural(left, "tile")} of this page left.`);
    }
  }

  /** Show a ranking again; the audit goes on where it was left. */
  pause(): void {
    this.page = null;
    this.render();
    void this.refresh(true);
  }

  private leaveAudit(): void {
    this.pause();
    this.events.onLeave();
  }

  private async closeAudit(): Promise<void> {
    if (!this.state?.audit) return;
    try {
      await send("POST", `/audits/${this.state.audit.number}/close`, {});
      this.page = null;
      await this.refresh(true);
      this.events.onLeave();
    } catch (error) {
      this.events.onProblem(error);
    }
  }

  private async export(format: string): Promise<void> {
    try {
      const file = await send<{ name: string; path: string }>("POST", "/exports", { format });
      const data = await (await request(`/exports/${encodeURIComponent(file.name)}`)).blob();
      const link = h("a", { href: URL.createObjectURL(data), download: file.name }) as HTMLAnchorElement;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      this.events.onStatus(`Written: ${file.path}`);
    } catch (error) {
      this.events.onProblem(error);
    }
  }

  // --- the panel -------------------------------------------------------------------------

  private render(): void {
    if (!this.state) {
      this.root.replaceChildren(
        h("div", { class: "blank" },
          h("p", { class: "lead" }, "No inventory is open."),
          this.store?.read_only ? h("p", { class: "notice" }, readOnlyText(this.store)) : null,
          h("p", {}, "An inventory records what you confirm and reject, learns from it, and estimates how many there are."),
          h("pre", { tabindex: "0" }, h("code", {}, `marsretrieval serve ${this.store?.path ?? "STORE"} --inventory cones --landform "pitted cones"`))));
      this.count();
      return;
    }
    const { audit, estimate, learned } = this.state;
    const tiles = this.store!.tiles;
    const marked = [...this.marks.values()];
    const yes = marked.filter((one) => one.mark === "yes").length;
    this.domain ||= Math.min(tiles, Math.max(300, Math.min(6300, Math.round(tiles / 4))));
    const domainText = h("output", {}, plural(this.domain, "tile"));
    const readOnly = this.store!.read_only;
    this.root.replaceChildren(
      h("h2", {}, this.state.landform),
      readOnly ? h("p", { class: "notice" }, readOnlyText(this.store!)) : "",
      h("p", { id: "mark-count", class: "totals" }, this.countText()),
      h("div", { class: "buttons" },
        h("button", { type: "button", class: "primary", disabled: readOnly || !yes || this.page !== null, onclick: () => void this.learn() }, learned ? "Learn again" : "Learn from the marks"),
        h("span", { class: "hint" }, yes || readOnly ? "" : "Mark some images yes and no first (Y, N).")),
      h("h2", {}, "Audit"),
      audit
        ? h("div", {},
            h("p", {}, `Audit ${audit.number} of the first ${plural(audit.domain, "tile")}: ${count(audit.done)} of about ${count(audit.planned)} looked at.`),
            h("progress", { max: Math.max(1, audit.planned), value: audit.done, "aria-label": "Progress of the audit" }),
            h("div", { class: "buttons" },
              this.page
                ? h("button", { type: "button", onclick: () => this.leaveAudit() }, "Pause")
                : h("button", { type: "button", class: "primary", onclick: () => void this.nextPage() }, "Continue"),
              h("button", { type: "button", onclick: () => void this.closeAudit() }, "Close the audit")))
        : h("div", {},
            h("p", {}, "A random sample of the ranking, shown without scores, gives an interval for how many there are."),
            h("label", { class: "domain" }, "Among the first ", domainText,
              h("input", {
                type: "range", min: Math.log10(Math.min(100, tiles)), max: Math.log10(Math.max(101, tiles)), step: 0.01,
                value: Math.log10(this.domain), "aria-label": "Domain of the audit",
                oninput: (event: Event) => {
                  const value = 10 ** Number((event.target as HTMLInputElement).value);
                  this.domain = Math.min(tiles, Math.round(value / 50) * 50 || 50);
                  domainText.textContent = plural(this.domain, "tile");
                },
              })),
            h("button", { type: "button", disabled: readOnly, onclick: () => void this.startAudit() }, "Start an audit")),
      ...(estimate
        ? [
            h("h2", {}, "Estimate"),
            h("p", { class: "sentence" }, estimate.sentence),
            interval("Tiles", estimate.tiles, estimate.half_width),
            interval("Places", estimate.places, null),
            estimate.recall.estimate !== null
              ? h("p", { class: "small" }, `Share found: ${percent(estimate.recall.estimate)}` + (estimate.recall.low !== null && estimate.recall.high !== null ? ` (${percent(estimate.recall.low)} to ${percent(estimate.recall.high)})` : ""))
              : null,
            estimate.elsewhere.high !== null ? h("p", { class: "small" }, `In the rest of the store: at most ${count(Math.round(estimate.elsewhere.high))}.`) : null,
          ].filter((one): one is HTMLElement => one !== null)
        : []),
      h("h2", {}, "Export"),
      h("div", { class: "exports" }, EXPORTS.map(([name, label]) =>
        h("button", { type: "button", disabled: !marked.length || readOnly, onclick: () => void this.export(name) }, h("b", {}, name), h("span", {}, label)))),
    );
    this.count();
  }
}

function interval(name: string, value: Interval, halfWidth: number | null): HTMLElement | null {
  const { estimate, low, high } = value;
  if (estimate === null || low === null || high === null) return null;
  const end = Math.max(high * 1.15, 1);
  const bar = h("div", { class: "interval", role: "img", "aria-label": `${name}: ${Math.round(estimate)}, 95% interval ${Math.round(low)} to ${Math.round(high)}` },
    h("i", { class: "range" }), h("i", { class: "point" }));
  const [range, point] = bar.children as unknown as [HTMLElement, HTMLElement];
  range.style.left = `${(100 * low) / end}%`;
  range.style.width = `${(100 * (high - low)) / end}%`;
  point.style.left = `${(100 * estimate) / end}%`;
  return h("div", { class: "estimate" },
    h("b", {}, `${count(Math.round(estimate))} ${name.toLowerCase()}`),
    h("span", {}, `${count(Math.round(low))} to ${count(Math.round(high))} (95%)${halfWidth !== null ? `, ±${percent(halfWidth)}` : ""}`),
    bar);
}

