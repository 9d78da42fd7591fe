//! Persons and devices: who somebody is, and with which keys.
//!
//! A *person* is an Ed25519 root key, shown as a BIP39 recovery phrase and used only to certify devices. A *device* is an Ed25519
//! key that is also its network address (its transport id). What is known of a person is a set of self-contained signed
//! [`IdentityRecord`]s, merged by [`IdentityState`] in any order with the same result: certificates and revocations signed by the root,
//! prekeys and profile names signed by the device they speak of, the highest number winning.
//!
//! A prekey is the X25519 key that room secrets are sealed to (HPKE). It is rotated every [`PREKEY_ROTATION_DAYS`] days; the old
//! private half is kept until the device has caught up with all its rooms.

use std::collections::BTreeMap;

use bip39::Mnemonic;
use rand_core::CryptoRng;
use thiserror::Error;

use crate::crypto::{self, KeyPair, NotAuthentic, SealKeyPair, Secret, Signature};
use crate::wire::Wire;
use crate::{wire_enum, wire_id, wire_struct};

wire_id!(
    /// A person: the public half of the root key.
    PersonId,
    32
);
wire_id!(
    /// A device: the public half of its key, which is also its transport id.
    DeviceId,
    32
);

/// How often a device makes a new prekey.
pub const PREKEY_ROTATION_DAYS: u64 = 7;
/// The longest name of a person, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 64;
/// The most devices that a person may have certified.
pub const DEVICES_MAX: usize = 16;
/// The most records that an identity bundle may hold.
pub const RECORDS_MAX: usize = 4 * DEVICES_MAX;

const CERTIFY: &str = "offhook 1 identity device certificate";
const REVOKE: &str = "offhook 1 identity device revocation";
const PREKEY: &str = "offhook 1 identity prekey";
const PROFILE: &str = "offhook 1 identity profile";
const ROOT_FROM_PHRASE: &str = "offhook 1 root key from recovery phrase";
const SAFETY_NUMBER: &str = "offhook 1 safety number";

/// A recovery phrase that is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this is not a recovery phrase of 24 words; check the spelling and the order")]
pub struct BadPhrase;

/// The root key of a person.
#[derive(Debug, Clone)]
pub struct RootKey {
    entropy: Secret,
    pair: KeyPair,
}

impl RootKey {
    /// A new person.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        Self::from_entropy(Secret::random(rng))
    }

    /// From the entropy that the recovery phrase encodes.
    pub fn from_entropy(entropy: Secret) -> Self {
        let pair = KeyPair::from_seed(&entropy.derive(ROOT_FROM_PHRASE, b""));
        Self { entropy, pair }
    }

    /// From the 24 words of the recovery phrase (BIP39, English).
    pub fn from_phrase(words: &str) -> Result<Self, BadPhrase> {
        let mnemonic = Mnemonic::parse_in_normalized(bip39::Language::English, words).map_err(|_| BadPhrase)?;
        let entropy = mnemonic.to_entropy().try_into().map_err(|_| BadPhrase)?;
        Ok(Self::from_entropy(Secret(entropy)))
    }

    /// The recovery phrase: 24 words.
    pub fn phrase(&self) -> String {
        let mnemonic = Mnemonic::from_entropy(&self.entropy.0).expect("32 bytes are a valid BIP39 length");
        mnemonic.to_string()
    }

    /// The entropy, to store.
    pub fn entropy(&self) -> &Secret {
        &self.entropy
    }

    /// The person.
    pub fn person(&self) -> PersonId {
        PersonId(self.pair.public())
    }

    /// Certifies a device.
    pub fn certify(&self, device: DeviceId, number: u64) -> IdentityRecord {
        let person = self.person();
        let signature = self.pair.sign(CERTIFY, &[&person.0, &device.0, &number.to_bytes()]);
        IdentityRecord::Device {
            person,
            device,
            number,
            signature,
        }
    }

    /// Revokes a device.
    pub fn revoke(&self, device: DeviceId, number: u64) -> IdentityRecord {
        let person = self.person();
        let signature = self.pair.sign(REVOKE, &[&person.0, &device.0, &number.to_bytes()]);
        IdentityRecord::Revoked {
            person,
            device,
            number,
            signature,
        }
    }
}

