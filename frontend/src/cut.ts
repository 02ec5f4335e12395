// The threshold: a slider over the share of best tiles, with a histogram.

import type { Search } from "./api.js";
import { byId, count, percent } from "./dom.js";
import { rampColour } from "./raster.js";

export class Cut {
  value = 0; // 0: not chosen yet
  private best = 255;
  private search: Search | null = null;
  private readonly slider = byId<HTMLInputElement>("threshold");
  private readonly canvas = byId<HTMLCanvasElement>("histogram");

  constructor(onChange: (cut: number) => void) {
    this.slider.addEventListener("input", () => {
      this.value = Number(this.slider.value);
      this.describe();
      onChange(this.value);
    });
  }

  show(search: Search): void {
    this.search = search;
    this.best = 255;
    while (this.best > 1 && !search.counts[this.best]) this.best -= 1;
    this.slider.max = String(this.best);
    if (!this.value) {
      // At first the best 0.1 % of the tiles, of a small store the best hundred.
      const share = Math.min(0.1, Math.max(0.001, 100 / Math.max(1, search.total)));
      this.value = Math.round(1 - 40 * Math.log10(share));
    }
    if (this.value > this.best) this.value = this.best;
    this.slider.value = String(this.value);
    byId("cut").hidden = false;
    this.describe();
  }

  set(value: number): void {
    this.value = Math.max(1, Math.min(this.best, value));
    this.slider.value = String(this.value);
    this.describe();
  }

  /** Number of tiles at or above the threshold. */
  get tiles(): number {
    const counts = this.search?.counts ?? [];
    let sum = 0;
    for (let code = Math.max(1, this.value); code < 256; code += 1) sum += counts[code] ?? 0;
    return sum;
  }

  describe(): void {
    if (!this.search) return;
    const tiles = this.tiles;
    let edge: number | null = null;
    for (let code = this.value; code < 256 && edge === null; code += 1) edge = this.search.edges[code] ?? null;
    const text =
      `${count(tiles)} of ${count(this.search.total)} tiles (${percent(tiles / Math.max(1, this.search.total))})` +
      (edge === null ? "" : `, cosine from ${edge.toFixed(3)}`);
    byId("share").textContent = text;
    this.slider.setAttribute("aria-valuetext", text);
    this.paint();
  }

  private paint(): void {
    const ratio = Math.min(2, devicePixelRatio || 1);
    const width = Math.max(100, this.canvas.clientWidth) * ratio;
    const height = (this.canvas.clientHeight || 40) * ratio;
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
    const context = this.canvas.getContext("2d")!;
    context.clearRect(0, 0, width, height);
    const counts = this.search!.counts;
    const highest = Math.log1p(Math.max(...counts.slice(1)));
    const muted = getComputedStyle(document.documentElement).getPropertyValue("--bar").trim();
    const step = width / this.best;
    for (let code = 1; code <= this.best; code += 1) {
      const bar = ((height - 2) * Math.log1p(counts[code]!)) / highest;
      const [red, green, blue] = rampColour((code - this.value) / Math.max(1, this.best - this.value));
      context.fillStyle = code < this.value ? muted : `rgb(${red} ${green} ${blue})`;
      context.fillRect((code - 1) * step, height - bar, Math.max(1, step - ratio * 0.5), bar);
    }
  }
}
