import { expect, test } from "vitest";
import { completing, fits, score } from "../../src/text/complete";
import { EMOJI, findEmoji } from "../../src/text/emoji";
import { ago, dayName, dayOf } from "../../src/text/time";
import { de } from "../../src/words/de";
import { en } from "../../src/words/en";

test("what is completed is what stands before the cursor", () => {
  expect(completing("hi @ad", 6)).toEqual({ kind: "mention", word: "ad", from: 3 });
  expect(completing("@Ada Lo", 7)).toEqual({ kind: "mention", word: "Ada Lo", from: 0 });
  expect(completing("mail@ad", 7)).toBeNull();
  expect(completing("so :tad", 7)).toEqual({ kind: "emoji", word: "tad", from: 3 });
  expect(completing("at 12:30", 8)).toBeNull();
  expect(completing("ratio 1:ab", 10)).toBeNull();
  expect(completing("a :x", 4)).toBeNull();
});

test("names are found by the beginning of a part, accents or not", () => {
  expect(fits("Zoë Müller", "mul")).toBe(true);
  expect(fits("Zoë Müller", "ler")).toBe(false);
  expect(score("Kitchen", "kit")).toBe(0);
  expect(score("The Kitchen", "kit")).toBe(1);
  expect(score("Kitchen", "kn")).toBe(3);
  expect(score("Kitchen", "xyz")).toBeNull();
});

test("emoji are found in both languages, and each is there once", () => {
  expect(findEmoji("daumen")[0]?.emoji).toBe("👍");
  expect(findEmoji("thumb")[0]?.emoji).toBe("👍");
  expect(new Set(EMOJI.map((one) => one.emoji)).size).toBe(EMOJI.length);
  expect(EMOJI.every((one) => one.names.length > 0)).toBe(true);
});

test("days have names", () => {
  const now = new Date("2026-11-29T12:00:00");
  const day = (back: number) => new Date(2026, 10, 29 - back, 9).toISOString();
  expect(dayName(day(0), "en", "Today", "Yesterday", now)).toBe("Today");
  expect(dayName(day(1), "en", "Today", "Yesterday", now)).toBe("Yesterday");
  expect(dayName(day(3), "de", "Heute", "Gestern", now)).toContain("November");
  expect(dayOf(day(0))).not.toBe(dayOf(day(1)));
  expect(ago(new Date(now.getTime() - 30_000).toISOString(), "en", now.getTime())).toBeNull();
  expect(ago(new Date(now.getTime() - 180_000).toISOString(), "en", now.getTime())).toBe("3 minutes ago");
});

test("every word is there in both languages", () => {
  const compare = (a: object, b: object, path: string): void => {
    expect(Object.keys(a).sort(), path).toEqual(Object.keys(b).sort());
    for (const [key, value] of Object.entries(a)) {
      const other = (b as Record<string, unknown>)[key];
      expect(typeof other, `${path}.${key}`).toBe(typeof value);
      if (typeof value === "object") compare(value as object, other as object, `${path}.${key}`);
      if (typeof value === "string") expect((other as string).length, `${path}.${key}`).toBeGreaterThan(0);
      if (typeof value === "function") expect((other as { length: number }).length, `${path}.${key}`).toBe((value as { length: number }).length);
    }
  };
  compare(en, de, "words");
});
