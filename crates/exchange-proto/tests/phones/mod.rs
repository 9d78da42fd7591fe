//! Phones stepped by hand around one exchange: no sockets, no clock.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use offhook_exchange_proto::bridge::CallRecord;
use offhook_exchange_proto::flow::Flow;
use offhook_exchange_proto::relay::RelayCommand;
use offhook_exchange_proto::replica::Record;
use offhook_exchange_proto::route::{Account, Tables};
use offhook_exchange_proto::sip::digest::{Algorithm, Secret};
use offhook_exchange_proto::sip::{CSeq, Message, Method, NameAddr};
use offhook_exchange_proto::time::Moment;
use offhook_exchange_proto::{Config, Exchange, Input, Outputs, Seeds, StoreCommand};

pub const DOMAIN: &str = "pbx.test";

pub struct Lab {
    pub exchange: Exchange,
    pub now: Instant,
    pub inbox: BTreeMap<Flow, Vec<Message>>,
    pub raw: Vec<(Flow, Vec<u8>)>,
    pub records: Vec<CallRecord>,
    pub stored_bindings: BTreeMap<String, usize>,
    pub relay: Vec<RelayCommand>,
    pub replicas: Vec<Record>,
}

impl Lab {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(adjust: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(DOMAIN, "192.0.2.1".parse().unwrap());
        adjust(&mut config);
        let names = ["alice", "bob", "carol", "dave"];
        let account = |(n, name): (usize, &&str)| Account {
            name: (*name).to_owned(),
            secret: Secret::new(name, DOMAIN, &format!("{name}-pw")),
            extension: Some(format!("{}", 100 + n)),
        };
        let tables = Tables::new(names.iter().enumerate().map(account).collect());
        #[expect(
            clippy::disallowed_methods,
            reason = "there is no other way to make one; only differences matter"
        )]
        let now = Instant::now();
        let exchange = Exchange::new(
            config,
            Seeds {
                tokens: [1; 32],
                nonces: [2; 32],
            },
            tables,
            now,
            Moment(1_800_000_000_000),
        );
        Self {
            exchange,
            now,
            inbox: BTreeMap::new(),
            raw: Vec::new(),
            records: Vec::new(),
            stored_bindings: BTreeMap::new(),
            relay: Vec::new(),
            replicas: Vec::new(),
        }
    }

    pub fn feed(&mut self, flow: Flow, bytes: Vec<u8>) {
        let outputs = self.exchange.handle(Input::Received { flow, bytes }, self.now);
        self.take(outputs);
    }

    pub fn send(&mut self, flow: Flow, message: &Message) {
        self.feed(flow, message.to_bytes());
    }

    pub fn take(&mut self, outputs: Outputs) {
        for command in outputs.store {
            match command {
                StoreCommand::Record(record) => self.records.push(record),
                StoreCommand::Bindings(offhook_exchange_proto::registrar::Change::Bindings { account, bindings }) => {
                    self.stored_bindings.insert(account.to_string(), bindings.len());
                }
            }
        }
        self.relay.extend(outputs.relay);
        self.replicas.extend(outputs.replicate);
        for transmit in outputs.send {
            if let Ok(message) = Message::parse(&transmit.bytes) {
                assert_eq!(message.flaw, None, "{}", String::from_utf8_lossy(&transmit.bytes));
                self.inbox.entry(transmit.flow).or_default().push(message);
            }
            self.raw.push((transmit.flow, transmit.bytes));
        }
    }

    /// Lets time pass, step by step through every deadline.
    pub fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some((at, _)) = self.exchange.poll_timeout().filter(|(at, _)| *at <= until) {
            self.now = self.now.max(at);
            let outputs = self.exchange.handle(Input::Timeout, self.now);
            self.take(outputs);
        }
        self.now = until;
    }

    /// Everything a phone got since it was last asked.
    pub fn got(&mut self, flow: Flow) -> Vec<Message> {
        self.inbox.remove(&flow).unwrap_or_default()
    }

    /// The phone's messages, of which one must be this response or request; it is given.
    pub fn expect(&mut self, phone: &Phone, what: &str) -> Message {
        let got = self.got(phone.flow);
        let summary: Vec<String> = got.iter().map(summary).collect();
        let found = got.iter().position(|message| summary_matches(message, what));
        let found = found.unwrap_or_else(|| panic!("{} expected {what:?}, got {summary:?}", phone.name));
        let mut got = got;
        let message = got.remove(found);
        // What came after it is still to be read.
        let rest = got.split_off(found);
        self.inbox.insert(phone.flow, rest);
        message
    }

    pub fn expect_nothing(&mut self, phone: &Phone) {
        let got: Vec<String> = self.got(phone.flow).iter().map(summary).collect();
        assert!(got.is_empty(), "{} got {got:?}", phone.name);
    }
}

