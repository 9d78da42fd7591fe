//! Writing: how something that this device says becomes an entry of its log.
//!
//! A message is sealed under an epoch whose recipients are all on the roster that this device knows. Where there is none, or where roster devices
//! were not sealed to, a control entry goes first, in the same write, that makes a new epoch or seals the chosen one to them.

use std::collections::BTreeMap;

use crate::crypto::{self, KeyPair, Secret, prefix8};
use crate::history::entry::{self, Class, Clock, Entry, EntryId, EntryRef, EpochId, Header, LogKey, PARENTS_MAX};
use crate::history::{Body, Said};
use crate::identity::{DeviceId, IdentityRecord};
use crate::peer::room::{CLOCK_AHEAD_MAX_MS, Ctx, Ingested, OwnLog, Room};
use crate::rooms::epochs::{SLOTS_MAX, seal_slots};
use crate::rooms::{Control, ControlPayload, EpochSecret, HistoryPolicy, LogCertificate, Op, Sending, Slot};
use crate::store::{Store, StoreError};
use crate::wire::Wire;

/// How many other logs a message refers to; the rest of the tips wait for the next one. What is not referred to stands below only by its clock.
const MESSAGE_PARENTS_MAX: usize = PARENTS_MAX;

/// What was written by one act.
#[derive(Debug, Default)]
pub(super) struct Written {
    /// The entries, in order.
    pub entries: Vec<(LogKey, Entry)>,
}

/// The prekeys that secrets are sealed to.
pub(super) type Prekeys = BTreeMap<DeviceId, [u8; 32]>;

impl Room {
    /// Gives this device a log in the room, or another one, and returns its certificate. The old one is never written again.
    pub(super) fn open_own_log(&mut self, ctx: &mut Ctx, device_key: &KeyPair) -> LogCertificate {
        let key = KeyPair::random(&mut ctx.rng);
        let certificate = LogCertificate::issue(device_key, &key);
        self.add_log(ctx, certificate.log);
        self.own = Some(OwnLog {
            key,
            log: certificate.log,
        });
        self.own_stale = false;
        self.dirty = true;
        certificate
    }

