// What somebody sets up as they like it, and what they see of the network: pins, mutes, notifications, contrast, movement, flows, the report.

import assert from "node:assert/strict";
import { Node, enter, message, open, say, seen, until } from "./stage.mjs";

/** Ada and Bea in these rooms. */
async function together(name, ...rooms) {
  const [ada, bea] = [new Node("Ada"), new Node("Bea")].map((node) => Object.assign(node, { home: `${node.home}-${name}` }));
  await Promise.all([ada.up(), bea.up()]);
  for (const room of rooms) {
    await ada.run("room", "new", room);
    await bea.run("join", (await ada.run("invite", room)).invite);
  }
  return [ada, bea];
}

const link = (page, room) => page.getByRole("navigation").getByRole("link", { name: room });

async function chooseOfRoom(page, room, item) {
  await enter(page, room);
  await page.getByRole("button", { name: "More", exact: true }).click();
  await page.getByRole("menuitem", { name: item, exact: true }).click();
}

export async function rooms_are_pinned_and_muted_and_notifications_grouped() {
  const [ada, bea] = await together("own", "Attic", "Barn");
  const page = await open(ada, { permissions: ["notifications", "clipboard-read", "clipboard-write"] });
  globalThis.lastPages = [page];
  // What is shown is noted, and shown all the same.
  await page.addInitScript(() => {
    globalThis.shown = [];
    const Real = globalThis.Notification;
    globalThis.Notification = class extends Real {
      constructor(title, options) {
        super(title, options);
        globalThis.shown.push({ title, tag: options.tag, body: options.body, made: this });
      }
    };
  });
  await page.reload();
  const shown = () => page.evaluate(() => globalThis.shown.map(({ title, tag, body }) => ({ title, tag, body })));

  // Pinned: on top, in every window of the person, until it is unpinned.
  const other = await open(ada);
  await chooseOfRoom(page, "Barn", "Pin to the top");
  for (const window of [page, other]) {
    await window.getByRole("list", { name: "Pinned" }).getByRole("link", { name: /Barn/ }).waitFor();
    assert.equal(await window.getByRole("list", { name: "Rooms" }).getByRole("link", { name: /Barn/ }).count(), 0);
  }
  await page.reload();
  await page.getByRole("list", { name: "Pinned" }).getByRole("link", { name: /Barn/ }).waitFor();
  await chooseOfRoom(page, "Barn", "Unpin");
  for (const window of [page, other]) await window.getByRole("list", { name: "Rooms" }).getByRole("link", { name: /Barn/ }).waitFor();
  await other.context().close();

  // Notifications: off until they are wanted, one tag for each room.
  await page.getByRole("navigation").getByRole("link", { name: "Settings", exact: true }).click();
  await bea.run("send", "Attic", "before they are on");
  await link(page, /Attic/).getByText("1 unread message").waitFor();
  await page.getByRole("checkbox", { name: /Show notifications/ }).click();
  await until("notifications are on", () => page.getByRole("checkbox", { name: /Show notifications/ }).isChecked());
  for (const [room, text] of [["Attic", "one"], ["Attic", "two"], ["Barn", "three"]]) {
    const before = (await shown()).length;
    await bea.run("send", room, text);
    await until(`${text} is notified of`, async () => (await shown()).length > before);
  }
  const [one, two, three] = await shown();
  assert.deepEqual([one.title, one.body, two.title, two.body, three.title, three.body], ["Bea in Attic", "one", "Bea in Attic", "two", "Bea in Barn", "three"]);
  assert.equal(one.tag, two.tag, "the second of a room takes the place of the first");
  assert.notEqual(one.tag, three.tag, "another room has its own");

  // Muted: nothing but mentions; a click on that one opens the room.
  await chooseOfRoom(page, "Attic", "Mute");
  await link(page, /Attic/).getByText("muted").waitFor();
  await until("the room counts as read", async () => (await link(page, /Attic/).getByText("unread").count()) === 0);
  await page.getByRole("navigation").getByRole("link", { name: "Settings", exact: true }).click();
  await bea.run("send", "Attic", "nobody is disturbed");
  await link(page, /Attic/).getByText("1 unread message").waitFor();
  await bea.run("send", "Attic", "@Ada but this is for you");
  await until("the mention is notified of", async () => (await shown()).length > 3);
  assert.deepEqual((await shown()).slice(3).map(({ body }) => body), ["@Ada but this is for you"]);
  await page.evaluate(() => globalThis.shown.at(-1).made.onclick(new Event("click")));
  await page.getByRole("heading", { level: 1, name: "Attic" }).waitFor();
  await seen(page, "but this is for you");
  await chooseOfRoom(page, "Attic", "Unmute");
  await until("it is muted no more", async () => (await link(page, /Attic/).getByText("muted").count()) === 0);
  assert.deepEqual(page.complaints, []);
  await Promise.all([page.context().close(), ada.stop(), bea.stop()]);
}