pub fn summary(message: &Message) -> String {
    let cseq = message.get("CSeq").unwrap_or("");
    match message.status() {
        Some(status) => format!("{status} {cseq}"),
        None => cseq.to_owned(),
    }
}

/// `"180 INVITE"` or `"BYE"`.
fn summary_matches(message: &Message, what: &str) -> bool {
    let method = message
        .get("CSeq")
        .and_then(CSeq::parse)
        .map(|cseq| cseq.method.to_string())
        .unwrap_or_default();
    match (message.status(), what.split_once(' ')) {
        (Some(status), Some((wanted, wanted_method))) => wanted == status.to_string() && wanted_method == method,
        (None, None) => what == method,
        _ => false,
    }
}

pub struct Phone {
    pub name: String,
    pub flow: Flow,
    cseq: u32,
    branch: u32,
}

/// One side of a dialog as the phone sees it.
#[derive(Clone, Debug)]
pub struct PhoneDialog {
    pub call_id: String,
    pub local: String,
    pub remote: String,
    pub target: String,
}

impl Phone {
    pub fn new(name: &str, address: &str) -> Self {
        Self {
            name: name.to_owned(),
            flow: Flow::udp(address.parse().unwrap()),
            cseq: 0,
            branch: 0,
        }
    }

    /// A phone that has registered itself.
    pub fn registered(lab: &mut Lab, name: &str, address: &str) -> Self {
        let mut phone = Self::new(name, address);
        phone.register(lab, "600");
        phone
    }

    /// Registers over one of a phone's flows (RFC 5626).
    pub fn register_flow(&mut self, lab: &mut Lab, contact: &str, reg_id: u32) {
        let address = format!("sip:{}@{DOMAIN}", self.name);
        let call_id = format!("r{reg_id}");
        let mut request = self.request(Method::Register, &format!("sip:{DOMAIN}"), &address, &call_id);
        let instance = format!("\"<urn:uuid:{}>\"", self.name);
        request.replace("Contact", format!("{contact};reg-id={reg_id};+sip.instance={instance}"));
        request.push("Supported", "outbound");
        self.send_authenticated(lab, request);
        lab.expect(self, "200 REGISTER");
    }

    pub fn contact(&self) -> String {
        format!("<sip:{}@{}>", self.name, self.flow.remote)
    }

    pub fn next_cseq(&mut self) -> u32 {
        self.cseq += 1;
        self.cseq
    }

    pub fn via(&mut self) -> String {
        self.branch += 1;
        format!(
            "SIP/2.0/UDP {};branch=z9hG4bK{}{}{};rport",
            self.flow.remote,
            self.name,
            self.flow.remote.port(),
            self.branch
        )
    }

    pub fn sdp(&self) -> Vec<u8> {
        self.sdp_with("sendrecv", 1)
    }

    pub fn sdp_with(&self, direction: &str, version: u32) -> Vec<u8> {
        let ip = self.flow.remote.ip();
        format!(
            "v=0\r\no={} 1 {version} IN IP4 {ip}\r\ns=-\r\nc=IN IP4 {ip}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0 101\r\na=rtpmap:101 telephone-event/8000\r\na={direction}\r\n",
            self.name
        )
        .into_bytes()
    }

