// The list of rooms, with what stands beside each name.

import { SvelteMap } from "svelte/reactivity";
import { api } from "../api/client";
import type { Line, Room } from "../api/types";
import { drafts } from "./drafts.svelte";

/** How many newest lines are asked for at once. */
const PREVIEWS_AT_ONCE = 6;
const REFRESH_MS = 120;

export interface Group {
  name: "note" | "pinned" | "rooms" | "people" | "past";
  rooms: Room[];
}

class Rooms {
  /** Most recently active first, as the node gives them. */
  list: Room[] = $state.raw([]);
  loaded = $state(false);
  /** The newest line of a room, once it is known. */
  readonly newest = new SvelteMap<string, Line>();
  #due = new Set<string>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  readonly byId: ReadonlyMap<string, Room> = $derived(new Map(this.list.map((room) => [room.room, room])));

  readonly groups: Group[] = $derived.by(() => {
    const note = this.note;
    const rest = this.list.filter((room) => room !== note);
    const here = rest.filter((room) => room.standing === "member" || room.standing === "joining");
    const pinned = here.filter((room) => room.pinned);
    const loose = here.filter((room) => !room.pinned);
    const groups: Group[] = [
      { name: "pinned", rooms: pinned },
      { name: "rooms", rooms: loose.filter((room) => room.pair === null) },
      { name: "people", rooms: loose.filter((room) => room.pair !== null) },
      { name: "past", rooms: rest.filter((room) => room.standing === "left" || room.standing === "removed") },
    ];
    return groups.filter((group) => group.rooms.length > 0);
  });

  /** The room of one for notes, where it was made already. */
  readonly note: Room | undefined = $derived(
    this.list.find((room) => room.note_to_self),
  );

  /** Rooms in the order in which they stand on the screen. */
  readonly ordered: Room[] = $derived([...(this.note ? [this.note] : []), ...this.groups.flatMap((group) => group.rooms)]);

  readonly unread: number = $derived(
    this.list.reduce((sum, room) => sum + (room.muted ? room.mentions : room.unread), 0),
  );

  set(list: Room[]): void {
    this.list = list;
    this.loaded = true;
    drafts.known(list);
    if ("requestIdleCallback" in window) requestIdleCallback(() => void this.#previews(), { timeout: 1000 });
    else setTimeout(() => void this.#previews(), 200);
  }

  async load(): Promise<void> {
    this.set(await api.rooms());
  }

  /** Something about a room changed: it is read again, soon and once for many changes. */
  refresh(room: string): void {
    this.#due.add(room);
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      const due = [...this.#due];
      this.#due.clear();
      if (due.length > 3) void this.load().catch(() => undefined);
      else for (const id of due) void this.#reread(id);
    }, REFRESH_MS);
  }

  /** A new message: its room comes to the top. */
  touch(line: Line): void {
    this.newest.set(line.room, line);
    const at = this.list.findIndex((room) => room.room === line.room);
    if (at <= 0) return;
    const room = this.list[at] as Room;
    this.list = [room, ...this.list.filter((other) => other !== room)];
  }

  /** Shown as read at once; the node is told apart. */
  markedRead(id: string): void {
    this.list = this.list.map((room) => (room.room === id ? { ...room, unread: 0, mentions: 0 } : room));
  }

  /** What is kept about a room on this node alone. */
  async keep(id: string, change: { pinned?: boolean; muted?: boolean }): Promise<void> {
    this.list = this.list.map((room) => (room.room === id ? { ...room, ...change } : room));
    await api.keep(id, change);
  }

  async #reread(id: string): Promise<void> {
    const fresh = await api.room(id).catch(() => null);
    if (fresh === null) return;
    if (fresh.newest !== null && this.newest.get(id)?.id !== fresh.newest) {
      const line = await api.entry(fresh.newest).catch(() => null);
      if (line) this.newest.set(id, line);
    }
    if (!this.byId.has(id)) {
      this.list = [fresh, ...this.list];
      return;
    }
    this.list = this.list.map((room) => (room.room === id ? fresh : room));
  }

  /** The newest line of each room, a few at a time, the uppermost first. */
  async #previews(): Promise<void> {
    const wanted = this.list.filter((room) => room.newest !== null && this.newest.get(room.room)?.id !== room.newest);
    const next = async (): Promise<void> => {
      for (let room = wanted.shift(); room; room = wanted.shift()) {
        const line = await api.entry(room.newest as string).catch(() => null);
        if (line) this.newest.set(room.room, line);
      }
    };
    await Promise.all(Array.from({ length: PREVIEWS_AT_ONCE }, next));
  }
}

export const rooms = new Rooms();
