// Files of messages: what of them is here, and files on their way into the node.

import { SvelteMap } from "svelte/reactivity";
import { api, takeFile } from "../api/client";
import type { FileMoved, FileState, FileTaken } from "../api/types";

/** How much of each file of a message is here: asked for once, and then told by events. */
class Files {
  #known = new SvelteMap<string, FileState[]>();
  #asking = new Set<string>();
  /** Told of while they were asked for. */
  #again = new Set<string>();

  of(entry: string, file: string): FileState | undefined {
    return this.#known.get(entry)?.find((known) => known.file === file);
  }

  /** Asks for the files of a message, unless they are known; from then on they are told. */
  follow(entry: string): void {
    if (!this.#known.has(entry)) void this.#ask(entry);
  }

  /** A file of a message got further. */
  told(entry: string, moved: FileMoved): void {
    // What is being asked for was answered before this, perhaps.
    if (this.#asking.has(entry)) this.#again.add(entry);
    const known = this.#known.get(entry);
    if (known === undefined) return;
    const { file, here, state, sources, problem } = moved;
    const change = (one: FileState): FileState => ({ ...one, here, state, sources, ...(problem === undefined ? {} : { problem }) });
    this.#known.set(entry, known.map((one) => (one.file === file ? change(one) : one)));
  }

  /** Events may have been missed: what was under way is asked for again, and the rest of it when it is shown again. */
  reread(): void {
    for (const [entry, known] of this.#known)
      if (known.some((file) => file.state !== "here")) void this.#ask(entry);
  }

  async fetch(entry: string, file: string): Promise<void> {
    await api.fetchFile(entry, file);
    await this.#ask(entry);
  }

  async #ask(entry: string): Promise<void> {
    if (this.#asking.has(entry)) return;
    this.#asking.add(entry);
    try {
      do {
        this.#again.delete(entry);
        this.#known.set(entry, await api.files(entry));
      } while (this.#again.has(entry));
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

  /** Hands files to the node, but for those that the room would not take (above `bytes_max`) and those that are too many; these are given back. */
  add(chosen: readonly File[], bytes_max: number, complain: (error: unknown) => void): { large: File[]; many: File[] } {
    const fitting = chosen.filter((file) => file.size <= bytes_max);
    const room = Math.max(0, FILES_MAX - this.list.length);
    for (const file of fitting.slice(0, room)) this.#take(file, complain);
    return { large: chosen.filter((file) => file.size > bytes_max), many: fitting.slice(room) };
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
