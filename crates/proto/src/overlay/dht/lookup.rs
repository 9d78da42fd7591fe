//! One iterative look-up towards a place of the DHT: whom to ask next, when it is over, who answered nearest.
//!
//! As Kademlia's (Maymounkov and Mazières 2002), on [`PATHS`] paths that share no host until they have nobody left (S/Kademlia, Baumgart and Mies 2007): a host that names accomplices
//! next to the place, which cost nothing to invent, has the rest of its own path and no more. At most [`ASKED_MAX`] hosts are asked, for each is a flow at the gateway; hosts beyond that are
//! not asked although they may be nearer. Named hosts that the world cannot reach ([`may_name`]) are not asked: nobody may send this node to the network that it stands in.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::krpc::NodeId;

/// Hosts that one look-up asks.
pub const ASKED_MAX: usize = 20;
/// Hosts that are asked at the same time, one on each path.
pub const PATHS: usize = 3;
/// A path is over when so many on it answered and no nearer host is known. So many of each path are asked to keep something.
pub const NEAREST: usize = 3;
/// Hosts taken of one answer.
const TAKEN: usize = 8;

/// How a host stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Known,
    Asked,
    /// With its token, where it gave one.
    Answered(Option<Vec<u8>>),
    Silent,
}

#[derive(Debug, Clone)]
struct Host {
    /// None for those that are asked to begin with.
    id: Option<NodeId>,
    /// None for one that is there for newcomers: what it names is dealt out to all paths.
    path: Option<usize>,
    state: State,
}

/// One look-up.
#[derive(Debug)]
pub(super) struct Lookup {
    place: NodeId,
    hosts: BTreeMap<SocketAddrV4, Host>,
    /// Questions sent and not taken back.
    asked: usize,
    /// Hosts dealt out to paths so far.
    dealt: usize,
    /// No further host is asked.
    is_closed: bool,
}

impl Lookup {
    pub(super) fn new(place: NodeId) -> Self {
        Self {
            place,
            hosts: BTreeMap::new(),
            asked: 0,
            dealt: 0,
            is_closed: false,
        }
    }

    pub(super) fn place(&self) -> &NodeId {
        &self.place
    }

    /// A host to begin with.
    pub(super) fn begin_at(&mut self, at: SocketAddrV4) {
        let path = Some(self.deal());
        self.add(at, None, path);
    }

    /// A host that is there for newcomers.
    pub(super) fn begin_at_router(&mut self, at: SocketAddrV4) {
        self.add(at, None, None);
    }

    fn deal(&mut self) -> usize {
        self.dealt += 1;
        self.dealt % PATHS
    }

    fn add(&mut self, at: SocketAddrV4, id: Option<NodeId>, path: Option<usize>) {
        self.hosts.entry(at).or_insert(Host {
            id,
            path,
            state: State::Known,
        });
    }

    /// The next host to ask, which is then taken to be asked; and whether it is there for newcomers.
    pub(super) fn ask_next(&mut self) -> Option<(SocketAddrV4, bool)> {
        let at = self.next()?;
        let host = self.hosts.get_mut(&at)?;
        host.state = State::Asked;
        self.asked += 1;
        Some((at, host.path.is_none()))
    }

    fn next(&self) -> Option<SocketAddrV4> {
        let under_way = |path| move |host: &&Host| host.state == State::Asked && host.path == path;
        let running = self.hosts.values().filter(|host| host.state == State::Asked).count();
        if self.is_closed || self.asked >= ASKED_MAX || running >= PATHS {
            return None;
        }
        let free: Vec<Option<usize>> = (0..PATHS)
            .map(Some)
            .filter(|path| !self.hosts.values().any(|host| under_way(*path)(&host)))
            .collect();
        // The path that has asked least goes first, so that none runs ahead on the others' account.
        let asked_on = |path: &Option<usize>| {
            let of_path = self.hosts.values().filter(|host| host.path == *path);
            of_path.filter(|host| host.state != State::Known).count()
        };
        let own = free
            .iter()
            .filter_map(|path| Some((asked_on(path), self.nearest_known(|host| host.path == *path)?)));
        own.min().map(|(_, at)| at).or_else(|| self.nearest_known(|_| true))
    }

    /// The nearest of those that were not asked yet and are worth asking.
    fn nearest_known(&self, fits: impl Fn(&Host) -> bool) -> Option<SocketAddrV4> {
        let enough: Vec<NodeId> = (0..PATHS).map(|path| self.enough(path)).collect();
        let known = self
            .hosts
            .iter()
            .filter(|(_, host)| host.state == State::Known && fits(host));
        let worth = known.filter_map(|(at, host)| {
            let distance = self.distance(host);
            let is_worth = host.path.is_none_or(|path| distance < enough[path]);
            is_worth.then_some((distance, *at))
        });
        worth.min().map(|(_, at)| at)
    }

