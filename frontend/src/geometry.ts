// Mars in OpenLayers: degrees on the sphere, and two polar views.

import Projection from "ol/proj/Projection.js";
import { addCoordinateTransforms, addProjection } from "ol/proj.js";

export const RADIUS_M = 3396190;
const DEGREE = Math.PI / 180;
export const POLE_EDGE_DEG = 45; // latitude at the edge of a polar view

// OpenLayers measures on the sphere of the Earth unless a projection says otherwise.
export const PLANE = new Projection({
  code: "IAU_2015:49900",
  units: "degrees",
  metersPerUnit: RADIUS_M * DEGREE,
  extent: [-180, -90, 180, 90],
  worldExtent: [-180, -90, 180, 90],
  global: true,
  axisOrientation: "enu",
  getPointResolution: (resolution, point) =>
    resolution * Math.max(0.01, Math.cos((point[1] ?? 0) * DEGREE)),
});
addProjection(PLANE);

export const POLE_EDGE_M = 2 * RADIUS_M * Math.tan(((90 - POLE_EDGE_DEG) * DEGREE) / 2);

/** Spherical stereographic projection about a pole: sign 1 north, -1 south. */
function polar(sign: 1 | -1): Projection {
  const projection = new Projection({
    code: sign > 0 ? "IAU_2015:49930" : "IAU_2015:49935",
    units: "m",
    extent: [-POLE_EDGE_M, -POLE_EDGE_M, POLE_EDGE_M, POLE_EDGE_M],
    worldExtent: sign > 0 ? [-180, POLE_EDGE_DEG, 180, 90] : [-180, -90, 180, -POLE_EDGE_DEG],
    global: false,
    // The scale factor of the projection grows away from the pole.
    getPointResolution: (resolution, [x = 0, y = 0]) =>
      resolution / (1 + (x * x + y * y) / (4 * RADIUS_M * RADIUS_M)),
  });
  addProjection(projection);
  addCoordinateTransforms(
    PLANE,
    projection,
    ([lon = 0, lat = 0]) => fromLonLat(sign, lon, lat),
    ([x = 0, y = 0]) => toLonLat(sign, x, y),
  );
  return projection;
}

export function fromLonLat(sign: 1 | -1, lon: number, lat: number): [number, number] {
  const distance = 2 * RADIUS_M * Math.tan(((90 - Math.max(sign * lat, -60)) * DEGREE) / 2);
  return [distance * Math.sin(lon * DEGREE), -sign * distance * Math.cos(lon * DEGREE)];
}

export function toLonLat(sign: 1 | -1, x: number, y: number): [number, number] {
  const distance = Math.hypot(x, y);
  return [
    Math.atan2(x, -sign * y) / DEGREE,
    sign * (90 - (2 * Math.atan(distance / (2 * RADIUS_M))) / DEGREE),
  ];
}

export const NORTH = polar(1);
export const SOUTH = polar(-1);

export type ViewName = "plane" | "north" | "south";
export const PROJECTIONS: Record<ViewName, Projection> = { plane: PLANE, north: NORTH, south: SOUTH };

/** Sign of a polar view; 0 for the plane. */
export function signOf(name: ViewName): 1 | -1 | 0 {
  return name === "plane" ? 0 : name === "north" ? 1 : -1;
}

export function wrapLon(lon: number): number {
  return ((((lon + 180) % 360) + 360) % 360) - 180;
}

export function formatPosition(lon: number | null, lat: number | null, digits = 2): string {
  if (lon === null || lat === null) return "no position";
  const east = wrapLon(lon);
  return (
    `${Math.abs(lat).toFixed(digits)}° ${lat < 0 ? "S" : "N"}, ` +
    `${Math.abs(east).toFixed(digits)}° ${east < 0 ? "W" : "E"}`
  );
}
