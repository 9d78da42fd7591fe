// Calls of the local API. Every failure is a `Problem` with a sentence for people.

import type { AccessKey, Check, Contact, FileState, FileTaken, Flows, FlowSample, Invite, Line, Member, Nearby, Neighbour, Page, PeerLine, Role, Room, Status, Whereabouts } from "./types";

const BASE = "/api/v1";

/** What the node refused, or that it did not answer (`code` is `unreachable` then). */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
  ) {
    super(detail);
  }
  get unreachable(): boolean {
    return this.code === "unreachable" || this.code === "stopping";
  }
  get signedOut(): boolean {
    return this.status === 401;
  }
}

/** What is told whenever the node says that the session is over. */
let onSignedOut: () => void = () => undefined;
export function whenSignedOut(tell: () => void): void {
  onSignedOut = tell;
}

type Method = "GET" | "POST" | "PUT" | "PATCH" | "DELETE";

declare global {
  interface Window {
    /** What `early.js` has asked for, by path. */
    early?: Map<string, Promise<Response | undefined>>;
  }
}

/** An answer that was asked for before the client was there: good once, and only for the first reading. */
function early(method: Method, path: string): Promise<Response | undefined> | undefined {
  if (method !== "GET") return undefined;
  const answer = window.early?.get(path);
  window.early?.delete(path);
  return answer;
}

/** From here on answers are asked for: what was asked for early and not taken is old. */
export function forgetEarly(): void {
  delete window.early;
}

export async function call<T>(method: Method, path: string, body?: unknown, keepalive = false): Promise<T> {
  let response: Response;
  try {
    response = (await early(method, path)) ?? await fetch(BASE + path, {
      method,
      credentials: "same-origin",
      keepalive,
      ...(body === undefined ? {} : { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) }),
    });
  } catch {
    throw new Problem(0, "unreachable", "");
  }
  if (!response.ok) throw await problemOf(response);
  if (response.status === 204) return undefined as T;
  return (await response.json()) as T;
}

async function problemOf(response: Response): Promise<Problem> {
  if (response.status === 401) onSignedOut();
  try {
    const document = (await response.json()) as { code?: string; detail?: string; title?: string };
    return new Problem(response.status, document.code ?? "internal", document.detail ?? document.title ?? "");
  } catch {
    return new Problem(response.status, "internal", `${response.status} ${response.statusText}`);
  }
}

/** Null where this node does not offer it. */
async function offered<T>(answer: Promise<T>): Promise<T | null> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof Problem && error.code === "no-endpoint") return null;
    throw error;
  }
}

const part = encodeURIComponent;

/** Hands a file to the node; `fetch` cannot tell how far it is. */
export function takeFile(file: File, tell: (progress: number) => void): { taken: Promise<FileTaken>; stop: () => void } {
  const request = new XMLHttpRequest();
  const taken = new Promise<FileTaken>((resolve, reject) => {
    request.open("POST", `${BASE}/files?name=${part(file.name || "file")}${file.type ? `&type=${part(file.type)}` : ""}`);
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.upload.onprogress = (event) => event.lengthComputable && tell(event.loaded / Math.max(1, event.total));
    request.onerror = request.onabort = () => reject(new Problem(0, "unreachable", ""));
    request.onload = () => {
      if (request.status === 201) return resolve(JSON.parse(request.responseText) as FileTaken);
      void problemOf(new Response(request.responseText, { status: request.status })).then(reject);
    };
  });
  // Without its own type: what a page sends is never taken for a form.
  request.send(file.slice(0, file.size, "application/octet-stream"));
  return { taken, stop: () => request.abort() };
}

