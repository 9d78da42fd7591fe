//! Epochs: which keys a room speaks with, and how they reach its devices.
//!
//! An epoch is a random secret, made by whoever needs a fresh one and sealed by HPKE (RFC 9180, base mode) to the prekey of every device on the roster
//! that its maker knows. The seals ([`Slot`]) travel in front of a control entry. Concurrent epochs all stay valid for reading, so no order
//! and no quorum is needed and nothing said is ever lost to a lost race. The family is p2panda's "data scheme" and Keyhive; the composition is our
//! own, unaudited, and specified in `docs/protocol/rooms.md`.
//!
//! **Keys.** From the secret follow three keys: `control` (what control entries are sealed with), `content` (messages), `sync` (to find the
//! room among peers). The epoch's commitment is a hash over `control`, `sync` and a hash of `content`, and its id is the commitment's first eight
//! bytes. So whoever is given only `control` and `sync` (a newcomer who may not read what was said before) can check
//! that they belong to the id, and learns nothing of `content`. Eight bytes can be made to collide by their own maker in some 2^32 steps, to
//! give two keys to two halves of a room under one name; therefore each control payload states the whole commitment, a slot
//! that opens to anything else is not accepted, and an epoch with two commitments is never spoken with ([`EpochBook::sending_epoch`]).
//!
//! **Which epoch to send with.** Never the latest by any clock: a removed member could have made that one, or pinned it by a far date. An epoch is
//! usable if
//! 1. its content key is here;
//! 2. every removal that the roster knows, and the proof of every fork, is in the causal past of the entry that made the epoch: who made it
//!    knew who is out;
//! 3. every device that it was sealed to, and every device that wrote under it, is on the roster (the *recipient-subset rule*: what a
//!    concurrent admission that did not survive was given is not spoken with either);
//! 4. all of this as stated by entries that have effect: what strangers and removed members write changes nothing.
//!
//! Rule 2 covers what rule 3 cannot see: keys handed over in a frame instead of a slot are given to devices of the giver's roster only, and by nobody who does
//! not hold the making entry with its whole past, hence those removals. Having the keys is not enough: a slot opens before the past arrives. Of the usable epochs the one with the most recipients wins,
//! then the causally latest, then the lowest id; devices of the roster that it lacks get it sealed in the same write. If
//! none is usable the sender makes a new one in the same write. Two who do so at once do no harm.
//!
//! An entry can only claim to be older than it is, and that makes an epoch less usable, never more: rule 2 is asked of every entry under the epoch
//! that does not have another one in its past, so a forged second "making entry" cannot lift an old epoch over a removal.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use rand_core::CryptoRng;
use thiserror::Error;

use crate::crypto::{self, HPKE_SECRET_BYTES, Hash, SealKeyPair, Secret};
use crate::history::{Clock, EntryRef, EpochId, Header, LogKey};
use crate::identity::DeviceId;
use crate::rooms::{Control, ControlGraph, HistoryPolicy, Roster};
use crate::wire::{Wire, WireError, put_list};
use crate::{wire_enum, wire_struct};

/// The most seals in one control entry; with [`BODY_BYTES_MAX`] what fits into a payload. More devices take several entries.
pub const SLOTS_MAX: usize = 1_200;
/// The largest sealed body of a control entry, in bytes.
pub const BODY_BYTES_MAX: usize = 28 * 1024;
/// The most epochs of one room.
pub const EPOCHS_MAX: usize = 1 << 16;
/// After how many days an epoch is due for another.
pub const ROTATION_DAYS: u64 = 7;
/// After how many entries an epoch is due for another.
pub const ROTATION_ENTRIES: u64 = 1_000;

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
const CONTROL_KEY: &str = "offhook 1 epoch control key";
const CONTENT_KEY: &str = "offhook 1 epoch content key";
const SYNC_KEY: &str = "offhook 1 epoch sync key";
const CONTENT_COMMITMENT: &str = "offhook 1 epoch content commitment";
const COMMITMENT: &str = "offhook 1 epoch commitment";
const SLOT_HINT: &str = "offhook 1 epoch slot hint";
const SLOT_INFO: &[u8] = b"offhook 1 epoch slot";
const SLOTS_HASH: &str = "offhook 1 control payload slots";

/// The secret that all of an epoch's keys follow from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochSecret(pub Secret);

