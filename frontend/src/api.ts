// Requests to the server. Types mirror `marsretrieval.web.schemas`.

export interface Raster {
  west: number;
  north: number;
  cell_lon: number;
  cell_lat: number;
  columns: number;
  rows: number;
}

export interface Model {
  id: string;
  state: "loading" | "ready" | "none";
  reason: string;
  text: boolean;
}

export interface Store {
  name: string;
  path: string;
  stores: string[];
  tiles: number;
  positioned: number;
  missing: number;
  set_hash: string;
  model: Model;
  raster: Raster | null;
  pictures: number;
  sampled: number;
  inventory: string | null;
  read_only: boolean;
  read_only_reason?: string;
  basemap: string | null;
  landforms: string[];
  version: string;
}

export type Mark = "yes" | "no" | "unsure";

export interface Hit {
  rank: number;
  id: string;
  lon: number | null;
  lat: number | null;
  score: number | null;
  percentile?: number | null;
  tiles?: number | null;
  mark?: Mark | null;
}

export interface Query {
  text: string[];
  like: string[];
  not_like: string[];
  not_text: string[];
  pictures: string[];
  bbox: [number, number, number, number] | null;
  region: object | null;
  learned: boolean;
}

export interface Search {
  key: string;
  title: string;
  cli: string;
  counts: number[];
  edges: (number | null)[];
  bound: number;
  total: number;
  hits: Hit[];
  stands_out: boolean | null;
  notes: string[];
  ms: Record<string, number>;
}

export interface Tile {
  id: string;
  lon: number | null;
  lat: number | null;
  width_deg: number | null;
  height_deg: number | null;
  quad: string | null;
  source: string;
  score: number | null;
  mark: Mark | null;
  neighbours: (string | null)[][];
  links: { title: string; url: string }[];
}

export interface Place {
  id: string;
  lon: number;
  lat: number;
  width_deg: number;
  height_deg: number;
}

export interface Feature {
  name: string;
  kind: string;
  lon: number;
  lat: number;
  size: number;
}

export interface Interval {
  estimate: number | null;
  low: number | null;
  high: number | null;
}

export interface Inventory {
  name: string;
  landform: string;
  marked: Record<Mark, number>;
  learned: boolean;
  audit: { number: number; domain: number; done: number; planned: number; target: number } | null;
  estimate: {
    tiles: Interval;
    places: Interval;
    recall: Interval;
    elsewhere: { high: number | null };
    domain: number | null;
    audited: number;
    sentence: string;
    half_width: number | null;
  } | null;
}

export class ApiError extends Error {
  constructor(
    message: string,
    readonly remedy: string,
    readonly code: string,
    readonly status: number,
  ) {
    super(message);
  }
}

const API = "/api/v1";
const token = new URLSearchParams(location.hash.slice(1)).get("token") ?? sessionStorage.getItem("token");
if (token) sessionStorage.setItem("token", token);
const page = crypto.randomUUID().slice(0, 12);

/** URL of a resource that an <img> or EventSource loads, which cannot send the token's header. */
export function urlOf(path: string, parameters: Record<string, string | number | null> = {}): string {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== "") query.set(name, String(value));
  }
  if (token) query.set("token", token);
  const text = query.toString();
  return API + path + (text ? `?${text}` : "");
}

/** Send a request; an answer with an error status, or none at all, throws an ApiError. */
export async function request(path: string, options: RequestInit = {}): Promise<Response> {
  const headers = new Headers(options.headers);
  headers.set("x-page", page);
  if (token) headers.set("authorization", `Bearer ${token}`);
  let response: Response;
  try {
    response = await fetch(path.startsWith(API) ? path : API + path, { ...options, headers });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError("the server does not answer", "Start marsretrieval serve again.", "offline", 0);
  }
  if (!response.ok) {
    let problem = { error: `status ${response.status}`, remedy: "", code: "" };
    try {
      problem = await response.json();
    } catch {
      // Not JSON: the status alone is shown.
    }
    throw new ApiError(problem.error, problem.remedy, problem.code, response.status);
  }
  return response;
}

export async function get<T>(path: string): Promise<T> {
  return (await request(path)).json();
}

export async function send<T>(method: string, path: string, body?: unknown): Promise<T> {
  const response = await request(path, {
    method,
    headers: { "content-type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  return response.json();
}

export function imageUrl(id: string, size: number, store: string): string {
  return urlOf(`/tiles/${id.split("/").map(encodeURIComponent).join("/")}/image`, { size, store });
}
