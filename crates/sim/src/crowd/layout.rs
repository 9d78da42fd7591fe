//! Who is in which room, and what happens to the crowd.

use std::collections::BTreeSet;

use crate::clock::SECOND;
use crate::dice::Dice;

/// What a run consists of.
#[derive(Debug, Clone)]
pub struct CrowdPlan {
    /// Members of each room, by node.
    pub rooms: Vec<Vec<usize>>,
    /// How many nodes there are.
    pub nodes: usize,
    /// The share that is online at the start, and on average.
    pub online: f64,
    /// Nodes that are offline at the start, whatever the share, and come online at `arrive_s`.
    pub arriving: BTreeSet<usize>,
    /// When they do.
    pub arrive_s: u64,
    /// How long a run is.
    pub run_s: u64,
    /// How many entries a minute everybody together says.
    pub says_per_minute: u64,
    /// Nothing is said after this.
    pub quiet_after_s: u64,
    /// Entries that were said before the arriving come online, spread over the rooms of the first of them.
    pub missed: usize,
    /// The mean time that a node stays on (and off, in proportion); 0 for no churn.
    pub session_s: u64,
    /// One-way latency.
    pub latency_ms: [u64; 2],
    /// The share of pairs that reach each other through a relay only.
    pub relayed: f64,
    /// Relays that nodes have as their home.
    pub relays: usize,
    /// Nodes behind a gateway that lets in only whom they have sent to (address-and-port-dependent filtering, RFC 4787).
    pub closed: BTreeSet<usize>,
    /// Nodes that dial every member of every room at all addresses, without a ledger.
    pub naive: BTreeSet<usize>,
    /// When all nodes are restarted at once; none if 0.
    pub mass_restart_s: u64,
    /// The share of all nodes that fails at `fail_s`: the busiest.
    pub helpers_fail: f64,
    /// When they do.
    pub fail_s: u64,
    /// Look-ups are tried at the end with these shares of liars.
    pub liars: Vec<f64>,
}

impl CrowdPlan {
    /// A crowd of `nodes` with rooms drawn as [`drawn_rooms`] says.
    pub fn drawn(nodes: usize, seed: u64) -> Self {
        Self {
            rooms: drawn_rooms(nodes, seed),
            nodes,
            online: 0.3,
            arriving: BTreeSet::new(),
            arrive_s: 0,
            run_s: 1_200,
            says_per_minute: nodes as u64 / 20,
            quiet_after_s: u64::MAX / SECOND,
            missed: 0,
            session_s: 0,
            latency_ms: [10, 80],
            relayed: 0.15,
            relays: 4,
            closed: BTreeSet::new(),
            naive: BTreeSet::new(),
            mass_restart_s: 0,
            helpers_fail: 0.0,
            fail_s: 0,
            liars: Vec::new(),
        }
    }

    /// The hotel: node 0 is a guest with 76 rooms and 625 memberships of 255 others. 15 rooms of two, 20 rooms of which no member is in another, 41 whose
    /// members come from the same 120. Everybody is online; the guest comes online after 60 s, when 1,000 entries were said.
    pub fn hotel(seed: u64) -> Self {
        let mut dice = Dice::new(seed, "hotel");
        let mut rooms: Vec<Vec<usize>> = (0..15).map(|n| vec![0, 1 + n]).collect();
        rooms.extend((0..20).map(|n| (0..=6).map(|m| if m == 0 { 0 } else { 15 + 6 * n + m }).collect()));
        for n in 0..41 {
            let others = if n < 39 { 12 } else { 11 };
            let mut members = BTreeSet::from([0]);
            while members.len() < 1 + others {
                members.insert(136 + dice.index(120));
            }
            rooms.push(members.into_iter().collect());
        }
        Self {
            rooms,
            online: 1.0,
            arriving: BTreeSet::from([0]),
            closed: BTreeSet::from([0]),
            arrive_s: 60,
            run_s: 60 + 900,
            says_per_minute: 30,
            quiet_after_s: 60 + 300,
            missed: 1_000,
            latency_ms: [40, 40],
            relayed: 0.0,
            relays: 0,
            ..Self::drawn(256, seed)
        }
    }
}

/// Rooms of 2 to 200 members: a third of them rooms of two, the others with sizes of which the share above `s` falls with `s` to the power of -1.2. One node of a hundred is in 76 rooms, the others in 2 and a
/// geometric number with mean 5 more.
pub fn drawn_rooms(nodes: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut dice = Dice::new(seed, "rooms");
    let mut seats = Vec::new();
    for node in 0..nodes {
        let mut wanted = 2;
        while dice.chance(5.0 / 6.0) && wanted < 40 {
            wanted += 1;
        }
        let wanted = if dice.chance(0.01) { 76 } else { wanted };
        seats.extend(std::iter::repeat_n(node, wanted));
    }
    dice.shuffle(&mut seats);
    let mut rooms = Vec::new();
    let mut rest = &seats[..];
    while rest.len() >= 2 {
        let size = match dice.chance(0.33) {
            true => 2,
            false => {
                let share = (dice.below(1_000_000) + 1) as f64 / 1_000_000.0;
                (3.0 * share.powf(-1.0 / 1.2)).clamp(3.0, 200.0) as usize
            }
        };
        let (taken, left) = rest.split_at(size.min(rest.len()).min(nodes));
        let members: BTreeSet<usize> = taken.iter().copied().collect();
        if members.len() >= 2 {
            rooms.push(members.into_iter().collect());
        }
        rest = left;
    }
    rooms
}
