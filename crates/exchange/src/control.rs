//! Asking a running exchange: one question and one answer on a Unix socket in its folder, open to its owner alone.
//!
//! Both are postcard, each with its length before it; a question is at most [`QUESTION_BYTES_MAX`] octets.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::Error;
use crate::view::{LiveCall, LivePhone, MemberView};

/// Longest question, octets.
pub const QUESTION_BYTES_MAX: u32 = 1_024;
/// Longest answer taken, octets: 20,000 calls fit.
pub const ANSWER_BYTES_MAX: u32 = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// Live calls.
    Calls,
    /// Registered phones.
    Phones,
    /// Prometheus text.
    Metrics,
    /// The instances of the cluster.
    Members,
}

/// The answer to each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Ask::Calls`].
    Calls(Vec<LiveCall>),
    /// To [`Ask::Phones`].
    Phones(Vec<LivePhone>),
    /// To [`Ask::Metrics`].
    Metrics(String),
    /// To [`Ask::Members`].
    Members(Vec<MemberView>),
}

/// Where the socket is.
pub fn socket_path(home: &Path) -> PathBuf {
    home.join("control.sock")
}

/// Asks the exchange that runs on this folder, and waits for its answer.
pub fn ask(home: &Path, ask: Ask) -> Result<Answer, Error> {
    let absent = || Error::NotRunning(home.to_owned());
    let mut stream = BlockingStream::connect(socket_path(home)).map_err(|_| absent())?;
    let transact = |stream: &mut BlockingStream| -> std::io::Result<Vec<u8>> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(&framed(&ask))?;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut body = Vec::new();
        stream
            .take(length_of(length, ANSWER_BYTES_MAX)?.into())
            .read_to_end(&mut body)?;
        Ok(body)
    };
    let body = transact(&mut stream).map_err(|_| absent())?;
    postcard::from_bytes(&body).map_err(|_| Error::OtherBuild)
}

/// Binds the socket. One that a dead exchange left is replaced.
pub(crate) fn bind(home: &Path) -> Result<UnixListener, Error> {
    let path = socket_path(home);
    let unusable = |source| Error::Home {
        path: path.clone(),
        source,
    };
    if BlockingStream::connect(&path).is_ok() {
        return Err(Error::Running(home.to_owned()));
    }
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path).map_err(unusable)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(unusable)?;
    Ok(listener)
}

/// Takes one question.
pub(crate) async fn read_question(stream: &mut UnixStream) -> std::io::Result<Ask> {
    let read = async {
        let mut length = [0; 4];
        stream.read_exact(&mut length).await?;
        let mut body = vec![0; length_of(length, QUESTION_BYTES_MAX)? as usize];
        stream.read_exact(&mut body).await?;
        postcard::from_bytes(&body).map_err(|_| std::io::ErrorKind::InvalidData.into())
    };
    tokio::time::timeout(PATIENCE, read).await?
}

/// Gives its answer.
pub(crate) async fn write_answer(stream: &mut UnixStream, answer: &Answer) -> std::io::Result<()> {
    tokio::time::timeout(PATIENCE, stream.write_all(&framed(answer))).await?
}

fn framed(value: &impl Serialize) -> Vec<u8> {
    // Writing plain data into a Vec cannot fail.
    let body = postcard::to_allocvec(value).unwrap_or_default();
    let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
    bytes.extend(body);
    bytes
}

fn length_of(bytes: [u8; 4], most: u32) -> std::io::Result<u32> {
    let length = u32::from_le_bytes(bytes);
    if length > most {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    Ok(length)
}
