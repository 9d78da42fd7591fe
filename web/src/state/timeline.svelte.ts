// One room's timeline as far as it is loaded: the newest lines without a hole, older ones on demand.

import { api } from "../api/client";
import type { Line, NodeEvent } from "../api/types";
import { outbox } from "./outbox.svelte";
import { belongsAtEnd, firstUnread, joinNewest, pendingRows, prependRows, rowsOf, without, type Row } from "./rows";

const FIRST_LINES = 80;
const OLDER_LINES = 200;
const PAGE_LINES_MAX = 1000;
/** The newest page is read again this long after the last live arrival, so that the order is the node's own. */
const RECONCILE_MS = 900;
/** Deletions of own messages wait this long for an undo. */
const UNDO_MS = 6000;

export class Timeline {
  /** Oldest first. */
  lines: Line[] = $state.raw([]);
  lineRows: Row[] = $state.raw([]);
  loaded = $state(false);
  loading = $state(false);
  /** Whether there is nothing older. */
  complete = $state(false);
  /** Whether the last change of `rows` was at the beginning. */
  prepended = $state(false);
  unreadId: string | null = $state(null);
  /** Ids whose deletion waits for an undo. */
  hidden: ReadonlySet<string> = $state.raw(new Set<string>());
  /** Where the reader was: a row's key, or null for the end. */
  place: string | null = null;
  /** Counts own sendings: each brings the end into view. */
  sent = $state(0);
  /** The row that keyboard movement stands on. */
  focusKey: string | null = $state(null);
  /** The row that was jumped to, shown for a moment. */
  found: string | null = $state(null);

  /** Whether what is shown ends before the newest line: somebody jumped far back. */
  detached = $state(false);

  #cursor: string | null = null;
  #newer: string | null = null;
  /** Grows with every change that came live: a page that was asked for before it must not undo it. */
  #changes = 0;
  /** Where a line stands, counted from `#first`: so that lines put before do not move the others. */
  #index = new Map<string, number>();
  #first = 0;
  #reconcile: ReturnType<typeof setTimeout> | undefined;
  #deleting = new Map<string, ReturnType<typeof setTimeout>>();
  #me: string;

