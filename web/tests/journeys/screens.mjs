// Every screen and state: axe finds nothing serious or critical, in both themes, at desktop and phone width; German; high contrast.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { Node, composer, enter, message, open, say, seen, servedFromDisk, theBrowser } from "./stage.mjs";

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const findings = [];
let examined = 0;

/** What axe finds on the page as it is now. */
export async function examine(page, screen) {
  if (!(await page.evaluate(() => "axe" in window))) {
    // The page forbids scripts from elsewhere, and rightly: so it is put in by the browser itself.
    await page.evaluate(readFileSync(AXE, "utf8"));
  }
  const found = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  examined += 1;
  for (const violation of found.violations)
    if (["serious", "critical"].includes(violation.impact))
      findings.push(`${screen}: ${violation.id} (${violation.impact}): ${violation.nodes.slice(0, 3).map((node) => `${node.target} ${node.failureSummary}`).join(" | ")}`);
}

export async function bothThemes(page, screen) {
  for (const theme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme: theme });
    await examine(page, `${screen}, ${theme}`);
  }
  await page.emulateMedia({ colorScheme: "light" });
}

/** Nothing serious or critical was found so far. */
export function nothingFound() {
  assert.deepEqual(findings, [], findings.join("\n"));
}

export async function axe_finds_nothing_on_any_screen() {
  const [ada, bea] = [new Node("Ada"), new Node("Bea Brandt")];
  ada.home += "-screens";
  bea.home += "-screens";
  await Promise.all([ada.up(), bea.up()]);
  // The check can fail: a page with a button without a name is found.
  const planted = await (await theBrowser()).newPage();
  await planted.setContent("<html lang=en><title>x</title><main><h1>x</h1><button></button></main></html>");
  await examine(planted, "planted");
  assert.equal(findings.splice(0).length, 1, "axe finds what is planted");
  await planted.close();

  // Without movement: a colour half-way between two themes is no colour of either.
  const page = await open(ada, { reducedMotion: "reduce" });
  globalThis.lastPages = [page];
  await bothThemes(page, "welcome");
  await page.getByRole("button", { name: "Make or join a room" }).click();
  await examine(page, "menu");
  await page.keyboard.press("Escape");
  await ada.run("room", "new", "Lighthouse");
  await ada.run("room", "new", "Allotment");
  const invite = await ada.run("invite", "Lighthouse");
  await bea.run("join", invite.invite);
  await enter(page, "Lighthouse");
  await bea.run("send", "Lighthouse", "Good morning! The lamp is **fixed**, see https://lamp.example/log and `lamp --status`");
  await seen(page, "Good morning!");
  await say(page, "Great :tad");
  await page.keyboard.press("Enter");
  await say(page, "Things to bring:\n- rope\n- ~~paint~~ brushes\n> mind the stairs\n```\nwind = 7\n```");
  await seen(page, "Things to bring");
  const hers = await bea.run("send", "Lighthouse", "@Ada can you bring the *big* ladder?");
  await seen(page, "big ladder");
  await ada.run("react", hers.id, "👍");
  await ada.run("reply", hers.id, "Yes, on Saturday");
  await message(page, "big ladder").getByRole("button", { name: /👍 1/ }).waitFor();
  await seen(page, "Yes, on Saturday");
  await bothThemes(page, "room");
  await composer(page).fill("see you @be");
  await page.getByRole("listbox", { name: "Who is meant" }).waitFor();
  await examine(page, "completion");
  await composer(page).fill("");
  await message(page, "big ladder").hover();
  await examine(page, "message tools");
  await message(page, "big ladder").click({ button: "right" });
  await page.getByRole("menu").waitFor();
  await bothThemes(page, "message menu");
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Emoji" }).click();
  await examine(page, "emoji");
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "About this room" }).click();
  await page.getByRole("button", { name: "Actions for Bea Brandt" }).waitFor();
  await bothThemes(page, "about the room");
  await shot(page, "room-light");
  await page.emulateMedia({ colorScheme: "dark" });
  await shot(page, "room-dark");
  await page.emulateMedia({ colorScheme: "light" });
  await page.getByRole("button", { name: "Actions for Bea Brandt" }).click();
  await examine(page, "member menu");
  await page.getByRole("menuitem", { name: "Safety number" }).click();
  await page.getByRole("button", { name: "It differs" }).waitFor();
  await bothThemes(page, "safety number");
  await shot(page, "safety");
  await page.getByRole("button", { name: "It differs" }).click();
  await examine(page, "safety number differs");
  await page.keyboard.press("Escape");
  await page.getByRole("button", { name: "Actions for Bea Brandt" }).click();
  await page.getByRole("menuitem", { name: "Safety number" }).click();
  await page.getByRole("button", { name: "It is the same" }).click();
  await page.getByText("You compared this number").waitFor();
  await examine(page, "verified");
  await page.keyboard.press("Escape");
  await page.getByRole("complementary").getByRole("button", { name: "Close" }).click();
  await message(page, "Things to bring").getByRole("button", { name: /read|reached|handed|saved/ }).first().click();
  await page.getByRole("heading", { name: "Where is this message?" }).waitFor();
  await bothThemes(page, "where is it");
  await page.keyboard.press("Escape");
  for (const [name, keys] of [["switcher", "Control+k"], ["shortcuts", "?"]]) {
    await page.evaluate(() => document.activeElement instanceof HTMLElement && document.activeElement.blur());
    await page.keyboard.press(keys);
    await page.getByRole("dialog").waitFor();
    await bothThemes(page, name);
    await shot(page, name);
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
  }
  await page.getByRole("main").getByRole("button", { name: "Invite somebody" }).first().click();
  await page.getByRole("button", { name: "Make a link" }).waitFor();
  await examine(page, "invite, before");
  await page.getByRole("button", { name: "Make a link" }).click();
  await page.getByLabel("Invite link").waitFor();
  await page.getByText("Or read it aloud").click();
  await bothThemes(page, "invite");
  await page.keyboard.press("Escape");
  for (const [button, item] of [["Make or join a room", "New room"], ["Make or join a room", "Join a room"]]) {
    await page.getByRole("button", { name: button }).click();
    await page.getByRole("menuitem", { name: item }).click();
    await page.getByRole("dialog").waitFor();
    await bothThemes(page, item);
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
  }
  await page.getByRole("button", { name: "More", exact: true }).click();
  await page.getByRole("menuitem", { name: "Leave the room" }).click();
  await bothThemes(page, "leave");
  await page.keyboard.press("Escape");

  for (const [link, ready] of [["Network", "Lines"], ["People", "Bea Brandt"], ["Settings", "Appearance"], ["Search", "Search"]]) {
    const target = link === "Network" ? page.getByRole("navigation").getByRole("link", { name: /reachable/ }) : page.getByRole("navigation").getByRole("link", { name: link, exact: true });
    await target.click();
    await page.getByRole("main").getByText(ready).first().waitFor();
    await bothThemes(page, link);
    await shot(page, link.toLowerCase());
  }
  await page.getByRole("searchbox").fill("ladder");
  await page.getByRole("main").getByRole("link", { name: /big ladder/ }).waitFor();
  await bothThemes(page, "search with results");
  await page.getByRole("searchbox").fill("nothingofthekind");
  await page.getByRole("main").getByText("Nothing that is here says").waitFor();
  await examine(page, "search without results");

  // High contrast, German, without virtualisation.
  await page.getByRole("navigation").getByRole("link", { name: "Settings", exact: true }).click();
  await page.getByLabel("Contrast").selectOption("more");
  await page.getByRole("checkbox", { name: /Draw only what is visible/ }).uncheck();
  await page.getByLabel("Language").selectOption("de");
  await page.getByRole("heading", { level: 1, name: "Einstellungen" }).waitFor();
  await bothThemes(page, "settings, German, high contrast");
  await page.getByRole("navigation").getByRole("link", { name: /Lighthouse/ }).click();
  await seen(page, "Things to bring");
  await bothThemes(page, "room, German, high contrast, not virtual");
  await shot(page, "contrast");

  // A telephone: one pane at a time.
  await page.evaluate(() => localStorage.clear());
  await page.setViewportSize({ width: 390, height: 780 });
  await page.reload();
  await seen(page, "Things to bring");
  assert.equal(await page.getByRole("navigation").count(), 0, "the list is folded away");
  const overflow = () => page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.equal(await overflow(), 0, "nothing stands out to the side");
  await bothThemes(page, "phone, room");
  await page.emulateMedia({ colorScheme: "dark" });
  await shot(page, "phone-room");
  await page.emulateMedia({ colorScheme: "light" });
  await page.getByRole("button", { name: "About this room" }).click();
  await examine(page, "phone, about");
  await page.getByRole("complementary").getByRole("button", { name: "Close" }).click();
  await page.getByRole("button", { name: "Back" }).click();
  await page.getByRole("navigation").getByRole("link", { name: /Lighthouse/ }).waitFor();
  assert.equal(await page.getByRole("main").isVisible(), false);
  await bothThemes(page, "phone, list");
  await shot(page, "phone-list");
  await page.getByRole("navigation").getByRole("link", { name: /Allotment/ }).click();
  await page.getByText("This is the beginning of Allotment.").waitFor();
  await examine(page, "phone, empty room");
  assert.equal(await overflow(), 0);

  // The node goes away.
  await ada.stop();
  await page.getByRole("main").getByText("Your node does not answer.").waitFor();
  await say(page, "kept here");
  await message(page, "kept here").getByRole("img", { name: "waiting for your node" }).waitFor();
  await bothThemes(page, "offline");
  await ada.up();
  await message(page, "kept here").getByRole("img", { name: "saved here" }).waitFor();
  assert.deepEqual(page.complaints, []);

  // Nobody is signed in.
  const signedOut = await (await theBrowser()).newPage();
  await servedFromDisk(signedOut);
  await signedOut.goto(`${ada.status.http}/#token=used-or-wrong`);
  await signedOut.getByText("offhook open").waitFor();
  await bothThemes(signedOut, "not signed in");
  await shot(signedOut, "signed-out");
  await signedOut.close();

  nothingFound();
  console.log(`        axe examined ${examined} screens and states: nothing serious or critical`);
  await page.context().close();
  await Promise.all([ada.stop(), bea.stop()]);
}
