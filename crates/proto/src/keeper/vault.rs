//! What a keeper keeps, and every answer that it gives.
//!
//! One *vault* a room: its access, and of each log the entries that were given, on disk before anybody is told. Entries are checked by signature and chain,
//! as a member checks them, so nobody can plant what a log's key did not sign. Messages go after [`Limits::days`] days, control entries stay as long as
//! the vault does, and a vault that nobody calls for [`VAULT_IDLE_DAYS`] goes whole. A vault and each log in it have a quota in bytes.
//!
//! Reading and writing are judged at every single ask, by the access that holds then: a device that a renewal leaves out gets nothing more on a connection that it
//! already has. Whether a vault exists is not told to who may not read it.

use std::collections::BTreeMap;

use crate::crypto::{self, Hash};
use crate::history::entry::{self, Class, Entry, LogKey};
use crate::history::run::{self, Neighbours};
use crate::history::{Header, IntervalSet};
use crate::identity::DeviceId;
use crate::keeper::access::Access;
use crate::keeper::audit;
use crate::keeper::frame::{Answer, Ask, Holding, KeptRanges, KeptRun, LOGS_MAX, RUN_MAX, RUNS_MAX, Refusal, State};
use crate::rooms::VaultId;
use crate::store::{Direction, EntryKey, LogNo, Store, StoreError, after_prefix};
use crate::wire::{Reader, Wire, WireError, put_varint};
use crate::wire_struct;

/// Records of vaults: `V` vault.
pub const VAULTS: u8 = b'V';
/// Records of the logs in them: `v` local log number.
pub const KEPT_LOGS: u8 = b'v';
/// The keeper's own ticket.
pub const TICKET: &[u8] = b"Y";

/// After how many days without a caller a vault goes.
pub const VAULT_IDLE_DAYS: u64 = 90;
/// A frame of entries is closed when it gets this large, in bytes.
const FRAME_BYTES: usize = 128 * 1024;
/// An answer to one ask stops at this many bytes; the caller asks again.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Pieces in which a log may be held.
const PIECES_MAX: usize = 2048;
/// Entries that one sweep looks at; the next one goes on.
const SWEEP_ENTRIES_MAX: usize = 4096;
/// Entries read from the store at once.
const BATCH: usize = 256;
const DAY_MS: u64 = 24 * 3600 * 1000;
const DIGEST: &str = "offhook 1 keeper holdings";

/// What a keeper lets others use of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Vaults.
    pub vaults_max: usize,
    /// Bytes of one vault.
    pub vault_bytes_max: u64,
    /// Bytes of one log in it.
    pub log_bytes_max: u64,
    /// Days that messages are kept.
    pub days: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            vaults_max: 1024,
            vault_bytes_max: 64 << 20,
            log_bytes_max: 16 << 20,
            days: 30,
        }
    }
}

/// Who asks, and when.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// The device at the other end of the line, as the connection proves.
    pub device: DeviceId,
    /// The connection's exporter secret.
    pub exporter: &'a [u8; 32],
    /// The wall clock, in milliseconds since 1970.
    pub now_ms: u64,
}

/// A vault, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
struct VaultRecord {
    access: Access,
    touched_ms: u64,
}
wire_struct!(VaultRecord { access, touched_ms });

/// A log in a vault, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KeptLog {
    vault: VaultId,
    log: LogKey,
    held: IntervalSet,
    control: IntervalSet,
    bare: IntervalSet,
    bytes: u64,
}
wire_struct!(KeptLog {
    vault,
    log,
    held,
    control,
    bare,
    bytes
});

/// An entry, as stored.
struct Kept {
    saved_ms: u64,
    entry: Entry,
}

impl Wire for Kept {
    fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.saved_ms);
        self.entry.encode(out);
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            saved_ms: input.varint()?,
            entry: Entry::decode_trusted(input)?,
        })
    }
}

#[derive(Debug)]
struct Vault {
    access: Access,
    touched_ms: u64,
    logs: BTreeMap<LogKey, (LogNo, KeptLog)>,
    /// Devices that opened it on a line that is up, and the number of the access that they proved to write under; 0 for none.
    open: BTreeMap<DeviceId, u64>,
}

/// All vaults of a keeper.
#[derive(Debug)]
pub struct Vaults {
    /// Whether vaults are kept for others at all.
    ticket: Option<[u8; 16]>,
    limits: Limits,
    vaults: BTreeMap<VaultId, Vault>,
}

