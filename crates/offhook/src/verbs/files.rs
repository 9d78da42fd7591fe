//! `offhook send --file`, `file list`, `file get`: files of messages, with progress on stderr.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use hyper::Method;
use hyper::body::Bytes;

use super::{Context, Done, Out, Stop};
use crate::api::model::{Event, FileStanding, FileState, FileTaken, Files, Room};
use crate::client::{Events, Target};
use crate::flags::{FileGet, FileVerb};
use crate::problem::{Kind, Problem};
use crate::proto::history::file::{FILES_MAX, safe_name};
use crate::proto::peer::command::too_large;
use crate::render::{clean_line, size};

/// How often progress replaces itself on a terminal.
const DRAW_EVERY: Duration = Duration::from_millis(200);
/// How often progress is shown where it does not replace itself.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// Bytes read from disk at once.
const STEP_BYTES: usize = 256 << 10;

pub(super) async fn run(context: &Context, verb: FileVerb) -> Done {
    match verb {
        FileVerb::List { id } => {
            let files = of_entry(context, &id).await?;
            context.out.either(&files, |_| {
                let line = |file: &FileState| {
                    format!(
                        "{}  {}  {}\n",
                        clean_line(&file.file.name),
                        size(file.file.bytes),
                        standing(file)
                    )
                };
                files.files.iter().map(line).collect()
            })
        }
        FileVerb::Get(get) => fetch(context, get).await,
    }
}

fn standing(file: &FileState) -> String {
    match (file.state, &file.problem) {
        (_, Some(problem)) => clean_line(problem),
        (FileStanding::Here, _) => "here".to_owned(),
        (FileStanding::Coming, _) if file.sources == 0 => "waits for somebody who has it".to_owned(),
        (FileStanding::Coming, _) => format!("{} of it here", size(file.here)),
        (FileStanding::Refused, _) => "larger than this room takes".to_owned(),
        (FileStanding::Away, _) => "not here; `offhook file get` fetches it".to_owned(),
    }
}

async fn of_entry(context: &Context, id: &str) -> Result<Files, Problem> {
    context.node.get(Target::new(&["entries", id, "files"])).await
}

/// Takes files in; returns their content ids.
pub(super) async fn take(context: &Context, room: &str, paths: &[PathBuf]) -> Result<Vec<String>, Stop> {
    if paths.len() > FILES_MAX {
        let detail = format!("a message carries at most {FILES_MAX} files; send the others with another one");
        return Err(Problem::new(Kind::Limit, detail).into());
    }
    let mut taken = Vec::new();
    if paths.is_empty() {
        return Ok(taken);
    }
    let room: Room = context.node.get(Target::new(&["rooms", room])).await?;
    for path in paths {
        taken.push(take_one(context, path, room.file_limit).await?.file);
    }
    Ok(taken)
}

/// Takes a file in, unless the room would not take it.
async fn take_one(context: &Context, path: &Path, room_max: u64) -> Result<FileTaken, Stop> {
    let cannot = |why: String| Problem::new(Kind::BadRequest, format!("cannot read {}: {why}", path.display()));
    let facts = std::fs::metadata(path).map_err(|error| cannot(error.to_string()))?;
    if !facts.is_file() {
        return Err(cannot("it is no file; folders are sent as an archive".to_owned()).into());
    }
    if facts.len() > room_max {
        return Err(Problem::new(Kind::TooLarge, too_large(room_max)).into());
    }
    let mut file = File::open(path).map_err(|error| cannot(error.to_string()))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let target = Target::new(&["files"]).with("name", &name);
    let mut shown = Progress::new(context.out, &format!("taking in {}", clean_line(&name)), facts.len());
    let mut sent = 0;
    let parts = std::iter::from_fn(move || {
        let mut part = vec![0; STEP_BYTES];
        match file.read(&mut part) {
            Ok(0) => None,
            Ok(read) => {
                part.truncate(read);
                sent += read as u64;
                shown.tell(sent);
                Some(Ok(Bytes::from(part)))
            }
            Err(error) => Some(Err(error)),
        }
    });
    Ok(context.node.upload(target, parts).await?)
}

/// Waits until the file is here, and writes it.
async fn fetch(context: &Context, get: FileGet) -> Done {
    let file = chosen(of_entry(context, &get.id).await?, get.name.as_deref())?;
    let name = safe_name(&file.file.name);
    let path = match get.out {
        Some(out) if out.is_dir() => out.join(&name),
        Some(out) => out,
        None => PathBuf::from(&name),
    };
    let to_stdout = path.as_os_str() == "-";
    if !to_stdout && path.exists() && !get.force {
        let detail = format!(
            "{} is there already; --force replaces it, --out writes elsewhere",
            path.display()
        );
        return Err(Problem::new(Kind::Already, detail).into());
    }
    wait_for(context, &get.id, &file, get.wait).await?;
    let target = Target::new(&["entries", &get.id, "files", &file.file.file]);
    let mut body = context.node.stream(Method::GET, target, None::<&()>).await?;
    let cannot =
        |error: std::io::Error| Problem::new(Kind::BadRequest, format!("cannot write {}: {error}", path.display()));
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    // Under another name until it is whole.
    let mut written = if to_stdout {
        None
    } else {
        Some(tempfile::NamedTempFile::new_in(folder).map_err(cannot)?)
    };
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let cut_off = |_| Problem::new(Kind::Stopping, "the node stopped; the file is not complete; try again");
        let frame = frame.map_err(cut_off)?;
        let Some(part) = frame.data_ref() else { continue };
        bytes += part.len() as u64;
        match &mut written {
            Some(file) => file.write_all(part).map_err(cannot)?,
            None => std::io::stdout().lock().write_all(part)?,
        }
    }
    if bytes != file.file.bytes {
        return Err(Problem::new(Kind::Stopping, "the file broke off; try again").into());
    }
    let Some(written) = written else {
        return Ok(std::io::stdout().lock().flush()?);
    };
    written.persist(&path).map_err(|error| cannot(error.error))?;
    let got = serde_json::json!({ "id": get.id, "file": file.file.file, "name": name, "bytes": bytes, "path": path });
    context.out.either(&got, |_| format!("{}\n", path.display()))
}

