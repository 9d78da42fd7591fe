//! Invites: a link that lets somebody in, and the address hints that it carries.
//!
//! The link holds the room's id, a 16-byte secret, and up to [`ADDRESSES_MAX`] members to knock at. The control log knows only the public half of
//! a key derived from the secret; redeeming is a signature by that key over room and person. Knowing a room's id gives nothing.
//! The text form is `offhook:` and the lower-case base32 (RFC 4648, no padding) of the encoding and a four-byte checksum.

use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use crate::crypto::{self, KeyPair, Secret};
use crate::history::RoomId;
use crate::identity::DeviceId;
use crate::rooms::Role;
use crate::wire::{Reader, Wire, WireError, digits};
use crate::wire_struct;

/// The most members that an invite names.
pub const ADDRESSES_MAX: usize = 3;
/// The most addresses of one member in an invite.
pub const SOCKETS_MAX: usize = 4;
/// The longest room name or relay URL in an invite, in bytes.
pub const TEXT_BYTES_MAX: usize = 128;
/// The scheme of the text form.
pub const SCHEME: &str = "offhook:";

const INVITE_KEY: &str = "offhook 1 invite key";
const INVITE_CHECKSUM: &str = "offhook 1 invite checksum";
const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const BASE32_BITS: u32 = 5;

/// A socket address on the wire: family byte, address, port in network order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address(pub SocketAddr);

impl Wire for Address {
    fn encode(&self, out: &mut Vec<u8>) {
        match self.0.ip() {
            IpAddr::V4(ip) => {
                out.push(4);
                out.extend_from_slice(&ip.octets());
            }
            IpAddr::V6(ip) => {
                out.push(6);
                out.extend_from_slice(&ip.octets());
            }
        }
        out.extend_from_slice(&self.0.port().to_be_bytes());
    }

    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        let ip: IpAddr = match input.byte()? {
            4 => input.array::<4>()?.into(),
            6 => input.array::<16>()?.into(),
            _ => return Err(WireError::Unknown("address family")),
        };
        Ok(Self(SocketAddr::new(ip, u16::from_be_bytes(input.array()?))))
    }
}

/// A member to knock at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doorway {
    /// The device.
    pub device: DeviceId,
    /// Where it may be.
    pub addresses: Vec<Address>,
    /// Its relay, if it has one.
    pub relay: Option<RelayUrl>,
}
wire_struct!(Doorway {
    device,
    addresses: list(SOCKETS_MAX),
    relay
});

/// The URL of a relay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RelayUrl(pub String);

impl Wire for RelayUrl {
    fn encode(&self, out: &mut Vec<u8>) {
        crate::wire::put_bytes(out, self.0.as_bytes());
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self(input.text(TEXT_BYTES_MAX, "relay")?))
    }
}

/// An invite, as its holder has it. Printed without its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// The room.
    pub room: RoomId,
    /// The room's name when the invite was made, for the newcomer's eyes.
    pub room_name: String,
    /// The secret.
    pub secret: [u8; 16],
    /// The role that it gives.
    pub role: Role,
    /// When it ends, in milliseconds since 1970.
    pub expires_ms: u64,
    /// Members to knock at.
    pub doorways: Vec<Doorway>,
}
wire_struct!(Invite {
    room,
    room_name: text(TEXT_BYTES_MAX),
    secret,
    role,
    expires_ms,
    doorways: list(ADDRESSES_MAX)
});

impl std::fmt::Debug for Invite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invite")
            .field("room", &self.room)
            .field("room_name", &self.room_name)
            .field("role", &self.role)
            .field("expires_ms", &self.expires_ms)
            .field("doorways", &self.doorways)
            .finish_non_exhaustive()
    }
}

