// The one place that knows all: session, what is open, and what to do with each event.

import { api, forgetEarly, Problem, whenSignedOut } from "../api/client";
import { EventStream } from "../api/events";
import type { Contact, Line, Member, Nearby, NearRequest, NodeEvent, Room, Status } from "../api/types";
import { plain } from "../text/markdown";
import { spoken } from "../words/index.svelte";
import { drafts } from "./drafts.svelte";
import { files } from "./files.svelte";
import { joins } from "./joins.svelte";
import { notices } from "./notices.svelte";
import { outbox } from "./outbox.svelte";
import { rooms } from "./rooms.svelte";
import { settings } from "./settings.svelte";
import { Timeline } from "./timeline.svelte";

export type View =
  | { page: "home" }
  | { page: "room"; room: string }
  | { page: "network" }
  | { page: "contacts" }
  | { page: "search"; words: string; room?: string }
  | { page: "settings" };

export type Dialog =
  | { kind: "switcher" }
  | { kind: "shortcuts" }
  | { kind: "new-room" }
  | { kind: "join"; room?: string }
  | { kind: "invite"; room: string }
  | { kind: "person"; person: string; room?: string }
  | { kind: "remove"; room: string; member: Member }
  | { kind: "leave"; room: string };

export type Side = { kind: "room" } | { kind: "where"; id: string } | null;

/** Timelines kept in memory besides the open one. */
const TIMELINES_MAX = 12;
const STATUS_MS = 250;
/** How often the node is told which room is on the screen: it keeps a line to it for two minutes. */
const OPEN_AGAIN_MS = 60_000;

