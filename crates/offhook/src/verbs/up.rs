//! `offhook up`: runs the node in the foreground and serves the API on the control socket of its home and over HTTP on loopback.
//!
//! Ctrl-C and SIGTERM end it within two seconds: streams of the API are ended, then the node, which says goodbye to its peers.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use offhook_node::dht::DhtOptions;
use offhook_node::files::FileLimits;
use offhook_node::home::{HomeError, control_socket_path};
use offhook_node::journal::local;
use offhook_node::relay::RelayError;
use offhook_node::{Config, Node, NodeHandle, StartError};
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use super::keepers::own_lines;
use super::{Context, Done, Stop, join, keys};
use crate::api::model::{Event, LoginLink, Room, Standing, Status};
use crate::api::{self, Surface};
use crate::client::{Client, Target};
use crate::config;
use crate::flags::{Keeper, Up};
use crate::http;
use crate::http::patience::{Limits, Patient};
use crate::problem::{Kind, Problem};
use crate::proto::identity::NAME_BYTES_MAX;
use crate::proto::keeper;
use crate::proto::overlay::ledger;
use crate::proto::peer::Command;
use crate::render::{Style, clean_line, short};
use crate::service;

/// The local record of the port on which HTTP is spoken: it stays the same over restarts, for bookmarks' sake.
const HTTP_PORT: &str = "http-port";
/// How long requests that have begun, and IRC clients, may take once the program is to end.
const REQUESTS_END: Duration = Duration::from_millis(500);
/// How long the start waits for the first address, for the sake of what it prints.
const ADDRESS_WAIT: Duration = Duration::from_millis(500);
/// How long `up INVITE` waits before it says why the join takes long; the node goes on trying.
const JOIN_WAIT_S: u64 = 30;

/// A node that keeps for others and is nobody's: the same as `offhook up --keeper`, with its limits.
pub(super) async fn keep(context: Context, flags: Keeper) -> Done {
    let vault_bytes_max = u64::from(flags.room_mib) << 20;
    let limits = keeper::Limits {
        vaults_max: usize::try_from(flags.rooms).unwrap_or(usize::MAX),
        vault_bytes_max,
        // One log may fill a quarter: no single device takes the room from the others.
        log_bytes_max: vault_bytes_max / 4,
        days: flags.days,
    };
    let up = Up {
        name: flags.name,
        listen: flags.listen,
        http: Some(http::Listen::Off),
        headless: true,
        no_public_infrastructure: flags.no_public_infrastructure,
        keeper: true,
        ..Up::default()
    };
    run_with(context, up, Some(limits)).await
}

pub(super) async fn run(context: Context, flags: Up) -> Done {
    let limits = flags.keeper.then(keeper::Limits::default);
    run_with(context, flags, limits).await
}

async fn run_with(context: Context, flags: Up, keeps: Option<keeper::Limits>) -> Done {
    // Before anything else: a signal during the start ends it cleanly too.
    let mut signals = Signals::new()?;
    if let Some(invite) = &flags.invite {
        join::parse(invite)?;
    }
    log_to_stderr();
    let node = tokio::select! {
        started = start(&context, &flags, keeps) => started?,
        () = signals.any() => return Ok(()),
    };
    let (end, ending) = watch::channel(false);
    let result = match serve(&node, &context.home, &flags, ending).await {
        Err(error) => Err(error),
        Ok(served) => {
            let talked = tokio::select! {
                result = talk(&context, &node, &flags) => result,
                () = signals.any() => Ok(()),
                () = node.stopped() => Err(stopped()),
                () = service::feed_watchdog(node.clone()) => Ok(()),
            };
            service::notify("STOPPING=1");
            end.send_replace(true);
            // These still write to the node, which therefore stops after them. Who takes too long is cut off.
            let _ = tokio::time::timeout(REQUESTS_END, served).await;
            talked
        }
    };
    node.shutdown().await;
    let _ = fs::remove_file(control_socket_path(&context.home));
    result
}

