// `cargo xtask web --measure`: how soon the page is ready, how soon a sent message shows, and how a long room scrolls. A real node, a real browser, over loopback.
//
// Figures are medians of several runs; the machine's load is printed with them, and a control: how long the same browser takes to load a picture of 362
// bytes from the same node, in turn with the page. The build of the node is the development profile unless OFFHOOK_BIN says otherwise; ENTRIES says how
// long the long room is; BEFORE names a folder with another build of the page, which goes through the long room first.

import { loadavg } from "node:os";
import { request } from "node:http";
import { Node, PATIENCE_MS, clear, composer, message, open, timeline, until } from "./journeys/stage.mjs";

const ROOMS = 76;
const LONG = Number(process.env.ENTRIES ?? 100_000);
const RUNS = 9;
const SENDS = 40;

const median = (list) => list.toSorted((a, b) => a - b)[Math.floor(list.length / 2)];
const worst = (list) => Math.max(...list);
const ms = (value) => `${value.toFixed(1)} ms`;
const report = (what, goal, value) => console.log(`${what.padEnd(64)} ${goal.padEnd(12)} ${value}`);

/** Says many things through the control socket, some at a time: the command line would start a process for each. */
async function fill(node, room, count) {
  const say = (n) =>
    new Promise((resolve, reject) => {
      const body = JSON.stringify({ text: n % 7 === 0 ? `entry ${n} with more to say, so that it takes a second line on most windows: ${"word ".repeat(30)}` : `entry ${n}` });
      const asked = request(
        { socketPath: `${node.home}/control.sock`, path: `/api/v1/rooms/${room}/entries`, method: "POST", headers: { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) } },
        (answer) => {
          answer.resume();
          answer.on("end", () => (answer.statusCode < 300 ? resolve() : reject(new Error(`${answer.statusCode}`))));
        },
      );
      asked.on("error", reject);
      asked.end(body);
    });
  for (let done = 0; done < count; done += 64) await Promise.all(Array.from({ length: Math.min(64, count - done) }, (_, at) => say(done + at)));
}

/** From the beginning of the navigation, in milliseconds: until the box has the focus and takes a letter, and of that, after the load event. */
async function ready(page, url) {
  const [all, afterLoad, control] = [[], [], []];
  for (let run = 0; run < RUNS; run++) {
    control.push(await picture(page, new URL("/icon.svg", url).href));
    await page.goto("about:blank");
    await page.goto(url, { waitUntil: "commit" });
    const took = await page.evaluate(
      (patience) =>
        new Promise((resolve, reject) => {
          const timer = setTimeout(() => reject(new Error("never ready")), patience);
          let at;
          const look = () => {
            const box = document.getElementById("composer");
            if (at === undefined && box && document.activeElement === box) at = performance.now();
            const load = performance.getEntriesByType("navigation")[0].loadEventEnd;
            if (at !== undefined && load > 0) {
              clearTimeout(timer);
              resolve({ all: at, afterLoad: at - load });
            } else setTimeout(look, 1);
          };
          look();
        }),
      PATIENCE_MS,
    );
    all.push(took.all);
    afterLoad.push(took.afterLoad);
  }
  return { all, afterLoad, control };
}

async function picture(page, url) {
  await page.goto("about:blank");
  await page.goto(url, { waitUntil: "load" });
  return page.evaluate(() => performance.getEntriesByType("navigation")[0].loadEventEnd);
}

async function sending(page) {
  const times = [];
  for (let n = 0; n < SENDS; n++) {
    await composer(page).fill(`timed ${n}`);
    // From the key to the frame in which it stands there: both taken in the page.
    times.push(
      await page.evaluate(
        (text) =>
          new Promise((resolve) => {
            const box = document.getElementById("composer");
            const list = document.querySelector("[data-timeline]");
            const start = performance.now();
            const watch = new MutationObserver(() => {
              if (!list.textContent.includes(text)) return;
              watch.disconnect();
              requestAnimationFrame(() => resolve(performance.now() - start));
            });
            watch.observe(list, { subtree: true, childList: true, characterData: true });
            box.dispatchEvent(new KeyboardEvent("keydown", { key: "Enter", bubbles: true, cancelable: true }));
          }),
        `timed ${n}`,
      ),
    );
    await message(page, `timed ${n}`).last().waitFor();
  }
  return times;
}

const frames_of = (gaps) => `median ${ms(median(gaps))}, worst ${ms(worst(gaps))}, over 50 ms: ${gaps.filter((gap) => gap > 50).length}`;

/** The one loop over frames: calls `step(n, list)` in each until it says that it is over, and returns the times between them. */
async function frames(page, step, skip = 0) {
  await page.evaluate(() => {
    window.eachFrame = (step, skip) =>
      new Promise((resolve) => {
        const list = document.querySelector("[data-timeline]");
        const gaps = [];
        let n = 0;
        let last = performance.now();
        const frame = (now) => {
          if (n >= skip) gaps.push(now - last);
          last = now;
          if (step(n, list)) return resolve(gaps);
          n += 1;
          requestAnimationFrame(frame);
        };
        requestAnimationFrame(frame);
      });
  });
  return page.evaluate(`window.eachFrame(${step}, ${skip})`);
}

