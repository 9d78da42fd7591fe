// What stands in a timeline, row by row: made from the lines of the node, with day separators, the unread mark and grouped authors. Pure.

import type { Line } from "../api/types";
import { dayOf } from "../text/time";

/** Something that was sent here and that the node has not confirmed yet. */
export interface Pending {
  client_id: string;
  room: string;
  text: string;
  reply_to: string | null;
  files?: { file: string; name: string }[];
  time: string;
  /** Set once the node has answered: the line with this id takes its place. */
  id?: string;
  /** Why it failed; absent while it is on its way. */
  failed?: string;
}

export type Row =
  | { kind: "start"; key: "start" }
  | { kind: "day"; key: string; time: string }
  | { kind: "unread"; key: "unread" }
  | { kind: "line"; key: string; line: Line; head: boolean }
  | { kind: "pending"; key: string; pending: Pending; head: boolean };

/** Messages of one author within this time stand together under one name. */
const GROUP_MS = 5 * 60_000;

function grouped(line: Line): boolean {
  return line.kind === "message" || line.kind === "deleted" || line.kind === "sealed";
}

function headed(line: Line, before: Line | undefined, broken: boolean): boolean {
  if (!grouped(line)) return false;
  if (broken || before === undefined || !grouped(before) || before.author !== line.author) return true;
  if (line.reply_to) return true;
  return new Date(line.time ?? 0).getTime() - new Date(before.time ?? 0).getTime() > GROUP_MS;
}

/**
 * The rows of `lines` from the index `from` on; what stands before them is taken into account. `unreadId` is the first line that was
 * unread when the room was opened.
 */
export function rowsOf(lines: readonly Line[], from: number, unreadId: string | null): Row[] {
  const rows: Row[] = [];
  let day = "";
  for (let index = from - 1; index >= 0 && day === ""; index--) day = timedDay(lines[index]);
  for (let index = from; index < lines.length; index++) {
    const line = lines[index] as Line;
    let broken = false;
    const lineDay = timedDay(line);
    if (lineDay !== "" && lineDay !== day) {
      rows.push({ kind: "day", key: `day ${lineDay} ${line.id}`, time: line.time as string });
      day = lineDay;
      broken = true;
    }
    if (line.id === unreadId && line.kind !== "gap") {
      rows.push({ kind: "unread", key: "unread" });
      broken = true;
    }
    const key = line.kind === "gap" ? `gap ${line.id}` : line.id;
    rows.push({ kind: "line", key, line, head: headed(line, lines[index - 1], broken) });
  }
  return rows;
}

function timedDay(line: Line | undefined): string {
  return line?.time ? dayOf(line.time) : "";
}

/** So many lines before another say on what day it stands and under whose name. */
const CONTEXT_LINES = 20;

/** The rows once `older` lines stand before `first`, whose rows and those of all after it are `rows`. */
export function prependRows(older: readonly Line[], first: Line, rows: readonly Row[], unreadId: string | null): Row[] {
  const context = older.slice(-CONTEXT_LINES);
  const at = rows.findIndex((row) => row.kind === "line");
  // What was the first line has something before it now.
  // Joined in one go: the rows after it may be a hundred thousand.
  return rowsOf(older, 0, unreadId).concat(rowsOf([...context, first], context.length, unreadId), rows.slice(at + 1));
}

/** Rows of what is still on its way, below all lines. */
export function pendingRows(pending: readonly Pending[], last: Line | undefined, me: string): Row[] {
  let before = last?.author === me && grouped(last) ? last.time : null;
  return pending.map((entry) => {
    const near = before !== null && before !== undefined && new Date(entry.time).getTime() - new Date(before).getTime() <= GROUP_MS;
    before = entry.time;
    return { kind: "pending", key: `pending ${entry.client_id}`, pending: entry, head: !near || entry.reply_to !== null };
  });
}

/** The first of the `count` newest messages of others: before it stands the unread mark. Null where there are none. */
export function firstUnread(lines: readonly Line[], count: number): string | null {
  let first: string | null = null;
  for (let index = lines.length - 1, left = count; index >= 0 && left > 0; index--) {
    const line = lines[index] as Line;
    if (line.mine || (line.kind !== "message" && line.kind !== "deleted")) continue;
    first = line.id;
    left -= 1;
  }
  return first;
}

/** Where a line that has just come belongs: at the end, or (-1) somewhere that only the node knows. */
export function belongsAtEnd(line: Line, last: Line | undefined): boolean {
  if (line.late || line.clock_ahead) return false;
  if (last === undefined || last.time === null || line.time === null) return last === undefined;
  return line.time >= last.time;
}

/**
 * The lines after the newest page was read anew: all that stood before the page, then the page. Null where the page does not meet them
 * (more came than a page holds).
 */
export function joinNewest(lines: readonly Line[], page: readonly Line[]): Line[] | null {
  const first = page.find((line) => line.kind !== "gap");
  if (first === undefined) return lines.length === 0 ? [...page] : null;
  const at = lines.findIndex((line) => line.id === first.id && line.kind !== "gap");
  if (at < 0) return null;
  let keep = at;
  // Gaps stand before the line that follows them, and the page repeats those before its first line only if it has them.
  const pageStartsWithGap = page[0]?.kind === "gap";
  while (pageStartsWithGap && keep > 0 && lines[keep - 1]?.kind === "gap") keep -= 1;
  return [...without(lines.slice(0, keep), page), ...page];
}

/** `lines` but for those that `others` has: what arrives late can move a line from one page to another, and none may stand twice. */
export function without(lines: readonly Line[], others: readonly Line[]): Line[] {
  const key = (line: Line) => `${line.kind === "gap"} ${line.id}`;
  const known = new Set(others.map(key));
  return lines.filter((line) => !known.has(key(line)));
}
