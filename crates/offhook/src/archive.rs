//! What a backup holds: a manifest, the identity, and the store as it was at one moment; where asked for also the files of messages that are whole; all
//! of it sealed by [`crate::seal`].
//!
//! ```text
//! manifest length u32  manifest (JSON)  identity.key  store.db  [ name length u8  name  length u64  bytes ]... 0
//! ```
//!
//! The manifest states the length of the first two. Files of messages are there from format 2 on, sealed as they lie in the home; their names are 64
//! hexadecimal digits and one of three endings. No other name is ever written, so a backup cannot reach outside the folder that it is unpacked into. A restored home opens a new log by itself, as any copied home does.

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
/// The format of the archive without files of messages.
const FORMAT: u32 = 1;
/// The format with them.
const FORMAT_WITH_FILES: u32 = 2;
/// The most names of files of messages, three to a file.
const NAMES_MAX: u64 = 3 << 20;
/// What lies in the home for a whole file, in the order in which it is written: who carries it comes last.
const ENDINGS: [&str; 3] = ["", ".tree", ".for"];

/// The name of the identity file in a home.
pub(crate) const IDENTITY: &str = "identity.key";
/// The name of the store in a home.
pub(crate) const STORE: &str = "store.db";
/// The folder of the files of messages in a home.
pub(crate) const FILES: &str = "files";

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

/// Writes a backup to `to`; with the files of messages that lie in the folder `files`, where one is given.
pub(crate) fn write<W: Write>(
    holder: Holder,
    identity: &Path,
    store: &Path,
    files: Option<&Path>,
    passphrase: &str,
    random: [u8; 35],
    to: W,
) -> io::Result<W> {
    let identity = Zeroizing::new(fs::read(identity)?);
    let mut store = File::open(store)?;
    let manifest = Manifest {
        format: files.map_or(FORMAT, |_| FORMAT_WITH_FILES),
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
    if let Some(folder) = files {
        write_files(folder, &mut sealer)?;
    }
    sealer.finish()
}

fn write_files(folder: &Path, to: &mut impl Write) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().into_string().unwrap_or_default();
        if !is_content(&name) {
            continue;
        }
        let open = |ending: &&str| File::open(folder.join(format!("{name}{ending}")));
        // One that was removed since it was listed is left out; what is open stays readable.
        let Ok(opened) = ENDINGS.iter().map(open).collect::<io::Result<Vec<File>>>() else {
            continue;
        };
        for (mut file, ending) in opened.into_iter().zip(ENDINGS) {
            let name = format!("{name}{ending}");
            let bytes = file.metadata()?.len();
            to.write_all(&[u8::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidData)?])?;
            to.write_all(name.as_bytes())?;
            to.write_all(&bytes.to_be_bytes())?;
            if io::copy(&mut Read::by_ref(&mut file).take(bytes), to)? != bytes {
                return Err(io::Error::other("a file changed while it was copied"));
            }
        }
    }
    to.write_all(&[0])
}

/// Takes the files of messages out, into a folder where one is given; returns how many whole files there were.
fn read_files(from: &mut impl Read, folder: Option<&Path>) -> Result<u64, Unsealable> {
    let mut whole = 0;
    for _ in 0..NAMES_MAX {
        let mut length = [0; 1];
        from.read_exact(&mut length).map_err(damage)?;
        if length == [0] {
            return Ok(whole);
        }
        let mut name = vec![0; usize::from(length[0])];
        from.read_exact(&mut name).map_err(damage)?;
        let name = String::from_utf8(name).map_err(|_| Unsealable::Damaged)?;
        let is_known = |ending: &&str| name.strip_suffix(*ending).is_some_and(is_content);
        if !ENDINGS.iter().any(is_known) {
            return Err(Unsealable::Damaged);
        }
        let mut bytes = [0; 8];
        from.read_exact(&mut bytes).map_err(damage)?;
        let bytes = u64::from_be_bytes(bytes);
        match folder {
            Some(folder) => copy_exactly(from, bytes, &folder.join(&name))?,
            None => pass_over(from, bytes)?,
        }
        whole += u64::from(is_content(&name));
    }
    Err(Unsealable::Damaged)
}

fn pass_over(from: &mut impl Read, bytes: u64) -> Result<(), Unsealable> {
    match io::copy(&mut from.take(bytes), &mut io::sink()).map_err(damage)? == bytes {
        true => Ok(()),
        false => Err(Unsealable::Damaged),
    }
}

