// Plays the journeys with real nodes and a real browser. `node tests/journeys/run.mjs [NAME...]`; OFFHOOK_SHOTS=DIR keeps screenshots.

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { clear } from "./stage.mjs";
import * as two from "./two.mjs";
import * as keyboard from "./keyboard.mjs";
import { axe_finds_nothing_on_any_screen } from "./screens.mjs";
import * as step from "./step.mjs";
import * as first from "./first.mjs";
import * as own from "./own.mjs";
import { a_stranger_nearby_is_invited_and_says_yes_or_no } from "./near.mjs";

const journeys = { ...first, ...two, ...step, ...keyboard, ...own, a_stranger_nearby_is_invited_and_says_yes_or_no, axe_finds_nothing_on_any_screen };
const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !(name in journeys));
if (unknown.length > 0) {
  console.error(`no such journey: ${unknown.join(", ")}; there are ${Object.keys(journeys).join(", ")}`);
  process.exit(2);
}

/** Everything together must end by itself, whatever hangs. */
const ALL_MS_MAX = 9 * 60_000;
const guard = setTimeout(() => {
  console.error("the journeys did not end in time");
  void clear().finally(() => process.exit(1));
}, ALL_MS_MAX);
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => void clear().finally(() => process.exit(1)));

const shots = process.env.OFFHOOK_SHOTS;
if (shots) mkdirSync(shots, { recursive: true });
/** Keeps a picture where one is wanted. */
globalThis.shot = async (page, name) => {
  if (!shots) return;
  // Toasts and carets would make every picture different.
  writeFileSync(join(shots, `${name}.png`), await page.screenshot({ animations: "disabled", caret: "hide" }));
};

let failed = 0;
let passed = 0;
for (const [name, journey] of Object.entries(journeys)) {
  if (wanted.length > 0 && !wanted.includes(name)) continue;
  const start = performance.now();
  const seconds = () => `${((performance.now() - start) / 1000).toFixed(1)} s`;
  try {
    await journey();
    passed += 1;
    console.log(`ok      ${name} (${seconds()})`);
  } catch (error) {
    failed += 1;
    console.log(`FAILED  ${name} (${seconds()})\n${error?.stack ?? error}`);
    if (globalThis.lastPages) for (const [index, page] of globalThis.lastPages.entries()) await shot(page, `failed-${name}-${index}`).catch(() => undefined);
  }
}
clearTimeout(guard);
await clear();
console.log(`journeys: ${passed} passed, ${failed} failed`);
process.exit(failed > 0 || passed === 0 ? 1 : 0);
