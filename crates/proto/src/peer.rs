//! One peer: composes everything that a node decides. The only module that knows all others.
//!
//! The contract with the shell, in order:
//!
//! 1. [`Peer::open`] with an opened store, the secrets, a seed for randomness, and the time.
//! 2. Open a store transaction. Call [`Peer::handle`] with one input, or with a batch, one after the other.
//! 3. Commit. Only then carry out the outputs: *persist, then send*.
//! 4. When [`Peer::poll_timeout`] is due, call `handle(Input::Timeout, now)`.
//! 5. On a [`StoreError`] roll back, drop the peer, and begin at 1: there is no other recovery.
//!
//! Errors of remote peers are never `Err`: they are handled here and shown as events.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::crypto::{SealKeyPair, Secret};
use crate::history::{Class, Entry, EntryId, EntryRef, LogKey, RoomId};
use crate::identity::{DeviceId, IdentityState, NAME_BYTES_MAX, PREKEY_ROTATION_DAYS, PersonId};
use crate::keeper::Vaults;
use crate::overlay::dht::Job;
use crate::overlay::dht::krpc::Item;
use crate::overlay::directory::Directory;
use crate::overlay::ledger::{Limits, Urgency};
use crate::overlay::plan::{Planner, Reason};
use crate::rooms::proposal::{Proposals, Token};
use crate::rooms::{Doorway, HistoryPolicy, Invite, LogCertificate, Op, Role, RoomKind};
use crate::store::{Direction, LogNo, RoomNo, Store, StoreError, after_prefix};
use crate::sync::Frame;
use crate::sync::frame::{AddressRecord, may_be_passed_over};
use crate::wire::Wire;

mod answer;
mod author;
pub mod command;
mod commands;
mod dht;
mod dial;
mod exchange;
mod files;
mod forge;
mod forked;
mod handing;
mod join;
mod keeping;
mod keyring;
mod line;
mod order;
mod people;
mod printed;
mod proposing;
mod quota;
mod receipts;
mod record;
mod room;
mod seeking;
mod standing;
mod table;
mod timeline;
mod vaults;
pub mod view;
mod wants;

pub use command::{Command, CommandError, Post, Reply, Verdict};
#[doc(hidden)]
pub use forge::Forgery;
pub use proposing::{MadeProposalView, ProposalView};
pub use quota::{QUOTA_BURST_BYTES, QUOTA_BYTES_PER_SECOND};
pub use timeline::TIMELINE_MAX;

use author::Written;
use dht::DhtUse;
use dial::Dial;
use keeping::Keeping;
use line::Line;
use people::Person;
use quota::Quotas;
use record::{LogRecord, Me, Prekey, RoomRecord, StoredStanding};
use room::{Ctx, Ingested, Room};

/// How long acknowledgements and announcements are collected.
const ANNOUNCE_DELAY: Duration = Duration::from_millis(150);
/// How long after a change a receipt is made.
const RECEIPT_DELAY: Duration = Duration::from_millis(1200);
/// How long after entries came a receipt says so.
const DELIVERY_DELAY: Duration = Duration::from_secs(5);
/// How often states are compared with every line.
const RECONCILE_EVERY: Duration = Duration::from_secs(60);
/// How long the invite inside the offer of a room of two holds, in seconds.
const PAIR_INVITE_S: u64 = 3600;
/// Lines that are accepted at once.
const LINES_ACCEPTED_MAX: usize = 128;
/// The longest that a superseded prekey is kept, in milliseconds: what was sealed to it may still be under way.
const PREKEY_KEPT_MS: u64 = 400 * 24 * 3600 * 1000;