impl EpochSecret {
    /// A new epoch.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        Self(Secret::random(rng))
    }

    /// The key that control entries are sealed with.
    pub fn control(&self) -> Secret {
        self.0.derive(CONTROL_KEY, b"")
    }

    /// The key that messages are sealed with.
    pub fn content(&self) -> Secret {
        self.0.derive(CONTENT_KEY, b"")
    }

    /// The key by which peers find the room.
    pub fn sync(&self) -> Secret {
        self.0.derive(SYNC_KEY, b"")
    }

    /// All three.
    pub fn keys(&self) -> EpochKeys {
        EpochKeys {
            control: self.control(),
            sync: self.sync(),
            content: Content::Key { key: self.content() },
        }
    }

    /// The epoch's id.
    pub fn id(&self) -> EpochId {
        self.keys().id()
    }
}

/// An epoch's keys, or those of them that somebody may have. What they belong to follows from themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochKeys {
    /// Seals control entries.
    pub control: Secret,
    /// Finds the room.
    pub sync: Secret,
    /// Seals messages.
    pub content: Content,
}
wire_struct!(EpochKeys { control, sync, content });

/// The content key, or what stands in for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The key.
    Key {
        /// It.
        key: Secret,
    },
    /// Not given: enough to check the rest.
    Withheld {
        /// Hash of the key.
        commitment: Hash,
    },
}
wire_enum!(Content { 0 => Key { key }, 1 => Withheld { commitment } });

impl EpochKeys {
    /// What the keys commit to: the same with and without the content key.
    pub fn commitment(&self) -> Hash {
        crypto::hash(COMMITMENT, &[&self.control.0, &self.sync.0, &self.content.commitment()])
    }

    /// The epoch that these are the keys of.
    pub fn id(&self) -> EpochId {
        EpochId(crypto::prefix8(&self.commitment()))
    }

    /// The content key, where it was given.
    pub fn content_key(&self) -> Option<&Secret> {
        match &self.content {
            Content::Key { key } => Some(key),
            Content::Withheld { .. } => None,
        }
    }

    /// The same without the content key.
    pub fn without_content(&self) -> Self {
        Self {
            control: self.control.clone(),
            sync: self.sync.clone(),
            content: Content::Withheld {
                commitment: self.content.commitment(),
            },
        }
    }
}

impl Content {
    fn commitment(&self) -> Hash {
        match self {
            Self::Key { key } => crypto::hash(CONTENT_COMMITMENT, &[&key.0]),
            Self::Withheld { commitment } => *commitment,
        }
    }
}

/// An epoch's secret, sealed to one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// By which a device finds its slot without trying all.
    pub hint: [u8; 4],
    /// HPKE: encapsulated key, ciphertext, tag.
    pub sealed: [u8; HPKE_SECRET_BYTES],
}
wire_struct!(Slot { hint, sealed });

/// The hint by which `device` finds its slot. Whoever does not know the device's id learns nothing from it.
pub fn slot_hint(epoch: &EpochId, device: &DeviceId) -> [u8; 4] {
    let hash = crypto::hash(SLOT_HINT, &[&epoch.0, &device.0]);
    [hash[0], hash[1], hash[2], hash[3]]
}

fn slot_info(commitment: &Hash, device: &DeviceId) -> Vec<u8> {
    [SLOT_INFO, commitment, &device.0].concat()
}

/// Seals an epoch's secret to devices, by their prekeys: at most [`SLOTS_MAX`] of them. A prekey that is not a key gets no slot. The order of the slots
/// says nothing.
pub fn seal_slots(
    secret: &EpochSecret,
    recipients: &BTreeMap<DeviceId, [u8; 32]>,
    rng: &mut impl CryptoRng,
) -> Vec<Slot> {
    let commitment = secret.keys().commitment();
    let epoch = EpochId(crypto::prefix8(&commitment));
    let mut slots = Vec::with_capacity(recipients.len().min(SLOTS_MAX));
    for (device, prekey) in recipients.iter().take(SLOTS_MAX) {
        let info = slot_info(&commitment, device);
        if let Ok(sealed) = crypto::hpke_seal_secret(prekey, &info, &secret.0, rng) {
            let hint = slot_hint(&epoch, device);
            slots.push(Slot { hint, sealed });
        }
    }
    slots.sort();
    slots
}

/// What a control entry's header covers: seals of its epoch's secret, then the sealed [`Control`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPayload {
    /// The whole commitment of the header's epoch.
    pub commitment: Hash,
    /// The epoch's secret, for those who lack it.
    pub slots: Vec<Slot>,
    /// The sealed [`Control`].
    pub body: Vec<u8>,
}
wire_struct!(ControlPayload {
    commitment,
    slots: list(SLOTS_MAX),
    body: bytes(BODY_BYTES_MAX)
});

