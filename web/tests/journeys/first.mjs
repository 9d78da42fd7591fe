// The first five minutes of two people, with times: from nothing to a conversation.

import assert from "node:assert/strict";
import { Node, enter, message, open, say, seen, servedFromDisk, theBrowser, until } from "./stage.mjs";

/** Five minutes, as promised; it takes seconds. */
const ALL_MS_MAX = 5 * 60_000;

export async function first_run_in_under_five_minutes() {
  const start = performance.now();
  const step = (what) => console.log(`        ${((performance.now() - start) / 1000).toFixed(1).padStart(5)} s  ${what}`);
  const ada = new Node("Ada-first");
  await ada.up();
  step("`offhook up` has made an identity and runs");
  const adas = await open(ada);
  globalThis.lastPages = [adas];
  step("the page is open and signed in");
  assert.equal(new URL(adas.url()).hash, "#/", "the secret is out of the address");
  await shot(adas, "welcome");
  await adas.getByRole("button", { name: "Write yourself a note" }).click();
  await adas.getByRole("heading", { level: 1, name: "Note to self" }).waitFor();
  await say(adas, "milk, bread, and *patience*");
  await message(adas, "milk, bread").getByRole("img", { name: /saved here|read by everybody|reached everybody/ }).waitFor();
  step("a note to self is written, with nobody else there");
  await adas.getByRole("button", { name: "Make or join a room" }).click();
  await adas.getByRole("menuitem", { name: "New room" }).click();
  await adas.getByLabel("Name of the room").fill("Garden");
  await adas.getByRole("button", { name: "Make the room" }).click();
  await adas.getByRole("main").getByRole("button", { name: "Invite somebody" }).first().click();
  await adas.getByRole("button", { name: "Make a link" }).click();
  const link = await adas.getByLabel("Invite link").inputValue();
  await adas.getByRole("img", { name: "Or let them scan this" }).waitFor();
  await shot(adas, "invite");
  await adas.getByRole("button", { name: "Close" }).click();
  step("a room and an invite, as a link and as a QR code");

  const bea = new Node("Bea-first");
  await bea.up();
  const beas = await open(bea);
  globalThis.lastPages = [adas, beas];
  step("a second person has started, page open");
  await beas.getByRole("button", { name: "Join with an invite" }).click();
  await beas.getByLabel("Paste the invite").fill("offhook:nonsense");
  await beas.getByRole("button", { name: "Join", exact: true }).click();
  await until("a bad invite is explained", async () => (await beas.getByRole("alert").innerText()).length > 10);
  await beas.getByLabel("Paste the invite").fill(link);
  await beas.getByRole("button", { name: "Join", exact: true }).click();
  await beas.getByText(/^Readable: /).waitFor();
  step("she is in the room; every step stood in a list with its time");
  await beas.getByRole("button", { name: "Open the room" }).click();
  await say(beas, "Hello from the other side of the fence");
  await seen(adas, "Hello from the other side");
  await enter(adas, "Garden");
  await say(adas, "Hello! The tomatoes are ripe");
  await seen(beas, "The tomatoes are ripe");
  step("both have read each other");
  const took = performance.now() - start;
  assert.ok(took < ALL_MS_MAX, `it took ${took} ms`);
  // A link signs in once: the second time it says what to do.
  const used = await ada.link();
  const second = await open(ada, { url: used });
  await second.context().close();
  const stranger = await (await theBrowser()).newContext();
  const strangers = await stranger.newPage();
  await servedFromDisk(strangers);
  await strangers.goto(used);
  await strangers.getByText("This link was used already").waitFor();
  await stranger.close();
  assert.deepEqual([...adas.complaints, ...beas.complaints], []);
  await Promise.all([adas.context().close(), beas.context().close(), ada.stop(), bea.stop()]);
}