/// Something that happened outside. Printed without the secrets of a line: its exporter, and what its frames say.
#[derive(Clone)]
pub enum Input {
    /// The person wants something. Answered by exactly one [`Output::Reply`] with the same id.
    Command {
        /// Chosen by the caller.
        id: u64,
        /// What.
        command: Command,
    },
    /// The wall clock now, in milliseconds since 1970. Sent first, then at every step of the clock and every few seconds.
    WallClock {
        /// Milliseconds since 1970.
        unix_ms: u64,
    },
    /// An authenticated connection to a device is up, and its stream is ready for frames.
    LineUp {
        /// The device at the other end.
        peer: DeviceId,
        /// The connection's exporter secret (RFC 8446, 7.5), the same at both ends.
        exporter: [u8; 32],
        /// The remote address, where the path is direct.
        address: Option<SocketAddr>,
    },
    /// The connection is gone.
    LineDown {
        /// The device.
        peer: DeviceId,
    },
    /// A dial did not lead to a line.
    DialFailed {
        /// The device.
        peer: DeviceId,
    },
    /// A frame arrived on a line.
    Frame {
        /// From whom.
        peer: DeviceId,
        /// The frame, without its length.
        bytes: Vec<u8>,
    },
    /// A device may be at these addresses (seen on the local network, or told by the person).
    Found {
        /// The device.
        peer: DeviceId,
        /// Where.
        addresses: Vec<SocketAddr>,
    },
    /// A device that was found on the local network is there no more.
    Lost {
        /// The device.
        peer: DeviceId,
    },
    /// This node's own addresses as others may reach it, best first.
    OwnAddresses {
        /// Best first.
        addresses: Vec<SocketAddr>,
        /// The home relay, if there is one.
        relay: Option<String>,
    },
    /// Somebody wants to know whether a device can be reached: it is tried soon.
    TryPeer {
        /// The device.
        peer: DeviceId,
    },
    /// How many flows there may be: fewer lines are held where there are few.
    FlowLimits(Limits),
    /// Whether the Mainline DHT may be used: without this it is not.
    UseDht(bool),
    /// [`Output::Dht`] found an item, which its key signed.
    DhtFound(Item),
    /// What [`Output::Dht`] was to keep is kept by nobody.
    DhtNotKept,
    /// The network changed or the machine woke up: try everybody again, soon.
    NetworkChanged,
    /// The deadline of [`Peer::poll_timeout`] is due.
    Timeout,
}

/// Something to do outside, after the commit. Printed without what frames say.
#[derive(Clone)]
pub enum Output {
    /// The answer to a command.
    Reply {
        /// The command's id.
        id: u64,
        /// What came of it.
        reply: Result<Reply, CommandError>,
    },
    /// Send a frame on the line to a device; frames to one device stay in order.
    Send {
        /// To whom.
        peer: DeviceId,
        /// The frame, without its length.
        bytes: Vec<u8>,
    },
    /// Try to reach a device at these addresses (at most two are tried) or through the relay.
    Dial {
        /// The device.
        peer: DeviceId,
        /// Best first.
        addresses: Vec<SocketAddr>,
        /// Its relay.
        relay: Option<String>,
        /// How much it is wanted: what the flow ledger goes by.
        urgency: Urgency,
        /// Why, in words.
        reason: &'static str,
    },
    /// Whether what was missed is still coming in. No hole punching meanwhile: flows are for lines.
    CatchingUp(bool),
    /// Keep or find this in the Mainline DHT.
    Dht(Job),
    /// What to announce on the local network beside the device: the name of somebody who takes invitations of strangers, or nothing.
    Announce(Option<String>),
    /// Close the line to a device.
    Close {
        /// The device.
        peer: DeviceId,
        /// For the log.
        reason: &'static str,
    },
    /// Something that clients may want to know.
    Event(Event),
}

/// What changed, for those who watch.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// An entry is new here, or is shown differently now (decrypted, edited, reacted to, deleted, delivered).
    Entry {
        /// The room.
        room: RoomId,
        /// The entry.
        id: EntryId,
        /// True for the first time it can be shown.
        new: bool,
    },
    /// A room's members, name or standing changed.
    Room {
        /// The room.
        room: RoomId,
    },
    /// A line came up or went down.
    Line {
        /// The device.
        peer: DeviceId,
        /// Up or down.
        up: bool,
    },
    /// Somebody nearby invites this person, or an invitation of either side got further.
    Proposals {
        /// That somebody invites, in a sentence.
        news: Option<String>,
    },
    /// A step of a join.
    Join {
        /// The room.
        room: RoomId,
        /// The step.
        step: JoinStep,
    },
    /// Something that a person should look at.
    Notice {
        /// The room, where it is about one.
        room: Option<RoomId>,
        /// In words.
        text: String,
    },
}

