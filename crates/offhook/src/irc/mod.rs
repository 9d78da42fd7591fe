//! IRC on this machine, for those who keep their client: rooms are channels, rooms of two are queries. Off until `offhook irc on`.
//!
//! Follows modern.ircdocs.horse and the IRCv3 specifications of what [`registration::CAPABILITIES`] lists. A client signs in with SASL PLAIN (or `PASS`) and a token
//! of scope `read`, to say something also `send`; on the Unix socket `irc.sock` in the home nothing is asked. [`line`] takes lines apart, [`names`] gives
//! rooms and persons names, [`told`] says entries in IRC's words, [`history`] answers CHATHISTORY and [`asked`] what clients ask about channels; [`session`] is one client.
//!
//! What it does not do: joining by invite, changing roles or names, `MONITOR`, multi-line messages, typing marks, sending files.

mod asked;
mod history;
mod intake;
mod line;
mod names;
mod registration;
mod session;
mod told;

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use offhook_node::journal::local;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::access::Grant;
use crate::api::Surface;
use crate::http::patience::{Limits, Patient};
use crate::problem::{Kind, Problem};

/// Where IRC is spoken unless asked.
pub(crate) const PORT: u16 = 6667;
/// The local record of whether it is on.
const RECORD: &str = "irc";
/// Clients at once; a client that does not read is cut off, one that is silent is asked whether it is there.
const LIMITS: Limits = Limits {
    connections: 32,
    stuck: Duration::from_secs(20),
    idle: Duration::from_secs(240),
};

/// Whether IRC is spoken, and where.
#[derive(Debug, Clone, Default)]
pub(crate) struct Irc(Arc<Mutex<Option<Running>>>);

#[derive(Debug)]
struct Running {
    at: SocketAddr,
    end: watch::Sender<bool>,
    /// Held open by those who let clients in.
    open: mpsc::Receiver<()>,
    served: [JoinHandle<()>; 2],
}

/// What is kept over restarts.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    at: SocketAddr,
}

/// The Unix socket for IRC clients of a home.
pub(crate) fn socket_path(home: &Path) -> PathBuf {
    home.join("irc.sock")
}

impl Irc {
    /// Where it is spoken.
    pub(crate) async fn at(&self) -> Option<SocketAddr> {
        self.0.lock().await.as_ref().map(|running| running.at)
    }

    /// Starts where it was on when the last run ended. A failure is told on stderr: the node is more than this.
    pub(crate) async fn resume(&self, surface: &Surface) {
        let kept =
            surface.query(|peer| local(peer.store(), RECORD).map_err(|e| Problem::new(Kind::Storage, e.to_string())));
        let kept = kept.await.ok().flatten();
        let Some(kept) = kept.and_then(|json| serde_json::from_slice::<Kept>(&json).ok()) else {
            return;
        };
        if let Err(problem) = self.listen(surface, kept.at).await {
            tracing::warn!("no IRC: {problem}");
        }
    }

    /// Turns it on, there or where it usually is, also for the next runs.
    pub(crate) async fn turn_on(&self, surface: &Surface, at: Option<SocketAddr>) -> Result<SocketAddr, Problem> {
        let at = at.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
        if !at.ip().is_loopback() {
            let detail = format!(
                "{} is not on this machine only; IRC is spoken on loopback alone",
                at.ip()
            );
            return Err(Problem::new(Kind::BadRequest, detail));
        }
        self.turn_off(surface).await?;
        let at = self.listen(surface, at).await?;
        let kept = serde_json::to_vec(&Kept { at }).map_err(|error| Problem::new(Kind::Internal, error.to_string()))?;
        surface.write_local(vec![(RECORD.to_owned(), Some(kept))]).await?;
        Ok(at)
    }

    /// Turns it off, also for the next runs.
    pub(crate) async fn turn_off(&self, surface: &Surface) -> Result<(), Problem> {
        if let Some(mut running) = self.0.lock().await.take() {
            running.end.send_replace(true);
            // Nothing is ever sent: it ends when nobody is let in any more.
            let _ = running.open.recv().await;
        }
        surface.write_local(vec![(RECORD.to_owned(), None)]).await
    }

    /// Returns when every client has been let go, once the program ends: what they have heard is written down by then.
    pub(crate) async fn ended(&self) {
        let running = self.0.lock().await.take();
        for served in running.into_iter().flat_map(|running| running.served) {
            // A listener that panicked has ended too.
            let _ = served.await;
        }
    }

    async fn listen(&self, surface: &Surface, at: SocketAddr) -> Result<SocketAddr, Problem> {
        let cannot = |error: std::io::Error| {
            let detail =
                format!("cannot listen for IRC at {at}: {error}; choose another port with `offhook irc on --port N`");
            Problem::new(Kind::CannotListen, detail)
        };
        let listener = TcpListener::bind(at).await.map_err(cannot)?;
        let at = listener.local_addr()?;
        let path = socket_path(surface.home());
        let _ = std::fs::remove_file(&path);
        let socket = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        let (end, ending) = watch::channel(false);
        let (listener, socket) = (Patient::new(listener, LIMITS), Patient::new(socket, LIMITS));
        let (open_in, open) = mpsc::channel(1);
        let asks = serve(listener, surface.clone(), None, ending.clone(), open_in.clone());
        let trusts = serve(socket, surface.clone(), Some(Grant::owner()), ending, open_in);
        let served = [tokio::spawn(asks), tokio::spawn(trusts)];
        *self.0.lock().await = Some(Running { at, end, open, served });
        Ok(at)
    }
}

/// Accepts clients until it is turned off or the program ends, then waits until they are gone.
async fn serve<L: Listener>(
    mut listener: Patient<L>,
    surface: Surface,
    grant: Option<Grant>,
    mut ending: watch::Receiver<bool>,
    open: mpsc::Sender<()>,
) where
    L::Io: Sync,
{
    let mut stopping = surface.ending();
    let mut clients = JoinSet::new();
    loop {
        let client = tokio::select! {
            // An error means that the sender is gone, which is an end too.
            _ = ending.wait_for(|end| *end) => break,
            _ = stopping.wait_for(|end| *end) => break,
            Some(_) = clients.join_next() => continue,
            (client, _) = listener.accept() => client,
        };
        clients.spawn(session::run(client, surface.clone(), grant.clone(), ending.clone()));
    }
    // Nobody is let in who would only wait for the others to go.
    drop((listener, open));
    while clients.join_next().await.is_some() {}
}