async fn start(context: &Context, flags: &Up, keeps: Option<keeper::Limits>) -> Result<NodeHandle, Stop> {
    if flags
        .name
        .as_ref()
        .is_some_and(|name| name.is_empty() || name.len() > NAME_BYTES_MAX)
    {
        let detail = format!("a name must be 1 to {NAME_BYTES_MAX} bytes long");
        return Err(Problem::new(Kind::Length, detail).into());
    }
    let mut config = Config::new(&context.home, flags.name.clone().unwrap_or_else(login_name));
    config.listen = flags.listen;
    config.no_public_infrastructure = flags.no_public_infrastructure;
    config.dht = dht(flags)?;
    config.announce.clone_from(&flags.announce);
    config.relays.clone_from(&flags.use_relay);
    config.serve_relay = flags.relay.then(|| flags.relay_options.options());
    config.flows = ledger::Limits::new(flags.flows.unwrap_or(ledger::HARD_CAP), flags.flows_everyday)
        .map_err(|error| Problem::new(Kind::BadRequest, error.to_string()))?;
    let usual = FileLimits::default();
    config.files = FileLimits {
        send_bytes_max: flags.files_send_max.unwrap_or(usual.send_bytes_max),
        unasked_bytes_max: flags.files_unasked_max.unwrap_or(usual.unasked_bytes_max),
    };
    config.wording = Some(api::feed::wording);
    let node = Node::start(config).await.map_err(start_problem)?;
    if let Some(name) = flags.name.clone() {
        let known = node.query(|peer| peer.me().name).await;
        if known.is_ok_and(|known| known != name) {
            let named = node.command(Command::SetName { name }).await;
            named.map_err(|error| Problem::new(Kind::Length, error.to_string()))?;
        }
    }
    if let Some(limits) = keeps {
        let kept = node.command(Command::Keep { limits }).await;
        kept.map_err(|error| Problem::new(Kind::Storage, error.to_string()))?;
    }
    Ok(node)
}

/// The DHT where it is wanted; its public hosts are asked only where public infrastructure may be used.
fn dht(flags: &Up) -> Result<Option<DhtOptions>, Problem> {
    if !flags.dht {
        return Ok(None);
    }
    if !flags.dht_bootstrap.is_empty() {
        let bootstrap =
            config::hosts(&flags.dht_bootstrap.join(",")).map_err(|why| Problem::new(Kind::BadRequest, why))?;
        return Ok(Some(DhtOptions { bootstrap }));
    }
    match flags.no_public_infrastructure {
        true => {
            let detail = "the DHT begins at public hosts, and no public infrastructure is to be used: name others with --dht-bootstrap, or leave one of the two out";
            Err(Problem::new(Kind::BadRequest, detail))
        }
        false => Ok(Some(DhtOptions::default())),
    }
}

/// What the person is called on this machine: a first guess that others see until it is changed.
fn login_name() -> String {
    let name = ["USER", "LOGNAME"]
        .iter()
        .find_map(|variable| std::env::var(variable).ok());
    let fits = |name: &String| !name.is_empty() && name.len() <= NAME_BYTES_MAX;
    name.filter(fits).unwrap_or_else(|| "somebody".to_owned())
}

fn start_problem(error: StartError) -> Problem {
    let kind = match &error {
        StartError::Home(HomeError::InUse(_)) => Kind::Busy,
        StartError::Home(_) | StartError::Store(_) | StartError::Files(_) => Kind::BadHome,
        StartError::Listen { .. } => Kind::CannotListen,
        StartError::BadRelay(_) => Kind::BadRequest,
        StartError::Relay(error) => relay_kind(error),
        StartError::Thread(_) => Kind::Internal,
    };
    Problem::new(kind, error.to_string())
}

fn relay_kind(error: &RelayError) -> Kind {
    match error {
        RelayError::Listen { .. } => Kind::CannotListen,
        RelayError::BadUrl(_) | RelayError::NoAddress => Kind::BadRequest,
    }
}

pub(super) fn relay_problem(error: RelayError) -> Problem {
    Problem::new(relay_kind(&error), error.to_string())
}

/// Serves the API. The home's lock is held, so a control socket that is there is left over from a crash.
async fn serve(
    node: &NodeHandle,
    home: &Path,
    flags: &Up,
    ending: watch::Receiver<bool>,
) -> Result<impl Future<Output = ()> + use<>, Stop> {
    let path = control_socket_path(home);
    let _ = fs::remove_file(&path);
    let cannot = |error: std::io::Error| {
        let detail = format!("cannot make the control socket {}: {error}", path.display());
        Problem::new(Kind::BadHome, detail)
    };
    let http = http::bind(flags.http, last_port(node).await).await?;
    let at = http.as_ref().map(TcpListener::local_addr).transpose()?;
    if let Some(at) = at {
        let change = (HTTP_PORT.to_owned(), Some(at.port().to_string().into_bytes()));
        // Only a convenience: the next run would take another port.
        let _ = node.write_local(vec![change], None).await;
    }
    let surface = Surface::new(node.clone(), home.to_owned(), at, ending.clone()).await;
    let surface = surface.map_err(|error| Problem::new(Kind::Storage, error.to_string()))?;
    surface.irc().resume(&surface).await;
    let listener = UnixListener::bind(&path).map_err(cannot)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(cannot)?;
    let ended = move || {
        let mut ending = ending.clone();
        // An error means that the sender is gone, which is an end too.
        async move { drop(ending.wait_for(|end| *end).await) }
    };
    let pages = http.zip(at).map(|(listener, at)| {
        let listener = Patient::new(listener, Limits::USUAL);
        tokio::spawn(api::serve(listener, http::router(surface.clone(), at), ended()))
    });
    let listener = Patient::new(listener, Limits::USUAL);
    let irc = surface.irc().clone();
    let socket = tokio::spawn(api::serve(listener, api::owner_router(surface), ended()));
    Ok(async move {
        irc.ended().await;
        let _ = socket.await;
        if let Some(pages) = pages {
            let _ = pages.await;
        }
    })
}

