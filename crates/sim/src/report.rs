//! What came of a run, for people.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;

use crate::clock::{MILLI, SECOND};
use crate::invariants::{Invariant, Violation};
use crate::scenario::Scenario;
use crate::world::{Counts, Phase, World};

/// What came of a run.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// The scenario's name.
    pub scenario: String,
    /// The seed.
    pub seed: u64,
    /// BLAKE3 over all inputs and outputs, its first 16 digits.
    pub trace_hash: String,
    /// Messages acknowledged to honest nodes' clients.
    pub messages: u64,
    /// Of those, messages of which every replica was destroyed by a restored home.
    pub destroyed: u64,
    /// Simulated time from healing to agreement, in milliseconds.
    pub healed_after_ms: u64,
    /// Simulated time in all, in seconds.
    pub simulated_s: u64,
    /// Frames and their bytes.
    pub frames: [u64; 2],
    /// Frames lost.
    pub frames_lost: u64,
    /// The most lines up at any instant over all nodes.
    pub lines_max: usize,
    /// What did not hold.
    pub violations: Vec<Violation>,
    counts: Counts,
    entries_shown: usize,
}

impl Report {
    pub(crate) fn of(world: &World<'_>, seed: u64) -> Self {
        let healed_after = match world.phase {
            Phase::Done { healed_after } => healed_after,
            _ => 0,
        };
        let honest = world
            .model
            .posts
            .values()
            .filter(|post| !world.model.hostile.contains(&post.node));
        let sights = world.sights();
        Self {
            scenario: world.scenario.name.clone(),
            seed,
            trace_hash: world.trace.hash(),
            messages: honest.clone().count() as u64,
            destroyed: honest.filter(|post| post.destroyed).count() as u64,
            healed_after_ms: healed_after / MILLI,
            simulated_s: world.now / SECOND,
            frames: [world.net.frames, world.net.bytes],
            frames_lost: world.net.lost_frames,
            lines_max: world.net.lines_up_max,
            violations: world.violations.clone(),
            counts: world.counts.clone(),
            entries_shown: sights
                .iter()
                .flat_map(|room| &room.sights)
                .map(|sight| sight.lines.len())
                .sum(),
        }
    }

    pub(crate) fn of_panic(scenario: &Scenario, seed: u64, panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
        let text = text.unwrap_or_else(|| "without words".to_owned());
        Self {
            scenario: scenario.name.clone(),
            seed,
            violations: vec![Violation::new(Invariant::Sound, format!("panicked: {text}"))],
            ..Self::default()
        }
    }

    /// Whether everything held.
    pub fn passed(&self) -> bool {
        self.violations.is_empty()
    }

    /// Whether one invariant was found broken.
    pub fn broke(&self, invariant: Invariant) -> bool {
        self.violations.iter().any(|violation| violation.invariant == invariant)
    }

    /// The command that repeats this run.
    pub fn command(&self) -> String {
        format!("cargo xtask sim --scenario {} --seed {}", self.scenario, self.seed)
    }

    /// One line.
    pub fn line(&self) -> String {
        format!(
            "{:<18} seed {:<20} {} {:>5} messages, {:>7} inputs, {:>7} frames, healed in {:>6.1} s, hash {}",
            self.scenario,
            self.seed,
            if self.passed() { "ok    " } else { "FAILED" },
            self.messages,
            self.counts.inputs,
            self.frames[0],
            self.healed_after_ms as f64 / 1000.0,
            self.trace_hash,
        )
    }
}

fn listed(counts: &BTreeMap<impl fmt::Display, u64>) -> String {
    let each = counts.iter().map(|(name, count)| format!("{name} {count}"));
    let all = each.collect::<Vec<_>>().join(", ");
    if all.is_empty() { "none".to_owned() } else { all }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        writeln!(f, "scenario   {} seed {}", self.scenario, self.seed)?;
        writeln!(f, "trace      {}", self.trace_hash)?;
        writeln!(
            f,
            "ran        {} simulated s, {} events, {} inputs in {} commits, {} outputs",
            self.simulated_s, counts.events, counts.inputs, counts.commits, counts.outputs
        )?;
        writeln!(
            f,
            "network    {} frames, {} bytes, {} frames lost, {} lines at once at most",
            self.frames[0], self.frames[1], self.frames_lost, self.lines_max
        )?;
        writeln!(
            f,
            "said       {} commands and {} messages acknowledged, {} destroyed with their last replica, {} lines shown at the end",
            counts.acknowledged, self.messages, self.destroyed, self.entries_shown
        )?;
        writeln!(f, "faults     {}", listed(&counts.faults))?;
        writeln!(f, "refused    {}", listed(&counts.refusals))?;
        writeln!(f, "notices    {}", listed(&counts.notices))?;
        writeln!(
            f,
            "most       {} outputs of a batch, {} bytes of a frame, {} dials at once, {} bytes of a store",
            counts.outputs_of_batch_max, counts.frame_bytes_max, counts.dials_at_once_max, counts.store_bytes_max
        )?;
        writeln!(
            f,
            "healed     in {:.1} s; {} checks; {} frames smuggled to removed members",
            self.healed_after_ms as f64 / 1000.0,
            counts.checks,
            counts.smuggled
        )?;
        for violation in &self.violations {
            writeln!(f, "VIOLATED   {}: {}", violation.invariant.words(), violation.text)?;
        }
        match self.passed() {
            true => write!(f, "ok"),
            false => write!(f, "FAILED; to repeat: {}", self.command()),
        }
    }
}
