//! The few cryptographic operations that Offhook uses, one label per use.
//!
//! Hashing and key derivation are BLAKE3 (its `derive_key` mode with a context string that names the use), signatures are
//! Ed25519 (RFC 8032, strict verification), sealing is XChaCha20-Poly1305 or ChaCha20-Poly1305 (RFC 8439) under a key that is used for one message
//! only, and sealing to a device is HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305.
//! Randomness is an argument. Secrets are zeroized when dropped and print as `..`.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher, StreamCipherSeek};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
use curve25519_dalek::scalar::Scalar;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use hpke::{Deserializable, Kem as _, Serializable};
use rand_core::CryptoRng;
use sha2::{Digest, Sha512};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::wire::{Reader, Wire, WireError};

/// A BLAKE3 hash.
pub type Hash = [u8; 32];
/// An Ed25519 signature.
pub type Signature = [u8; 64];
/// Bytes that sealing adds to a plaintext (the Poly1305 tag).
pub const SEAL_BYTES: usize = 16;
/// Bytes of a 32-byte secret sealed to a device: encapsulated key, ciphertext, tag.
pub const HPKE_SECRET_BYTES: usize = 80;

/// A signature or a sealed text that does not open. The cause is not told apart, on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("not authentic")]
pub struct NotAuthentic;

/// A 32-byte secret: zeroized on drop, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret(pub [u8; 32]);

impl Secret {
    /// A fresh random secret.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// The secret for one purpose, bound to `input`. `context` names the use and must be unique in the program.
    pub fn derive(&self, context: &str, input: &[u8]) -> Secret {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(&self.0);
        hasher.update(input);
        Secret(*hasher.finalize().as_bytes())
    }

    /// A keyed hash (MAC) of `input`.
    pub fn mac(&self, input: &[u8]) -> Hash {
        *blake3::keyed_hash(&self.0, input).as_bytes()
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret(..)")
    }
}

impl Wire for Secret {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }
    fn decode(input: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self(input.array()?))
    }
}

/// The hash of `parts` one after the other, for the use that `context` names.
pub fn hash(context: &str, parts: &[&[u8]]) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key(context);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// The first eight bytes of a hash.
pub fn prefix8(hash: &Hash) -> [u8; 8] {
    let mut head = [0; 8];
    head.copy_from_slice(&hash[..8]);
    head
}

/// An Ed25519 key pair. Zeroized on drop, never printed.
#[derive(Clone)]
pub struct KeyPair(SigningKey);

impl KeyPair {
    /// From its 32-byte seed.
    pub fn from_seed(seed: &Secret) -> Self {
        Self(SigningKey::from_bytes(&seed.0))
    }

    /// A fresh random key pair.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        Self::from_seed(&Secret::random(rng))
    }

    /// The seed, to store or to hand to the transport.
    pub fn seed(&self) -> Secret {
        Secret(self.0.to_bytes())
    }

    /// The public key.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs `message` as it stands with the key that [`blind`] makes of this one, and tells that key. The signature is an ordinary one of Ed25519 (RFC 8032, 5.1.6), its secret scalar multiplied by
    /// the blinding factor and its nonce a hash of the seed, that key and the message.
    pub fn sign_blinded(&self, tweak: &[u8], message: &[u8]) -> ([u8; 32], Signature) {
        let factor = blinding_factor(&self.public(), tweak);
        let secret = Zeroizing::new(self.0.to_scalar() * factor);
        let public = EdwardsPoint::mul_base(&secret).compress().to_bytes();
        let mut hasher = blake3::Hasher::new_derive_key("offhook 1 blinded nonce");
        for part in [self.0.as_bytes(), &public, message] {
            hasher.update(part);
        }
        let nonce = Zeroizing::new(Scalar::from_bytes_mod_order_wide(&wide(&hasher)));
        let commitment = EdwardsPoint::mul_base(&nonce).compress().to_bytes();
        let mut challenge = Sha512::new();
        for part in [&commitment[..], &public, message] {
            challenge.update(part);
        }
        let challenge = Scalar::from_bytes_mod_order_wide(&challenge.finalize().into());
        let answer = *nonce + challenge * *secret;
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&commitment);
        signature[32..].copy_from_slice(answer.as_bytes());
        (public, signature)
    }

    /// Signs the hash of `parts` under `context`.
    pub fn sign(&self, context: &str, parts: &[&[u8]]) -> Signature {
        self.0.sign(&hash(context, parts)).to_bytes()
    }
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyPair(..)")
    }
}

/// Checks a signature made by [`KeyPair::sign`].
pub fn verify(public: &[u8; 32], context: &str, parts: &[&[u8]], signature: &Signature) -> Result<(), NotAuthentic> {
    let key = VerifyingKey::from_bytes(public).map_err(|_| NotAuthentic)?;
    let signature = ed25519_dalek::Signature::from_bytes(signature);
    key.verify_strict(&hash(context, parts), &signature)
        .map_err(|_| NotAuthentic)
}

