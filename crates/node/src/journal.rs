//! What the surfaces around the peer keep in its store: the numbered log of events, and small local records.
//!
//! An event is written in the very transaction that it tells of, so none is missed or told twice over a crash; its number is the key's
//! last eight bytes. The newest [`EVENTS_KEPT`] stay. The first number of a log is the time of its beginning in microseconds: a log that was begun
//! anew (a restored home) never repeats a number that somebody may have seen. What an event looks like is the business of whoever runs the node.
//!
//! Local records are this node's alone (drafts, pinned rooms, keys of programs): they are never sent. Neither kind is read or written by the peer; the first
//! byte of their keys is none of its tables.

use std::time::{SystemTime, UNIX_EPOCH};

use offhook_proto::peer::{Event, Output};
use offhook_proto::store::{Direction, Store, StoreError, after_prefix};

use crate::store::SqliteStore;

/// The events kept for those who come back: some days of a busy node, about 10 MB.
pub const EVENTS_KEPT: u64 = 65_536;
/// Events beyond that are dropped so many at a time.
const PRUNE_EVENTS: u64 = 1_024;

/// `0xE0` number: an event.
const EVENTS: u8 = 0xE0;
/// `0xE1` name: a local record.
const LOCAL: u8 = 0xE1;

/// Local records under this prefix are for this machine alone: a restored home does not take them over.
pub const KEYS_PREFIX: &str = "key/";

/// How an event is written down.
pub type Wording = fn(&Event) -> Vec<u8>;

/// A local record to write, or to take away.
pub type LocalChange = (String, Option<Vec<u8>>);

/// Events in the order of their numbers.
#[derive(Debug, Clone, Default)]
pub struct Passage {
    /// Whether events between the place asked for and the first of these are no longer kept (or the place is of another log).
    pub is_torn: bool,
    /// The number before the first event kept: from there on all is here.
    pub from: u64,
    /// Numbers and what was written.
    pub events: Vec<(u64, Vec<u8>)>,
}

/// The events after a place, at most `limit`.
pub fn events_after(store: &impl Store, place: u64, limit: usize) -> Result<Passage, StoreError> {
    let Some(first) = edge(store, Direction::Ascending)? else {
        return Ok(Passage::default());
    };
    let newest = edge(store, Direction::Descending)?.unwrap_or(first);
    if place.saturating_add(1) < first || place > newest {
        return Ok(Passage {
            is_torn: true,
            from: first - 1,
            events: Vec::new(),
        });
    }
    let rows = store.scan(
        &event_key(place.saturating_add(1)),
        &after_prefix(&[EVENTS]),
        Direction::Ascending,
        limit,
    )?;
    let events = rows.into_iter().filter_map(|(key, value)| Some((number(&key)?, value)));
    Ok(Passage {
        is_torn: false,
        from: first - 1,
        events: events.collect(),
    })
}

/// A local record.
pub fn local(store: &impl Store, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    store.get(&local_key(name))
}

/// The local records whose names begin so, at most `limit`, with their names.
pub fn locals(store: &impl Store, prefix: &str, limit: usize) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let from = local_key(prefix);
    let rows = store.scan(&from, &after_prefix(&from), Direction::Ascending, limit)?;
    let named = |(key, value): (Vec<u8>, Vec<u8>)| {
        let name = String::from_utf8(key.get(1..)?.to_vec()).ok()?;
        Some((name, value))
    };
    Ok(rows.into_iter().filter_map(named).collect())
}

/// In a restored home: forgets the events and what let programs in. Within a transaction.
pub fn forget_for_restore(store: &mut SqliteStore) -> Result<(), StoreError> {
    for prefix in [vec![EVENTS], local_key(KEYS_PREFIX)] {
        for (key, _) in store.scan(&prefix, &after_prefix(&prefix), Direction::Ascending, usize::MAX)? {
            store.delete(&key)?;
        }
    }
    Ok(())
}

/// Writes local records. Within a transaction.
pub(crate) fn write_locals(store: &mut impl Store, changes: Vec<LocalChange>) -> Result<(), StoreError> {
    for (name, value) in changes {
        match value {
            Some(value) => store.put(&local_key(&name), &value)?,
            None => store.delete(&local_key(&name))?,
        }
    }
    Ok(())
}

/// Numbers events; what it hands out counts once the transaction is committed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Numbering {
    newest: u64,
}