/// What a keeper has, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Vaults.
    pub vaults: usize,
    /// Entries.
    pub entries: u64,
    /// Bytes.
    pub bytes: u64,
}

type Answers = Vec<(DeviceId, Answer)>;

impl Vaults {
    /// Reads back what is kept. Nothing is kept for others before [`Self::keep`].
    pub fn load<S: Store>(store: &S) -> Result<Self, StoreError> {
        let mut vaults = BTreeMap::new();
        let all = |table: u8| store.scan(&[table], &after_prefix(&[table]), Direction::Ascending, usize::MAX);
        for (key, value) in all(VAULTS)? {
            let id = key.get(1..17).and_then(|b| b.try_into().ok()).map(VaultId);
            let id = id.ok_or(StoreError::Damaged("vault key"))?;
            let record: VaultRecord = decode(&value, "vault")?;
            let vault = Vault {
                access: record.access,
                touched_ms: record.touched_ms,
                logs: BTreeMap::new(),
                open: BTreeMap::new(),
            };
            vaults.insert(id, vault);
        }
        for (key, value) in all(KEPT_LOGS)? {
            let no = key.get(1..5).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
            let no = LogNo(no.ok_or(StoreError::Damaged("kept log key"))?);
            let record: KeptLog = decode(&value, "kept log")?;
            if let Some(vault) = vaults.get_mut(&record.vault) {
                vault.logs.insert(record.log, (no, record));
            }
        }
        Ok(Self {
            ticket: None,
            limits: Limits::default(),
            vaults,
        })
    }

    /// Keeps for others from now on, within limits. `fresh` becomes the ticket where there is none yet.
    pub fn keep<S: Store>(&mut self, store: &mut S, limits: Limits, fresh: [u8; 16]) -> Result<(), StoreError> {
        let ticket = match store.get(TICKET)? {
            Some(bytes) => bytes.try_into().map_err(|_| StoreError::Damaged("ticket"))?,
            None => {
                store.put(TICKET, &fresh)?;
                fresh
            }
        };
        self.ticket = Some(ticket);
        self.limits = limits;
        Ok(())
    }

    /// The ticket, while vaults are kept for others.
    pub fn ticket(&self) -> Option<[u8; 16]> {
        self.ticket
    }

    /// What is kept.
    pub fn usage(&self) -> Usage {
        let logs = || self.vaults.values().flat_map(|vault| vault.logs.values());
        Usage {
            vaults: self.vaults.len(),
            entries: logs().map(|(_, log)| log.held.len()).sum(),
            bytes: logs().map(|(_, log)| log.bytes).sum(),
        }
    }

    /// Whether anything can expire.
    pub fn is_empty(&self) -> bool {
        self.vaults.is_empty()
    }

    /// A line is gone: what its device proved on it no longer counts.
    pub fn line_down(&mut self, device: &DeviceId) {
        for vault in self.vaults.values_mut() {
            vault.open.remove(device);
        }
    }

    /// Answers one ask. `next_log` numbers logs in the store.
    pub fn answer<S: Store>(
        &mut self,
        store: &mut S,
        next_log: &mut u32,
        caller: Caller<'_>,
        ask: Ask,
    ) -> Result<Answers, StoreError> {
        let asker = caller.device;
        let one = |answer: Answer| Ok(vec![(asker, answer)]);
        let refuse = |vault: VaultId, why: Refusal| Ok(vec![(asker, Answer::Refused { vault, why })]);
        let id = ask.vault();
        match ask {
            Ask::Redeem { ticket, access } => return self.redeem(store, caller, ticket, access),
            Ask::Renew { access } => return self.renew(store, caller, access),
            _ => {}
        }
        let limits = self.limits;
        let is_on = self.ticket.is_some();
        let Some(vault) = self.vaults.get_mut(&id) else {
            return refuse(id, Refusal::Closed {});
        };
        if !is_on || !vault.access.admits(&caller.device) {
            return refuse(id, Refusal::Closed {});
        }
        vault.touch(store, id, caller.now_ms)?;
        match ask {
            Ask::Open { known, .. } => {
                vault.open.entry(caller.device).or_insert(0);
                one(vault.state(&limits, Some(known)))
            }
            Ask::Write { proof, .. } => {
                if !vault.access.is_writer(caller.exporter, &proof) {
                    return refuse(id, Refusal::Writer {});
                }
                vault.open.insert(caller.device, vault.access.number);
                Ok(Vec::new())
            }
            Ask::Put { runs, .. } => {
                if vault.open.get(&caller.device) != Some(&vault.access.number) {
                    return refuse(id, Refusal::Writer {});
                }
                vault.put(store, next_log, &limits, caller, runs)
            }
            Ask::Get { ranges, .. } => {
                let answers = vault.get(store, id, &ranges)?;
                Ok(answers.into_iter().map(|answer| (asker, answer)).collect())
            }
            Ask::Challenge { log, seq, key, .. } => {
                let hash = vault.prove(store, &log, seq, &key)?;
                one(Answer::Proof {
                    vault: id,
                    log,
                    seq,
                    hash,
                })
            }
            // Both were answered above.
            Ask::Redeem { .. } | Ask::Renew { .. } => Ok(Vec::new()),
        }
    }