/// How far a join has come, in the order in which the steps happen.
#[derive(Debug, Clone, PartialEq)]
pub enum JoinStep {
    /// Trying to reach a member that the invite names.
    Knocking {
        /// The member's device.
        peer: DeviceId,
    },
    /// A line to a member is up; asked to be let in.
    Asked {
        /// The member's device.
        peer: DeviceId,
    },
    /// Let in: the keys are here.
    Admitted {
        /// By whom.
        by: PersonId,
    },
    /// The membership is verified.
    RosterVerified {
        /// Persons in the room.
        members: usize,
    },
    /// The newest messages can be read.
    Readable {
        /// Messages here.
        entries: u64,
        /// Messages still to come.
        missing: u64,
    },
    /// A member refused.
    Refused {
        /// Why, in words.
        why: String,
        /// Whether asking others can still help.
        last: bool,
    },
}

/// The outputs of one input. Carry them out after the commit, in order.
#[derive(Debug, Clone, Default)]
#[must_use = "outputs are what the peer decided; dropping them loses messages"]
pub struct Outputs(pub Vec<Output>);

/// The secrets that make a peer who it is. The shell keeps them in files of mode 0600.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// The person's root key.
    pub root: crate::identity::RootKey,
    /// This device's key.
    pub device: crate::identity::DeviceKey,
}

/// One peer.
#[derive(Debug)]
pub struct Peer<S> {
    store: S,
    secrets: Secrets,
    ctx: Ctx,
    wall_at: Instant,
    my_name: String,
    my_profile: u64,
    my_identity: IdentityState,
    my_prekeys: Vec<Prekey>,
    my_addresses: Option<AddressRecord>,
    saved_numbers: (u32, u32),
    rooms: BTreeMap<RoomNo, Room>,
    by_id: BTreeMap<RoomId, RoomNo>,
    people: BTreeMap<PersonId, Person>,
    lines: BTreeMap<DeviceId, Line>,
    book: BTreeMap<DeviceId, Dial>,
    /// What questions of where a device is call those in the book.
    tags: BTreeMap<seeking::Tag, DeviceId>,
    directory: Directory,
    dht: DhtUse,
    /// When a device was looked up last.
    sought: Option<Instant>,
    joins: BTreeMap<RoomNo, Invite>,
    /// The door last knocked at for a pending join, and when.
    knocked: BTreeMap<RoomNo, (DeviceId, Instant)>,
    /// Invitations of those who are near, both ways.
    proposals: Proposals,
    /// Answers that were given to them, for devices that did not hear.
    given: BTreeMap<Token, proposing::Given>,
    /// Whether this person takes invitations of strangers who are near.
    takes_proposals: bool,
    /// What the shell was told last to announce.
    told_announcement: Option<Option<String>>,
    /// Rooms of two that somebody offered, until it is seen that they are.
    offered: BTreeMap<RoomNo, PersonId>,
    /// Invites in own offers of rooms of two.
    pair_invites: BTreeMap<RoomNo, Invite>,
    /// Rooms whose first answers are still under way, and who let this device in.
    arriving: BTreeMap<RoomNo, DeviceId>,
    read_up_to: BTreeMap<RoomNo, BTreeMap<[u8; 8], u32>>,
    announce_at: Option<Instant>,
    receipts_at: Option<Instant>,
    /// When the first want may be overdue.
    wants_at: Option<Instant>,
    receipts_due: BTreeSet<RoomNo>,
    reconcile_at: Instant,
    opened_room: Option<RoomNo>,
    /// Keepers of own rooms.
    keepers: BTreeMap<(RoomNo, DeviceId), Keeping>,
    /// Keepers with whom something is due at the end of this input.
    tend: BTreeSet<(RoomNo, DeviceId)>,
    /// What is kept for others.
    vaults: Vaults,
    /// When that is next looked through.
    sweep_at: Option<Instant>,
    /// What the shell was told last about catching up.
    told_catching_up: Option<bool>,
    planner: Planner,
    /// How much each member may still write.
    quotas: Quotas,
    /// Why each line is held, as last planned.
    held: BTreeMap<DeviceId, Reason>,
    /// Something has changed that a plan is made from.
    plan_due: bool,
    /// When to plan again, even if nothing happens.
    plan_at: Option<Instant>,
    /// When something was said last in a room, while this peer ran.
    spoken: BTreeMap<RoomNo, Instant>,
    /// Rooms in which something was said here and that no line carried then.
    unheard: BTreeSet<RoomNo>,
    /// Rooms that the person has open, and when that was said last.
    opened: BTreeMap<RoomNo, Instant>,
}

