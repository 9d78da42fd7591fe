//! Two or three real endpoints on loopback, with raw frames and no peer behind them.

use offhook_proto::overlay::ledger::Limits;

use super::*;

const WAIT: Duration = Duration::from_secs(20);

/// A switchboard, played by the test as its driver.
pub(super) struct End {
    pub(super) id: DeviceId,
    pub(super) address: SocketAddr,
    pub(super) orders: mpsc::UnboundedSender<Order>,
    inbox: mpsc::Receiver<Message>,
    pub(super) open: Lines,
    running: JoinHandle<()>,
}

/// A line as its driver sees it.
pub(super) struct Seen {
    peer: DeviceId,
    generation: u64,
    exporter: [u8; 32],
}

/// As a node has it that has caught up and knows of no reason to hold back.
fn flows() -> Arc<Flows> {
    Flows::new(Limits::default())
}

async fn end(seed: u8) -> End {
    end_at(seed, "127.0.0.1:0", flows()).await
}

pub(super) async fn end_at(seed: u8, listen: &str, flows: Arc<Flows>) -> End {
    let config = Config {
        listen: Some(listen.parse().unwrap()),
        ..Config::new("unused", "unused")
    };
    let endpoint = bind(&config, &Secret([seed; 32]), None, &flows).await.unwrap();
    let (inbox_in, inbox) = mpsc::channel(64);
    let (orders, taken) = mpsc::unbounded_channel();
    let open = Lines::default();
    let home = tempfile::tempdir().unwrap();
    let files = Files::open(
        home.path(),
        crate::files::FileLimits::default(),
        inbox_in.clone(),
        open.clone(),
    )
    .unwrap();
    let switchboard = Switchboard::new(endpoint.clone(), flows, files, &Config::new("", "Ada"));
    End {
        id: DeviceId(*endpoint.id().as_bytes()),
        address: endpoint.bound_sockets()[0],
        orders,
        inbox,
        open,
        running: tokio::spawn(switchboard.run(taken)),
    }
}

/// An endpoint without a gate or a switchboard.
pub(super) async fn raw(config: &Config, seed: u8) -> Endpoint {
    let bare = builder(&Secret([seed; 32]), RelayMap::empty()).clear_ip_transports();
    let bound = bare.bind_addr(config.listen.unwrap()).unwrap().bind().await;
    bound.unwrap()
}

/// The two ends, the one with the smaller id first.
async fn pair() -> (End, End) {
    let (a, b) = (end(1).await, end(2).await);
    if a.id < b.id { (a, b) } else { (b, a) }
}

impl End {
    pub(super) fn dial(&self, other: &End) {
        self.dial_at(other.id, other.address);
    }

    pub(super) fn dial_at(&self, peer: DeviceId, address: SocketAddr) {
        let dial = Order::Dial {
            peer,
            addresses: vec![address],
            relay: None,
            urgency: Urgency::Cover,
            reason: "a test",
        };
        self.orders.send(dial).unwrap();
    }

    fn send(&self, line: &Seen, bytes: Vec<u8>) {
        let send = Order::Send {
            peer: line.peer,
            generation: line.generation,
            bytes,
        };
        self.orders.send(send).unwrap();
    }

    /// The next message that concerns a line.
    async fn next(&mut self) -> Message {
        loop {
            match timeout(WAIT, self.inbox.recv()).await.expect("in time").expect("open") {
                Message::Input(Input::OwnAddresses { .. } | Input::NetworkChanged) => {}
                other => return other,
            }
        }
    }

    pub(super) async fn line_up(&mut self) -> Seen {
        match self.next().await {
            Message::LineUp {
                peer,
                generation,
                exporter,
                ..
            } => Seen {
                peer,
                generation,
                exporter,
            },
            _ => panic!("a line was to come up"),
        }
    }

    async fn line_down(&mut self) -> u64 {
        match self.next().await {
            Message::LineDown { generation, .. } => generation,
            _ => panic!("a line was to go down"),
        }
    }

    async fn frame(&mut self) -> Vec<u8> {
        match self.next().await {
            Message::Frame { bytes, .. } => bytes,
            _ => panic!("a frame was to come"),
        }
    }

    async fn stop(self) {
        drop(self.orders);
        timeout(Duration::from_secs(2), self.running)
            .await
            .expect("closes within two seconds")
            .unwrap();
    }
}

async fn connect_pair(a: &mut End, b: &mut End) -> (Seen, Seen) {
    a.dial(b);
    (a.line_up().await, b.line_up().await)
}

