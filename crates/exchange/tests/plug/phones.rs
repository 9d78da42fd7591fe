//! Many phones in one process: digest registration, calls with RTP, re-INVITEs, hold, transfer, hanging up.
//!
//! Ordered about by lines on standard input; each is answered by one line.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use offhook_exchange_proto::sip::digest::Algorithm;
use offhook_exchange_proto::sip::{CSeq, Message, Method, NameAddr};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};

use super::say;
use super::sound::{Ear, PACKET_SAMPLES, packet};

const PATIENCE: Duration = Duration::from_secs(32);
/// After how long without any answer a phone dials over its next flow: three repetitions.
const FAILOVER: Duration = Duration::from_millis(3_500);
/// How long a registration lasts, and after how long a phone renews it at the earliest, each at a time of its own.
const LASTS_S: u32 = 600;
const RENEWAL: Duration = Duration::from_secs(300);
/// In how long those that ring at the cut are dialled.
pub const DIALLING: Duration = Duration::from_secs(2);

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
    /// Other addresses of the exchange, for further flows (RFC 5626).
    others: Vec<SocketAddr>,
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
    moved: Arc<Moved>,
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
        let begins_call = request.method() == Some(&Method::Invite) && !has_tag(request, "To");
        while begun.elapsed() < PATIENCE {
            let silent = begins_call && !provisional && begun.elapsed() >= FAILOVER;
            if let Some(next) = self.next_address(to).filter(|_| silent) {
                // It gets a transaction of its own (RFC 3263 section 4.3).
                let mut request = request.clone();
                let branch = self.fresh();
                request.replace("Via", format!("SIP/2.0/UDP {};branch=z9hG4bK{branch};rport", self.own));
                return Box::pin(self.transact(request, next)).await;
            }
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

    /// Asks the server whether it is there, and listens for 10 ms.
    async fn is_answered(&mut self) -> bool {
        let (uri, address) = (
            format!("sip:{}", self.domain),
            format!("<sip:{}@{}>", self.name, self.domain),
        );
        let (from, call_id) = (format!("{address};tag=t"), self.fresh());
        let request = self.request(Method::Options, &uri, &from, &format!("<{uri}>"), &call_id);
        self.send(&request.to_bytes(), self.server).await;
        let mut buffer = [0; 8_192];
        let received = tokio::time::timeout(Duration::from_millis(10), self.socket.recv_from(&mut buffer)).await;
        received.is_ok_and(|received| received.is_ok())
    }

    fn servers(&self) -> impl Iterator<Item = SocketAddr> {
        std::iter::once(self.server).chain(self.others.iter().copied())
    }

    fn next_address(&self, after: SocketAddr) -> Option<SocketAddr> {
        self.servers().skip_while(|server| *server != after).nth(1)
    }

    /// Over each flow.
    async fn register(&mut self) -> bool {
        let servers: Vec<_> = self.servers().collect();
        for (server, reg_id) in servers.into_iter().zip(1..) {
            if !self.register_at(server, reg_id).await {
                return false;
            }
        }
        true
    }

    async fn register_at(&mut self, server: SocketAddr, reg_id: u8) -> bool {
        let address = format!("<sip:{}@{}>", self.name, self.domain);
        let tag = self.fresh();
        let call_id = self.fresh();
        let uri = format!("sip:{}", self.domain);
        let from = format!("{address};tag={tag}");
        let mut request = self.request(Method::Register, &uri, &from, &address, &call_id);
        let contact = request.get("Contact").unwrap_or_default().to_owned();
        let instance = format!("\"<urn:uuid:00000000-0000-4000-8000-0000{:08x}>\"", self.own.port());
        request.replace("Contact", format!("{contact};reg-id={reg_id};+sip.instance={instance}"));
        let request = request
            .with("Supported", "outbound")
            .with("Expires", LASTS_S.to_string());
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
            self.moved.note(self.begun.elapsed());
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
        let renewal = RENEWAL + Duration::from_secs(u64::from(self.own.port()) % 100);
        let mut renew = Instant::now() + renewal;
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
                () = tokio::time::sleep_until(renew.into()) => {
                    renew += renewal;
                    if !self.register().await {
                        eprintln!("{}: its registration was not renewed", self.name);
                    }
                }
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
        .map(|contact| contact.raw_uri.to_owned())
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

/// Speaks every 20 ms and listens.
async fn talk(speaker: u32, socket: UdpSocket, media: Arc<Mutex<Option<SocketAddr>>>, ear: Arc<Mutex<Ear>>) {
    let socket = Arc::new(socket);
    let listener = socket.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 2_048];
        loop {
            if let Ok((length, _)) = listener.recv_from(&mut buffer).await {
                ear.lock().unwrap().packet(&buffer[..length], Instant::now());
            }
        }
    });
    let mut rhythm = tokio::time::interval(Duration::from_millis(20));
    for n in 0.. {
        rhythm.tick().await;
        let to = *media.lock().unwrap();
        if let Some(to) = to {
            let _ = socket.send_to(&packet(speaker, n * PACKET_SAMPLES), to).await;
        }
    }
}