    /// Hosts of a path at this distance or farther need not be asked.
    fn enough(&self, path: usize) -> NodeId {
        let of_path = self.hosts.values().filter(|host| host.path == Some(path));
        let answered = of_path.filter(|host| matches!(host.state, State::Answered(_)));
        let mut answered: Vec<NodeId> = answered.map(|host| self.distance(host)).collect();
        answered.sort_unstable();
        answered.get(NEAREST - 1).copied().unwrap_or([u8::MAX; 20])
    }

    /// By exclusive or; those whose id is not known come last.
    fn distance(&self, host: &Host) -> NodeId {
        let mut distance = [u8::MAX; 20];
        if let Some(id) = host.id {
            for (at, byte) in distance.iter_mut().enumerate() {
                *byte = id[at] ^ self.place[at];
            }
        } else {
            distance[19] = u8::MAX - 1;
        }
        distance
    }

    /// A host that was taken to be asked was not: there was no flow.
    pub(super) fn not_asked(&mut self, at: &SocketAddrV4) {
        if let Some(host) = self.hosts.get_mut(at).filter(|host| host.state == State::Asked) {
            host.state = State::Known;
            self.asked -= 1;
        }
    }

    /// A host did not answer, or refused.
    pub(super) fn silent(&mut self, at: &SocketAddrV4) {
        if let Some(host) = self.hosts.get_mut(at).filter(|host| host.state == State::Asked) {
            host.state = State::Silent;
        }
    }

    /// A host answered.
    pub(super) fn answered(
        &mut self,
        at: SocketAddrV4,
        id: NodeId,
        nodes: Vec<(NodeId, SocketAddrV4)>,
        token: Option<Vec<u8>>,
    ) {
        let Some(host) = self.hosts.get_mut(&at).filter(|host| host.state == State::Asked) else {
            return;
        };
        host.state = State::Answered(token);
        let path = host.path;
        if path.is_some() {
            host.id = Some(id);
        }
        let mut named: Vec<(NodeId, SocketAddrV4, NodeId)> = nodes
            .into_iter()
            .filter(|(_, place)| may_name(*at.ip(), *place) && !self.is_crowded(*place))
            .map(|(id, place)| (self.distance_of(&id), place, id))
            .collect();
        named.sort_unstable();
        named.dedup_by_key(|(_, place, _)| *place);
        for (_, place, id) in named.into_iter().take(TAKEN) {
            let path = path.unwrap_or_else(|| self.deal());
            // Of those that one answer names on one public address, the nearest is taken.
            if !self.is_crowded(place) {
                self.add(place, Some(id), Some(path));
            }
        }
    }

    fn distance_of(&self, id: &NodeId) -> NodeId {
        let mut distance = *id;
        for (byte, other) in distance.iter_mut().zip(self.place) {
            *byte ^= other;
        }
        distance
    }

    /// A public address stands for one host, whatever its ports: many are had for nothing.
    fn is_crowded(&self, place: SocketAddrV4) -> bool {
        is_public(*place.ip()) && self.hosts.keys().any(|known| known.ip() == place.ip())
    }

    /// Asks no further host; those asked may still answer.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Nobody is being asked, and nobody is left to ask.
    pub(super) fn is_over(&self) -> bool {
        let running = self.hosts.values().any(|host| host.state == State::Asked);
        !running && self.next().is_none()
    }

    pub(super) fn asked(&self) -> usize {
        self.asked
    }

    /// Those who answered, the nearest first, without those that are there for newcomers.
    pub(super) fn answerers(&self) -> Vec<SocketAddrV4> {
        let mut answerers: Vec<(NodeId, SocketAddrV4)> = self
            .hosts
            .iter()
            .filter(|(_, host)| matches!(host.state, State::Answered(_)) && host.path.is_some())
            .map(|(at, host)| (self.distance(host), *at))
            .collect();
        answerers.sort_unstable();
        answerers.into_iter().map(|(_, at)| at).collect()
    }

    /// Those who did not answer.
    pub(super) fn silent_ones(&self) -> impl Iterator<Item = &SocketAddrV4> {
        let silent = self.hosts.iter().filter(|(_, host)| host.state == State::Silent);
        silent.map(|(at, _)| at)
    }

    /// Somebody answered, one that is there for newcomers counted.
    pub(super) fn has_answer(&self) -> bool {
        (self.hosts.values()).any(|host| matches!(host.state, State::Answered(_)))
    }