/// Checks an Ed25519 signature over `message` as it stands, for protocols of others.
pub fn verify_plain(public: &[u8; 32], message: &[u8], signature: &Signature) -> Result<(), NotAuthentic> {
    let key = VerifyingKey::from_bytes(public).map_err(|_| NotAuthentic)?;
    let signature = ed25519_dalek::Signature::from_bytes(signature);
    key.verify_strict(message, &signature).map_err(|_| NotAuthentic)
}

/// A public key that only those can compute who know `public` and `tweak`, and in which nobody else recognises `public`: the key multiplied by a hash of both, as onion services of
/// Tor blind theirs (rend-spec-v3, A.2). [`KeyPair::sign_blinded`] signs for it. None where `public` is no key.
pub fn blind(public: &[u8; 32], tweak: &[u8]) -> Option<[u8; 32]> {
    let point = CompressedEdwardsY(*public)
        .decompress()
        .filter(|point| !point.is_small_order())?;
    Some((point * blinding_factor(public, tweak)).compress().to_bytes())
}

fn blinding_factor(public: &[u8; 32], tweak: &[u8]) -> Scalar {
    let mut hasher = blake3::Hasher::new_derive_key("offhook 1 blinding factor");
    hasher.update(public);
    hasher.update(tweak);
    Scalar::from_bytes_mod_order_wide(&wide(&hasher))
}

/// 64 bytes, so that the remainder by the group's order is as good as uniform.
fn wide(hasher: &blake3::Hasher) -> [u8; 64] {
    let mut bytes = [0; 64];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

/// SHA-1, for protocols of others that name places by it; nothing rests on it.
pub fn sha1(bytes: &[u8]) -> [u8; 20] {
    sha1_smol::Sha1::from(bytes).digest().bytes()
}

/// Seals `plain` under a key that is never used again (hence the zero nonce), bound to `aad`.
pub fn seal_once(key: &Secret, aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let cipher = ChaCha20Poly1305::new((&key.0).into());
    cipher
        .encrypt(&Nonce::default(), Payload { msg: plain, aad })
        .expect("sealing fails only above 256 GiB, and payloads are bounded")
}

/// Opens what [`seal_once`] sealed.
pub fn open_once(key: &Secret, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
    let cipher = ChaCha20Poly1305::new((&key.0).into());
    cipher
        .decrypt(&Nonce::default(), Payload { msg: sealed, aad })
        .map_err(|_| NotAuthentic)
}

/// Seals, or opens, a part of a file: its bytes from `offset` on, changed in place by the ChaCha20 stream (RFC 8439, 2.4; nonce zero).
///
/// It says nothing about who made the bytes. `offset` and length must stay below 256 GiB, where the stream would begin again.
pub fn apply_stream(key: &Secret, offset: u64, bytes: &mut [u8]) {
    let mut stream = ChaCha20::new(&key.0.into(), &[0; 12].into());
    stream.seek(offset);
    stream.apply_keystream(bytes);
}

type Kem = hpke::kem::X25519HkdfSha256;
type Kdf = hpke::kdf::HkdfSha256;
type HpkeAead = hpke::aead::ChaCha20Poly1305;

/// An X25519 key pair that others seal to (RFC 9180 `DeriveKeyPair` from a seed).
#[derive(Clone)]
pub struct SealKeyPair {
    seed: Secret,
    public: [u8; 32],
}

impl SealKeyPair {
    /// From its seed.
    pub fn from_seed(seed: Secret) -> Self {
        let (_, public) = Kem::derive_keypair(&seed.0);
        Self {
            public: public.to_bytes().into(),
            seed,
        }
    }

    /// The public key.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The seed, to store.
    pub fn seed(&self) -> &Secret {
        &self.seed
    }

    /// Opens a secret sealed by [`hpke_seal_secret`] with the same `info`.
    pub fn open_secret(&self, info: &[u8], sealed: &[u8; HPKE_SECRET_BYTES]) -> Result<Secret, NotAuthentic> {
        let (private, _) = Kem::derive_keypair(&self.seed.0);
        let encapsulated = <Kem as hpke::Kem>::EncappedKey::from_bytes(&sealed[..32]).map_err(|_| NotAuthentic)?;
        let mode = hpke::OpModeR::Base;
        let mut plain =
            hpke::single_shot_open::<HpkeAead, Kdf, Kem>(&mode, &private, &encapsulated, info, &sealed[32..], b"")
                .map_err(|_| NotAuthentic)?;
        let secret = plain.as_slice().try_into().map(Secret).map_err(|_| NotAuthentic);
        plain.zeroize();
        secret
    }
}

impl std::fmt::Debug for SealKeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealKeyPair(..)")
    }
}

