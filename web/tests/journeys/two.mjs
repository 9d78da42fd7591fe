// Two people, two nodes, two browsers: what they see of each other.

import assert from "node:assert/strict";
import { Node, composer, message, open, say, seen, timeline, until } from "./stage.mjs";

/** Ada makes a room in her page and Bea joins it in hers, by the link. */
/** Two in a room that one of them made; the other was invited by a link, or by words that were read aloud. */
async function together(room = "Kitchen", aloud = false) {
  const [ada, bea] = [new Node("Ada"), new Node("Bea")].map((node, at) => Object.assign(node, { home: `${node.home}-${room}-${at}` }));
  await Promise.all([ada.up(), bea.up()]);
  const [adas, beas] = [await open(ada), await open(bea)];
  globalThis.lastPages = [adas, beas];
  await adas.getByRole("button", { name: "Make a room" }).click();
  await adas.getByLabel("Name of the room").fill(room);
  await adas.getByRole("button", { name: "Make the room" }).click();
  await adas.getByRole("heading", { level: 1, name: room }).waitFor();
  await adas.getByRole("main").getByRole("button", { name: "Invite somebody" }).first().click();
  await adas.getByRole("button", { name: "Make a link" }).click();
  const link = await adas.getByLabel("Invite link").inputValue();
  assert.match(link, /^offhook:/);
  await adas.getByRole("img", { name: "Or let them scan this" }).waitFor();
  await adas.getByText("Or read it aloud").click();
  const words = await adas.getByRole("dialog").getByRole("listitem").allInnerTexts();
  assert.ok(words.length > 8 && words.every((line) => line.split(" ").length <= 8), words.join("\n"));
  await adas.keyboard.press("Escape");

  await beas.getByRole("button", { name: "Join with an invite" }).click();
  const heard = words.map((line, at) => `${at + 1}. ${line}`);
  if (aloud) {
    await beas.getByLabel("Paste the invite").fill(heard.with(4, heard[4].replace(/\w+$/, "offhook")).join("\n"));
    await beas.getByRole("button", { name: "Join", exact: true }).click();
    await beas.getByRole("alert").getByText(/line 5 of the words/).waitFor();
  }
  await beas.getByLabel("Paste the invite").fill(aloud ? heard.join("\n") : link);
  await beas.getByRole("button", { name: "Join", exact: true }).click();
  await beas.getByText(/^Let in by Ada/).waitFor();
  await beas.getByText(/^Readable: /).waitFor();
  await shot(beas, "join-steps");
  await beas.getByRole("button", { name: "Open the room" }).click();
  await beas.getByRole("heading", { level: 1, name: room }).waitFor();
  return { ada, bea, adas, beas };
}

export async function they_join_chat_edit_react_answer_delete_and_search() {
  const { ada, bea, adas, beas } = await together();
  await say(adas, "Shall we cook on **Friday**?");
  await seen(beas, "Shall we cook on Friday?");
  assert.equal(await message(beas, "Friday").locator("strong").innerText(), "Friday");
  await say(beas, "@Ada yes, I bring bread :bread");
  await beas.keyboard.press("Enter");
  await seen(adas, "yes, I bring bread");

  // How far it got, without asking.
  await until("Ada sees that Bea read it", async () => (await message(adas, "Shall we cook").getByRole("img", { name: "read by everybody" }).count()) === 1);
  await message(adas, "Shall we cook").getByRole("button", { name: "read by everybody" }).click();
  await adas.getByRole("complementary").getByText("Everybody else has seen it.").waitFor();
  await adas.getByRole("complementary").getByText("read", { exact: true }).first().waitFor();
  await shot(adas, "where");
  await adas.getByRole("complementary").getByRole("button", { name: "Close" }).click();

  // Arrow up edits the last own message.
  await composer(adas).press("ArrowUp");
  await composer(adas).fill("Shall we cook on **Saturday**?");
  await composer(adas).press("Enter");
  await seen(beas, "Shall we cook on Saturday?");
  await message(beas, "Saturday").getByText("edited").waitFor();

  // React from the menu of the message.
  await message(beas, "Saturday").hover();
  await message(beas, "Saturday").getByRole("button", { name: "React" }).click();
  await beas.getByRole("dialog", { name: "Emoji" }).getByRole("button", { name: "🎉" }).first().click();
  await message(adas, "Saturday").getByRole("button", { name: /🎉 1, by Bea/ }).waitFor();

  // Answer.
  await message(adas, "I bring bread").hover();
  await message(adas, "I bring bread").getByRole("button", { name: "Answer" }).click();
  await say(adas, "and I make soup");
  await message(beas, "and I make soup").getByRole("button", { name: "Answer to Bea" }).waitFor();

  // Delete, and think better of it; then delete for good.
  await say(adas, "never mind this");
  await seen(beas, "never mind this");
  for (const undo of [true, false]) {
    await message(adas, "never mind this").click({ button: "right" });
    await adas.getByRole("menuitem", { name: /Delete/ }).click();
    await message(adas, "never mind this").waitFor({ state: "detached" });
    if (undo) {
      await adas.getByRole("button", { name: "Undo" }).click();
      await seen(adas, "never mind this");
    }
  }
  await until("the deletion reaches Bea", async () => (await message(beas, "never mind this").count()) === 0);
  await beas.getByText("This message was deleted.").first().waitFor();

  // Search, and jump to where it was said.
  await beas.getByRole("link", { name: "Search" }).click();
  await beas.getByRole("searchbox").fill("soup");
  await beas.getByRole("main").getByRole("link", { name: /and I make soup/ }).click();
  await seen(beas, "and I make soup");
  await shot(beas, "chat");
  assert.deepEqual([...adas.complaints, ...beas.complaints], []);
  await Promise.all([adas.context().close(), beas.context().close(), ada.stop(), bea.stop()]);
}