/// Asks the exchange whether it is there, a hundred times a second; the longest time without an answer is how long
/// nobody spoke for it.
struct Probe {
    last: Mutex<Instant>,
    longest: Mutex<Duration>,
}

impl Probe {
    fn start(mut phone: Phone) -> Arc<Self> {
        let probe = Arc::new(Self {
            last: Mutex::new(Instant::now()),
            longest: Mutex::new(Duration::ZERO),
        });
        let answers = probe.clone();
        tokio::spawn(async move {
            let mut rhythm = tokio::time::interval(Duration::from_millis(10));
            let mut buffer = [0; 8_192];
            let (uri, address) = (
                format!("sip:{}", phone.domain),
                format!("<sip:{}@{}>", phone.name, phone.domain),
            );
            let (from, call_id) = (format!("{address};tag={}", phone.fresh()), phone.fresh());
            let mut renewal = tokio::time::interval(RENEWAL);
            renewal.reset();
            loop {
                tokio::select! {
                    // A stranger would be answered less often.
                    _ = renewal.tick() => drop(phone.register().await),
                    _ = rhythm.tick() => {
                        let request = phone.request(Method::Options, &uri, &from, &format!("<{uri}>"), &call_id);
                        phone.send(&request.to_bytes(), phone.server).await;
                    }
                    received = phone.socket.recv_from(&mut buffer) => {
                        let message = received.ok().and_then(|(length, _)| Message::parse(&buffer[..length]).ok());
                        if message.and_then(|message| message.status()) == Some(200) {
                            answers.answered();
                        }
                    }
                }
            }
        });
        probe
    }

    fn answered(&self) {
        let silence = std::mem::replace(&mut *self.last.lock().unwrap(), Instant::now()).elapsed();
        let mut longest = self.longest.lock().unwrap();
        *longest = silence.max(*longest);
    }

    fn mark(&self) {
        *self.longest.lock().unwrap() = Duration::ZERO;
    }

    fn longest_ms(&self) -> u128 {
        let open = self.last.lock().unwrap().elapsed();
        open.max(*self.longest.lock().unwrap()).as_millis()
    }
}

/// What is ordered, and by whom.
pub struct Cast {
    pub server: SocketAddr,
    /// Where phones keep further flows.
    pub others: Vec<SocketAddr>,
    pub domain: String,
    pub own: std::net::IpAddr,
    /// Where the probe is: strangers are answered so often and no more from one address.
    pub probe: std::net::IpAddr,
    /// Names and passwords: callers at even places, each followed by whom it calls; then three more.
    pub accounts: Vec<(String, String)>,
    /// So many pairs send sound.
    pub audio: usize,
    /// The last so many callees ring this long, the others answer at once.
    pub slow: usize,
    pub ring: Duration,
}

/// Two phones that wait for a server to come, and call each other over it; then how many ms after they were told to
/// wait it answered, and the call was up.
pub async fn greet(cast: Cast) {
    let (moved, begun) = (Arc::default(), Instant::now());
    let mut probe = cast.phone(2, Arc::clone(&moved), begun).await;
    let mut caller = cast.phone(0, Arc::clone(&moved), begun).await;
    let mut callee = cast.phone(1, Arc::clone(&moved), begun).await;
    say("ready 0");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let _ = lines.next_line().await;
    let begun = Instant::now();
    while !probe.is_answered().await && begun.elapsed() < PATIENCE {}
    let answers_ms = begun.elapsed().as_millis();
    let registered = caller.register().await && callee.register().await;
    let whom = callee.name.clone();
    let (_orders, idle) = mpsc::unbounded_channel();
    tokio::spawn(callee.run(idle));
    let called = registered && caller.call(&whom).await;
    let carries_ms = if called { begun.elapsed().as_millis() } else { 999_999 };
    say(&format!("greeted {answers_ms} {carries_ms}"));
    // Until standard input ends.
    let _ = lines.next_line().await;
}

