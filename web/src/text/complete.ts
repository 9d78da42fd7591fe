// What is being completed at the cursor: `@na` a person, `:na` an emoji. Pure.

export interface Completing {
  kind: "mention" | "emoji";
  word: string;
  /** Where the `@` or `:` stands. */
  from: number;
}

export function completing(text: string, cursor: number): Completing | null {
  const before = text.slice(0, cursor);
  const match = /(^|[\s(>])([@:])([\p{L}\p{N}_+.\- ]{0,24})$/u.exec(before);
  if (!match) return null;
  const [, , sign, word] = match as unknown as [string, string, string, string];
  const from = cursor - word.length - 1;
  if (sign === "@") return { kind: "mention", word, from };
  return /^[\p{L}_]{2,}$/u.test(word) ? { kind: "emoji", word, from } : null;
}

/** Whether a name answers to what was typed: the beginning of it or of one of its words. Accents do not matter. */
export function fits(name: string, word: string): boolean {
  const [plainName, plainWord] = [folded(name), folded(word)];
  return plainName.startsWith(plainWord) || plainName.split(/\s+/).some((part) => part.startsWith(plainWord));
}

/** How well a name answers to a search: smaller is better, null not at all. Letters in order are enough. */
export function score(name: string, wanted: string): number | null {
  const [text, word] = [folded(name), folded(wanted.trim())];
  if (word === "") return 0;
  if (text.startsWith(word)) return 0;
  if (text.split(/[\s\-_]+/).some((part) => part.startsWith(word))) return 1;
  if (text.includes(word)) return 2;
  let at = 0;
  for (const letter of word) {
    at = text.indexOf(letter, at) + 1;
    if (at === 0) return null;
  }
  return 3;
}

function folded(text: string): string {
  return text.toLowerCase().normalize("NFD").replace(/\p{M}/gu, "");
}