export async function one_is_away_and_comes_back_and_is_removed() {
  const { ada, bea, adas, beas } = await together("Hall");
  await say(adas, "before");
  await seen(beas, "before");

  // Bea's node goes; her page says so, and keeps what she writes.
  await bea.stop();
  await beas.getByRole("main").getByText("Your node does not answer.").waitFor();
  await say(beas, "written while my node was off");
  await message(beas, "written while").getByRole("img", { name: "waiting for your node" }).waitFor();
  await say(adas, "said while Bea was away");
  await adas.getByText("Nobody of this room is reachable now.").waitFor();
  await message(adas, "said while").getByRole("img", { name: "saved here" }).waitFor();
  await shot(adas, "away");

  // She comes back: same port, same page, nothing clicked.
  await bea.up();
  await seen(beas, "said while Bea was away");
  await seen(adas, "written while my node was off");
  assert.equal(await message(beas, "written while").count(), 1, "said once");

  // Unread in another room, a mention apart, and the mark where reading ends: also where she turns away as soon as something has come.
  await say(adas, "are you there?");
  await seen(beas, "are you there?");
  await beas.getByRole("navigation").getByText("Note to self").first().evaluate((link) => link.click());
  await beas.getByRole("heading", { level: 1, name: "Note to self" }).waitFor();
  await say(adas, "one");
  await say(adas, "two, @Bea");
  const entry = beas.getByRole("navigation").getByRole("link", { name: /Hall/ });
  await entry.getByText("2 unread messages").waitFor();
  await entry.getByText("1 mention of you").waitFor();
  await entry.click();
  await timeline(beas).getByText("New", { exact: true }).waitFor();
  await until("the room counts as read", async () => (await entry.getByText("unread").count()) === 0);

  // Drafts stay with their room, over a reload too.
  await composer(beas).fill("half a thought");
  await beas.getByRole("navigation").getByText("Note to self").first().click();
  await entry.getByText("Draft:").waitFor();
  await beas.reload();
  await beas.getByRole("navigation").getByRole("link", { name: /Hall/ }).click();
  await until("the draft is there again", async () => (await composer(beas).inputValue()) === "half a thought");
  await composer(beas).fill("");

  // Removal: said to whoever it hits, and what was there stays readable.
  await adas.getByRole("button", { name: "About this room" }).click();
  await adas.getByRole("button", { name: "Actions for Bea" }).click();
  await adas.getByRole("menuitem", { name: "Remove from the room" }).click();
  await adas.getByRole("dialog").getByRole("button", { name: "Remove Bea" }).click();
  await beas.getByText("You were removed from this room.").waitFor();
  await say(adas, "not for Bea");
  await seen(adas, "not for Bea");
  await seen(beas, "said while Bea was away");
  assert.equal(await message(beas, "not for Bea").count(), 0);
  assert.deepEqual([...adas.complaints, ...beas.complaints], []);
  await Promise.all([adas.context().close(), beas.context().close(), ada.stop(), bea.stop()]);
}

