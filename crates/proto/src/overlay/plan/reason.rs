//! Why a line is held or sought: for programs, for the ledger, and in a sentence for a person.

use crate::overlay::ledger::Urgency;

/// Why a line is held or sought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A pending join.
    Join,
    /// Something was said in a room that nobody else carries on.
    Write,
    /// Somebody here has a room open that nobody else carries.
    Open,
    /// The only line to so many rooms.
    Only(usize),
    /// A second line to so many rooms.
    Second(usize),
    /// Kept because it has been there long.
    Steady,
    /// A look into so many rooms that no line covers.
    Visit(usize),
    /// Somebody with whom there was no line for longest.
    Mix,
    /// Something was said in a room, and nothing shows that it has heard.
    Spread,
    /// The other side dialled; so many rooms are shared.
    Theirs(usize),
    /// Nothing: it will be closed when it is idle.
    Surplus,
}

impl Reason {
    /// How much a dial for it is wanted.
    pub fn urgency(self, is_first_round: bool) -> Urgency {
        match self {
            Self::Join | Self::Write | Self::Open => Urgency::Urgent,
            // Who has just come online waits for everything that was said.
            Self::Only(_) | Self::Visit(_) if is_first_round => Urgency::Urgent,
            Self::Only(_) => Urgency::Cover,
            Self::Second(_)
            | Self::Steady
            | Self::Visit(_)
            | Self::Mix
            | Self::Spread
            | Self::Theirs(_)
            | Self::Surplus => Urgency::Spare,
        }
    }

    /// The name of this reason for programs.
    pub fn code(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Write => "write",
            Self::Open => "open",
            Self::Only(_) => "only",
            Self::Second(_) => "second",
            Self::Steady => "steady",
            Self::Visit(_) => "visit",
            Self::Mix => "mix",
            Self::Spread => "spread",
            Self::Theirs(_) => "theirs",
            Self::Surplus => "surplus",
        }
    }

    /// The rooms that it is about, where it is about some.
    pub fn rooms(self) -> Option<usize> {
        match self {
            Self::Only(n) | Self::Second(n) | Self::Visit(n) | Self::Theirs(n) => Some(n),
            Self::Join | Self::Write | Self::Open | Self::Steady | Self::Mix | Self::Spread | Self::Surplus => None,
        }
    }

    /// In few words, for the flow ledger.
    pub fn words(self) -> &'static str {
        match self {
            Self::Join => "to be let into a room",
            Self::Write => "something was said in a room that has no other line",
            Self::Open => "somebody here has a room open that has no other line",
            Self::Only(_) => "the only line to a room",
            Self::Second(_) => "a second line to a room",
            Self::Steady => "kept for stability",
            Self::Visit(_) => "a look into rooms that no line covers",
            Self::Mix => "a call to somebody not met for long",
            Self::Spread => "something was said, and nothing shows that they have it",
            Self::Theirs(_) => "the other side called",
            Self::Surplus => "not needed any more",
        }
    }

    /// In a sentence, for a person.
    pub fn sentence(self) -> String {
        let rooms = |n: usize| {
            if n == 1 {
                "1 room".to_owned()
            } else {
                format!("{n} rooms")
            }
        };
        match self {
            Self::Join => "to be let into a room".to_owned(),
            Self::Write => "something was said in a room that has no other line".to_owned(),
            Self::Open => "a room that is open here has no other line".to_owned(),
            Self::Only(n) => format!("the only line to {}", rooms(n)),
            Self::Second(n) => format!("a second line to {}", rooms(n)),
            Self::Steady => "kept for stability: it has been up longest".to_owned(),
            Self::Visit(n) => format!(
                "a look into {} that no line covers; closed when both are in step",
                rooms(n)
            ),
            Self::Mix => "a call to somebody not met for long, so that a room never falls into parts".to_owned(),
            Self::Spread => "something was said in a room, and nothing shows that they have heard".to_owned(),
            Self::Theirs(n) => format!("the other side called; {} shared", rooms(n)),
            Self::Surplus => "not needed: other lines cover its rooms; closed when idle".to_owned(),
        }
    }
}
