//! `offhook backup`, `restore`, `identity phrase`.
//!
//! A backup is written beside its final name and renamed when it is whole and on the disk. A restore unpacks into a folder beside the home, proves
//! that identity and store open, tells the store that it was restored, and then puts the folder in the home's place: a home is never half restored.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use http_body_util::BodyExt as _;
use hyper::Method;
use offhook_node::SqliteStore;
use offhook_node::home::Home;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{Context, Done, Stop};
use crate::api::model::{NewBackup, Phrase, hex};
use crate::archive::{self, Manifest, Unpacked};
use crate::client::Target;
use crate::flags::Passphrase;
use crate::problem::{Kind, Problem};
use crate::proto::peer::Peer;
use crate::render::{clean_line, count, moment, short};

/// The environment variable that may hold the passphrase.
const VARIABLE: &str = "OFFHOOK_PASSPHRASE";
/// The longest passphrase file that is read, in bytes.
const PASSPHRASE_BYTES_MAX: u64 = 4096;

pub(super) async fn phrase(context: &Context) -> Done {
    let phrase: Phrase = context.node.get(Target::new(&["identity", "phrase"])).await?;
    context.out.talk(
        "These 24 words are you: whoever reads them can pretend to be you, and nothing can take that back.\nWrite them on paper. \
         They bring back who you are, not what was said: for that there is `offhook backup`.",
    );
    context.out.either(&phrase, |_| format!("{}\n", phrase.phrase))
}

#[derive(Serialize)]
struct BackedUp {
    file: String,
    bytes: u64,
}

pub(super) async fn backup(context: &Context, file: &Path, with_files: bool, flags: &Passphrase) -> Done {
    if file.exists() {
        let detail = format!("{} exists already; choose another name", file.display());
        return Err(Problem::new(Kind::BadBackup, detail).into());
    }
    let new = NewBackup {
        passphrase: passphrase(flags, Purpose::Seal)?.to_string(),
        files: with_files,
    };
    let body = context
        .node
        .stream(Method::POST, Target::new(&["backup"]), Some(&new))
        .await?;
    let partial = PathBuf::from(format!("{}.partial", file.display()));
    let written = write_whole(body, &partial).await;
    let bytes = match written {
        Ok(bytes) => bytes,
        Err(error) => {
            let _ = fs::remove_file(&partial);
            return Err(error);
        }
    };
    fs::rename(&partial, file)?;
    let done = BackedUp {
        file: file.display().to_string(),
        bytes,
    };
    context.out.either(&done, |_| {
        format!(
            "{bytes} bytes in {0}; prove that it opens with `offhook restore --verify {0}`\n",
            file.display()
        )
    })
}

async fn write_whole(mut body: hyper::body::Incoming, path: &Path) -> Result<u64, Stop> {
    let cannot = |error: io::Error| {
        let detail = format!("cannot write {}: {error}", path.display());
        Problem::new(Kind::BadBackup, detail)
    };
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    let mut file = opened.map_err(cannot)?;
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let cut_off = |_| {
            Problem::new(
                Kind::Stopping,
                "the node stopped before the backup was whole; try again",
            )
        };
        if let Some(chunk) = frame.map_err(cut_off)?.data_ref() {
            file.write_all(chunk).map_err(cannot)?;
            bytes += chunk.len() as u64;
        }
    }
    file.sync_all().map_err(cannot)?;
    Ok(bytes)
}

#[derive(Serialize)]
struct Restored {
    person: String,
    device: String,
    name: String,
    made: String,
    rooms: u64,
    entries: u64,
    /// Files of messages that are in it.
    files: u64,
    /// True for `--verify`: nothing was written.
    verified_only: bool,
    home: Option<String>,
}