export const api = {
  signOut: () => call<void>("DELETE", "/session"),
  signIn: (token: string) => call<unknown>("POST", "/session", { token }),
  status: () => call<Status>("GET", "/status"),
  rooms: () => call<{ rooms: Room[] }>("GET", "/rooms").then((answer) => answer.rooms),
  room: (room: string) => call<Room>("GET", `/rooms/${part(room)}`),
  newRoom: (name: string, history?: string) =>
    call<{ room: string; name: string }>("POST", "/rooms", history === undefined ? { name } : { name, history }),
  rename: (room: string, name: string) => call<Room>("PATCH", `/rooms/${part(room)}`, { name }),
  limitFiles: (room: string, file_limit: number) => call<Room>("PATCH", `/rooms/${part(room)}`, { file_limit }),
  keep: (room: string, change: { pinned?: boolean; muted?: boolean }) => call<Room>("PATCH", `/rooms/${part(room)}`, change),
  noteToSelf: () => call<{ room: string }>("POST", "/note-to-self"),
  focus: (room: string | null) => call<void>("PUT", "/focus", { room }),
  draft: (room: string, text: string, keepalive = false) => call<void>("PUT", `/rooms/${part(room)}/draft`, { text }, keepalive),
  setName: (name: string) => call<unknown>("PATCH", "/identity", { name }),
  near: () => call<Nearby>("GET", "/near"),
  showNearby: (visible: boolean) => call<Nearby>("PATCH", "/near", { visible }),
  inviteNear: (device: string, room: string | null) =>
    call<Neighbour>("POST", `/near/${part(device)}/invite`, room === null ? {} : { room }),
  answerNear: (request: string, answer: "accept" | "decline" | "block") =>
    call<{ room: string | null; name: string | null }>("POST", `/near/requests/${part(request)}`, { answer }),
  flows: () => offered(call<Flows>("GET", "/flows")),
  flowHistory: () => offered(call<{ samples: FlowSample[] }>("GET", "/flows/history").then((answer) => answer.samples)),
  doctor: (person?: string) =>
    offered(call<{ checks: Check[] }>("GET", person ? `/doctor/${part(person)}` : "/doctor").then((answer) => answer.checks)),
  lines: () => offered(call<{ lines: PeerLine[] }>("GET", "/lines").then((answer) => answer.lines)),
  keys: () => call<{ tokens: AccessKey[] }>("GET", "/tokens").then((answer) => answer.tokens),
  newKey: (name: string, scopes: string[]) => call<{ token: string }>("POST", "/tokens", { name, scopes }),
  revokeKey: (id: string) => call<void>("DELETE", `/tokens/${part(id)}`),
  /** Where the picture of a text as a QR code is. */
  qr: (text: string) => `${BASE}/qr?text=${part(text)}`,
  leave: (room: string) => call<unknown>("POST", `/rooms/${part(room)}/leave`),
  members: (room: string) =>
    call<{ members: Member[] }>("GET", `/rooms/${part(room)}/members`).then((answer) => answer.members),
  setRole: (room: string, person: string, role: Role) =>
    call<unknown>("PUT", `/rooms/${part(room)}/members/${part(person)}/role`, { role }),
  removeMember: (room: string, person: string) =>
    call<unknown>("DELETE", `/rooms/${part(room)}/members/${part(person)}`),
  invite: (room: string, wish: { expires_s: number; uses: number; role: Role; only_me: boolean }) =>
    call<Invite>("POST", `/rooms/${part(room)}/invites`, wish),
  join: (invite: string) => call<{ room: string; name: string }>("POST", "/joins", { invite }),
  cancelJoin: (room: string) => call<unknown>("DELETE", `/joins/${part(room)}`),
  contacts: () => call<{ contacts: Contact[] }>("GET", "/contacts").then((answer) => answer.contacts),
  changeContact: (person: string, change: { petname?: string; verified?: boolean; blocked?: boolean }) =>
    call<Contact>("PATCH", `/contacts/${part(person)}`, change),
  chat: (person: string) => call<{ room: string; name: string }>("POST", `/contacts/${part(person)}/chat`),
  entries: (room: string, limit: number, cursor?: string | null) =>
    call<Page>("GET", `/rooms/${part(room)}/entries?limit=${limit}${cursor ? `&cursor=${part(cursor)}` : ""}`),
  around: (room: string, limit: number, id: string) =>
    call<Page>("GET", `/rooms/${part(room)}/entries?limit=${limit}&around=${part(id)}`),
  say: (room: string, text: string, files: string[], client_id: string) =>
    call<{ id: string }>("POST", `/rooms/${part(room)}/entries`, { text, files, client_id }),
  reply: (id: string, text: string, files: string[], client_id: string) =>
    call<{ id: string }>("POST", `/entries/${part(id)}/replies`, { text, files, client_id }),
  files: (id: string) => call<{ files: FileState[] }>("GET", `/entries/${part(id)}/files`).then((answer) => answer.files),
  fetchFile: (id: string, file: string) => call<FileState>("POST", `/entries/${part(id)}/files/${part(file)}/fetch`),
  /** Where a file can be read once it is here. */
  fileAt: (id: string, file: string) => `${BASE}/entries/${part(id)}/files/${part(file)}`,
  read: (room: string, up_to: string) => call<void>("POST", `/rooms/${part(room)}/read`, { up_to }),
  entry: (id: string) => call<Line>("GET", `/entries/${part(id)}`),
  edit: (id: string, text: string) => call<unknown>("PATCH", `/entries/${part(id)}`, { text }),
  remove: (id: string, keepalive = false) => call<unknown>("DELETE", `/entries/${part(id)}`, undefined, keepalive),
  react: (id: string, emoji: string, on: boolean) =>
    call<unknown>(on ? "PUT" : "DELETE", `/entries/${part(id)}/reactions/${part(emoji)}`),
  where: (id: string) => call<Whereabouts>("GET", `/entries/${part(id)}/where`),
  search: (words: string, limit: number, room?: string) =>
    call<{ entries: Line[] }>(
      "GET",
      `/search?words=${part(words)}&limit=${limit}${room ? `&room=${part(room)}` : ""}`,
    ).then((answer) => answer.entries),
  phrase: () => call<{ phrase: string }>("GET", "/identity/phrase").then((answer) => answer.phrase),
};
