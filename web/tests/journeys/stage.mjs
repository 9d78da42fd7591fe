// Real nodes and real browsers for the journeys: each person has a home, a node run by the real binary, and a window of Debian's Chromium.

import { spawn } from "node:child_process";
import { createSocket } from "node:dgram";
import { mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const BINARY = process.env.OFFHOOK_BIN ?? here("../../../target/debug/offhook");
const CHROMIUM = process.env.CHROMIUM ?? "/usr/bin/chromium";
/** The longest that anything may take on a loaded machine, in milliseconds. */
export const PATIENCE_MS = Number(process.env.OFFHOOK_PATIENCE_MS ?? 60_000);

const folder = mkdtempSync(join(tmpdir(), "offhook-web-"));
const running = new Set();
let browser;

/** Ends all that was started and takes the homes away. */
export async function clear() {
  await browser?.close().catch(() => undefined);
  await Promise.all([...running].map((node) => node.stop().catch(() => undefined)));
  rmSync(folder, { recursive: true, force: true });
}

async function freePort() {
  const socket = createSocket("udp4");
  await new Promise((resolve) => socket.bind(0, "127.0.0.1", resolve));
  const { port } = socket.address();
  await new Promise((resolve) => socket.close(resolve));
  return port;
}

/** One person's node. */
export class Node {
  #process;
  #port;

  constructor(name) {
    this.name = name;
    this.home = join(folder, name);
  }

  get pid() {
    return this.#process?.pid;
  }

  async up() {
    this.#port ??= await freePort();
    const log = openSync(`${this.home}.log`, "a");
    const flags = ["--json", "up", "--headless", "--no-public-infrastructure", "--listen", `127.0.0.1:${this.#port}`, "--name", this.name];
    const child = spawn(BINARY, ["--home", this.home, ...flags], { stdio: ["ignore", "pipe", log], env: clean() });
    this.#process = child;
    running.add(this);
    const first = await new Promise((resolve, reject) => {
      let text = "";
      child.stdout.on("data", (chunk) => {
        text += chunk;
        if (text.includes("\n")) resolve(text.split("\n")[0]);
      });
      child.once("exit", (code) => reject(new Error(`${this.name} ended with ${code}: ${this.log()}`)));
      child.once("error", reject);
    });
    this.status = JSON.parse(first);
    return this.status;
  }

  log() {
    return readFileSync(`${this.home}.log`, "utf8").slice(-2000);
  }

  /** Ends the node as a service manager does. */
  async stop(signal = "SIGTERM") {
    const child = this.#process;
    running.delete(this);
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    await new Promise((resolve) => {
      child.once("exit", resolve);
      child.kill(signal);
    });
  }

  /** Runs one command and returns what it printed, as JSON or as lines of it. */
  async run(...args) {
    const child = spawn(BINARY, ["--home", this.home, "--json", ...args], { stdio: ["ignore", "pipe", "pipe"], env: clean() });
    let out = "";
    let err = "";
    child.stdout.on("data", (chunk) => (out += chunk));
    child.stderr.on("data", (chunk) => (err += chunk));
    const code = await new Promise((resolve) => child.once("close", resolve));
    if (code !== 0) throw new Error(`${this.name}: offhook ${args.join(" ")} ended with ${code}: ${err}`);
    const lines = out.trim().split("\n").filter(Boolean).map((line) => JSON.parse(line));
    return lines.length === 1 ? lines[0] : lines;
  }

  /** A link that signs a browser in, once. */
  async link() {
    return (await this.run("open", "--print")).url;
  }
}

function clean() {
  const { OFFHOOK_HOME: _, OFFHOOK_PASSPHRASE: __, ...env } = process.env;
  return { ...env, TZ: "UTC" };
}

export async function theBrowser() {
  browser ??= await chromium.launch({
    executablePath: CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--font-render-hinting=none"],
  });
  return browser;
}

/** A window of a browser of its own, signed in to a node. Whatever the page complains of is kept in `page.complaints`. */
export async function open(node, options = {}) {
  const { url = await node.link(), ...rest } = options;
  const context = await (await theBrowser()).newContext({
    viewport: { width: 1280, height: 800 },
    locale: "en-GB",
    timezoneId: "UTC",
    colorScheme: "light",
    permissions: ["clipboard-read", "clipboard-write"],
    ...rest,
  });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  page.complaints = [];
  page.on("pageerror", (error) => page.complaints.push(`error: ${error.message}`));
  page.on("console", (message) => {
    const text = message.text();
    // An answer of 4xx, or a node that is away on purpose, is no fault of the page.
    if (message.type() === "error" && !/Failed to load resource|ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED/.test(text)) page.complaints.push(text);
  });
  await servedFromDisk(page);
  await page.goto(url);
  await page.getByRole("navigation").first().waitFor();
  return page;
}

/** With OFFHOOK_WEB_DIST the page's files come from that folder instead of from the binary: for work on the page alone. */
export async function servedFromDisk(page) {
  const dist = process.env.OFFHOOK_WEB_DIST;
  if (!dist) return;
  const types = { html: "text/html", js: "text/javascript", css: "text/css", svg: "image/svg+xml", webmanifest: "application/manifest+json" };
  const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
  await page.route(
    (url) => !url.pathname.startsWith("/api/"),
    (route) => {
      const { pathname } = new URL(route.request().url());
      const name = pathname === "/" ? "/index.html" : pathname;
      return route.fulfill({ path: join(dist, name), contentType: types[name.split(".").at(-1)] ?? "text/plain", headers: { "Content-Security-Policy": policy } });
    },
  );
}

/** Waits until something holds; says what was waited for if it never does. */
export async function until(what, holds) {
  const end = Date.now() + PATIENCE_MS;
  let last;
  while (Date.now() < end) {
    try {
      last = await holds();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    await new Promise((resolve) => setTimeout(resolve, 60));
  }
  throw new Error(`waited in vain for ${what}; last: ${last instanceof Error ? last.message : JSON.stringify(last)}`);
}

// ---- what people do in the page ----

export const composer = (page) => page.locator("#composer");
export const timeline = (page) => page.locator("[data-timeline]");
export const message = (page, text) => timeline(page).getByRole("article", { name: text });

export async function say(page, text) {
  await composer(page).fill(text);
  await composer(page).press("Enter");
}

export async function seen(page, text) {
  await message(page, text).first().waitFor();
}

export async function enter(page, room) {
  await page.getByRole("navigation").getByRole("link", { name: room }).first().click();
  await composer(page).waitFor();
}
