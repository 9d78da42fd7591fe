//! Many phones in one process: digest registration, calls with RTP, re-INVITEs, hold, transfer, hanging up.
//!
//! Ordered about by lines on standard input; each is answered by one line. Gaps are measured by each phone between
//! one packet that it hears and the next; 20 ms is the rhythm.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use offhook_exchange_proto::sip::digest::Algorithm;
use offhook_exchange_proto::sip::{CSeq, Message, Method, NameAddr};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};

const PATIENCE: Duration = Duration::from_secs(32);

/// What a phone is ordered to do; it says whether that went well.
enum Order {
    Call(String, oneshot::Sender<bool>),
    Hold(oneshot::Sender<bool>),
    Transfer(String, oneshot::Sender<bool>),
    Hang(oneshot::Sender<bool>),
    /// Whether it has a call.
    Up(oneshot::Sender<bool>),
}

struct Dialog {
    call_id: String,
    local: String,
    remote: String,
    target: String,
    /// Our INVITE's CSeq and the ACK to its 2xx, repeated with it.
    ack: Option<(u32, Vec<u8>)>,
}

struct Phone {
    name: String,
    password: String,
    domain: String,
    server: SocketAddr,
    socket: UdpSocket,
    own: SocketAddr,
    media_port: u16,
    /// Where its packets go.
    media: Arc<Mutex<Option<SocketAddr>>>,
    ring: Duration,
    dialog: Option<Dialog>,
    answered: BTreeMap<String, Vec<u8>>,
    ringing: Option<(Instant, Message)>,
    cseq: u32,
    serial: u64,
    moved: Arc<AtomicU64>,
    begun: Instant,
}

impl Phone {
    fn fresh(&mut self) -> String {
        self.serial += 1;
        format!("{}x{}", self.name, self.serial)
    }

    fn request(&mut self, method: Method, uri: &str, from: &str, to: &str, call_id: &str) -> Message {
        self.cseq += 1;
        let branch = self.fresh();
        Message::request(method.clone(), uri)
            .with("Via", format!("SIP/2.0/UDP {};branch=z9hG4bK{branch};rport", self.own))
            .with("Max-Forwards", "70")
            // A stranger gets no more octets than it sent, and a challenge needs some.
            .with("User-Agent", format!("phone of the laboratory ({})", "-".repeat(120)))
            .with("From", from)
            .with("To", to)
            .with("Call-ID", call_id)
            .with("CSeq", format!("{} {}", self.cseq, method.as_str()))
            .with("Contact", format!("<sip:{}@{}>", self.name, self.own))
    }

    fn sdp(&self, direction: &str, version: u64) -> Vec<u8> {
        let ip = self.own.ip();
        format!(
            "v=0\r\no=- 1 {version} IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio {} RTP/AVP 0\r\na={direction}\r\n",
            self.media_port
        )
        .into_bytes()
    }

