//! The keepers of a room, as its control log names them: who keeps sealed entries for those who are away, and in which vault.
//!
//! The set is one setting, given whole by [`super::Op::SetKeepers`]: of concurrent ones the higher rank's counts, as with the room's name. Three keepers
//! are advised: with 90 % of the time up each, and one failing apart from the other, at least one of three answers 999 times in 1,000.

use crate::identity::DeviceId;
use crate::rooms::{Address, RelayUrl};
use crate::{wire_id, wire_struct};

wire_id!(
    /// What one keeper calls what it keeps of one room: random, another one at each keeper, and known to it and the room's members.
    VaultId,
    16
);

/// The most keepers of one room.
pub const KEEPERS_MAX: usize = 6;
/// Fewer keepers than this are worth a warning.
pub const KEEPERS_ADVISED: usize = 3;
/// The most addresses that the room remembers of one keeper.
pub const KEEPER_ADDRESSES_MAX: usize = 4;

/// One keeper of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeeperPlace {
    /// The keeper's device.
    pub device: DeviceId,
    /// Its vault of this room.
    pub vault: VaultId,
    /// Where it was when it was named.
    pub addresses: Vec<Address>,
    /// Its relay, if it had one.
    pub relay: Option<RelayUrl>,
}
wire_struct!(KeeperPlace {
    device,
    vault,
    addresses: list(KEEPER_ADDRESSES_MAX),
    relay
});

/// Whether a set names no device and no vault twice.
pub(super) fn are_distinct(keepers: &[KeeperPlace]) -> bool {
    let twice = |(i, place): (usize, &KeeperPlace)| {
        keepers[..i]
            .iter()
            .any(|other| other.device == place.device || other.vault == place.vault)
    };
    !keepers.iter().enumerate().any(twice)
}
