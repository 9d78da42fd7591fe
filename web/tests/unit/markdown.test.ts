import { describe, expect, test } from "vitest";
import { inline, parse, plain, safeLink, type Inline } from "../../src/text/markdown";

const names = { all: ["ada", "ada lovelace", "bea"], me: "bea" };
const kinds = (nodes: Inline[]): string[] => nodes.map((node) => node.kind);

describe("inline", () => {
  test("marks that are closed become nodes, others stay text", () => {
    expect(kinds(inline("**a** *b* _c_ ~~d~~ `e`"))).toEqual(["bold", "text", "italic", "text", "italic", "text", "struck", "text", "code"]);
    for (const text of ["**a", "2 * 3 * 4", "snake_case_name", "a ** b", "`", "~~", "*", "**", "[a]("])
      expect(kinds(inline(text)), text).toEqual(["text"]);
  });

  test("code is left alone", () => {
    expect(inline("`**a** @ada https://a.b`", names)).toEqual([{ kind: "code", text: "**a** @ada https://a.b" }]);
  });

  test("mentions are whole names, the longest first", () => {
    expect(inline("hi @Ada Lovelace!", names)[1]).toEqual({ kind: "mention", text: "@Ada Lovelace", me: false });
    expect(inline("@bea", names)).toEqual([{ kind: "mention", text: "@bea", me: true }]);
    expect(kinds(inline("@adam and mail@bea", names))).toEqual(["text"]);
  });

  test("bare links end before punctuation and unmatched brackets", () => {
    expect(inline("see https://a.example/x.")[1]).toMatchObject({ kind: "link", href: "https://a.example/x" });
    expect(inline("(https://a.example/b_(c))")[1]).toMatchObject({ href: "https://a.example/b_(c)" });
  });

  test("a labelled link shows where it really goes", () => {
    expect(inline("[my bank](https://evil.example/x)")).toEqual([
      { kind: "link", href: "https://evil.example/x", host: "evil.example", children: [{ kind: "text", text: "my bank" }] },
    ]);
    expect(inline("[https://bank.example](https://evil.example)")[0]).toMatchObject({ host: "evil.example", children: [{ kind: "text" }] });
  });
});

test("only http, https and mailto may be followed, without names and passwords in them", () => {
  for (const bad of ["javascript:alert(1)", "JAVASCRIPT:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd", "https://", "https://bank.example@evil.example/", " https://a.b", `https://a.b/${"x".repeat(3000)}`])
    expect(safeLink(bad), bad).toBeNull();
  expect(safeLink("HTTPS://a.example/")).toBe("https://a.example/");
  expect(safeLink("mailto:a@b.example")).toBe("mailto:a@b.example");
  expect(kinds(inline("[x](javascript:alert(1))"))).toEqual(["text"]);
});

test("blocks", () => {
  const text = "one\ntwo\n\n> quoted\n> more\n\n- a\n- b\n\n1. c\n2. d\n\n```js\nlet x = 1;\n```\nend";
  expect(parse(text).map((block) => block.kind)).toEqual(["paragraph", "quote", "list", "list", "code", "paragraph"]);
  expect(parse("```\nnever closed").map((block) => block.kind)).toEqual(["paragraph"]);
  expect(parse("-not a list").map((block) => block.kind)).toEqual(["paragraph"]);
});

test("nothing is lost, whatever comes: every letter of a message is still in its plain form", () => {
  let seed = 7;
  const random = (below: number) => (seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648) % below;
  const pieces = ["*", "**", "_", "~~", "`", "```", "[", "](", ")", "> ", "- ", "1. ", "\n", " ", "a", "b", "@ada", "https://x.example", "<b>", "&amp;", "\u202e"];
  for (let round = 0; round < 3000; round++) {
    const text = Array.from({ length: 1 + random(18) }, () => pieces[random(pieces.length)]).join("");
    const letters = (of: string) => of.replace(/https:\/\/x\.example\/?/g, "").replace(/[^ab]/g, "").length;
    expect(letters(plain(text)), JSON.stringify(text)).toBeLessThanOrEqual(letters(text));
    if (!/[`\[]/.test(text)) expect(letters(plain(text)), JSON.stringify(text)).toBe(letters(text));
  }
});

test("deep nesting and long texts end", () => {
  expect(parse(">".repeat(5000)).length).toBe(1);
  expect(parse("*a ".repeat(20_000)).length).toBe(1);
  expect(parse("[".repeat(20_000)).length).toBe(1);
  expect(parse(`${"[".repeat(20_000)}](x)`).length).toBe(1);
  expect(parse("`a ".repeat(20_001)).length).toBe(1);
  expect(parse("_a ~~b **c ".repeat(5000)).length).toBe(1);
  expect(parse("@".repeat(20_000), names).length).toBe(1);
});