impl<S: Store> Peer<S> {
    /// Opens a peer over its store. `name` is used when the store is new. `seed` must be fresh and random.
    pub fn open(store: S, secrets: Secrets, name: &str, seed: [u8; 32], now: Instant) -> Result<Self, StoreError> {
        let (me, device) = (secrets.root.person(), secrets.device.device());
        let ctx = Ctx {
            now,
            wall_ms: 0,
            rng: ChaCha20Rng::from_seed(seed),
            out: Vec::new(),
            me,
            device,
            prekeys: Vec::new(),
            next_log: 1,
            next_room: 1,
            blocked: BTreeSet::new(),
        };
        let vaults = Vaults::load(&store)?;
        let quotas = Quotas::load(&store)?;
        let mut peer = Self {
            store,
            secrets,
            ctx,
            wall_at: now,
            my_name: String::new(),
            my_profile: 0,
            my_identity: IdentityState::new(me),
            my_prekeys: Vec::new(),
            my_addresses: None,
            saved_numbers: (0, 0),
            rooms: BTreeMap::new(),
            by_id: BTreeMap::new(),
            people: BTreeMap::new(),
            lines: BTreeMap::new(),
            book: BTreeMap::new(),
            tags: BTreeMap::new(),
            directory: Directory::default(),
            dht: DhtUse::default(),
            sought: None,
            joins: BTreeMap::new(),
            knocked: BTreeMap::new(),
            proposals: Proposals::default(),
            given: BTreeMap::new(),
            takes_proposals: false,
            told_announcement: None,
            offered: BTreeMap::new(),
            pair_invites: BTreeMap::new(),
            arriving: BTreeMap::new(),
            read_up_to: BTreeMap::new(),
            announce_at: None,
            receipts_at: None,
            wants_at: None,
            receipts_due: BTreeSet::new(),
            reconcile_at: now + RECONCILE_EVERY,
            opened_room: None,
            keepers: BTreeMap::new(),
            tend: BTreeSet::new(),
            vaults,
            sweep_at: None,
            told_catching_up: None,
            planner: Planner::new(Limits::default()),
            quotas,
            held: BTreeMap::new(),
            plan_due: true,
            plan_at: None,
            spoken: BTreeMap::new(),
            unheard: BTreeSet::new(),
            opened: BTreeMap::new(),
        };
        peer.load(name)?;
        Ok(peer)
    }

    fn load(&mut self, name: &str) -> Result<(), StoreError> {
        let restored = match self.store.get(table::ME)? {
            Some(bytes) => {
                let me: Me = record::decode(&bytes, "own state")?;
                self.my_name = me.name;
                self.my_profile = me.profile_number;
                self.my_prekeys = me.prekeys;
                self.ctx.next_room = me.next_room;
                self.ctx.next_log = me.next_log;
                me.restored
            }
            None => {
                let end = (0..=NAME_BYTES_MAX.min(name.len()))
                    .rev()
                    .find(|end| name.is_char_boundary(*end));
                self.my_name = name[..end.unwrap_or(0)].to_owned();
                self.my_profile = 1;
                false
            }
        };
        self.saved_numbers = (self.ctx.next_room, self.ctx.next_log);
        self.state_identity();
        self.load_takes_proposals()?;
        self.load_people()?;
        self.load_book()?;
        self.load_rooms()?;
        self.load_keepers()?;
        if restored {
            for room in self.rooms.values_mut() {
                room.own_stale = true;
                room.dirty = true;
            }
        }
        Ok(())
    }

