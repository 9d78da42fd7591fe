// Two strangers on one network: each sees the other's claim, one invites, and nothing happens before the other says yes.

import assert from "node:assert/strict";
import { Node, enter, open, say, seen, until } from "./stage.mjs";
import { bothThemes, nothingFound } from "./screens.mjs";

const people = (page) => page.getByRole("navigation").getByRole("link", { name: /^People/ }).click();
/** The entry of somebody nearby who is not known: the name stands there as a claim. */
const claim = (page, name) => page.getByRole("main").getByRole("listitem").filter({ hasText: `“${name}”` });
const request = (page, name) => page.getByRole("main").getByRole("article", { name: new RegExp(`“${name}”, near here`) });

async function invite(page, name, what) {
  await claim(page, name).getByRole("button", { name: `Invite “${name}”` }).click();
  await page.getByRole("menuitem", { name: what, exact: true }).click();
}

export async function a_stranger_nearby_is_invited_and_says_yes_or_no() {
  const [ada, bea] = [new Node("Ada Anders"), new Node("Bea Bruns")];
  await Promise.all([ada.up(), bea.up()]);
  await ada.run("room", "new", "Terrace");
  await ada.run("near", "show");
  const [adas, beas] = [await open(ada, { reducedMotion: "reduce" }), await open(bea, { reducedMotion: "reduce" })];
  globalThis.lastPages = [adas, beas];

  // Nobody is seen by name who did not say so.
  await people(adas);
  await adas.getByRole("main").getByText("not open to strangers").first().waitFor();
  await people(beas);
  const box = beas.getByRole("checkbox", { name: "Let strangers on this network see me as “Bea Bruns” and invite me" });
  await bothThemes(beas, "near, hidden");
  await box.check();
  await beas.evaluate(() => (location.hash = "#/"));

  // One click opens what there is to invite to, the next one asks.
  await claim(adas, "Bea Bruns").getByText("a claim: you share no room").waitFor();
  await invite(adas, "Bea Bruns", "To Terrace");
  await claim(adas, "Bea Bruns").getByText("Invited to Terrace: waits for their answer").waitFor();
  await bothThemes(adas, "near, invited");

  // Bea is told wherever she is in her page; without her word nothing is joined and nobody known.
  await request(beas, "Ada Anders").getByText("You share no room: the name is what they claim.").waitFor();
  await beas.getByRole("navigation").getByRole("link", { name: "People: 1 invitation waits for you" }).waitFor();
  await bothThemes(beas, "near, asked, at home");
  await people(beas);
  await request(beas, "Ada Anders").waitFor();
  await bothThemes(beas, "near, asked");
  await shot(beas, "near-asked");
  assert.deepEqual(await bea.run("room", "list"), [], "no room without a yes");
  assert.deepEqual(await bea.run("contact", "list"), [], "nobody known without a yes");
  await request(beas, "Ada Anders").getByRole("button", { name: "Accept" }).click();
  await beas.getByText(/^Let in by Ada Anders/).waitFor();
  await beas.getByText(/^Readable: /).waitFor();
  await beas.getByRole("button", { name: "Open the room" }).click();
  await say(beas, "Nice to meet you over the fence");
  await adas.getByRole("main").getByText("Invited to Terrace: they said yes").waitFor();
  await enter(adas, "Terrace");
  await seen(adas, "Nice to meet you");

  // A chat of two, declined; then one that is accepted.
  const cleo = new Node("Cleo Conrad");
  await cleo.up();
  const cleos = await open(cleo, { reducedMotion: "reduce" });
  globalThis.lastPages = [adas, cleos];
  await people(cleos);
  // She may ask before the others have seen her, who has just started: it counts once they do.
  await invite(cleos, "Ada Anders", "To a chat of two");
  await people(adas);
  await request(adas, "Cleo Conrad").getByRole("button", { name: "Decline" }).click();
  await claim(cleos, "Ada Anders").getByText("Invited to a chat of two: they said no").waitFor();
  await invite(cleos, "Bea Bruns", "To a chat of two");
  await people(beas);
  await request(beas, "Cleo Conrad").getByRole("button", { name: "Accept" }).click();
  await beas.getByRole("heading", { level: 1, name: "Cleo Conrad" }).waitFor();
  await say(beas, "Just the two of us");
  await enter(cleos, "Bea Bruns");
  await seen(cleos, "Just the two of us");

  // Whoever hides is not seen by name and not asked.
  await people(beas);
  await beas.getByRole("checkbox", { name: /strangers on this network see me/ }).uncheck();
  const dora = new Node("Dora Dahl");
  await dora.up();
  const near = async () => (await dora.run("near")).near.find((node) => node.device === bea.status.device);
  await until("Dora sees a node without a name", async () => (await near())?.claims === null);
  await assert.rejects(dora.run("near", "invite", "Bea Bruns"), /nobody near here is/);

  // The other language.
  await people(beas);
  await beas.getByRole("navigation").getByRole("link", { name: "Settings", exact: true }).click();
  await beas.getByLabel("Language").selectOption("de");
  await beas.getByRole("navigation").getByRole("link", { name: /^Personen/ }).click();
  await beas.getByRole("checkbox", { name: /Fremde in diesem Netz dürfen mich/ }).waitFor();
  await bothThemes(beas, "near, German");

  nothingFound();
  assert.deepEqual([...adas.complaints, ...beas.complaints, ...cleos.complaints], []);
  for (const page of [adas, beas, cleos]) await page.context().close();
  await Promise.all([ada, bea, cleo, dora].map((node) => node.stop()));
}
