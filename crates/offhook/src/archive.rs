//! What a backup holds: a manifest, the identity, and the store as it was at one moment; all of it sealed by [`crate::seal`].
//!
//! ```text
//! manifest length u32  manifest (JSON)  identity.key  store.db
//! ```
//!
//! The manifest states the length of each file. Only these two names are ever written, in this order, so a backup cannot reach outside the
//! folder that it is unpacked into. A restored home opens a new log by itself, as any copied home does.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::seal::{Opener, Sealer, Unsealable};

/// The largest manifest, in bytes.
const MANIFEST_BYTES_MAX: u32 = 64 * 1024;
/// The largest identity file, in bytes.
const IDENTITY_BYTES_MAX: u64 = 4096;
/// The format of the archive.
const FORMAT: u32 = 1;

/// The name of the identity file in a home.
pub(crate) const IDENTITY: &str = "identity.key";
/// The name of the store in a home.
pub(crate) const STORE: &str = "store.db";

/// What stands at the head of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    format: u32,
    /// The version of the program that made it.
    pub(crate) offhook: String,
    /// When, RFC 3339.
    pub(crate) made: String,
    pub(crate) person: String,
    pub(crate) device: String,
    pub(crate) name: String,
    pub(crate) rooms: u64,
    pub(crate) entries: u64,
    identity_bytes: u64,
    store_bytes: u64,
}

/// What is known of a home when it is backed up.
pub(crate) struct Holder {
    pub(crate) made: String,
    pub(crate) person: String,
    pub(crate) device: String,
    pub(crate) name: String,
    pub(crate) rooms: u64,
    pub(crate) entries: u64,
}

/// Writes a backup of the files in a folder to `to`.
pub(crate) fn write<W: Write>(
    holder: Holder,
    identity: &Path,
    store: &Path,
    passphrase: &str,
    random: [u8; 35],
    to: W,
) -> io::Result<W> {
    let identity = Zeroizing::new(fs::read(identity)?);
    let mut store = File::open(store)?;
    let manifest = Manifest {
        format: FORMAT,
        offhook: env!("CARGO_PKG_VERSION").to_owned(),
        made: holder.made,
        person: holder.person,
        device: holder.device,
        name: holder.name,
        rooms: holder.rooms,
        entries: holder.entries,
        identity_bytes: identity.len() as u64,
        store_bytes: store.metadata()?.len(),
    };
    let json = serde_json::to_vec(&manifest)?;
    let length = u32::try_from(json.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    let mut sealer = Sealer::new(to, passphrase, random)?;
    sealer.write_all(&length.to_be_bytes())?;
    sealer.write_all(&json)?;
    sealer.write_all(&identity)?;
    let copied = io::copy(&mut store, &mut sealer)?;
    if copied != manifest.store_bytes {
        return Err(io::Error::other("the store changed while it was copied"));
    }
    sealer.finish()
}

/// Unpacks a backup into an empty folder. All of it is read to its end, so what comes back is authentic and whole.
pub(crate) fn unpack(from: impl Read, passphrase: &str, folder: &Path) -> Result<Manifest, Unsealable> {
    let mut opener = Opener::new(from, passphrase)?;
    let manifest = read_manifest(&mut opener)?;
    if manifest.identity_bytes > IDENTITY_BYTES_MAX {
        return Err(Unsealable::Damaged);
    }
    copy_exactly(&mut opener, manifest.identity_bytes, &folder.join(IDENTITY))?;
    copy_exactly(&mut opener, manifest.store_bytes, &folder.join(STORE))?;
    let mut rest = [0; 1];
    match opener.read(&mut rest).map_err(damage)? {
        0 => Ok(manifest),
        _ => Err(Unsealable::Damaged),
    }
}

fn read_manifest(opener: &mut impl Read) -> Result<Manifest, Unsealable> {
    let mut length = [0; 4];
    opener.read_exact(&mut length).map_err(damage)?;
    let length = u32::from_be_bytes(length);
    if length > MANIFEST_BYTES_MAX {
        return Err(Unsealable::Damaged);
    }
    let mut json = vec![0; length as usize];
    opener.read_exact(&mut json).map_err(damage)?;
    let manifest: Manifest = serde_json::from_slice(&json).map_err(|_| Unsealable::Version)?;
    match manifest.format {
        FORMAT => Ok(manifest),
        _ => Err(Unsealable::Version),
    }
}

fn copy_exactly(from: &mut impl Read, bytes: u64, to: &Path) -> Result<(), Unsealable> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let copied = io::copy(&mut from.take(bytes), &mut file).map_err(damage)?;
    if copied != bytes {
        return Err(Unsealable::Damaged);
    }
    file.sync_all()?;
    Ok(())
}

/// What [`Opener`] reports while reading: damage to the archive, or a failing disk.
fn damage(error: io::Error) -> Unsealable {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Unsealable::Damaged,
        _ => Unsealable::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(store: &[u8]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let (identity_path, store_path) = (folder.path().join("i"), folder.path().join("s"));
        fs::write(&identity_path, "identity").unwrap();
        fs::write(&store_path, store).unwrap();
        let holder = Holder {
            made: "2026-11-23T15:04:05.000Z".into(),
            person: "01".into(),
            device: "02".into(),
            name: "Ada".into(),
            rooms: 1,
            entries: 2,
        };
        write(holder, &identity_path, &store_path, "secret", [3; 35], Vec::new()).unwrap()
    }

    #[test]
    fn what_was_packed_is_unpacked() {
        let store: Vec<u8> = (0..200_000u32).map(|i| (i % 253) as u8).collect();
        let bytes = archive(&store);
        let folder = tempfile::tempdir().unwrap();
        let manifest = unpack(&bytes[..], "secret", folder.path()).unwrap();
        assert_eq!((manifest.name.as_str(), manifest.entries), ("Ada", 2));
        assert_eq!(fs::read(folder.path().join(STORE)).unwrap(), store);
        assert_eq!(fs::read(folder.path().join(IDENTITY)).unwrap(), b"identity");
    }

    #[test]
    fn every_cut_is_damage() {
        let bytes = archive(&[7; 100_000]);
        for cut in [bytes.len() - 1, bytes.len() / 2, 90] {
            let folder = tempfile::tempdir().unwrap();
            let error = unpack(&bytes[..cut], "secret", folder.path()).unwrap_err();
            assert!(matches!(error, Unsealable::Damaged), "{cut}: {error}");
        }
    }
}