    /// An out-of-dialog request.
    pub fn request(&mut self, method: Method, uri: &str, to: &str, call_id: &str) -> Message {
        let number = self.next_cseq();
        let via = self.via();
        Message::request(method.clone(), uri)
            .with("Via", via)
            .with("Max-Forwards", "70")
            .with("From", format!("<sip:{}@{DOMAIN}>;tag={}-{call_id}", self.name, self.name))
            .with("To", format!("<{to}>"))
            .with("Call-ID", call_id)
            .with("CSeq", format!("{number} {method}"))
            .with("Contact", self.contact())
            .with("User-Agent", "a phone stepped by hand, of some length, as real phones are, so that its first request is long enough to be answered by two challenges: nobody gets more octets than it sent")
            .with("Allow", "INVITE, ACK, BYE, CANCEL, OPTIONS, REFER, NOTIFY, SUBSCRIBE, INFO, MESSAGE, UPDATE, PRACK")
    }

    /// Sends, answers one challenge, and gives the request that was let in.
    pub fn send_authenticated(&mut self, lab: &mut Lab, mut request: Message) -> Message {
        lab.send(self.flow, &request);
        let method = request.method().unwrap().clone();
        let challenge = lab.expect(self, &format!("401 {method}"));
        if method == Method::Invite {
            let ack = ack_failure(&request, &challenge);
            lab.send(self.flow, &ack);
        }
        let password = format!("{}-pw", self.name);
        let authorization = authorize(&request, &challenge, &self.name, &password, Algorithm::Sha256);
        let (number, via) = (self.next_cseq(), self.via());
        request.replace("Via", via);
        request.replace("CSeq", format!("{number} {method}"));
        request.push("Authorization", authorization);
        lab.send(self.flow, &request);
        request
    }

    pub fn register(&mut self, lab: &mut Lab, expires: &str) -> Message {
        let uri = format!("sip:{DOMAIN}");
        let to = format!("sip:{}@{DOMAIN}", self.name);
        let request = self
            .request(
                Method::Register,
                &uri,
                &to,
                &format!("reg-{}-{}", self.name, self.flow.remote.port()),
            )
            .with("Expires", expires);
        self.send_authenticated(lab, request);
        lab.expect(self, "200 REGISTER")
    }

    /// An INVITE that was let in.
    pub fn invite(
        &mut self,
        lab: &mut Lab,
        dialled: &str,
        call_id: &str,
        adjust: impl FnOnce(Message) -> Message,
    ) -> Message {
        let uri = format!("sip:{dialled}@{DOMAIN}");
        let sdp = self.sdp();
        let request = self
            .request(Method::Invite, &uri, &uri, call_id)
            .with_body("application/sdp", sdp);
        let request = adjust(request);
        self.send_authenticated(lab, request)
    }

    /// A response, with our tag and Contact.
    pub fn respond(&self, lab: &mut Lab, request: &Message, status: u16, sdp: Option<Vec<u8>>) {
        let response = self.response(request, status, sdp);
        lab.send(self.flow, &response);
    }

    pub fn response(&self, request: &Message, status: u16, sdp: Option<Vec<u8>>) -> Message {
        let mut response = Message::response_to(request, status);
        let to = request.get("To").unwrap();
        if NameAddr::parse(to).unwrap().tag().is_none() {
            response.replace(
                "To",
                format!("{to};tag=callee-{}-{}", self.name, self.flow.remote.port()),
            );
        }
        response.push("Contact", self.contact());
        match sdp {
            Some(sdp) => response.with_body("application/sdp", sdp),
            None => response,
        }
    }