/** `#TOKEN` or `#token=TOKEN`: what `offhook up` opens the page with. Pages of the client begin with `#/`. */
function tokenOf(hash: string): string | null {
  const text = hash.replace(/^#/, "");
  if (text === "" || text.startsWith("/")) return null;
  return text.startsWith("token=") ? text.slice("token=".length) : text;
}

class App {
  session: "starting" | "in" | "out" | "bad-token" = $state("starting");
  online = $state(true);
  /** Whether more than the box to write in is drawn. */
  drawn = $state(false);
  status: Status | null = $state.raw(null);
  contacts: Contact[] = $state.raw([]);
  near: Nearby | null = $state.raw(null);
  members: Record<string, Member[]> = $state({});
  view: View = $state({ page: "home" });
  dialog: Dialog | null = $state.raw(null);
  side: Side = $state.raw(null);
  /** On a narrow window one pane is seen: the list, or what is open. */
  listShown = $state(true);

  #timelines = new Map<string, Timeline>();
  #stream: EventStream | null = null;
  /** Whether the stream was open before. */
  #followed = false;
  #queue: NodeEvent[] = [];
  #flushing = false;
  #statusDue: ReturnType<typeof setTimeout> | undefined;
  #readDue: ReturnType<typeof setTimeout> | undefined;

  readonly room: Room | undefined = $derived(this.view.page === "room" ? rooms.byId.get(this.view.room) : undefined);
  readonly me: string = $derived(this.status?.person ?? "");
  readonly reachable: number = $derived(
    new Set(this.status?.peers.filter((peer) => peer.up).map((peer) => peer.person ?? peer.device)).size,
  );

  async begin(): Promise<void> {
    whenSignedOut(() => this.#out("out"));
    addEventListener("hashchange", () => void this.#follow());
    addEventListener("online", () => this.#stream?.nudge());
    addEventListener("pagehide", () => {
      for (const timeline of this.#timelines.values()) timeline.settleAll();
      drafts.save(true);
    });
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) return;
      this.#stream?.nudge();
      this.readSoon();
      this.#tellOpen();
    });
    addEventListener("focus", () => this.readSoon());
    setInterval(() => this.#tellOpen(), OPEN_AGAIN_MS);
    const token = tokenOf(location.hash);
    if (token !== null) {
      // Out of the address at once: it must not stay in the history.
      history.replaceState(null, "", "#/");
      if (!(await this.#exchange(token))) return;
    }
    await this.#start();
  }

  async #exchange(token: string): Promise<boolean> {
    try {
      await api.signIn(token);
      return true;
    } catch (error) {
      // A page that is signed in already may be opened with a used link.
      const known = await api.rooms().catch(() => null);
      if (known !== null) return true;
      this.#out(error instanceof Problem && error.unreachable ? "out" : "bad-token");
      return false;
    }
  }

  async #start(): Promise<void> {
    try {
      const [list, status] = await Promise.all([api.rooms(), api.status()]);
      this.status = status;
      rooms.set(list);
      this.session = "in";
    } catch (error) {
      if (error instanceof Problem && error.unreachable && this.session !== "out") {
        this.online = false;
        setTimeout(() => void this.#start(), 1000);
        return;
      }
      if (this.session === "starting") this.#out("out");
      return;
    }
    this.online = true;
    await this.#follow();
    forgetEarly();
    // The box to write in is there and has the focus before all that stands around it is drawn.
    setTimeout(() => (this.drawn = true));
    this.#stream ??= new EventStream({
      event: (event) => this.#take(event),
      open: () => this.#reconnected(),
      lost: () => {
        this.online = false;
        // The stream cannot say why it ended; an answer can.
        void api.status().catch(() => undefined);
      },
    });
    void this.loadContacts();
    void this.loadNear();
    outbox.flush();
  }

  #out(why: "out" | "bad-token"): void {
    if (this.session === "bad-token" && why === "out") return;
    this.session = why;
    this.#stream?.close();
    this.#stream = null;
  }

  #reconnected(): void {
    const back = !this.online;
    this.online = true;
    outbox.flush();
    if (back) {
      drafts.save();
      notices.say(spoken.words.backOnline);
    } else if (this.#followed) return;
    // The first time too: something may have come between what was read and the beginning of the stream.
    this.#followed = true;
    void this.#reload();
  }

  async #reload(): Promise<void> {
    files.reread();
    await Promise.all([
      rooms.load().catch(() => undefined),
      this.loadStatus(),
      this.loadContacts(),
      this.loadNear(),
      ...[...this.#timelines.values()].map((timeline) => timeline.refresh()),
    ]);
    if (this.view.page === "room") void this.loadMembers(this.view.room);
  }

  // ---- what is open ----

  go(view: View): void {
    const hash = view.page === "room" ? `#/room/${view.room}` : view.page === "search" ? `#/search/${encodeURIComponent(view.words)}${view.room ? `/${view.room}` : ""}` : view.page === "home" ? "#/" : `#/${view.page}`;
    if (location.hash === hash) void this.#follow();
    else location.hash = hash;
  }

  async #follow(): Promise<void> {
    const token = tokenOf(location.hash);
    if (token !== null) {
      history.replaceState(null, "", "#/");
      if (await this.#exchange(token)) await this.#start();
      return;
    }
    const [page, first, second] = location.hash.replace(/^#\//, "").split("/");
    if (page === "room" && first) this.#enter(first);
    else if (page === "search")
      this.#show(second ? { page, words: decodeURIComponent(first ?? ""), room: second } : { page, words: decodeURIComponent(first ?? "") });
    else if (page === "network" || page === "contacts" || page === "settings") this.#show({ page });
    else this.#show({ page: "home" }, true);
  }

  #show(view: View, list = false): void {
    const leaving = this.view.page === "room" ? this.#timelines.get(this.view.room) : undefined;
    if (this.view.page === "room" && !(view.page === "room" && view.room === this.view.room)) {
      this.#readOnLeaving(this.view.room);
      leaving?.clearMark();
      this.side = this.side?.kind === "where" ? null : this.side;
    }
    this.view = view;
    this.listShown = list;
  }

  #enter(room: string): void {
    if (this.view.page === "room" && this.view.room === room && !this.listShown) return;
    const timeline = this.timeline(room);
    const unread = rooms.byId.get(room)?.unread ?? 0;
    this.#show({ page: "room", room });
    if (timeline.loaded) timeline.markUnread(unread);
    else void timeline.open(unread).catch(() => undefined);
    void this.loadMembers(room);
    this.#tellOpen();
    this.readSoon();
  }

  /** What is on the screen is fetched from others first, and has a line while it is there. */
  #tellOpen(): void {
    if (this.session === "out" || this.session === "bad-token" || this.view.page !== "room" || document.hidden) return;
    void api.focus(this.view.room).catch(() => undefined);
  }

  timeline(room: string): Timeline {
    const known = this.#timelines.get(room);
    this.#timelines.delete(room);
    const timeline = known ?? new Timeline(room, this.me);
    // The most recently opened stand last.
    this.#timelines.set(room, timeline);
    for (const oldest of this.#timelines.keys()) {
      if (this.#timelines.size <= TIMELINES_MAX) break;
      this.#timelines.get(oldest)?.settleAll();
      this.#timelines.delete(oldest);
    }
    return timeline;
  }

  /** Opens the room in which a line stands and shows it among its neighbours. */
  async showLine(room: string, id: string): Promise<void> {
    const timeline = this.timeline(room);
    timeline.place = id;
    this.go({ page: "room", room });
    while (!timeline.loaded) {
      await timeline.open(0).catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    if (await timeline.reach(id)) {
      timeline.place = id;
      timeline.found = null;
      timeline.found = id;
    }
  }

  /** The room for notes; made when it is first wanted. */
  async openNote(): Promise<void> {
    const known = rooms.note?.room;
    if (known) return this.go({ page: "room", room: known });
    await this.attempt(async () => {
      const made = await api.noteToSelf();
      await rooms.load();
      this.go({ page: "room", room: made.room });
    });
  }

  // ---- what is known ----

  async loadStatus(): Promise<void> {
    this.status = (await api.status().catch(() => null)) ?? this.status;
  }

  async loadContacts(): Promise<void> {
    this.contacts = (await api.contacts().catch(() => null)) ?? this.contacts;
  }

  async loadNear(): Promise<void> {
    const known = this.near?.requests;
    this.near = (await api.near().catch(() => null)) ?? this.near;
    const fresh = this.near?.requests.filter((request) => !known?.some((old) => old.request === request.request)) ?? [];
    for (const request of fresh) this.#asked(request);
  }

  /** Somebody nearby asks: said wherever the person is in the page. */
  #asked(request: NearRequest): void {
    const { words } = spoken;
    const text = words.nearAsks(request.name ?? words.nearClaimed(request.claims ?? words.nearUnknown), request.room_name);
    if (this.view.page === "contacts") notices.announce(text);
    else notices.say(text, "plain", { label: words.nearLook, run: () => this.go({ page: "contacts" }) }, 15_000);
    if (!this.#mayNotify() || (document.hasFocus() && !document.hidden)) return;
    const shown = new Notification(text, { tag: "near", icon: "/icon.svg" });
    shown.onclick = () => {
      window.focus();
      this.go({ page: "contacts" });
      shown.close();
    };
  }

  async answerNear(request: NearRequest, answer: "accept" | "decline" | "block"): Promise<void> {
    const began = performance.now();
    await this.attempt(async () => {
      const { room, name } = await api.answerNear(request.request, answer);
      if (room !== null) {
        // A room of two is made here and needs no joining.
        if (request.room_name !== null) {
          joins.begin(room, name ?? "", began);
          this.dialog = { kind: "join", room };
          void rooms.load();
        } else {
          await rooms.load();
          this.go({ page: "room", room });
        }
      } else notices.say(answer === "block" ? spoken.words.nearBlocked : spoken.words.nearDeclined);
    });
    void this.loadNear();
    void this.loadContacts();
  }

  async loadMembers(room: string): Promise<void> {
    const members = await api.members(room).catch(() => null);
    if (members) this.members[room] = members;
  }

  nameOf(person: string | null | undefined): string {
    if (!person) return spoken.words.somebody;
    if (person === this.me) return this.status?.name ?? spoken.words.you;
    const contact = this.contacts.find((other) => other.person === person);
    if (contact) return contact.name;
    for (const members of Object.values(this.members)) {
      const member = members.find((other) => other.person === person);
      if (member) return member.name;
    }
    return person.slice(0, 8);
  }

  nameOfDevice(device: string | undefined): string {
    return this.status?.peers.find((peer) => peer.device === device)?.name ?? device?.slice(0, 8) ?? spoken.words.somebody;
  }

  /** Runs what may be refused, and says why if it is. */
  async attempt<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      this.complain(error);
      return undefined;
    }
  }

  complain = (error: unknown): void => {
    const { words } = spoken;
    if (error instanceof Problem) {
      if (error.signedOut) return;
      notices.say(error.unreachable ? words.unreachable : words.failedTo(error.message), "bad");
    } else {
      console.error(error);
      notices.say(words.failedTo(""), "bad");
    }
  };

  // ---- events ----

  #take(event: NodeEvent): void {
    this.#queue.push(event);
    if (this.#flushing) return;
    this.#flushing = true;
    // Together with all that has come in the meantime: a catch-up is thousands of events.
    queueMicrotask(() => setTimeout(() => this.#flush()));
  }

  #flush(): void {
    this.#flushing = false;
    const entries = new Map<string, Extract<NodeEvent, { event: "entry" }>[]>();
    for (const event of this.#queue.splice(0)) {
      if (event.event === "entry") {
        const same = entries.get(event.room);
        if (same) same.push(event);
        else entries.set(event.room, [event]);
      } else this.#react(event);
    }
    for (const [room, events] of entries) this.#entries(room, events);
  }

  #react(event: Exclude<NodeEvent, { event: "entry" }>): void {
    switch (event.event) {
      case "room":
        rooms.refresh(event.room);
        if (this.members[event.room]) void this.loadMembers(event.room);
        void this.loadContacts();
        break;
      case "draft":
        drafts.told(event.room, event.draft);
        break;
      case "line":
        this.#statusSoon();
        break;
      case "near":
        void this.loadNear();
        break;
      case "join":
        joins.step(event.room, event.step);
        if (event.step.step === "readable") {
          rooms.refresh(event.room);
          void this.#timelines.get(event.room)?.refresh();
          void this.loadMembers(event.room);
        }
        break;
      case "file":
        files.told(event.entry, event);
        break;
      case "notice":
        notices.say(event.text);
        break;
      case "reset":
        void this.#reload();
        break;
    }
  }

  #statusSoon(): void {
    this.#statusDue ??= setTimeout(() => {
      this.#statusDue = undefined;
      void this.loadStatus();
      for (const room of rooms.list) if (room.room === this.room?.room) rooms.refresh(room.room);
      if (this.view.page === "room") void this.loadMembers(this.view.room);
    }, STATUS_MS);
  }

  #entries(room: string, events: Extract<NodeEvent, { event: "entry" }>[]): void {
    for (const { line } of events) if (line?.mine && line.kind === "message") outbox.arrived(room, line.id, line.text, line.files ?? []);
    this.#timelines.get(room)?.apply(events);
    rooms.refresh(room);
    const fresh = events.flatMap((event) => (event.new && event.line ? [event.line] : []));
    const said = fresh.filter((line) => line.kind === "message" && !line.late);
    const last = said.at(-1);
    if (last) rooms.touch(last);
    else {
      const known = rooms.newest.get(room);
      const changed = events.find((event) => event.id === known?.id)?.line;
      if (changed) rooms.newest.set(room, changed);
    }
    const others = said.filter((line) => !line.mine);
    if (others.length === 0) return;
    if (this.#watches(room)) {
      const newest = others.at(-1) as Line;
      notices.announce(`${newest.author_name ?? ""}: ${plain(newest.text)}`);
      this.readSoon();
    } else this.#notify(room, others);
  }

  #watches(room: string): boolean {
    return this.view.page === "room" && this.view.room === room && !document.hidden && document.hasFocus();
  }

  #mayNotify(): boolean {
    return settings.notify && typeof Notification !== "undefined" && Notification.permission === "granted";
  }

  #notify(room: string, said: Line[]): void {
    if (!this.#mayNotify()) return;
    const worth = rooms.byId.get(room)?.muted ? said.filter((line) => line.mentions_me) : said;
    const newest = worth.at(-1);
    const known = rooms.byId.get(room);
    if (!newest || !known) return;
    const title = known.pair ? known.name : spoken.words.saysIn(newest.author_name ?? "", known.name);
    const shown = new Notification(title, { body: plain(newest.text).slice(0, 200), tag: room, icon: "/icon.svg" });
    shown.onclick = () => {
      window.focus();
      shown.close();
      this.go({ page: "room", room });
    };
  }

  // ---- reading ----

  /** Whether the newest line of the open room is in view. The timeline's pane says so. */
  atNewest = true;

  /** Tells the node what was seen, if it was: the window is in front and the newest line in view. */
  readSoon(): void {
    this.#readDue ??= setTimeout(() => {
      this.#readDue = undefined;
      if (this.view.page === "room" && this.#isSeen(this.view.room)) void this.read(this.view.room);
    }, 250);
  }

  #isSeen(room: string): boolean {
    return this.#watches(room) && this.atNewest && !this.listCovers();
  }

  listCovers(): boolean {
    return this.listShown && matchMedia("(max-width: 719px)").matches;
  }

  async read(room: string): Promise<void> {
    const timeline = this.#timelines.get(room);
    const newest = timeline?.newestId();
    if (!newest || timeline?.detached || (rooms.byId.get(room)?.unread ?? 0) === 0) return;
    await this.#tellRead(room, newest);
  }

  /** What stood on the screen has been read, though its room is left before the count of what is unread has come. */
  #readOnLeaving(room: string): void {
    const timeline = this.#timelines.get(room);
    const newest = timeline?.newestId();
    if (!newest || timeline?.detached || !this.#isSeen(room) || newest === rooms.byId.get(room)?.read_up_to) return;
    void this.#tellRead(room, newest);
  }

  async #tellRead(room: string, newest: string): Promise<void> {
    try {
      await api.read(room, newest);
      rooms.markedRead(room);
    } catch {
      // Told again with the next line or the next time that the room is entered.
    }
  }

  /** The room before or after the open one. */
  step(by: 1 | -1, unreadOnly: boolean): void {
    const order = rooms.ordered;
    if (order.length === 0) return;
    const at = order.findIndex((room) => this.view.page === "room" && room.room === this.view.room);
    for (let step = 1; step <= order.length; step++) {
      const room = order[(((at < 0 && by < 0 ? 0 : at) + by * step) % order.length + order.length) % order.length] as Room;
      if (!unreadOnly || room.unread > 0) return this.go({ page: "room", room: room.room });
    }
  }
}

export const app = new App();