    fn load_rooms(&mut self) -> Result<(), StoreError> {
        let scan =
            |store: &S, table: u8| store.scan(&[table], &after_prefix(&[table]), Direction::Ascending, usize::MAX);
        let mut own_logs: BTreeMap<RoomNo, Option<LogNo>> = BTreeMap::new();
        for (key, value) in scan(&self.store, table::ROOMS)? {
            let no = key
                .get(1..5)
                .and_then(|b| b.try_into().ok())
                .map(u32::from_be_bytes)
                .map(RoomNo);
            let no = no.ok_or(StoreError::Damaged("room key"))?;
            let record: RoomRecord = record::decode(&value, "room")?;
            own_logs.insert(no, record.own_log);
            self.by_id.insert(record.id, no);
            self.rooms.insert(no, Room::from_record(no, &record));
        }
        for (key, value) in scan(&self.store, table::LOGS)? {
            let no = key
                .get(1..5)
                .and_then(|b| b.try_into().ok())
                .map(u32::from_be_bytes)
                .map(LogNo);
            let no = no.ok_or(StoreError::Damaged("log key"))?;
            let record: LogRecord = record::decode(&value, "log")?;
            let own = own_logs.get(&record.room).copied().flatten();
            if let Some(room) = self.rooms.get_mut(&record.room) {
                room.load_log(no, record, own);
            }
        }
        for room in self.rooms.values_mut() {
            room.load_rest(&self.store, u64::MAX >> 17)?;
        }
        for (key, value) in scan(&self.store, table::JOINS)? {
            let no = key.get(1..5).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
            let no = RoomNo(no.ok_or(StoreError::Damaged("join key"))?);
            if let Some(room) = self.rooms.get_mut(&no) {
                // Let in, and stopped before the membership was verified: knock again.
                room.standing = StoredStanding::Joining {};
                self.joins.insert(no, record::decode(&value, "join")?);
            }
        }
        let numbers: Vec<RoomNo> = self.rooms.keys().copied().collect();
        for no in numbers {
            self.learn_members(no)?;
            self.load_read(no)?;
        }
        Ok(())
    }

    /// The own devices, prekey and profile as signed records.
    fn state_identity(&mut self) {
        let device = &self.secrets.device;
        let mut records = vec![self.secrets.root.certify(device.device(), 1)];
        self.ctx.prekeys = self
            .my_prekeys
            .iter()
            .map(|prekey| SealKeyPair::from_seed(prekey.seed.clone()))
            .collect();
        if let (Some(newest), Some(pair)) = (self.my_prekeys.last(), self.ctx.prekeys.last()) {
            records.push(device.state_prekey(newest.number, pair));
        }
        records.push(device.state_profile(self.my_profile, &self.my_name));
        for record in &records {
            // Signed by this very process a moment ago.
            let _ = self.my_identity.merge(record);
        }
    }

    /// Makes a new prekey when the newest is old, and forgets those that nothing can be under way for.
    fn rotate_prekey(&mut self) -> Result<(), StoreError> {
        let wall_ms = self.ctx.wall_ms;
        let rotation_ms = PREKEY_ROTATION_DAYS * 24 * 3600 * 1000;
        let newest = self.my_prekeys.last();
        if newest.is_some_and(|newest| wall_ms < newest.made_ms.saturating_add(rotation_ms)) {
            return Ok(());
        }
        let number = newest.map_or(1, |newest| newest.number + 1);
        let seed = Secret::random(&mut self.ctx.rng);
        self.my_prekeys.push(Prekey {
            number,
            made_ms: wall_ms,
            seed,
        });
        // A room that was not told of a newer prekey still seals to an older one.
        let told = self
            .rooms
            .values()
            .filter(|room| room.is_member())
            .map(|room| room.told_prekey)
            .min();
        let oldest_needed = told.unwrap_or(number);
        let superseded_ms: BTreeMap<u64, u64> = self
            .my_prekeys
            .windows(2)
            .map(|pair| (pair[0].number, pair[1].made_ms))
            .collect();
        self.my_prekeys.retain(|prekey| {
            let under_way = superseded_ms
                .get(&prekey.number)
                .is_none_or(|ms| wall_ms < ms.saturating_add(PREKEY_KEPT_MS));
            prekey.number >= oldest_needed || under_way
        });
        self.state_identity();
        self.save_me()
    }

    fn save_me(&mut self) -> Result<(), StoreError> {
        let me = Me {
            name: self.my_name.clone(),
            profile_number: self.my_profile,
            prekeys: self.my_prekeys.clone(),
            next_room: self.ctx.next_room,
            next_log: self.ctx.next_log,
            restored: false,
        };
        self.saved_numbers = (self.ctx.next_room, self.ctx.next_log);
        self.store.put(table::ME, &me.to_bytes())
    }

    /// Marks a store that was copied from a backup: every room gets a new log before anything is written.
    pub fn mark_restored(store: &mut S) -> Result<(), StoreError> {
        let Some(bytes) = store.get(table::ME)? else {
            return Ok(());
        };
        let mut me: Me = record::decode(&bytes, "own state")?;
        me.restored = true;
        store.put(table::ME, &me.to_bytes())
    }

