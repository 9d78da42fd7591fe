//! Fetching one file from several members at once, each piece once.
//!
//! Every source is first asked what it holds. Then each has up to [`PIECES_PER_SOURCE`] pieces under way, the rarest among the sources first (as BitTorrent
//! does, Cohen 2003), so that the last holder's pieces are saved first. A piece that does not come within [`PIECE_TIMEOUT`] is asked for elsewhere and its
//! source rested. A source that sends wrong bytes is not asked again. A source that holds a part is asked again every [`HELD_AGAIN`] for more.
//!
//! No line is opened for a file alone, but for [`MET_AT_ONCE`] of those who may hold it every [`MEET_EVERY`] while none of them has one, in turn.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::files::frame::PieceRange;
use crate::history::IntervalSet;
use crate::identity::DeviceId;

/// Pieces under way from one source. With [`super::PIECE_BYTES`] this bounds what of a file can stand before a message on a slow line.
pub const PIECES_PER_SOURCE: usize = 2;
/// Sources that are used at the same time.
pub const SOURCES_MAX: usize = 8;
/// How long a piece may take. A slow line needs most of it: a piece a minute is 17 kB/s.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long the answer what is held may take.
const HELD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a source that failed is left alone.
const REST: Duration = Duration::from_secs(5);
/// How often a source that does not hold all is asked again.
const HELD_AGAIN: Duration = Duration::from_secs(5);

/// How often somebody is to be met while nobody who may hold the file has a line.
const MEET_EVERY: Duration = Duration::from_secs(30);
/// How many then.
const MET_AT_ONCE: usize = 2;

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Ask a source which pieces it holds.
    AskHeld(DeviceId),
    /// Ask a source for a piece.
    AskPiece(DeviceId, u32),
    /// Try to get a line to somebody who may hold the file.
    Meet(DeviceId),
}

/// Why a request came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The stream broke off, or the source is busy.
    Broken,
    /// The source does not have it, or does not give it.
    Refused,
    /// What came is not the file.
    Wrong,
}

/// One file being fetched.
#[derive(Debug)]
pub struct Fetch {
    pieces: u32,
    have: IntervalSet,
    sources: BTreeMap<DeviceId, Source>,
    /// Each piece under way: from whom, and until when.
    asked: BTreeMap<u32, (DeviceId, Instant)>,
    /// Who may hold the file and has no line, the likeliest first.
    away: Vec<DeviceId>,
    /// When somebody of them is next to be met, and whose turn it is.
    meet_at: Option<Instant>,
    turn: usize,
}

#[derive(Debug, Default)]
struct Source {
    holds: IntervalSet,
    /// An answer is awaited until then.
    held_due: Option<Instant>,
    /// When it may be asked what it holds.
    held_at: Option<Instant>,
    rests_until: Option<Instant>,
    is_false: bool,
}

impl Fetch {
    /// A file of so many pieces, of which some are here.
    pub fn new(pieces: u32, have: IntervalSet) -> Self {
        Self {
            pieces,
            have,
            sources: BTreeMap::new(),
            asked: BTreeMap::new(),
            away: Vec::new(),
            meet_at: None,
            turn: 0,
        }
    }

    /// What is here.
    pub fn have(&self) -> &IntervalSet {
        &self.have
    }

    /// Everything is here.
    pub fn is_complete(&self) -> bool {
        self.have.contiguous() >= self.pieces
    }

    /// The sources that can be asked.
    pub fn sources(&self) -> impl Iterator<Item = &DeviceId> {
        let usable = self.sources.iter().filter(|(_, source)| !source.is_false);
        usable.map(|(peer, _)| peer)
    }

    /// Takes those who may hold the file, the likeliest first, each with whether it has a line: those that have one are sources, the others may be met.
    pub fn set_members(&mut self, members: &[(DeviceId, bool)]) {
        let away = members.iter().filter(|(_, is_up)| !is_up);
        self.away = away.map(|(peer, _)| *peer).collect();
        let up = members.iter().filter(|(_, is_up)| *is_up);
        self.set_sources(up.map(|(peer, _)| *peer));
    }