    /// Writes a message entry, preceded by what makes it readable for everybody on the roster.
    pub(super) fn write_message<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        prekeys: &Prekeys,
        riders: Vec<IdentityRecord>,
        body: Body,
    ) -> Result<(EntryId, Written, Ingested), StoreError> {
        let mut written = Written::default();
        let mut outcome = Ingested::default();
        let epoch = self.ready_epoch(store, ctx, prekeys, &mut written, &mut outcome)?;
        let plain = Said { riders, body }.to_bytes();
        let content = self.epochs.keys(&epoch).and_then(|keys| keys.content_key().cloned());
        let content = content.expect("an epoch that this device may send under is one whose keys it holds");
        let (log, header) = self.next_header(ctx, Class::Message, epoch);
        let key = header.payload_key(&log, &content);
        let payload = crypto::seal_once(&key, &header.bound(&log), &plain);
        let entry = self.finish(header, payload);
        let id = EntryId {
            log: log.prefix(),
            seq: entry.header.seq,
        };
        self.take_own(store, ctx, log, entry, &mut written, &mut outcome)?;
        Ok((id, written, outcome))
    }

    /// Writes a control entry. `new_epoch` makes a new epoch for those who are on the roster once `ops` count.
    pub(super) fn write_control<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        prekeys: &Prekeys,
        ops: Vec<Op>,
        new_epoch: bool,
    ) -> Result<(EntryId, Written, Ingested), StoreError> {
        let mut written = Written::default();
        let mut outcome = Ingested::default();
        let sending = self.epochs.sending_epoch(&self.roster, &self.graph, ctx.device);
        let id = match (new_epoch, sending) {
            (false, Sending::Use { epoch, missing }) => {
                let wanted = pick(prekeys, missing.iter());
                self.put_control(store, ctx, ops, epoch, &wanted, &mut written, &mut outcome)?
            }
            _ => {
                let leaving: Vec<_> = ops.iter().filter_map(removed_person).collect();
                let devices = self.roster.devices();
                let staying = devices
                    .iter()
                    .filter(|(_, person)| !leaving.contains(person))
                    .map(|(device, _)| device);
                let mut wanted = pick(prekeys, staying);
                wanted.extend(pick(prekeys, ops.iter().filter_map(admitted_device)));
                let epoch = self.new_epoch(ctx);
                self.put_control(store, ctx, ops, epoch, &wanted, &mut written, &mut outcome)?
            }
        };
        Ok((id, written, outcome))
    }

    /// Seals the epoch in use to one more device, in an entry that also lets it in.
    pub(super) fn write_admission<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        prekeys: &Prekeys,
        op: Op,
    ) -> Result<(Written, Ingested), StoreError> {
        let mut written = Written::default();
        let mut outcome = Ingested::default();
        let mut epoch = self.ready_epoch(store, ctx, prekeys, &mut written, &mut outcome)?;
        let newcomer = admitted_device(&op).copied();
        let mut wanted = pick(prekeys, newcomer.iter());
        if matches!(self.roster.history, HistoryPolicy::None {}) {
            wanted.extend(pick(prekeys, self.roster.devices().keys()));
            epoch = self.new_epoch(ctx);
        }
        self.put_control(store, ctx, vec![op], epoch, &wanted, &mut written, &mut outcome)?;
        Ok((written, outcome))
    }

    /// Makes a room's first entry; the room's id is its hash.
    pub(super) fn genesis(ctx: &mut Ctx, own: &OwnLog, ops: Vec<Op>, prekeys: &Prekeys) -> (Entry, EpochSecret) {
        let secret = EpochSecret::random(&mut ctx.rng);
        let keys = secret.keys();
        let slots = seal_slots(&secret, prekeys, &mut ctx.rng);
        let header = Header {
            class: Class::Control,
            seq: 1,
            prev: [0; 32],
            clock: Clock::at_ms(ctx.wall_ms),
            epoch: keys.id(),
            parents: Vec::new(),
            payload_hash: [0; 32],
            payload_len: 0,
        };
        let control = Control { heads: Vec::new(), ops };
        let payload = ControlPayload::seal(&header, &own.log, &keys, slots, &control)
            .expect("a name, an identity of one device and one seal fit");
        let entry = sign(&own.key, &own.log, header, payload.to_bytes());
        (entry, secret)
    }

    /// The epoch to write under, after making sure that everybody on the roster can read it.
    fn ready_epoch<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        prekeys: &Prekeys,
        written: &mut Written,
        outcome: &mut Ingested,
    ) -> Result<EpochId, StoreError> {
        let (epoch, wanted) = match self.epochs.sending_epoch(&self.roster, &self.graph, ctx.device) {
            Sending::Use { epoch, missing } => {
                let due = self.epochs.due_for_rotation(&epoch, Clock::at_ms(ctx.wall_ms));
                let wanted = pick(prekeys, missing.iter());
                if !due && wanted.is_empty() {
                    return Ok(epoch);
                }
                if due {
                    (self.new_epoch(ctx), pick(prekeys, self.roster.devices().keys()))
                } else {
                    (epoch, wanted)
                }
            }
            Sending::NewEpoch => (self.new_epoch(ctx), pick(prekeys, self.roster.devices().keys())),
        };
        self.put_control(store, ctx, vec![Op::Seal {}], epoch, &wanted, written, outcome)?;
        Ok(epoch)
    }

    fn new_epoch(&mut self, ctx: &mut Ctx) -> EpochId {
        let secret = EpochSecret::random(&mut ctx.rng);
        let epoch = secret.id();
        self.epochs.learn_secret(secret);
        epoch
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "one call site's worth of context, not an interface"
    )]
    fn put_control<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        ops: Vec<Op>,
        epoch: EpochId,
        wanted: &Prekeys,
        written: &mut Written,
        outcome: &mut Ingested,
    ) -> Result<EntryId, StoreError> {
        // What does not fit beside the operations follows in entries of its own.
        let mut first = wanted.clone();
        let rest = wanted.keys().nth(SLOTS_MAX).map(|device| first.split_off(device));
        let keys = self
            .epochs
            .keys(&epoch)
            .cloned()
            .expect("the caller chose an epoch whose keys are held");
        if let Some(gift) = self.epochs.gift(&epoch) {
            store.put(&crate::peer::table::epoch(self.no, &epoch), &gift.to_bytes())?;
        }
        let slots: Vec<Slot> = match self.epochs.secret(&epoch) {
            Some(secret) => seal_slots(secret, &first, &mut ctx.rng),
            None => Vec::new(),
        };
        let (log, header) = self.next_header(ctx, Class::Control, epoch);
        let heads = self.graph.heads_for(&log);
        let control = Control { heads, ops };
        let payload = ControlPayload::seal(&header, &log, &keys, slots, &control)
            .expect("operations and seals are bounded by their makers");
        let entry = self.finish(header, payload.to_bytes());
        let id = EntryId {
            log: log.prefix(),
            seq: entry.header.seq,
        };
        self.take_own(store, ctx, log, entry, written, outcome)?;
        self.refresh_roster(store, ctx)?;
        if let Some(rest) = rest {
            self.put_control(store, ctx, vec![Op::Seal {}], epoch, &rest, written, outcome)?;
        }
        Ok(id)
    }

    fn next_header(&self, ctx: &Ctx, class: Class, epoch: EpochId) -> (LogKey, Header) {
        let own = self
            .own
            .as_ref()
            .expect("a member has a log; joining and leaving rooms are not written to");
        let (seq, prev, top_clock) = match self.logs.get(&own.log) {
            Some(state) => (state.held.max() + 1, state.top_hash, state.top_clock),
            None => (1, [0; 32], Clock::default()),
        };
        let mut parents: Vec<EntryRef> = self
            .tips
            .values()
            .copied()
            .filter(|tip| tip.log != own.log.prefix())
            .collect();
        parents.sort_by_key(|tip| std::cmp::Reverse(self.tip_clock(tip)));
        parents.truncate(MESSAGE_PARENTS_MAX);
        let header = Header {
            class,
            seq,
            prev,
            clock: self.next_clock(ctx, top_clock),
            epoch,
            parents,
            payload_hash: [0; 32],
            payload_len: 0,
        };
        (own.log, header)
    }

    fn tip_clock(&self, tip: &EntryRef) -> Clock {
        self.by_prefix
            .get(&tip.log)
            .and_then(|log| self.logs.get(log))
            .map_or(Clock::default(), |state| state.top_clock)
    }

    /// After everything seen, except what is far ahead of the own wall clock.
    fn next_clock(&self, ctx: &Ctx, top: Clock) -> Clock {
        let ceiling = Clock::at_ms(ctx.wall_ms.max(self.created_ms).saturating_add(CLOCK_AHEAD_MAX_MS));
        let seen = if ctx.wall_ms < self.created_ms {
            self.last_clock
        } else {
            self.last_clock.min(ceiling)
        };
        Clock::at_ms(ctx.wall_ms).max(seen.next()).max(top.next())
    }

    fn finish(&self, header: Header, payload: Vec<u8>) -> Entry {
        let own = self.own.as_ref().expect("checked by next_header");
        sign(&own.key, &own.log, header, payload)
    }

    fn take_own<S: Store>(
        &mut self,
        store: &mut S,
        ctx: &mut Ctx,
        log: LogKey,
        entry: Entry,
        written: &mut Written,
        outcome: &mut Ingested,
    ) -> Result<(), StoreError> {
        let hash = prefix8(&entry.header.hash(&log));
        let seq = entry.header.seq;
        let referred = entry.header.parents.clone();
        outcome.absorb(self.ingest(store, ctx, log, vec![entry.clone()])?);
        for parent in referred {
            if self.tips.get(&parent.log).is_some_and(|tip| *tip == parent) {
                self.tips.remove(&parent.log);
            }
        }
        self.tips.insert(
            log.prefix(),
            EntryRef {
                log: log.prefix(),
                seq,
                hash,
            },
        );
        written.entries.push((log, entry));
        Ok(())
    }
}

pub(super) fn sign(key: &KeyPair, log: &LogKey, mut header: Header, payload: Vec<u8>) -> Entry {
    header.payload_hash = entry::payload_hash(&payload);
    header.payload_len = u32::try_from(payload.len()).expect("payloads are bounded by their encoders' limits");
    let signature = entry::sign(key, &header.hash(log));
    Entry {
        header,
        signature,
        payload: Some(payload),
    }
}

fn pick<'a>(prekeys: &Prekeys, devices: impl Iterator<Item = &'a DeviceId>) -> Prekeys {
    devices
        .filter_map(|device| prekeys.get(device).map(|prekey| (*device, *prekey)))
        .collect()
}

fn removed_person(op: &Op) -> Option<&crate::identity::PersonId> {
    match op {
        Op::Remove { person, .. } => Some(person),
        _ => None,
    }
}

fn admitted_device(op: &Op) -> Option<&DeviceId> {
    match op {
        Op::Admit { log, .. } => Some(&log.device),
        _ => None,
    }
}

/// A secret that nobody holds, for padding.
pub(super) fn random8(ctx: &mut Ctx) -> [u8; 8] {
    let secret = Secret::random(&mut ctx.rng);
    prefix8(&secret.0)
}
