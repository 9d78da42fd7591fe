//! Bad input: no decoder panics, no answer is longer than its question, no call outlives its phones.
#![allow(clippy::unwrap_used)]

mod phones;

use std::collections::BTreeSet;
use std::time::Duration;

use offhook_exchange_proto::bridge::Call;
use offhook_exchange_proto::flow::Flow;
use offhook_exchange_proto::registrar::Binding;
use offhook_exchange_proto::replica::decode;
use offhook_exchange_proto::sip::digest::Credentials;
use offhook_exchange_proto::sip::message::Frame;
use offhook_exchange_proto::sip::sdp::Sdp;
use offhook_exchange_proto::sip::{CSeq, Framer, Message, Method, NameAddr, Uri, Via};
use phones::{DOMAIN, Lab, Phone, callee_dialog, caller_dialog};
use proptest::prelude::*;

/// Text that looks like SIP often enough to get past the first check.
fn sip_like() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "INVITE",
        "REGISTER",
        "ACK",
        "BYE",
        " ",
        "sip:",
        "bob@pbx.test",
        " SIP/2.0",
        "\r\n",
        "\r\n\r\n",
        "Via: ",
        "SIP/2.0/UDP ",
        "h:5060",
        ";branch=z9hG4bK1",
        ";rport",
        "From: ",
        "To: ",
        "<",
        ">",
        "\"",
        "\\",
        ";tag=a",
        "Call-ID: x",
        "CSeq: ",
        "1 ",
        "99999999999999999999",
        "Contact: ",
        "Content-Length: ",
        "-1",
        "l: 4294967296",
        "%00",
        "%",
        ",",
        ";;",
        "[::1",
        "]",
        "Authorization: Digest ",
        "nonce=",
        "username=\"",
        "Require: ",
        "Session-Expires: ",
        "Refer-To: ",
        "?Replaces=",
        "\u{e9}",
        "v=0\r\n",
        "o=- 1 1 IN IP4 1.2.3.4\r\n",
        "m=audio 1 RTP/AVP 0\r\n",
        "c=IN IP4 x\r\n",
        "\t",
        "*",
    ]);
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