    /// Takes these lines as sources, and forgets those that are gone.
    fn set_sources(&mut self, peers: impl IntoIterator<Item = DeviceId>) {
        let mut old = std::mem::take(&mut self.sources);
        let mut gone = Vec::new();
        for peer in peers.into_iter().take(SOURCES_MAX * 4) {
            self.sources.insert(peer, old.remove(&peer).unwrap_or_default());
        }
        gone.extend(old.into_keys());
        self.asked.retain(|_, (peer, _)| !gone.contains(peer));
    }

    /// A source said what it holds.
    pub fn held(&mut self, peer: &DeviceId, pieces: &[PieceRange], now: Instant) {
        let count = self.pieces;
        let Some(source) = self.sources.get_mut(peer) else {
            return;
        };
        let mut holds = IntervalSet::default();
        for range in pieces {
            holds.insert(range.from.max(1), range.to.min(count));
        }
        let is_whole = holds.contiguous() >= count;
        source.holds = holds;
        source.held_due = None;
        // A source does not lose what it has; if it does, it refuses.
        source.held_at = Some(if is_whole {
            now + HELD_AGAIN * 60
        } else {
            now + HELD_AGAIN
        });
    }

    /// A piece is here, checked and stored. False where it was here already.
    pub fn arrived(&mut self, piece: u32) -> bool {
        self.asked.remove(&piece);
        if self.have.contains(piece) {
            return false;
        }
        self.have.insert(piece, piece);
        true
    }

    /// A request to a source came to nothing; `piece` is `None` for what it holds.
    pub fn failed(&mut self, peer: &DeviceId, piece: Option<u32>, why: Failure, now: Instant) {
        if let Some(piece) = piece
            && self.asked.get(&piece).is_some_and(|(from, _)| from == peer)
        {
            self.asked.remove(&piece);
        }
        let Some(source) = self.sources.get_mut(peer) else {
            return;
        };
        source.held_due = None;
        match (why, piece) {
            (Failure::Wrong, _) => source.is_false = true,
            (Failure::Broken, _) => source.rests_until = Some(now + REST),
            (Failure::Refused, Some(piece)) => source.holds.remove(piece, piece),
            (Failure::Refused, None) => {
                source.holds = IntervalSet::default();
                source.held_at = Some(now + HELD_AGAIN);
            }
        }
    }

    /// What to ask now.
    pub fn poll(&mut self, now: Instant) -> Vec<Order> {
        self.give_up_late(now);
        let mut orders = Vec::new();
        if self.is_complete() {
            return orders;
        }
        for (peer, source) in self.sources.iter_mut().filter(|(_, source)| source.may_be_asked(now)) {
            if source.held_due.is_none() && source.held_at.is_none_or(|at| at <= now) {
                source.held_due = Some(now + HELD_TIMEOUT);
                source.held_at = Some(now + HELD_AGAIN);
                orders.push(Order::AskHeld(*peer));
            }
        }
        if self.sources.is_empty() && !self.away.is_empty() && self.meet_at.is_none_or(|at| at <= now) {
            self.meet_at = Some(now + MEET_EVERY);
            for _ in 0..MET_AT_ONCE.min(self.away.len()) {
                orders.push(Order::Meet(self.away[self.turn % self.away.len()]));
                self.turn = self.turn.wrapping_add(1);
            }
        }
        while let Some((peer, piece)) = self.next_piece(now) {
            self.asked.insert(piece, (peer, now + PIECE_TIMEOUT));
            orders.push(Order::AskPiece(peer, piece));
        }
        orders
    }