/// The key of this device.
#[derive(Debug, Clone)]
pub struct DeviceKey(pub KeyPair);

impl DeviceKey {
    /// The device.
    pub fn device(&self) -> DeviceId {
        DeviceId(self.0.public())
    }

    /// States this device's prekey.
    pub fn state_prekey(&self, number: u64, prekey: &SealKeyPair) -> IdentityRecord {
        self.state_public(number, prekey.public())
    }

    /// States a prekey by its public half.
    pub(crate) fn state_public(&self, number: u64, public: [u8; 32]) -> IdentityRecord {
        let device = self.device();
        let signature = self.0.sign(PREKEY, &[&device.0, &number.to_bytes(), &public]);
        IdentityRecord::Prekey {
            device,
            number,
            public,
            signature,
        }
    }

    /// States the name that this person goes by.
    pub fn state_profile(&self, number: u64, name: &str) -> IdentityRecord {
        let device = self.device();
        let signature = self.0.sign(PROFILE, &[&device.0, &number.to_bytes(), name.as_bytes()]);
        IdentityRecord::Profile {
            device,
            number,
            name: name.to_owned(),
            signature,
        }
    }
}

/// One signed statement about a person or a device. Stands on its own; the highest `number` of a kind wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentityRecord {
    /// `device` is one of `person`'s (signed by the root).
    Device {
        /// The person.
        person: PersonId,
        /// The device.
        device: DeviceId,
        /// Counts the root's statements about this device.
        number: u64,
        /// By the root.
        signature: Signature,
    },
    /// `device` is no longer one of `person`'s (signed by the root).
    Revoked {
        /// The person.
        person: PersonId,
        /// The device.
        device: DeviceId,
        /// Counts the root's statements about this device.
        number: u64,
        /// By the root.
        signature: Signature,
    },
    /// Room secrets for `device` are sealed to `public` (signed by the device).
    Prekey {
        /// The device.
        device: DeviceId,
        /// Counts the device's prekeys.
        number: u64,
        /// The X25519 public key.
        public: [u8; 32],
        /// By the device.
        signature: Signature,
    },
    /// The person behind `device` goes by `name` (signed by the device).
    Profile {
        /// The device.
        device: DeviceId,
        /// Counts the device's profiles.
        number: u64,
        /// What the person calls itself; unverified, shown as such.
        name: String,
        /// By the device.
        signature: Signature,
    },
}
wire_enum!(IdentityRecord {
    0 => Device { person, device, number, signature },
    1 => Revoked { person, device, number, signature },
    2 => Prekey { device, number, public, signature },
    3 => Profile { device, number, name: text(NAME_BYTES_MAX), signature },
});

impl IdentityRecord {
    /// Checks the signature, and that a prekey is one that secrets can be sealed to.
    pub fn verify(&self) -> Result<(), NotAuthentic> {
        match self {
            Self::Device {
                person,
                device,
                number,
                signature,
            } => crypto::verify(
                &person.0,
                CERTIFY,
                &[&person.0, &device.0, &number.to_bytes()],
                signature,
            ),
            Self::Revoked {
                person,
                device,
                number,
                signature,
            } => crypto::verify(
                &person.0,
                REVOKE,
                &[&person.0, &device.0, &number.to_bytes()],
                signature,
            ),
            Self::Prekey {
                device,
                number,
                public,
                signature,
            } if crypto::can_be_sealed_to(public) => {
                crypto::verify(&device.0, PREKEY, &[&device.0, &number.to_bytes(), public], signature)
            }
            // Every sender would try again to seal to it, in an entry of its own.
            Self::Prekey { .. } => Err(NotAuthentic),
            Self::Profile {
                device,
                number,
                name,
                signature,
            } => crypto::verify(
                &device.0,
                PROFILE,
                &[&device.0, &number.to_bytes(), name.as_bytes()],
                signature,
            ),
        }
    }
}

