//! Runs Offhook's pure peers by the hundred on a simulated clock, network and disks, and checks what must always hold.
//!
//! A run is a function of a [`Scenario`] and a seed: one thread, one queue of events, seeded chance, no clock, so that the same seed gives the same
//! trace hash, always. It has a *safety phase*, in which anything may fail that the protocol must survive, and a *liveness
//! phase*, in which everything is healed and the nodes must agree within a bound (TigerBeetle's simulator works the same way).
//! The nodes are the real [`offhook_proto::peer::Peer`] with real cryptography; only what is outside of it is simulated.
//!
//! What it does not do: it does not run sockets, SQLite or the event loop of the shell. The lab does that with the real binary.

mod clock;
mod confederate;
pub mod crowd;
mod dice;
mod disk;
mod faults;
mod host;
mod hostile;
mod invariants;
mod model;
mod net;
mod plant;
mod report;
mod scenario;
mod script;
mod trace;
mod workload;
mod world;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use invariants::{Invariant, Violation};
pub use plant::Plant;
pub use report::Report;
pub use scenario::{
    Action, Clocks, Faults, History, Hostile, HostileKind, NetworkPlan, Phases, Scenario, ScenarioError, Step, Work,
    names,
};

/// What a run may be told besides scenario and seed.
#[derive(Default)]
pub struct Options {
    /// A fault planted on purpose.
    pub plant: Option<Plant>,
    /// Where to write a line for every input and output.
    pub trace: Option<Box<dyn Write>>,
    /// Told every few simulated seconds how far the run is.
    pub progress: Option<Box<dyn FnMut(Progress)>>,
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Simulated seconds since the start.
    pub seconds: u64,
    /// Those who wait to be let into a room; the safety phase begins when there are none.
    pub knocking: usize,
    /// What happened so far.
    pub events: u64,
}

/// Runs a scenario with a seed to its end.
pub fn run(scenario: &Scenario, seed: u64, options: Options) -> Report {
    let trace = trace::Trace::new(options.trace);
    let run = AssertUnwindSafe(|| {
        let mut world = world::World::new(scenario, seed, options.plant, trace);
        world.progress = options.progress;
        world.run();
        Report::of(&world, seed)
    });
    catch_unwind(run).unwrap_or_else(|panic| Report::of_panic(scenario, seed, panic.as_ref()))
}
