// Files of messages: what of them is here, and files on their way into the node.

import { SvelteMap } from "svelte/reactivity";
import { api, takeFile } from "../api/client";
import type { FileState, FileTaken } from "../api/types";

const ASK_MS = 700;

/** How much of each file of a message is here; asked again while something is coming. */
class Files {
  #known = new SvelteMap<string, FileState[]>();
  #asking = new Set<string>();

  of(entry: string, file: string): FileState | undefined {
    return this.#known.get(entry)?.find((known) => known.file === file);
  }

  /** Follows the files of a message until none of them is coming. */
  follow(entry: string): void {
    if (this.#asking.has(entry)) return;
    this.#asking.add(entry);
    void this.#follow(entry);
  }

  async fetch(entry: string, file: string): Promise<void> {
    await api.fetchFile(entry, file);
    this.follow(entry);
  }

  async #follow(entry: string): Promise<void> {
    try {
      for (;;) {
        const files = await api.files(entry);
        this.#known.set(entry, files);
        if (!files.some((file) => file.state === "coming")) return;
        await new Promise((resolve) => setTimeout(resolve, ASK_MS));
      }
    } catch {
      // Asked again when the message is shown again.
    } finally {
      this.#asking.delete(entry);
    }
  }
}

export const files = new Files();

/** A file that was chosen and is not sent yet. */
export interface Chosen {
  key: number;
  name: string;
  bytes: number;
  /** From 0 to 1, until the node has it. */
  progress: number;
  taken?: FileTaken;
  stop: () => void;
}

/** As many files as a message carries. */
export const FILES_MAX = 4;

/** The files that the next message of a room carries. */
export class Attached {
  list: Chosen[] = $state([]);
  #next = 0;

  get busy(): boolean {
    return this.list.some((file) => file.taken === undefined);
  }

  /** Hands files to the node; those that are too many are given back. */
  add(chosen: readonly File[], complain: (error: unknown) => void): File[] {
    const room = Math.max(0, FILES_MAX - this.list.length);
    for (const file of chosen.slice(0, room)) this.#take(file, complain);
    return chosen.slice(room);
  }

  remove(key: number): void {
    this.list.find((file) => file.key === key)?.stop();
    this.list = this.list.filter((file) => file.key !== key);
  }

  /** Empties the list and returns what was on it. */
  send(): FileTaken[] {
    const taken = this.list.flatMap((file) => file.taken ?? []);
    this.list = [];
    return taken;
  }

  #take(file: File, complain: (error: unknown) => void): void {
    const key = this.#next++;
    const change = (to: Partial<Chosen>) => {
      this.list = this.list.map((one) => (one.key === key ? { ...one, ...to } : one));
    };
    const upload = takeFile(file, (progress) => change({ progress }));
    this.list = [...this.list, { key, name: file.name, bytes: file.size, progress: 0, stop: upload.stop }];
    upload.taken.then(
      (taken) => change({ taken, progress: 1 }),
      (error: unknown) => {
        const wanted = this.list.some((one) => one.key === key);
        this.list = this.list.filter((one) => one.key !== key);
        if (wanted) complain(error);
      },
    );
  }
}