    fn redeem<S: Store>(
        &mut self,
        store: &mut S,
        caller: Caller<'_>,
        ticket: [u8; 16],
        access: Access,
    ) -> Result<Answers, StoreError> {
        let id = access.vault;
        let refuse = |why| Ok(vec![(caller.device, Answer::Refused { vault: id, why })]);
        // Compared by hash, so that the time it takes tells nothing of how much of a guess is right.
        let hash = |ticket: &[u8; 16]| crypto::hash(DIGEST, &[ticket]);
        if self.ticket.map(|own| hash(&own)) != Some(hash(&ticket)) {
            return refuse(Refusal::Ticket {});
        }
        if access.verify(None).is_err() || !access.admits(&caller.device) {
            return refuse(Refusal::Access {});
        }
        let is_full = self.vaults.len() >= self.limits.vaults_max;
        let vault = match self.vaults.entry(id) {
            std::collections::btree_map::Entry::Occupied(there) => {
                let vault = there.into_mut();
                // The answer to the first time may have been lost on its way.
                if vault.access.owner != access.owner || !vault.access.admits(&caller.device) {
                    return refuse(Refusal::Access {});
                }
                vault
            }
            std::collections::btree_map::Entry::Vacant(_) if is_full => return refuse(Refusal::Ticket {}),
            std::collections::btree_map::Entry::Vacant(free) => {
                let record = VaultRecord {
                    access: access.clone(),
                    touched_ms: caller.now_ms,
                };
                store.put(&vault_key(&id), &record.to_bytes())?;
                free.insert(Vault {
                    access,
                    touched_ms: caller.now_ms,
                    logs: BTreeMap::new(),
                    open: BTreeMap::new(),
                })
            }
        };
        vault.open.entry(caller.device).or_insert(0);
        Ok(vec![(caller.device, vault.state(&self.limits, None))])
    }

    /// The next access. It is judged by its signature alone: the owner may let itself in again.
    fn renew<S: Store>(&mut self, store: &mut S, caller: Caller<'_>, access: Access) -> Result<Answers, StoreError> {
        let id = access.vault;
        let refuse = |why| Ok(vec![(caller.device, Answer::Refused { vault: id, why })]);
        let Some(vault) = self.vaults.get_mut(&id).filter(|_| self.ticket.is_some()) else {
            return refuse(Refusal::Closed {});
        };
        if access.verify(Some(&vault.access)).is_err() {
            let admitted = vault.access.admits(&caller.device);
            return refuse(if admitted {
                Refusal::Access {}
            } else {
                Refusal::Closed {}
            });
        }
        vault.access = access;
        vault.touched_ms = caller.now_ms;
        vault.save(store, id)?;
        vault.open.entry(caller.device).or_insert(0);
        // Who may no longer read hears so; the others learn by what number they have to write now.
        let mut answers = Vec::new();
        let open: Vec<DeviceId> = vault.open.keys().copied().collect();
        for device in open {
            if vault.access.admits(&device) {
                answers.push((device, vault.state(&self.limits, Some(vault.digest()))));
            } else {
                vault.open.remove(&device);
                let why = Refusal::Closed {};
                answers.push((device, Answer::Refused { vault: id, why }));
            }
        }
        Ok(answers)
    }

