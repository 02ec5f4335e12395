// The map: base map, scores, tiles, ranked places and marks, in three projections.

import OlMap from "ol/Map.js";
import View from "ol/View.js";
import FeatureOl from "ol/Feature.js";
import { defaults as defaultControls } from "ol/control/defaults.js";
import ScaleLine from "ol/control/ScaleLine.js";
import { fromExtent } from "ol/geom/Polygon.js";
import type LineString from "ol/geom/LineString.js";
import Point from "ol/geom/Point.js";
import Polygon from "ol/geom/Polygon.js";
import DragBox from "ol/interaction/DragBox.js";
import Draw from "ol/interaction/Draw.js";
import { defaults as defaultInteractions } from "ol/interaction/defaults.js";
import { shiftKeyOnly } from "ol/events/condition.js";
import ImageLayer from "ol/layer/Image.js";
import VectorLayer from "ol/layer/Vector.js";
import ImageCanvas from "ol/source/ImageCanvas.js";
import VectorSource from "ol/source/Vector.js";
import { Circle, Fill, Stroke, Style } from "ol/style.js";
import "ol/ol.css";

import { BaseMap } from "./basemap.js";
import type { Feature, Hit, Mark, Place } from "./api.js";
import {
  formatPosition, fromLonLat, POLE_EDGE_M, PROJECTIONS, signOf, toLonLat, wrapLon, type ViewName,
} from "./geometry.js";
import { graticule, labels, lineStyle, labelStyle, hitStyle, markStyle, nameStyle, rankStyle, styles, tileStyle } from "./mapstyle.js";
import { planeRegion, polarRegion, regionOutline, type Shape } from "./region.js";
import { setRamp, type ScoreRaster } from "./raster.js";

export const TILES_BELOW = 0.02; // degrees per pixel from which tiles are drawn as images

export interface MapEvents {
  onSelect(lon: number, lat: number): void;
  onLike(lon: number, lat: number): void;
  onHit(id: string): void;
  onMove(): void;
  onPointer(text: string): void;
  onBox(box: [number, number, number, number]): void;
  onPolygon(region: object): void;
}

export class PlanetMap {
  readonly map: OlMap;
  viewName: ViewName = "plane";
  private base: BaseMap | null = null;
  private readonly layers: Record<"base" | "score", ImageLayer<ImageCanvas>>;
  private readonly hits = new VectorSource<FeatureOl<Point>>({ wrapX: false });
  private readonly marks = new VectorSource<FeatureOl<Point>>({ wrapX: false });
  private readonly selection = new VectorSource();
  private readonly region = new VectorSource();
  private readonly lines = new VectorSource<FeatureOl<LineString>>({ wrapX: false });
  private readonly labels = new VectorSource<FeatureOl<Point>>({ wrapX: false });
  private readonly names = new VectorSource<FeatureOl<Point>>({ wrapX: false });
  private readonly tiles = new VectorSource();
  private features: Feature[] = [];
  private hitList: Hit[] = [];
  private markList: { lon: number; lat: number; mark: Mark }[] = [];
  private selected: Place | { lon: number; lat: number } | null = null;
  private regionShape: Shape | null = null;
  private draw: Draw | null = null;
  private score: ScoreRaster | null = null;