    /// When to poll again though nothing happened.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_complete() {
            return None;
        }
        let pieces = self.asked.values().map(|(_, due)| *due);
        let usable = self.sources.values().filter(|source| !source.is_false);
        let sources = usable.filter_map(|source| source.held_due.or(source.rests_until).or(source.held_at));
        let meeting = self
            .meet_at
            .filter(|_| self.sources.is_empty() && !self.away.is_empty());
        pieces.chain(sources).chain(meeting).min()
    }

    /// The next piece to ask for: of the source with the least under way, what the fewest sources hold, lowest first.
    fn next_piece(&self, now: Instant) -> Option<(DeviceId, u32)> {
        let load = |peer: &DeviceId| self.asked.values().filter(|(from, _)| from == peer).count();
        let mut free: Vec<(usize, DeviceId)> = self
            .sources
            .iter()
            .filter(|(_, source)| source.may_be_asked(now))
            .map(|(peer, _)| (load(peer), *peer))
            .filter(|(load, _)| *load < PIECES_PER_SOURCE)
            .collect();
        free.sort_unstable();
        free.into_iter()
            .find_map(|(_, peer)| Some((peer, self.rarest_of(&peer)?)))
    }

    fn rarest_of(&self, peer: &DeviceId) -> Option<u32> {
        let mut wanted = self.sources.get(peer)?.holds.minus(&self.have);
        for piece in self.asked.keys() {
            wanted.remove(*piece, *piece);
        }
        let others: Vec<&IntervalSet> = self
            .sources
            .iter()
            .filter(|(other, source)| *other != peer && !source.is_false)
            .map(|(_, source)| &source.holds)
            .collect();
        // What nobody else holds comes first; beyond that, order matters little, and ranges are cheap.
        let only_here = others.iter().fold(wanted.clone(), |left, holds| left.minus(holds));
        let first = |set: &IntervalSet| set.ranges().first().map(|(from, _)| *from);
        first(&only_here).or_else(|| first(&wanted))
    }

    fn give_up_late(&mut self, now: Instant) {
        let late: Vec<(u32, DeviceId)> = self
            .asked
            .iter()
            .filter(|(_, (_, due))| *due <= now)
            .map(|(piece, (peer, _))| (*piece, *peer))
            .collect();
        for (piece, peer) in late {
            self.failed(&peer, Some(piece), Failure::Broken, now);
        }
        for source in self.sources.values_mut() {
            if source.held_due.is_some_and(|due| due <= now) {
                source.held_due = None;
                source.rests_until = Some(now + REST);
            }
            if source.rests_until.is_some_and(|until| until <= now) {
                source.rests_until = None;
            }
        }
    }
}

