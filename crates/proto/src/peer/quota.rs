//! How much of what one member writes is taken in: a token bucket (RFC 2697, with one rate) for every person in every room.
//!
//! Whoever may write in a room can fill the disks of all its members. So a node takes [`QUOTA_BURST_BYTES`] of one person's messages in a room as fast as they
//! come, and from then on [`QUOTA_BYTES_PER_SECOND`]. What is beyond is not refused, which would leave members apart for good, but fetched late: it is a gap until
//! then. Control entries are always taken, they decide who is a member; so are own entries. The bucket is kept over restarts, to within [`KEPT_STEP`].

use core::time::Duration;
use std::collections::BTreeMap;

use crate::history::{Class, Entry, LogKey};
use crate::identity::PersonId;
use crate::peer::{Event, Peer, table};
use crate::store::{Direction, RoomNo, Store, StoreError, after_prefix};
use crate::wire::Wire;
use crate::wire_struct;

/// What of one person's messages in a room is taken as fast as it comes, in bytes; about 400,000 short messages.
pub const QUOTA_BURST_BYTES: u64 = 256 * 1024 * 1024;
/// How fast the bucket fills again: 86 MB a day.
pub const QUOTA_BYTES_PER_SECOND: u64 = 1024;
/// What an entry costs beyond its text: header, signature, indexes.
const ENTRY_BYTES: u64 = 400;
/// So much may be spent without being written down.
const KEPT_STEP: u64 = 8 * 1024 * 1024;

/// What is left for one person in one room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bucket {
    /// Bytes spent of the burst and not filled up again. Above the burst by what control entries cost, and by a part of one message.
    spent: u64,
    /// When that was so, on the wall clock in milliseconds: time also passes while nothing runs.
    at_ms: u64,
}
wire_struct!(Bucket { spent, at_ms });

impl Bucket {
    fn new(at_ms: u64) -> Self {
        Self { spent: 0, at_ms }
    }

    /// Fills up for the whole seconds that have passed; what is beyond them counts the next time. A clock that was set back fills nothing, one that was set
    /// forward no more than a day's worth at once.
    fn fill(&mut self, now_ms: u64) {
        if now_ms < self.at_ms {
            self.at_ms = now_ms;
            return;
        }
        let passed = Duration::from_millis(now_ms - self.at_ms);
        let filled = passed.min(Duration::from_hours(24)).as_secs() * QUOTA_BYTES_PER_SECOND;
        self.spent = self.spent.saturating_sub(filled);
        self.at_ms = now_ms - u64::from(passed.subsec_millis());
    }

    fn left(&self, burst: u64) -> u64 {
        burst.saturating_sub(self.spent)
    }
}

/// The buckets of all rooms.
#[derive(Debug)]
pub(super) struct Quotas {
    burst: u64,
    buckets: BTreeMap<(RoomNo, PersonId), Bucket>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            burst: QUOTA_BURST_BYTES,
            buckets: BTreeMap::new(),
        }
    }
}

impl Quotas {
    /// Reads what was written down.
    pub(super) fn load<S: Store>(store: &S) -> Result<Self, StoreError> {
        let mut quotas = Self::default();
        let (from, to) = ([table::QUOTAS], after_prefix(&[table::QUOTAS]));
        for (key, bytes) in store.scan(&from, &to, Direction::Ascending, usize::MAX)? {
            let parts = key.get(1..5).zip(key.get(5..37));
            let parts = parts.and_then(|(no, person)| Some((no.try_into().ok()?, person.try_into().ok()?)));
            let Some((no, person)) = parts else { continue };
            let bucket = crate::peer::record::decode(&bytes, "quota")?;
            quotas
                .buckets
                .insert((RoomNo(u32::from_be_bytes(no)), PersonId(person)), bucket);
        }
        Ok(quotas)
    }

    /// How many bytes of a person's are taken for now.
    fn left(&self, no: RoomNo, person: &PersonId, now_ms: u64) -> u64 {
        self.buckets.get(&(no, *person)).map_or(self.burst, |bucket| {
            let mut bucket = *bucket;
            bucket.fill(now_ms);
            bucket.left(self.burst)
        })
    }

    /// Counts bytes. Gives the bucket when it has to be written down, and whether it has just become empty.
    fn spend(&mut self, no: RoomNo, person: PersonId, bytes: u64, now_ms: u64) -> (Option<Bucket>, bool) {
        let bucket = self.buckets.entry((no, person)).or_insert_with(|| Bucket::new(now_ms));
        bucket.fill(now_ms);
        let before = *bucket;
        bucket.spent = bucket.spent.saturating_add(bytes);
        let emptied = bucket.left(self.burst) == 0 && before.left(self.burst) > 0;
        let step = before.spent / KEPT_STEP != bucket.spent / KEPT_STEP;
        ((step || emptied).then_some(*bucket), emptied)
    }
}

