//! Both ends of a file's stream: a request, an answer, and behind the answer to a piece its slice of the tree.
//!
//! Each request is a stream of its own on the connection that is the line, sent after everything that the line has to say. A device is served
//! what [`Peer::file_for`](offhook_proto::peer::Peer::file_for) allows, and told nothing else.

use std::sync::Arc;
use std::time::Duration;

use iroh::endpoint::{Connection, RecvStream, SendStream, VarInt};
use offhook_proto::files::frame::{FILE_FRAME_BYTES_MAX, HELD_RANGES_MAX, PieceRange};
use offhook_proto::files::{Failure, FileAsk, FileTold, piece_count};
use offhook_proto::history::{Attachment, IntervalSet};
use offhook_proto::identity::DeviceId;
use offhook_proto::wire::Wire as _;
use tokio::time::timeout;

use super::Files;
use super::shelf::SLICE_BYTES_MAX;

/// Behind whatever messages wait on the line.
const PRIORITY: i32 = -1;
/// How long a request, or its answer, may take to come.
const FRAME_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a slice may take to be taken.
const SLICE_TIMEOUT: Duration = Duration::from_secs(60);
const REFUSED: u32 = 1;

/// Serves a peer's requests until its line is gone.
pub(crate) async fn serve_line(files: Arc<Files>, peer: DeviceId, connection: Connection) {
    while let Ok((send, recv)) = connection.accept_bi().await {
        let files = files.clone();
        tokio::spawn(async move {
            if let Err(why) = serve(&files, peer, send, recv).await {
                tracing::debug!(?peer, why, "a request for a file came to nothing");
            }
        });
    }
}

async fn serve(files: &Files, peer: DeviceId, mut send: SendStream, mut recv: RecvStream) -> Result<(), String> {
    let _ = send.set_priority(PRIORITY);
    let reading = timeout(FRAME_TIMEOUT, recv.read_to_end(FILE_FRAME_BYTES_MAX));
    let request = reading.await.map_err(|_| "no request came")?;
    let request = request.map_err(|error| error.to_string())?;
    let Ok(ask) = FileAsk::from_bytes(&request) else {
        send.reset(VarInt::from_u32(REFUSED))
            .map_err(|error| error.to_string())?;
        return Err("not a request".to_owned());
    };
    let Some(file) = files.allowed(peer, ask).await else {
        return tell(&mut send, &FileTold::Refused {}, &[]).await;
    };
    match ask {
        FileAsk::Held { .. } => {
            let pieces = held_ranges(&files.held(&file));
            tell(&mut send, &FileTold::Held { pieces }, &[]).await
        }
        FileAsk::Piece { piece, .. } => {
            let Ok(_slot) = files.serving.try_acquire() else {
                return tell(&mut send, &FileTold::Busy {}, &[]).await;
            };
            let shelf = files.shelf.clone();
            let slice = move || shelf.slice(&file.content, file.bytes, piece);
            match tokio::task::spawn_blocking(slice).await {
                Ok(Some(slice)) => tell(&mut send, &FileTold::Piece {}, &slice).await,
                _ => tell(&mut send, &FileTold::Refused {}, &[]).await,
            }
        }
    }
}

/// The first ranges; what is left out is asked for later.
fn held_ranges(held: &IntervalSet) -> Vec<PieceRange> {
    let ranges = held.ranges().iter().take(HELD_RANGES_MAX);
    ranges.map(|(from, to)| PieceRange { from: *from, to: *to }).collect()
}

async fn tell(send: &mut SendStream, told: &FileTold, slice: &[u8]) -> Result<(), String> {
    let frame = told.to_bytes();
    // Frames of this kind are far below 64 KiB.
    let len = u16::try_from(frame.len()).unwrap_or(u16::MAX);
    let writing = async {
        send.write_all(&len.to_be_bytes()).await?;
        send.write_all(&frame).await?;
        send.write_all(slice).await
    };
    let written = timeout(SLICE_TIMEOUT, writing).await.map_err(|_| "nobody takes it")?;
    written.map_err(|error| error.to_string())?;
    send.finish().map_err(|error| error.to_string())
}

/// Asks which pieces a peer holds.
pub(super) async fn ask_held(connection: &Connection, ask: FileAsk) -> Result<Vec<PieceRange>, Failure> {
    match request(connection, ask).await? {
        (FileTold::Held { pieces }, _) => Ok(pieces),
        (told, _) => Err(refusal(&told)),
    }
}

/// Asks for a piece and returns its slice, unchecked.
pub(super) async fn ask_piece(connection: &Connection, ask: FileAsk) -> Result<Vec<u8>, Failure> {
    let (told, mut recv) = request(connection, ask).await?;
    if told != (FileTold::Piece {}) {
        return Err(refusal(&told));
    }
    let slice = recv.read_to_end(SLICE_BYTES_MAX).await;
    slice.map_err(|error| match error {
        iroh::endpoint::ReadToEndError::TooLong => Failure::Wrong,
        iroh::endpoint::ReadToEndError::Read(_) => Failure::Broken,
    })
}

fn refusal(told: &FileTold) -> Failure {
    match told {
        FileTold::Refused {} => Failure::Refused,
        FileTold::Busy {} => Failure::Broken,
        FileTold::Held { .. } | FileTold::Piece {} => Failure::Wrong,
    }
}

async fn request(connection: &Connection, ask: FileAsk) -> Result<(FileTold, RecvStream), Failure> {
    let asking = async {
        let (mut send, mut recv) = connection.open_bi().await.map_err(|_| Failure::Broken)?;
        // Only the answer can be slow.
        send.write_all(&ask.to_bytes()).await.map_err(|_| Failure::Broken)?;
        send.finish().map_err(|_| Failure::Broken)?;
        let mut len = [0; 2];
        recv.read_exact(&mut len).await.map_err(|_| Failure::Broken)?;
        let len = usize::from(u16::from_be_bytes(len));
        if len > FILE_FRAME_BYTES_MAX {
            return Err(Failure::Wrong);
        }
        let mut frame = vec![0; len];
        recv.read_exact(&mut frame).await.map_err(|_| Failure::Broken)?;
        let told = FileTold::from_bytes(&frame).map_err(|_| Failure::Wrong)?;
        Ok((told, recv))
    };
    timeout(FRAME_TIMEOUT, asking).await.map_err(|_| Failure::Broken)?
}

/// All pieces of a whole file.
pub(super) fn all_pieces(file: &Attachment) -> IntervalSet {
    IntervalSet::range(1, piece_count(file.bytes))
}