/// Runs until standard input ends.
pub async fn run(cast: Cast) {
    let mut crowd = Crowd::new(cast).await;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        say(&crowd.obey(&line).await);
    }
}

/// All phones: callers at even places, each followed by whom it calls; then two to be transferred to, and the probe.
struct Crowd {
    cast: Cast,
    orders: Vec<mpsc::UnboundedSender<Order>>,
    ears: Vec<Arc<Mutex<Ear>>>,
    probe: Arc<Probe>,
    moved: Arc<Moved>,
    slow_calls: Arc<Mutex<Vec<oneshot::Receiver<bool>>>>,
    begun: Instant,
}

impl Crowd {
    async fn new(cast: Cast) -> Self {
        let moved = Arc::new(Moved::default());
        let begun = Instant::now();
        let (mut phones, mut ears) = (Vec::new(), Vec::new());
        for n in 0..cast.accounts.len() {
            let phone = cast.phone(n, moved.clone(), begun).await;
            if n / 2 < cast.audio {
                let ear = Arc::new(Mutex::new(Ear::default()));
                let socket = UdpSocket::bind(SocketAddr::new(cast.own, phone.media_port))
                    .await
                    .unwrap();
                tokio::spawn(talk(n as u32, socket, phone.media.clone(), ear.clone()));
                ears.push(ear);
            }
            phones.push(phone);
        }
        let mut registered = 0;
        for chunk in phones.chunks_mut(16) {
            registered += count(chunk.iter_mut().map(Phone::register)).await;
        }
        say(&format!("registered {registered}"));
        let probe = Probe::start(phones.pop().unwrap());
        let mut orders = Vec::new();
        for phone in phones {
            let (order, out) = mpsc::unbounded_channel();
            tokio::spawn(phone.run(out));
            orders.push(order);
        }
        Self {
            cast,
            orders,
            ears,
            probe,
            moved,
            slow_calls: Arc::default(),
            begun,
        }
    }

    fn pairs(&self) -> usize {
        self.cast.pairs()
    }

    /// Calls that are answered at once.
    fn quick(&self) -> usize {
        self.pairs() - self.cast.slow
    }

    async fn obey(&mut self, order: &str) -> String {
        let words: Vec<&str> = order.split(' ').collect();
        match words[..] {
            ["call"] => format!("up {}", self.call().await),
            ["ring"] => self.ring(),
            ["rung"] => {
                let waiting: Vec<_> = self.slow_calls.lock().unwrap().drain(..).collect();
                let answers = waiting.into_iter().map(async |answer| answer.await.unwrap_or(false));
                format!("rung {}", count(answers).await)
            }
            ["mark"] => self.mark(),
            ["gaps"] => self.gaps(),
            ["silences"] => self.silences(),
            ["moved"] => self.moved.tell(),
            ["probe"] => format!("probe {}", self.probe.longest_ms()),
            ["up"] => format!(
                "up {}",
                count(self.orders.iter().map(|order| ask(order, Order::Up))).await
            ),
            ["hold"] => {
                // Callers of every second call, callees of the others.
                let sides = (0..self.quick()).map(|n| &self.orders[2 * n + n % 2]);
                format!("hold {}", count(sides.map(|order| ask(order, Order::Hold))).await)
            }
            ["hang"] => {
                let sides = (0..self.quick()).map(|n| &self.orders[2 * n + (n + 1) % 2]);
                format!("hang {}", count(sides.map(|order| ask(order, Order::Hang))).await)
            }
            ["hang", "slow"] => {
                let sides = (self.quick()..self.pairs()).map(|n| &self.orders[2 * n]);
                format!("hang {}", count(sides.map(|order| ask(order, Order::Hang))).await)
            }
            // Who hands its partner to whom.
            ["transfer", who, whom] => {
                let who: usize = who.parse().unwrap_or(0);
                let done = ask(&self.orders[who], |done| Order::Transfer(whom.to_owned(), done)).await;
                format!("transfer {}", u8::from(done))
            }
            _ => "what".to_owned(),
        }
    }

    async fn call(&self) -> usize {
        let mut up = 0;
        // Not all at the same moment: people do not dial in step.
        let all: Vec<usize> = (0..self.quick()).collect();
        for chunk in all.chunks(20) {
            let calls = chunk.iter().map(|n| {
                let whom = self.cast.accounts[2 * n + 1].0.clone();
                ask(&self.orders[2 * n], |done| Order::Call(whom, done))
            });
            up += count(calls).await;
        }
        up
    }