    /// Learns where media goes.
    fn heed(&self, message: &Message) {
        let text = String::from_utf8_lossy(&message.body);
        let field = |prefix: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(prefix).map(str::to_owned))
        };
        let ip = field("c=IN IP4 ").and_then(|ip| ip.trim().parse().ok());
        let port = field("m=audio ").and_then(|rest| rest.split(' ').next()?.parse().ok());
        if let (Some(ip), Some(port)) = (ip, port) {
            *self.media.lock().unwrap() = Some(SocketAddr::new(ip, port));
        }
    }

    fn target_of(&self, uri: &str) -> SocketAddr {
        let host = uri.trim_start_matches("sip:").rsplit('@').next().unwrap_or_default();
        host.split(';')
            .next()
            .and_then(|host| host.parse().ok())
            .unwrap_or(self.server)
    }

    async fn send(&self, bytes: &[u8], to: SocketAddr) {
        let _ = self.socket.send_to(bytes, to).await;
    }

    /// One request until its final answer, with a second round where credentials are asked for.
    async fn transact(&mut self, request: Message, to: SocketAddr) -> Option<Message> {
        let answer = self.exchange(&request, to).await?;
        if answer.status() != Some(401) {
            return Some(answer);
        }
        if request.method() == Some(&Method::Invite) {
            let ack = ack_failure(&request, &answer);
            self.send(&ack.to_bytes(), to).await;
        }
        let credentials = self.credentials(&request, &answer)?;
        self.cseq += 1;
        let branch = self.fresh();
        let mut again = request.clone().with("Authorization", credentials);
        again.replace("Via", format!("SIP/2.0/UDP {};branch=z9hG4bK{branch};rport", self.own));
        let method = request.method()?.as_str().to_owned();
        again.replace("CSeq", format!("{} {method}", self.cseq));
        self.exchange(&again, to).await
    }

    fn credentials(&self, request: &Message, challenge: &Message) -> Option<String> {
        let algorithm = Algorithm::Md5;
        let offered = challenge.all("WWW-Authenticate").last()?;
        let nonce = offered.split("nonce=\"").nth(1)?.split('"').next()?;
        let uri = request.uri()?;
        let ha1 = algorithm.hash(&format!("{}:{}:{}", self.name, self.domain, self.password));
        let ha2 = algorithm.hash(&format!("{}:{uri}", request.method()?.as_str()));
        let response = algorithm.hash(&format!("{ha1}:{nonce}:00000001:c:auth:{ha2}"));
        Some(format!(
            "Digest username=\"{}\",realm=\"{}\",nonce=\"{nonce}\",uri=\"{uri}\",response=\"{response}\",algorithm=MD5,qop=auth,nc=00000001,cnonce=\"c\"",
            self.name, self.domain
        ))
    }

    async fn exchange(&mut self, request: &Message, to: SocketAddr) -> Option<Message> {
        let bytes = request.to_bytes();
        let (cseq, call_id) = (request.get("CSeq")?.to_owned(), request.get("Call-ID")?.to_owned());
        let begun = Instant::now();
        let mut interval = Duration::from_millis(500);
        let mut provisional = false;
        self.send(&bytes, to).await;
        let mut again = Instant::now() + interval;
        while begun.elapsed() < PATIENCE {
            let wait = again.saturating_duration_since(Instant::now());
            let mut buffer = [0; 8_192];
            let received = tokio::time::timeout(wait, self.socket.recv_from(&mut buffer)).await;
            let Ok(Ok((length, from))) = received else {
                let invite = request.method() == Some(&Method::Invite);
                if !(invite && provisional) {
                    self.send(&bytes, to).await;
                }
                interval = (interval * 2).min(if invite { interval * 2 } else { Duration::from_secs(4) });
                again = Instant::now() + interval;
                continue;
            };
            let Ok(message) = Message::parse(&buffer[..length]) else {
                continue;
            };
            let ours = message.get("CSeq") == Some(&cseq) && message.get("Call-ID") == Some(&call_id);
            match message.status() {
                Some(status) if ours && status >= 200 => return Some(message),
                Some(_) if ours => provisional = true,
                _ => self.heard(message, from).await,
            }
        }
        None
    }

    async fn register(&mut self) -> bool {
        let address = format!("<sip:{}@{}>", self.name, self.domain);
        let tag = self.fresh();
        let call_id = self.fresh();
        let uri = format!("sip:{}", self.domain);
        let request = self
            .request(
                Method::Register,
                &uri,
                &format!("{address};tag={tag}"),
                &address,
                &call_id,
            )
            .with("Expires", "600");
        let server = self.server;
        self.transact(request, server)
            .await
            .is_some_and(|answer| answer.status() == Some(200))
    }

    async fn call(&mut self, whom: &str) -> bool {
        let uri = format!("sip:{whom}@{}", self.domain);
        let tag = self.fresh();
        let from = format!("<sip:{}@{}>;tag={tag}", self.name, self.domain);
        let call_id = self.fresh();
        let invite = self
            .request(Method::Invite, &uri, &from, &format!("<{uri}>"), &call_id)
            .with_body("application/sdp", self.sdp("sendrecv", 1));
        let server = self.server;
        let Some(ok) = self.transact(invite.clone(), server).await else {
            return false;
        };
        if ok.status() != Some(200) {
            eprintln!("{}: {:?}", self.name, ok.status());
            let ack = ack_failure(&invite, &ok);
            self.send(&ack.to_bytes(), server).await;
            return false;
        }
        self.heed(&ok);
        let target = contact(&ok).unwrap_or_default();
        self.dialog = Some(Dialog {
            call_id,
            local: from,
            remote: ok.get("To").unwrap_or_default().to_owned(),
            target,
            ack: None,
        });
        self.acknowledge(&ok).await;
        true
    }

    /// ACK of a 2xx to our INVITE.
    async fn acknowledge(&mut self, ok: &Message) {
        let Some(number) = ok.get("CSeq").and_then(CSeq::parse).map(|cseq| cseq.number) else {
            return;
        };
        let Some(dialog) = &self.dialog else { return };
        let (target, local, remote, call_id) = (
            dialog.target.clone(),
            dialog.local.clone(),
            dialog.remote.clone(),
            dialog.call_id.clone(),
        );
        let mut ack = self.request(Method::Ack, &target, &local, &remote, &call_id);
        ack.replace("CSeq", format!("{number} ACK"));
        let bytes = ack.to_bytes();
        let to = self.target_of(&target);
        self.send(&bytes, to).await;
        if let Some(dialog) = &mut self.dialog {
            dialog.ack = Some((number, bytes));
        }
    }

    /// A request inside the call; a phone whose call is gone says so.
    async fn inside(&mut self, method: Method, adjust: impl FnOnce(&Self, Message) -> Message) -> Option<u16> {
        let dialog = self.dialog.as_ref()?;
        let (target, local, remote, call_id) = (
            dialog.target.clone(),
            dialog.local.clone(),
            dialog.remote.clone(),
            dialog.call_id.clone(),
        );
        let request = self.request(method.clone(), &target, &local, &remote, &call_id);
        let request = adjust(self, request);
        let to = self.target_of(&target);
        let answer = self.transact(request, to).await?;
        if method == Method::Invite && answer.status() == Some(200) {
            self.heed(&answer);
            self.acknowledge(&answer).await;
        }
        answer.status()
    }

    async fn hold(&mut self) -> bool {
        for (direction, version) in [("sendonly", 2), ("sendrecv", 3)] {
            let with =
                |phone: &Self, request: Message| request.with_body("application/sdp", phone.sdp(direction, version));
            if self.inside(Method::Invite, with).await != Some(200) {
                return false;
            }
        }
        true
    }

    async fn transfer(&mut self, whom: &str) -> bool {
        let to = format!("<sip:{whom}@{}>", self.domain);
        let asked = self
            .inside(Method::Refer, |_, request| request.with("Refer-To", to))
            .await;
        if asked != Some(202) {
            return false;
        }
        // Released by BYE once the party named has answered.
        let until = Instant::now() + PATIENCE;
        while self.dialog.is_some() && Instant::now() < until {
            self.listen(Duration::from_millis(100)).await;
        }
        self.dialog.is_none()
    }

    async fn hang(&mut self) -> bool {
        let status = self.inside(Method::Bye, |_, request| request).await;
        self.dialog = None;
        status == Some(200)
    }

    async fn listen(&mut self, wait: Duration) {
        let mut buffer = [0; 8_192];
        if let Ok(Ok((length, from))) = tokio::time::timeout(wait, self.socket.recv_from(&mut buffer)).await
            && let Ok(message) = Message::parse(&buffer[..length])
        {
            self.heard(message, from).await;
        }
        self.answer_when_rung().await;
    }

    async fn heard(&mut self, message: Message, from: SocketAddr) {
        if let Some(status) = message.status() {
            // The 2xx again: its ACK was lost.
            let number = message.get("CSeq").and_then(CSeq::parse).map(|cseq| cseq.number);
            let ack = self.dialog.as_ref().and_then(|dialog| dialog.ack.clone());
            if let Some((known, ack)) = ack
                && (200..300).contains(&status)
                && number == Some(known)
            {
                let target = self
                    .dialog
                    .as_ref()
                    .map(|dialog| dialog.target.clone())
                    .unwrap_or_default();
                self.send(&ack, self.target_of(&target)).await;
            }
            return;
        }
        let branch = message.get("Via").unwrap_or_default().to_owned();
        let key = format!("{branch} {}", message.get("CSeq").unwrap_or_default());
        if let Some(answer) = self.answered.get(&key) {
            return self.send(&answer.clone(), from).await;
        }
        let answer = match message.method() {
            Some(Method::Ack) | None => return,
            Some(Method::Invite) if has_tag(&message, "To") => self.told(&message, from),
            Some(Method::Invite) => {
                let ringing = self.response(&message, 180, None);
                self.send(&ringing.to_bytes(), from).await;
                self.ringing = Some((Instant::now(), message));
                return self.answer_when_rung().await;
            }
            Some(Method::Cancel) => {
                if let Some((_, invite)) = self.ringing.take() {
                    let gone = self.response(&invite, 487, None);
                    self.send(&gone.to_bytes(), from).await;
                }
                self.response(&message, 200, None)
            }
            Some(Method::Bye) => {
                let known = self.is_of_dialog(&message);
                if known {
                    self.dialog = None;
                }
                self.response(&message, if known { 200 } else { 481 }, None)
            }
            Some(_) => self.response(&message, 200, None),
        };
        let bytes = answer.to_bytes();
        self.answered.insert(key, bytes.clone());
        self.send(&bytes, from).await;
    }

    fn is_of_dialog(&self, message: &Message) -> bool {
        self.dialog
            .as_ref()
            .is_some_and(|dialog| Some(dialog.call_id.as_str()) == message.get("Call-ID"))
    }

    /// A re-INVITE: where media and requests go from now on.
    fn told(&mut self, message: &Message, from: SocketAddr) -> Message {
        if !self.is_of_dialog(message) {
            return self.response(message, 481, None);
        }
        let known = self.dialog.as_ref().map(|dialog| self.target_of(&dialog.target));
        if known != Some(from) {
            self.moved
                .store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
        }
        self.heed(message);
        if let (Some(target), Some(dialog)) = (contact(message), &mut self.dialog) {
            dialog.target = target;
        }
        self.response(message, 200, Some(self.sdp("sendrecv", 4)))
    }

    async fn answer_when_rung(&mut self) {
        let rung = self
            .ringing
            .as_ref()
            .is_some_and(|(since, _)| since.elapsed() >= self.ring);
        let Some((_, invite)) = self.ringing.take_if(|_| rung) else {
            return;
        };
        let ok = self.response(&invite, 200, Some(self.sdp("sendrecv", 1)));
        self.heed(&invite);
        self.dialog = Some(Dialog {
            call_id: invite.get("Call-ID").unwrap_or_default().to_owned(),
            local: ok.get("To").unwrap_or_default().to_owned(),
            remote: invite.get("From").unwrap_or_default().to_owned(),
            target: contact(&invite).unwrap_or_default(),
            ack: None,
        });
        let bytes = ok.to_bytes();
        let key = format!(
            "{} {}",
            invite.get("Via").unwrap_or_default(),
            invite.get("CSeq").unwrap_or_default()
        );
        self.answered.insert(key, bytes.clone());
        let to = contact(&invite).map_or(self.server, |uri| self.target_of(&uri));
        self.send(&bytes, to).await;
    }

    fn response(&self, request: &Message, status: u16, sdp: Option<Vec<u8>>) -> Message {
        let mut response = Message::response_to(request, status);
        if !has_tag(&response, "To") {
            let to = response.get("To").unwrap_or_default().to_owned();
            response.replace("To", format!("{to};tag={}", self.name));
        }
        let response = response.with("Contact", format!("<sip:{}@{}>", self.name, self.own));
        match sdp {
            Some(sdp) => response.with_body("application/sdp", sdp),
            None => response,
        }
    }

    async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut buffer = vec![0; 8_192];
        loop {
            let rung = self.ringing.as_ref().map(|(since, _)| *since + self.ring);
            let rung = rung.unwrap_or_else(|| Instant::now() + Duration::from_secs(60));
            tokio::select! {
                received = self.socket.recv_from(&mut buffer) => {
                    if let Ok((length, from)) = received
                        && let Ok(message) = Message::parse(&buffer[..length])
                    {
                        self.heard(message, from).await;
                    }
                }
                () = tokio::time::sleep_until(rung.into()) => self.answer_when_rung().await,
                order = orders.recv() => match order {
                    None => return,
                    Some(Order::Call(whom, done)) => drop(done.send(self.call(&whom).await)),
                    Some(Order::Hold(done)) => drop(done.send(self.hold().await)),
                    Some(Order::Transfer(whom, done)) => drop(done.send(self.transfer(&whom).await)),
                    Some(Order::Hang(done)) => drop(done.send(self.hang().await)),
                    Some(Order::Up(done)) => drop(done.send(self.dialog.is_some())),
                },
            }
        }
    }
}