/// A control payload that does not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PayloadError {
    /// Another epoch's keys, or a payload that was not made with these: try others, or ask for the epoch.
    #[error("the payload does not open with these keys")]
    NotAuthentic,
    /// It opens, and what is in it is not a control entry: it counts for nothing.
    #[error("the payload holds no control entry: {0}")]
    Malformed(#[from] WireError),
    /// The control entry or the number of seals is too large to send.
    #[error("too large for one control entry")]
    TooLarge,
}

impl ControlPayload {
    /// Seals a control entry for `header`, whose payload hash and length do not matter yet.
    pub fn seal(
        header: &Header,
        log: &LogKey,
        keys: &EpochKeys,
        slots: Vec<Slot>,
        control: &Control,
    ) -> Result<Self, PayloadError> {
        let mut payload = Self {
            commitment: keys.commitment(),
            slots,
            body: Vec::new(),
        };
        let plain = control.to_bytes();
        if plain.len() + crypto::SEAL_BYTES > BODY_BYTES_MAX || payload.slots.len() > SLOTS_MAX {
            return Err(PayloadError::TooLarge);
        }
        let key = header.payload_key(log, &keys.control);
        payload.body = crypto::seal_once(&key, &payload.bound(header, log), &plain);
        Ok(payload)
    }

    /// Opens it.
    pub fn open(&self, header: &Header, log: &LogKey, keys: &EpochKeys) -> Result<Control, PayloadError> {
        if !self.speaks_of(&header.epoch) || keys.commitment() != self.commitment {
            return Err(PayloadError::NotAuthentic);
        }
        let key = header.payload_key(log, &keys.control);
        let plain = crypto::open_once(&key, &self.bound(header, log), &self.body);
        let plain = plain.map_err(|_| PayloadError::NotAuthentic)?;
        Ok(Control::from_bytes(&plain)?)
    }

    /// Opens it with the key of this one payload ([`Header::payload_key`]): for who was shown just this entry.
    pub fn open_alone(&self, header: &Header, log: &LogKey, key: &Secret) -> Result<Control, PayloadError> {
        let plain = crypto::open_once(key, &self.bound(header, log), &self.body);
        Ok(Control::from_bytes(&plain.map_err(|_| PayloadError::NotAuthentic)?)?)
    }

    /// The epoch's secret, if one of the slots is for `device` and opens with one of its prekeys.
    pub fn open_slot(&self, device: &DeviceId, prekeys: &[SealKeyPair]) -> Option<EpochSecret> {
        let epoch = EpochId(crypto::prefix8(&self.commitment));
        let hint = slot_hint(&epoch, device);
        let info = slot_info(&self.commitment, device);
        let own = self.slots.iter().filter(|slot| slot.hint == hint);
        let opened = own.flat_map(|slot| {
            let info = &info;
            prekeys
                .iter()
                .filter_map(move |prekey| prekey.open_secret(info, &slot.sealed).ok())
        });
        opened
            .map(EpochSecret)
            .find(|secret| secret.keys().commitment() == self.commitment)
    }

    /// Whether the commitment is that of the epoch which the header names.
    pub fn speaks_of(&self, epoch: &EpochId) -> bool {
        crypto::prefix8(&self.commitment) == epoch.0
    }

    /// What the body's seal binds: the header, and all in front of the body.
    fn bound(&self, header: &Header, log: &LogKey) -> Vec<u8> {
        let mut front = self.commitment.to_vec();
        put_list(&mut front, &self.slots);
        let mut bound = header.bound(log);
        bound.extend_from_slice(&crypto::hash(SLOTS_HASH, &[&front]));
        bound
    }
}

/// What to speak with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sending {
    /// This epoch; seal it to these devices in the same write.
    Use {
        /// The epoch.
        epoch: EpochId,
        /// Devices of the roster that it was not sealed to.
        missing: BTreeSet<DeviceId>,
    },
    /// No epoch here may be used: make one for all devices of the roster.
    NewEpoch,
}

/// All epochs of a room that are known here.
#[derive(Debug, Clone, Default)]
pub struct EpochBook {
    epochs: BTreeMap<EpochId, Epoch>,
}

/// What is known of one epoch.
#[derive(Debug, Clone, Default)]
struct Epoch {
    keys: Option<EpochKeys>,
    /// Control entries under it.
    seals: BTreeMap<EntryRef, Seals>,
    /// The smallest and the largest clock of an entry under it.
    clocks: Option<(Clock, Clock)>,
    uses: u64,
}

