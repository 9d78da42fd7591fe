//! Packets that leave, counted by sockets that know nothing of the ledger: where a peer or a dial points at them, they see what the gate lets through.

use std::collections::BTreeSet;
use std::net::UdpSocket;

use offhook_proto::overlay::ledger::{CAP_MIN, Limits};

use super::tests::{End, end_at, raw};
use super::*;

/// How long sockets are watched: a round of the transport's probes takes four seconds.
const WATCHED: Duration = Duration::from_secs(5);

/// Sockets that take down who was sent to.
struct Decoys(Vec<UdpSocket>);

impl Decoys {
    fn new(count: usize, ip: &str) -> Self {
        let bind = |_| {
            let socket = UdpSocket::bind(SocketAddr::new(ip.parse().unwrap(), 0)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        Self((0..count).map(bind).collect())
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.0.iter().map(|socket| socket.local_addr().unwrap()).collect()
    }

    /// How many were sent anything so far.
    fn hit(&self) -> usize {
        let was_hit = |socket: &&UdpSocket| socket.peek(&mut [0; 1]).is_ok();
        self.0.iter().filter(was_hit).count()
    }
}

/// A peer that offers the decoys as further ways to itself, as any peer may.
async fn luring(seed: u8, at: &str, decoys: &Decoys) -> Endpoint {
    let mut builder = builder(&Secret([seed; 32]), RelayMap::empty())
        .clear_ip_transports()
        .bind_addr(at.parse::<SocketAddr>().unwrap())
        .unwrap();
    for address in decoys.addresses() {
        builder = builder.external_addr(address);
    }
    let endpoint = builder.bind().await.unwrap();
    let answering = endpoint.clone();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Some(incoming) = answering.accept().await {
            held.extend(incoming.await.ok());
        }
    });
    endpoint
}

fn has_ipv6() -> bool {
    UdpSocket::bind("[::1]:0").is_ok()
}

fn loopbacks() -> Vec<(&'static str, &'static str)> {
    let mut all = vec![("127.0.0.1", "127.0.0.1:0")];
    all.extend(has_ipv6().then_some(("::1", "[::1]:0")));
    all
}

/// The control: without the gate the transport sends to whatever a peer offers.
#[tokio::test]
async fn without_the_gate_every_offered_address_is_hit() {
    for (ip, at) in loopbacks() {
        let decoys = Decoys::new(6, ip);
        let peer = luring(40, at, &decoys).await;
        let config = Config {
            listen: Some(at.parse().unwrap()),
            ..Config::new("unused", "unused")
        };
        let bare = raw(&config, 41).await;
        let id = DeviceId(*peer.id().as_bytes());
        let target = dial_target(id, &peer.bound_sockets(), None, bare.id()).unwrap();
        let _line = connect(bare.clone(), target).await.ok().unwrap();
        let all_hit = async {
            while decoys.hit() < 6 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        timeout(Duration::from_secs(20), all_hit)
            .await
            .expect("the control must show what the gate is for");
    }
}

#[tokio::test]
async fn what_a_peer_offers_opens_no_flow() {
    for (ip, at) in loopbacks() {
        let decoys = Decoys::new(6, ip);
        let peer = luring(42, at, &decoys).await;
        let flows = Flows::new(Limits::default());
        let mut a = end_at(43, at, flows.clone()).await;
        a.dial_at(DeviceId(*peer.id().as_bytes()), peer.bound_sockets()[0]);
        a.line_up().await;
        tokio::time::sleep(WATCHED).await;
        assert_eq!(decoys.hit(), 0);
        let view = flows.with(|ledger, now| ledger.view(now));
        assert_eq!(view.now, 1, "{:?}", view.flows);
        let refused: BTreeSet<SocketAddr> = view.refused.iter().map(|refused| refused.to).collect();
        assert!(
            decoys.addresses().iter().any(|at| refused.contains(at)),
            "the transport tried none of them, so this shows nothing"
        );
    }
}

#[tokio::test]
async fn dials_to_the_dead_open_no_more_flows_than_the_cap() {
    let decoys = Decoys::new(40, "127.0.0.1");
    let limits = Limits::new(CAP_MIN, None).unwrap();
    let flows = Flows::new(limits);
    let a = end_at(44, "127.0.0.1:0", flows.clone()).await;
    for (seed, pair) in (100..).zip(decoys.addresses().chunks(2)) {
        let peer = DeviceId(*SecretKey::from_bytes(&[seed; 32]).public().as_bytes());
        let dial = Order::Dial {
            peer,
            addresses: pair.to_vec(),
            relay: None,
            urgency: if seed % 2 == 0 { Urgency::Urgent } else { Urgency::Spare },
            reason: "a test",
        };
        a.orders.send(dial).unwrap();
    }
    tokio::time::sleep(WATCHED).await;
    let hit = decoys.hit();
    assert!(hit > 0 && hit <= limits.hard(), "{hit} of 40 sockets were sent to");
    let view = flows.with(|ledger, now| ledger.view(now));
    assert!(view.peak <= limits.hard());
    assert!(view.waiting.len() >= 12, "{:?}", view.waiting);
    assert!(view.waiting.iter().all(|waiting| !waiting.reason.is_empty()));
}

#[tokio::test]
async fn connections_that_were_not_asked_for_are_refused_before_a_packet() {
    let decoys = Decoys::new(1, "127.0.0.1");
    let config = Config {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        ..Config::new("unused", "unused")
    };
    let flows = Flows::new(Limits::default());
    let endpoint = bind(&config, &Secret([45; 32]), None, &flows).await.unwrap();
    let id = SecretKey::from_bytes(&[46; 32]).public();
    let past = EndpointAddr::from_parts(id, decoys.addresses().into_iter().map(TransportAddr::Ip));
    assert!(endpoint.connect(past, ALPN).await.is_err());
    assert_eq!(decoys.hit(), 0);
}

/// So many callers that not all can be answered: the ledger stays within its cap, and those that were let in are lines.
#[tokio::test]
async fn callers_beyond_the_soft_cap_get_no_answer() {
    let limits = Limits::new(CAP_MIN, None).unwrap();
    let flows = Flows::new(limits);
    let mut b = end_at(47, "127.0.0.1:0", flows.clone()).await;
    let mut calling = Vec::new();
    for seed in 60..70 {
        let a: End = end_at(seed, "127.0.0.1:0", Flows::new(Limits::default())).await;
        a.dial(&b);
        calling.push(a);
    }
    for _ in 0..limits.soft() {
        b.line_up().await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let view = flows.with(|ledger, now| ledger.view(now));
    assert_eq!(view.peak, limits.soft());
    assert_eq!(locked(&b.open).len(), limits.soft());
    assert!(view.refusals > 0 || view.flows.len() == limits.soft());
}