/// A bundle of records about one person, as it travels when the person enters a room.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IdentityBundle {
    /// In any order.
    pub records: Vec<IdentityRecord>,
}
wire_struct!(IdentityBundle {
    records: list(RECORDS_MAX)
});

/// What is known of one device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct KnownDevice {
    certificate: Option<IdentityRecord>,
    revocation: Option<IdentityRecord>,
    prekey: Option<IdentityRecord>,
    profile: Option<IdentityRecord>,
}

/// What is known of one person: the merge of all valid records, equal at everybody who holds the same records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityState {
    person: PersonId,
    devices: BTreeMap<DeviceId, KnownDevice>,
}

impl IdentityState {
    /// Nothing known yet.
    pub fn new(person: PersonId) -> Self {
        Self {
            person,
            devices: BTreeMap::new(),
        }
    }

    /// Merges one record; true if it told something new. Records about other persons' devices, badly signed ones and
    /// devices beyond [`DEVICES_MAX`] are refused.
    pub fn merge(&mut self, record: &IdentityRecord) -> Result<bool, NotAuthentic> {
        record.verify()?;
        self.merge_verified(record)
    }

    /// [`Self::merge`] for a record whose signature was checked before.
    pub(crate) fn merge_verified(&mut self, record: &IdentityRecord) -> Result<bool, NotAuthentic> {
        let (device, by_root) = match record {
            IdentityRecord::Device { person, device, .. } | IdentityRecord::Revoked { person, device, .. } => {
                if *person != self.person {
                    return Err(NotAuthentic);
                }
                (*device, true)
            }
            IdentityRecord::Prekey { device, .. } | IdentityRecord::Profile { device, .. } => (*device, false),
        };
        if !self.devices.contains_key(&device) && (!by_root || self.devices.len() >= DEVICES_MAX) {
            return Err(NotAuthentic);
        }
        let known = self.devices.entry(device).or_default();
        let slot = match record {
            IdentityRecord::Device { .. } => &mut known.certificate,
            IdentityRecord::Revoked { .. } => &mut known.revocation,
            IdentityRecord::Prekey { .. } => &mut known.prekey,
            IdentityRecord::Profile { .. } => &mut known.profile,
        };
        let newer = slot.as_ref().is_none_or(|old| rank(old) < rank(record));
        if newer {
            *slot = Some(record.clone());
        }
        Ok(newer)
    }

    /// Merges a bundle: records signed by the root first, so that the order within a bundle does not matter.
    pub fn merge_bundle(&mut self, bundle: &IdentityBundle) -> Result<bool, NotAuthentic> {
        let by_root = |r: &&IdentityRecord| matches!(r, IdentityRecord::Device { .. } | IdentityRecord::Revoked { .. });
        let mut news = false;
        for record in bundle.records.iter().filter(by_root) {
            news |= self.merge(record)?;
        }
        for record in bundle.records.iter().filter(|r| !by_root(r)) {
            news |= self.merge(record)?;
        }
        Ok(news)
    }

    /// The person.
    pub fn person(&self) -> PersonId {
        self.person
    }

    /// Devices certified and not revoked, in order.
    pub fn devices(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.devices
            .iter()
            .filter(|(_, known)| known.is_live())
            .map(|(device, _)| *device)
    }

    /// Whether `device` is certified and not revoked.
    pub fn has_device(&self, device: &DeviceId) -> bool {
        self.devices.get(device).is_some_and(KnownDevice::is_live)
    }

    /// The newest prekey of a device.
    pub fn prekey(&self, device: &DeviceId) -> Option<[u8; 32]> {
        match self.devices.get(device)?.prekey.as_ref()? {
            IdentityRecord::Prekey { public, .. } => Some(*public),
            _ => None,
        }
    }

    /// The name that the person goes by: of the profile with the highest number over all live devices.
    pub fn name(&self) -> Option<&str> {
        let profiles = self
            .devices
            .values()
            .filter(|known| known.is_live())
            .filter_map(|known| known.profile.as_ref());
        match profiles.max_by_key(|record| rank(record))? {
            IdentityRecord::Profile { name, .. } => Some(name),
            _ => None,
        }
    }

