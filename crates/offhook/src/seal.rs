//! Sealing a stream with a passphrase: Argon2id (RFC 9106) stretches the passphrase, XChaCha20-Poly1305 in the STREAM construction (Hoang, Reyhanitabar,
//! Rogaway and Vizár 2015) seals chunks of 64 KiB.
//!
//! ```text
//! "offhook backup 1\n"  memory KiB u32  passes u32  lanes u32  salt 16  nonce prefix 19  key check 16  chunk...
//! ```
//!
//! Integers are big-endian. The key of the chunks is BLAKE3 keyed by Argon2's output over all of the header before the key check, so a changed header
//! opens nothing. A chunk's nonce is the prefix, its number (u32) and one byte that is 1 for the last chunk only: chunks cannot be
//! swapped, dropped or cut off unseen. The key check tells a wrong passphrase from a damaged file. Costs beyond [`MEMORY_KIB_MAX`] and its like are refused
//! before any memory is taken.

use std::io::{self, Read, Write};

use argon2::{Algorithm, Argon2, Params, Version};
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use thiserror::Error;
use zeroize::Zeroizing;

const MAGIC: &[u8; 17] = b"offhook backup 1\n";
const MAGIC_ANY_VERSION: &[u8] = b"offhook backup ";
const CHUNK_BYTES: usize = 64 * 1024;
const TAG_BYTES: usize = 16;
const SALT_BYTES: usize = 16;
const PREFIX_BYTES: usize = 19;
const CHECK_BYTES: usize = 16;
const HEADER_BYTES: usize = MAGIC.len() + 12 + SALT_BYTES + PREFIX_BYTES;

/// RFC 9106, section 4, second recommendation: 64 MiB, three passes, four lanes.
const COST: Cost = Cost {
    memory_kib: 64 * 1024,
    passes: 3,
    lanes: 4,
};
/// The most memory that a header may ask for.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
/// The most passes that a header may ask for.
const PASSES_MAX: u32 = 16;
/// The most lanes that a header may ask for.
const LANES_MAX: u32 = 16;

const CHUNK_KEY: &[u8] = b"offhook 1 backup chunks";
const CHECK_KEY: &[u8] = b"offhook 1 backup key check";

/// Why a sealed stream does not open.
#[derive(Debug, Error)]
pub(crate) enum Unsealable {
    /// It is some other file.
    #[error("this is not an Offhook backup")]
    NotABackup,
    /// It was sealed by a version with another format.
    #[error("this backup was made by another version of Offhook; restore it with that version or a newer one")]
    Version,
    /// The passphrase is not the one it was sealed with.
    #[error("the passphrase is wrong")]
    Passphrase,
    /// It is cut short or changed.
    #[error("this backup is damaged: it was cut short or changed; use another copy of it")]
    Damaged,
    /// It cannot be read.
    #[error("cannot read the backup: {0}")]
    Io(#[from] io::Error),
}

#[derive(Clone, Copy)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// Seals what is written to it. Nothing is complete before [`Sealer::finish`].
pub(crate) struct Sealer<W> {
    to: W,
    chunks: Chunks,
    held: Zeroizing<Vec<u8>>,
}

impl<W: Write> Sealer<W> {
    /// Writes the header. `random` must be fresh.
    pub(crate) fn new(mut to: W, passphrase: &str, random: [u8; SALT_BYTES + PREFIX_BYTES]) -> io::Result<Self> {
        let mut header = MAGIC.to_vec();
        for cost in [COST.memory_kib, COST.passes, COST.lanes] {
            header.extend_from_slice(&cost.to_be_bytes());
        }
        header.extend_from_slice(&random);
        let keys = Keys::derive(passphrase, &header, COST).map_err(|_| io::ErrorKind::OutOfMemory)?;
        to.write_all(&header)?;
        to.write_all(&keys.check)?;
        Ok(Self {
            to,
            chunks: Chunks::new(&keys, &header),
            held: Zeroizing::new(Vec::with_capacity(CHUNK_BYTES)),
        })
    }