/// A text that is not an invite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadInvite {
    /// It does not begin with the scheme.
    #[error("this is not an invite: invites begin with `offhook:`, or are lines of eight words")]
    Scheme,
    /// A character is wrong or missing.
    #[error("this invite is damaged: a character is missing or changed; copy it again, whole")]
    Damaged,
    /// One of the words is none of the list.
    #[error("line {line} of the words: word {word} is none that is used; listen to it again")]
    Word {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        word: usize,
    },
    /// A line's words do not belong together.
    #[error("line {line} of the words does not fit: one of its words is another, or missing; listen to it again")]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// Every line fits, and yet it is not whole.
    #[error("a line of the words is missing; listen to the end")]
    Missing,
    /// It comes from a version that this program does not know.
    #[error("this invite was made by another version of Offhook: {0}")]
    Version(WireError),
}

impl Invite {
    /// The key pair that the secret stands for.
    pub fn key(&self) -> KeyPair {
        let seed = crypto::hash(INVITE_KEY, &[&self.room.0, &self.secret]);
        KeyPair::from_seed(&Secret(seed))
    }

    /// The text form.
    pub fn to_link(&self) -> String {
        let mut bytes = self.to_bytes();
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        format!("{SCHEME}{}", base32(&bytes))
    }

    /// Reads the text form; case, surrounding white space and line breaks inside do not matter.
    pub fn from_link(text: &str) -> Result<Self, BadInvite> {
        let text: String = text
            .chars()
            .filter(|c| !c.is_whitespace())
            .collect::<String>()
            .to_lowercase();
        let digits = text.strip_prefix(SCHEME).ok_or(BadInvite::Scheme)?;
        let bytes = unbase32(digits).ok_or(BadInvite::Damaged)?;
        let (body, told) = bytes.split_last_chunk::<4>().ok_or(BadInvite::Damaged)?;
        if checksum(body) != *told {
            return Err(BadInvite::Damaged);
        }
        Self::from_bytes(body).map_err(BadInvite::Version)
    }
}

/// What follows on, or stands before, an invite's encoding, so that what was changed on the way is found.
pub(super) fn checksum(body: &[u8]) -> [u8; 4] {
    let [a, b, c, d, ..] = crypto::hash(INVITE_CHECKSUM, &[body]);
    [a, b, c, d]
}

pub(crate) fn base32(bytes: &[u8]) -> String {
    let digits = digits::pack(bytes, BASE32_BITS);
    digits
        .into_iter()
        .map(|digit| char::from(BASE32[usize::from(digit)]))
        .collect()
}

pub(crate) fn unbase32(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| {
        BASE32
            .iter()
            .position(|b| *b == c)
            .and_then(|at| u16::try_from(at).ok())
    };
    let read: Vec<u16> = text.bytes().map(digit).collect::<Option<_>>()?;
    let (bytes, left) = digits::unpack(read, BASE32_BITS)?;
    (left < BASE32_BITS).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite() -> Invite {
        Invite {
            room: RoomId([7; 32]),
            room_name: "Küche".into(),
            secret: [9; 16],
            role: Role::Member,
            expires_ms: 1_800_000_000_000,
            doorways: vec![Doorway {
                device: DeviceId([3; 32]),
                addresses: vec![
                    Address("192.0.2.7:4433".parse().unwrap()),
                    Address("[2001:db8::1]:9".parse().unwrap()),
                ],
                relay: None,
            }],
        }
    }

    #[test]
    fn the_link_survives_copying() {
        let link = invite().to_link();
        assert_eq!(Invite::from_link(&link), Ok(invite()));
        assert_eq!(Invite::from_link(&format!("  {}\n", link.to_uppercase())), Ok(invite()));
    }

    #[test]
    fn a_damaged_link_says_so() {
        let link = invite().to_link();
        assert_eq!(Invite::from_link("https://example.org"), Err(BadInvite::Scheme));
        assert_eq!(Invite::from_link(&link[..link.len() - 3]), Err(BadInvite::Damaged));
        let swapped = link.replacen('b', "c", 1);
        assert!(Invite::from_link(&swapped).is_err());
    }
}
