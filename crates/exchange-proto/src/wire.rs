//! What instances say to each other: postcard behind one octet of version; a message of another version is refused.
//!
//! The detector's datagrams go from machine to machine without the engine and carry a keyed BLAKE3 tag over all
//! before it, so that only an instance of the cluster is believed. The rest goes through the engine, whose
//! accounts say who may publish.
//!
//! Instances of different versions understand nothing of each other but their [`Announcement`], which is text and stays
//! as it is for ever.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::detector::{Message, NodeId};
use crate::locator::Hello;
use crate::replica::Record;
use crate::time::Moment;

/// Version of everything here. 2: heartbeats say how far phones have been told, changes say what time it is.
pub const VERSION: u8 = 2;
/// Longest datagram of the detector, octets.
pub const DATAGRAM_BYTES_MAX: usize = 128;
/// Longest other message, octets; the engine's own limit is 1 MiB.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;
/// Most records in one message.
pub const RECORDS_MAX: usize = 64;
const TAG_BYTES: usize = 16;

/// One message of the detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Datagram {
    /// Which shard it is about.
    pub shard: NodeId,
    /// Who sends it.
    pub from: NodeId,
    /// Whom it is for.
    pub to: NodeId,
    /// What it says.
    pub message: Message,
}

/// Changed records of one shard, numbered without gaps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    /// Which shard.
    pub shard: NodeId,
    /// The owner's process: numbers begin anew with it.
    pub stream: u64,
    /// Number of this message in the stream.
    pub number: u64,
    /// The owner's time as it was sent: deadlines in records are by this clock.
    pub clock: Moment,
    /// Which part of the whole state it is, that a standby asked for.
    pub whole: Option<Part>,
    /// The records.
    pub records: Vec<Record>,
}

/// A part of the whole state of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Who asked for it.
    pub standby: NodeId,
    /// What was held before is to be forgotten.
    pub first: bool,
    /// Nothing is missing after it.
    pub last: bool,
}

/// A standby has everything up to here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Which shard.
    pub shard: NodeId,
    /// Whose numbers.
    pub stream: u64,
    /// Number of the last message.
    pub number: u64,
    /// Who.
    pub standby: NodeId,
}

/// Anything that goes through the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "short-lived")]
pub enum Notice {
    /// An instance is there.
    Hello(Hello),
    /// Changed records, to standbys.
    Live(Live),
    /// To the owner.
    Ack(Ack),
    /// A standby asks the owner of a shard for everything.
    Resync {
        /// Which shard.
        shard: NodeId,
        /// Who asks.
        standby: NodeId,
    },
}

/// Why something was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Another version: upgrade the older instance.
    #[error("message of version {0}")]
    Version(u8),
    /// Damaged, too long, or not from an instance of this cluster.
    #[error("damaged message")]
    Damaged,
}

/// The version that is spoken. One that is not [`VERSION`] has the same messages, and is for trials of what becomes of
/// instances of different versions in one cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire(pub u8);

impl Default for Wire {
    fn default() -> Self {
        Self(VERSION)
    }
}

impl Wire {
    /// Writes a notice.
    pub fn encode(self, notice: &Notice) -> Vec<u8> {
        let mut bytes = vec![self.0];
        // Writing plain data into a Vec cannot fail.
        bytes.extend(postcard::to_allocvec(notice).unwrap_or_default());
        bytes
    }

    /// Reads a notice.
    pub fn decode(self, bytes: &[u8]) -> Result<Notice, WireError> {
        let notice = self.open(bytes, MESSAGE_BYTES_MAX)?;
        match &notice {
            Notice::Live(live) if live.records.len() > RECORDS_MAX => Err(WireError::Damaged),
            _ => Ok(notice),
        }
    }

    /// Writes a datagram with its tag.
    pub fn seal(self, datagram: &Datagram, key: &[u8; 32]) -> Vec<u8> {
        let mut bytes = vec![self.0];
        bytes.extend(postcard::to_allocvec(datagram).unwrap_or_default());
        let tag = blake3::keyed_hash(key, &bytes);
        bytes.extend(&tag.as_bytes()[..TAG_BYTES]);
        bytes
    }

    /// Reads a datagram whose tag is right.
    pub fn unseal(self, bytes: &[u8], key: &[u8; 32]) -> Result<Datagram, WireError> {
        let (body, tag) = bytes
            .len()
            .checked_sub(TAG_BYTES)
            .map(|at| bytes.split_at(at))
            .ok_or(WireError::Damaged)?;
        let mut whole = *blake3::keyed_hash(key, body).as_bytes();
        whole[..TAG_BYTES].copy_from_slice(tag);
        // Comparison of blake3's type takes the same time whatever differs.
        if blake3::keyed_hash(key, body) != blake3::Hash::from_bytes(whole) {
            return Err(WireError::Damaged);
        }
        self.open(body, DATAGRAM_BYTES_MAX)
    }

