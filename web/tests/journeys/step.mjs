// One person with two browsers and an IRC client open at once, on a node that is started anew under them.

import assert from "node:assert/strict";
import { connect } from "node:net";
import { Node, composer, enter, message, open, say, seen, timeline, until } from "./stage.mjs";

/** An IRC client as simple as can be: on the node's own socket, where nothing is asked. It comes back by itself, as all clients do. */
class Irc {
  heard = [];
  #socket;
  #closed = false;

  constructor(path) {
    this.path = path;
    this.#open();
  }

  #open() {
    let rest = "";
    this.#socket = connect(this.path);
    this.#socket.setEncoding("utf8");
    this.#socket.on("connect", () => this.line("NICK bench", "USER irc 0 * :irc"));
    this.#socket.on("data", (text) => {
      const lines = (rest + text).split("\r\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("PING")) this.line(line.replace("PING", "PONG"));
        this.heard.push(line);
      }
    });
    this.#socket.on("error", () => undefined);
    this.#socket.on("close", () => this.#closed || setTimeout(() => this.#open(), 200));
  }

  line(...lines) {
    for (const line of lines) this.#socket.write(`${line}\r\n`);
  }

  said(text) {
    return this.heard.filter((line) => / PRIVMSG #/.test(line) && line.endsWith(`:${text}`)).length;
  }

  close() {
    this.#closed = true;
    this.#socket.destroy();
  }
}

export async function two_browsers_and_an_irc_client_stay_in_step_over_a_restart() {
  const [ada, bea] = [new Node("AdaStep"), new Node("BeaStep")];
  await Promise.all([ada.up(), bea.up()]);
  await ada.run("room", "new", "Deck");
  await bea.run("join", (await ada.run("invite", "Deck")).invite);
  await ada.run("irc", "on", "--port", "0");
  const irc = new Irc(`${ada.home}/irc.sock`);
  const pages = [await open(ada), await open(ada)];
  globalThis.lastPages = pages;
  for (const page of pages) await enter(page, "Deck");
  const everywhere = async (text) => {
    for (const page of pages) await seen(page, text);
    await until(`${text} in IRC`, () => irc.said(text) > 0);
  };

  await until("the channel is joined", () => irc.heard.some((line) => / JOIN .*#Deck/.test(line)));
  await bea.run("send", "Deck", "from Bea");
  await everywhere("from Bea");
  await say(pages[0], "from the first window");
  await everywhere("from the first window");
  irc.line("PRIVMSG #Deck :from IRC");
  for (const page of pages) await seen(page, "from IRC");
  await until("Bea has it", async () => (await bea.run("log", "Deck")).some((line) => line.text === "from IRC"));

  // The node is started anew. What is said meanwhile is there afterwards, everywhere, and once.
  await ada.stop();
  for (const page of pages) await page.getByRole("main").getByText("Your node does not answer.").waitFor();
  await bea.run("send", "Deck", "said while the node was off");
  await say(pages[1], "written while the node was off");
  await ada.up();
  await everywhere("said while the node was off");
  await everywhere("written while the node was off");
  const texts = ["from Bea", "from the first window", "from IRC", "said while the node was off", "written while the node was off"];
  for (const page of pages) {
    for (const text of texts) assert.equal(await message(page, text).count(), 1, `${text} stands there once`);
    await until("the box takes letters", async () => (await composer(page).fill("x").then(() => composer(page).inputValue())) === "x");
    await composer(page).fill("");
  }
  assert.equal(irc.said("from Bea"), 1, "IRC hears each line once");
  assert.equal(irc.said("said while the node was off"), 1, "IRC hears each line once");
  const order = await Promise.all(pages.map((page) => timeline(page).getByRole("article").allInnerTexts()));
  assert.equal(order[0].length, order[1].length, "both windows show the same");
  assert.deepEqual(pages.flatMap((page) => page.complaints), []);
  irc.close();
  await Promise.all([...pages.map((page) => page.context().close()), ada.stop(), bea.stop()]);
}