impl Source {
    fn may_be_asked(&self, now: Instant) -> bool {
        !self.is_false && self.rests_until.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::disallowed_methods, reason = "a test needs some instant")]
    fn origin() -> Instant {
        Instant::now()
    }

    fn peer(n: u8) -> DeviceId {
        DeviceId([n; 32])
    }

    fn all(pieces: u32) -> [PieceRange; 1] {
        [PieceRange { from: 1, to: pieces }]
    }

    fn asked_pieces(orders: &[Order]) -> Vec<(u8, u32)> {
        let piece = |order: &Order| match order {
            Order::AskPiece(peer, piece) => Some((peer.0[0], *piece)),
            Order::AskHeld(_) | Order::Meet(_) => None,
        };
        orders.iter().filter_map(piece).collect()
    }

    #[test]
    fn every_piece_is_asked_for_once_of_several_sources() {
        let now = origin();
        let mut fetch = Fetch::new(20, IntervalSet::default());
        fetch.set_sources([peer(1), peer(2), peer(3)]);
        assert_eq!(fetch.poll(now).len(), 3, "each is asked what it holds");
        for n in 1..=3 {
            fetch.held(&peer(n), &all(20), now);
        }
        let mut seen = Vec::new();
        let mut by_source = BTreeMap::new();
        while !fetch.is_complete() {
            for (from, piece) in asked_pieces(&fetch.poll(now)) {
                *by_source.entry(from).or_insert(0) += 1;
                seen.push(piece);
            }
            let first = *fetch.asked.keys().next().unwrap();
            assert!(fetch.arrived(first));
        }
        seen.sort_unstable();
        assert_eq!(seen, (1..=20).collect::<Vec<_>>());
        assert_eq!(by_source.len(), 3);
        assert_eq!(fetch.poll(now), []);
    }

    #[test]
    fn what_only_one_holds_comes_first() {
        let now = origin();
        let mut fetch = Fetch::new(10, IntervalSet::default());
        fetch.set_sources([peer(1), peer(2)]);
        fetch.poll(now);
        fetch.held(&peer(1), &all(10), now);
        fetch.held(&peer(2), &[PieceRange { from: 1, to: 8 }], now);
        let asked = asked_pieces(&fetch.poll(now));
        assert!(asked.contains(&(1, 9)) && asked.contains(&(1, 10)), "{asked:?}");
    }

    #[test]
    fn a_stalled_source_loses_its_pieces_to_another() {
        let now = origin();
        let mut fetch = Fetch::new(2, IntervalSet::default());
        fetch.set_sources([peer(1)]);
        fetch.poll(now);
        fetch.held(&peer(1), &all(2), now);
        assert_eq!(asked_pieces(&fetch.poll(now)), [(1, 1), (1, 2)]);
        fetch.set_sources([peer(1), peer(2)]);
        fetch.poll(now);
        fetch.held(&peer(2), &all(2), now);
        assert_eq!(asked_pieces(&fetch.poll(now)), [], "all is under way");
        let later = now + PIECE_TIMEOUT;
        assert_eq!(asked_pieces(&fetch.poll(later)), [(2, 1), (2, 2)]);
    }

    #[test]
    fn who_sends_wrong_bytes_is_not_asked_again() {
        let now = origin();
        let mut fetch = Fetch::new(1, IntervalSet::default());
        fetch.set_sources([peer(1)]);
        fetch.poll(now);
        fetch.held(&peer(1), &all(1), now);
        fetch.poll(now);
        fetch.failed(&peer(1), Some(1), Failure::Wrong, now);
        assert_eq!(fetch.poll(now + HELD_AGAIN * 100), []);
        assert_eq!(fetch.poll_timeout(), None);
    }

    #[test]
    fn pieces_of_a_source_that_is_gone_are_free_again() {
        let now = origin();
        let mut fetch = Fetch::new(4, IntervalSet::range(1, 2));
        fetch.set_sources([peer(1)]);
        fetch.poll(now);
        fetch.held(&peer(1), &all(4), now);
        assert_eq!(
            asked_pieces(&fetch.poll(now)),
            [(1, 3), (1, 4)],
            "what is here is not asked for"
        );
        fetch.set_sources([]);
        fetch.set_sources([peer(1)]);
        fetch.poll(now);
        fetch.held(&peer(1), &all(4), now);
        assert_eq!(asked_pieces(&fetch.poll(now)), [(1, 3), (1, 4)]);
    }

    #[test]
    fn while_nobody_has_a_line_all_are_met_in_turn() {
        let start = origin();
        let mut fetch = Fetch::new(1, IntervalSet::default());
        fetch.set_members(&[(peer(1), false), (peer(2), false), (peer(3), false)]);
        assert_eq!(fetch.poll(start), [Order::Meet(peer(1)), Order::Meet(peer(2))]);
        assert_eq!(fetch.poll(start), []);
        let later = fetch.poll_timeout().unwrap();
        assert_eq!(later, start + MEET_EVERY);
        assert_eq!(fetch.poll(later), [Order::Meet(peer(3)), Order::Meet(peer(1))]);
        fetch.set_members(&[(peer(1), true), (peer(2), false)]);
        assert_eq!(fetch.poll(later + MEET_EVERY), [Order::AskHeld(peer(1))]);
    }

    #[test]
    fn claims_beyond_the_file_are_cut() {
        let now = origin();
        let mut fetch = Fetch::new(2, IntervalSet::default());
        fetch.set_sources([peer(1)]);
        fetch.poll(now);
        let absurd = [PieceRange { from: 0, to: u32::MAX }, PieceRange { from: 9, to: 3 }];
        fetch.held(&peer(1), &absurd, now);
        assert_eq!(asked_pieces(&fetch.poll(now)), [(1, 1), (1, 2)]);
    }
}
