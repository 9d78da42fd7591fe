//! Finding peers nearby: on the local network by multicast DNS, and on this very machine through a directory of running nodes.
//!
//! Multicast needs an interface that carries it, which a container or a laptop in a plane may not have, and it is not relied on: where it does
//! not start, a line in the log says so. What it finds is a claim by whoever is on the network; it is only an address to try, and
//! the connection proves who answers.
//!
//! Homes on one machine find each other without any network: each node keeps a file named by its device, holding its addresses, in a directory
//! that only its user can write, and holds a lock on the file while it runs. A file that nobody holds is a leftover and is removed.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_lite::StreamExt;
use iroh::address_lookup::{AddressLookup, EndpointData};
use iroh::{Endpoint, TransportAddr};
use iroh_mdns_address_lookup::{DiscoveryEvent, MdnsAddressLookup};
use offhook_proto::identity::DeviceId;
use offhook_proto::peer::Input;
use tokio::sync::{mpsc, watch};

use crate::driver::Message;
use crate::endpoint::{Own, is_dialable};
use crate::node::Config;

/// Our own, so that other programs on the network are not asked and do not ask.
const SERVICE_NAME: &str = "offhook1";
/// Addresses taken from one announcement.
const ADDRESSES_MAX: usize = 4;
/// How often the directory of this machine's nodes is read.
const SCAN_PERIOD: Duration = Duration::from_secs(1);
/// What is known is told again after so many scans.
const SCANS_PER_REMINDER: u32 = 30;
/// Nodes of one machine that are looked at.
const NODES_MAX: usize = 64;
/// No file of a node is longer than this.
const FILE_BYTES_MAX: u64 = 1_024;

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
    /// How long ago it was last heard of.
    pub since: Duration,
}

/// Who was seen nearby, and when.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sightings(Arc<Mutex<BTreeMap<DeviceId, Sighting>>>);

type Sighting = (Where, Vec<SocketAddr>, Instant);

impl Sightings {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<DeviceId, Sighting>> {
        // Nothing that holds the lock can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, device: DeviceId, place: Where, addresses: &[SocketAddr]) {
        let mut seen = self.lock();
        seen.retain(|_, sighting| is_fresh(sighting));
        if seen.len() < NEAR_MAX || seen.contains_key(&device) {
            seen.insert(device, (place, addresses.to_vec(), Instant::now()));
        }
    }

    fn forget(&self, device: &DeviceId) {
        self.lock().remove(device);
    }

    /// Those that are near now.
    pub(crate) fn list(&self) -> Vec<Near> {
        let seen = self.lock();
        let fresh = seen.iter().filter(|(_, sighting)| is_fresh(sighting));
        let near = fresh.map(|(device, (place, addresses, at))| Near {
            device: *device,
            place: *place,
            addresses: addresses.clone(),
            since: at.elapsed(),
        });
        near.collect()
    }
}

/// Multicast says when somebody is gone; the machine's directory only says who is there.
fn is_fresh((place, _, at): &Sighting) -> bool {
    *place == Where::Network || at.elapsed() < NEAR_FOR
}