const empty = (page) => frames(page, (n) => n === 300);

/** Scrolls up through the room until its beginning, as fast as it loads; then through all of it. */
async function scrolling(page) {
  const start = performance.now();
  const loading = await frames(page, (n, list) => {
    const end = list.scrollTop <= 0 && list.textContent.includes("This is the beginning");
    if (!end) list.scrollTop = Math.max(0, list.scrollTop - 4000);
    return end || n > 200_000;
  });
  const took = performance.now() - start;
  const beginning = await timeline(page).getByText("This is the beginning").count();
  // All of it is loaded now: the same speed without loading, as a control.
  await page.evaluate(() => {
    const list = document.querySelector("[data-timeline]");
    list.scrollTop = list.scrollHeight;
  });
  const control = await frames(page, (n, list) => {
    list.scrollTop = Math.max(0, list.scrollTop - 4000);
    return n === 600 || list.scrollTop <= 0;
  }, 5);
  // In 200 jumps, each to other messages; and as a wheel does it: 100 pixels a frame, from the middle.
  const through = await frames(page, (n, list) => {
    list.scrollTop = (list.scrollHeight * (n + 1)) / 200;
    return n === 200;
  }, 1);
  await page.evaluate(() => {
    const list = document.querySelector("[data-timeline]");
    list.scrollTop = list.scrollHeight / 2;
  });
  const wheel = await frames(page, (n, list) => {
    list.scrollTop -= 100;
    return n === 300;
  }, 5);
  const nodes = await page.evaluate(() => document.querySelectorAll("[data-timeline] *").length);
  return { loading, took, beginning, control, through, wheel, nodes };
}

/** Opens a long room and goes back to its beginning. */
async function measured(page, url, what) {
  await page.goto("about:blank");
  await page.goto(url);
  await until("the long room is open", async () => (await timeline(page).getByRole("article").count()) > 5);
  const result = await scrolling(page);
  if (result.beginning === 0) throw new Error("the beginning was never reached");
  report(`${what}back to the beginning while it loads, 4000 pixels a frame`, "", `${(result.took / 1000).toFixed(1)} s, ${frames_of(result.loading)}`);
  report(`${what}control: as fast, all of it loaded`, "", frames_of(result.control));
  return result;
}

try {
  console.log(`load ${loadavg().map((value) => value.toFixed(1)).join(" ")} at the start\n`);
  report("figure", "goal", "measured");
  const node = new Node("Bench");
  await node.up();
  let first;
  for (let n = 0; n < ROOMS; n++) {
    const made = await node.run("room", "new", `Room ${String(n).padStart(2, "0")}`);
    first ??= made.room;
    await fill(node, made.room, 20);
  }
  const page = await open(node);
  await page.setViewportSize({ width: 1280, height: 800 });
  const url = `${node.status.http}/#/room/${first}`;
  const times = await ready(page, url);
  report(`ready for typing with ${ROOMS} rooms, median of ${RUNS}`, "300 ms", `${ms(median(times.all))} (worst ${ms(worst(times.all))})`);
  report("of that, after the load event", "", ms(median(times.afterLoad)));
  report("control: a picture of 362 bytes from the same node, in turn", "", `${ms(median(times.control))} (worst ${ms(worst(times.control))})`);
  await message(page, "entry 19").waitFor();
  const sent = await sending(page);
  report(`a sent entry shows, median of ${SENDS}`, "50 ms", `${ms(median(sent))} (worst ${ms(worst(sent))})`);

  const long = await node.run("room", "new", "Long");
  const filling = performance.now();
  await fill(node, long.room, LONG);
  console.log(`(${LONG.toLocaleString("en")} entries written in ${((performance.now() - filling) / 1000).toFixed(0)} s)`);
  const there = `${node.status.http}/#/room/${long.room}`;
  const open_ms = await ready(page, there);
  report(`ready for typing in a room of ${LONG.toLocaleString("en")}, median of ${RUNS}`, "", `${ms(median(open_ms.all))} (worst ${ms(worst(open_ms.all))})`);
  if (process.env.BEFORE) {
    // The page as another build has it, in the same run.
    process.env.OFFHOOK_WEB_DIST = process.env.BEFORE;
    const before = await open(node);
    delete process.env.OFFHOOK_WEB_DIST;
    await before.setViewportSize({ width: 1280, height: 800 });
    await measured(before, there, "before: ");
    await before.context().close();
  }
  const result = await measured(page, there, "");
  report("200 jumps through all of it, from frame to frame", "", frames_of(result.through));
  report("300 frames of 100 pixels each", "", frames_of(result.wheel));
  report("elements in the timeline then", "", `${result.nodes}`);
  const late = await sending(page);
  report(`a sent entry shows with ${LONG.toLocaleString("en")} loaded, median of ${SENDS}`, "50 ms", `${ms(median(late))} (worst ${ms(worst(late))})`);
  await page.goto("about:blank");
  report("control: 300 frames of an empty page", "", frames_of(await empty(page)));
  console.log(`\nload ${loadavg().map((value) => value.toFixed(1)).join(" ")} at the end`);
} finally {
  await clear();
}
