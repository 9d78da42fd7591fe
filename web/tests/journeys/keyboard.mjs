// Everything by keyboard: no pointer touches the page.

import assert from "node:assert/strict";
import { Node, composer, message, open, seen, timeline, until } from "./stage.mjs";

export async function all_by_keyboard() {
  const node = new Node("Kay");
  await node.up();
  const page = await open(node);
  globalThis.lastPages = [page];
  const focused = () => page.evaluate(() => document.activeElement?.getAttribute("aria-label") ?? document.activeElement?.id ?? "");
  const press = (...keys) => keys.reduce((before, key) => before.then(() => page.keyboard.press(key)), Promise.resolve());

  /** Backwards from the message box; a button in the first row may stand between. */
  const toMessages = async () => {
    for (let step = 0; step < 12 && (await focused()) !== "Messages in Study"; step++) await page.keyboard.press("Shift+Tab");
    assert.equal(await focused(), "Messages in Study");
  };

  // A room from the switcher.
  await press("Control+k");
  await page.getByRole("combobox", { name: "Room, person or page" }).waitFor();
  await page.keyboard.type("new ro");
  await press("Enter");
  await page.getByLabel("Name of the room").waitFor();
  await page.keyboard.type("Study");
  await press("Enter");
  await page.getByRole("heading", { level: 1, name: "Study" }).waitFor();
  await until("the message box has the focus", async () => (await focused()) === "Write to Study");

  // Writing, an emoji by its name, a line break.
  await page.keyboard.type("first :tada");
  await press("Enter");
  await page.keyboard.type("of all");
  await press("Shift+Enter");
  await page.keyboard.type("second line");
  await press("Enter");
  await seen(page, "second line");
  assert.match(await message(page, "second line").innerText(), /first 🎉 of all/);
  await page.keyboard.type("another");
  await press("Enter");
  await seen(page, "another");

  // Edit with arrow up, give up with Escape.
  await press("ArrowUp");
  await until("the last message is in the box", async () => (await composer(page).inputValue()) === "another");
  await press("Escape");
  assert.equal(await composer(page).inputValue(), "");

  // Into the messages, to one of them, its menu, an edit.
  await toMessages();
  await press("ArrowUp");
  await until("the newest message has the focus", async () => (await focused()).includes("another"));
  await press("ArrowUp");
  await until("the one before has the focus", async () => (await focused()).includes("second line"));
  await press("ArrowDown", "Enter");
  await page.getByRole("menu").waitFor();
  await page.getByRole("menuitem", { name: /^Answer/ }).waitFor();
  await press("ArrowDown", "ArrowDown", "Enter");
  await until("the message is being edited", async () => (await composer(page).inputValue()) === "another");
  await page.keyboard.type(" one");
  await press("Enter");
  await seen(page, "another one");

  // A reaction with its key, and an answer.
  await toMessages();
  await press("ArrowUp", "+");
  await page.getByRole("dialog", { name: "Emoji" }).waitFor();
  await page.keyboard.type("fire");
  await press("Enter");
  await message(page, "another one").getByRole("button", { name: /🔥 1/ }).waitFor();
  await press("r");
  await page.getByText("Answering Kay").waitFor();
  await page.keyboard.type("to myself");
  await press("Enter");
  await seen(page, "to myself");

  // Delete, and undo by keyboard.
  await toMessages();
  await press("ArrowUp");
  // Also where it had not been confirmed yet: the focus stays with it.
  await until("the answer has the focus, and is there", async () => /to myself$/.test(await focused()));
  await press("Delete");
  await message(page, "to myself").waitFor({ state: "detached" });
  await page.getByRole("button", { name: "Undo" }).focus();
  await press("Enter");
  await seen(page, "to myself");

  // Where it is, and close with Escape.
  await page.evaluate(() => document.getElementById("composer")?.focus());
  await toMessages();
  await press("ArrowUp", "w");
  await page.getByRole("complementary").getByText("You are the only member").waitFor();
  await press("Escape", "Escape");
  await page.getByRole("complementary").waitFor({ state: "detached" });

  // Shortcuts, rooms by Alt and arrows, search.
  await page.evaluate(() => document.activeElement instanceof HTMLElement && document.activeElement.blur());
  await press("?");
  await page.getByRole("dialog", { name: "Keyboard shortcuts" }).waitFor();
  await press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  await press("Control+k");
  await page.keyboard.type("note");
  await press("Escape");
  await press("Control+Shift+F");
  await page.getByRole("searchbox").waitFor();
  await until("the search box has the focus", async () => (await focused()) === "Words that were said");
  await page.keyboard.type("myself");
  await page.getByRole("main").getByRole("link", { name: /to myself/ }).waitFor();
  await press("Tab", "Enter");
  await until("the found message has the focus", async () => (await focused()).includes("to myself"));
  assert.equal(await timeline(page).count(), 1);
  assert.deepEqual(page.complaints, []);
  await page.context().close();
  await node.stop();
}