  constructor(target: HTMLElement, private readonly events: MapEvents) {
    this.layers = {
      base: new ImageLayer({ className: "layer-base" }),
      score: new ImageLayer({ className: "layer-score" }),
    };
    const outline = [
      new Style({ stroke: new Stroke({ color: "rgba(0,0,0,.7)", width: 4 }), fill: new Fill({ color: "rgba(255,255,255,.06)" }) }),
      new Style({ stroke: new Stroke({ color: "#fff", width: 2 }) }),
    ];
    const box = new DragBox({ condition: shiftKeyOnly });
    this.map = new OlMap({
      target,
      layers: [
        this.layers.base,
        new VectorLayer({ source: this.tiles, style: tileStyle, updateWhileAnimating: true, className: "layer-tiles" }),
        this.layers.score,
        new VectorLayer({ source: this.lines, style: lineStyle, className: "layer-lines" }),
        new VectorLayer({ source: this.region, style: outline }),
        // Of layers that declutter, upper ones come first: names give way to hits and labels.
        new VectorLayer({ source: this.names, style: nameStyle, declutter: true }),
        new VectorLayer({ source: this.labels, style: labelStyle, declutter: true }),
        new VectorLayer({ source: this.hits, style: hitStyle, declutter: true }),
        new VectorLayer({ source: this.hits, style: rankStyle, declutter: true }),
        new VectorLayer({ source: this.marks, style: markStyle }),
        new VectorLayer({ source: this.selection, style: [
          new Style({ stroke: new Stroke({ color: "#000", width: 4 }), image: new Circle({ radius: 11, stroke: new Stroke({ color: "#000", width: 4 }) }) }),
          new Style({ stroke: new Stroke({ color: "#fff", width: 2 }), image: new Circle({ radius: 11, stroke: new Stroke({ color: "#fff", width: 2 }) }) }),
        ] }),
      ],
      controls: defaultControls({ rotate: false, attribution: false }).extend([new ScaleLine({ minWidth: 80, target: "scale" })]),
      interactions: defaultInteractions({ doubleClickZoom: false, altShiftDragRotate: false, pinchRotate: false, shiftDragZoom: false }).extend([box]),
    });
    box.on("boxend", () => {
      const extent = box.getGeometry().getExtent();
      const sign = signOf(this.viewName);
      if (sign !== 0) {
        this.events.onPolygon(polarRegion(sign, fromExtent(extent).getCoordinates()[0]!));
        return;
      }
      const width = Math.min(360, extent[2]! - extent[0]!);
      const west = wrapLon(extent[0]!);
      const clamp = (value: number) => Math.round(Math.max(-90, Math.min(90, value)) * 1e4) / 1e4;
      this.events.onBox([
        Math.round(west * 1e4) / 1e4, clamp(extent[1]!),
        Math.round((west + width) * 1e4) / 1e4, clamp(extent[3]!),
      ]);
    });
    this.map.on("singleclick", (event) => {
      if (this.draw) return;
      const id = this.map.forEachFeatureAtPixel(event.pixel, (feature) => feature.get("id") as string | undefined, { hitTolerance: 4 });
      if (id) this.events.onHit(id);
      else this.at(event.coordinate, this.events.onSelect);
    });
    this.map.on("dblclick", (event) => {
      if (!this.draw) this.at(event.coordinate, this.events.onLike);
    });
    this.map.on("pointermove", (event) => {
      if (event.dragging) return;
      const [lon, lat] = this.toDegrees(event.coordinate);
      this.events.onPointer(Math.abs(lat!) <= 90 ? formatPosition(lon!, lat!) : "");
    });
    this.map.on("moveend", () => {
      this.keepOnPlanet();
      this.events.onMove();
    });
    this.map.on("change:size", () => this.drawLines());
    this.setView("plane", [0, 0], 0.25);
  }

  /** After dragging over the antimeridian: show the copy of everything that is in sight. */
  private keepOnPlanet(): void {
    const view = this.map.getView();
    const [x = 0, y = 0] = view.getCenter() ?? [];
    if (this.viewName !== "plane") return;
    if (Math.abs(x) > 180) view.setCenter([wrapLon(x), y]);
    if (Math.abs(wrapLon(x - this.drawnAt)) > 10) this.redrawVectors();
  }

  private drawnAt = 0; // longitude for which the copies of the features were chosen

  /** Lines of longitude and latitude, with labels along the edges of the map. */
  private drawLines(): void {
    const size = this.map.getSize();
    if (!size) return;
    const extent = this.map.getView().calculateExtent(size);
    this.lines.clear();
    this.lines.addFeatures(graticule(this.viewName, extent, this.zoom));
    this.labels.clear();
    this.labels.addFeatures(labels(this.viewName, extent, this.zoom));
  }

