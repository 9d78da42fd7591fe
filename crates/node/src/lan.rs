//! Finding peers nearby: on the local network by multicast DNS, and on this very machine through a directory of running nodes.
//!
//! Multicast needs an interface that carries it, which a container or a laptop in a plane may not have, and it is not relied on: where it does
//! not start, a line in the log says so. What it finds is a claim by whoever is on the network; it is only an address to try, and
//! the connection proves who answers.
//!
//! Whoever takes invitations of strangers who are near (the peer says so) also announces a name; it is a claim like the rest.
//!
//! Homes on one machine find each other without any network: each node keeps a file named by its device, holding its addresses, in a directory
//! that only its user can write, and holds a lock on the file while it runs. A file that nobody holds is a leftover and is removed.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_lite::StreamExt;
use iroh::address_lookup::{AddressLookup, EndpointData, UserData};
use iroh::{Endpoint, TransportAddr};
use iroh_mdns_address_lookup::{DiscoveryEvent, MdnsAddressLookup};
use offhook_proto::identity::{DeviceId, NAME_BYTES_MAX};
use offhook_proto::peer::Input;
use tokio::sync::{mpsc, watch};

use crate::driver::Message;
use crate::endpoint::{Own, is_dialable};
use crate::node::Config;

/// Our own, so that other programs on the network are not asked and do not ask.
const SERVICE_NAME: &str = "offhook1";
/// Addresses taken from one announcement.
const ADDRESSES_MAX: usize = 4;
/// Queries are so far apart while this node has just started or has other addresses than before.
const EAGER: Duration = Duration::from_millis(700);
/// For so long.
const EAGER_FOR: Duration = Duration::from_secs(15);
/// And so far from then on: who comes asks by itself, and every query is answered by all.
const CALM: Duration = Duration::from_secs(30);
/// Whoever was seen before the queries grew rare and does not show in this time is gone.
const REDISCOVERED: Duration = Duration::from_secs(90);
/// How often the directory of this machine's nodes is read.
const SCAN_PERIOD: Duration = Duration::from_secs(1);
/// What is known is told again after so many scans.
const SCANS_PER_REMINDER: u32 = 30;
/// Nodes of one machine that are looked at.
const NODES_MAX: usize = 64;
/// No file of a node is longer than this.
const FILE_BYTES_MAX: u64 = 1_024;
/// What stands before an announced name.
const NAME_MARK: &str = "name ";

/// Nodes remembered as near.
const NEAR_MAX: usize = 256;
/// A node of this machine whose file was not seen for so long is gone.
const NEAR_FOR: Duration = Duration::from_secs(5);

/// Where somebody was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Where {
    /// On this very machine.
    Machine,
    /// On the local network.
    Network,
}

/// A node that announces itself nearby.
#[derive(Debug, Clone)]
pub struct Near {
    /// Its device, as claimed.
    pub device: DeviceId,
    /// Where it was seen.
    pub place: Where,
    /// Where it says it can be reached.
    pub addresses: Vec<SocketAddr>,
    /// The name that it announces: whoever does takes invitations of strangers.
    pub claim: Option<String>,
    /// How long ago it was last heard of.
    pub since: Duration,
}

/// Who was seen nearby, and when.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sightings(Arc<Mutex<BTreeMap<DeviceId, Sighting>>>);

#[derive(Debug)]
struct Sighting {
    place: Where,
    seen: Seen,
    at: Instant,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Seen {
    addresses: Vec<SocketAddr>,
    claim: Option<String>,
}

/// The name that this node announces, if any.
pub(crate) type Announced = watch::Receiver<Option<String>>;

impl Sightings {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<DeviceId, Sighting>> {
        // Nothing that holds the lock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, device: DeviceId, place: Where, seen: Seen) {
        let mut all = self.lock();
        all.retain(|_, sighting| is_fresh(sighting));
        // What this machine knows itself is not taken back by what is heard.
        let is_on_machine = |sighting: &Sighting| sighting.place == Where::Machine;
        if place == Where::Network && all.get(&device).is_some_and(is_on_machine) {
            return;
        }
        if all.len() < NEAR_MAX || all.contains_key(&device) {
            let at = Instant::now();
            all.insert(device, Sighting { place, seen, at });
        }
    }