/** How much the text of an element stands out from what is behind it, as WCAG counts it: 1 to 21. */
function contrast(locator) {
  return locator.evaluate((element) => {
    const light = (colour) => {
      const [r, g, b] = colour.match(/[\d.]+/g).slice(0, 3).map((part) => {
        const share = Number(part) / 255;
        return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    let behind = element;
    while (behind.parentElement && /, 0\)$|transparent/.test(getComputedStyle(behind).backgroundColor)) behind = behind.parentElement;
    const [a, b] = [light(getComputedStyle(element).color), light(getComputedStyle(behind).backgroundColor)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  });
}

export async function contrast_and_movement_are_as_they_are_set() {
  const node = new Node("Ada");
  node.home += "-looks";
  await node.up();
  await node.run("room", "new", "Attic");
  const page = await open(node);
  globalThis.lastPages = [page];
  const settings = () => page.getByRole("navigation").getByRole("link", { name: "Settings", exact: true }).click();
  await settings();
  const hint = page.getByText("The identity is a key on this computer.");
  const bothThemes = async () => {
    const found = [];
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      found.push(await contrast(hint));
    }
    return found;
  };
  const plain = await bothThemes();
  assert.ok(plain.every((ratio) => ratio >= 4.5 && ratio < 12), `without: ${plain}`);

  const high = async (when) => {
    // The page follows what the system asks for a moment after it asks.
    await until(`${when}: soft text has a high contrast`, async () => (await bothThemes()).every((ratio) => ratio > 15));
  };

  // Set here, kept over a reload; and where the system asks for it.
  await page.getByLabel("Contrast").selectOption("more");
  await high("set here");
  await page.reload();
  await hint.waitFor();
  await high("after a reload");
  await page.getByLabel("Contrast").selectOption("system");
  assert.deepEqual(await bothThemes(), plain);
  await page.emulateMedia({ contrast: "more" });
  await high("the system asks for it");
  await page.emulateMedia({ contrast: "no-preference", colorScheme: "light" });

  // Movement: whatever appears has none of its own where none is wanted, here or by the system.
  const moves = async () => {
    await page.getByRole("navigation").getByRole("link", { name: /reachable/ }).click();
    await page.getByRole("button", { name: "Copy report" }).click();
    const toast = page.locator(".toast", { hasText: "Report copied." }).last();
    await toast.waitFor();
    const seconds = await toast.evaluate((element) => {
      const { animationName, animationDuration } = getComputedStyle(element);
      return animationName === "none" ? 0 : parseFloat(animationDuration);
    });
    await settings();
    await page.getByLabel("Movement").waitFor();
    return seconds > 0;
  };
  assert.equal(await moves(), true, "a message rises where movement is wanted");
  await page.getByLabel("Movement").selectOption("less");
  assert.equal(await moves(), false);
  const moving = await page.evaluate(() => [...document.querySelectorAll("*")].filter((element) => parseFloat(getComputedStyle(element).transitionDuration) > 0).length);
  assert.equal(moving, 0, "nothing at all is in transition");
  await page.getByLabel("Movement").selectOption("system");
  await page.emulateMedia({ reducedMotion: "reduce" });
  assert.equal(await moves(), false, "the system asks for it");
  assert.deepEqual(page.complaints, []);
  await Promise.all([page.context().close(), node.stop()]);
}

export async function the_network_page_draws_flows_by_kind_and_its_report_is_copied() {
  const [ada, bea] = await together("network", "Attic");
  const page = await open(ada);
  globalThis.lastPages = [page];
  await enter(page, "Attic");
  await say(page, "a line is up");
  await message(page, "a line is up").getByRole("img", { name: /reached|read/ }).waitFor();
  await page.getByRole("navigation").getByRole("link", { name: /1 person reachable/ }).click();

  // By kind, beside what the command line says.
  const flows = await ada.run("flows");
  const named = { path: "lines", dial: "dialling", punch: "finding a way", inbound: "others calling", relay: "relays", lookup: "look-ups", probe: "probing the network", lan: "local network" };
  const kinds = page.getByRole("list", { name: "By kind" });
  await until("the kinds are those that the node counts", async () => {
    const now = await ada.run("flows");
    const wanted = Object.entries(named).map(([kind, name]) => [name, now.flows.filter((flow) => flow.kind === kind).length]).filter(([, count]) => count > 0);
    const texts = (await kinds.getByRole("listitem").allInnerTexts()).map((text) => text.replace(/\s+/g, " ").trim());
    return wanted.length > 0 && wanted.every(([name, count]) => texts.includes(`${name} ${count}`));
  });

  // Drawn against the cap, over time: an area for each kind, which goes on.
  const chart = page.getByRole("img", { name: new RegExp(`limit ${flows.cap}`) });
  const areas = () => chart.locator("path").evaluateAll((paths) => paths.map((path) => ({ d: path.getAttribute("d"), high: path.getBBox().height, fill: getComputedStyle(path).fill })));
  await until("areas are drawn", async () => (await areas()).some(({ high, fill }) => high > 0 && /^rgb/.test(fill)));
  const before = await areas();
  assert.equal(new Set(before.map(({ fill }) => fill)).size, before.length, "each kind has its colour");
  await until("the chart goes on", async () => JSON.stringify(await areas()) !== JSON.stringify(before));
  const [cap, area] = await Promise.all([chart.locator("line.cap").boundingBox(), chart.locator("path").last().boundingBox()]);
  assert.ok(cap.y <= area.y, "the node stays under its limit");

  // The doctor's findings and the lines go into the report.
  await page.getByRole("button", { name: "Examine", exact: true }).click();
  await page.locator(".checks li").first().waitFor();
  await page.getByRole("button", { name: "Copy report" }).click();
  await page.getByText("Report copied.").first().waitFor();
  const report = await page.evaluate(() => navigator.clipboard.readText());
  for (const part of [/^Offhook \d/, new RegExp(`^flows: \\d+ of ${flows.cap}, peak \\d+`, "m"), /^flow path open 127\.0\.0\.1:\d+ /m, /^check \w+ (good|limited|bad|unknown): /m, /^peer Bea [0-9a-f]{12} up /m]) assert.match(report, part);
  assert.deepEqual(page.complaints, []);
  await Promise.all([page.context().close(), ada.stop(), bea.stop()]);
}