/// Whether this is the name of a whole file: its content id.
fn is_content(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What came out of a backup.
pub(crate) struct Unpacked {
    pub(crate) manifest: Manifest,
    /// Files of messages that are in it.
    pub(crate) files: u64,
}

/// Unpacks a backup into an empty folder, but for the files of messages where they are not to be kept. All of it is read to its end, so what comes back is
/// authentic and whole.
pub(crate) fn unpack(
    from: impl Read,
    passphrase: &str,
    folder: &Path,
    keep_files: bool,
) -> Result<Unpacked, Unsealable> {
    let mut opener = Opener::new(from, passphrase)?;
    let manifest = read_manifest(&mut opener)?;
    if manifest.identity_bytes > IDENTITY_BYTES_MAX {
        return Err(Unsealable::Damaged);
    }
    copy_exactly(&mut opener, manifest.identity_bytes, &folder.join(IDENTITY))?;
    copy_exactly(&mut opener, manifest.store_bytes, &folder.join(STORE))?;
    let files = match manifest.format {
        FORMAT => 0,
        _ => {
            let kept = folder.join(FILES);
            if keep_files {
                fs::create_dir(&kept)?;
            }
            read_files(&mut opener, keep_files.then_some(kept.as_path()))?
        }
    };
    let mut rest = [0; 1];
    match opener.read(&mut rest).map_err(damage)? {
        0 => Ok(Unpacked { manifest, files }),
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
        FORMAT | FORMAT_WITH_FILES => Ok(manifest),
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

    fn archive(store: &[u8], files: Option<&Path>) -> Vec<u8> {
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
        write(
            holder,
            &identity_path,
            &store_path,
            files,
            "secret",
            [3; 35],
            Vec::new(),
        )
        .unwrap()
    }

    /// A file as it lies in a home, whole; and others that are not.
    fn shelf() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let (whole, part) = ("ab".repeat(32), "cd".repeat(32));
        for (name, text) in [
            (whole.clone(), "sealed"),
            (format!("{whole}.tree"), "hashes"),
            (format!("{whole}.for"), "entry"),
            (format!("{part}.part"), "half"),
            (format!("{part}.tree"), "hashes"),
            (format!("{part}.for"), "entry"),
            ("cd".repeat(31), "nothing of ours"),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn what_was_packed_is_unpacked() {
        let store: Vec<u8> = (0..200_000u32).map(|i| (i % 253) as u8).collect();
        let bytes = archive(&store, None);
        let folder = tempfile::tempdir().unwrap();
        let Unpacked { manifest, files } = unpack(&bytes[..], "secret", folder.path(), true).unwrap();
        assert_eq!(files, 0);
        assert_eq!((manifest.name.as_str(), manifest.entries), ("Ada", 2));
        assert_eq!(fs::read(folder.path().join(STORE)).unwrap(), store);
        assert_eq!(fs::read(folder.path().join(IDENTITY)).unwrap(), b"identity");
    }

    #[test]
    fn whole_files_come_along_where_asked_for() {
        let shelf = shelf();
        let bytes = archive(b"store", Some(shelf.path()));
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(unpack(&bytes[..], "secret", folder.path(), true).unwrap().files, 1);
        let kept = folder.path().join(FILES);
        assert_eq!(fs::read(kept.join("ab".repeat(32))).unwrap(), b"sealed");
        assert_eq!(fs::read_dir(&kept).unwrap().count(), 3);
        let looked_at = tempfile::tempdir().unwrap();
        assert_eq!(unpack(&bytes[..], "secret", looked_at.path(), false).unwrap().files, 1);
        assert!(!looked_at.path().join(FILES).exists());
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let record = |name: &str| {
            [
                &[name.len() as u8][..],
                name.as_bytes(),
                &3u64.to_be_bytes(),
                b"abc",
                &[0],
            ]
            .concat()
        };
        let content = "0f".repeat(32);
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_files(&mut &record(&content)[..], Some(folder.path())).unwrap(), 1);
        for name in [
            "../../evil".to_owned(),
            format!("/{content}"),
            format!("{content}/x"),
            format!("{content}.sh"),
            content.to_uppercase(),
            content[1..].to_owned(),
        ] {
            let refused = read_files(&mut &record(&name)[..], Some(folder.path()));
            assert!(matches!(refused, Err(Unsealable::Damaged)), "{name}");
        }
        let twice = [record(&content).strip_suffix(&[0]).unwrap(), &record(&content)].concat();
        assert!(
            read_files(&mut &twice[..], Some(folder.path())).is_err(),
            "nothing is written over"
        );
        let endless = [&[64][..], content.as_bytes(), &u64::MAX.to_be_bytes(), b"abc"].concat();
        assert!(matches!(read_files(&mut &endless[..], None), Err(Unsealable::Damaged)));
    }

    #[test]
    fn every_cut_is_damage() {
        let shelf = shelf();
        let bytes = archive(&[7; 100_000], Some(shelf.path()));
        for cut in [bytes.len() - 1, bytes.len() / 2, 90] {
            let folder = tempfile::tempdir().unwrap();
            let error = unpack(&bytes[..cut], "secret", folder.path(), true).err().unwrap();
            assert!(matches!(error, Unsealable::Damaged), "{cut}: {error}");
        }
    }
}