    /// Writes the last chunk and gives back what was written to.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        let sealed = self.chunks.seal(&self.held, true)?;
        self.to.write_all(&sealed)?;
        self.to.flush()?;
        Ok(self.to)
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk is held back until more comes: it may be the last.
        if self.held.len() == CHUNK_BYTES && !bytes.is_empty() {
            let sealed = self.chunks.seal(&self.held, false)?;
            self.to.write_all(&sealed)?;
            self.held.clear();
        }
        let taken = bytes.len().min(CHUNK_BYTES - self.held.len());
        self.held.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Reads what was sealed. Every byte it gives is authentic; the end is given only where the stream was finished.
pub(crate) struct Opener<R> {
    from: R,
    chunks: Chunks,
    next: Vec<u8>,
    plain: Zeroizing<Vec<u8>>,
    read: usize,
    ended: bool,
}

impl<R: Read> Opener<R> {
    /// Reads the header and checks the passphrase.
    pub(crate) fn new(mut from: R, passphrase: &str) -> Result<Self, Unsealable> {
        let header = read_up_to(&mut from, HEADER_BYTES + CHECK_BYTES)?;
        if !header.starts_with(MAGIC) {
            let other_version = header.starts_with(MAGIC_ANY_VERSION);
            return Err(if other_version {
                Unsealable::Version
            } else {
                Unsealable::NotABackup
            });
        }
        let (header, check) = header.split_at_checked(HEADER_BYTES).ok_or(Unsealable::Damaged)?;
        let cost = Cost::read(header)?;
        let keys = Keys::derive(passphrase, header, cost)?;
        if check.len() != CHECK_BYTES {
            return Err(Unsealable::Damaged);
        }
        if check != keys.check {
            return Err(Unsealable::Passphrase);
        }
        let next = read_up_to(&mut from, CHUNK_BYTES + TAG_BYTES)?;
        Ok(Self {
            from,
            chunks: Chunks::new(&keys, header),
            next,
            plain: Zeroizing::default(),
            read: 0,
            ended: false,
        })
    }

    fn open_next(&mut self) -> Result<(), Unsealable> {
        let following = read_up_to(&mut self.from, CHUNK_BYTES + TAG_BYTES)?;
        let last = following.is_empty();
        self.plain = self.chunks.open(&self.next, last)?;
        self.read = 0;
        self.ended = last;
        self.next = following;
        Ok(())
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.read == self.plain.len() {
            if self.ended || into.is_empty() {
                return Ok(0);
            }
            self.open_next().map_err(|error| match error {
                Unsealable::Io(io) => io,
                other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
            })?;
        }
        let taken = into.len().min(self.plain.len() - self.read);
        into[..taken].copy_from_slice(&self.plain[self.read..self.read + taken]);
        self.read += taken;
        Ok(taken)
    }
}

impl Cost {
    fn read(header: &[u8]) -> Result<Self, Unsealable> {
        let at = |i: usize| {
            let start = MAGIC.len() + 4 * i;
            let mut word = [0; 4];
            word.copy_from_slice(&header[start..start + 4]);
            u32::from_be_bytes(word)
        };
        let cost = Self {
            memory_kib: at(0),
            passes: at(1),
            lanes: at(2),
        };
        let bounded = cost.memory_kib <= MEMORY_KIB_MAX && cost.passes <= PASSES_MAX && cost.lanes <= LANES_MAX;
        if bounded { Ok(cost) } else { Err(Unsealable::Damaged) }
    }
}

struct Keys {
    chunks: Zeroizing<[u8; 32]>,
    check: [u8; CHECK_BYTES],
}

impl Keys {
    fn derive(passphrase: &str, header: &[u8], cost: Cost) -> Result<Self, Unsealable> {
        let salt = &header[MAGIC.len() + 12..MAGIC.len() + 12 + SALT_BYTES];
        let params =
            Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(|_| Unsealable::Damaged)?;
        let mut stretched = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.as_bytes(), salt, &mut stretched[..])
            .map_err(|_| Unsealable::Damaged)?;
        let derive = |purpose: &[u8]| {
            let mut hasher = blake3::Hasher::new_keyed(&stretched);
            hasher.update(purpose).update(header);
            *hasher.finalize().as_bytes()
        };
        let mut check = [0; CHECK_BYTES];
        check.copy_from_slice(&derive(CHECK_KEY)[..CHECK_BYTES]);
        Ok(Self {
            chunks: Zeroizing::new(derive(CHUNK_KEY)),
            check,
        })
    }
}

/// The STREAM construction: a cipher, a nonce prefix and a counter.
struct Chunks {
    cipher: XChaCha20Poly1305,
    prefix: [u8; PREFIX_BYTES],
    number: u32,
}

impl Chunks {
    fn new(keys: &Keys, header: &[u8]) -> Self {
        let mut prefix = [0; PREFIX_BYTES];
        prefix.copy_from_slice(&header[HEADER_BYTES - PREFIX_BYTES..]);
        let key: &[u8; 32] = &keys.chunks;
        Self {
            cipher: XChaCha20Poly1305::new(key.into()),
            prefix,
            number: 0,
        }
    }

