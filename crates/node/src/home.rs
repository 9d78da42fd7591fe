//! A home: the directory that holds everything of one node.
//!
//! ```text
//! identity.key   the person's and the device's secrets, mode 0600, versioned text
//! store.db       the store (see [`crate::store`])
//! lock           held exclusively while a node runs
//! port           the UDP port of the last run, so that addresses in invites stay good
//! flows          the flows that a gateway may still remember of the last run
//! control.sock   the control socket, made by the program around this crate
//! ```
//!
//! A home that does not exist is made without asking anything. A copied or restored home just opens: nothing in it names
//! the machine. Files are replaced whole (write, fsync, rename, fsync of the directory), so a crash leaves the old or the new.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use offhook_proto::crypto::{KeyPair, Secret};
use offhook_proto::identity::{DeviceKey, RootKey};
use offhook_proto::peer::Secrets;
use thiserror::Error;
use zeroize::Zeroizing;

const IDENTITY_HEAD: &str = "offhook identity 1";
/// No identity file is longer than this; a longer one is not read.
const IDENTITY_BYTES_MAX: u64 = 4096;

/// Why a home could not be opened.
#[derive(Debug, Error)]
pub enum HomeError {
    /// Another node runs on it. Stop that one, or choose another home.
    #[error("another node is already running on {}; stop it, or choose another home with --home", .0.display())]
    InUse(PathBuf),
    /// The file system refused. Check the path, its owner and the space left.
    #[error("cannot use {}: {source}", .path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The identity file is damaged or of a newer version. Restore it from a backup or from the recovery phrase.
    #[error(
        "{} is not an identity file that this version reads; restore it from a backup or the recovery phrase",
        .0.display()
    )]
    BadIdentity(PathBuf),
    /// The system gave no randomness for the keys of a new home.
    #[error("the system gives no randomness: {0}")]
    Randomness(getrandom::Error),
}

/// An opened home. The lock is held until this is dropped.
#[derive(Debug)]
pub struct Home {
    dir: PathBuf,
    _lock: File,
}

impl Home {
    /// Opens the home, making it where it does not exist, and locks it.
    pub fn open(dir: &Path) -> Result<Self, HomeError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(at(dir))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(at(dir))?;
        let lock = lock(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The store's file.
    pub fn store_path(&self) -> PathBuf {
        store_path(&self.dir)
    }

    /// The secrets of this home; made at first use.
    pub fn secrets(&self) -> Result<Secrets, HomeError> {
        let path = identity_path(&self.dir);
        match fs::metadata(&path) {
            Ok(_) => read_identity(&path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let secrets = new_secrets()?;
                write_identity(&self.dir, &secrets)?;
                Ok(secrets)
            }
            Err(error) => Err(at(&path)(error)),
        }
    }

    /// The UDP port of the last run.
    pub fn last_port(&self) -> Option<u16> {
        let text = fs::read_to_string(self.dir.join("port")).ok()?;
        text.trim().parse().ok().filter(|port| *port != 0)
    }

    /// Remembers the UDP port for the next run.
    pub fn remember_port(&self, port: u16) -> Result<(), HomeError> {
        if self.last_port() == Some(port) {
            return Ok(());
        }
        write_whole(&self.dir, "port", format!("{port}\n").as_bytes(), 0o600)
    }
}

/// Where the control socket of a home is.
pub fn control_socket_path(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

/// Where the store of a home is.
pub fn store_path(dir: &Path) -> PathBuf {
    dir.join("store.db")
}

/// Where the secrets of a home are.
pub fn identity_path(dir: &Path) -> PathBuf {
    dir.join("identity.key")
}

/// The secrets of a home that a node of this program holds open, or that none does.
pub fn read_secrets(dir: &Path) -> Result<Secrets, HomeError> {
    read_identity(&identity_path(dir))
}

/// Writes a home's secrets, replacing what was there: for a restore.
pub fn write_identity(dir: &Path, secrets: &Secrets) -> Result<(), HomeError> {
    let root = Zeroizing::new(hex(&secrets.root.entropy().0));
    let device = Zeroizing::new(hex(&secrets.device.0.seed().0));
    let text = Zeroizing::new(format!("{IDENTITY_HEAD}\nroot {}\ndevice {}\n", *root, *device));
    write_whole(dir, "identity.key", text.as_bytes(), 0o600)
}

/// Fresh randomness from the system.
pub(crate) fn random_bytes() -> Result<[u8; 32], HomeError> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(HomeError::Randomness)?;
    Ok(bytes)
}

fn new_secrets() -> Result<Secrets, HomeError> {
    Ok(Secrets {
        root: RootKey::from_entropy(Secret(random_bytes()?)),
        device: DeviceKey(KeyPair::from_seed(&Secret(random_bytes()?))),
    })
}

fn read_identity(path: &Path) -> Result<Secrets, HomeError> {
    let size = fs::metadata(path).map_err(at(path))?.len();
    if size > IDENTITY_BYTES_MAX {
        return Err(HomeError::BadIdentity(path.to_owned()));
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(at(path))?);
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(at(path))?;
    parse_identity(&text).ok_or_else(|| HomeError::BadIdentity(path.to_owned()))
}

fn parse_identity(text: &str) -> Option<Secrets> {
    let mut lines = text.lines();
    if lines.next()? != IDENTITY_HEAD {
        return None;
    }
    let root = unhex(lines.next()?.strip_prefix("root ")?)?;
    let device = unhex(lines.next()?.strip_prefix("device ")?)?;
    lines.next().is_none().then(|| Secrets {
        root: RootKey::from_entropy(root),
        device: DeviceKey(KeyPair::from_seed(&device)),
    })
}

fn lock(dir: &Path) -> Result<File, HomeError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(HomeError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(at(&path)(error)),
    }
}