    /// Applies one input and returns what to do after the commit.
    pub fn handle(&mut self, input: Input, now: Instant) -> Result<Outputs, StoreError> {
        self.ctx.wall_ms += u64::try_from(now.saturating_duration_since(self.wall_at).as_millis()).unwrap_or(0);
        self.wall_at = self.wall_at.max(now);
        self.ctx.now = now;
        match input {
            Input::Command { id, command } => {
                let reply = self.command(command)?;
                self.ctx.out.push(Output::Reply { id, reply });
            }
            Input::WallClock { unix_ms } => {
                self.ctx.wall_ms = unix_ms;
                self.rotate_prekey()?;
            }
            Input::LineUp {
                peer,
                exporter,
                address,
            } => self.line_up(peer, exporter, address)?,
            Input::LineDown { peer } => self.line_down(peer)?,
            Input::DialFailed { peer } => {
                self.sample_keeper(peer, false);
                self.dial_missed(peer);
            }
            Input::Frame { peer, bytes } => self.frame(peer, &bytes)?,
            Input::Found { peer, addresses } => {
                self.note_near(peer);
                self.consider_unseen_proposal(&peer);
                self.note_addresses(peer, addresses, None)?;
                self.dial_soon(peer);
            }
            Input::Lost { peer } => self.note_gone(peer),
            Input::TryPeer { peer } => self.try_peer(peer),
            Input::FlowLimits(limits) => {
                self.planner = Planner::new(limits);
                self.plan_due = true;
            }
            Input::UseDht(is_on) => self.use_dht(is_on),
            Input::DhtNotKept => self.put_again_soon(),
            Input::DhtFound(item) => self.on_dht_item(&item)?,
            Input::OwnAddresses { addresses, relay } => self.state_own_addresses(&addresses, relay.as_deref())?,
            Input::NetworkChanged => self.dial_everybody_soon(),
            Input::Timeout => self.timeout()?,
        }
        self.tend_keepers()?;
        self.plan_lines()?;
        self.tend_dht();
        self.tell_catching_up();
        self.tell_announcement();
        self.save()?;
        Ok(Outputs(std::mem::take(&mut self.ctx.out)))
    }

    fn save(&mut self) -> Result<(), StoreError> {
        for room in self.rooms.values_mut() {
            room.save(&mut self.store)?;
        }
        if self.saved_numbers != (self.ctx.next_room, self.ctx.next_log) {
            self.save_me()?;
        }
        Ok(())
    }

    fn timeout(&mut self) -> Result<(), StoreError> {
        let now = self.ctx.now;
        if self.announce_at.is_some_and(|at| at <= now) {
            self.announce();
        }
        if self.receipts_at.is_some_and(|at| at <= now) {
            self.make_receipts()?;
        }
        if self.wants_at.is_some_and(|at| at <= now) {
            self.ask_in_stead();
        }
        if self.proposals.next_expiry().is_some_and(|at| at <= now) {
            self.expire_proposals();
        }
        if self.next_knock().is_some_and(|at| at <= now) {
            self.knock_again();
        }
        if self.next_addresses().is_some_and(|at| at <= now) {
            self.send_due_addresses();
        }
        if self.reconcile_at <= now {
            self.reconcile_at = now + RECONCILE_EVERY;
            self.plan_due = true;
            self.reconcile_all()?;
            self.save_keepers()?;
        }
        if self.next_keeper_step().is_some_and(|at| at <= now) {
            self.keepers_timeout()?;
        }
        if self.sweep_at.is_some_and(|at| at <= now) {
            self.sweep_vaults()?;
        }
        Ok(())
    }