impl Numbering {
    /// Goes on where the log ends.
    pub(crate) fn read(store: &impl Store) -> Result<Self, StoreError> {
        let newest = edge(store, Direction::Descending)?;
        Ok(Self {
            newest: newest.unwrap_or_else(unix_us),
        })
    }

    /// The number of the newest event.
    pub(crate) fn newest(self) -> u64 {
        self.newest
    }

    /// Writes an event. Within a transaction.
    pub(crate) fn append(&mut self, store: &mut impl Store, text: &[u8]) -> Result<(), StoreError> {
        let number = self.newest + 1;
        store.put(&event_key(number), text)?;
        self.newest = number;
        if number.is_multiple_of(PRUNE_EVENTS) {
            let end = event_key(number.saturating_sub(EVENTS_KEPT));
            let old = store.scan(&[EVENTS], &end, Direction::Ascending, 2 * PRUNE_EVENTS as usize)?;
            for (key, _) in old {
                store.delete(&key)?;
            }
        }
        Ok(())
    }

    /// Writes the events among outputs.
    pub(crate) fn append_all<'a>(
        &mut self,
        store: &mut impl Store,
        outputs: impl Iterator<Item = &'a Output>,
        wording: Wording,
    ) -> Result<(), StoreError> {
        for output in outputs {
            if let Output::Event(event) = output {
                self.append(store, &wording(event))?;
            }
        }
        Ok(())
    }
}

fn edge(store: &impl Store, direction: Direction) -> Result<Option<u64>, StoreError> {
    let rows = store.scan(&[EVENTS], &after_prefix(&[EVENTS]), direction, 1)?;
    Ok(rows.first().and_then(|(key, _)| number(key)))
}

fn event_key(number: u64) -> Vec<u8> {
    [&[EVENTS], number.to_be_bytes().as_slice()].concat()
}

fn local_key(name: &str) -> Vec<u8> {
    [&[LOCAL], name.as_bytes()].concat()
}

fn number(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.get(1..)?.try_into().ok()?))
}

fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use offhook_proto::store::MemoryStore;

    fn texts(store: &MemoryStore, place: u64) -> Vec<String> {
        let passage = events_after(store, place, 100).unwrap();
        let text = |(_, bytes): (u64, Vec<u8>)| String::from_utf8(bytes).unwrap();
        passage.events.into_iter().map(text).collect()
    }

    #[test]
    fn whoever_comes_back_gets_what_came_since() {
        let mut store = MemoryStore::default();
        let mut numbering = Numbering::read(&store).unwrap();
        let start = numbering.newest();
        for text in ["a", "b", "c"] {
            numbering.append(&mut store, text.as_bytes()).unwrap();
        }
        assert_eq!(texts(&store, start), ["a", "b", "c"]);
        assert_eq!(texts(&store, start + 2), ["c"]);
        assert!(texts(&store, start + 3).is_empty());
        assert_eq!(Numbering::read(&store).unwrap().newest(), start + 3, "numbers go on");
    }

    #[test]
    fn a_place_that_is_not_kept_is_told() {
        let mut store = MemoryStore::default();
        let mut numbering = Numbering { newest: 999 };
        for n in 0..EVENTS_KEPT + 2 * PRUNE_EVENTS {
            numbering.append(&mut store, n.to_string().as_bytes()).unwrap();
        }
        let torn = events_after(&store, 999, 10).unwrap();
        assert!(torn.is_torn && torn.from > 999 && torn.events.is_empty());
        let whole = events_after(&store, torn.from, 1).unwrap();
        assert_eq!((whole.is_torn, whole.events[0].0), (false, torn.from + 1));
        assert!(numbering.newest() - torn.from <= EVENTS_KEPT + PRUNE_EVENTS);
        assert!(events_after(&store, numbering.newest() + 1, 1).unwrap().is_torn);
    }

    #[test]
    fn local_records_are_found_by_the_beginning_of_their_name() {
        let mut store = MemoryStore::default();
        let put = |name: &str| (name.to_owned(), Some(name.as_bytes().to_vec()));
        write_locals(&mut store, vec![put("draft/a"), put("draft/b"), put("pin/a")]).unwrap();
        write_locals(&mut store, vec![("draft/a".to_owned(), None)]).unwrap();
        let found = locals(&store, "draft/", 10).unwrap();
        assert_eq!(found, [("draft/b".to_owned(), b"draft/b".to_vec())]);
        assert_eq!(local(&store, "pin/a").unwrap().as_deref(), Some(b"pin/a".as_slice()));
    }
}
