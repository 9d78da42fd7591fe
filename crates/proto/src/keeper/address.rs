//! A keeper's address, as its owner gives it to those whose rooms it shall keep.
//!
//! The text form is `offhook-keeper:` and the lower-case base32 (RFC 4648, no padding) of the encoding and a four-byte checksum.

use thiserror::Error;

use crate::crypto;
use crate::identity::DeviceId;
use crate::rooms::invite::{base32, unbase32};
use crate::rooms::keepers::KEEPER_ADDRESSES_MAX;
use crate::rooms::{Address, RelayUrl};
use crate::wire::{Wire, WireError};
use crate::wire_struct;

/// The scheme of the text form.
pub const SCHEME: &str = "offhook-keeper:";

const CHECKSUM: &str = "offhook 1 keeper address checksum";

/// Where a keeper is, and the ticket that opens vaults there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeeperAddress {
    /// The keeper's device.
    pub device: DeviceId,
    /// Whoever shows it may open a vault.
    pub ticket: [u8; 16],
    /// Where it may be, best first.
    pub addresses: Vec<Address>,
    /// Its relay, if it has one.
    pub relay: Option<RelayUrl>,
}
wire_struct!(KeeperAddress {
    device,
    ticket,
    addresses: list(KEEPER_ADDRESSES_MAX),
    relay
});

/// A text that is no keeper's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadKeeperAddress {
    /// It does not begin with the scheme.
    #[error("this is no keeper's address: those begin with `offhook-keeper:`; `offhook keeper` prints its own")]
    Scheme,
    /// A character is wrong or missing.
    #[error("this keeper's address is damaged: a character is missing or changed; copy it again, whole")]
    Damaged,
    /// It comes from a version that this program does not know.
    #[error("this keeper's address was made by another version of Offhook: {0}")]
    Version(WireError),
}

impl KeeperAddress {
    /// The text form.
    pub fn to_link(&self) -> String {
        let mut bytes = self.to_bytes();
        let checksum = crypto::hash(CHECKSUM, &[&bytes]);
        bytes.extend_from_slice(&checksum[..4]);
        format!("{SCHEME}{}", base32(&bytes))
    }

    /// Reads the text form; case and white space do not matter.
    pub fn from_link(text: &str) -> Result<Self, BadKeeperAddress> {
        let kept = text.chars().filter(|c| !c.is_whitespace());
        let text = kept.collect::<String>().to_lowercase();
        let digits = text.strip_prefix(SCHEME).ok_or(BadKeeperAddress::Scheme)?;
        let bytes = unbase32(digits).ok_or(BadKeeperAddress::Damaged)?;
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(BadKeeperAddress::Damaged)?;
        if crypto::hash(CHECKSUM, &[body])[..4] != checksum[..] {
            return Err(BadKeeperAddress::Damaged);
        }
        Self::from_bytes(body).map_err(BadKeeperAddress::Version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_survives_copying_and_says_when_it_did_not() {
        let address = KeeperAddress {
            device: DeviceId([3; 32]),
            ticket: [7; 16],
            addresses: vec![Address("192.0.2.7:4433".parse().unwrap())],
            relay: None,
        };
        let link = address.to_link();
        assert_eq!(KeeperAddress::from_link(&link), Ok(address.clone()));
        assert_eq!(
            KeeperAddress::from_link(&format!(" {}\n", link.to_uppercase())),
            Ok(address)
        );
        assert_eq!(KeeperAddress::from_link("offhook:abc"), Err(BadKeeperAddress::Scheme));
        assert_eq!(
            KeeperAddress::from_link(&link[..link.len() - 2]),
            Err(BadKeeperAddress::Damaged)
        );
    }
}