/// Starts looking. Ends with the node.
pub(crate) fn start(
    config: &Config,
    endpoint: Endpoint,
    inbox: mpsc::Sender<Message>,
    stopping: watch::Receiver<bool>,
    own: watch::Receiver<Own>,
) -> Sightings {
    let sightings = Sightings::default();
    let machine = Machine {
        sightings: sightings.clone(),
        me: DeviceId(*endpoint.id().as_bytes()),
        bound: endpoint.bound_sockets(),
        inbox: inbox.clone(),
    };
    tokio::spawn(until(stopping.clone(), machine.run()));
    if config.lan {
        tokio::spawn(until(stopping, multicast(endpoint, inbox, own, sightings.clone())));
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

/// Announces this node and listens for others.
async fn multicast(
    endpoint: Endpoint,
    inbox: mpsc::Sender<Message>,
    mut own: watch::Receiver<Own>,
    sightings: Sightings,
) {
    let lookup = MdnsAddressLookup::builder()
        .service_name(SERVICE_NAME)
        .build(endpoint.id());
    let lookup = match lookup {
        Ok(lookup) => lookup,
        Err(error) => {
            tracing::info!(%error, "the local network carries no multicast; peers are found by other means");
            return;
        }
    };
    let mut found = lookup.subscribe().await;
    loop {
        let addresses = own.borrow_and_update().addresses.clone();
        let data = EndpointData::new(addresses.into_iter().map(TransportAddr::Ip).collect());
        lookup.publish(&data);
        loop {
            tokio::select! {
                changed = own.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                event = found.next() => match event {
                    Some(DiscoveryEvent::Discovered { endpoint_info, .. }) => {
                        let addresses = endpoint_info.ip_addrs().filter(|at| is_nearby(at)).copied();
                        let addresses: Vec<SocketAddr> = addresses.take(ADDRESSES_MAX).collect();
                        let peer = DeviceId(*endpoint_info.endpoint_id.as_bytes());
                        sightings.note(peer, Where::Network, &addresses);
                        let input = Input::Found { peer, addresses };
                        if !tell(&inbox, input).await {
                            return;
                        }
                    }
                    Some(DiscoveryEvent::Expired { endpoint_id }) => {
                        sightings.forget(&DeviceId(*endpoint_id.as_bytes()));
                    }
                    Some(_) => {}
                    None => return,
                },
            }
        }
    }
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
}

impl Machine {
    async fn run(self) {
        let dir = match nodes_dir() {
            Ok(dir) => dir,
            Err(error) => {
                tracing::info!(%error, "other homes on this machine are not looked for");
                return;
            }
        };
        let mine = dir.join(name_of(&self.me));
        let _presence = match Presence::announce(&mine, &local_addresses(&self.bound)) {
            Ok(presence) => presence,
            Err(error) => {
                tracing::info!(%error, "other homes on this machine are not told of this one");
                return;
            }
        };
        let mut known = BTreeMap::new();
        let mut period = tokio::time::interval(SCAN_PERIOD);
        period.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for scan in 0u32.. {
            period.tick().await;
            if scan % SCANS_PER_REMINDER == 0 {
                known.clear();
            }
            let seen = others(&dir, &self.me);
            for (peer, addresses) in &seen {
                self.sightings.note(*peer, Where::Machine, addresses);
                if known.get(peer) == Some(addresses) {
                    continue;
                }
                let found = Input::Found {
                    peer: *peer,
                    addresses: addresses.clone(),
                };
                if !tell(&self.inbox, found).await {
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
    _file: File,
}

impl Presence {
    /// Written and locked under another name first: whoever sees it sees it whole and held.
    fn announce(path: &Path, addresses: &[SocketAddr]) -> io::Result<Self> {
        let fresh = path.with_extension(format!("{}.new", std::process::id()));
        let _ = fs::remove_file(&fresh);
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(&fresh)?;
        file.lock()?;
        let lines: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        file.write_all(lines.join("\n").as_bytes())?;
        fs::rename(&fresh, path)?;
        Ok(Self {
            path: path.to_owned(),
            _file: file,
        })
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        // A leftover is removed by whoever finds it.
        let _ = fs::remove_file(&self.path);
    }
}

/// The nodes that run now, but for this one. Leftovers are removed on the way.
fn others(dir: &Path, me: &DeviceId) -> BTreeMap<DeviceId, Vec<SocketAddr>> {
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

fn read_node(path: &Path) -> Option<Vec<SocketAddr>> {
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
    Some(addresses.take(ADDRESSES_MAX).collect())
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
        let presence = Presence::announce(&path, &[at]).unwrap();
        assert_eq!(others(dir.path(), &device(2)), BTreeMap::from([(device(1), vec![at])]));
        assert_eq!(others(dir.path(), &device(1)), BTreeMap::new());
        drop(presence);
        assert!(others(dir.path(), &device(2)).is_empty());

        fs::write(&path, "127.0.0.1:1").unwrap();
        assert!(others(dir.path(), &device(2)).is_empty());
        assert!(!path.exists());
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
