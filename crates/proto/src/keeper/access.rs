//! Who may read and write a vault, as one signed record that each next one replaces.
//!
//! *Readers* are devices, by [`reader_tag`]: a keeper recognises a device that calls it (the connection proves the id) and learns nothing of those that
//! never call. *Writers* prove to hold the room's write key, whose public half stands in the record. The record numbered `n + 1` is signed
//! by the write key of number `n`, so every member can carry a change of membership to the keeper, and a removed one, who does not know the new epoch's
//! sync key, cannot from then on. The *owner* (the device that opened the vault) may sign the next record too: it takes a vault back
//! that a member has turned against the room.

use crate::crypto::{self, KeyPair, NotAuthentic, Secret, Signature};
use crate::identity::DeviceId;
use crate::rooms::VaultId;
use crate::wire::{Wire, put_list};
use crate::wire_struct;

/// The most devices that may read one vault.
pub const READERS_MAX: usize = 4096;

const ACCESS: &str = "offhook 1 keeper access";
const FINGERPRINT: &str = "offhook 1 keeper access fingerprint";
const READER: &str = "offhook 1 keeper reader";
const WRITE_KEY: &str = "offhook 1 keeper write key";
const OWNER_KEY: &str = "offhook 1 keeper vault owner key";
const SESSION: &str = "offhook 1 keeper writing session";

/// A device as a keeper's list of readers names it.
pub type ReaderTag = [u8; 16];

/// The name of a device in the list of readers of a vault.
pub fn reader_tag(vault: &VaultId, device: &DeviceId) -> ReaderTag {
    let hash = crypto::hash(READER, &[&vault.0, &device.0]);
    let mut tag = [0; 16];
    tag.copy_from_slice(&hash[..16]);
    tag
}

/// The key that writes to a vault, from the sync key of the epoch in use.
pub fn write_key(sync: &Secret, vault: &VaultId) -> KeyPair {
    KeyPair::from_seed(&sync.derive(WRITE_KEY, &vault.0))
}

/// The key by which the device that opened a vault stays its owner.
pub fn owner_key(device: &KeyPair, vault: &VaultId) -> KeyPair {
    KeyPair::from_seed(&device.seed().derive(OWNER_KEY, &vault.0))
}

/// Proves possession of the write key of an access, for one connection.
pub fn prove_writer(key: &KeyPair, exporter: &[u8; 32], vault: &VaultId, number: u64) -> Signature {
    key.sign(SESSION, &[exporter, &vault.0, &number.to_be_bytes()])
}

/// Who may read and write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The vault.
    pub vault: VaultId,
    /// Counts the vault's accesses from 1.
    pub number: u64,
    /// The public half of the owner's key; never changes.
    pub owner: [u8; 32],
    /// The public half of the write key.
    pub write: [u8; 32],
    /// Who may read, ascending.
    pub readers: Vec<ReaderTag>,
    /// By the owner, or by the write key of the access before.
    pub signature: Signature,
}
wire_struct!(Access {
    vault,
    number,
    owner,
    write,
    readers: list(READERS_MAX),
    signature
});

impl Access {
    /// States an access, signed by `by`.
    pub fn issue(
        vault: VaultId,
        number: u64,
        owner: [u8; 32],
        write: [u8; 32],
        readers: Vec<ReaderTag>,
        by: &KeyPair,
    ) -> Self {
        let mut access = Self {
            vault,
            number,
            owner,
            write,
            readers,
            signature: [0; 64],
        };
        access.readers.sort_unstable();
        access.readers.dedup();
        access.readers.truncate(READERS_MAX);
        access.signature = by.sign(ACCESS, &[&access.signed()]);
        access
    }

    /// Whether it may stand in the place of `before`, or be a vault's first.
    pub fn verify(&self, before: Option<&Self>) -> Result<(), NotAuthentic> {
        let ascending = self.readers.windows(2).all(|pair| pair[0] < pair[1]);
        let follows = match before {
            None => self.number == 1,
            Some(before) => {
                before.number.checked_add(1) == Some(self.number)
                    && before.vault == self.vault
                    && before.owner == self.owner
            }
        };
        if !ascending || !follows {
            return Err(NotAuthentic);
        }
        let signed = self.signed();
        let by = |key: &[u8; 32]| crypto::verify(key, ACCESS, &[&signed], &self.signature);
        match before {
            Some(before) => by(&before.write).or_else(|_| by(&self.owner)),
            None => by(&self.owner),
        }
    }

    /// Whether a device may read.
    pub fn admits(&self, device: &DeviceId) -> bool {
        self.readers.binary_search(&reader_tag(&self.vault, device)).is_ok()
    }

    /// Stands for who may read and write, whatever the number.
    pub fn fingerprint(&self) -> [u8; 8] {
        fingerprint(&self.write, &self.readers)
    }

    /// Whether the caller of a connection proves to hold the write key.
    pub fn is_writer(&self, exporter: &[u8; 32], proof: &Signature) -> bool {
        let parts: [&[u8]; 3] = [exporter, &self.vault.0, &self.number.to_be_bytes()];
        crypto::verify(&self.write, SESSION, &parts, proof).is_ok()
    }

    fn signed(&self) -> Vec<u8> {
        let mut out = self.vault.0.to_vec();
        self.number.encode(&mut out);
        self.owner.encode(&mut out);
        self.write.encode(&mut out);
        put_list(&mut out, &self.readers);
        out
    }
}

/// Stands for a write key and readers, ascending.
pub fn fingerprint(write: &[u8; 32], readers: &[ReaderTag]) -> [u8; 8] {
    let mut list = Vec::new();
    put_list(&mut list, readers);
    crypto::prefix8(&crypto::hash(FINGERPRINT, &[write, &list]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> KeyPair {
        KeyPair::from_seed(&Secret([seed; 32]))
    }

    fn access(number: u64, write: u8, by: &KeyPair) -> Access {
        let vault = VaultId([1; 16]);
        let readers = vec![reader_tag(&vault, &DeviceId([5; 32]))];
        Access::issue(vault, number, key(9).public(), key(write).public(), readers, by)
    }

    #[test]
    fn the_next_one_is_signed_by_the_write_key_before_or_by_the_owner() {
        let first = access(1, 2, &key(9));
        assert_eq!(first.verify(None), Ok(()));
        assert_eq!(access(2, 3, &key(2)).verify(Some(&first)), Ok(()));
        assert_eq!(access(2, 3, &key(9)).verify(Some(&first)), Ok(()));
        assert!(access(2, 3, &key(3)).verify(Some(&first)).is_err(), "signed by itself");
        assert!(access(3, 3, &key(2)).verify(Some(&first)).is_err(), "one left out");
        assert!(
            access(1, 2, &key(2)).verify(None).is_err(),
            "a first one without the owner"
        );
    }

    #[test]
    fn only_listed_devices_read_and_only_the_write_key_writes() {
        let access = access(1, 2, &key(9));
        assert!(access.admits(&DeviceId([5; 32])));
        assert!(!access.admits(&DeviceId([6; 32])));
        let proof = prove_writer(&key(2), &[7; 32], &access.vault, 1);
        assert!(access.is_writer(&[7; 32], &proof));
        assert!(!access.is_writer(&[8; 32], &proof), "another connection");
        let other = prove_writer(&key(3), &[7; 32], &access.vault, 1);
        assert!(!access.is_writer(&[7; 32], &other));
    }
}