fn contact(message: &Message) -> Option<String> {
    NameAddr::parse(message.get("Contact")?)
        .ok()
        .map(|contact| contact.raw_uri)
}

fn has_tag(message: &Message, header: &str) -> bool {
    message.get(header).is_some_and(|value| value.contains(";tag="))
}

fn ack_failure(invite: &Message, response: &Message) -> Message {
    let number = invite.get("CSeq").and_then(CSeq::parse).map_or(0, |cseq| cseq.number);
    Message::request(Method::Ack, invite.uri().unwrap_or_default())
        .with("Via", invite.get("Via").unwrap_or_default())
        .with("From", invite.get("From").unwrap_or_default())
        .with("To", response.get("To").unwrap_or_default())
        .with("Call-ID", invite.get("Call-ID").unwrap_or_default())
        .with("CSeq", format!("{number} ACK"))
}

/// One phone's sound: a packet every 20 ms, and the longest silence that it heard.
struct Sound {
    longest_ms: Mutex<(Option<Instant>, u64)>,
    heard: AtomicU64,
}

impl Sound {
    fn packet(&self) {
        let now = Instant::now();
        let mut state = self.longest_ms.lock().unwrap();
        if let Some(last) = state.0.replace(now) {
            state.1 = state.1.max((now - last).as_millis() as u64);
        }
        self.heard.fetch_add(1, Ordering::Relaxed);
    }

