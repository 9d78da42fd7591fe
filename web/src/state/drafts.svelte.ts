// What was begun and not sent, for each room. The node keeps it, so it is there on every browser; what the node has not taken yet is kept here.

import { api } from "../api/client";
import type { Draft, Room } from "../api/types";
import { readStored, store } from "./settings.svelte";

const KEY = "offhook.drafts";
const SAVE_MS = 400;

class Drafts {
  #texts: Record<string, string> = $state({});
  /** What the node has not confirmed. */
  #fresh: Record<string, string> = readStored<Record<string, string>>(KEY, {});
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    Object.assign(this.#texts, this.#fresh);
  }

  of(room: string): string {
    return this.#texts[room] ?? "";
  }

  /** What the node has, for rooms in which nothing newer was typed here. */
  known(rooms: readonly Room[]): void {
    for (const room of rooms) this.told(room.room, room.draft);
  }

  told(room: string, draft: Draft | null): void {
    if (room in this.#fresh) return;
    if (draft?.text) this.#texts[room] = draft.text;
    else delete this.#texts[room];
  }

  set(room: string, text: string): void {
    if (text === this.of(room)) return;
    if (text === "") delete this.#texts[room];
    else this.#texts[room] = text;
    this.#fresh[room] = text;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.save(), SAVE_MS);
  }

  save(leaving = false): void {
    clearTimeout(this.#timer);
    store(KEY, this.#fresh);
    for (const [room, text] of Object.entries(this.#fresh)) {
      const confirmed = () => {
        if (this.#fresh[room] === text) delete this.#fresh[room];
        store(KEY, this.#fresh);
      };
      void api.draft(room, text, leaving).then(confirmed, () => undefined);
    }
  }
}

export const drafts = new Drafts();