    /// Drops what is too old. True if there is more to look at soon.
    pub fn sweep<S: Store>(&mut self, store: &mut S, now_ms: u64) -> Result<bool, StoreError> {
        let mut budget = SWEEP_ENTRIES_MAX;
        let idle_ms = VAULT_IDLE_DAYS * DAY_MS;
        let kept_ms = u64::from(self.limits.days) * DAY_MS;
        let ids: Vec<VaultId> = self.vaults.keys().copied().collect();
        for id in ids {
            let Some(vault) = self.vaults.get_mut(&id) else {
                continue;
            };
            if vault.touched_ms.saturating_add(idle_ms) < now_ms {
                if vault.drop_entries(store, &mut budget)? {
                    store.delete(&vault_key(&id))?;
                    self.vaults.remove(&id);
                }
            } else {
                vault.expire(store, now_ms.saturating_sub(kept_ms), &mut budget)?;
            }
            if budget == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Ask {
    /// The vault that it is about.
    pub fn vault(&self) -> VaultId {
        match self {
            Self::Redeem { access, .. } | Self::Renew { access } => access.vault,
            Self::Open { vault, .. }
            | Self::Write { vault, .. }
            | Self::Put { vault, .. }
            | Self::Get { vault, .. }
            | Self::Challenge { vault, .. } => *vault,
        }
    }
}

impl Vault {
    fn touch<S: Store>(&mut self, store: &mut S, id: VaultId, now_ms: u64) -> Result<(), StoreError> {
        if now_ms >= self.touched_ms.saturating_add(DAY_MS) {
            self.touched_ms = now_ms;
            self.save(store, id)?;
        }
        Ok(())
    }

    fn save<S: Store>(&self, store: &mut S, id: VaultId) -> Result<(), StoreError> {
        let record = VaultRecord {
            access: self.access.clone(),
            touched_ms: self.touched_ms,
        };
        store.put(&vault_key(&id), &record.to_bytes())
    }

    fn holdings(&self) -> Vec<Holding> {
        let held = self.logs.values().filter(|(_, log)| !log.held.is_empty());
        held.map(|(_, log)| Holding {
            log: log.log,
            held: log.held.clone(),
            bare: log.bare.clone(),
        })
        .collect()
    }

    fn digest(&self) -> [u8; 8] {
        holdings_digest(&self.holdings())
    }

    fn state(&self, limits: &Limits, known: Option<[u8; 8]>) -> Answer {
        let holdings = self.holdings();
        let digest = holdings_digest(&holdings);
        Answer::State {
            state: State {
                vault: self.access.vault,
                number: self.access.number,
                owner: self.access.owner,
                write: self.access.write,
                fingerprint: self.access.fingerprint(),
                held: (known != Some(digest)).then_some(holdings),
                digest,
                bytes: self.bytes(),
                bytes_max: limits.vault_bytes_max,
                days: limits.days,
            },
        }
    }

    fn bytes(&self) -> u64 {
        self.logs.values().map(|(_, log)| log.bytes).sum()
    }

    fn put<S: Store>(
        &mut self,
        store: &mut S,
        next_log: &mut u32,
        limits: &Limits,
        caller: Caller<'_>,
        runs: Vec<KeptRun>,
    ) -> Result<Answers, StoreError> {
        let id = self.access.vault;
        let mut bytes = self.bytes();
        let (mut durable, mut news) = (Vec::new(), Vec::new());
        let mut refused = None;
        for KeptRun { log, entries } in runs {
            let mut taking = Taking {
                limits,
                now_ms: caller.now_ms,
                vault_bytes: &mut bytes,
                durable: IntervalSet::default(),
                news: IntervalSet::default(),
            };
            if let Err(why) = self.keep_run(store, next_log, log, entries, &mut taking)? {
                refused = refused.or(Some(why));
            }
            let Taking {
                durable: d, news: n, ..
            } = taking;
            durable.extend((!d.is_empty()).then_some(KeptRanges { log, seqs: d }));
            news.extend((!n.is_empty()).then_some(KeptRanges { log, seqs: n }));
        }
        let mut answers = Vec::new();
        if let Some(why) = refused {
            answers.push((caller.device, Answer::Refused { vault: id, why }));
        }
        answers.push((
            caller.device,
            Answer::Durable {
                vault: id,
                ranges: durable,
            },
        ));
        for device in self.open.keys().filter(|device| **device != caller.device) {
            if !news.is_empty() && self.access.admits(device) {
                let ranges = news.clone();
                answers.push((*device, Answer::News { vault: id, ranges }));
            }
        }
        Ok(answers)
    }

    /// Keeps what of a run is new and fits.
    fn keep_run<S: Store>(
        &mut self,
        store: &mut S,
        next_log: &mut u32,
        log: LogKey,
        entries: Vec<Entry>,
        taking: &mut Taking<'_>,
    ) -> Result<Result<(), Refusal>, StoreError> {
        if !self.logs.contains_key(&log) {
            // Nothing is remembered of a log before something of it is believed.
            if self.logs.len() >= LOGS_MAX {
                return Ok(Err(Refusal::Full {}));
            }
            if run::verify(&log, &entries, Neighbours::default()).is_err() {
                return Ok(Err(Refusal::Entries {}));
            }
            let fresh = KeptLog {
                vault: self.access.vault,
                log,
                held: IntervalSet::default(),
                control: IntervalSet::default(),
                bare: IntervalSet::default(),
                bytes: 0,
            };
            self.logs.insert(log, (LogNo(*next_log), fresh));
            *next_log += 1;
        }
        let Some((no, kept)) = self.logs.get_mut(&log) else {
            return Ok(Ok(()));
        };
        let outcome = kept.keep(store, *no, entries, taking)?;
        store.put(&log_key(*no), &kept.to_bytes())?;
        Ok(outcome)
    }

    fn get<S: Store>(&self, store: &S, id: VaultId, wanted: &[KeptRanges]) -> Result<Vec<Answer>, StoreError> {
        let mut serving = Serving {
            vault: id,
            answers: Vec::new(),
            runs: Vec::new(),
            bytes: 0,
            total: 0,
        };
        for class in [Class::Control, Class::Message] {
            for KeptRanges { log, seqs } in wanted {
                if let Some((no, kept)) = self.logs.get(log) {
                    let of_class = match class {
                        Class::Control => kept.control.clone(),
                        Class::Message => kept.held.minus(&kept.control),
                    };
                    serving.log(store, log, *no, &both(&of_class, seqs))?;
                }
            }
        }
        Ok(serving.finish())
    }

    fn prove<S: Store>(&self, store: &S, log: &LogKey, seq: u32, key: &[u8; 32]) -> Result<Option<Hash>, StoreError> {
        let Some((no, _)) = self.logs.get(log) else {
            return Ok(None);
        };
        let kept = kept_at(store, *no, seq)?;
        Ok(kept.map(|kept| audit::proof(key, log, &kept.entry.header, kept.entry.payload.as_deref())))
    }

    /// Drops messages that came before `before_ms`.
    fn expire<S: Store>(&mut self, store: &mut S, before_ms: u64, budget: &mut usize) -> Result<(), StoreError> {
        for (no, kept) in self.logs.values_mut() {
            if kept.expire(store, *no, before_ms, budget)? {
                store.put(&log_key(*no), &kept.to_bytes())?;
            }
        }
        Ok(())
    }

    /// Drops everything. True once it is done.
    fn drop_entries<S: Store>(&mut self, store: &mut S, budget: &mut usize) -> Result<bool, StoreError> {
        while let Some((_, (no, kept))) = self.logs.first_key_value() {
            let (no, held) = (*no, kept.held.clone());
            for seq in held.ranges().iter().flat_map(|(from, to)| *from..=*to) {
                store.delete_entry(EntryKey { log: no, seq })?;
            }
            store.delete(&log_key(no))?;
            self.logs.pop_first();
            *budget = budget.saturating_sub(usize::try_from(held.len()).unwrap_or(usize::MAX));
            if *budget == 0 {
                return Ok(self.logs.is_empty());
            }
        }
        Ok(true)
    }
}

/// A put in progress.
struct Taking<'a> {
    limits: &'a Limits,
    now_ms: u64,
    vault_bytes: &'a mut u64,
    durable: IntervalSet,
    news: IntervalSet,
}

impl KeptLog {
    fn keep<S: Store>(
        &mut self,
        store: &mut S,
        no: LogNo,
        entries: Vec<Entry>,
        taking: &mut Taking<'_>,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let mut stretch: Vec<Entry> = Vec::new();
        let mut outcome = Ok(());
        for entry in entries {
            if !self.held.contains(entry.header.seq) {
                stretch.push(entry);
                continue;
            }
            outcome = outcome.and(self.keep_stretch(store, no, std::mem::take(&mut stretch), taking)?);
            outcome = outcome.and(self.keep_again(store, no, entry, taking)?);
        }
        Ok(outcome.and(self.keep_stretch(store, no, stretch, taking)?))
    }

    /// An entry that is held: the same, or its payload, which was lacking.
    fn keep_again<S: Store>(
        &mut self,
        store: &mut S,
        no: LogNo,
        entry: Entry,
        taking: &mut Taking<'_>,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let seq = entry.header.seq;
        let Some(mut kept) = kept_at(store, no, seq)? else {
            return Err(StoreError::Damaged("kept log"));
        };
        if kept.entry.header != entry.header {
            return Ok(Err(Refusal::Entries {}));
        }
        if let Some(payload) = entry.payload.filter(|_| kept.entry.payload.is_none()) {
            let more = payload.len() as u64;
            if !self.fits(more, taking) {
                return Ok(Err(Refusal::Full {}));
            }
            kept.entry.payload = Some(payload);
            store.put_entry(EntryKey { log: no, seq }, &kept.to_bytes())?;
            self.bare.remove(seq, seq);
            self.bytes += more;
            *taking.vault_bytes += more;
        }
        taking.durable.insert(seq, seq);
        Ok(Ok(()))
    }

    fn keep_stretch<S: Store>(
        &mut self,
        store: &mut S,
        no: LogNo,
        stretch: Vec<Entry>,
        taking: &mut Taking<'_>,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let (Some(first), Some(last)) = (
            stretch.first().map(|entry| entry.header.seq),
            stretch.last().map(|entry| entry.header.seq),
        ) else {
            return Ok(Ok(()));
        };
        let known = self.neighbours(store, no, first, last)?;
        if run::verify(&self.log, &stretch, known).is_err() {
            return Ok(Err(Refusal::Entries {}));
        }
        let touches = self.held.contains(first.saturating_sub(1)) || self.held.contains(last.saturating_add(1));
        if !touches && self.held.ranges().len() >= PIECES_MAX {
            return Ok(Err(Refusal::Full {}));
        }
        for entry in stretch {
            let (seq, class, bare) = (entry.header.seq, entry.header.class, entry.payload.is_none());
            let kept = Kept {
                saved_ms: taking.now_ms,
                entry,
            };
            let bytes = kept.to_bytes();
            let more = bytes.len() as u64;
            if !self.fits(more, taking) {
                return Ok(Err(Refusal::Full {}));
            }
            store.put_entry(EntryKey { log: no, seq }, &bytes)?;
            self.held.insert(seq, seq);
            if class == Class::Control {
                self.control.insert(seq, seq);
            }
            if bare {
                self.bare.insert(seq, seq);
            }
            self.bytes += more;
            *taking.vault_bytes += more;
            taking.durable.insert(seq, seq);
            taking.news.insert(seq, seq);
        }
        Ok(Ok(()))
    }

    fn fits(&self, more: u64, taking: &Taking<'_>) -> bool {
        let limits = taking.limits;
        self.bytes.saturating_add(more) <= limits.log_bytes_max
            && taking.vault_bytes.saturating_add(more) <= limits.vault_bytes_max
    }

    fn neighbours<S: Store>(&self, store: &S, no: LogNo, first: u32, last: u32) -> Result<Neighbours, StoreError> {
        let header_at = |seq: u32| -> Result<Option<Header>, StoreError> {
            let held = self.held.contains(seq);
            Ok(held
                .then(|| kept_at(store, no, seq))
                .transpose()?
                .flatten()
                .map(|kept| kept.entry.header))
        };
        let before = header_at(first.saturating_sub(1))?;
        let after = header_at(last.saturating_add(1))?;
        Ok(Neighbours {
            before: before.map(|header| header.hash(&self.log)),
            after_prev: after.map(|header| header.prev),
        })
    }

    /// Drops messages that came before `before_ms`, the lowest first, up to the first that is younger. True if something changed.
    fn expire<S: Store>(
        &mut self,
        store: &mut S,
        no: LogNo,
        before_ms: u64,
        budget: &mut usize,
    ) -> Result<bool, StoreError> {
        let messages = self.held.minus(&self.control);
        let mut gone = IntervalSet::default();
        for seq in messages.ranges().iter().flat_map(|(from, to)| *from..=*to) {
            if *budget == 0 {
                break;
            }
            *budget -= 1;
            let Some(bytes) = store.entry(EntryKey { log: no, seq })? else {
                return Err(StoreError::Damaged("kept log"));
            };
            let kept: Kept = decode(&bytes, "kept entry")?;
            if kept.saved_ms >= before_ms {
                break;
            }
            store.delete_entry(EntryKey { log: no, seq })?;
            self.bytes = self.bytes.saturating_sub(bytes.len() as u64);
            gone.insert(seq, seq);
        }
        self.held = self.held.minus(&gone);
        self.bare = self.bare.minus(&gone);
        Ok(!gone.is_empty())
    }
}

/// An answer in progress.
struct Serving {
    vault: VaultId,
    answers: Vec<Answer>,
    runs: Vec<KeptRun>,
    bytes: usize,
    total: usize,
}

impl Serving {
    fn log<S: Store>(&mut self, store: &S, log: &LogKey, no: LogNo, seqs: &IntervalSet) -> Result<(), StoreError> {
        for (from, to) in seqs.ranges() {
            let mut next = *from;
            while next <= *to && self.total <= ANSWER_BYTES_MAX {
                let batch = store.entries(no, next, *to, BATCH)?;
                let Some((last, _)) = batch.last() else { break };
                let Some(after) = last.checked_add(1) else { break };
                next = after;
                let mut run = Vec::new();
                for (_, bytes) in batch {
                    self.bytes += bytes.len();
                    self.total += bytes.len();
                    run.push(decode::<Kept>(&bytes, "kept entry")?.entry);
                    if self.bytes > FRAME_BYTES || run.len() >= RUN_MAX {
                        self.add(log, std::mem::take(&mut run));
                    }
                }
                self.add(log, run);
            }
        }
        Ok(())
    }

