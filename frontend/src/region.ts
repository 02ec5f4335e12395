// Regions of a search: from what is drawn on the map to degrees, and back.

import { fromLonLat, signOf, toLonLat, wrapLon, type ViewName } from "./geometry.js";

export interface Shape {
  box?: number[]; // west, south, east, north
  polygon?: number[][];
}

const STEP_DEG = 2; // straight lines of one projection are curves of another
const STEPS = 24; // points on each edge of a polar outline
const round = (value: number) => Math.round(value * 1e4) / 1e4;
const clampLat = (lat: number) => Math.max(-90, Math.min(90, lat));

/** Return the GeoJSON polygon of corners on the plane. */
export function planeRegion(corners: number[][]): object {
  const shift = wrapLon(corners[0]![0]!) - corners[0]![0]!;
  return polygonOf(corners.filter(isNew).map(([lon, lat]) => [round(lon! + shift), round(clampLat(lat!))]));
}

/**
 * Return the GeoJSON polygon of corners in a polar view. Longitudes go on beyond 180 degrees where
 * the outline crosses the antimeridian; about a pole they end a full turn from where they began,
 * which the server reads as the area up to the pole.
 */
export function polarRegion(sign: 1 | -1, corners: number[][]): object {
  const ring: number[][] = [];
  let last: number | null = null;
  for (const [x, y] of divide(corners.filter(isNew), STEPS)) {
    const [east, lat] = toLonLat(sign, x!, y!);
    const lon: number = last === null ? east : east + 360 * Math.round((last - east) / 360);
    last = lon;
    ring.push([round(lon), round(clampLat(lat))]);
  }
  // Rounding must not leave the ring open.
  const first = ring[0]!;
  const turn = 360 * Math.round((ring[ring.length - 1]![0]! - first[0]!) / 360);
  ring[ring.length - 1] = [round(first[0]! + turn), first[1]!];
  return polygonOf(ring);
}

/** Return the outline of a region in a view; `near` is the longitude at the centre of the plane. */
export function regionOutline(name: ViewName, shape: Shape, near: number): number[][] {
  const [west, south, east, north] = shape.box ?? [0, 0, 0, 0];
  let ring = shape.polygon ?? [[west!, south!], [east!, south!], [east!, north!], [west!, north!], [west!, south!]];
  const sign = signOf(name);
  if (sign !== 0) {
    const points = ring.slice(1).flatMap((end, index) => {
      const start = ring[index]!;
      const steps = Math.max(1, Math.ceil(Math.max(Math.abs(end[0]! - start[0]!), Math.abs(end[1]! - start[1]!)) / STEP_DEG));
      return divide([start, end], steps);
    });
    return points.map(([lon, lat]) => fromLonLat(sign, lon!, lat!));
  }
  const first = ring[0]!;
  const end = ring[ring.length - 1]!;
  if (first[0] !== end[0]) {
    // About a pole: closed along the upper or lower edge of the plane.
    const pole = ring.reduce((sum, [, lat]) => sum + lat!, 0) > 0 ? 90 : -90;
    // Three turns, so that the ends are out of sight.
    const turn = end[0]! - first[0]!;
    ring = [-turn, 0, turn].flatMap((shift) => ring.map(([lon, lat]) => [lon! + shift, lat!]));
    ring = [...ring, [ring[ring.length - 1]![0]!, pole], [ring[0]![0]!, pole], ring[0]!];
  }
  const middle = (Math.min(...ring.map(([lon]) => lon!)) + Math.max(...ring.map(([lon]) => lon!))) / 2;
  const turn = 360 * Math.round((near - middle) / 360);
  return ring.map(([lon, lat]) => [lon! + turn, lat!]);
}

/** Return the points of a line with each edge divided into equal steps. */
function divide(corners: number[][], steps: number): number[][] {
  const points = [corners[0]!];
  for (let index = 1; index < corners.length; index += 1) {
    const [x, y] = corners[index - 1]!;
    const [toX, toY] = corners[index]!;
    for (let step = 1; step <= steps; step += 1) {
      points.push([x! + ((toX! - x!) * step) / steps, y! + ((toY! - y!) * step) / steps]);
    }
  }
  return points;
}

/** Whether a corner is not the one before it again, as after a double click. */
function isNew(corner: number[], index: number, corners: number[][]): boolean {
  const before = corners[index - 1];
  return !before || before[0] !== corner[0] || before[1] !== corner[1];
}

function polygonOf(ring: number[][]): object {
  return { type: "Polygon", coordinates: [ring] };
}