    /// Somebody is on the network no more. False where it was not seen there.
    fn forget_on_network(&self, device: &DeviceId) -> bool {
        let mut all = self.lock();
        let is_there = |sighting: &Sighting| sighting.place == Where::Network;
        all.get(device).is_some_and(is_there) && all.remove(device).is_some()
    }

    /// Those on the network of whom nothing was heard since.
    fn on_network_before(&self, since: Instant) -> Vec<DeviceId> {
        let all = self.lock();
        let old = all
            .iter()
            .filter(|(_, sighting)| sighting.place == Where::Network && sighting.at < since);
        old.map(|(device, _)| *device).collect()
    }

    /// Those that are near now.
    pub(crate) fn list(&self) -> Vec<Near> {
        let seen = self.lock();
        let fresh = seen.iter().filter(|(_, sighting)| is_fresh(sighting));
        let near = fresh.map(|(device, sighting)| Near {
            device: *device,
            place: sighting.place,
            addresses: sighting.seen.addresses.clone(),
            claim: sighting.seen.claim.clone(),
            since: sighting.at.elapsed(),
        });
        near.collect()
    }
}

/// Multicast says when somebody is gone; the machine's directory only says who is there.
fn is_fresh(sighting: &Sighting) -> bool {
    sighting.place == Where::Network || sighting.at.elapsed() < NEAR_FOR
}

/// Starts looking. Ends with the node.
pub(crate) fn start(
    config: &Config,
    endpoint: Endpoint,
    inbox: mpsc::Sender<Message>,
    stopping: watch::Receiver<bool>,
    own: watch::Receiver<Own>,
    announced: Announced,
) -> Sightings {
    let sightings = Sightings::default();
    let machine = Machine {
        sightings: sightings.clone(),
        me: DeviceId(*endpoint.id().as_bytes()),
        bound: endpoint.bound_sockets(),
        inbox: inbox.clone(),
        announced: announced.clone(),
    };
    tokio::spawn(until(stopping.clone(), machine.run()));
    if config.lan {
        tokio::spawn(until(
            stopping,
            multicast(endpoint, inbox, own, announced, sightings.clone()),
        ));
    }
    sightings
}

async fn until(mut stopping: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        // Also when the sender is gone.
        _ = stopping.wait_for(|stop| *stop) => {}
        () = work => {}
    }
}

/// Announces this node and listens for others: eagerly at first and after a change of addresses, then calmly.
async fn multicast(
    endpoint: Endpoint,
    inbox: mpsc::Sender<Message>,
    mut own: watch::Receiver<Own>,
    mut announced: Announced,
    sightings: Sightings,
) {
    let neighbourhood = Neighbourhood { inbox, sightings };
    let mut calms_at = tokio::time::Instant::now() + EAGER_FOR;
    loop {
        let is_eager = tokio::time::Instant::now() < calms_at;
        let lookup = MdnsAddressLookup::builder()
            .service_name(SERVICE_NAME)
            .discovery_cadence(if is_eager { EAGER } else { CALM })
            .build(endpoint.id());
        let lookup = match lookup {
            Ok(lookup) => lookup,
            Err(error) => {
                tracing::info!(%error, "the local network carries no multicast; peers are found by other means");
                return;
            }
        };
        let mut found = lookup.subscribe().await;
        let began = Instant::now();
        let rediscovered = tokio::time::sleep(REDISCOVERED);
        tokio::pin!(rediscovered);
        loop {
            let mut data = {
                let addresses = own.borrow_and_update().addresses.clone();
                EndpointData::new(addresses.into_iter().map(TransportAddr::Ip).collect())
            };
            // Also where there is nothing to say: else what was said before would stay.
            let said = said_of(announced.borrow_and_update().as_deref());
            data.set_user_data(UserData::try_from(said).ok());
            lookup.publish(&data);
            let next = tokio::select! {
                next = neighbourhood.listen(&mut found) => next,
                changed = own.changed() => changed.map_or(Next::End, |()| Next::Eager),
                changed = announced.changed() => changed.map_or(Next::End, |()| Next::Publish),
                () = tokio::time::sleep_until(calms_at), if is_eager => Next::Calm,
                () = &mut rediscovered, if !is_eager && !rediscovered.is_elapsed() => Next::Forget,
            };
            match next {
                Next::Publish => {}
                Next::Forget if neighbourhood.forget_unseen_since(began).await => {}
                Next::End | Next::Forget => return,
                Next::Calm => break,
                Next::Eager => {
                    calms_at = tokio::time::Instant::now() + EAGER_FOR;
                    if !is_eager {
                        break;
                    }
                }
            }
        }
    }
}

