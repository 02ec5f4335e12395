// The base map, on the plane and about a pole.

import { POLE_EDGE_M, toLonLat } from "./geometry.js";

const POLAR_PIXELS = 1400;
const OPACITY = 0.5;

export class BaseMap {
  private readonly grey = document.createElement("canvas");
  private readonly polar: Partial<Record<1 | -1, HTMLCanvasElement>> = {};

  /** An image of -180..180, 90..-90 degrees; grey, since colours of scores do not read on a red planet. */
  constructor(image: HTMLImageElement) {
    this.grey.width = image.naturalWidth;
    this.grey.height = image.naturalHeight;
    const context = this.grey.getContext("2d")!;
    context.filter = "grayscale(1)";
    context.drawImage(image, 0, 0);
  }

  /** Draw an extent of the plane (sign 0), or of a polar view, on a canvas of a width in pixels. */
  draw(context: CanvasRenderingContext2D, extent: number[], width: number, sign: 1 | -1 | 0): void {
    context.globalAlpha = OPACITY;
    const scale = width / (extent[2]! - extent[0]!);
    if (sign !== 0) {
      const canvas = (this.polar[sign] ??= this.warp(sign));
      context.drawImage(canvas, (-POLE_EDGE_M - extent[0]!) * scale, (extent[3]! - POLE_EDGE_M) * scale, 2 * POLE_EDGE_M * scale, 2 * POLE_EDGE_M * scale);
      return;
    }
    for (let turn = Math.floor((extent[0]! + 180) / 360); turn <= Math.floor((extent[2]! + 180) / 360); turn += 1) {
      context.drawImage(this.grey, (-180 + 360 * turn - extent[0]!) * scale, (extent[3]! - 90) * scale, 360 * scale, 180 * scale);
    }
  }

  private warp(sign: 1 | -1): HTMLCanvasElement {
    const base = this.grey;
    const source = base.getContext("2d")!.getImageData(0, 0, base.width, base.height);
    const from = new Uint32Array(source.data.buffer);
    const image = new ImageData(POLAR_PIXELS, POLAR_PIXELS);
    const to = new Uint32Array(image.data.buffer);
    for (let y = 0; y < POLAR_PIXELS; y += 1) {
      for (let x = 0; x < POLAR_PIXELS; x += 1) {
        const [lon, lat] = toLonLat(sign, ((x + 0.5) / POLAR_PIXELS - 0.5) * 2 * POLE_EDGE_M, (0.5 - (y + 0.5) / POLAR_PIXELS) * 2 * POLE_EDGE_M);
        const column = Math.min(base.width - 1, Math.floor(((lon + 180) / 360) * base.width));
        const row = Math.min(base.height - 1, Math.floor(((90 - lat) / 180) * base.height));
        to[y * POLAR_PIXELS + x] = from[row * base.width + column]!;
      }
    }
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = POLAR_PIXELS;
    canvas.getContext("2d")!.putImageData(image, 0, 0);
    return canvas;
  }
}
