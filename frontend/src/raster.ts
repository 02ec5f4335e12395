// The score raster: recoloured in the browser whenever the threshold moves.

import type { Raster } from "./api.js";
import { POLE_EDGE_M, toLonLat } from "./geometry.js";

interface Level {
  factor: number;
  width: number;
  height: number;
  codes: Uint8Array;
  canvas: HTMLCanvasElement;
  image: ImageData;
  painted: boolean;
}

const POLAR_PIXELS = 1400;
// Even steps of lightness away from the base map: brighter on the dark one, darker on the light one.
const DARK: Colour[] = [[178, 62, 176], [220, 74, 132], [247, 112, 86], [254, 182, 108], [252, 253, 191]];
const LIGHT: Colour[] = [[247, 150, 80], [233, 88, 70], [187, 45, 105], [110, 20, 115], [38, 6, 66]];
type Colour = [number, number, number];
let stops = DARK;

/** Choose the colours of scores for a dark or a light page. */
export function setRamp(dark: boolean): void {
  stops = dark ? DARK : LIGHT;
}

/** Colour of a share of the way from the threshold to the best tile, 0 to 1. */
export function rampColour(share: number): Colour {
  const step = Math.min(stops.length - 1.001, Math.max(0, share) * (stops.length - 1));
  const low = stops[Math.floor(step)]!;
  const high = stops[Math.floor(step) + 1]!;
  const part = step - Math.floor(step);
  return [0, 1, 2].map((channel) => Math.round(low[channel]! + (high[channel]! - low[channel]!) * part)) as Colour;
}

export class ScoreRaster {
  private levels: Level[] = [];
  private polarIndex: Partial<Record<1 | -1, Int32Array>> = {};
  private polarCanvas: Partial<Record<1 | -1, HTMLCanvasElement>> = {};
  private colours = new Uint32Array(256);
  best = 1;

  constructor(readonly info: Raster) {}

  /** Replace the codes, and build the smaller levels: each pixel is the maximum of four. */
  load(codes: Uint8Array, counts: number[]): void {
    this.best = 255;
    while (this.best > 1 && !counts[this.best]) this.best -= 1;
    let level = this.level(0, this.info.columns, this.info.rows);
    level.codes = codes;
    const levels = [level];
    while (level.width > 60) {
      const width = Math.ceil(level.width / 2);
      const height = Math.ceil(level.height / 2);
      const next = this.level(levels.length, width, height);
      maximum(level, next);
      levels.push(next);
      level = next;
    }
    this.levels = levels;
  }

  get isLoaded(): boolean {
    return this.levels.length > 0;
  }

  private level(number: number, width: number, height: number): Level {
    const old = this.levels[number];
    if (old && old.width === width && old.height === height) return old;
    const canvas = document.createElement("canvas");
    canvas.width = width;
    canvas.height = height;
    return { factor: 2 ** number, width, height, codes: new Uint8Array(width * height), canvas, image: new ImageData(width, height), painted: false };
  }

  /** Colour every pixel at or above the threshold code. */
  recolour(cut: number): void {
    for (let code = 0; code < 256; code += 1) {
      if (code === 0 || code < cut) {
        // A hint of where the store has tiles.
        this.colours[code] = code === 0 ? 0 : stops === DARK ? 0x12ffffff : 0x18000000;
        continue;
      }
      const share = (code - cut) / Math.max(1, this.best - cut);
      const [red, green, blue] = rampColour(share);
      const alpha = Math.round(190 + 65 * share);
      this.colours[code] = ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
    }
    for (const level of this.levels) level.painted = false; // painted when drawn
    this.polarCanvas = {};
  }