    /// When [`Input::Timeout`] is due, and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let due = [
            self.announce_at.map(|at| (at, "announce what is new")),
            self.receipts_at.map(|at| (at, "send receipts")),
            self.wants_at.map(|at| (at, "ask others for what is overdue")),
            (!self.lines.is_empty()).then_some((self.reconcile_at, "compare states")),
            self.plan_at.map(|at| (at, "plan lines")),
            self.next_knock().map(|at| (at, "knock at another door")),
            (self.proposals.next_expiry()).map(|at| (at, "drop invitations that nobody answered")),
            self.next_addresses().map(|at| (at, "say where everybody is")),
            self.next_keeper_step().map(|at| (at, "see to a keeper")),
            self.sweep_at.map(|at| (at, "drop what has expired")),
            self.next_dht_step().map(|at| (at, "see to the DHT")),
        ];
        due.into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    fn line_up(&mut self, peer: DeviceId, exporter: [u8; 32], address: Option<SocketAddr>) -> Result<(), StoreError> {
        if self.lines.len() >= LINES_ACCEPTED_MAX && !self.lines.contains_key(&peer) {
            self.ctx.out.push(Output::Close {
                peer,
                reason: "too many lines",
            });
            return Ok(());
        }
        self.new_line(peer, exporter);
        self.note_seen(peer, address)?;
        self.ctx.event(Event::Line { peer, up: true });
        self.greet(peer);
        self.knock(peer);
        self.offer_pairs(peer)?;
        self.propose(peer);
        self.send_addresses(peer);
        self.keeper_line_up(peer)
    }

    fn line_down(&mut self, peer: DeviceId) -> Result<(), StoreError> {
        let last_frame = self.lines.get(&peer).map(|line| line.last_frame);
        self.line_ends(peer)?;
        self.drop_line(peer);
        self.redial_after(peer, last_frame);
        self.replan_wants();
        self.sponsor_gone(peer)
    }

    fn drop_line(&mut self, peer: DeviceId) {
        if self.lines.remove(&peer).is_some() {
            self.keeper_line_down(peer);
            self.vaults.line_down(&peer);
            self.directory.line_down(&peer);
            self.ctx.event(Event::Line { peer, up: false });
        }
        for room in self.rooms.values_mut() {
            room.vouched.remove(&peer);
        }
        if let Some(dial) = self.book.get_mut(&peer) {
            dial.in_flight = None;
        }
    }

    /// What was asked of a line that is gone is asked of others.
    fn replan_wants(&mut self) {
        let pairs: Vec<(DeviceId, RoomNo)> = self
            .lines
            .iter()
            .flat_map(|(peer, line)| line.rooms.keys().map(|no| (*peer, *no)))
            .collect();
        for (peer, no) in pairs {
            self.plan_wants(peer, no);
        }
    }

    fn frame(&mut self, peer: DeviceId, bytes: &[u8]) -> Result<(), StoreError> {
        let Some(line) = self.lines.get_mut(&peer) else {
            return Ok(());
        };
        line.last_frame = self.ctx.now;
        match Frame::from_bytes(bytes) {
            Ok(frame) => self.take_frame(peer, frame, bytes.len()),
            Err(_) if line.passed_over < line::PASSED_OVER_MAX && may_be_passed_over(bytes) => {
                line.passed_over += 1;
                Ok(())
            }
            Err(_) => self.misbehaved(peer, "a frame that does not decode"),
        }
    }

    fn take_frame(&mut self, peer: DeviceId, frame: Frame, len: usize) -> Result<(), StoreError> {
        match frame {
            Frame::Hello { rooms } => {
                self.plan_due = true;
                self.on_hello(peer, rooms)?;
                self.send_addresses(peer);
                Ok(())
            }
            Frame::Taken { bytes } => self.on_taken(peer, bytes),
            Frame::Addresses { records } => self.on_addresses(peer, records),
            Frame::Seek {
                token,
                tag,
                newer_ms,
                hops,
            } => self.on_seek(peer, token, tag, newer_ms, hops),
            Frame::Found { token, salt, sealed } => self.on_found(peer, token, salt, sealed),
            Frame::Knock {
                invite,
                person,
                identity,
                log,
            } => self.on_knock(peer, invite, person, identity, log),
            Frame::Welcome { room, gifts } => self.on_welcome(peer, room, gifts),
            Frame::Refused {
                invite,
                reason,
                ask_others,
            } => {
                self.on_refused(peer, invite, reason, ask_others);
                Ok(())
            }
            Frame::Offer { invite } => self.on_offer(peer, &invite),
            Frame::Propose {
                token,
                person,
                identity,
                invite,
            } => self.on_propose(peer, token, person, identity, invite),
            Frame::Proposed { token, answer } => self.on_proposed(peer, token, answer),
            Frame::ToKeeper { ask } => self.on_ask(peer, ask),
            Frame::Keeper { answer } => self.on_answer(peer, answer),
            Frame::Removed { name, shown } => self.on_removed(peer, name, &shown),
            Frame::Unknown { name } => self.on_unknown(peer, name),
            Frame::Admitted { name, shown } => self.on_admitted(peer, name, &shown),
            Frame::Summary { .. }
            | Frame::NoBase { .. }
            | Frame::Want { .. }
            | Frame::WantAll { .. }
            | Frame::WantPage { .. }
            | Frame::Entries { .. }
            | Frame::Have { .. }
            | Frame::InStep { .. }
            | Frame::Hashes { .. }
            | Frame::NeedEpochs { .. }
            | Frame::Epochs { .. }
            | Frame::Forked { .. }
            | Frame::Receipts { .. } => {
                let entries = matches!(frame, Frame::Entries { .. });
                self.room_frame(peer, frame)?;
                if entries {
                    self.note_taken(peer, len);
                }
                Ok(())
            }
        }
    }

    /// Frames about a room that both sides share.
    fn room_frame(&mut self, peer: DeviceId, frame: Frame) -> Result<(), StoreError> {
        let Some(no) = frame.name().map(|name| self.room_of(peer, name)).transpose()?.flatten() else {
            return Ok(());
        };
        match frame {
            Frame::Summary { base, changes, .. } => self.on_summary(peer, no, base, &changes),
            Frame::NoBase { .. } => self.on_no_base(peer, no),
            Frame::Want {
                want,
                control_only,
                ranges,
                ..
            } => self.on_want(peer, no, want, control_only, ranges),
            Frame::WantAll { want, .. } => self.on_want_all(peer, no, want),
            Frame::WantPage { want, count, .. } => self.on_want_page(peer, no, want, count),
            Frame::Entries { ends, runs, .. } => self.on_entries(peer, no, ends, runs),
            Frame::Have { ranges, .. } => self.on_have(peer, no, ranges),
            Frame::InStep { digest, .. } => self.on_in_step(peer, no, digest),
            Frame::Hashes { log, hashes, .. } => self.on_hashes(peer, no, log, &hashes),
            Frame::NeedEpochs { epochs, .. } => self.on_need_epochs(peer, no, &epochs),
            Frame::Epochs { gifts, .. } => self.on_epochs(no, gifts),
            Frame::Receipts { receipts, .. } => self.on_receipts(peer, no, receipts),
            Frame::Forked { log, entries, .. } => self.on_forked(peer, no, &log, entries),
            Frame::Hello { .. }
            | Frame::Taken { .. }
            | Frame::Addresses { .. }
            | Frame::Knock { .. }
            | Frame::Welcome { .. }
            | Frame::Refused { .. }
            | Frame::Removed { .. }
            | Frame::Unknown { .. }
            | Frame::Admitted { .. }
            | Frame::Offer { .. }
            | Frame::Seek { .. }
            | Frame::Found { .. }
            | Frame::Propose { .. }
            | Frame::Proposed { .. }
            | Frame::ToKeeper { .. }
            | Frame::Keeper { .. } => Ok(()),
        }
    }

    /// A room's membership changed.
    fn roster_changed(&mut self, no: RoomNo) -> Result<(), StoreError> {
        self.learn_members(no)?;
        self.learn_keepers(no)?;
        self.keepers_due(no);
        self.note_standing(no)?;
        self.plan_due = true;
        self.retry_limbo(no)?;
        self.greet_all()?;
        self.send_away(no)?;
        self.give_owed_epochs(no)?;
        self.say_own_branches(no)?;
        self.give_back_everything(no)?;
        self.replan_wants();
        Ok(())
    }

    /// What follows from own entries: others are sent them.
    fn written(&mut self, no: RoomNo, written: &Written, outcome: Ingested) -> Result<(), StoreError> {
        if let Some((log, _)) = written.entries.first() {
            let log: LogKey = *log;
            self.note_spoken(no);
            self.note_unheard(no);
            self.push(no, written);
            self.after_ingest(
                None,
                no,
                &log,
                Ingested {
                    new: Default::default(),
                    ..outcome
                },
            )?;
        }
        let Some(room) = self.rooms.get_mut(&no) else {
            return Ok(());
        };
        let control = |(_, entry): &(LogKey, Entry)| entry.header.class == Class::Control;
        let refreshed = room.refresh_roster(&mut self.store, &mut self.ctx)?;
        if refreshed || written.entries.iter().any(control) {
            self.roster_changed(no)?;
        }
        Ok(())
    }

    /// The store, for the shell to commit or roll back.
    pub fn store_mut(&mut self) -> &mut S {
        &mut self.store
    }

    /// The store, to look at.
    pub fn store(&self) -> &S {
        &self.store
    }
}