    fn nonce(&mut self, last: bool) -> Option<XNonce> {
        let mut nonce = [0; 24];
        nonce[..PREFIX_BYTES].copy_from_slice(&self.prefix);
        nonce[PREFIX_BYTES..PREFIX_BYTES + 4].copy_from_slice(&self.number.to_be_bytes());
        nonce[PREFIX_BYTES + 4] = u8::from(last);
        self.number = self.number.checked_add(1)?;
        Some(nonce.into())
    }

    fn seal(&mut self, plain: &[u8], last: bool) -> io::Result<Vec<u8>> {
        let too_large = || {
            io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the backup is larger than its format allows",
            )
        };
        let nonce = self.nonce(last).ok_or_else(too_large)?;
        self.cipher.encrypt(&nonce, plain).map_err(|_| too_large())
    }

    fn open(&mut self, sealed: &[u8], last: bool) -> Result<Zeroizing<Vec<u8>>, Unsealable> {
        let nonce = self.nonce(last).ok_or(Unsealable::Damaged)?;
        let plain = self.cipher.decrypt(&nonce, sealed).map_err(|_| Unsealable::Damaged)?;
        Ok(Zeroizing::new(plain))
    }
}

/// Reads until `limit` bytes are here or the source ends.
fn read_up_to(from: &mut impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(plain: &[u8]) -> Vec<u8> {
        let mut sealer = Sealer::new(Vec::new(), "correct horse", [7; 35]).unwrap();
        sealer.write_all(plain).unwrap();
        sealer.finish().unwrap()
    }

    fn opened(bytes: &[u8], passphrase: &str) -> Result<Vec<u8>, String> {
        let mut opener = Opener::new(bytes, passphrase).map_err(|e| e.to_string())?;
        let mut plain = Vec::new();
        opener.read_to_end(&mut plain).map_err(|e| e.to_string())?;
        Ok(plain)
    }

    #[test]
    fn what_was_sealed_opens_at_every_chunk_boundary() {
        for len in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES] {
            let plain: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            assert_eq!(opened(&sealed(&plain), "correct horse"), Ok(plain), "{len}");
        }
    }

    #[test]
    fn a_wrong_passphrase_is_told_from_damage() {
        let bytes = sealed(b"hello");
        assert_eq!(opened(&bytes, "wrong horse"), Err(Unsealable::Passphrase.to_string()));
        assert_eq!(
            opened(b"PK\x03\x04 some zip", "x"),
            Err(Unsealable::NotABackup.to_string())
        );
        assert_eq!(
            opened(b"offhook backup 2\nmore", "x"),
            Err(Unsealable::Version.to_string())
        );
    }

    #[test]
    fn cuts_changes_and_additions_are_seen() {
        let whole = sealed(&[5; 2 * CHUNK_BYTES + 9]);
        let damaged = Err(Unsealable::Damaged.to_string());
        let first_chunk_end = HEADER_BYTES + CHECK_BYTES + CHUNK_BYTES + TAG_BYTES;
        for cut in [
            first_chunk_end,
            first_chunk_end + CHUNK_BYTES + TAG_BYTES,
            whole.len() - 1,
            40,
        ] {
            assert_eq!(opened(&whole[..cut], "correct horse"), damaged, "{cut}");
        }
        let mut changed = whole.clone();
        changed[first_chunk_end - 3] ^= 1;
        assert_eq!(opened(&changed, "correct horse"), damaged);
        let mut longer = whole;
        longer.push(0);
        assert_eq!(opened(&longer, "correct horse"), damaged);
    }

    #[test]
    fn a_header_cannot_ask_for_all_memory() {
        let mut bomb = sealed(b"hello");
        bomb[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert_eq!(opened(&bomb, "correct horse"), Err(Unsealable::Damaged.to_string()));
    }
}