/// Why the neighbourhood is not just listened to any more.
enum Next {
    /// There is something else to announce.
    Publish,
    /// The addresses are others: the network may be another one.
    Eager,
    /// Nothing has changed for a while.
    Calm,
    /// Whoever has not shown again is gone.
    Forget,
    /// The node ends.
    End,
}

/// Whom what is heard is told to.
struct Neighbourhood {
    inbox: mpsc::Sender<Message>,
    sightings: Sightings,
}

impl Neighbourhood {
    /// Takes what is heard, until nobody listens any more.
    async fn listen(&self, found: &mut (impl StreamExt<Item = DiscoveryEvent> + Unpin)) -> Next {
        while let Some(event) = found.next().await {
            let goes_on = match event {
                DiscoveryEvent::Discovered { endpoint_info, .. } => {
                    let addresses = endpoint_info.ip_addrs().filter(|at| is_nearby(at)).copied();
                    let addresses: Vec<SocketAddr> = addresses.take(ADDRESSES_MAX).collect();
                    // Who names no address cannot be called: it has just started, and says more soon.
                    if addresses.is_empty() {
                        continue;
                    }
                    let peer = DeviceId(*endpoint_info.endpoint_id.as_bytes());
                    let claim = endpoint_info.user_data().and_then(|said| claim_in(said.as_ref()));
                    let seen = Seen {
                        addresses: addresses.clone(),
                        claim,
                    };
                    self.sightings.note(peer, Where::Network, seen);
                    tell(&self.inbox, Input::Found { peer, addresses }).await
                }
                DiscoveryEvent::Expired { endpoint_id } => self.lose(DeviceId(*endpoint_id.as_bytes())).await,
                _ => true,
            };
            if !goes_on {
                break;
            }
        }
        Next::End
    }

    async fn lose(&self, peer: DeviceId) -> bool {
        !self.sightings.forget_on_network(&peer) || tell(&self.inbox, Input::Lost { peer }).await
    }

    /// Whoever was seen by an earlier look-up only. False when nobody listens any more.
    async fn forget_unseen_since(&self, began: Instant) -> bool {
        for peer in self.sightings.on_network_before(began) {
            if !self.lose(peer).await {
                return false;
            }
        }
        true
    }
}

/// What is announced beside the device.
fn said_of(name: Option<&str>) -> String {
    name.map_or_else(String::new, |name| format!("{NAME_MARK}{name}"))
}

/// The name that an announcement claims. Whoever is on the network can write it: it is one short line, or none.
fn claim_in(said: &str) -> Option<String> {
    let name = said.strip_prefix(NAME_MARK)?.trim();
    let is_fine = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
    is_fine.then(|| name.to_owned())
}

/// Whether an announced address can be one on the local network. Loopback would be this machine's own.
fn is_nearby(at: &SocketAddr) -> bool {
    is_dialable(at) && !at.ip().is_loopback()
}

/// Tells the peer where another may be. False when the driver is gone.
async fn tell(inbox: &mpsc::Sender<Message>, found: Input) -> bool {
    match &found {
        Input::Found { addresses, .. } if addresses.is_empty() => true,
        _ => inbox.send(Message::Input(found)).await.is_ok(),
    }
}

