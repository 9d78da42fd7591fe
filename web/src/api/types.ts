// The JSON of the local API (docs/api.md), as this client reads it.

export type Standing = "joining" | "member" | "left" | "removed";
export type Role = "reader" | "member" | "moderator" | "admin" | "owner";
export const ROLES: readonly Role[] = ["reader", "member", "moderator", "admin", "owner"];

/** The five honest states of an own entry; `missing` only for gaps. */
export type DeliveryState = "saved" | "handed" | "reached" | "read" | "failed" | "missing";

export interface Room {
  room: string;
  name: string;
  pair: string | null;
  standing: Standing;
  role: Role;
  history: string;
  /** The largest file that it takes, in bytes; 0 for none. */
  file_limit: number;
  members: number;
  members_online: number;
  entries: number;
  unread: number;
  /** Of the unread, those that name this person. */
  mentions: number;
  read_up_to: string | null;
  missing: number;
  sealed: number;
  newest: string | null;
  pinned: boolean;
  muted: boolean;
  note_to_self: boolean;
  draft: Draft | null;
}

export interface Draft {
  text: string;
  reply_to?: string;
}

/** A node that announces itself on this network: a claim, unless `up`. */
export interface Neighbour {
  device: string;
  person: string | null;
  name: string | null;
  /** The name that it announces: whoever does takes invitations of strangers. */
  claims: string | null;
  /** What this person invited it to, the newest last. */
  invited: { room: string | null; standing: NearStanding; left_s: number }[];
  place: "machine" | "network";
  addresses: string[];
  up: boolean;
  heard_s: number;
}

/** How far an invitation to somebody nearby has got. */
export type NearStanding = "calling" | "sent" | "shown" | "accepted" | "declined" | "not-taken" | "expired";

/** Somebody nearby invites this person. */
export interface NearRequest {
  request: string;
  device: string;
  person: string;
  claims: string | null;
  /** What they are called here; null where they are not known. */
  name: string | null;
  /** Null for a room of two. */
  room_name: string | null;
  place: "machine" | "network" | null;
  expires_s: number;
}

export interface Nearby {
  near: Neighbour[];
  requests: NearRequest[];
  visible: boolean;
}

/** A program's token or a browser's session. */
export interface AccessKey {
  id: string;
  kind: "token" | "session";
  name: string;
  scopes: string[];
  made: string;
  used: string;
  expires: string | null;
}

export interface Peer {
  device: string;
  person: string | null;
  name: string;
  up: boolean;
  path: string | null;
  rooms: number;
  seen: string | null;
  addresses: string[];
}

export interface Status {
  person: string;
  device: string;
  name: string;
  home: string;
  since: string;
  addresses: string[];
  network: string;
  http: string | null;
  rooms: Room[];
  peers: Peer[];
  versions: { offhook: string; api: string };
}

export interface Member {
  person: string;
  name: string;
  role: Role;
  verified: boolean;
  me: boolean;
  online: boolean;
  seen: string | null;
  devices: string[];
}

export interface Contact {
  person: string;
  name: string;
  own_name: string | null;
  petname: string | null;
  verified: boolean;
  blocked: boolean;
  safety_number: string;
  rooms: string[];
}

export interface Invite {
  invite: string;
  /** To be read aloud, line by line. */
  words: string[];
  room: string;
  name: string;
  role: Role;
  uses: number;
  expires: string;
}

export interface Reaction {
  emoji: string;
  persons: string[];
}

export type LineKind = "message" | "deleted" | "sealed" | "control" | "gap";

export interface Line {
  id: string;
  room: string;
  author: string | null;
  device: string | null;
  seq: number;
  time: string | null;
  kind: LineKind;
  text: string;
  state: DeliveryState;
  missing_to?: number;
  author_name?: string;
  mine?: boolean;
  reply_to?: string | null;
  edited?: string | null;
  reactions?: Reaction[];
  late?: boolean;
  clock_ahead?: boolean;
  after_removal?: boolean;
  by_reader?: boolean;
  equivocation?: boolean;
  mentions_me?: boolean;
  files?: FileTaken[];
}

/** A file, as its message tells of it. */
export interface FileTaken {
  file: string;
  name: string;
  type: string;
  bytes: number;
  width?: number;
  height?: number;
  /** A small JPEG in Base64. */
  thumbnail?: string;
}

/** A file, and how much of it is here. */
export interface FileState extends FileTaken {
  here: number;
  state: "here" | "coming" | "away" | "refused";
  sources: number;
  problem?: string;
}

/** What is told of a file while it comes. */
export type FileMoved = Pick<FileState, "file" | "here" | "state" | "sources" | "problem">;

export interface Page {
  entries: Line[];
  older: string | null;
  newer: string | null;
}

export interface Whereabouts {
  id: string;
  state: DeliveryState;
  saved: string;
  handed: string[];
  reached: number;
  read: number;
  members: number;
  per_member: { person: string; name: string; state: DeliveryState; why: string; why_code: WhyNot | null; last_seen_min: number | null }[];
}

/** Why an entry got no further with a member. */
export type WhyNot = "not-seen-yet" | "on-its-way" | "last-seen" | "never-seen";

/** Why a line is held. */
export type LineReason = "join" | "write" | "open" | "only" | "second" | "steady" | "visit" | "mix" | "spread" | "theirs" | "surplus";

export interface JoinStep {
  step: "knocking" | "asked" | "admitted" | "verified" | "readable" | "refused";
  device?: string;
  by?: string;
  members?: number;
  entries?: number;
  missing?: number;
  why?: string;
  last?: boolean;
}

/** What a gateway sees of this node. */
export interface Flows {
  now: number;
  peak: number;
  cap: number;
  soft: number;
  flows: { kind: string; to: string; state: string; age_s: number; forgotten_in_s: number | null; device: string | null; reason: string }[];
  waiting: { device: string; urgency: string; age_s: number; wants: string; reason: string }[];
  refused: { to: string; times: number; reason: string }[];
  refusals: number;
}

export interface FlowSample {
  time: string;
  now: number;
  cap: number;
  soft: number;
  kinds: Record<string, number>;
  waiting: number;
}

/** A line to a peer, and why it is held. */
export interface PeerLine {
  device: string;
  name: string;
  path: "direct" | "lan" | "relay" | "other" | "unknown";
  to: string | null;
  rtt_ms: number | null;
  rooms: number;
  up_s: number;
  idle_s: number;
  dialled: boolean;
  reason: string;
  reason_code: LineReason;
  reason_rooms: number | null;
}

/** One finding of the doctor, in words. */
export interface Check {
  name: string;
  verdict: "good" | "limited" | "bad" | "unknown";
  text: string;
  advice: string | null;
}

export type NodeEvent =
  | { event: "entry"; room: string; id: string; new: boolean; line: Line | null }
  | { event: "room"; room: string }
  | { event: "draft"; room: string; draft: Draft | null }
  | { event: "line"; device: string; up: boolean }
  | { event: "near"; text: string | null }
  | { event: "join"; room: string; step: JoinStep }
  | ({ event: "file"; entry: string } & FileMoved)
  | { event: "notice"; room: string | null; text: string }
  | { event: "reset" };