fn mangled_register() -> impl Strategy<Value = Vec<u8>> {
    let good = Phone::new("bob", "198.51.100.2:5060")
        .request(
            Method::Register,
            &format!("sip:{DOMAIN}"),
            &format!("sip:bob@{DOMAIN}"),
            "r",
        )
        .to_bytes();
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..3_u8), 0..8);
    edits.prop_map(move |edits| {
        let mut bytes = good.clone();
        for (index, byte, kind) in edits {
            let at = index.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => drop(bytes.remove(at)),
                _ => bytes.insert(at, byte),
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoders_do_not_panic(text in sip_like(), noise in prop::collection::vec(any::<u8>(), 0..400)) {
        for bytes in [text.as_bytes(), &noise] {
            let _ = Message::parse(bytes).map(|message| Message::parse(&message.to_bytes()));
            let _ = Sdp::parse(bytes).map(|sdp| sdp.targets());
            let _ = decode::<Call>(bytes);
            let _ = decode::<Vec<Binding>>(bytes);
            let mut framer = Framer::default();
            framer.push(bytes);
            while let Ok(Some(_)) = framer.next_frame() {}
        }
        let _ = (Uri::parse(&text), NameAddr::parse(&text), Via::parse(&text), CSeq::parse(&text), Credentials::parse(&text));
    }

    #[test]
    fn what_is_written_reads_back(names in prop::collection::vec("[A-Z][a-z]{1,8}", 0..6), value in "[ -~]{0,40}", body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut message = Message::request(Method::Options, "sip:a@b");
        for name in names {
            message.headers.push((format!("X-{name}").into(), value.trim().into()));
        }
        message.body = body;
        let length = message.body.len();
        let read = Message::parse(&message.to_bytes()).unwrap();
        message.push("Content-Length", length.to_string());
        prop_assert_eq!(read, message);
    }

    #[test]
    fn a_stream_may_be_cut_anywhere(cuts in prop::collection::vec(1..40_usize, 1..80), count in 1..4_usize) {
        let one = Message::request(Method::Options, "sip:a@b").with_body("text/plain", b"0123456789".to_vec()).to_bytes();
        let stream = one.repeat(count);
        let (mut framer, mut frames, mut rest) = (Framer::default(), 0, &stream[..]);
        for cut in cuts.into_iter().chain([usize::MAX]) {
            let (piece, tail) = rest.split_at(cut.min(rest.len()));
            rest = tail;
            framer.push(piece);
            while let Some(frame) = framer.next_frame().unwrap() {
                prop_assert_eq!(frame, Frame::Message(one.clone()));
                frames += 1;
            }
        }
        prop_assert_eq!(frames, count);
        prop_assert!(framer.is_empty());
    }

    #[test]
    fn strangers_never_get_more_octets_than_they_sent(bytes in prop_oneof![mangled_register(), sip_like().prop_map(String::into_bytes)]) {
        let mut lab = Lab::new();
        let sent = bytes.len();
        lab.feed(Flow::udp("203.0.113.1:5060".parse().unwrap()), bytes);
        lab.pass(Duration::from_secs(60));
        let answered: usize = lab.raw.iter().map(|(_, bytes)| bytes.len()).sum();
        prop_assert!(answered <= sent, "{answered} octets for {sent}");
    }
}

/// The control: an answer longer than its question is possible once the source has proved itself.
#[test]
fn proved_sources_get_full_answers_and_strangers_invites_one_challenge() {
    let mut lab = Lab::new();
    let mut stranger = Phone::new("bob", "203.0.113.7:5060");
    let uri = format!("sip:alice@{DOMAIN}");
    let invite = stranger.request(Method::Invite, &uri, &uri, "c");
    lab.send(stranger.flow, &invite);
    lab.pass(Duration::from_secs(60));
    assert_eq!(lab.got(stranger.flow).len(), 1, "no repetitions");
    let short = Message::request(Method::Options, "sip:x")
        .with("Via", "SIP/2.0/UDP 198.51.100.1:5060;branch=z9hG4bK1")
        .with("From", "sip:a@b;tag=1")
        .with("To", "sip:x")
        .with("Call-ID", "1")
        .with("CSeq", "1 OPTIONS");
    let alice = Phone::registered(&mut lab, "alice", "198.51.100.1:5060");
    lab.raw.clear();
    lab.send(alice.flow, &short);
    assert!(lab.raw[0].1.len() > short.to_bytes().len());
}

/// A request as terse as sipp's is still challenged, in compact form.
#[test]
fn a_terse_phone_is_challenged_in_compact_form() {
    let mut lab = Lab::new();
    let flow = Flow::udp("127.0.0.1:25106".parse().unwrap());
    let register = "REGISTER sip:127.0.0.1:25100 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:25106;branch=z9hG4bK-21681-1-0;rport\r\n\
        From: <sip:bob@127.0.0.1>;tag=21681r1\r\nTo: <sip:bob@127.0.0.1>\r\nCall-ID: 1-21681@127.0.0.1\r\nCSeq: 1 REGISTER\r\n\
        Contact: <sip:bob@127.0.0.1:25106>\r\nMax-Forwards: 70\r\nExpires: 600\r\nUser-Agent: sipp\r\nContent-Length: 0\r\n\r\n";
    lab.feed(flow, register.as_bytes().to_vec());
    assert_eq!(lab.got(flow)[0].status(), Some(401));
    assert!(lab.raw[0].1.starts_with(b"SIP/2.0 401 \r\nv:"));
}

/// What a careless or hostile phone may do next.
#[derive(Clone, Debug)]
enum Act {
    Invite {
        from: usize,
        to: usize,
    },
    Answer {
        phone: usize,
        which: usize,
        status: u16,
        sdp: bool,
    },
    InDialog {
        phone: usize,
        which: usize,
        method: usize,
    },
    Again {
        phone: usize,
        which: usize,
    },
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let status = prop::sample::select(vec![
        100, 180, 183, 200, 200, 200, 202, 302, 404, 422, 481, 486, 487, 491, 503, 603,
    ]);
    prop_oneof![
        2 => (0..4_usize, 0..4_usize).prop_map(|(from, to)| Act::Invite { from, to }),
        6 => (0..4_usize, 0..8_usize, status, any::<bool>()).prop_map(|(phone, which, status, sdp)| Act::Answer { phone, which, status, sdp }),
        4 => (0..4_usize, 0..8_usize, 0..9_usize).prop_map(|(phone, which, method)| Act::InDialog { phone, which, method }),
        1 => (0..4_usize, 0..8_usize).prop_map(|(phone, which)| Act::Again { phone, which }),
        2 => prop::sample::select(vec![10_u64, 600, 5_000, 40_000, 200_000]).prop_map(Act::Wait),
    ]
}

const METHODS: [Method; 9] = [
    Method::Bye,
    Method::Invite,
    Method::Update,
    Method::Info,
    Method::Refer,
    Method::Prack,
    Method::Ack,
    Method::Notify,
    Method::Cancel,
];

/// Everything the phones have seen and sent, so that they can misuse it.
struct Crowd {
    lab: Lab,
    phones: Vec<Phone>,
    requests: Vec<Vec<Message>>,
    sent: Vec<Vec<Message>>,
    dialogs: Vec<Vec<phones::PhoneDialog>>,
    calls: u32,
}

impl Crowd {
    fn new() -> Self {
        let mut lab = Lab::with(|config| {
            config.authenticate = false;
            config.session_s = 300;
        });
        let names = ["alice", "bob", "carol", "dave"];
        let mut phones: Vec<Phone> = names
            .iter()
            .enumerate()
            .map(|(n, name)| Phone::new(name, &format!("198.51.100.{}:5060", n + 1)))
            .collect();
        for phone in &mut phones {
            let request = phone.request(
                Method::Register,
                &format!("sip:{DOMAIN}"),
                &format!("sip:{}@{DOMAIN}", phone.name),
                &phone.name.clone(),
            );
            lab.send(phone.flow, &request.with("Expires", "3600"));
        }
        let empty = || (0..4).map(|_| Vec::new()).collect();
        Self {
            lab,
            phones,
            requests: empty(),
            sent: (0..4).map(|_| Vec::new()).collect(),
            dialogs: (0..4).map(|_| Vec::new()).collect(),
            calls: 0,
        }
    }

    fn read(&mut self) {
        for n in 0..4 {
            for message in self.lab.got(self.phones[n].flow) {
                let invite = message.get("CSeq").is_some_and(|cseq| cseq.ends_with("INVITE"));
                if message.status().is_none() {
                    if invite {
                        self.dialogs[n].push(callee_dialog(&self.phones[n], &message));
                    }
                    self.requests[n].push(message);
                } else if invite && message.get("Contact").is_some() {
                    let call_id = message.get("Call-ID").unwrap();
                    let invite = self.sent[n]
                        .iter()
                        .find(|sent| sent.get("Call-ID") == Some(call_id))
                        .cloned();
                    self.dialogs[n].extend(invite.map(|invite| caller_dialog(&invite, &message)));
                }
            }
        }
    }

    fn act(&mut self, act: &Act) {
        match *act {
            Act::Invite { from, to } => {
                self.calls += 1;
                let uri = format!("sip:{}@{DOMAIN}", self.phones[to].name);
                let phone = &mut self.phones[from];
                let sdp = phone.sdp();
                let invite = phone
                    .request(Method::Invite, &uri, &uri, &format!("c{}", self.calls))
                    .with_body("application/sdp", sdp);
                self.lab.send(phone.flow, &invite);
                self.sent[from].push(invite);
            }
            Act::Answer {
                phone,
                which,
                status,
                sdp,
            } => {
                let Some(request) = pick(&self.requests[phone], which) else {
                    return;
                };
                let sdp = sdp.then(|| self.phones[phone].sdp());
                self.phones[phone].respond(&mut self.lab, request, status, sdp);
            }
            Act::InDialog { phone, which, method } => {
                let Some(dialog) = pick(&self.dialogs[phone], which).cloned() else {
                    return;
                };
                let method = METHODS[method].clone();
                let sdp = self.phones[phone].sdp_with("sendonly", which as u32 + 2);
                let mut request = self.phones[phone].in_dialog(&dialog, method.clone());
                match method {
                    Method::Invite | Method::Update => request = request.with_body("application/sdp", sdp),
                    Method::Refer => request.push("Refer-To", format!("<sip:carol@{DOMAIN}>")),
                    Method::Prack => request.push("RAck", "1 1 INVITE"),
                    _ => {}
                }
                self.lab.send(self.phones[phone].flow, &request);
            }
            Act::Again { phone, which } => {
                if let Some(sent) = pick(&self.sent[phone], which) {
                    self.lab.send(self.phones[phone].flow, sent);
                }
            }
            Act::Wait(ms) => self.lab.pass(Duration::from_millis(ms)),
        }
        self.read();
    }
}

fn pick<T>(from: &[T], which: usize) -> Option<&T> {
    (!from.is_empty()).then(|| &from[which % from.len()])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever phones do, each call that began is recorded once, and when they fall silent nothing remains.
    #[test]
    fn every_call_ends_with_one_record_and_leaves_nothing(acts in prop::collection::vec(act(), 1..60)) {
        let mut crowd = Crowd::new();
        crowd.read();
        for act in &acts {
            crowd.act(act);
        }
        crowd.lab.pass(Duration::from_secs(1_200));
        let lab = &crowd.lab;
        prop_assert_eq!(lab.exchange.calls().len(), 0, "calls left: {:?}", lab.exchange.calls());
        prop_assert_eq!(lab.exchange.ports_in_use(), 0);
        prop_assert_eq!(lab.exchange.transaction_count(), 0);
        let keys: BTreeSet<_> = lab.records.iter().map(|record| &record.call).collect();
        prop_assert_eq!(keys.len(), lab.records.len(), "a record came twice");
        prop_assert_eq!(lab.records.len() as u64, lab.exchange.counters().calls_begun);
    }
}

/// A transferee that hangs up while the named phone rings, which then answers without a description.
#[test]
fn a_transfer_whose_transferee_is_gone_is_called_off() {
    let mut crowd = Crowd::new();
    crowd.read();
    let invite = |from, to| Act::Invite { from, to };
    for act in [
        invite(0, 2),
        invite(2, 1),
        invite(0, 0),
        invite(0, 0),
        Act::Answer {
            phone: 1,
            which: 0,
            status: 200,
            sdp: true,
        },
        invite(0, 2),
        Act::InDialog {
            phone: 2,
            which: 1,
            method: 4,
        },
        Act::InDialog {
            phone: 1,
            which: 0,
            method: 0,
        },
        Act::Answer {
            phone: 2,
            which: 3,
            status: 200,
            sdp: false,
        },
    ] {
        crowd.act(&act);
    }
    crowd.lab.pass(Duration::from_secs(1_200));
    assert_eq!(crowd.lab.exchange.calls(), []);
    assert_eq!(
        crowd.lab.records.len() as u64,
        crowd.lab.exchange.counters().calls_begun
    );
    assert_eq!(crowd.lab.exchange.ports_in_use(), 0);
    assert_eq!(crowd.lab.exchange.transaction_count(), 0);
}
