// The subset of Markdown that messages may use, as a tree: nothing of a message ever becomes HTML. Pure.
//
// Blocks: paragraphs, ``` code, > quotes, - and 1. lists. Inline: **bold**, *italic* or _italic_, ~~struck~~, `code`, [label](link), bare links,
// @mentions. Whatever is not closed is plain text. Links are http, https and mailto only.

export type Inline =
  | { kind: "text"; text: string }
  | { kind: "code"; text: string }
  | { kind: "bold"; children: Inline[] }
  | { kind: "italic"; children: Inline[] }
  | { kind: "struck"; children: Inline[] }
  | { kind: "link"; href: string; host: string | null; children: Inline[] }
  | { kind: "mention"; text: string; me: boolean };

export type Block =
  | { kind: "paragraph"; lines: Inline[][] }
  | { kind: "code"; text: string }
  | { kind: "quote"; blocks: Block[] }
  | { kind: "list"; ordered: boolean; items: Inline[][] };

/** Names that a mention may have, lower case, and which of them is the reader. */
export interface Names {
  all: readonly string[];
  me: string;
}

const NOBODY: Names = { all: [], me: "" };
const DEPTH_MAX = 6;
const LABEL_MAX = 300;
const LINK_MAX = 2048;
const NAME_MAX = 128;

/** Marks that are known not to close any more in a text: looked for once, so that a text of nothing but open marks stays cheap. */
type Unclosed = Set<string>;