#[tokio::test]
async fn frames_cross_in_order_and_whole() {
    let (mut a, mut b) = pair().await;
    let (at_a, at_b) = connect_pair(&mut a, &mut b).await;
    assert_eq!((at_a.peer, at_b.peer), (b.id, a.id));
    assert_eq!(at_a.exporter, at_b.exporter);
    assert_ne!(at_a.exporter, [0; 32]);

    let lengths = [1, 2, 70_000, FRAME_BYTES_MAX, 3, FRAME_BYTES_MAX - 1];
    for (i, len) in lengths.into_iter().enumerate() {
        a.send(&at_a, vec![i as u8; len]);
        b.send(&at_b, vec![i as u8 + 100; len]);
    }
    for (i, len) in lengths.into_iter().enumerate() {
        assert_eq!(b.frame().await, vec![i as u8; len]);
        assert_eq!(a.frame().await, vec![i as u8 + 100; len]);
    }
    let views = paths(&a.open);
    assert!(
        views
            .iter()
            .any(|path| path.selected && path.address == PathAddress::Direct(b.address))
    );
    a.stop().await;
    assert_eq!(b.line_down().await, at_b.generation);
    b.stop().await;
}

#[tokio::test]
async fn the_last_frames_arrive_before_a_close() {
    let (mut a, mut b) = pair().await;
    let (at_a, at_b) = connect_pair(&mut a, &mut b).await;
    for i in 0..100 {
        a.send(&at_a, vec![i; 1_000]);
    }
    let close = Order::Close {
        peer: b.id,
        generation: at_a.generation,
        reason: "idle",
    };
    a.orders.send(close).unwrap();
    for i in 0..100 {
        assert_eq!(b.frame().await, vec![i; 1_000]);
    }
    assert_eq!(a.line_down().await, at_a.generation);
    assert_eq!(b.line_down().await, at_b.generation);
}

#[tokio::test]
async fn of_two_simultaneous_dials_the_smaller_ones_stays() {
    let (mut a, mut b) = pair().await;
    a.dial(&b);
    b.dial(&a);
    // Whatever comes up and goes down on the way: in the end both hold one line, the same.
    let (mut at_a, mut at_b) = (None, None);
    let settle = async {
        loop {
            tokio::select! {
                message = a.next() => note(&mut at_a, message),
                message = b.next() => note(&mut at_b, message),
            }
        }
    };
    let _ = timeout(Duration::from_secs(3), settle).await;
    assert!(at_a.is_some());
    assert_eq!(at_a, at_b);
    assert!(locked(&a.open)[&b.id].side() == iroh::endpoint::Side::Client);
    assert!(locked(&b.open)[&a.id].side() == iroh::endpoint::Side::Server);
}

/// Keeps the exporter of the line that is up.
fn note(up: &mut Option<[u8; 32]>, message: Message) {
    match message {
        Message::LineUp { exporter, .. } => *up = Some(exporter),
        Message::LineDown { .. } => *up = None,
        _ => {}
    }
}

#[tokio::test]
async fn whoever_dials_again_has_lost_the_line() {
    let (mut a, mut b) = pair().await;
    let (_, at_b) = connect_pair(&mut a, &mut b).await;
    // The smaller end starts again with the same key, as after a kill: no goodbye.
    let again = {
        let config = Config {
            listen: Some("127.0.0.1:0".parse().unwrap()),
            ..Config::new("unused", "unused")
        };
        let seed = [1, 2]
            .into_iter()
            .find(|seed| *SecretKey::from_bytes(&[*seed; 32]).public().as_bytes() == a.id.0)
            .unwrap();
        raw(&config, seed).await
    };
    let target = dial_target(b.id, &[b.address], None, again.id()).unwrap();
    let _held = connect(again.clone(), target).await.ok().unwrap();
    assert_eq!(b.line_down().await, at_b.generation);
    assert!(b.line_up().await.generation > at_b.generation);
}

#[tokio::test]
async fn a_dead_address_fails_and_a_wrong_key_too() {
    let (mut a, b) = pair().await;
    a.dial_at(
        DeviceId(*SecretKey::from_bytes(&[9; 32]).public().as_bytes()),
        b.address,
    );
    assert!(matches!(a.next().await, Message::Input(Input::DialFailed { .. })));
    let no_address = Order::Dial {
        peer: b.id,
        addresses: Vec::new(),
        relay: None,
        urgency: Urgency::Cover,
        reason: "a test",
    };
    a.orders.send(no_address).unwrap();
    assert!(matches!(a.next().await, Message::Input(Input::DialFailed { peer }) if peer == b.id));
}

