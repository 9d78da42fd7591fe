//! Scenarios: what a run consists of, as data. One file each in `scenarios/`, built into the program.
//!
//! A scenario describes a *safety phase*, in which anything may fail that the protocol must survive, and a *liveness phase*, in which
//! everything is healed and the nodes must agree within a bound. Mean gaps are over the whole network; 0 turns a fault off.

use offhook_proto::rooms::{HistoryPolicy, Role};
use serde::Deserialize;
use thiserror::Error;

/// A scenario that cannot be used.
#[derive(Debug, Error)]
pub enum ScenarioError {
    /// There is none of that name.
    #[error("there is no scenario `{0}`; the ones there are: {list}", list = names().join(", "))]
    Unknown(String),
    /// The file does not say what a scenario file must say.
    #[error("scenario file: {0}")]
    Malformed(#[from] toml::de::Error),
    /// A number makes no sense.
    #[error("scenario `{0}`: {1}")]
    Senseless(String, &'static str),
}

/// What a run consists of.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name, the file's.
    pub name: String,
    /// What it shows, in a sentence.
    pub about: String,
    /// How many nodes there are, hostile ones included.
    pub peers: usize,
    /// How many rooms.
    #[serde(default)]
    pub rooms: usize,
    /// The fewest and the most members that a room begins with.
    #[serde(default)]
    pub members: [usize; 2],
    /// Rooms and their members are drawn as for a crowd ([`crate::crowd::drawn_rooms`]) instead, of which no more than the most are let in.
    #[serde(default)]
    pub drawn: bool,
    /// What newcomers may read.
    #[serde(default)]
    pub history: History,
    /// How long the phases last.
    pub phases: Phases,
    /// How the network is.
    #[serde(default)]
    pub network: NetworkPlan,
    /// What people do.
    #[serde(default)]
    pub work: Work,
    /// What breaks.
    #[serde(default)]
    pub faults: Faults,
    /// How wrong the clocks are.
    #[serde(default)]
    pub clocks: Clocks,
    /// Who means harm: node and how.
    #[serde(default)]
    pub hostile: Vec<Hostile>,
    /// What happens at given times of the safety phase.
    #[serde(default)]
    pub step: Vec<Step>,
}

/// What newcomers may read, as a scenario file says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum History {
    /// Everything.
    #[default]
    All,
    /// Nothing.
    None,
}

impl History {
    pub(crate) fn policy(self) -> HistoryPolicy {
        match self {
            Self::All => HistoryPolicy::All {},
            Self::None => HistoryPolicy::None {},
        }
    }
}

/// How long the phases last, in simulated seconds.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phases {
    /// The most that making the rooms may take; nothing fails meanwhile.
    pub setup_s_max: u64,
    /// The safety phase.
    pub safety_s: u64,
    /// The most that it may take from healing to agreement.
    pub liveness_s_max: u64,
    /// Nobody hears of a change of network when everything heals: some cable far away works again.
    #[serde(default)]
    pub heals_unnoticed: bool,
}

/// How the network is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NetworkPlan {
    /// The least and the most latency of a line, one way.
    pub latency_ms: [u64; 2],
    /// The most that a frame takes longer.
    pub jitter_ms: u64,
    /// The rate of a line.
    pub bytes_per_second: u64,
    /// The share of lines that are slow.
    pub slow_share: f64,
    /// The rate of a slow line.
    pub slow_bytes_per_second: u64,
    /// The share of nodes that cannot be dialled by others of that kind.
    pub closed_share: f64,
    /// Whether there is a relay that everybody reaches.
    pub relay: bool,
    /// How many others a node sees on its local network, with their addresses.
    pub lan_peers: usize,
}

impl Default for NetworkPlan {
    fn default() -> Self {
        Self {
            latency_ms: [5, 60],
            jitter_ms: 20,
            bytes_per_second: 1_000_000,
            slow_share: 0.1,
            slow_bytes_per_second: 20_000,
            closed_share: 0.0,
            relay: true,
            lan_peers: 8,
        }
    }
}

/// What people do: one action every `gap_ms` on average over the whole network, drawn by weight.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Work {
    /// Mean gap between actions; 0 for none but those of the script.
    pub gap_ms: u64,
    /// Says something.
    pub post: u32,
    /// Answers something.
    pub reply: u32,
    /// Changes an own message.
    pub edit: u32,
    /// Takes an own message away.
    pub delete: u32,
    /// Reacts, or withdraws a reaction.
    pub react: u32,
    /// Somebody of rank removes somebody below.
    pub remove: u32,
    /// Somebody of rank changes a role.
    pub role: u32,
    /// A member invites somebody new.
    pub invite: u32,
    /// Somebody leaves.
    pub leave: u32,
    /// A room gets another name.
    pub rename: u32,
    /// A room takes files of another size.
    pub limit_files: u32,
    /// Somebody has seen everything.
    pub read: u32,
}