/// The nodes of this machine.
struct Machine {
    sightings: Sightings,
    me: DeviceId,
    bound: Vec<SocketAddr>,
    inbox: mpsc::Sender<Message>,
    announced: Announced,
}

impl Machine {
    async fn run(mut self) {
        let dir = match nodes_dir() {
            Ok(dir) => dir,
            Err(error) => {
                tracing::info!(%error, "other homes on this machine are not looked for");
                return;
            }
        };
        let mine = dir.join(name_of(&self.me));
        let here = local_addresses(&self.bound);
        let name = self.announced.borrow_and_update().clone();
        let presence = match Presence::announce(&mine, &here, name.as_deref()) {
            Ok(presence) => presence,
            Err(error) => {
                tracing::info!(%error, "other homes on this machine are not told of this one");
                return;
            }
        };
        let mut known: BTreeMap<DeviceId, Seen> = BTreeMap::new();
        let mut period = tokio::time::interval(SCAN_PERIOD);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for scan in 0u32.. {
            period.tick().await;
            if self.announced.has_changed().unwrap_or(false) {
                let name = self.announced.borrow_and_update().clone();
                if let Err(error) = presence.say(&here, name.as_deref()) {
                    tracing::info!(%error, "other homes on this machine are not told of the name");
                }
            }
            if scan % SCANS_PER_REMINDER == 0 {
                known.clear();
            }
            let seen = others(&dir, &self.me);
            for (peer, node) in &seen {
                self.sightings.note(*peer, Where::Machine, node.clone());
                let before = known.get(peer).map(|node| &node.addresses);
                if before == Some(&node.addresses) {
                    continue;
                }
                let found = Input::Found {
                    peer: *peer,
                    addresses: node.addresses.clone(),
                };
                if !tell(&self.inbox, found).await {
                    return;
                }
            }
            for peer in known.keys().filter(|peer| !seen.contains_key(*peer)) {
                if !tell(&self.inbox, Input::Lost { peer: *peer }).await {
                    return;
                }
            }
            known = seen;
        }
    }
}

/// A node's file, locked while it runs and removed when it ends.
struct Presence {
    path: PathBuf,
    file: File,
}

impl Presence {
    /// Written and locked under another name first: whoever sees it sees it whole and held.
    fn announce(path: &Path, addresses: &[SocketAddr], name: Option<&str>) -> io::Result<Self> {
        let fresh = path.with_extension(format!("{}.new", std::process::id()));
        let _ = fs::remove_file(&fresh);
        let file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&fresh)?;
        file.lock()?;
        let presence = Self {
            path: path.to_owned(),
            file,
        };
        presence.say(addresses, name)?;
        fs::rename(&fresh, path)?;
        Ok(presence)
    }

    /// Writes it anew, in place: another file would look like a leftover to whoever has the old one open. Who reads half of it reads it again soon.
    fn say(&self, addresses: &[SocketAddr], name: Option<&str>) -> io::Result<()> {
        let addresses = addresses.iter().map(ToString::to_string);
        let lines: Vec<String> = addresses.chain(name.map(|name| said_of(Some(name)))).collect();
        let text = lines.join("\n");
        self.file.write_all_at(text.as_bytes(), 0)?;
        self.file.set_len(text.len() as u64)
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // A leftover is removed by whoever finds it.
        let _ = fs::remove_file(&self.path);
    }
}

/// The nodes that run now, but for this one. Leftovers are removed on the way.
fn others(dir: &Path, me: &DeviceId) -> BTreeMap<DeviceId, Seen> {
    let Ok(files) = fs::read_dir(dir) else {
        return BTreeMap::new();
    };
    let paths = files.flatten().map(|file| file.path()).take(NODES_MAX * 2);
    let nodes = paths.filter_map(|path| {
        let peer = device_of(path.file_name()?.to_str()?).filter(|peer| peer != me)?;
        Some((peer, read_node(&path)?))
    });
    nodes.take(NODES_MAX).collect()
}