/// What one control entry says of its epoch.
#[derive(Debug, Clone)]
struct Seals {
    commitment: Hash,
    hints: Vec<[u8; 4]>,
}

impl EpochBook {
    /// Nothing known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in keys, whoever gave them: they prove themselves. Returns the epoch if they told something new.
    pub fn learn(&mut self, keys: EpochKeys) -> Option<EpochId> {
        let id = keys.id();
        if self.epochs.len() >= EPOCHS_MAX && !self.epochs.contains_key(&id) {
            return None;
        }
        let held = &mut self.epochs.entry(id).or_default().keys;
        let news = match held {
            None => true,
            Some(old) => {
                old.content_key().is_none() && keys.content_key().is_some() && old.commitment() == keys.commitment()
            }
        };
        news.then(|| {
            *held = Some(keys);
            id
        })
    }

    /// Takes note of a control entry that was opened: what it says of its epoch.
    pub fn note_control(&mut self, entry: EntryRef, header: &Header, payload: &ControlPayload) {
        if !self.epochs.contains_key(&header.epoch) && self.epochs.len() >= EPOCHS_MAX {
            return;
        }
        let epoch = self.epochs.entry(header.epoch).or_default();
        let seals = Seals {
            commitment: payload.commitment,
            hints: payload.slots.iter().map(|slot| slot.hint).collect(),
        };
        if epoch.seals.insert(entry, seals).is_none() {
            epoch.note_use(header.clock);
        }
    }

    /// Takes note of an entry sealed in an epoch, for rotation and for what newcomers get. Control entries are counted by
    /// [`Self::note_control`].
    pub fn note_use(&mut self, epoch: &EpochId, clock: Clock) {
        if let Some(epoch) = self.epochs.get_mut(epoch) {
            epoch.note_use(clock);
        }
    }

    /// The keys of an epoch, if they are here.
    pub fn keys(&self, epoch: &EpochId) -> Option<&EpochKeys> {
        self.epochs.get(epoch)?.keys.as_ref()
    }

    /// All keys that are here.
    pub fn held(&self) -> impl Iterator<Item = (EpochId, &EpochKeys)> + '_ {
        self.epochs
            .iter()
            .filter_map(|(id, epoch)| Some((*id, epoch.keys.as_ref()?)))
    }

    /// The control entries under an epoch that were opened here.
    pub fn entries_under(&self, epoch: &EpochId) -> impl Iterator<Item = &EntryRef> + '_ {
        self.epochs.get(epoch).into_iter().flat_map(|epoch| epoch.seals.keys())
    }

    /// What to send with; see the module's documentation. Changes only when the roster, the graph or this book does.
    pub fn sending_epoch(&self, roster: &Roster, graph: &ControlGraph, me: DeviceId) -> Sending {
        let mut candidates: Vec<_> = self.epochs.iter().filter(|(_, epoch)| epoch.can_seal()).collect();
        candidates.sort_by_key(|(_, epoch)| Reverse(epoch.recipients_max()));
        let mut best: Option<(Preference, BTreeSet<DeviceId>)> = None;
        for (id, epoch) in candidates {
            if best
                .as_ref()
                .is_some_and(|((most, ..), _)| epoch.recipients_max() < *most)
            {
                break;
            }
            if let Some((preference, missing)) = epoch.usability(id, roster, graph, me)
                && best.as_ref().is_none_or(|(best, _)| *best < preference)
            {
                best = Some((preference, missing));
            }
        }
        match best {
            Some(((_, _, Reverse(epoch)), missing)) => Sending::Use { epoch, missing },
            None => Sending::NewEpoch,
        }
    }

    /// Whether an epoch has served long enough: [`ROTATION_DAYS`] since its first entry, or [`ROTATION_ENTRIES`] entries.
    pub fn due_for_rotation(&self, epoch: &EpochId, now: Clock) -> bool {
        let Some(epoch) = self.epochs.get(epoch) else {
            return false;
        };
        let age_ms = epoch.clocks.map_or(0, |(first, _)| now.ms().saturating_sub(first.ms()));
        epoch.uses >= ROTATION_ENTRIES || age_ms >= ROTATION_DAYS * DAY_MS
    }

    /// What a newcomer is given: all keys; or content keys of the last days only; or that of the `current` epoch only. Control and sync keys
    /// are always given, for nobody can know who is a member without the control log.
    pub fn history_share(&self, policy: HistoryPolicy, current: &EpochId, now: Clock) -> Vec<EpochKeys> {
        let readable = |id: &EpochId, epoch: &Epoch| match policy {
            _ if id == current => true,
            HistoryPolicy::All {} => true,
            HistoryPolicy::Days { days } => epoch.clocks.is_some_and(|(_, last)| {
                let age_ms = now.ms().saturating_sub(last.ms());
                age_ms <= u64::from(days).saturating_mul(DAY_MS)
            }),
            HistoryPolicy::None {} => false,
        };
        let share = |(id, epoch): (&EpochId, &Epoch)| {
            let keys = epoch.keys.as_ref()?;
            Some(if readable(id, epoch) {
                keys.clone()
            } else {
                keys.without_content()
            })
        };
        self.epochs.iter().filter_map(share).collect()
    }
}

