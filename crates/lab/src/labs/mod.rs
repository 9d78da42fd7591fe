//! The stories: each builds its site, plays, and says whether what it asks for held.

mod crowd;
mod gateways;
mod hotel;
mod keepers;
mod nat_matrix;
mod networks;
mod relay;
mod scene;
mod three;
mod troubles;

use anyhow::Result;

use crate::report::Outcome;
use crate::site::Site;

/// One lab.
pub(crate) struct Lab {
    /// What the person types.
    pub(crate) name: &'static str,
    /// What it shows.
    pub(crate) about: &'static str,
    /// Whether it is short enough for every test run.
    pub(crate) short: bool,
    /// Plays it.
    pub(crate) run: fn(&Site) -> Result<Outcome>,
}

/// Every lab, in the order in which `all` plays them.
pub(crate) const LABS: &[Lab] = &[
    Lab {
        name: "three",
        about: "three people come and go; who comes back gets everything from whoever still has it",
        short: true,
        run: three::run,
    },
    Lab {
        name: "gateways",
        about: "each kind of NAT and the cable with faults behave as they are named, seen by a prober",
        short: true,
        run: gateways::run,
    },
    Lab {
        name: "relay",
        about: "two members behind symmetric NATs reach each other through a third member's relay",
        short: true,
        run: relay::run,
    },
    Lab {
        name: "nat-matrix",
        about: "every pair of NAT kinds, and a carrier's: direct where that can be, through the relay where not",
        short: false,
        run: nat_matrix::run,
    },
    Lab {
        name: "keepers",
        about: "two who are never there at the same time, and three keepers that are there nine times of ten",
        short: false,
        run: keepers::run,
    },
    Lab {
        name: "hotel",
        about: "76 rooms, 625 memberships, a gateway that blocks above 200, 100, 64 connections; beside it a client that dials everybody",
        short: false,
        run: hotel::run,
    },
    Lab {
        name: "idle",
        about: "what the hotel's guest costs when nobody says anything",
        short: false,
        run: hotel::idle,
    },
    Lab {
        name: "rough",
        about: "30 % loss, 200 ms, reordering: every message arrives; how late?",
        short: false,
        run: troubles::rough,
    },
    Lab {
        name: "udp-blocked",
        about: "no UDP: through the relay, over TCP",
        short: false,
        run: networks::udp_blocked,
    },
    Lab {
        name: "only-443",
        about: "nothing but TCP to port 443",
        short: false,
        run: networks::only_443,
    },
    Lab {
        name: "captive",
        about: "a portal that lets nobody out until they have clicked",
        short: false,
        run: networks::captive,
    },
    Lab {
        name: "isolation",
        about: "two guests of one network that keeps its guests apart",
        short: false,
        run: networks::isolation,
    },
    Lab {
        name: "mtu",
        about: "packets of 1,280 bytes at most, told and untold",
        short: false,
        run: networks::mtu,
    },
    Lab {
        name: "address-change",
        about: "another address inside, then outside, in the middle of a talk",
        short: false,
        run: troubles::address_change,
    },
    Lab {
        name: "sleep-wake",
        about: "a machine that sleeps for a minute and wakes",
        short: false,
        run: troubles::sleep_wake,
    },
    Lab {
        name: "partition",
        about: "eight members in two halves that write on, then one network again",
        short: false,
        run: troubles::partition,
    },
];

/// The table, for people.
pub(crate) fn list() -> String {
    LABS.iter()
        .map(|lab| {
            let short = if lab.short { " (short)" } else { "" };
            format!("  {:<15} {}{short}\n", lab.name, lab.about)
        })
        .collect()
}