export function parse(text: string, names: Names = NOBODY, depth = 0): Block[] {
  const lines = text.replace(/\r\n?/g, "\n").split("\n");
  const blocks: Block[] = [];
  for (let at = 0; at < lines.length; ) {
    const line = lines[at] as string;
    if (line.startsWith("```")) {
      const end = lines.findIndex((other, index) => index > at && other.trimEnd() === "```");
      if (end > 0) {
        blocks.push({ kind: "code", text: lines.slice(at + 1, end).join("\n") });
        at = end + 1;
        continue;
      }
    }
    const quoted = while_(lines, at, (other) => other.startsWith(">"));
    if (quoted > at && depth < DEPTH_MAX) {
      const inner = lines.slice(at, quoted).map((other) => other.replace(/^> ?/, ""));
      blocks.push({ kind: "quote", blocks: parse(inner.join("\n"), names, depth + 1) });
      at = quoted;
      continue;
    }
    const list = /^[-*] \S/.test(line) ? /^[-*] / : /^\d{1,3}[.)] \S/.test(line) ? /^\d{1,3}[.)] / : null;
    if (list !== null) {
      const end = while_(lines, at, (other) => list.test(other));
      const items = lines.slice(at, end).map((other) => inline(other.replace(list, ""), names));
      blocks.push({ kind: "list", ordered: /^\d/.test(line), items });
      at = end;
      continue;
    }
    if (line.trim() === "") {
      at += 1;
      continue;
    }
    const end = Math.max(
      at + 1,
      while_(lines, at, (other, index) => other.trim() !== "" && (index === at || !/^(```|>|[-*] \S|\d{1,3}[.)] \S)/.test(other))),
    );
    blocks.push({ kind: "paragraph", lines: lines.slice(at, end).map((other) => inline(other, names)) });
    at = end;
  }
  return blocks;
}

function while_(lines: readonly string[], from: number, holds: (line: string, index: number) => boolean): number {
  let at = from;
  while (at < lines.length && holds(lines[at] as string, at)) at += 1;
  return at;
}

const MARKS = [
  { open: "**", kind: "bold" },
  { open: "~~", kind: "struck" },
  { open: "*", kind: "italic" },
  { open: "_", kind: "italic" },
] as const;

const LINK = /^(?:https?:\/\/|mailto:)[^\s<>"]+/i;
const WORD = /[\p{L}\p{N}]/u;

export function inline(text: string, names: Names = NOBODY, depth = 0): Inline[] {
  const out: Inline[] = [];
  const unclosed: Unclosed = new Set();
  let plainFrom = 0;
  const flush = (to: number) => {
    if (to > plainFrom) out.push({ kind: "text", text: text.slice(plainFrom, to) });
  };
  let at = 0;
  const take = (node: Inline, length: number) => {
    flush(at);
    out.push(node);
    at += length;
    plainFrom = at;
  };
  while (at < text.length) {
    const found = special(text, at, names, depth, unclosed);
    if (found) take(found.node, found.length);
    else at += 1;
  }
  flush(text.length);
  return out;
}

function special(text: string, at: number, names: Names, depth: number, unclosed: Unclosed): { node: Inline; length: number } | null {
  const char = text[at] as string;
  const before = text[at - 1] ?? " ";
  if (char === "`") {
    if (unclosed.has(char)) return null;
    const end = text.indexOf("`", at + 1);
    if (end < 0) unclosed.add(char);
    if (end > at + 1) return { node: { kind: "code", text: text.slice(at + 1, end) }, length: end + 1 - at };
    return null;
  }
  if (char === "[" && depth < DEPTH_MAX) return labelled(text, at, names);
  if ((char === "h" || char === "H" || char === "m" || char === "M") && !WORD.test(before)) return bare(text, at);
  if (char === "@" && !WORD.test(before)) return mention(text, at, names);
  if (depth >= DEPTH_MAX) return null;
  for (const { open, kind } of MARKS) {
    if (!text.startsWith(open, at)) continue;
    if (open === "_" && WORD.test(before)) return null;
    const first = text[at + open.length];
    if (first === undefined || first === " " || first === open[0]) return null;
    if (unclosed.has(open)) continue;
    const end = closing(text, at + open.length, open);
    if (end < 0) {
      unclosed.add(open);
      continue;
    }
    const children = inline(text.slice(at + open.length, end), names, depth + 1);
    return { node: { kind, children }, length: end + open.length - at };
  }
  return null;
}

function closing(text: string, from: number, mark: string): number {
  for (let end = text.indexOf(mark, from); end >= 0; end = text.indexOf(mark, end + 1)) {
    const inside = text[end - 1];
    const after = text[end + mark.length] ?? " ";
    if (end === from || inside === " ") continue;
    if (mark === "*" && (after === "*" || inside === "*")) continue;
    if (mark === "_" && WORD.test(after)) continue;
    return end;
  }
  return -1;
}

function labelled(text: string, at: number, names: Names): { node: Inline; length: number } | null {
  const near = text.slice(at, at + LABEL_MAX + LINK_MAX);
  const middle = near.slice(0, LABEL_MAX).indexOf("](");
  if (middle <= 1) return null;
  const end = near.indexOf(")", middle);
  if (end < 0) return null;
  const href = safeLink(near.slice(middle + 2, end).trim());
  const label = near.slice(1, middle);
  if (href === null || label.includes("[")) return null;
  // What the label says may differ from where the link goes: so the real host is shown beside it.
  const children = inline(label, names, DEPTH_MAX).map((node): Inline => (node.kind === "link" ? { kind: "text", text: label } : node));
  return { node: { kind: "link", href, host: hostOf(href), children }, length: end + 1 };
}

function bare(text: string, at: number): { node: Inline; length: number } | null {
  const match = LINK.exec(text.slice(at, at + LINK_MAX));
  if (!match) return null;
  let shown = match[0].replace(/[.,;:!?'"*_~]+$/, "");
  // A bracket that closes one outside of the link is not part of it.
  while (shown.endsWith(")") && count(shown, ")") > count(shown, "(")) shown = shown.slice(0, -1);
  const href = safeLink(shown);
  if (href === null) return null;
  return { node: { kind: "link", href, host: null, children: [{ kind: "text", text: shown }] }, length: shown.length };
}

function count(text: string, char: string): number {
  return text.split(char).length - 1;
}

/** The address if it is one that may be followed from a message, else null. */
export function safeLink(text: string): string | null {
  if (text.length > LINK_MAX || !LINK.test(text)) return null;
  try {
    const url = new URL(text);
    if (!["http:", "https:", "mailto:"].includes(url.protocol)) return null;
    if (url.protocol !== "mailto:" && (url.hostname === "" || url.username !== "" || url.password !== "")) return null;
    return url.href;
  } catch {
    return null;
  }
}

function hostOf(href: string): string {
  const url = new URL(href);
  return url.protocol === "mailto:" ? url.pathname : url.host;
}

function mention(text: string, at: number, names: Names): { node: Inline; length: number } | null {
  const rest = text.slice(at + 1, at + 1 + NAME_MAX).toLowerCase();
  const name = names.all.filter((other) => other !== "" && rest.startsWith(other)).sort((a, b) => b.length - a.length)[0];
  if (name === undefined || WORD.test(rest[name.length] ?? " ")) return null;
  const shown = text.slice(at, at + 1 + name.length);
  return { node: { kind: "mention", text: shown, me: name === names.me }, length: shown.length };
}

/** One line of plain words: for lists, notifications and the screen reader. */
export function plain(text: string): string {
  const words = (nodes: Inline[]): string =>
    nodes.map((node) => ("children" in node ? words(node.children) : node.text)).join("");
  const block = (one: Block): string => {
    switch (one.kind) {
      case "paragraph":
        return one.lines.map(words).join(" ");
      case "code":
        return one.text.replace(/\s+/g, " ");
      case "quote":
        return one.blocks.map(block).join(" ");
      case "list":
        return one.items.map(words).join(", ");
    }
  };
  return parse(text).map(block).join(" ");
}
