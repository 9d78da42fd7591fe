import { expect, test } from "vitest";
import type { Line } from "../../src/api/types";
import { belongsAtEnd, firstUnread, joinNewest, pendingRows, prependRows, rowsOf } from "../../src/state/rows";

function line(id: string, time: string, author = "ada", more: Partial<Line> = {}): Line {
  return { id, room: "r", author, device: "d", seq: 1, time, kind: "message", text: id, state: "handed", author_name: author, mine: author === "me", ...more };
}
const at = (minute: number, day = 10) => `2026-11-${day}T12:${String(minute).padStart(2, "0")}:00.000Z`;

test("a day is named once, and an author once in five minutes", () => {
  const lines = [line("a", at(0)), line("b", at(2)), line("c", at(9)), line("d", at(10), "bea"), line("e", at(11, 11), "bea")];
  const rows = rowsOf(lines, 0, null);
  expect(rows.map((row) => row.kind)).toEqual(["day", "line", "line", "line", "line", "day", "line"]);
  expect(rows.flatMap((row) => (row.kind === "line" ? [row.head] : []))).toEqual([true, false, true, true, true]);
});

test("rows that are added later are those that would have been there", () => {
  const lines = Array.from({ length: 60 }, (_, n) => line(`l${n}`, at(n, 10 + (n > 30 ? 1 : 0)), n % 3 ? "ada" : "bea"));
  const whole = rowsOf(lines, 0, "l20");
  for (const cut of [1, 20, 31, 59]) expect([...rowsOf(lines.slice(0, cut), 0, "l20"), ...rowsOf(lines, cut, "l20")]).toEqual(whole);
});

test("rows of older lines that are put before are those that would have been there", () => {
  const lines = Array.from({ length: 60 }, (_, n) => line(`l${n}`, at(n, 10 + (n > 30 ? 1 : 0)), n % 3 ? "ada" : "bea"));
  const whole = rowsOf(lines, 0, "l20");
  for (const cut of [1, 20, 21, 31, 32, 59]) {
    const [older, rest] = [lines.slice(0, cut), lines.slice(cut)];
    expect(prependRows(older, rest[0] as Line, rowsOf(rest, 0, "l20"), "l20"), `${cut}`).toEqual(whole);
  }
});

test("the unread mark stands before the first of so many messages of others", () => {
  const lines = [line("a", at(0)), line("b", at(1), "me"), line("c", at(2)), line("d", at(3), "me"), line("e", at(4), "ada", { kind: "control" })];
  expect(firstUnread(lines, 0)).toBeNull();
  expect(firstUnread(lines, 1)).toBe("c");
  expect(firstUnread(lines, 2)).toBe("a");
  expect(firstUnread(lines, 9)).toBe("a");
  expect(rowsOf(lines, 0, "c").map((row) => row.key)).toContain("unread");
});

test("what is late or older goes where the node puts it", () => {
  expect(belongsAtEnd(line("b", at(1)), line("a", at(0)))).toBe(true);
  expect(belongsAtEnd(line("b", at(1)), undefined)).toBe(true);
  expect(belongsAtEnd(line("b", at(0)), line("a", at(1)))).toBe(false);
  expect(belongsAtEnd(line("b", at(2), "ada", { late: true }), line("a", at(1)))).toBe(false);
});

test("the newest page takes the place of what it covers", () => {
  const [a, b, c, d] = [line("a", at(0)), line("b", at(1)), line("c", at(2)), line("d", at(3))];
  const gap = line("c", at(2), "ada", { kind: "gap", time: null });
  expect(joinNewest([a, b, d], [b, c, d])).toEqual([a, b, c, d]);
  expect(joinNewest([a, gap, c], [gap, c, d])).toEqual([a, gap, c, d]);
  expect(joinNewest([a, gap, c], [c, d])).toEqual([a, gap, c, d]);
  expect(joinNewest([a], [c, d])).toBeNull();
  expect(joinNewest([], [])).toEqual([]);
  expect(joinNewest([a, d, b], [b, c, d]), "a line that moved stands once").toEqual([a, b, c, d]);
});

test("what is on its way goes on under the own name", () => {
  const pending = { client_id: "1", room: "r", text: "x", reply_to: null, time: at(1) };
  const heads = (last: Line | undefined) => pendingRows([pending, { ...pending, client_id: "2" }], last, "me").map((row) => row.kind === "pending" && row.head);
  expect(heads(undefined)).toEqual([true, false]);
  expect(heads(line("a", at(0), "me"))).toEqual([false, false]);
  expect(heads(line("a", at(0), "ada"))).toEqual([true, false]);
});
