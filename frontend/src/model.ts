// The state of the model of a store: what can be searched for, and how long it has been loading.

import { urlOf, type Model, type Store } from "./api.js";
import { byId } from "./dom.js";

export class ModelWatch {
  private timer = 0;
  private events: EventSource | null = null;

  constructor(private readonly onChange: (model: Model) => void) {}

  /** Show the model of a store, and follow it until it is loaded. */
  open(store: Store): void {
    this.events?.close();
    this.events = null;
    this.show(store.model);
    if (store.model.state !== "loading") return;
    const events = new EventSource(urlOf("/events", { store: store.name }));
    this.events = events;
    events.addEventListener("model", (event) => {
      const model = JSON.parse((event as MessageEvent).data) as Model;
      this.show(model);
      if (model.state !== "loading") events.close();
    });
    events.onerror = () => { if (events.readyState === EventSource.CLOSED) events.close(); };
  }

  private show(model: Model): void {
    const input = byId<HTMLInputElement>("text");
    const usable = model.text && model.state !== "none";
    input.disabled = !usable;
    input.placeholder = !model.text
      ? `${model.id} embeds images only: double-click a tile`
      : model.state === "none" ? "Text search is not available: double-click a tile" : "Describe a landform";
    for (const button of byId("suggestions").querySelectorAll("button")) button.disabled = !usable;
    byId<HTMLButtonElement>("upload").disabled = model.state === "none";
    clearInterval(this.timer);
    const element = byId("model");
    element.hidden = model.state !== "loading";
    if (model.state === "loading") {
      const start = performance.now();
      const tick = () => { element.textContent = `Loading the model, ${Math.round((performance.now() - start) / 1000)} s`; };
      tick();
      this.timer = window.setInterval(tick, 1000);
    }
    this.onChange(model);
  }
}