/// Replaces a file whole: whoever reads sees the old or the new bytes, also after a power cut.
pub(crate) fn write_whole(dir: &Path, name: &str, bytes: &[u8], mode: u32) -> Result<(), HomeError> {
    let path = dir.join(name);
    let fresh = dir.join(format!("{name}.new"));
    let write = || -> io::Result<()> {
        let _ = fs::remove_file(&fresh);
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(mode)
            .open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(at(&path))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> HomeError {
    let path = path.to_owned();
    |source| HomeError::Io { path, source }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Secret> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(Secret(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_new_home_makes_an_identity_and_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("deep/home");
        let home = Home::open(&dir).unwrap();
        let first = home.secrets().unwrap();
        drop(home);
        let again = Home::open(&dir).unwrap().secrets().unwrap();
        assert_eq!(first.root.person(), again.root.person());
        assert_eq!(first.device.device(), again.device.device());
        assert_ne!(first.root.person().0, first.device.device().0);
        assert_eq!(mode(&dir), 0o700);
        assert_eq!(mode(&identity_path(&dir)), 0o600);
    }

    #[test]
    fn a_second_node_on_one_home_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let first = Home::open(dir.path()).unwrap();
        assert!(matches!(Home::open(dir.path()), Err(HomeError::InUse(_))));
        drop(first);
        Home::open(dir.path()).unwrap();
    }

    #[test]
    fn a_copied_home_opens() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(&dir.path().join("a")).unwrap();
        let person = home.secrets().unwrap().root.person();
        let copy = dir.path().join("b");
        fs::create_dir(&copy).unwrap();
        for name in ["identity.key", "lock"] {
            fs::copy(home.dir().join(name), copy.join(name)).unwrap();
        }
        fs::set_permissions(identity_path(&copy), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(Home::open(&copy).unwrap().secrets().unwrap().root.person(), person);
        assert_eq!(mode(&identity_path(&copy)), 0o600);
    }

    #[test]
    fn a_damaged_identity_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        home.secrets().unwrap();
        let path = identity_path(dir.path());
        let good = fs::read_to_string(&path).unwrap();
        for bad in [
            String::new(),
            good.replace("identity 1", "identity 2"),
            good.replace("root ", "root zz"),
            good.clone() + "more\n",
            "x".repeat(10_000),
        ] {
            fs::write(&path, &bad).unwrap();
            assert!(matches!(home.secrets(), Err(HomeError::BadIdentity(_))));
            assert_eq!(fs::read_to_string(&path).unwrap(), bad);
        }
    }

    #[test]
    fn the_port_is_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::open(dir.path()).unwrap();
        assert_eq!(home.last_port(), None);
        home.remember_port(4242).unwrap();
        assert_eq!(home.last_port(), Some(4242));
    }
}