  private at(coordinate: number[], act: (lon: number, lat: number) => void): void {
    const [lon, lat] = this.toDegrees(coordinate);
    if (Math.abs(lat!) <= 90) act(wrapLon(lon!), lat!);
  }

  private toDegrees(coordinate: number[]): number[] {
    const sign = signOf(this.viewName);
    return sign === 0 ? coordinate : toLonLat(sign, coordinate[0]!, coordinate[1]!);
  }

  private toMap(lon: number, lat: number): [number, number] {
    const sign = signOf(this.viewName);
    if (sign !== 0) return fromLonLat(sign, lon, lat);
    // The copy of the planet that is nearest to the centre of the view.
    const centre = this.map.getView().getCenter()?.[0] ?? 0;
    return [lon + 360 * Math.round((centre - lon) / 360), lat];
  }

  /** Show the plane or a pole. `zoom` is in degrees per pixel at the centre. */
  setView(name: ViewName, centre?: [number, number], zoom?: number): void {
    if (this.draw) this.togglePolygon(); // its corners are of the other projection
    this.viewName = name;
    const sign = signOf(name);
    const metres = 59274.697; // of one degree
    const scale = sign === 0 ? 1 : metres;
    const old = this.map.getView();
    const resolution = zoom === undefined ? (sign === 0 ? 0.25 : (2 * POLE_EDGE_M) / 900) : zoom * scale;
    const middle = centre ?? (sign === 0 ? [0, 0] : [0, sign * 90]);
    this.map.setView(
      new View({
        projection: PROJECTIONS[name],
        center: sign === 0 ? middle : fromLonLat(sign, middle[0]!, middle[1]!),
        resolution,
        minResolution: 0.00002 * scale,
        maxResolution: sign === 0 ? 1.2 : (2 * POLE_EDGE_M) / 300,
        extent: sign === 0 ? [-100000, -95, 100000, 95] : [-POLE_EDGE_M, -POLE_EDGE_M, POLE_EDGE_M, POLE_EDGE_M],
        constrainOnlyCenter: true,
        multiWorld: true,
        smoothResolutionConstraint: false,
      }),
    );
    old.dispose();
    this.map.getView().on(["change:center", "change:resolution"] as never, () => this.drawLines());
    this.layers.base.setSource(this.canvasSource(name, (context, extent, width) => this.base?.draw(context, extent, width, signOf(name))));
    this.layers.score.setSource(this.canvasSource(name, (context, extent, width) => this.drawScore(context, extent, width)));
    this.redrawVectors();
  }

  private canvasSource(name: ViewName, draw: (context: CanvasRenderingContext2D, extent: number[], width: number) => void): ImageCanvas {
    return new ImageCanvas({
      projection: PROJECTIONS[name],
      ratio: 1,
      interpolate: false,
      canvasFunction: (extent, _resolution, _ratio, size) => {
        const canvas = document.createElement("canvas");
        canvas.width = Math.round(size[0]!);
        canvas.height = Math.round(size[1]!);
        draw(canvas.getContext("2d")!, extent, canvas.width);
        return canvas;
      },
    });
  }

  get centre(): [number, number] {
    const [lon, lat] = this.toDegrees(this.map.getView().getCenter() ?? [0, 0]);
    return [wrapLon(lon!), lat!];
  }

  /** Degrees per pixel at the centre. */
  get zoom(): number {
    const resolution = this.map.getView().getResolution() ?? 0.25;
    return this.viewName === "plane" ? resolution : resolution / 59274.697;
  }

