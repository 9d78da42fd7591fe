//! `cargo xtask bench [NAME]`: one table names every bench; add a line there when a bench is added.
//!
//! A bench is an ordinary program (an example, or a bench target with `harness = false`) that prints its figures with
//! what they are to be compared with. `tidy` checks that the table and the files agree.

use anyhow::{Result, bail};

use crate::command::{cargo, run as run_command};
use crate::prerequisites;

/// One bench.
pub(crate) struct Bench {
    /// What the person types.
    pub(crate) name: &'static str,
    /// The package that it lives in.
    pub(crate) package: &'static str,
    /// Where in the package.
    pub(crate) home: Home,
    /// What it measures.
    pub(crate) measures: &'static str,
}

/// Where a bench's file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Home {
    /// `benches/NAME.rs`, run by `cargo bench`.
    #[allow(dead_code, reason = "a kind of line that the table may hold")]
    Benches,
    /// `examples/bench_NAME.rs`, run by `cargo run --release --example`.
    Examples,
}

/// Every bench.
pub(crate) const BENCHES: &[Bench] = &[
    Bench {
        name: "scale",
        package: "offhook-sim",
        home: Home::Examples,
        measures: "the overlay by the thousand: flows, lines, delivery, load, with churn and failures; the hotel and its control",
    },
    Bench {
        name: "keepers",
        package: "offhook-proto",
        home: Home::Examples,
        measures: "whoever spoke is gone: what a reader gets from keepers that are there nine hours of ten",
    },
    Bench {
        name: "rekey",
        package: "offhook-proto",
        home: Home::Examples,
        measures: "a new epoch sealed to 50 to 1,000 devices: bytes and time",
    },
    Bench {
        name: "roster",
        package: "offhook-proto",
        home: Home::Examples,
        measures: "2,000 control entries of 500 persons on 1,000 devices, taken in and resolved",
    },
    Bench {
        name: "store",
        package: "offhook-node",
        home: Home::Examples,
        measures: "1,000,000 entries on disk: ingest with the text index, bytes at rest, search by kind of query",
    },
    Bench {
        name: "node",
        package: "offhook-node",
        home: Home::Examples,
        measures: "a node with 100,000 entries: posting with group commit, time to be usable again, memory",
    },
    Bench {
        name: "reconnect",
        package: "offhook-proto",
        home: Home::Examples,
        measures: "76 rooms with one peer: nothing happened, and 1,000 entries missed: bytes and round trips",
    },
    Bench {
        name: "gaps",
        package: "offhook-proto",
        home: Home::Examples,
        measures: "100 of 100,000 entries missing, at the end and scattered, beside negentropy: bytes and round trips",
    },
    Bench {
        name: "catchup",
        package: "offhook-node",
        home: Home::Examples,
        measures: "100,000 entries of 200 authors checked, decrypted and stored, in memory and on disk: per second",
    },
    Bench {
        name: "files",
        package: "offhook-node",
        home: Home::Examples,
        measures: "a file of 400 MB from one node to another on loopback, from one and from two members: MB/s, beside a bare copy over QUIC",
    },
    Bench {
        name: "powercut",
        package: "offhook-node",
        home: Home::Examples,
        measures: "the store after 100 power cuts, beside one that does not sync: acknowledged entries lost",
    },
    Bench {
        name: "room",
        package: "offhook-node",
        home: Home::Examples,
        measures: "joining a room of 500 members and 100,000 entries: time to a readable page, memory",
    },
    Bench {
        name: "exchange",
        package: "offhook-exchange",
        home: Home::Examples,
        measures: "REGISTER and calls beside Kamailio, sound beside rtpengine: processor time of each",
    },
];

/// Runs the bench that is named, or all of them.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let chosen: Vec<&Bench> = match args {
        [] => BENCHES.iter().collect(),
        [flag] if flag == "--list" => {
            print!("{}", list());
            return Ok(());
        }
        [name] => BENCHES.iter().filter(|bench| bench.name == name).collect(),
        _ => bail!("one bench at a time, or none for all\n{}", list()),
    };
    if chosen.is_empty() {
        bail!("no such bench; there are:\n{}", list());
    }
    for bench in chosen {
        println!("\n==== {}: {} ====", bench.name, bench.measures);
        if bench.name == "exchange" {
            prerequisites::for_exchange_bench()?;
        }
        run_command(cargo(bench.home.cargo_args()).args([&bench.target(), "--package", bench.package]))?;
    }
    Ok(())
}

fn list() -> String {
    BENCHES
        .iter()
        .map(|bench| format!("  {:<20} {}\n", bench.name, bench.measures))
        .collect()
}

impl Bench {
    /// The name of its cargo target.
    fn target(&self) -> String {
        match self.home {
            Home::Benches => self.name.to_owned(),
            Home::Examples => format!("bench_{}", self.name),
        }
    }

    /// Its file inside the package.
    pub(crate) fn file(&self) -> String {
        match self.home {
            Home::Benches => format!("benches/{}.rs", self.target()),
            Home::Examples => format!("examples/{}.rs", self.target()),
        }
    }
}

impl Home {
    fn cargo_args(self) -> &'static [&'static str] {
        match self {
            Home::Benches => &["bench", "--bench"],
            Home::Examples => &["run", "--release", "--example"],
        }
    }
}