  /** Draw the part of the raster in an extent of degrees onto a context of `width` pixels. */
  draw(context: CanvasRenderingContext2D, extent: number[], width: number): void {
    const scale = width / (extent[2]! - extent[0]!); // pixels per degree
    const { west, north, columns, cell_lon, cell_lat } = this.info;
    const wide = columns * cell_lon * scale;
    let level = this.levels[0];
    if (!level) return;
    // A tile is never drawn smaller than about two pixels, or a lone one would not be seen.
    const pixels = wide / (2 * (devicePixelRatio || 1));
    for (const smaller of this.levels) if (pixels <= smaller.width * 1.2) level = smaller;
    if (!level.painted) {
      paint(level.codes, level.image, this.colours, level.canvas);
      level.painted = true;
    }
    // A pixel of a smaller level is `factor` pixels wide; the last one may reach over the edge.
    const drawnWide = level.width * level.factor * cell_lon * scale;
    const drawnHigh = level.height * level.factor * cell_lat * scale;
    context.imageSmoothingEnabled = false;
    const first = Math.floor((extent[0]! - west - columns * cell_lon) / 360);
    const last = Math.ceil((extent[2]! - west) / 360);
    for (let turn = first; turn <= last; turn += 1) {
      const x = (west + 360 * turn - extent[0]!) * scale;
      if (x > width || x + drawnWide < 0) continue;
      context.drawImage(level.canvas, x, (extent[3]! - north) * scale, drawnWide, drawnHigh);
    }
  }

  /** The raster around a pole, as a square canvas from -POLE_EDGE_M to POLE_EDGE_M. */
  polar(sign: 1 | -1): HTMLCanvasElement | null {
    const level = this.levels[0];
    if (!level) return null;
    const drawn = this.polarCanvas[sign];
    if (drawn) return drawn;
    const index = (this.polarIndex[sign] ??= this.indexPole(sign));
    const codes = new Uint8Array(index.length);
    for (let pixel = 0; pixel < index.length; pixel += 1) {
      const source = index[pixel]!;
      codes[pixel] = source < 0 ? 0 : level.codes[source]!;
    }
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = POLAR_PIXELS;
    paint(codes, new ImageData(POLAR_PIXELS, POLAR_PIXELS), this.colours, canvas);
    this.polarCanvas[sign] = canvas;
    return canvas;
  }

  /** Raster pixel of each pixel of a polar view, -1 outside. */
  private indexPole(sign: 1 | -1): Int32Array {
    const { west, north, columns, rows, cell_lon, cell_lat } = this.info;
    const index = new Int32Array(POLAR_PIXELS * POLAR_PIXELS).fill(-1);
    for (let y = 0; y < POLAR_PIXELS; y += 1) {
      for (let x = 0; x < POLAR_PIXELS; x += 1) {
        const [lon, lat] = toLonLat(
          sign,
          ((x + 0.5) / POLAR_PIXELS - 0.5) * 2 * POLE_EDGE_M,
          (0.5 - (y + 0.5) / POLAR_PIXELS) * 2 * POLE_EDGE_M,
        );
        const column = Math.floor(((((lon - west) % 360) + 360) % 360) / cell_lon);
        const row = Math.floor((north - lat) / cell_lat);
        if (column >= 0 && column < columns && row >= 0 && row < rows) {
          index[y * POLAR_PIXELS + x] = row * columns + column;
        }
      }
    }
    return index;
  }
}

function maximum(from: Level, to: Level): void {
  const { width, height, codes } = from;
  for (let y = 0; y < to.height; y += 1) {
    const upper = 2 * y * width;
    const lower = Math.min(2 * y + 1, height - 1) * width;
    for (let x = 0; x < to.width; x += 1) {
      const left = 2 * x;
      const right = Math.min(left + 1, width - 1);
      to.codes[y * to.width + x] = Math.max(
        codes[upper + left]!, codes[upper + right]!, codes[lower + left]!, codes[lower + right]!,
      );
    }
  }
}

function paint(codes: Uint8Array, image: ImageData, colours: Uint32Array, canvas: HTMLCanvasElement): void {
  const pixels = new Uint32Array(image.data.buffer);
  for (let pixel = 0; pixel < codes.length; pixel += 1) pixels[pixel] = colours[codes[pixel]!]!;
  canvas.getContext("2d")!.putImageData(image, 0, 0);
}