/// Mean gaps between faults over the whole network, in seconds, and how long they last.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// A line is cut with frames in flight.
    pub cut_s: u64,
    /// A line stalls for up to ten seconds.
    pub stall_s: u64,
    /// The network falls apart.
    pub partition_s: u64,
    /// How long, on average.
    pub partition_for_s: u64,
    /// One node's frames no longer reach another, in that direction only, until the next partition heals.
    pub one_way_s: u64,
    /// A process dies: between batches, in one, after the commit, or while it releases outputs.
    pub crash_s: u64,
    /// How long it stays down, on average.
    pub down_for_s: u64,
    /// A disk refuses.
    pub disk_error_s: u64,
    /// A node is switched off.
    pub churn_s: u64,
    /// For how long, on average.
    pub off_for_s: u64,
    /// The share of nodes that is off throughout the safety phase; with it, whoever is switched off stays off, and another one comes.
    pub away_share: f64,
    /// A home is restored from an old copy.
    pub restore_s: u64,
    /// A wall clock is set to some time within [`Clocks::step_years`], or to 1970.
    pub clock_step_s: u64,
    /// A node is told that its network changed.
    pub network_change_s: u64,
}

/// How wrong the clocks are.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Clocks {
    /// The most that a clock is off at the start.
    pub skew_ms: u64,
    /// The most that it gains or loses.
    pub drift_ppm: u64,
    /// How far steps go, in years, either way.
    pub step_years: u64,
    /// The share of clocks that are back in 1970 when the safety phase begins.
    pub at_1970_share: f64,
}

/// A node that means harm.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hostile {
    /// Which node. Never the one that makes a room: see [`Scenario::rooms`].
    pub node: usize,
    /// How.
    pub kind: HostileKind,
}

/// How a node means harm. Each runs the honest code and bends what goes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostileKind {
    /// Flips bits in what it sends, and mixes up frames.
    Forge,
    /// Does not send on to some what it has.
    Withhold,
    /// Sends old frames again, its own and others', on every line.
    Replay,
    /// Sends garbage and valid frames over and over.
    Flood,
    /// Two copies of one home run at once and say different things with the same sequence numbers.
    Equivocate,
    /// Writes well-formed entries with its own keys against the rules: with wrong clocks, above its role, under epochs sealed to nobody, with useless prekeys,
    /// two with one number, and far too many.
    Insider,
    /// Is in no room, knows the addresses, dials everybody and talks nonsense.
    Stranger,
}

/// Something that happens at a given time.
#[derive(Debug, Clone, Deserialize)]
pub struct Step {
    /// When, in seconds from the start of the safety phase.
    pub at_s: u64,
    /// What.
    #[serde(flatten)]
    pub action: Action,
}

/// What a script can do. Nodes and rooms are numbers from 0; room `r` is made by node `r` modulo the number of peers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Action {
    /// A node says so many things in a room.
    Post {
        /// The node.
        node: usize,
        /// The room.
        room: usize,
        /// How many.
        times: usize,
    },
    /// One invite for all of `nodes`, good for `uses`.
    Invite {
        /// The inviter.
        by: usize,
        /// The room.
        room: usize,
        /// Who redeems it.
        nodes: Vec<usize>,
        /// How many may.
        uses: u32,
        /// Whether only the inviter may admit.
        #[serde(default)]
        only_me: bool,
        /// How long after the invite was made it is redeemed.
        #[serde(default)]
        redeem_after_s: u64,
    },
    /// Removes a member.
    Remove {
        /// By whom.
        by: usize,
        /// Whom.
        node: usize,
        /// Whence.
        room: usize,
    },
    /// Leaves.
    Leave {
        /// Who.
        node: usize,
        /// What.
        room: usize,
    },
    /// Gives a role.
    Role {
        /// By whom.
        by: usize,
        /// To whom.
        node: usize,
        /// Where.
        room: usize,
        /// owner, admin, moderator, member, reader.
        role: String,
    },
    /// Switches nodes off.
    Off {
        /// Which.
        nodes: Vec<usize>,
    },
    /// Switches nodes on.
    On {
        /// Which.
        nodes: Vec<usize>,
    },
    /// Only nodes of one group reach each other.
    Partition {
        /// The groups.
        groups: Vec<Vec<usize>>,
    },
    /// Ends all partitions.
    Heal {},
    /// Remembers a node's home.
    Snapshot {
        /// Which.
        node: usize,
    },
    /// Puts the remembered home back and restarts, as `offhook restore` does.
    Restore {
        /// Which.
        node: usize,
    },
    /// Puts the remembered home back and restarts, as a copy of the folder does: nothing tells it so.
    Copy {
        /// Which.
        node: usize,
    },
    /// Sets a wall clock off by so many seconds.
    Clock {
        /// Whose.
        node: usize,
        /// By how much it is wrong from now on.
        off_by_s: i64,
    },
    /// At the end, a room must have so many members.
    ExpectMembers {
        /// The room.
        room: usize,
        /// How many.
        count: usize,
    },
    /// At the end, a node must show so many messages in a room.
    ExpectShown {
        /// The node.
        node: usize,
        /// The room.
        room: usize,
        /// How many.
        count: usize,
    },
}

