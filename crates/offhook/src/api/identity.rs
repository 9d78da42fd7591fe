//! Who this node is: the recovery phrase, and the sealed backup of everything.

use axum::Json;
use axum::body::{Body as Stream, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use std::io::{self, BufWriter, Write};
use tokio::sync::mpsc;
use zeroize::Zeroizing;

use super::model::{Identity, IdentityChange, NewBackup, Phrase, hex};
use super::request::Body;
use super::{Surface, node_problem, storage_problem};
use crate::archive::{self, Holder};
use crate::problem::{Kind, Problem};
use crate::proto::peer::Command;

/// Sealed chunks that may wait for a slow reader.
const CHUNKS_WAITING_MAX: usize = 16;
/// How much is gathered before it is handed over.
const CHUNK_BYTES: usize = 64 * 1024;

#[utoipa::path(
    get,
    path = "/identity",
    description = "Who this node is.",
    responses((status = 200, body = Identity), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["read"]))
)]
pub(super) async fn me(State(surface): State<Surface>) -> Result<Json<Identity>, Problem> {
    let me = surface.query(|peer| Ok(peer.me())).await?;
    Ok(Json(Identity {
        person: hex(&me.person.0),
        device: hex(&me.device.0),
        name: me.name,
    }))
}

#[utoipa::path(
    patch,
    path = "/identity",
    description = "Go by another name.",
    request_body = IdentityChange,
    responses((status = 200, body = Identity), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn rename(
    State(surface): State<Surface>,
    Body(change): Body<IdentityChange>,
) -> Result<Json<Identity>, Problem> {
    surface.command(Command::SetName { name: change.name }).await?;
    me(State(surface)).await
}

#[utoipa::path(
    get,
    path = "/identity/phrase",
    description = "The recovery phrase.",
    responses((status = 200, body = Phrase), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn phrase(State(surface): State<Surface>) -> Result<Json<Phrase>, Problem> {
    let secrets = offhook_node::home::read_secrets(&surface.home);
    let secrets = secrets.map_err(|error| Problem::new(Kind::Storage, error.to_string()))?;
    Ok(Json(Phrase {
        person: hex(&secrets.root.person().0),
        phrase: secrets.root.phrase(),
    }))
}

/// Copies the store at one moment, then seals and streams the copy. A stream that ends early is no backup: its last chunk is missing.
#[utoipa::path(
    post,
    path = "/backup",
    description = "Everything in one sealed file; one that ends early does not open.",
    request_body = NewBackup,
    responses((status = 200, content_type = "application/octet-stream", body = Vec<u8>), (status = "default", body = Problem, content_type = "application/problem+json")),
    security(("session" = []), ("token" = ["admin"]))
)]
pub(super) async fn backup(State(surface): State<Surface>, Body(new): Body<NewBackup>) -> Result<Response, Problem> {
    let passphrase = Zeroizing::new(new.passphrase);
    if passphrase.is_empty() {
        return Err(Problem::new(
            Kind::BadBackup,
            "the passphrase is empty; choose one that you will find again",
        ));
    }
    let mut random = [0; 35];
    getrandom::fill(&mut random).map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
    let folder = tempfile::Builder::new()
        .prefix("backup-")
        .tempdir_in(surface.home.as_path())?;
    let store = folder.path().join(archive::STORE);
    surface.node.backup_to(store.clone()).await.map_err(node_problem)?;
    let holder = holder(&surface).await?;
    let identity = offhook_node::home::identity_path(&surface.home);
    let files = new.files.then(|| surface.home.join(archive::FILES));
    let (chunks, sealed) = mpsc::channel(CHUNKS_WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        let to = BufWriter::with_capacity(CHUNK_BYTES, Chunks(chunks.clone()));
        if let Err(error) = archive::write(holder, &identity, &store, files.as_deref(), &passphrase, random, to) {
            // The reader may have gone away, which may be the very error.
            let _ = chunks.blocking_send(Err(error));
        }
        drop(folder);
    });
    let body = stream::unfold(sealed, |mut sealed| async {
        let chunk = sealed.recv().await?;
        Some((chunk, sealed))
    });
    Ok((
        [(header::CONTENT_TYPE, "application/octet-stream")],
        Stream::from_stream(body),
    )
        .into_response())
}

async fn holder(surface: &Surface) -> Result<Holder, Problem> {
    let read = surface.query(|peer| {
        let me = peer.me();
        let rooms = peer.rooms().map_err(storage_problem)?;
        Ok(Holder {
            made: format!("{:.3}", jiff::Timestamp::now()),
            person: hex(&me.person.0),
            device: hex(&me.device.0),
            name: me.name,
            rooms: rooms.len() as u64,
            entries: rooms.iter().map(|room| room.entries).sum(),
        })
    });
    read.await
}

/// Writes go to a body that somebody reads.
struct Chunks(mpsc::Sender<io::Result<Bytes>>);

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