    /// The [`NEAREST`] of each path of those who gave a token, with it.
    pub(super) fn stores(&self) -> Vec<(SocketAddrV4, Vec<u8>)> {
        let mut taken = [0; PATHS];
        let mut stores = Vec::new();
        for at in self.answerers() {
            let Some(Host {
                path: Some(path),
                state: State::Answered(Some(token)),
                ..
            }) = self.hosts.get(&at)
            else {
                continue;
            };
            if taken[*path] < NEAREST {
                taken[*path] += 1;
                stores.push((at, token.clone()));
            }
        }
        stores
    }
}

/// Whether a host may send this node to a place: to a public one on a port that is nobody's service, or to its own kind of network (one machine, one local network).
fn may_name(from: Ipv4Addr, place: SocketAddrV4) -> bool {
    let ip = *place.ip();
    if is_public(ip) {
        return is_public(from) && place.port() >= 1_024;
    }
    let is_alike = from.is_loopback() && ip.is_loopback() || from.is_private() && ip.is_private();
    is_alike && place.port() >= 1_024
}

/// Not of this machine, this network, or none at all (RFC 6890).
fn is_public(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    let is_shared = a == 100 && (64..128).contains(&b);
    let is_special = ip.is_loopback() || ip.is_private() || ip.is_link_local() || ip.is_documentation();
    let is_nowhere =
        a == 0 || a >= 224 || a == 192 && ip.octets()[..3] == [192, 0, 0] || a == 198 && (18..20).contains(&b);
    !is_shared && !is_special && !is_nowhere
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddrV4 {
        text.parse().unwrap()
    }

    #[test]
    fn nobody_is_sent_where_the_world_cannot_go() {
        let public = Ipv4Addr::new(93, 184, 216, 34);
        for (from, place, may) in [
            (public, "94.1.2.3:6881", true),
            (public, "94.1.2.3:53", false),
            (public, "94.1.2.3:0", false),
            (public, "192.168.1.1:6881", false),
            (public, "10.0.0.1:6881", false),
            (public, "127.0.0.1:6881", false),
            (public, "169.254.1.1:6881", false),
            (public, "100.64.0.1:6881", false),
            (public, "224.0.0.251:5353", false),
            (public, "255.255.255.255:6881", false),
            (public, "0.0.0.0:6881", false),
            (Ipv4Addr::LOCALHOST, "127.0.0.1:6881", true),
            (Ipv4Addr::LOCALHOST, "192.168.1.1:6881", false),
            (Ipv4Addr::LOCALHOST, "94.1.2.3:6881", false),
            (Ipv4Addr::new(192, 168, 1, 1), "192.168.1.7:6881", true),
        ] {
            assert_eq!(may_name(from, at(place)), may, "{from} names {place}");
        }
    }

    #[test]
    fn a_public_address_counts_once() {
        let mut lookup = Lookup::new([0; 20]);
        lookup.begin_at(at("94.1.1.1:6881"));
        let (first, _) = lookup.ask_next().unwrap();
        let many = (0..30u8).map(|n| ([n; 20], at(&format!("94.2.2.2:{}", 2000 + u16::from(n)))));
        lookup.answered(first, [9; 20], many.collect(), None);
        assert_eq!(lookup.ask_next(), Some((at("94.2.2.2:2000"), false)));
        assert_eq!(lookup.ask_next(), None);
    }

    #[test]
    fn a_liar_has_its_own_path_alone() {
        // Three to begin with; one names accomplices that are next to the place, and they others. All say that they are next to it.
        let mut lookup = Lookup::new([0; 20]);
        for n in 1..=3 {
            lookup.begin_at(at(&format!("94.1.1.{n}:6881")));
        }
        let (mut honest, mut lies) = (0, 0);
        let mut made = 0u8;
        while let Some((host, _)) = lookup.ask_next() {
            let is_liar = host == at("94.1.1.1:6881") || host.ip().octets()[0] == 66;
            let mut named = Vec::new();
            for _ in 0..8 {
                made = made.wrapping_add(1);
                let (first, mut id) = if is_liar { (66, [0; 20]) } else { (95, [made; 20]) };
                id[19] = made;
                named.push((id, at(&format!("{first}.1.{}.{made}:6881", host.ip().octets()[3]))));
            }
            *(if is_liar { &mut lies } else { &mut honest }) += 1;
            let id = if is_liar { [0; 20] } else { [200 - made % 100; 20] };
            lookup.answered(host, id, named, Some(b"token".to_vec()));
        }
        assert!(honest + lies <= ASKED_MAX);
        assert!(honest >= 6, "{honest} honest hosts and {lies} liars were asked");
        let stores = lookup.stores();
        let honest = stores.iter().filter(|(host, _)| host.ip().octets()[0] == 95).count();
        assert_eq!((honest, stores.len()), (2 * NEAREST, PATHS * NEAREST));
    }
}