/// The file that is meant.
fn chosen(files: Files, name: Option<&str>) -> Result<FileState, Problem> {
    let names: Vec<String> = files.files.iter().map(|file| clean_line(&file.file.name)).collect();
    let mut fitting = files
        .files
        .into_iter()
        .filter(|file| name.is_none_or(|name| file.file.name == name));
    match (fitting.next(), fitting.next()) {
        (Some(file), None) => Ok(file),
        (None, _) if names.is_empty() => Err(Problem::new(Kind::NoFile, "this message carries no file")),
        (None, _) => {
            let detail = format!("this message carries no such file; it has {}", names.join(", "));
            Err(Problem::new(Kind::NoFile, detail))
        }
        (Some(_), Some(_)) => {
            let detail = format!("this message carries several files; say which: {}", names.join(", "));
            Err(Problem::new(Kind::Ambiguous, detail))
        }
    }
}

async fn wait_for(context: &Context, id: &str, file: &FileState, wait: u64) -> Result<(), Stop> {
    if file.state == FileStanding::Here {
        return Ok(());
    }
    // Followed before it is asked for: no move can be missed.
    let mut events = context.node.events().await?;
    let target = Target::new(&["entries", id, "files", &file.file.file, "fetch"]);
    let mut now: FileState = context.node.send(Method::POST, target, None::<&()>).await?;
    let mut shown = Progress::new(
        context.out,
        &format!("fetching {}", clean_line(&file.file.name)),
        file.file.bytes,
    );
    let end = tokio::time::Instant::now() + Duration::from_secs(wait);
    while now.state != FileStanding::Here {
        if let Some(problem) = now.problem {
            return Err(Problem::new(Kind::Storage, problem).into());
        }
        shown.tell(now.here);
        match tokio::time::timeout_at(end, next_move(context, id, &mut events, &now)).await {
            Ok(moved) => now = moved?,
            Err(_) => return Err(not_here(&now).into()),
        }
    }
    Ok(())
}

/// How the file stands after the next thing that happened to it or to its message.
async fn next_move(context: &Context, id: &str, events: &mut Events, before: &FileState) -> Result<FileState, Stop> {
    while let Some(event) = events.next().await? {
        match event {
            Event::File {
                file,
                here,
                state,
                sources,
                problem,
                ..
            } if file == before.file.file => {
                return Ok(FileState {
                    file: before.file.clone(),
                    here,
                    state,
                    sources,
                    problem,
                });
            }
            Event::Entry {
                id: changed,
                new: false,
                ..
            } if changed == id => {}
            Event::Reset {} => {}
            _ => continue,
        }
        let files = of_entry(context, id).await?;
        let now = files.files.into_iter().find(|now| now.file.file == before.file.file);
        return Ok(now.ok_or_else(|| Problem::new(Kind::NoFile, "the message was deleted"))?);
    }
    Err(Problem::new(
        Kind::Stopping,
        "the node stopped; it goes on fetching once it runs again",
    )
    .into())
}

/// Why the wait is over.
fn not_here(now: &FileState) -> Problem {
    let detail = match now.sources {
        0 => {
            "nobody who has it is there; the node goes on trying, and `offhook file get` can be asked again".to_owned()
        }
        _ => format!(
            "{} of {} are here; the node goes on",
            size(now.here),
            size(now.file.bytes)
        ),
    };
    Problem::new(Kind::NotHere, detail)
}

/// How far something is, for people: one line that replaces itself on a terminal, now and then a line elsewhere.
struct Progress {
    out: Out,
    what: String,
    bytes: u64,
    since: Instant,
    told: Option<Instant>,
    is_terminal: bool,
}

impl Progress {
    fn new(out: Out, what: &str, bytes: u64) -> Self {
        Self {
            out,
            what: what.to_owned(),
            bytes,
            since: Instant::now(),
            told: None,
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    fn tell(&mut self, done: u64) {
        let pause = if self.is_terminal { DRAW_EVERY } else { TELL_EVERY };
        let due = self.told.unwrap_or(self.since) + pause;
        if Instant::now() < due {
            return;
        }
        self.told = Some(Instant::now());
        let percent = done.min(self.bytes) * 100 / self.bytes.max(1);
        let line = format!("{}: {percent} % of {}", self.what, size(self.bytes));
        if self.is_terminal {
            // That nobody may be looking is no error.
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K{line}");
        } else {
            self.out.talk(&line);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.is_terminal && self.told.is_some() {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}