fn read_node(path: &Path) -> Option<Seen> {
    let file = File::open(path).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {}
        Ok(()) => {
            let _ = fs::remove_file(path);
            return None;
        }
        Err(TryLockError::Error(_)) => return None,
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    let addresses = text.lines().filter_map(|line| line.parse().ok()).filter(is_dialable);
    Some(Seen {
        addresses: addresses.take(ADDRESSES_MAX).collect(),
        claim: text.lines().find_map(claim_in),
    })
}

/// A private directory of this user: the session's, else one under the system's directory for temporary files.
fn nodes_dir() -> io::Result<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let base = match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir).join("offhook"),
        _ => std::env::temp_dir().join(format!("offhook-{uid}")),
    };
    private_dir(&base, uid)?;
    let dir = base.join("nodes");
    private_dir(&dir, uid)?;
    Ok(dir)
}

/// Makes a directory that only this user can use, or proves that it is one: others can write where temporary files go.
fn private_dir(dir: &Path, uid: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(dir)?;
    if found.is_dir() && found.uid() == uid && found.mode() & 0o077 == 0 {
        return Ok(());
    }
    Err(io::Error::other(format!("{} is open to other users", dir.display())))
}

/// Where a node that is bound to these sockets can be reached from this machine.
fn local_addresses(bound: &[SocketAddr]) -> Vec<SocketAddr> {
    let here = |at: &SocketAddr| match at.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Some(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), at.port())),
        IpAddr::V6(ip) if ip.is_unspecified() => None,
        _ => Some(*at),
    };
    bound.iter().filter_map(here).collect()
}

fn name_of(device: &DeviceId) -> String {
    iroh::EndpointId::from_bytes(&device.0).map_or_else(|_| String::new(), |id| id.to_string())
}

fn device_of(name: &str) -> Option<DeviceId> {
    let id: iroh::EndpointId = name.parse().ok()?;
    (name.len() == 64).then(|| DeviceId(*id.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(seed: u8) -> DeviceId {
        DeviceId(*iroh::SecretKey::from_bytes(&[seed; 32]).public().as_bytes())
    }

    #[test]
    fn running_nodes_are_seen_and_leftovers_removed() {
        let dir = tempfile::tempdir().unwrap();
        let at: SocketAddr = "127.0.0.1:4242".parse().unwrap();
        let path = dir.path().join(name_of(&device(1)));
        let seen = |claim: Option<&str>| Seen {
            addresses: vec![at],
            claim: claim.map(str::to_owned),
        };
        let presence = Presence::announce(&path, &[at], None).unwrap();
        assert_eq!(
            others(dir.path(), &device(2)),
            BTreeMap::from([(device(1), seen(None))])
        );
        presence.say(&[at], Some("Ada L.")).unwrap();
        assert_eq!(
            others(dir.path(), &device(2)),
            BTreeMap::from([(device(1), seen(Some("Ada L.")))])
        );
        assert_eq!(others(dir.path(), &device(1)), BTreeMap::new());
        drop(presence);
        assert!(others(dir.path(), &device(2)).is_empty());

        fs::write(&path, "127.0.0.1:1").unwrap();
        assert!(others(dir.path(), &device(2)).is_empty());
        assert!(!path.exists());
    }

    #[test]
    fn a_claim_is_one_short_line() {
        assert_eq!(claim_in(&said_of(Some("Zoë"))), Some("Zoë".to_owned()));
        for said in [
            said_of(None),
            said_of(Some("")),
            said_of(Some(" \t")),
            said_of(Some("a\nb")),
            said_of(Some(&"x".repeat(NAME_BYTES_MAX + 1))),
            "Ada".to_owned(),
        ] {
            assert_eq!(claim_in(&said), None, "{said:?}");
        }
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let uid = rustix::process::getuid().as_raw();
        let open = dir.path().join("open");
        DirBuilder::new().mode(0o700).create(&open).unwrap();
        private_dir(&open, uid).unwrap();
        fs::set_permissions(&open, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        assert!(private_dir(&open, uid).is_err());
        assert!(private_dir(&dir.path().join("none/deep"), uid).is_err());
    }
}
