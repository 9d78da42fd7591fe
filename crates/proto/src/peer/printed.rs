//! Inputs and outputs as they are printed: without secrets, and without what frames say.

use crate::overlay::dht::Job;
use crate::peer::{Input, Output};

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Command { id, command } => write!(f, "Command({id}, {command:?})"),
            Self::WallClock { unix_ms } => write!(f, "WallClock({unix_ms})"),
            Self::LineUp { peer, address, .. } => write!(f, "LineUp({peer:?}, {address:?})"),
            Self::LineDown { peer } => write!(f, "LineDown({peer:?})"),
            Self::DialFailed { peer } => write!(f, "DialFailed({peer:?})"),
            Self::Frame { peer, bytes } => write!(f, "Frame({peer:?}, {} bytes)", bytes.len()),
            Self::Found { peer, addresses } => write!(f, "Found({peer:?}, {addresses:?})"),
            Self::Lost { peer } => write!(f, "Lost({peer:?})"),
            Self::OwnAddresses { addresses, relay } => write!(f, "OwnAddresses({addresses:?}, {relay:?})"),
            Self::TryPeer { peer } => write!(f, "TryPeer({peer:?})"),
            Self::UseDht(is_on) => write!(f, "UseDht({is_on})"),
            Self::DhtNotKept => write!(f, "DhtNotKept"),
            Self::DhtFound(item) => write!(f, "DhtFound({}, {} bytes)", item.seq, item.value.len()),
            Self::FlowLimits(limits) => write!(f, "FlowLimits({limits:?})"),
            Self::NetworkChanged => write!(f, "NetworkChanged"),
            Self::Timeout => write!(f, "Timeout"),
        }
    }
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reply { id, reply } => write!(f, "Reply({id}, {reply:?})"),
            Self::Send { peer, bytes } => write!(f, "Send({peer:?}, {} bytes)", bytes.len()),
            Self::Dial {
                peer,
                addresses,
                relay,
                reason,
                ..
            } => write!(f, "Dial({peer:?}, {addresses:?}, {relay:?}, {reason})"),
            Self::Dht(Job::Put(item)) => write!(f, "Dht(put {}, {} bytes)", item.seq, item.value.len()),
            Self::Dht(job) => write!(f, "Dht({job:?})"),
            Self::CatchingUp(catching_up) => write!(f, "CatchingUp({catching_up})"),
            Self::Announce(name) => write!(f, "Announce({name:?})"),
            Self::Close { peer, reason } => write!(f, "Close({peer:?}, {reason})"),
            Self::Event(event) => write!(f, "Event({event:?})"),
        }
    }
}