  /** West, south, east, north of the view in degrees; east may exceed 180. */
  get extent(): [number, number, number, number] {
    const extent = this.map.getView().calculateExtent(this.map.getSize());
    if (this.viewName === "plane") {
      const width = Math.min(360, extent[2]! - extent[0]!);
      const west = wrapLon(extent[0]!);
      return [west, Math.max(-90, extent[1]!), west + width, Math.min(90, extent[3]!)];
    }
    const sign = signOf(this.viewName) as 1 | -1;
    const corner = Math.max(...[0, 2].flatMap((i) => [1, 3].map((j) => Math.hypot(extent[i]!, extent[j]!))));
    const edge = toLonLat(sign, 0, corner)[1];
    return sign > 0 ? [-180, edge, 180, 90] : [-180, -90, 180, edge];
  }

  zoomTo(lon: number, lat: number, zoom?: number): void {
    const view = this.map.getView();
    const reduced = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const target = zoom === undefined ? view.getResolution()! : zoom * (this.viewName === "plane" ? 1 : 59274.697);
    view.animate({ center: this.toMap(lon, lat), resolution: target, duration: reduced ? 0 : 250 });
  }

  /** Move the view only if the position is not visible. */
  reveal(lon: number, lat: number): void {
    const extent = this.map.getView().calculateExtent(this.map.getSize());
    const [x, y] = this.toMap(lon, lat);
    if (x < extent[0]! || x > extent[2]! || y < extent[1]! || y > extent[3]!) this.zoomTo(lon, lat);
  }

  /** Show the whole planet. */
  fitPlanet(): void {
    const size = this.map.getSize() ?? [800, 500];
    this.setView("plane", [0, 0], Math.max(0.05, Math.min(1.2, Math.max(360 / size[0]!, 180 / size[1]!))));
  }

  fit(box: [number, number, number, number]): void {
    const size = this.map.getSize() ?? [800, 500];
    const zoom = Math.max((box[2] - box[0]) / size[0]!, (box[3] - box[1]) / size[1]!) * 1.15;
    this.setView("plane", [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2], Math.min(0.6, Math.max(zoom, 0.0002)));
  }

  setTheme(dark: boolean): void {
    styles.dark = dark;
    setRamp(dark);
    this.lines.changed();
    this.labels.changed();
    this.names.changed();
    this.hits.changed();
  }

  setBase(image: HTMLImageElement): void {
    this.base = new BaseMap(image);
    this.layers.base.getSource()?.changed();
  }

  setScore(score: ScoreRaster | null): void {
    this.score = score;
    this.layers.score.getSource()?.changed();
  }

  setScoreVisible(visible: boolean): void {
    this.layers.score.setVisible(visible);
  }

  private drawScore(context: CanvasRenderingContext2D, extent: number[], width: number): void {
    if (!this.score?.isLoaded) return;
    const sign = signOf(this.viewName);
    // Zoomed in on the tiles, the scores must not hide them.
    context.globalAlpha = this.zoom < TILES_BELOW && this.tiles.getFeatures().length ? 0.25 : 0.92;
    if (sign === 0) {
      this.score.draw(context, extent, width);
      return;
    }
    const canvas = this.score.polar(sign);
    if (!canvas) return;
    const scale = width / (extent[2]! - extent[0]!);
    context.imageSmoothingEnabled = false;
    context.drawImage(canvas, (-POLE_EDGE_M - extent[0]!) * scale, (extent[3]! - POLE_EDGE_M) * scale, 2 * POLE_EDGE_M * scale, 2 * POLE_EDGE_M * scale);
  }

  setHits(hits: Hit[]): void {
    this.hitList = hits;
    this.redrawVectors();
  }

  /** Number of hits, marks and scores that are drawn, for tests of the page. */
  get drawn(): { hits: number; marks: number; score: boolean } {
    return {
      hits: this.hits.getFeatures().length,
      marks: this.marks.getFeatures().length,
      score: this.layers.score.getVisible() && this.score !== null,
    };
  }

  setMarks(marks: { lon: number; lat: number; mark: Mark }[]): void {
    this.markList = marks;
    this.redrawVectors();
  }