    /// All records, to hand on.
    pub fn bundle(&self) -> IdentityBundle {
        let records = self.devices.values().flat_map(|known| {
            [&known.certificate, &known.revocation, &known.prekey, &known.profile]
                .into_iter()
                .flatten()
                .cloned()
        });
        IdentityBundle {
            records: records.collect(),
        }
    }
}

impl KnownDevice {
    fn is_live(&self) -> bool {
        self.certificate.is_some() && self.revocation.is_none()
    }
}

/// What decides between two records of one kind: the number, then the bytes.
fn rank(record: &IdentityRecord) -> (u64, Vec<u8>) {
    let number = match record {
        IdentityRecord::Device { number, .. }
        | IdentityRecord::Revoked { number, .. }
        | IdentityRecord::Prekey { number, .. }
        | IdentityRecord::Profile { number, .. } => *number,
    };
    (number, record.to_bytes())
}

/// The number that two people compare to know that nobody stands between them: 60 digits in groups of five, the same on
/// both sides.
pub fn safety_number(a: &PersonId, b: &PersonId) -> String {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    let seed = Secret(crypto::hash(SAFETY_NUMBER, &[&low.0, &high.0]));
    let group = |i: u8| {
        let hash = seed.mac(&[i]);
        let word = u64::from_be_bytes(crypto::prefix8(&hash));
        format!("{:05}", word % 100_000)
    };
    (0..12).map(group).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    fn person(seed: u64) -> (RootKey, DeviceKey, IdentityState) {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let root = RootKey::random(&mut rng);
        let device = DeviceKey(KeyPair::random(&mut rng));
        let mut state = IdentityState::new(root.person());
        state.merge(&root.certify(device.device(), 1)).unwrap();
        (root, device, state)
    }

    #[test]
    fn the_phrase_gives_back_the_person() {
        let (root, ..) = person(1);
        assert_eq!(root.phrase().split(' ').count(), 24);
        assert_eq!(RootKey::from_phrase(&root.phrase()).unwrap().person(), root.person());
        assert_eq!(RootKey::from_phrase("abandon abandon").unwrap_err(), BadPhrase);
    }

    #[test]
    fn records_merge_in_any_order() {
        let (root, device, mut state) = person(1);
        let prekeys = [1, 2].map(|n| SealKeyPair::from_seed(Secret([n; 32])));
        let newer = device.state_prekey(2, &prekeys[1]);
        let older = device.state_prekey(1, &prekeys[0]);
        assert_eq!(state.merge(&newer), Ok(true));
        assert_eq!(state.merge(&older), Ok(false));
        assert_eq!(state.prekey(&device.device()), Some(prekeys[1].public()));
        state.merge(&device.state_profile(1, "Ada")).unwrap();
        assert_eq!(state.name(), Some("Ada"));

        let mut copy = IdentityState::new(root.person());
        let mut bundle = state.bundle();
        bundle.records.reverse();
        copy.merge_bundle(&bundle).unwrap();
        assert_eq!(copy, state);
    }

    #[test]
    fn nobody_speaks_for_another() {
        let (_, _, mut ada) = person(1);
        let (bobs_root, bobs_device, _) = person(2);
        assert!(ada.merge(&bobs_root.certify(bobs_device.device(), 1)).is_err());
        assert!(ada.merge(&bobs_device.state_profile(1, "Ada")).is_err());
    }

    #[test]
    fn a_revoked_device_is_gone_for_good() {
        let (root, device, mut state) = person(1);
        state.merge(&root.revoke(device.device(), 2)).unwrap();
        state.merge(&root.certify(device.device(), 3)).unwrap();
        assert!(!state.has_device(&device.device()));
        assert_eq!(state.devices().count(), 0);
    }

    #[test]
    fn the_safety_number_is_the_same_on_both_sides() {
        let (ada, bob) = (person(1).0.person(), person(2).0.person());
        let number = safety_number(&ada, &bob);
        assert_eq!(number, safety_number(&bob, &ada));
        assert_eq!(number.chars().filter(char::is_ascii_digit).count(), 60);
        assert_ne!(number, safety_number(&ada, &person(3).0.person()));
    }
}