    fn mark(&self) {
        self.longest_ms.lock().unwrap().1 = 0;
    }

    /// The longest silence since the mark, the one that lasts included.
    fn longest_ms(&self) -> u64 {
        let state = self.longest_ms.lock().unwrap();
        let open = state.0.map_or(u64::MAX, |last| last.elapsed().as_millis() as u64);
        state.1.max(open)
    }
}

async fn talk(socket: UdpSocket, media: Arc<Mutex<Option<SocketAddr>>>, sound: Arc<Sound>) {
    let socket = Arc::new(socket);
    let (listener, ears) = (socket.clone(), sound.clone());
    tokio::spawn(async move {
        let mut buffer = [0; 2_048];
        loop {
            if listener.recv_from(&mut buffer).await.is_ok() {
                ears.packet();
            }
        }
    });
    let mut packet = [0x7f; 172];
    packet[0] = 0x80;
    packet[1] = 0;
    let mut rhythm = tokio::time::interval(Duration::from_millis(20));
    for sequence in 0_u32.. {
        rhythm.tick().await;
        packet[2..4].copy_from_slice(&(sequence as u16).to_be_bytes());
        packet[4..8].copy_from_slice(&(sequence.wrapping_mul(160)).to_be_bytes());
        let to = *media.lock().unwrap();
        if let Some(to) = to {
            let _ = socket.send_to(&packet, to).await;
        }
    }
}

