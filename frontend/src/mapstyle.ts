// What is drawn on the map: lines of longitude and latitude, names, hits and marks.

import FeatureOl from "ol/Feature.js";
import LineString from "ol/geom/LineString.js";
import Point from "ol/geom/Point.js";
import type Polygon from "ol/geom/Polygon.js";
import { Circle, Fill, Icon, RegularShape, Stroke, Style, Text } from "ol/style.js";

import type { Mark } from "./api.js";
import { fromLonLat, POLE_EDGE_DEG, signOf, wrapLon, type ViewName } from "./geometry.js";

/** Whether styles are those of the dark page. */
export const styles = { dark: true };

const STEPS = [90, 60, 30, 15, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01];
const SANS = "system-ui, sans-serif";

const round = (value: number) => Math.round(value * 1e4) / 1e4;

/** Distance of the lines in degrees: those of a world map, or closer ones, at least 110 pixels apart. */
function stepOf(zoom: number): number {
  let step = STEPS[0]!;
  for (const smaller of STEPS) if (smaller / zoom >= (smaller >= 30 ? 54 : 110)) step = smaller;
  return step;
}

function multiples(from: number, to: number, step: number): number[] {
  const found: number[] = [];
  for (let index = Math.ceil(from / step); index * step <= to && found.length < 200; index += 1) found.push(round(index * step));
  return found;
}

/** Lines in an extent of the map, whose centre has `zoom` degrees per pixel. */
export function graticule(name: ViewName, extent: number[], zoom: number): FeatureOl<LineString>[] {
  const [west, south, east, north] = extent as [number, number, number, number];
  const line = (points: [number, number][]) => new FeatureOl(new LineString(points));
  const sign = signOf(name);
  if (sign === 0) {
    const step = stepOf(zoom);
    const low = Math.max(-90, south);
    const high = Math.min(90, north);
    return [
      ...multiples(west, east, step).map((lon) => line([[lon, low], [lon, high]])),
      ...multiples(low, high, step).filter((lat) => Math.abs(lat) < 90).map((lat) => line([[west, lat], [east, lat]])),
    ];
  }
  const lines: FeatureOl<LineString>[] = [];
  for (let lon = -180; lon < 180; lon += 30) {
    lines.push(line([fromLonLat(sign, lon, sign * POLE_EDGE_DEG), fromLonLat(sign, lon, sign * 85)]));
  }
  for (let lat = 50; lat < 90; lat += 10) {
    const circle: [number, number][] = [];
    for (let lon = -180; lon <= 180; lon += 3) circle.push(fromLonLat(sign, lon, sign * lat));
    lines.push(line(circle));
  }
  return lines;
}

/** Labels of the lines: of meridians at the lower edge, of parallels at the left one. */
export function labels(name: ViewName, extent: number[], zoom: number): FeatureOl<Point>[] {
  const [west, south, east, north] = extent as [number, number, number, number];
  const pixel = zoom * (name === "plane" ? 1 : 59274.697); // in units of the map
  const label = (x: number, y: number, text: string, align: "left" | "center") => {
    const feature = new FeatureOl(new Point([x, y]));
    feature.set("text", text);
    feature.set("align", align);
    return feature;
  };
  const sign = signOf(name);
  if (sign === 0) {
    const step = stepOf(zoom);
    const top = Math.min(90, north);
    // Below the upper edge of the planet, or of the map, where buttons are.
    const at = top - (north > 90 + 20 * pixel ? -8 : 62) * pixel;
    return [
      ...multiples(west + 40 * pixel, east - 40 * pixel, step).map((lon) => label(lon, at, formatLon(wrapLon(lon)), "center")),
      ...multiples(Math.max(-89, south + 120 * pixel), Math.min(89, north - 90 * pixel), step).map((lat) => label(west + 8 * pixel, lat, formatLat(lat), "left")),
    ];
  }
  const found: FeatureOl<Point>[] = [];
  for (let lon = -180; lon < 180; lon += 30) {
    // Where the meridian leaves the map, or the edge of the projection.
    for (let lat = POLE_EDGE_DEG + 1; lat < 84; lat += 1) {
      const [x, y] = fromLonLat(sign, lon, sign * lat);
      if (x > west + 30 * pixel && x < east - 30 * pixel && y > south + 110 * pixel && y < north - 60 * pixel) {
        found.push(label(x, y, formatLon(lon), "center"));
        break;
      }
    }
  }
  for (let lat = 60; lat < 90; lat += 10) {
    const [x, y] = fromLonLat(sign, 15, sign * lat);
    if (x > west && x < east && y > south && y < north) found.push(label(x, y, formatLat(sign * lat), "center"));
  }
  return found;
}