/// The points of small order of Curve25519, in every encoding that X25519 takes (RFC 7748, section 6.1), the unused top bit left out: whatever is sealed to
/// them is refused by HPKE, for its shared secret would be zero.
const SMALL_ORDER: [[u8; 32]; 7] = {
    const fn low(first: u8) -> [u8; 32] {
        let mut point = [0; 32];
        point[0] = first;
        point
    }
    const fn high(first: u8) -> [u8; 32] {
        let mut point = [0xff; 32];
        point[0] = first;
        point[31] = 0x7f;
        point
    }
    [
        low(0),
        low(1),
        [
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
            0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ],
        [
            0x5f, 0x9c, 0x95, 0xbc, 0xa3, 0x50, 0x8c, 0x24, 0xb1, 0xd0, 0xb1, 0x55, 0x9c, 0x83, 0xef, 0x5b, 0x04, 0x44,
            0x5c, 0xc4, 0x58, 0x1c, 0x8e, 0x86, 0xd8, 0x22, 0x4e, 0xdd, 0xd0, 0x9f, 0x11, 0x57,
        ],
        high(0xec),
        high(0xed),
        high(0xee),
    ]
};

/// Whether a secret can be sealed to this key: its order is not small.
pub fn can_be_sealed_to(public: &[u8; 32]) -> bool {
    let mut point = *public;
    point[31] &= 0x7f;
    !SMALL_ORDER.contains(&point)
}

/// Seals `secret` to `public` (HPKE base mode), bound to `info`: 32 bytes of encapsulated key, then 48 of ciphertext.
pub fn hpke_seal_secret(
    public: &[u8; 32],
    info: &[u8],
    secret: &Secret,
    rng: &mut impl CryptoRng,
) -> Result<[u8; HPKE_SECRET_BYTES], NotAuthentic> {
    let public = <Kem as hpke::Kem>::PublicKey::from_bytes(public).map_err(|_| NotAuthentic)?;
    let mode = hpke::OpModeS::Base;
    let (encapsulated, ciphertext) =
        hpke::single_shot_seal_with_rng::<HpkeAead, Kdf, Kem>(&mode, &public, info, &secret.0, b"", rng)
            .map_err(|_| NotAuthentic)?;
    let mut sealed = [0; HPKE_SECRET_BYTES];
    sealed[..32].copy_from_slice(&encapsulated.to_bytes());
    sealed[32..].copy_from_slice(&ciphertext);
    Ok(sealed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    #[test]
    fn a_secret_sealed_to_a_device_opens_there_only() {
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let alice = SealKeyPair::from_seed(Secret::random(&mut rng));
        let bob = SealKeyPair::from_seed(Secret::random(&mut rng));
        let secret = Secret::random(&mut rng);
        let sealed = hpke_seal_secret(&alice.public(), b"info", &secret, &mut rng).unwrap();
        assert_eq!(alice.open_secret(b"info", &sealed), Ok(secret));
        assert_eq!(alice.open_secret(b"other", &sealed), Err(NotAuthentic));
        assert_eq!(bob.open_secret(b"info", &sealed), Err(NotAuthentic));
    }

    #[test]
    fn nothing_is_sealed_to_a_point_of_small_order() {
        let mut rng = ChaCha20Rng::seed_from_u64(3);
        let secret = Secret::random(&mut rng);
        for mut point in SMALL_ORDER {
            for top in [0, 0x80] {
                point[31] = (point[31] & 0x7f) | top;
                assert!(!can_be_sealed_to(&point));
                assert_eq!(hpke_seal_secret(&point, b"", &secret, &mut rng), Err(NotAuthentic));
            }
        }
        let honest = SealKeyPair::from_seed(Secret::random(&mut rng));
        assert!(can_be_sealed_to(&honest.public()));
    }

    #[test]
    fn a_changed_bit_is_noticed() {
        let mut rng = ChaCha20Rng::seed_from_u64(2);
        let key = Secret::random(&mut rng);
        let mut sealed = seal_once(&key, b"aad", b"hello");
        assert_eq!(open_once(&key, b"aad", &sealed).as_deref(), Ok(&b"hello"[..]));
        sealed[0] ^= 1;
        assert_eq!(open_once(&key, b"aad", &sealed), Err(NotAuthentic));

        let pair = KeyPair::random(&mut rng);
        let mut signature = pair.sign("test", &[b"a", b"b"]);
        assert_eq!(verify(&pair.public(), "test", &[b"ab"], &signature), Ok(()));
        assert_eq!(verify(&pair.public(), "other", &[b"ab"], &signature), Err(NotAuthentic));
        signature[3] ^= 1;
        assert_eq!(verify(&pair.public(), "test", &[b"ab"], &signature), Err(NotAuthentic));
    }

    #[test]
    fn secrets_do_not_print() {
        let secret = Secret([0xab; 32]);
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(format!("{:?}", KeyPair::from_seed(&secret)), "KeyPair(..)");
        assert_eq!(format!("{:?}", SealKeyPair::from_seed(secret)), "SealKeyPair(..)");
    }

    #[test]
    fn a_part_of_a_file_opens_by_itself() {
        let key = Secret([7; 32]);
        let plain: Vec<u8> = (0..1000u32).map(|i| i.to_le_bytes()[0]).collect();
        let mut sealed = plain.clone();
        apply_stream(&key, 0, &mut sealed);
        assert_ne!(sealed, plain);
        for (from, to) in [(0, 1000), (1, 64), (63, 130), (999, 1000)] {
            let mut part = sealed[from..to].to_vec();
            apply_stream(&key, from as u64, &mut part);
            assert_eq!(part, plain[from..to]);
        }
    }
}