/// What is ordered, and by whom.
pub struct Cast {
    pub server: SocketAddr,
    pub domain: String,
    pub own: std::net::IpAddr,
    /// Names and passwords: callers at even places, each followed by whom it calls.
    pub accounts: Vec<(String, String)>,
    /// So many pairs send sound.
    pub audio: usize,
    /// The last so many callees ring this long, the others answer at once.
    pub slow: usize,
    pub ring: Duration,
}

/// Runs until standard input ends.
pub async fn run(cast: Cast) {
    let moved = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let pairs = cast.accounts.len() / 2;
    let (mut phones, mut sounds) = (Vec::new(), Vec::new());
    for (n, (name, password)) in cast.accounts.iter().enumerate() {
        let port = 10_000 + 4 * n as u16;
        let own = SocketAddr::new(cast.own, port);
        let media = Arc::new(Mutex::new(None));
        // The one without a partner is there to be transferred to.
        let slow = (pairs - cast.slow..pairs).contains(&(n / 2));
        let phone = Phone {
            name: name.clone(),
            password: password.clone(),
            domain: cast.domain.clone(),
            server: cast.server,
            socket: UdpSocket::bind(own).await.unwrap(),
            own,
            media_port: port + 2,
            media: media.clone(),
            ring: if slow { cast.ring } else { Duration::ZERO },
            dialog: None,
            answered: BTreeMap::new(),
            ringing: None,
            cseq: 0,
            serial: u64::from(std::process::id()) << 20,
            moved: moved.clone(),
            begun,
        };
        if n / 2 < cast.audio {
            let sound = Arc::new(Sound {
                longest_ms: Mutex::new((None, 0)),
                heard: AtomicU64::new(0),
            });
            let socket = UdpSocket::bind(SocketAddr::new(cast.own, port + 2)).await.unwrap();
            tokio::spawn(talk(socket, media, sound.clone()));
            sounds.push(sound);
        }
        phones.push(phone);
    }
    let mut registered = 0;
    for chunk in phones.chunks_mut(16) {
        let all = chunk.iter_mut().map(Phone::register);
        registered += futures_util::future::join_all(all)
            .await
            .into_iter()
            .filter(|ok| *ok)
            .count();
    }
    say(&format!("registered {registered}"));
    let mut orders = Vec::new();
    for phone in phones {
        let (order, out) = mpsc::unbounded_channel();
        tokio::spawn(phone.run(out));
        orders.push(order);
    }
    let mut slow_calls: Vec<oneshot::Receiver<bool>> = Vec::new();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let quick = pairs - cast.slow;
        let answer = match line.as_str() {
            "call" => {
                let mut up = 0;
                // Not all at the same moment: people do not dial in step.
                let all: Vec<usize> = (0..quick).collect();
                for chunk in all.chunks(20) {
                    let calls = chunk.iter().map(|n| {
                        let whom = cast.accounts[2 * n + 1].0.clone();
                        ask(&orders[2 * n], |done| Order::Call(whom, done))
                    });
                    up += count(calls).await;
                }
                format!("up {up}")
            }
            "ring" => {
                for n in quick..pairs {
                    let (done, answer) = oneshot::channel();
                    let _ = orders[2 * n].send(Order::Call(cast.accounts[2 * n + 1].0.clone(), done));
                    slow_calls.push(answer);
                }
                format!("ringing {}", slow_calls.len())
            }
            "rung" => {
                let mut up = 0;
                for answer in slow_calls.drain(..) {
                    up += usize::from(answer.await.unwrap_or(false));
                }
                format!("rung {up}")
            }
            "mark" => {
                sounds.iter().for_each(|sound| sound.mark());
                moved.store(0, Ordering::Relaxed);
                format!("marked {}", begun.elapsed().as_millis())
            }
            "gaps" => {
                let mut gaps: Vec<u64> = sounds.iter().map(|sound| sound.longest_ms()).collect();
                gaps.sort_unstable();
                let at = |share: f64| {
                    gaps.get(((gaps.len() as f64 * share) as usize).min(gaps.len().max(1) - 1))
                        .copied()
                        .unwrap_or(0)
                };
                format!(
                    "gaps {} {} {} {}",
                    gaps.len(),
                    at(0.5),
                    at(0.99),
                    gaps.last().copied().unwrap_or(0)
                )
            }
            "moved" => format!("moved {}", moved.load(Ordering::Relaxed)),
            "up" => format!("up {}", count(orders.iter().map(|order| ask(order, Order::Up))).await),
            "hold" => {
                // Callers of every second call, callees of the others.
                let sides = (0..quick).map(|n| &orders[2 * n + n % 2]);
                format!("hold {}", count(sides.map(|order| ask(order, Order::Hold))).await)
            }
            "hang" => {
                let sides = (0..quick).map(|n| &orders[2 * n + (n + 1) % 2]);
                format!("hang {}", count(sides.map(|order| ask(order, Order::Hang))).await)
            }
            "hang slow" => {
                let sides = (quick..pairs).map(|n| &orders[2 * n]);
                format!("hang {}", count(sides.map(|order| ask(order, Order::Hang))).await)
            }
            other => match other
                .strip_prefix("transfer ")
                .map(|words| words.split(' ').collect::<Vec<_>>())
            {
                // WHO hands its partner to WHOM.
                Some(words) if words.len() == 2 => {
                    let who: usize = words[0].parse().unwrap_or(0);
                    let whom = words[1].to_owned();
                    let done = ask(&orders[who], |done| Order::Transfer(whom, done)).await;
                    format!("transfer {}", u8::from(done))
                }
                _ => "what".to_owned(),
            },
        };
        say(&answer);
    }
}

async fn ask(orders: &mpsc::UnboundedSender<Order>, order: impl FnOnce(oneshot::Sender<bool>) -> Order) -> bool {
    let (done, answer) = oneshot::channel();
    orders.send(order(done)).is_ok() && answer.await.unwrap_or(false)
}

async fn count(all: impl IntoIterator<Item = impl Future<Output = bool>>) -> usize {
    futures_util::future::join_all(all)
        .await
        .into_iter()
        .filter(|ok| *ok)
        .count()
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "@{line}");
    let _ = out.flush();
}