  readonly rows: Row[] = $derived.by(() => {
    const waiting = outbox.of(this.room).filter((entry) => entry.id === undefined || !this.#index.has(entry.id));
    const start: Row[] = this.complete && this.loaded ? [{ kind: "start", key: "start" }] : [];
    const shown =
      this.hidden.size === 0
        ? this.lineRows
        : this.lineRows.filter((row) => row.kind !== "line" || !this.hidden.has(row.key));
    if (waiting.length === 0 && start.length === 0) return shown;
    return [...start, ...shown, ...pendingRows(waiting, this.lines.at(-1), this.#me)];
  });

  constructor(
    readonly room: string,
    me: string,
  ) {
    this.#me = me;
  }

  /** Reads the newest lines for the first time; `unread` says where the mark goes. */
  async open(unread: number): Promise<void> {
    if (this.loaded || this.loading) return;
    this.loading = true;
    try {
      const page = await api.entries(this.room, Math.min(Math.max(FIRST_LINES, unread + 20), PAGE_LINES_MAX));
      this.#cursor = page.older;
      this.complete = page.older === null;
      this.unreadId = firstUnread(page.entries, unread);
      this.#set(page.entries, false);
      this.loaded = true;
    } finally {
      this.loading = false;
    }
  }

  /** The mark for a room that is entered again. */
  markUnread(unread: number): void {
    const first = firstUnread(this.lines, unread);
    if (first === this.unreadId) return;
    this.unreadId = first;
    this.#set(this.lines, false);
  }

  clearMark(): void {
    if (this.unreadId === null) return;
    this.unreadId = null;
    this.#set(this.lines, false);
  }

  async older(count = OLDER_LINES): Promise<void> {
    if (this.loading || this.complete || this.#cursor === null) return;
    this.loading = true;
    try {
      const page = await api.entries(this.room, count, this.#cursor);
      this.#cursor = page.older;
      this.complete = page.older === null;
      this.#prepend(this.#fresh(page.entries));
    } finally {
      this.loading = false;
    }
  }

  /** Makes sure that a line is loaded, with its neighbours. False where it is not in this room. */
  async reach(id: string): Promise<boolean> {
    if (this.#index.has(id)) return true;
    const page = await api.around(this.room, OLDER_LINES, id).catch(() => null);
    if (page === null || !page.entries.some((line) => line.id === id)) return false;
    this.#cursor = page.older;
    this.complete = page.older === null;
    this.#newer = page.newer;
    this.detached = page.newer !== null;
    this.#set(page.entries, false);
    return true;
  }

  /** The lines after what is shown, where somebody jumped back. */
  async newer(): Promise<void> {
    if (this.loading || this.#newer === null) return;
    this.loading = true;
    try {
      const page = await api.entries(this.room, OLDER_LINES, this.#newer);
      this.#newer = page.newer;
      this.detached = page.newer !== null;
      this.#set(this.lines.concat(this.#fresh(page.entries)), false);
    } finally {
      this.loading = false;
    }
  }

  /** Back to the end of the room. */
  async toNewest(): Promise<void> {
    if (!this.detached) return;
    const page = await api.entries(this.room, FIRST_LINES);
    this.#newer = null;
    this.detached = false;
    this.#cursor = page.older;
    this.complete = page.older === null;
    this.#set(page.entries, false);
  }

  find(id: string): Line | undefined {
    const at = this.#at(id);
    return at === undefined ? undefined : this.lines[at];
  }

  /** The newest own message that can be edited. */
  lastOwn(): Line | undefined {
    return this.lines.findLast((line) => line.mine && line.kind === "message" && !this.hidden.has(line.id));
  }

  newestId(): string | undefined {
    return this.lines.findLast((line) => line.kind !== "gap")?.id;
  }

  /** Takes in what happened to lines of this room, in order. */
  apply(events: Extract<NodeEvent, { event: "entry" }>[]): void {
    if (!this.loaded) return;
    this.#changes += 1;
    let lines = this.lines;
    const appendFrom = lines.length;
    const replaced = new Map<string, Line>();
    let moved = false;
    let stale = false;
    for (const { id, line } of events) {
      if (line === null) continue;
      const at = this.#at(id);
      if (at !== undefined) {
        if (lines === this.lines) lines = [...lines];
        if (at < appendFrom) {
          moved ||= !standsAlike(lines[at] as Line, line);
          replaced.set(id, line);
        }
        lines[at] = line;
      } else if (this.detached) {
        continue;
      } else if (belongsAtEnd(line, lines.at(-1))) {
        if (lines === this.lines) lines = [...lines];
        this.#index.set(id, this.#first + lines.length);
        lines.push(line);
        stale ||= !line.mine;
      } else {
        stale = true;
      }
    }
    if (moved) this.#set(lines, false);
    else if (lines !== this.lines) this.#change(lines, replaced, appendFrom);
    if (stale || this.#hasGaps(lines)) this.#reconcileSoon();
  }

  /** Those lines of a page that do not stand here yet. What is loaded may be long, and is not looked through for a page of it. */
  #fresh(page: readonly Line[]): Line[] {
    const gaps = page.some((line) => line.kind === "gap");
    return gaps ? without(page, this.lines) : page.filter((line) => !this.#index.has(line.id));
  }

  #at(id: string): number | undefined {
    const at = this.#index.get(id);
    return at === undefined ? undefined : at - this.#first;
  }

  /** Gaps close when something comes; only those in the newest part are looked for. */
  #hasGaps(lines: readonly Line[]): boolean {
    return lines.slice(-FIRST_LINES).some((line) => line.kind === "gap");
  }

  /** Lines that changed where they stand, and lines at the end: nothing else is made anew. */
  #change(lines: Line[], replaced: ReadonlyMap<string, Line>, from: number): void {
    this.prepended = false;
    const rows = [...this.lineRows];
    for (const [id, line] of replaced) {
      const at = rows.findLastIndex((row) => row.key === id);
      const row = rows[at];
      if (row?.kind === "line") rows[at] = { ...row, line };
    }
    rows.push(...rowsOf(lines, from, this.unreadId));
    this.lines = lines;
    this.lineRows = rows;
  }

  #prepend(older: Line[]): void {
    const newest = this.lines[0];
    if (newest === undefined) return this.#set(older, false);
    this.prepended = true;
    this.#first -= older.length;
    for (const [at, line] of older.entries()) if (line.kind !== "gap") this.#index.set(line.id, this.#first + at);
    this.lineRows = prependRows(older, newest, this.lineRows, this.unreadId);
    this.lines = older.concat(this.lines);
  }

  #set(lines: Line[], prepended: boolean): void {
    this.prepended = prepended;
    this.#first = 0;
    this.#index = new Map(lines.flatMap((line, at) => (line.kind === "gap" ? [] : [[line.id, at] as const])));
    this.lines = lines;
    this.lineRows = rowsOf(lines, 0, this.unreadId);
  }

  #reconcileSoon(): void {
    if (this.#reconcile !== undefined) return;
    this.#reconcile = setTimeout(() => {
      this.#reconcile = undefined;
      void this.refresh();
    }, RECONCILE_MS);
  }

  /** Reads the newest page anew and puts it in the place of what is shown. */
  async refresh(): Promise<void> {
    if (!this.loaded || this.detached) return;
    for (const count of [FIRST_LINES, PAGE_LINES_MAX]) {
      const before = this.#changes;
      const page = await api.entries(this.room, count).catch(() => null);
      if (page === null) return;
      if (before !== this.#changes) return this.#reconcileSoon();
      const joined = joinNewest(this.lines, page.entries);
      if (joined !== null) {
        if (!sameLines(joined, this.lines)) this.#set(joined, false);
        return;
      }
      if (count === PAGE_LINES_MAX || page.older === null) {
        this.#cursor = page.older;
        this.complete = page.older === null;
        this.#set(page.entries, false);
        return;
      }
    }
  }

  /** Hides an own message at once and deletes it unless that is undone in time. */
  removeSoon(id: string, failed: (error: unknown) => void): () => void {
    this.hidden = new Set([...this.hidden, id]);
    const settle = () => {
      this.#deleting.delete(id);
      api
        .remove(id)
        .catch(failed)
        .finally(() => this.#unhide(id));
    };
    this.#deleting.set(id, setTimeout(settle, UNDO_MS));
    return () => {
      clearTimeout(this.#deleting.get(id));
      this.#deleting.delete(id);
      this.#unhide(id);
    };
  }

  /** Carries out what still waits for an undo: the page is going away. */
  settleAll(): void {
    for (const [id, timer] of this.#deleting) {
      clearTimeout(timer);
      void api.remove(id, true).catch(() => undefined);
    }
    this.#deleting.clear();
  }

  #unhide(id: string): void {
    this.hidden = new Set([...this.hidden].filter((other) => other !== id));
  }
}

/** Whether a line that changed stands as it did: same place, same grouping. */
function standsAlike(a: Line, b: Line): boolean {
  return a.time === b.time && a.author === b.author && a.kind === b.kind && a.reply_to === b.reply_to;
}

function sameLines(a: readonly Line[], b: readonly Line[]): boolean {
  return a.length === b.length && a.every((line, at) => line.id === b[at]?.id && JSON.stringify(line) === JSON.stringify(b[at]));
}