    /// Dials evenly over [`DIALLING`], and does not wait for it: at the cut some ring, some have just begun.
    fn ring(&self) -> String {
        let pairs: Vec<_> = (self.quick()..self.pairs())
            .map(|n| (self.orders[2 * n].clone(), self.cast.accounts[2 * n + 1].0.clone()))
            .collect();
        let (calls, count) = (self.slow_calls.clone(), pairs.len());
        let begun = Instant::now();
        tokio::spawn(async move {
            for (n, (caller, whom)) in pairs.into_iter().enumerate() {
                tokio::time::sleep_until((begun + DIALLING * n as u32 / count as u32).into()).await;
                let (done, answer) = oneshot::channel();
                let _ = caller.send(Order::Call(whom, done));
                calls.lock().unwrap().push(answer);
            }
        });
        format!("ringing {count}")
    }

    fn mark(&self) -> String {
        self.ears.iter().for_each(|ear| ear.lock().unwrap().mark());
        self.probe.mark();
        self.moved.mark(self.begun.elapsed());
        "marked 0".to_owned()
    }

    /// Phone, begin after the mark in ms, length in ms, of each silence; a trailing zero so that there is a number.
    fn silences(&self) -> String {
        let marked = self.begun + Duration::from_millis(self.moved.times_ms.lock().unwrap().0);
        let mut words = String::from("silences");
        for (n, ear) in self.ears.iter().enumerate() {
            for (at, length) in ear.lock().unwrap().silences() {
                let after_ms = at.saturating_duration_since(marked).as_millis();
                words += &format!(" {n} {after_ms} {}", length.as_millis());
            }
        }
        words + " 0"
    }

    /// Of how many phones, gaps in ms at 50 %, 99 %, 100 %, wrong samples.
    fn gaps(&self) -> String {
        let now = Instant::now();
        let mut gaps: Vec<u64> = self
            .ears
            .iter()
            .map(|ear| ear.lock().unwrap().longest_silence_ms(now))
            .collect();
        gaps.sort_unstable();
        let at = |share: f64| {
            let place = ((gaps.len() as f64 * share) as usize).min(gaps.len().max(1) - 1);
            gaps.get(place).copied().unwrap_or(0)
        };
        let wrong: u64 = self.ears.iter().map(|ear| ear.lock().unwrap().wrong).sum();
        format!("gaps {} {} {} {} {wrong}", gaps.len(), at(0.5), at(0.99), at(1.0))
    }
}

/// When phones were told that their call goes on elsewhere.
#[derive(Default)]
struct Moved {
    times_ms: Mutex<(u64, Vec<u64>)>,
}

impl Moved {
    fn note(&self, at: Duration) {
        self.times_ms.lock().unwrap().1.push(at.as_millis() as u64);
    }

    fn mark(&self, now: Duration) {
        *self.times_ms.lock().unwrap() = (now.as_millis() as u64, Vec::new());
    }

    /// How many, and the first and the last after the mark, ms.
    fn tell(&self) -> String {
        let times = self.times_ms.lock().unwrap();
        let after = |at: Option<&u64>| at.map_or(0, |at| at - times.0);
        format!(
            "moved {} {} {}",
            times.1.len(),
            after(times.1.iter().min()),
            after(times.1.iter().max())
        )
    }
}

impl Cast {
    fn pairs(&self) -> usize {
        (self.accounts.len() - 3) / 2
    }

    async fn phone(&self, n: usize, moved: Arc<Moved>, begun: Instant) -> Phone {
        let (name, password) = self.accounts[n].clone();
        let port = 10_000 + 4 * n as u16;
        let is_probe = n + 1 == self.accounts.len();
        let own = SocketAddr::new(if is_probe { self.probe } else { self.own }, port);
        // The one without a partner answers at once, too.
        let slow = (self.pairs() - self.slow..self.pairs()).contains(&(n / 2));
        Phone {
            name,
            password,
            domain: self.domain.clone(),
            server: self.server,
            others: self.others.clone(),
            socket: UdpSocket::bind(own).await.unwrap(),
            own,
            media_port: port + 2,
            media: Arc::default(),
            ring: if slow { self.ring } else { Duration::ZERO },
            dialog: None,
            answered: BTreeMap::new(),
            ringing: None,
            cseq: 0,
            serial: u64::from(std::process::id()) << 20,
            moved,
            begun,
        }
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