const digits = (value: number) => (Number.isInteger(value) ? String(value) : String(round(value)));
const formatLon = (lon: number) => `${digits(Math.abs(lon))}°${lon === 0 || Math.abs(lon) === 180 ? "" : lon < 0 ? " W" : " E"}`;
const formatLat = (lat: number) => `${digits(Math.abs(lat))}°${lat === 0 ? "" : lat < 0 ? " S" : " N"}`;

const halo = (width: number) =>
  new Stroke({ color: styles.dark ? "rgba(13,11,10,.7)" : "rgba(252,249,245,.92)", width });

export function lineStyle(): Style {
  return new Style({ stroke: new Stroke({ color: styles.dark ? "rgba(255,255,255,.14)" : "rgba(40,30,20,.2)", width: 1 }) });
}

export function labelStyle(feature: unknown): Style {
  const one = feature as FeatureOl;
  return new Style({
    text: new Text({
      text: one.get("text"),
      textAlign: one.get("align"),
      font: `12px ${SANS}`,
      fill: new Fill({ color: styles.dark ? "#d8cfc6" : "#2b2420" }),
      stroke: halo(3),
    }),
  });
}

export function nameStyle(feature: unknown, resolution: number): Style | undefined {
  const one = feature as FeatureOl;
  const degrees = resolution > 10 ? resolution / 59274.697 : resolution;
  // Small features are named only when the view is close.
  if (one.get("size") / degrees < 60) return undefined;
  return new Style({
    text: new Text({
      text: one.get("name"),
      font: `italic 12px ${SANS}`,
      fill: new Fill({ color: styles.dark ? "#d8cfc6" : "#2b2420" }),
      stroke: halo(2.5),
      padding: [4, 6, 4, 6],
    }),
  });
}

const ring = (radius: number, color: string, width: number) =>
  new Circle({ radius, stroke: new Stroke({ color, width }), declutterMode: "obstacle" });
const RINGS = {
  best: [new Style({ image: ring(6.5, "rgba(0,0,0,.85)", 3.6) }), new Style({ image: ring(6.5, "#fff", 1.8) })],
  other: [new Style({ image: ring(4, "rgba(0,0,0,.7)", 3) }), new Style({ image: ring(4, "rgba(255,255,255,.85)", 1.4) })],
};

/** The ten best hits always; the others from where single tiles can be told apart. */
export function hitStyle(feature: unknown, resolution: number): Style[] | undefined {
  const rank = (feature as FeatureOl).get("rank") as number;
  const degrees = resolution > 10 ? resolution / 59274.697 : resolution;
  if (rank > 10) return degrees < 0.03 ? RINGS.other : undefined;
  return RINGS.best;
}

/** Ranks of the ten best hits, in a layer of their own: those that would overlap are left out. */
export function rankStyle(feature: unknown): Style | undefined {
  const rank = (feature as FeatureOl).get("rank") as number;
  if (rank > 10) return undefined;
  return new Style({
      zIndex: 10 - rank,
      text: new Text({
        text: String(rank), textAlign: "left", offsetX: 9, offsetY: -15, font: `600 12px ${SANS}`,
        fill: new Fill({ color: "#fff" }), stroke: new Stroke({ color: "rgba(0,0,0,.85)", width: 3 }),
      }),
  });
}

// Marks differ in shape and colour: a filled triangle, a cross, a ring.
const MARK_STYLES: Record<Mark, Style> = {
  yes: new Style({ image: new RegularShape({ points: 3, radius: 8, fill: new Fill({ color: "#46c786" }), stroke: new Stroke({ color: "#06281a", width: 1.5 }) }) }),
  no: new Style({ image: new RegularShape({ points: 4, radius: 7, radius2: 0, angle: Math.PI / 4, stroke: new Stroke({ color: "#ff7b6b", width: 2.4 }) }) }),
  unsure: new Style({ image: new Circle({ radius: 6, stroke: new Stroke({ color: "#ffd166", width: 2.4 }) }) }),
};

export function markStyle(feature: unknown): Style {
  return MARK_STYLES[(feature as FeatureOl).get("mark") as Mark];
}

const tileImages = new Map<string, HTMLImageElement>();

export function tileStyle(feature: unknown, resolution: number): Style | undefined {
  const one = feature as FeatureOl<Polygon>;
  const url = one.get("url") as string;
  let image = tileImages.get(url);
  if (!image) {
    image = new Image();
    image.onload = () => one.changed();
    image.src = url;
    tileImages.set(url, image);
    if (tileImages.size > 600) tileImages.delete(tileImages.keys().next().value as string);
  }
  if (!image.complete || !image.naturalWidth) return undefined;
  return new Style({
    geometry: (drawn) => (drawn.getGeometry() as Polygon).getInteriorPoint(),
    image: new Icon({
      img: image,
      width: one.get("width") / resolution,
      height: one.get("height") / resolution,
    }),
  });
}