/** A picture of this width and height, in one colour, as PNG: made by the browser. */
async function pictureOf(page, width, height) {
  const url = await page.evaluate(([w, h]) => {
    const canvas = Object.assign(document.createElement("canvas"), { width: w, height: h });
    const context = canvas.getContext("2d");
    context.fillStyle = "teal";
    context.fillRect(0, 0, w, h);
    context.fillStyle = "gold";
    context.fillRect(w / 4, h / 4, w / 2, h / 2);
    return canvas.toDataURL("image/png");
  }, [width, height]);
  return Buffer.from(url.split(",")[1], "base64");
}

export async function they_send_pictures_and_files() {
  const { adas, beas } = await together("Gallery", true);
  let asked = 0;
  beas.on("request", (request) => (asked += /\/entries\/[^/]+\/files$/.test(request.url()) ? 1 : 0));
  const picture = await pictureOf(adas, 1200, 800);
  // Pseudo-random, larger than what comes unasked.
  const plan = Buffer.alloc(3_000_000);
  for (let at = 0; at < plan.length; at += 4) plan.writeUInt32LE(Math.imul(at, 2654435761) >>> 0, at);

  // Chosen, one of them not sent after all.
  const chooser = adas.waitForEvent("filechooser");
  await adas.getByRole("button", { name: "Attach files" }).click();
  await (await chooser).setFiles([
    { name: "garden.png", mimeType: "image/png", buffer: picture },
    { name: "plan.bin", mimeType: "application/octet-stream", buffer: plan },
    { name: "wrong.txt", mimeType: "text/plain", buffer: Buffer.from("not this one") },
  ]);
  const chosen = adas.getByRole("list", { name: "Files to be sent" });
  await chosen.getByText("3.0 MB").waitFor();
  await adas.getByRole("button", { name: "Do not send wrong.txt" }).click();
  await until("the node has them", async () => (await chosen.getByRole("progressbar").count()) === 0);
  await shot(adas, "files-chosen");
  await say(adas, "The garden, and the plan");
  await chosen.waitFor({ state: "detached" });

  // The picture comes by itself, the plan when Bea asks for it.
  const hers = message(beas, "The garden, and the plan");
  await hers.getByRole("link", { name: "Open garden.png" }).waitFor();
  const shown = hers.getByRole("img", { name: "garden.png" });
  await until("the picture is drawn in full", () => shown.evaluate((image) => image.complete && image.naturalWidth === 1200));
  assert.equal(await hers.getByText("wrong.txt").count(), 0);
  const before = asked;
  await hers.getByRole("button", { name: "Get plan.bin, 3.0 MB" }).click();
  const saving = beas.waitForEvent("download");
  await hers.getByRole("link", { name: "Save plan.bin" }).click();
  // Once when it was asked for, and once more if it moved meanwhile; the rest is told.
  assert.ok(asked - before <= 3, `the node was asked ${asked - before} times how far the file is`);
  const saved = await (await saving).createReadStream();
  const parts = [];
  for await (const part of saved) parts.push(part);
  assert.ok(Buffer.concat(parts).equals(plan), "what was saved is what was sent");
  await shot(beas, "files");

  // Pasted, and sent without a word.
  await composer(beas).evaluate((area) => {
    const data = new DataTransfer();
    data.items.add(new File(["two lines\nof text"], "note.txt", { type: "text/plain" }));
    area.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
  });
  await beas.getByRole("list", { name: "Files to be sent" }).getByText("note.txt").waitFor();
  await until("the node has it", async () => beas.getByRole("button", { name: "Send", exact: true }).isEnabled());
  await composer(beas).press("Enter");
  await message(adas, "file note.txt").getByRole("link", { name: "Save note.txt" }).waitFor();

  // The room takes smaller ones only from now on: what is larger is not sent, and not got any more.
  await adas.getByRole("button", { name: "About this room" }).click();
  await adas.getByLabel("Largest file").selectOption("1000000");
  await beas.getByText(/set the room.s limit for files to 1 MB/).first().waitFor();
  // The line about it can stand in the timeline a moment before the page has read the room again.
  await until("the page knows of the limit", async () => {
    await beas.locator("input[type=file]").setInputFiles({ name: "large.bin", mimeType: "application/octet-stream", buffer: plan });
    const refused = beas.getByText("large.bin is larger than this room takes: 1.0 MB are the most").first();
    return refused.waitFor({ timeout: 2_000 }).then(() => true, () => false);
  });
}