/// The scenarios that are built in.
const BUILT_IN: &[(&str, &str)] = &[
    ("story", include_str!("../scenarios/story.toml")),
    ("rooms-small", include_str!("../scenarios/rooms-small.toml")),
    ("stragglers", include_str!("../scenarios/stragglers.toml")),
    ("partition-removal", include_str!("../scenarios/partition-removal.toml")),
    ("over-redemption", include_str!("../scenarios/over-redemption.toml")),
    ("crash-loop", include_str!("../scenarios/crash-loop.toml")),
    ("disk-errors", include_str!("../scenarios/disk-errors.toml")),
    ("clock-years", include_str!("../scenarios/clock-years.toml")),
    ("churn", include_str!("../scenarios/churn.toml")),
    ("restored-home", include_str!("../scenarios/restored-home.toml")),
    ("copied-home", include_str!("../scenarios/copied-home.toml")),
    ("rejoin-after-days", include_str!("../scenarios/rejoin-after-days.toml")),
    ("newcomers", include_str!("../scenarios/newcomers.toml")),
    ("membership-storm", include_str!("../scenarios/membership-storm.toml")),
    (
        "hostile-equivocate",
        include_str!("../scenarios/hostile-equivocate.toml"),
    ),
    ("hostile-withhold", include_str!("../scenarios/hostile-withhold.toml")),
    ("hostile-replay", include_str!("../scenarios/hostile-replay.toml")),
    ("hostile-forge", include_str!("../scenarios/hostile-forge.toml")),
    ("hostile-flood", include_str!("../scenarios/hostile-flood.toml")),
    ("hostile-backdate", include_str!("../scenarios/hostile-backdate.toml")),
    ("hostile-insider", include_str!("../scenarios/hostile-insider.toml")),
    ("hostile-reader", include_str!("../scenarios/hostile-reader.toml")),
    ("hundreds", include_str!("../scenarios/hundreds.toml")),
];

/// The names of all scenarios.
pub fn names() -> Vec<&'static str> {
    BUILT_IN.iter().map(|(name, _)| *name).collect()
}

impl Scenario {
    /// The built-in scenario of a name.
    pub fn named(name: &str) -> Result<Self, ScenarioError> {
        let found = BUILT_IN.iter().find(|(n, _)| *n == name);
        let (_, text) = found.ok_or_else(|| ScenarioError::Unknown(name.to_owned()))?;
        Self::parse(text)
    }

    /// Reads a scenario file.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), ScenarioError> {
        let senseless = |why| Err(ScenarioError::Senseless(self.name.clone(), why));
        let [fewest, most] = self.members;
        if self.drawn {
            if self.rooms != 0 || most < 2 || !self.step.is_empty() || !self.hostile.is_empty() {
                return senseless("where rooms are drawn, none are counted, scripted or attacked");
            }
            return Ok(());
        }
        if fewest == 0 || fewest > most || most > self.peers {
            return senseless("members must be between 1 and the number of peers");
        }
        if self.rooms == 0 {
            return senseless("there must be a room");
        }
        if self.hostile.iter().any(|h| h.node >= self.peers) {
            return senseless("there is no such hostile node");
        }
        if self.step.iter().any(|step| step.at_s > self.phases.safety_s) {
            return senseless("a step lies behind the safety phase");
        }
        Ok(())
    }

    /// How a node means harm, if it does.
    pub fn hostility(&self, node: usize) -> Option<HostileKind> {
        self.hostile.iter().find(|h| h.node == node).map(|h| h.kind)
    }
}

/// A role by its name in a scenario.
pub(crate) fn role(name: &str) -> Role {
    name.parse().unwrap_or(Role::Member)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_scenario_reads_under_its_name() {
        for name in names() {
            let scenario = Scenario::named(name).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(scenario.name, name);
            assert!(!scenario.about.is_empty());
        }
    }

    #[test]
    fn every_file_is_built_in() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|f| f.unwrap().path())
            // What is in folders is played by name of the file only.
            .filter(|path| path.is_file())
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        files.sort();
        let mut names: Vec<String> = names().into_iter().map(str::to_owned).collect();
        names.sort();
        assert_eq!(files, names);
    }

    #[test]
    fn nonsense_is_refused() {
        let text = include_str!("../scenarios/story.toml");
        assert!(matches!(
            Scenario::parse(&text.replace("peers =", "pears =")),
            Err(ScenarioError::Malformed(_))
        ));
        assert!(matches!(
            Scenario::parse(&text.replace("rooms = 1", "rooms = 0")),
            Err(ScenarioError::Senseless(..))
        ));
        assert!(matches!(Scenario::named("nothing"), Err(ScenarioError::Unknown(_))));
    }
}
