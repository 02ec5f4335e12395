// The banner below the header: errors, and a server that does not answer.

import { ApiError } from "./api.js";
import { byId, h } from "./dom.js";

const RETRY_MS = 2000;

export interface BannerEvents {
  /** Ask the server for anything; rejects while it is gone. */
  onRetry(): Promise<void>;
  /** Called once when the server is back. */
  onBack(): Promise<void>;
}

export class Banner {
  private readonly root = byId("banner");

  constructor(private readonly events: BannerEvents) {}

  /** Show an error with its remedy, or wait for a server that is gone. */
  problem(error: unknown): void {
    if (error instanceof ApiError && error.status === 0) {
      this.offline();
      return;
    }
    const text = error instanceof ApiError ? [error.message, error.remedy].filter(Boolean).join(" — ") : String(error);
    const close = () => { this.root.hidden = true; };
    this.root.replaceChildren(h("span", {}, text), h("button", { type: "button", "aria-label": "Close", onclick: close }, "×"));
    this.root.dataset.kind = "error";
    this.root.hidden = false;
  }

  /** Remove the banner after an answer. */
  clear(): void {
    this.root.hidden = true;
    this.root.dataset.kind = "";
  }

  private offline(): void {
    if (this.root.dataset.kind === "offline" && !this.root.hidden) return;
    this.root.dataset.kind = "offline";
    this.root.replaceChildren(h("span", {}, "The server does not answer. Marks are kept on this page and sent when it is back."));
    this.root.hidden = false;
    const retry = async () => {
      try {
        await this.events.onRetry();
      } catch {
        setTimeout(() => void retry(), RETRY_MS);
        return;
      }
      this.clear();
      await this.events.onBack();
    };
    setTimeout(() => void retry(), RETRY_MS);
  }
}