    /// Closes a run at an entry whose own signature holds: whoever gave it may have spoiled the others'.
    fn add(&mut self, log: &LogKey, mut run: Vec<Entry>) {
        let holds = |entry: &Entry| entry::verify(log, &entry.header.hash(log), &entry.signature).is_ok();
        while run.last().is_some_and(|last| !holds(last)) {
            run.pop();
        }
        if !run.is_empty() {
            self.runs.push(KeptRun {
                log: *log,
                entries: run,
            });
        }
        if self.bytes > FRAME_BYTES || self.runs.len() >= RUNS_MAX {
            self.flush();
        }
    }

    fn flush(&mut self) {
        self.bytes = 0;
        let runs = std::mem::take(&mut self.runs);
        if !runs.is_empty() {
            let vault = self.vault;
            self.answers.push(Answer::Entries { vault, runs });
        }
    }

    fn finish(mut self) -> Vec<Answer> {
        self.flush();
        let complete = self.total <= ANSWER_BYTES_MAX;
        let vault = self.vault;
        self.answers.push(Answer::Done { vault, complete });
        self.answers
    }
}

/// Stands for what is held.
pub fn holdings_digest(holdings: &[Holding]) -> [u8; 8] {
    let mut list = Vec::new();
    crate::wire::put_list(&mut list, holdings);
    crypto::prefix8(&crypto::hash(DIGEST, &[&list]))
}

/// What is in both sets.
pub fn both(a: &IntervalSet, b: &IntervalSet) -> IntervalSet {
    a.minus(&a.minus(b))
}

fn kept_at<S: Store>(store: &S, no: LogNo, seq: u32) -> Result<Option<Kept>, StoreError> {
    let bytes = store.entry(EntryKey { log: no, seq })?;
    bytes.map(|bytes| decode(&bytes, "kept entry")).transpose()
}

fn decode<T: Wire>(bytes: &[u8], what: &'static str) -> Result<T, StoreError> {
    T::from_bytes(bytes).map_err(|_| StoreError::Damaged(what))
}

fn vault_key(id: &VaultId) -> Vec<u8> {
    let mut key = vec![VAULTS];
    key.extend_from_slice(&id.0);
    key
}

fn log_key(no: LogNo) -> Vec<u8> {
    let mut key = vec![KEPT_LOGS];
    key.extend_from_slice(&no.0.to_be_bytes());
    key
}

#[cfg(test)]
mod tests;