impl<S: Store> Peer<S> {
    /// Takes another burst than [`QUOTA_BURST_BYTES`], for tests and the simulator.
    #[doc(hidden)]
    pub fn set_quota_burst(&mut self, bytes: u64) {
        self.quotas.burst = bytes;
    }

    /// What of a run from a peer is taken in, as runs: all of it, or its control entries where its author has written too much. Counts what is taken.
    pub(super) fn within_quota(
        &mut self,
        no: RoomNo,
        log: &LogKey,
        mut entries: Vec<Entry>,
    ) -> Result<Vec<Vec<Entry>>, StoreError> {
        let author = self.rooms.get(&no).and_then(|room| room.author(log));
        let Some(person) = author.filter(|person| *person != self.ctx.me) else {
            return Ok(vec![entries]);
        };
        let left = self.quotas.left(no, &person, self.ctx.wall_ms);
        let mut bytes = 0;
        entries.retain(|entry| {
            let taken = bytes < left || entry.header.class == Class::Control;
            bytes += if taken { cost(entry) } else { 0 };
            taken
        });
        let (keep, emptied) = self.quotas.spend(no, person, bytes, self.ctx.wall_ms);
        if let Some(bucket) = keep {
            self.store.put(&table::quota(no, &person), &bucket.to_bytes())?;
        }
        if emptied {
            let who = self.name_of(&person);
            let text = format!(
                "{who} has written more in this room than is taken in at once; what is beyond comes slowly. A moderator can remove whoever floods a room."
            );
            let room = self.rooms.get(&no).map(|room| room.id);
            self.ctx.event(Event::Notice { room, text });
        }
        Ok(consecutive(entries))
    }

    /// Leaves out logs of which nothing but control entries would be taken now.
    pub(super) fn leave_out_spent<V>(&self, no: RoomNo, logs: &mut BTreeMap<LogKey, V>) {
        let Some(room) = self.rooms.get(&no) else { return };
        logs.retain(|log, _| {
            let author = room.author(log).filter(|person| *person != self.ctx.me);
            author.is_none_or(|person| self.quotas.left(no, &person, self.ctx.wall_ms) > 0)
        });
    }
}

fn cost(entry: &Entry) -> u64 {
    ENTRY_BYTES + u64::from(entry.header.payload_len)
}

/// Parts entries where their numbers are not consecutive.
fn consecutive(entries: Vec<Entry>) -> Vec<Vec<Entry>> {
    let mut runs: Vec<Vec<Entry>> = Vec::new();
    for entry in entries {
        let last = runs.last().and_then(|run| run.last()).map(|entry| entry.header.seq);
        match runs
            .last_mut()
            .filter(|_| last.and_then(|seq| seq.checked_add(1)) == Some(entry.header.seq))
        {
            Some(run) => run.push(entry),
            None => runs.push(vec![entry]),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOB: PersonId = PersonId([7; 32]);
    const ROOM: RoomNo = RoomNo(1);

    fn small() -> Quotas {
        Quotas {
            burst: 10_000,
            ..Quotas::default()
        }
    }

    #[test]
    fn a_bucket_empties_once_and_fills_with_time() {
        let mut quotas = small();
        assert_eq!(quotas.spend(ROOM, BOB, 9_999, 0), (None, false));
        assert!(quotas.left(ROOM, &BOB, 0) > 0);
        assert!(quotas.spend(ROOM, BOB, 5_000, 0).1, "now it is empty");
        assert!(!quotas.spend(ROOM, BOB, 1, 0).1, "and said so once");
        assert!(quotas.left(ROOM, &BOB, 4_000) == 0);
        assert!(quotas.left(ROOM, &BOB, 5_000) > 0, "five seconds filled what was owed");
        assert!(quotas.left(RoomNo(2), &BOB, 0) > 0, "each room has its own");
    }

    #[test]
    fn asked_often_it_fills_no_slower() {
        let mut quotas = small();
        quotas.spend(ROOM, BOB, 20_000, 0);
        for at_ms in (0..10_000).step_by(1_900) {
            quotas.spend(ROOM, BOB, 0, at_ms);
        }
        let spent = quotas.spend(ROOM, BOB, KEPT_STEP, 10_000).0.unwrap().spent;
        assert_eq!(spent, 20_000 - 10 * QUOTA_BYTES_PER_SECOND + KEPT_STEP);
    }

    #[test]
    fn a_clock_that_jumps_neither_blocks_nor_opens() {
        let mut quotas = small();
        let year = 365 * 86_400_000;
        quotas.spend(ROOM, BOB, 10_000_000_000, year);
        assert!(quotas.left(ROOM, &BOB, 3 * year) == 0, "a day's worth at most");
        quotas.spend(ROOM, BOB, 1, 0);
        quotas.buckets.get_mut(&(ROOM, BOB)).unwrap().spent = 10_000;
        assert!(
            quotas.left(ROOM, &BOB, 1_000) > 0,
            "after a step back time goes on from there"
        );
    }
}