  setFeatures(features: Feature[]): void {
    this.features = features;
    this.redrawVectors();
  }

  setSelected(place: Place | { lon: number; lat: number } | null): void {
    this.selected = place;
    this.redrawVectors();
  }

  setRegion(shape: Shape | null): void {
    this.regionShape = shape;
    this.redrawVectors();
  }

  setTiles(places: (Place & { url: string })[]): void {
    this.tiles.clear();
    if (this.viewName !== "plane") return;
    for (const place of places) {
      const [x, y] = this.toMap(place.lon, place.lat);
      const feature = new FeatureOl({
        geometry: fromExtent([
          x - place.width_deg / 2, y - place.height_deg / 2, x + place.width_deg / 2, y + place.height_deg / 2,
        ]),
      });
      feature.set("url", place.url);
      feature.set("width", place.width_deg);
      feature.set("height", place.height_deg);
      this.tiles.addFeature(feature);
    }
    this.layers.score.getSource()?.changed();
  }

  private redrawVectors(): void {
    const sign = signOf(this.viewName);
    const visible = (lat: number) => sign === 0 || sign * lat >= 35;
    this.hits.clear();
    this.hits.addFeatures(
      this.hitList
        .filter((hit) => hit.lon !== null && hit.lat !== null && visible(hit.lat!))
        .map((hit) => {
          const feature = new FeatureOl(new Point(this.toMap(hit.lon!, hit.lat!)));
          feature.set("id", hit.id);
          feature.set("rank", hit.rank);
          return feature;
        }),
    );
    this.marks.clear();
    this.marks.addFeatures(
      this.markList.filter((mark) => visible(mark.lat)).map((mark) => {
        const feature = new FeatureOl(new Point(this.toMap(mark.lon, mark.lat)));
        feature.set("mark", mark.mark);
        return feature;
      }),
    );
    this.names.clear();
    this.names.addFeatures(
      this.features.filter((one) => visible(one.lat)).map((one) => {
        const feature = new FeatureOl(new Point(this.toMap(one.lon, one.lat)));
        feature.set("name", one.name);
        feature.set("size", one.size);
        return feature;
      }),
    );
    this.selection.clear();
    if (this.selected && visible(this.selected.lat)) {
      const { lon, lat } = this.selected;
      if (sign === 0 && "width_deg" in this.selected) {
        const { width_deg: wide, height_deg: high } = this.selected;
        const [x, y] = this.toMap(lon, lat);
        this.selection.addFeature(new FeatureOl(fromExtent([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2])));
      }
      this.selection.addFeature(new FeatureOl(new Point(this.toMap(lon, lat))));
    }
    this.region.clear();
    if (this.regionShape) {
      const outline = regionOutline(this.viewName, this.regionShape, this.map.getView().getCenter()?.[0] ?? 0);
      this.region.addFeature(new FeatureOl(new Polygon([outline])));
    }
    this.drawnAt = this.map.getView().getCenter()?.[0] ?? 0;
    this.drawLines();
  }

  /** Let the user draw a polygon; a second call cancels. Returns whether drawing has begun. */
  togglePolygon(): boolean {
    if (this.draw) {
      this.map.removeInteraction(this.draw);
      this.draw = null;
      return false;
    }
    this.draw = new Draw({ source: new VectorSource(), type: "Polygon" });
    const draw = this.draw;
    draw.on("drawend", (event) => {
      draw.setActive(false); // the second click of a double click begins no other polygon
      const corners = (event.feature.getGeometry() as Polygon).getCoordinates()[0]!;
      const sign = signOf(this.viewName);
      setTimeout(() => { if (this.draw === draw) this.togglePolygon(); }, 400); // after the click that ended the drawing
      this.events.onPolygon(sign === 0 ? planeRegion(corners) : polarRegion(sign, corners));
    });
    this.map.addInteraction(this.draw);
    return true;
  }
}