pub(super) fn restore(context: &Context, file: &Path, verify: bool, flags: &Passphrase) -> Done {
    let home = (!verify).then_some(context.home.as_path());
    if let Some(home) = home {
        refuse_used(home)?;
    }
    let from = File::open(file).map_err(|error| bad_backup(format!("cannot read {}: {error}", file.display())))?;
    let passphrase = passphrase(flags, Purpose::Open)?;
    let folder = staging(home)?;
    let manifest = archive::unpack(BufReader::new(from), &passphrase, folder.path(), !verify);
    let Unpacked { manifest, files } = manifest.map_err(|error| bad_backup(error.to_string()))?;
    let counted = prove(folder.path(), &manifest)?;
    if let Some(home) = home {
        tell_restored(folder.path())?;
        take_place(folder, home)?;
    }
    let restored = Restored {
        person: manifest.person,
        device: manifest.device,
        name: manifest.name,
        made: manifest.made,
        rooms: counted.rooms,
        entries: counted.entries,
        files,
        verified_only: verify,
        home: home.map(|home| home.display().to_string()),
    };
    context.out.either(&restored, |_| text(&restored))
}

fn text(restored: &Restored) -> String {
    let whose = format!(
        "backup of {} (person {}), made {}: {}, {}, {}",
        clean_line(&restored.name),
        short(&restored.person),
        moment(&restored.made),
        count(restored.rooms, "room"),
        count(restored.entries, "message"),
        count(restored.files, "file")
    );
    match &restored.home {
        None => format!("{whose}; it opens and is whole\n"),
        Some(home) => format!(
            "{whose}; restored to {home}\nstart it with `offhook up`. Do not run the old home any more: from now on there would be two of this device\n"
        ),
    }
}

fn refuse_used(home: &Path) -> Result<(), Problem> {
    let used = match fs::read_dir(home) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => {
            return Err(Problem::new(
                Kind::BadHome,
                format!("cannot read {}: {error}", home.display()),
            ));
        }
    };
    if !used {
        return Ok(());
    }
    let detail = format!(
        "{} is not empty, and a restore overwrites nothing; choose another home with --home, or move that one away",
        home.display()
    );
    Err(Problem::new(Kind::BadHome, detail))
}

/// A folder of mode 0700: beside the home that it will become, or somewhere temporary.
fn staging(home: Option<&Path>) -> Result<tempfile::TempDir, Problem> {
    let named = |folder: &Path| {
        let folder = folder.to_owned();
        move |error: io::Error| {
            Problem::new(
                Kind::BadHome,
                format!("cannot write into {}: {error}", folder.display()),
            )
        }
    };
    let mut builder = tempfile::Builder::new();
    builder.prefix(".offhook-restore-");
    match home {
        None => builder.tempdir().map_err(named(&std::env::temp_dir())),
        Some(home) => {
            let parent = home.parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(parent).map_err(named(parent))?;
            builder.tempdir_in(parent).map_err(named(parent))
        }
    }
}

struct Counted {
    rooms: u64,
    entries: u64,
}

/// Opens what was unpacked as a node would, on a copy-to-be-thrown-away or before it becomes a home, and counts.
fn prove(folder: &Path, manifest: &Manifest) -> Result<Counted, Problem> {
    let damaged = |error: String| bad_backup(format!("the backup opens, but what is in it does not: {error}"));
    let home = Home::open(folder).map_err(|error| damaged(error.to_string()))?;
    let secrets = home.secrets().map_err(|error| damaged(error.to_string()))?;
    if hex(&secrets.root.person().0) != manifest.person {
        return Err(damaged("the keys are another person's".to_owned()));
    }
    let mut store = SqliteStore::open(&home.store_path()).map_err(|error| damaged(error.to_string()))?;
    store.check().map_err(|error| damaged(error.to_string()))?;
    // Whatever the peer writes while it opens is rolled back: this only looks.
    store.begin().map_err(|error| damaged(error.to_string()))?;
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|error| damaged(error.to_string()))?;
    let mut peer =
        Peer::open(store, secrets, &manifest.name, seed, Instant::now()).map_err(|error| damaged(error.to_string()))?;
    let rooms = peer.rooms().map_err(|error| damaged(error.to_string()))?;
    let counted = Counted {
        rooms: rooms.len() as u64,
        entries: rooms.iter().map(|room| room.entries).sum(),
    };
    peer.store_mut().rollback();
    if (counted.rooms, counted.entries) != (manifest.rooms, manifest.entries) {
        return Err(damaged(format!(
            "it holds {} and {}, and says {} and {}",
            counted.rooms, counted.entries, manifest.rooms, manifest.entries
        )));
    }
    Ok(counted)
}