    fn open<T: for<'a> Deserialize<'a>>(self, bytes: &[u8], bytes_max: usize) -> Result<T, WireError> {
        match bytes.split_first() {
            Some((&version, _)) if version != self.0 => Err(WireError::Version(version)),
            Some((_, body)) if body.len() <= bytes_max => {
                let (value, rest) = postcard::take_from_bytes(body).map_err(|_| WireError::Damaged)?;
                if rest.is_empty() {
                    Ok(value)
                } else {
                    Err(WireError::Damaged)
                }
            }
            _ => Err(WireError::Damaged),
        }
    }
}

/// What an instance says of itself to those of other versions: one line, `offhook VERSION NODE ADDRESS SITE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// What it speaks.
    pub version: u8,
    /// Who.
    pub node: NodeId,
    /// Where its detector listens.
    pub address: IpAddr,
    /// Its failure domain.
    pub site: String,
}

/// Longest announcement, octets.
const ANNOUNCEMENT_BYTES_MAX: usize = 256;

impl Announcement {
    /// Reads one. Words after those are for later versions to add.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let words = bytes
            .strip_prefix(b"offhook ")
            .filter(|_| bytes.len() <= ANNOUNCEMENT_BYTES_MAX)?;
        let mut words = std::str::from_utf8(words).ok()?.split_ascii_whitespace();
        Some(Self {
            version: words.next()?.parse().ok()?,
            node: NodeId::from_str_radix(words.next()?, 16).ok()?,
            address: words.next()?.parse().ok()?,
            site: words.next()?.to_owned(),
        })
    }
}

impl fmt::Display for Announcement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word: String = self
            .site
            .split_ascii_whitespace()
            .flat_map(str::chars)
            .take(48)
            .collect();
        let site = if word.is_empty() { "-" } else { &word };
        write!(out, "offhook {} {:x} {} {site}", self.version, self.node, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detector::Mark;

    /// What is on the wire changes with its version only.
    #[test]
    fn the_octets_of_a_heartbeat_and_of_an_acknowledgement() {
        let datagram = Datagram {
            shard: 1,
            from: 2,
            to: 300,
            message: Message::Heartbeat {
                epoch: 4,
                told: Some(Mark { stream: 5, number: 6 }),
            },
        };
        let sealed = Wire::default().seal(&datagram, &[1; 32]);
        let (body, tag) = sealed.split_at(sealed.len() - TAG_BYTES);
        assert_eq!(body, [2, 1, 2, 0xac, 2, 0, 4, 1, 5, 6]);
        assert_eq!(tag, &blake3::keyed_hash(&[1; 32], body).as_bytes()[..TAG_BYTES]);
        let ack = Ack {
            shard: 1,
            stream: 2,
            number: 3,
            standby: 4,
        };
        assert_eq!(Wire::default().encode(&Notice::Ack(ack)), [2, 2, 1, 2, 3, 4]);
    }

    #[test]
    fn only_who_has_the_key_is_believed() {
        let datagram = Datagram {
            shard: 1,
            from: 2,
            to: 3,
            message: Message::Heartbeat {
                epoch: 4,
                told: Some(Mark {
                    stream: u64::MAX,
                    number: 5,
                }),
            },
        };
        let sealed = Wire::default().seal(&datagram, &[1; 32]);
        assert!(sealed.len() <= DATAGRAM_BYTES_MAX);
        assert_eq!(Wire::default().unseal(&sealed, &[1; 32]), Ok(datagram));
        assert_eq!(Wire::default().unseal(&sealed, &[2; 32]), Err(WireError::Damaged));
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(Wire::default().unseal(&changed, &[1; 32]), Err(WireError::Damaged));
            assert_eq!(Wire::default().unseal(&sealed[..at], &[1; 32]), Err(WireError::Damaged));
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = Wire::default().encode(&Notice::Resync { shard: 1, standby: 2 });
        assert!(Wire::default().decode(&bytes).is_ok());
        bytes[0] = 9;
        assert_eq!(Wire::default().decode(&bytes), Err(WireError::Version(9)));
        assert_eq!(Wire::default().decode(&[]), Err(WireError::Damaged));
    }

    /// These words are for ever: other versions read them.
    #[test]
    fn an_announcement_is_read_by_every_version() {
        let announcement = Announcement {
            version: 2,
            node: 0x2669_d35b,
            address: "10.81.1.1".parse().unwrap(),
            site: "amsterdam".to_owned(),
        };
        let text = announcement.to_string();
        assert_eq!(text, "offhook 2 2669d35b 10.81.1.1 amsterdam");
        assert_eq!(Announcement::parse(text.as_bytes()), Some(announcement.clone()));
        let later = format!("{text} and what is added later");
        assert_eq!(Announcement::parse(later.as_bytes()), Some(announcement));
        for other in [
            &b"offhook 2 zz 10.81.1.1 a"[..],
            b"offhook 300 1 ::1 a",
            b"",
            b"\xff",
            &[b'x'; 300],
        ] {
            assert_eq!(Announcement::parse(other), None);
        }
    }
}