/// A full packet at once, two after a second, and one that ends it: four, or six where timers are late. Within ten seconds it would be eight.
#[tokio::test]
async fn a_dial_that_nobody_waits_for_costs_few_packets() {
    let (mut a, b) = pair().await;
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    silent.set_nonblocking(true).unwrap();
    let dial = Order::Dial {
        peer: b.id,
        addresses: vec![silent.local_addr().unwrap()],
        relay: None,
        urgency: Urgency::Spare,
        reason: "a test",
    };
    a.orders.send(dial).unwrap();
    assert!(matches!(a.next().await, Message::Input(Input::DialFailed { peer }) if peer == b.id));
    let packets = std::iter::from_fn(|| silent.recv(&mut [0; 2_000]).ok()).count();
    assert!((1..=6).contains(&packets), "{packets}");
}

/// Else its call goes through as well, over the path that is now known, and takes the place of the line that is up: everything would be exchanged once more.
#[tokio::test]
async fn whoever_is_called_gives_up_its_own_call() {
    let (mut a, mut b) = pair().await;
    a.dial_at(b.id, "127.0.0.1:9".parse().unwrap());
    b.dial(&a);
    a.line_up().await;
    b.line_up().await;
    let more = tokio::time::sleep(Duration::from_secs(3));
    tokio::select! {
        () = more => {}
        _ = a.next() => panic!("not the only line at the one that was called"),
        _ = b.next() => panic!("not the only line at the one that called"),
    }
}

#[tokio::test]
async fn a_better_address_does_not_wait_for_the_dead_one() {
    let (mut a, mut b) = pair().await;
    let started = Instant::now();
    a.dial_at(b.id, "127.0.0.1:9".parse().unwrap());
    a.dial(&b);
    a.line_up().await;
    b.line_up().await;
    assert!(started.elapsed() < dial::TIMEOUT / 2, "{:?}", started.elapsed());
}

/// A line from an endpoint that has no switchboard.
async fn call_of_a_stranger(callee: &End) -> (Endpoint, Connected) {
    let config = Config {
        listen: Some("127.0.0.1:0".parse().unwrap()),
        ..Config::new("unused", "unused")
    };
    let stranger = raw(&config, 5).await;
    let target = dial_target(callee.id, &[callee.address], None, stranger.id()).unwrap();
    let line = connect(stranger.clone(), target).await.ok().unwrap();
    (stranger, line)
}

#[tokio::test]
async fn a_frame_longer_than_allowed_ends_the_line() {
    let mut a = end(1).await;
    let (_stranger, mut line) = call_of_a_stranger(&a).await;
    let at_a = a.line_up().await;
    line.send.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    assert_eq!(a.line_down().await, at_a.generation);
    let closed = timeout(WAIT, line.connection.closed()).await.unwrap();
    assert!(closed.to_string().contains("frame too long"), "{closed}");
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_closed_before_memory_is_gone() {
    let mut a = end(1).await;
    let _unread = call_of_a_stranger(&a).await;
    let at_a = a.line_up().await;
    for _ in 0..=(SEND_BYTES_MAX / FRAME_BYTES_MAX + 8) {
        a.send(&at_a, vec![0; FRAME_BYTES_MAX]);
    }
    assert_eq!(a.line_down().await, at_a.generation);
}

#[test]
fn at_most_two_addresses_reach_a_dial() {
    let me = SecretKey::from_bytes(&[1; 32]).public();
    let peer = DeviceId(*SecretKey::from_bytes(&[2; 32]).public().as_bytes());
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    let many = [
        at("0.0.0.0:1"),
        at("10.0.0.1:1"),
        at("10.0.0.2:0"),
        at("10.0.0.3:1"),
        at("10.0.0.4:1"),
    ];
    let target = dial_target(peer, &many, Some("https://relay.example".parse().unwrap()), me).unwrap();
    assert_eq!(
        target.ip_addrs().copied().collect::<Vec<_>>(),
        [at("10.0.0.1:1"), at("10.0.0.3:1")]
    );
    assert_eq!(target.relay_urls().count(), 1);
    assert!(dial_target(peer, &[], None, me).is_none());
    assert!(dial_target(DeviceId(*me.as_bytes()), &many, None, me).is_none());
}

#[test]
fn own_addresses_are_best_first() {
    let id = SecretKey::from_bytes(&[1; 32]).public();
    let at = |text: &str| text.parse::<SocketAddr>().unwrap();
    let reported = ["192.168.1.2:5", "[fe80::1]:5", "203.0.113.7:5", "127.0.0.1:5"].map(at);
    let reported = EndpointAddr::from_parts(id, reported.map(TransportAddr::Ip));
    let own = own_addresses(&reported, &[at("0.0.0.0:5")]);
    assert_eq!(own, ["203.0.113.7:5", "192.168.1.2:5", "[fe80::1]:5"].map(at));
    let alone = own_addresses(&EndpointAddr::new(id), &[at("127.0.0.1:9")]);
    assert_eq!(alone, [at("127.0.0.1:9")]);
}
