// The numbered event stream. The browser resumes by itself with Last-Event-ID; where it gives up, this does, by `after`.

import type { NodeEvent } from "./types";

const NAMES = ["entry", "room", "draft", "line", "near", "join", "file", "notice", "reset"] as const;
/** How long to wait before asking anew, in milliseconds: short at first, as the node is on this machine. */
const RETRY_MS = [300, 600, 1000, 2000, 4000];

export interface Listener {
  event(event: NodeEvent): void;
  /** The stream is open: for the first time, or again. */
  open(): void;
  lost(): void;
}

export class EventStream {
  #source: EventSource | null = null;
  #last: string | null = null;
  #attempt = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  constructor(private readonly listener: Listener) {
    this.#connect();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#source?.close();
  }

  /** Tries at once, for instance because the machine has woken up. */
  nudge(): void {
    if (this.#closed || this.#source?.readyState === EventSource.OPEN) return;
    this.#attempt = 0;
    this.#connect();
  }

  #connect(): void {
    clearTimeout(this.#timer);
    this.#source?.close();
    const source = new EventSource(`/api/v1/events${this.#last === null ? "" : `?after=${this.#last}`}`);
    this.#source = source;
    source.onopen = () => {
      this.#attempt = 0;
      this.listener.open();
    };
    source.onerror = () => {
      // Not left to the browser: it waits for seconds, and gives up altogether when the node answers with an error.
      source.close();
      this.listener.lost();
      const wait = RETRY_MS[Math.min(this.#attempt, RETRY_MS.length - 1)];
      this.#attempt += 1;
      if (!this.#closed) this.#timer = setTimeout(() => this.#connect(), wait);
    };
    for (const name of NAMES) {
      source.addEventListener(name, (message: MessageEvent<string>) => {
        if (message.lastEventId !== "") this.#last = message.lastEventId;
        this.listener.event({ event: name, ...(JSON.parse(message.data) as object) } as NodeEvent);
      });
    }
  }
}