/// The most recipients, then the causally latest, then the lowest id. Larger is better.
type Preference = (usize, u32, Reverse<EpochId>);

impl Epoch {
    fn note_use(&mut self, clock: Clock) {
        let (first, last) = self.clocks.unwrap_or((clock, clock));
        self.clocks = Some((first.min(clock), last.max(clock)));
        self.uses += 1;
    }

    fn can_seal(&self) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.content_key().is_some())
    }

    /// A bound from above on how many devices have it: one for each slot, and the author, of each entry.
    fn recipients_max(&self) -> usize {
        self.seals.values().map(|seals| seals.hints.len() + 1).sum()
    }

    /// How good this epoch is to send with, and whom of the roster it lacks; none if it may not be used.
    fn usability(
        &self,
        id: &EpochId,
        roster: &Roster,
        graph: &ControlGraph,
        me: DeviceId,
    ) -> Option<(Preference, BTreeSet<DeviceId>)> {
        let commitment = self.keys.as_ref()?.commitment();
        let with_effect = self
            .seals
            .iter()
            .filter(|(entry, _)| roster.effects.contains_key(*entry));
        let (entries, seals): (Vec<&EntryRef>, Vec<&Seals>) = with_effect.unzip();
        let made_at = entries.iter().filter_map(|entry| graph.depth(entry)).min()?;
        let authors: BTreeSet<DeviceId> = entries.iter().map(|entry| roster.effects[*entry].device).collect();
        // Whoever wrote under an epoch has its keys: a recipient like those it was sealed to.
        let authors_are_in = authors.iter().all(|device| roster.devices().contains_key(device));
        let agreed = seals.iter().all(|seals| seals.commitment == commitment);
        if !agreed || !authors_are_in || !knows_removals(&entries, roster, graph) {
            return None;
        }
        let mut foreign: BTreeSet<[u8; 4]> = seals.iter().flat_map(|seals| seals.hints.iter().copied()).collect();
        let (mut reached, mut missing) = (0, BTreeSet::new());
        for device in roster.devices().keys() {
            if foreign.remove(&slot_hint(id, device)) || authors.contains(device) {
                reached += 1;
            } else if *device != me && roster.prekey(device).is_some() {
                missing.insert(*device);
            }
        }
        foreign
            .is_empty()
            .then_some(((reached, made_at, Reverse(*id)), missing))
    }
}

/// Whether every removal is known to the entries that may have made an epoch: those with no other entry under it in their past.
fn knows_removals(entries: &[&EntryRef], roster: &Roster, graph: &ControlGraph) -> bool {
    let Some(first) = entries.iter().min_by_key(|entry| graph.depth(entry)) else {
        return false;
    };
    let makers = entries.iter().filter(|entry| {
        let knows_another = || entries.iter().any(|other| graph.is_past(other, entry));
        !graph.is_past(first, entry) && !knows_another()
    });
    let knows_freezes = |maker: &EntryRef| {
        roster.freezes.values().all(|proofs| {
            let mut known = proofs
                .iter()
                .filter(|proof| *proof == maker || graph.is_past(proof, maker));
            proofs.is_empty() || known.next().is_some()
        })
    };
    let makers: Vec<&EntryRef> = makers.copied().collect();
    if !makers.iter().all(|maker| knows_freezes(maker)) {
        return false;
    }
    let mut pairs = makers
        .into_iter()
        .flat_map(|maker| roster.removals.iter().map(move |removal| (maker, removal)));
    pairs.all(|(maker, removal)| {
        let itself = maker == removal && !roster.redemptions.contains(removal);
        itself || graph.is_past(removal, maker)
    })
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