/// The port on which the last run spoke HTTP.
async fn last_port(node: &NodeHandle) -> Option<u16> {
    let kept = node.query(|peer| local(peer.store(), HTTP_PORT)).await;
    String::from_utf8(kept.ok()?.ok()??).ok()?.parse().ok()
}

/// Says who is up, joins where asked to, then passes on what a person should look at, without end.
async fn talk(context: &Context, node: &NodeHandle, flags: &Up) -> Done {
    wait_for_address(node).await;
    let mut events = context.node.events().await?;
    let status: Status = context.node.get(Target::new(&["status"])).await?;
    let link = match status.http.is_some() && !flags.headless && !context.out.json {
        true => Some(keys::link(context).await?),
        false => None,
    };
    context
        .out
        .either(&status, |style| greeting(&status, link.as_ref(), context, style))?;
    if let Some(link) = &link {
        keys::open_browser(&link.url);
    }
    if let Some(invite) = &flags.invite {
        // Asked through the socket like everybody else.
        let joined = join::follow(&Client::new(&context.home), context.out, invite, JOIN_WAIT_S).await;
        match joined {
            Err(Stop::Problem(problem)) if goes_on(&problem) => context.out.talk(&format!("offhook: {problem}")),
            other => other?,
        }
    }
    service::notify("READY=1");
    while let Some(event) = events.next().await? {
        if let Event::Notice { text, .. } | Event::Near { text: Some(text) } = event {
            context.out.talk(&clean_line(&text));
        }
    }
    Err(stopped())
}

/// Whether a failed join is no reason to stop the node: it may still succeed, or the person is in already.
fn goes_on(problem: &Problem) -> bool {
    matches!(problem.kind, Kind::NotJoined | Kind::Already)
}

async fn wait_for_address(node: &NodeHandle) {
    let known = async {
        while node.addresses().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // Without a network there is none: the node works all the same.
    let _ = tokio::time::timeout(ADDRESS_WAIT, known).await;
}

fn greeting(status: &Status, link: Option<&LoginLink>, context: &Context, style: Style) -> String {
    let you = style.bold(&clean_line(&status.name));
    let next = match status
        .rooms
        .iter()
        .find(|room| room.standing == Standing::Member && room.pair.is_none())
    {
        Some(room) => format!(
            "to invite somebody to {}: {}",
            clean_line(&room.name),
            invite_command(room)
        ),
        None => "to begin: offhook room new NAME, then: offhook invite NAME".to_owned(),
    };
    let keeper: String = match &status.keeper {
        Some(own) => own_lines(own).iter().map(|line| format!("{line}\n")).collect(),
        None => String::new(),
    };
    let page = match (link, &status.http) {
        (Some(link), _) => format!("page     {}\n", link.url),
        (None, Some(http)) => format!("page     {http}/  (`offhook open` signs a browser in)\n"),
        (None, None) => String::new(),
    };
    format!(
        "you      {you}  person {}  device {}\nhome     {}\nnetwork  {}\n{page}{keeper}{next}\nCtrl-C stops the node\n",
        short(&status.person),
        short(&status.device),
        context.home.display(),
        status.network,
    )
}

fn invite_command(room: &Room) -> String {
    let plain = room
        .name
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let name = if plain && !room.name.is_empty() {
        &room.name
    } else {
        short(&room.room)
    };
    format!("offhook invite {name}")
}

fn stopped() -> Stop {
    Problem::new(Kind::Internal, "the node stopped by itself; the lines above say why").into()
}

/// Ctrl-C, SIGTERM, and the terminal going away.
pub(super) struct Signals([Signal; 3]);

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        let [a, b, c] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        Ok(Self([signal(a)?, signal(b)?, signal(c)?]))
    }

    pub(super) async fn any(&mut self) {
        let [a, b, c] = &mut self.0;
        tokio::select! {
            _ = a.recv() => {}
            _ = b.recv() => {}
            _ = c.recv() => {}
        }
    }
}

/// Warnings of the node go to stderr; `RUST_LOG` asks for more.
pub(super) fn log_to_stderr() {
    use tracing_subscriber::EnvFilter;
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("offhook=warn,offhook_node=warn,error"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false);
    // Fails only where somebody has set one already.
    let _ = subscriber.try_init();
}