/// Tells what was unpacked that it was restored, so that it opens new logs at once: others may know the old ones further, or hold them forked by the
/// first word said before anybody is reached.
fn tell_restored(folder: &Path) -> Result<(), Problem> {
    let cannot = |error: String| Problem::new(Kind::BadHome, format!("cannot write what was restored: {error}"));
    let home = Home::open(folder).map_err(|error| cannot(error.to_string()))?;
    let mut store = SqliteStore::open(&home.store_path()).map_err(|error| cannot(error.to_string()))?;
    store.begin().map_err(|error| cannot(error.to_string()))?;
    Peer::mark_restored(&mut store).map_err(|error| cannot(error.to_string()))?;
    // What the copy told and whom it let in is the copy's affair.
    offhook_node::journal::forget_for_restore(&mut store).map_err(|error| cannot(error.to_string()))?;
    store.commit().map_err(|error| cannot(error.to_string()))
}

/// Puts the proven folder in the place of the (empty or missing) home.
fn take_place(folder: tempfile::TempDir, home: &Path) -> Result<(), Problem> {
    let cannot = |error: io::Error| Problem::new(Kind::BadHome, format!("cannot make {}: {error}", home.display()));
    let _ = fs::remove_file(folder.path().join("lock"));
    File::open(folder.path())
        .and_then(|folder| folder.sync_all())
        .map_err(cannot)?;
    fs::rename(folder.path(), home).map_err(cannot)?;
    // It has another name now; there is nothing left to remove.
    let _ = folder.keep();
    home.parent()
        .map_or(Ok(()), |parent| File::open(parent)?.sync_all())
        .map_err(cannot)
}

fn bad_backup(detail: String) -> Problem {
    Problem::new(Kind::BadBackup, detail)
}

/// What a passphrase is asked for.
#[derive(PartialEq, Eq)]
enum Purpose {
    Seal,
    Open,
}

/// From the file, the environment, or the person, in this order.
fn passphrase(flags: &Passphrase, purpose: Purpose) -> Result<Zeroizing<String>, Problem> {
    let given = match &flags.passphrase_file {
        Some(file) => Some(read_passphrase(file)?),
        None => std::env::var(VARIABLE).ok().map(Zeroizing::new),
    };
    let passphrase = match given {
        Some(passphrase) => passphrase,
        None => ask(purpose)?,
    };
    match passphrase.is_empty() {
        true => Err(bad_backup("the passphrase is empty".to_owned())),
        false => Ok(passphrase),
    }
}

fn read_passphrase(file: &Path) -> Result<Zeroizing<String>, Problem> {
    let cannot = |why: String| bad_backup(format!("cannot read the passphrase from {}: {why}", file.display()));
    let size = fs::metadata(file).map_err(|error| cannot(error.to_string()))?.len();
    if size > PASSPHRASE_BYTES_MAX {
        return Err(cannot(format!("it is longer than {PASSPHRASE_BYTES_MAX} bytes")));
    }
    let text = Zeroizing::new(fs::read_to_string(file).map_err(|error| cannot(error.to_string()))?);
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

fn ask(purpose: Purpose) -> Result<Zeroizing<String>, Problem> {
    if !io::stdin().is_terminal() {
        let detail = format!("no passphrase: give --passphrase-file FILE or set {VARIABLE}");
        return Err(bad_backup(detail));
    }
    let prompt = |text: &str| {
        let typed = rpassword::prompt_password(text).map_err(|error| bad_backup(error.to_string()))?;
        Ok::<_, Problem>(Zeroizing::new(typed))
    };
    let first = prompt("Passphrase: ")?;
    if purpose == Purpose::Seal && first != prompt("Once more: ")? {
        return Err(bad_backup("the two passphrases differ; nothing was written".to_owned()));
    }
    Ok(first)
}