    /// A request inside a dialog.
    pub fn in_dialog(&mut self, dialog: &PhoneDialog, method: Method) -> Message {
        let number = self.next_cseq();
        let via = self.via();
        Message::request(method.clone(), dialog.target.clone())
            .with("Via", via)
            .with("Max-Forwards", "70")
            .with("From", dialog.local.clone())
            .with("To", dialog.remote.clone())
            .with("Call-ID", dialog.call_id.clone())
            .with("CSeq", format!("{number} {method}"))
            .with("Contact", self.contact())
    }

    /// The ACK of a 2xx.
    pub fn ack(&mut self, lab: &mut Lab, invite: &Message, ok: &Message) {
        let mut ack = self.in_dialog(&caller_dialog(invite, ok), Method::Ack);
        let number = CSeq::parse(invite.get("CSeq").unwrap()).unwrap().number;
        ack.replace("CSeq", format!("{number} ACK"));
        lab.send(self.flow, &ack);
    }
}

pub fn ack_failure(invite: &Message, response: &Message) -> Message {
    let number = CSeq::parse(invite.get("CSeq").unwrap()).unwrap().number;
    Message::request(Method::Ack, invite.uri().unwrap())
        .with("Via", invite.get("Via").unwrap())
        .with("From", invite.get("From").unwrap())
        .with("To", response.get("To").unwrap())
        .with("Call-ID", invite.get("Call-ID").unwrap())
        .with("CSeq", format!("{number} ACK"))
}

pub fn authorize(request: &Message, challenge: &Message, user: &str, password: &str, algorithm: Algorithm) -> String {
    let offered = challenge
        .all("WWW-Authenticate")
        .find(|value| value.contains(algorithm.name()))
        .expect("algorithm is offered");
    let nonce = offered.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap();
    let uri = request.uri().unwrap();
    let ha1 = algorithm.hash(&format!("{user}:{DOMAIN}:{password}"));
    let ha2 = algorithm.hash(&format!("{}:{uri}", request.method().unwrap()));
    let response = algorithm.hash(&format!("{ha1}:{nonce}:00000001:c:auth:{ha2}"));
    format!(
        "Digest username=\"{user}\",realm=\"{DOMAIN}\",nonce=\"{nonce}\",uri=\"{uri}\",response=\"{response}\",algorithm={},qop=auth,nc=00000001,cnonce=\"c\"",
        algorithm.name()
    )
}

pub fn caller_dialog(invite: &Message, ok: &Message) -> PhoneDialog {
    PhoneDialog {
        call_id: invite.get("Call-ID").unwrap().to_owned(),
        local: invite.get("From").unwrap().to_owned(),
        remote: ok.get("To").unwrap().to_owned(),
        target: NameAddr::parse(ok.get("Contact").unwrap()).unwrap().raw_uri.to_owned(),
    }
}

pub fn callee_dialog(phone: &Phone, invite: &Message) -> PhoneDialog {
    let ok = phone.response(invite, 200, None);
    PhoneDialog {
        call_id: invite.get("Call-ID").unwrap().to_owned(),
        local: ok.get("To").unwrap().to_owned(),
        remote: invite.get("From").unwrap().to_owned(),
        target: NameAddr::parse(invite.get("Contact").unwrap())
            .unwrap()
            .raw_uri
            .to_owned(),
    }
}

/// Two registered phones in a call, with both dialogs.
pub struct Talk {
    pub caller: PhoneDialog,
    pub callee: PhoneDialog,
}

/// Sets up a call to its end, ACK included.
pub fn talk(lab: &mut Lab, from: &mut Phone, to: &mut Phone, call_id: &str) -> Talk {
    let invite = from.invite(lab, &to.name.clone(), call_id, |invite| invite);
    let ringing = lab.expect(to, "INVITE");
    to.respond(lab, &ringing, 180, None);
    to.respond(lab, &ringing, 200, Some(to.sdp()));
    lab.expect(to, "ACK");
    lab.expect(from, "180 INVITE");
    let ok = lab.expect(from, "200 INVITE");
    from.ack(lab, &invite, &ok);
    Talk {
        caller: caller_dialog(&invite, &ok),
        callee: callee_dialog(to, &ringing),
    }
}
