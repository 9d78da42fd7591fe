// What was sent and is not confirmed by the node yet. Kept over reloads: each has an id of its own, so handing it over twice says it once.

import { api, Problem } from "../api/client";
import type { FileTaken } from "../api/types";
import type { Pending } from "./rows";
import { readStored, store } from "./settings.svelte";

const KEY = "offhook.outbox";
const HELD_MAX = 200;

class Outbox {
  #held: Pending[] = $state.raw(readStored<{ held: Pending[] }>(KEY, { held: [] }).held.filter((entry) => entry.id === undefined));
  #sending = Promise.resolve();

  of(room: string): Pending[] {
    return this.#held.filter((entry) => entry.room === room);
  }

  get waiting(): number {
    return this.#held.filter((entry) => entry.id === undefined && entry.failed === undefined).length;
  }

  send(room: string, text: string, reply_to: string | null, files: FileTaken[]): void {
    // Kept over reloads: without the pictures.
    const names = files.map(({ file, name }) => ({ file, name }));
    const entry: Pending = { client_id: crypto.randomUUID(), room, text, reply_to, files: names, time: new Date().toISOString() };
    this.#set([...this.#held.slice(-HELD_MAX), entry]);
    this.#hand(entry);
  }

  retry(client_id: string): void {
    const entry = this.#held.find((held) => held.client_id === client_id);
    if (!entry) return;
    const { failed: _, ...fresh } = entry;
    this.#replace(client_id, fresh);
    this.#hand(fresh);
  }

  drop(client_id: string): void {
    this.#set(this.#held.filter((entry) => entry.client_id !== client_id));
  }

  /** The node is back: hands over what has waited, in order. */
  flush(): void {
    for (const entry of this.#held) if (entry.id === undefined && entry.failed === undefined) this.#hand(entry);
  }

  /** A line of ours has come by the event stream: if it is the text that is being sent, it is that one. */
  arrived(room: string, id: string, text: string, files: readonly FileTaken[]): void {
    const same = (entry: Pending) => entry.text === text && (entry.files ?? []).map((file) => file.file).join() === files.map((file) => file.file).join();
    const match = this.#held.find((entry) => entry.room === room && (entry.id === id || (entry.id === undefined && same(entry))));
    if (match) this.drop(match.client_id);
  }

  /** One after the other, so that they are said in the order in which they were written. */
  #hand(entry: Pending): void {
    this.#sending = this.#sending.then(async () => {
      if (!this.#held.some((held) => held.client_id === entry.client_id)) return;
      const files = (entry.files ?? []).map((file) => file.file);
      try {
        const made = entry.reply_to
          ? await api.reply(entry.reply_to, entry.text, files, entry.client_id)
          : await api.say(entry.room, entry.text, files, entry.client_id);
        if (this.#held.some((held) => held.client_id === entry.client_id))
          this.#replace(entry.client_id, { ...entry, id: made.id });
      } catch (error) {
        // A node that does not answer is no failure: it is tried again when it is back.
        if (error instanceof Problem && !error.unreachable && !error.signedOut)
          this.#replace(entry.client_id, { ...entry, failed: error.message });
      }
    });
  }

  #replace(client_id: string, entry: Pending): void {
    this.#set(this.#held.map((held) => (held.client_id === client_id ? entry : held)));
  }

  #set(held: Pending[]): void {
    this.#held = held;
    store(KEY, { held });
  }
}

export const outbox = new Outbox();
