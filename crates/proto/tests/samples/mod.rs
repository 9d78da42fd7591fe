//! One value of every kind, from fixed keys, so that the bytes are the same on every run.

use offhook_proto::crypto::{HPKE_SECRET_BYTES, KeyPair, SealKeyPair, Secret};
use offhook_proto::files::frame::PieceRange;
use offhook_proto::files::{FileAsk, FileTold, GROUP_BYTES};
use offhook_proto::history::{
    Attachment, Body, Class, Clock, ContentId, Entry, EntryId, EntryRef, EpochId, Header, IntervalSet, LogKey, Picture,
    RoomId, Said, entry,
};
use offhook_proto::identity::{DeviceId, DeviceKey, IdentityBundle, PersonId, RootKey};
use offhook_proto::keeper::access::{prove_writer, reader_tag};
use offhook_proto::keeper::frame::{Holding, KeptRanges, KeptRun, State};
use offhook_proto::keeper::{Access, Answer, Ask, KeeperAddress, Refusal};
use offhook_proto::rooms::{
    Address, Control, ControlPayload, Cutoff, Doorway, Equivocation, HistoryPolicy, Invite, InviteUse, KeeperPlace,
    LogCertificate, Op, RelayUrl, Role, RoomKind, Slot, VaultId,
};
use offhook_proto::sync::frame::{
    AddressRecord, AnswerEnd, Ends, EpochGift, LogName, LogRanges, ProposalAnswer, Receipt, RoomHello, RoomName, Run,
    Runs, ShownEntry, Side,
};
use offhook_proto::sync::vector::{Change, Changes, Held};
use offhook_proto::sync::{Frame, Vector};
use offhook_proto::wire::{Wire as _, put_bytes};

/// Samples of one target by name.
pub(crate) type Samples = Vec<(&'static str, Vec<u8>)>;

/// The samples of every target.
pub(crate) fn all() -> Vec<(&'static str, Samples)> {
    vec![
        ("control", control()),
        ("dht", dht_answers()),
        ("entry", entries()),
        ("entry_id", entry_ids()),
        ("file", file_frames()),
        ("frame", frames()),
        ("identity", vec![("bundle", identity().to_bytes())]),
        ("invite", invites()),
        (
            "keeper_address",
            vec![
                ("inside", keeper_address().to_bytes()),
                ("link", keeper_address().to_link().into_bytes()),
            ],
        ),
        ("payload", vec![("two-slots", payload().to_bytes())]),
        ("line", lines()),
        ("said", said()),
        ("vault", vec![("kept-and-fetched", conversation())]),
        ("vector", vec![("two-logs", vector().to_bytes())]),
    ]
}

/// Answers of hosts of the Mainline DHT: of one that knows others, of one that keeps the item of BEP 44's test vector, of one that refuses.
fn dht_answers() -> Samples {
    let key = b"\x77\xff\x84\x90\x5a\x91\x93\x63\x67\xc0\x13\x60\x80\x31\x04\xf9\x24\x32\xfc\xd9\x04\xa4\x35\x11\x87\x6d\xf5\xcd\xf3\xe7\xe5\x48";
    let signature = b"\x30\x5a\xc8\xae\xb6\xc9\xc1\x51\xfa\x12\x0f\x12\x0e\xa2\xcf\xb9\x23\x56\x4e\x11\x55\x2d\x06\xa5\xd8\x56\x09\x1e\x5e\x85\x3c\xff\x12\x60\xd3\xf3\x9e\x49\x99\x68\x4a\xa9\x2e\xb7\x3f\xfd\x13\x6e\x6f\x4f\x3e\xcb\xfd\xa0\xce\x53\xa1\x60\x8e\xcd\x7a\xe2\x1f\x01";
    let nodes: Vec<u8> = (1..=8u8)
        .flat_map(|n| [&[n; 20][..], &[95, 1, 1, n, 0x1a, 0xe1]].concat())
        .collect();
    let near = [
        &b"d1:rd2:id20:0123456789abcdefghij5:nodes208:"[..],
        &nodes[..],
        b"5:token4:abcde1:t4:aaaa1:v4:LT\x01\x021:y1:re",
    ];
    let kept = [
        &b"d1:rd2:id20:0123456789abcdefghij1:k32:"[..],
        &key[..],
        b"3:seqi1e3:sig64:",
        signature,
        b"5:token4:abcd1:v12:Hello World!e1:t4:aaaa1:y1:re",
    ];
    vec![
        ("kept", kept.concat()),
        ("near", near.concat()),
        (
            "refused",
            b"d1:eli201e23:A Generic Error Ocurrede1:t4:aaaa1:y1:ee".to_vec(),
        ),
    ]
}

fn log_key() -> KeyPair {
    KeyPair::from_seed(&Secret([1; 32]))
}

fn device_key() -> KeyPair {
    KeyPair::from_seed(&Secret([2; 32]))
}

fn device() -> DeviceId {
    DeviceId(device_key().public())
}

fn root() -> RootKey {
    RootKey::from_entropy(Secret([3; 32]))
}

fn person() -> PersonId {
    root().person()
}

fn identity() -> IdentityBundle {
    let device_key = DeviceKey(device_key());
    let prekey = SealKeyPair::from_seed(Secret([4; 32]));
    IdentityBundle {
        records: vec![
            root().certify(device(), 1),
            device_key.state_prekey(1, &prekey),
            device_key.state_profile(2, "Ada"),
            root().revoke(device(), 2),
        ],
    }
}

fn reference() -> EntryRef {
    EntryRef {
        log: [5; 8],
        seq: 300,
        hash: [6; 8],
    }
}

fn header(class: Class, payload: &[u8], parents: usize) -> Header {
    Header {
        class,
        seq: 7,
        prev: [8; 32],
        clock: Clock::at_ms(1_700_000_000_000),
        epoch: EpochId([9; 8]),
        parents: vec![reference(); parents],
        payload_hash: entry::payload_hash(payload),
        payload_len: u32::try_from(payload.len()).expect("samples are small"),
    }
}

fn signed(header: Header, payload: Option<&[u8]>) -> Entry {
    let key = log_key();
    let hash = header.hash(&LogKey(key.public()));
    Entry {
        signature: entry::sign(&key, &hash),
        header,
        payload: payload.map(<[u8]>::to_vec),
    }
}

fn entries() -> Samples {
    let payload = b"sealed bytes";
    vec![
        (
            "message",
            signed(header(Class::Message, payload, 2), Some(payload)).to_bytes(),
        ),
        ("deleted", signed(header(Class::Message, payload, 0), None).to_bytes()),
        ("control", signed(header(Class::Control, b"", 16), Some(b"")).to_bytes()),
    ]
}

fn entry_ids() -> Samples {
    let id = |log, seq| EntryId { log, seq }.to_string().into_bytes();
    vec![
        ("first", id([0; 8], 1)),
        ("last", id([255; 8], u32::MAX)),
        ("usual", id([1, 2, 3, 4, 5, 6, 7, 8], 1234)),
    ]
}

fn invite() -> Invite {
    Invite {
        room: RoomId([7; 32]),
        room_name: "Küche".into(),
        secret: [9; 16],
        role: Role::Member,
        expires_ms: 1_800_000_000_000,
        doorways: vec![
            Doorway {
                device: device(),
                addresses: vec![
                    Address("192.0.2.7:4433".parse().expect("an address")),
                    Address("[2001:db8::1]:9".parse().expect("an address")),
                ],
                relay: Some(RelayUrl("https://relay.example".into())),
            },
            Doorway {
                device: device(),
                addresses: vec![],
                relay: None,
            },
        ],
    }
}

fn invites() -> Samples {
    let invite = invite();
    vec![
        ("link", invite.to_link().into_bytes()),
        ("inside", invite.to_bytes()),
        ("words", invite.to_lines().join("\n").into_bytes()),
    ]
}

/// Programs of steps; see `src/fuzzing/line.rs`. Honest frames come first, since the line is closed on who misbehaves.
fn lines() -> Samples {
    let honest = || (0..24).flat_map(|n| vec![0, n]);
    let paused = (0..24).flat_map(|n| vec![0, n, 4]);
    let changed = (0..24).flat_map(|n| vec![1, n, 1, 0, 200, 7]);
    let kinds = (0..20).flat_map(|kind| vec![2, kind, 2, 0, 0]);
    vec![
        ("honest", honest().collect()),
        ("with-pauses", paused.collect()),
        ("twice", honest().chain(honest()).collect()),
        ("then-changed", honest().chain(changed).collect()),
        ("then-every-kind", honest().chain(kinds).collect()),
        ("invitations", honest().chain(invitations()).collect()),
    ]
}

/// Mallory, whose keys are those of the fuzzer's scene, invites Ada and is answered in every way.
fn invitations() -> Vec<u8> {
    let (root, device) = (
        RootKey::from_entropy(Secret([2; 32])),
        DeviceKey(KeyPair::from_seed(&Secret([102; 32]))),
    );
    let identity = IdentityBundle {
        records: vec![root.certify(device.device(), 1)],
    };
    let mut program = Vec::new();
    for (token, answer) in [(1, 5), (2, 6), (3, 7)] {
        let propose = Frame::Propose {
            token: [token; 16],
            person: root.person(),
            identity: identity.clone(),
            invite: None,
        };
        let shown = ProposalAnswer::Shown {};
        let proposed = Frame::Proposed {
            token: [token; 16],
            answer: shown,
        };
        for frame in [propose.clone(), propose, proposed] {
            program.push(3);
            put_bytes(&mut program, &frame.to_bytes());
        }
        program.push(answer);
    }
    program
}

fn said() -> Samples {
    let target = reference().id();
    let text = || "Grüße 👋".to_owned();
    let bodies = [
        (
            "text",
            Body::Text {
                text: text(),
                reply_to: Some(reference()),
                files: Vec::new(),
            },
        ),
        (
            "files",
            Body::Text {
                text: String::new(),
                reply_to: None,
                files: vec![attachment(None), attachment(Some(picture()))],
            },
        ),
        ("edit", Body::Edit { target, text: text() }),
        ("delete", Body::Delete { target }),
        (
            "react",
            Body::React {
                target,
                emoji: "👍".into(),
                on: true,
            },
        ),
    ];
    let riders = || identity().records.split_off(1);
    bodies
        .into_iter()
        .map(|(name, body)| (name, Said { riders: riders(), body }.to_bytes()))
        .collect()
}

fn attachment(picture: Option<Picture>) -> Attachment {
    Attachment {
        name: "Katze.jpg".into(),
        media_type: "image/jpeg".into(),
        bytes: 3 * GROUP_BYTES + 1,
        content: ContentId([9; 32]),
        key: Secret([8; 32]),
        picture,
    }
}

fn picture() -> Picture {
    Picture {
        width: 4000,
        height: 3000,
        thumbnail: vec![0xff, 0xd8, 0xff],
    }
}

fn file_frames() -> Samples {
    let (entry, content) = (reference().id(), ContentId([9; 32]));
    let ranges = vec![PieceRange { from: 1, to: 3 }, PieceRange { from: 9, to: 9 }];
    let asks = [
        ("ask-held", FileAsk::Held { entry, content }),
        (
            "ask-piece",
            FileAsk::Piece {
                entry,
                content,
                piece: 7,
            },
        ),
    ];
    let told = [
        ("told-held", FileTold::Held { pieces: ranges }),
        ("told-piece", FileTold::Piece {}),
        ("told-refused", FileTold::Refused {}),
        ("told-busy", FileTold::Busy {}),
    ];
    let asks = asks.into_iter().map(|(name, ask)| (name, ask.to_bytes()));
    asks.chain(told.into_iter().map(|(name, told)| (name, told.to_bytes())))
        .collect()
}

fn held(ranges: &[(u32, u32)]) -> IntervalSet {
    let mut set = IntervalSet::default();
    for (from, to) in ranges {
        set.insert(*from, *to);
    }
    set
}

fn vector() -> Vector {
    let logs = [
        (LogKey([1; 32]), held(&[(1, 9)])),
        (LogKey([2; 32]), held(&[(1, 3), (7, 500)])),
    ];
    Vector(logs.map(|(log, held)| (log, Held { held, top: [3; 8] })).into())
}

fn frames() -> Samples {
    let (name, theirs, log) = (room(Side::Mine, 12), room(Side::Yours, 70), LogKey(log_key().public()));
    let ranges = || {
        vec![
            LogRanges {
                log: LogName::New(log),
                seqs: held(&[(1, 4), (6, 6)]),
            },
            LogRanges {
                log: LogName::Known(0),
                seqs: held(&[(300, 70_000)]),
            },
        ]
    };
    let frames = [
        (
            "hello",
            Frame::Hello {
                rooms: vec![
                    RoomHello {
                        tag: [12; 8],
                        digest: [13; 8]
                    };
                    3
                ],
            },
        ),
        ("summary", summary(name)),
        ("no-base", Frame::NoBase { name: theirs }),
        (
            "want",
            Frame::Want {
                name,
                want: 3,
                control_only: true,
                ranges: ranges(),
            },
        ),
        ("want-all", Frame::WantAll { name, want: 0 }),
        (
            "want-page",
            Frame::WantPage {
                name,
                want: 1,
                count: 50,
            },
        ),
        ("entries", entries_frame(name, log)),
        ("taken", Frame::Taken { bytes: 70_000 }),
        ("nothing-left", nothing_left(theirs)),
        ("have", Frame::Have { name, ranges: ranges() }),
        ("in-step", Frame::InStep { name, digest: [13; 8] }),
        (
            "hashes",
            Frame::Hashes {
                name,
                log: LogName::Known(2),
                hashes: vec![(9, [1; 8]), (4, [2; 8])],
            },
        ),
        (
            "need-epochs",
            Frame::NeedEpochs {
                name,
                epochs: vec![EpochId([9; 8])],
            },
        ),
        ("epochs", Frame::Epochs { name, gifts: gifts() }),
        (
            "receipts",
            Frame::Receipts {
                name,
                receipts: vec![receipt(log)],
            },
        ),
        (
            "addresses",
            Frame::Addresses {
                records: vec![address_record()],
            },
        ),
        (
            "seek",
            Frame::Seek {
                token: [1; 8],
                tag: [2; 16],
                newer_ms: 1_790_000_000_000,
                hops: 3,
            },
        ),
        (
            "found",
            Frame::Found {
                token: [1; 8],
                salt: [3; 16],
                sealed: vec![4; 40],
            },
        ),
        ("knock", knock()),
        (
            "welcome",
            Frame::Welcome {
                room: RoomId([7; 32]),
                gifts: gifts(),
            },
        ),
        (
            "refused",
            Frame::Refused {
                invite: [11; 32],
                reason: "used up".into(),
                ask_others: true,
            },
        ),
        (
            "removed",
            Frame::Removed {
                name,
                shown: vec![shown_entry()],
            },
        ),
        ("offer", Frame::Offer { invite: invite() }),
        ("unknown", Frame::Unknown { name: theirs }),
        (
            "forked",
            Frame::Forked {
                name,
                log,
                entries: vec![signed(header(Class::Message, b"said", 1), Some(b"said"))],
            },
        ),
        (
            "admitted",
            Frame::Admitted {
                name,
                shown: vec![shown_entry()],
            },
        ),
    ];
    let frames = frames.into_iter().chain(proposals()).chain(keeper_frames());
    frames
        .into_iter()
        .map(|(name, frame)| (name, frame.to_bytes()))
        .collect()
}

fn proposals() -> Vec<(&'static str, Frame)> {
    let propose = |invite| Frame::Propose {
        token: [15; 16],
        person: person(),
        identity: identity(),
        invite,
    };
    let proposed = |answer| Frame::Proposed {
        token: [15; 16],
        answer,
    };
    let chat = ProposalAnswer::Chat {
        person: person(),
        invite: invite(),
    };
    vec![
        ("propose", propose(Some(invite()))),
        ("propose-chat", propose(None)),
        ("proposed-shown", proposed(ProposalAnswer::Shown {})),
        ("proposed-declined", proposed(ProposalAnswer::Declined {})),
        ("proposed-not-taken", proposed(ProposalAnswer::NotTaken {})),
        ("proposed-accepted", proposed(ProposalAnswer::Accepted {})),
        ("proposed-chat", proposed(chat)),
    ]
}

fn shown_entry() -> ShownEntry {
    ShownEntry {
        log: LogKey(log_key().public()),
        entry: signed(header(Class::Control, b"gone", 1), Some(b"gone")),
        key: Secret([14; 32]),
    }
}

fn room(side: Side, place: u32) -> RoomName {
    RoomName { side, place }
}

fn summary(name: RoomName) -> Frame {
    let changes = vec![
        Change::Grew { index: 0, by: 1 },
        Change::Grew { index: 1, by: 3 },
        Change::Filled { index: 30 },
        Change::Gained {
            index: 31,
            more: held(&[(4, 4)]),
        },
        Change::Replaced {
            index: 99,
            held: held(&[(2, 8)]),
        },
        Change::Added {
            log: LogKey([3; 32]),
            held: held(&[(1, 1), (5, 5)]),
        },
    ];
    Frame::Summary {
        name,
        base: Some([15; 8]),
        changes: Changes(changes),
    }
}

fn entries_frame(name: RoomName, log: LogKey) -> Frame {
    let entry = |text: &[u8]| signed(header(Class::Message, text, 1), Some(text));
    let run = |log, texts: &[&[u8]]| Run {
        log,
        entries: texts.iter().map(|text| entry(text)).collect(),
    };
    let runs = vec![
        run(LogName::New(log), &[b"one", b"two"]),
        run(LogName::Known(8), &[b"three"]),
        run(LogName::Known(1), &[b"four"]),
        run(LogName::Known(30), &[b"five", b"six", b"seven"]),
        run(LogName::Known(4), &[b"eight"]),
    ];
    Frame::Entries {
        name,
        ends: Ends(None),
        runs: Runs(runs),
    }
}

fn nothing_left(name: RoomName) -> Frame {
    let end = AnswerEnd {
        want: 3,
        complete: true,
    };
    Frame::Entries {
        name,
        ends: Ends(Some(end)),
        runs: Runs::default(),
    }
}

fn gifts() -> Vec<EpochGift> {
    let outline = EpochGift::Outline {
        control: Secret([16; 32]),
        sync: Secret([17; 32]),
        content: [18; 32],
    };
    vec![
        EpochGift::Whole {
            secret: Secret([15; 32]),
        },
        outline,
    ]
}

fn receipt(log: LogKey) -> Receipt {
    Receipt {
        log,
        counter: 4,
        delivered: vec![([5; 8], 12)],
        read: vec![([5; 8], 11)],
        signature: [19; 64],
    }
}

fn address_record() -> AddressRecord {
    AddressRecord {
        device: device(),
        made_ms: 1_700_000_000_000,
        addresses: vec![Address("192.0.2.7:4433".parse().expect("an address"))],
        relay: Some(RelayUrl("https://relay.example".into())),
        signature: [20; 64],
    }
}

fn knock() -> Frame {
    Frame::Knock {
        invite: InviteUse::prove(&device_key(), &RoomId([7; 32]), &person()),
        person: person(),
        identity: identity(),
        log: LogCertificate::issue(&device_key(), &log_key()),
    }
}

fn control() -> Samples {
    vec![
        ("create", control_of(vec![create(), invite_opened()])),
        ("first", first()),
        ("admit", control_of(vec![admit()])),
        ("settings", control_of(settings())),
        ("removals", control_of(removals())),
        ("file-limit", control_of(vec![Op::SetFileLimit { bytes: 20_000_000 }])),
        (
            "keepers",
            control_of(vec![Op::SetKeepers {
                keepers: vec![keeper_place()],
            }]),
        ),
    ]
}

fn first() -> Vec<u8> {
    let ops = vec![create(), invite_opened(), admit()];
    Control { heads: vec![], ops }.to_bytes()
}

fn payload() -> ControlPayload {
    let slot = |byte: u8| Slot {
        hint: [byte; 4],
        sealed: [byte; HPKE_SECRET_BYTES],
    };
    ControlPayload {
        commitment: [5; 32],
        slots: vec![slot(1), slot(2)],
        body: vec![9; 17],
    }
}

fn control_of(ops: Vec<Op>) -> Vec<u8> {
    Control {
        heads: vec![reference()],
        ops,
    }
    .to_bytes()
}

fn create() -> Op {
    Op::Create {
        name: "Kitchen".into(),
        kind: RoomKind::Group {},
        history: HistoryPolicy::Days { days: 30 },
        person: person(),
        identity: identity(),
        log: LogCertificate::issue(&device_key(), &log_key()),
        nonce: [10; 16],
    }
}

fn admit() -> Op {
    Op::Admit {
        person: person(),
        identity: identity(),
        log: LogCertificate::issue(&device_key(), &log_key()),
        role: Role::Reader,
        invite: Some(InviteUse::prove(&device_key(), &RoomId([7; 32]), &person())),
    }
}

fn invite_opened() -> Op {
    Op::OpenInvite {
        invite: [11; 32],
        role: Role::Moderator,
        uses: 3,
        expires_ms: 1_800_000_000_000,
        only: Some(device()),
    }
}

fn settings() -> Vec<Op> {
    vec![
        Op::SetRole {
            person: person(),
            role: Role::Admin,
            cutoffs: Vec::new(),
        },
        Op::Rename { name: "Küche".into() },
        Op::SetHistory {
            history: HistoryPolicy::None {},
        },
        Op::CloseInvite { invite: [11; 32] },
        Op::Identity { identity: identity() },
        Op::OpenLog {
            person: person(),
            log: LogCertificate::issue(&device_key(), &log_key()),
        },
        Op::Seal {},
    ]
}

fn removals() -> Vec<Op> {
    let cutoffs = vec![Cutoff {
        log: LogKey(log_key().public()),
        seq: 9,
    }];
    vec![
        Op::Leave {
            cutoffs: cutoffs.clone(),
        },
        Op::Remove {
            person: person(),
            cutoffs,
        },
        Op::Freeze { proof: equivocation() },
    ]
}

fn equivocation() -> Equivocation {
    Equivocation {
        log: LogKey(log_key().public()),
        a: signed(header(Class::Message, b"one", 0), None),
        b: signed(header(Class::Message, b"two", 0), None),
    }
}

fn vault() -> VaultId {
    VaultId([31; 16])
}

fn keeper_place() -> KeeperPlace {
    KeeperPlace {
        device: device(),
        vault: vault(),
        addresses: vec![Address("192.0.2.9:4433".parse().expect("an address"))],
        relay: None,
    }
}

/// A keeper's address, as it is stored and inside its link.
fn keeper_address() -> KeeperAddress {
    KeeperAddress {
        device: device(),
        ticket: [32; 16],
        addresses: vec![Address("192.0.2.9:4433".parse().expect("an address"))],
        relay: None,
    }
}

fn access() -> Access {
    let readers = vec![
        reader_tag(&vault(), &device()),
        reader_tag(&vault(), &DeviceId([34; 32])),
    ];
    let owner = device_key();
    Access::issue(vault(), 1, owner.public(), log_key().public(), readers, &owner)
}

/// A vault is made, given an entry, and asked for it.
fn conversation() -> Vec<u8> {
    let mut script = Vec::new();
    for (_, frame) in keeper_frames() {
        if let Frame::ToKeeper { ask } = frame {
            let bytes = ask.to_bytes();
            offhook_proto::wire::put_bytes(&mut script, &bytes);
        }
    }
    script
}

fn keeper_frames() -> Vec<(&'static str, Frame)> {
    let (vault, log) = (vault(), LogKey(log_key().public()));
    let entry = signed(header(Class::Message, b"kept", 1), Some(b"kept"));
    let runs = || {
        vec![KeptRun {
            log,
            entries: vec![entry.clone()],
        }]
    };
    let ranges = || {
        vec![KeptRanges {
            log,
            seqs: IntervalSet::range(1, 9),
        }]
    };
    let to = |ask: Ask| Frame::ToKeeper { ask };
    let from = |answer: Answer| Frame::Keeper { answer };
    let state = State {
        vault,
        number: 1,
        owner: device_key().public(),
        write: log_key().public(),
        fingerprint: access().fingerprint(),
        held: Some(vec![Holding {
            log,
            held: IntervalSet::range(1, 9),
            bare: IntervalSet::range(4, 4),
        }]),
        digest: [35; 8],
        bytes: 4096,
        bytes_max: 1 << 26,
        days: 30,
    };
    let proof = prove_writer(&log_key(), &[36; 32], &vault, 1);
    vec![
        (
            "keeper-redeem",
            to(Ask::Redeem {
                ticket: [32; 16],
                access: access(),
            }),
        ),
        ("keeper-open", to(Ask::Open { vault, known: [35; 8] })),
        ("keeper-renew", to(Ask::Renew { access: access() })),
        ("keeper-write", to(Ask::Write { vault, proof })),
        ("keeper-put", to(Ask::Put { vault, runs: runs() })),
        (
            "keeper-get",
            to(Ask::Get {
                vault,
                ranges: ranges(),
            }),
        ),
        (
            "keeper-challenge",
            to(Ask::Challenge {
                vault,
                log,
                seq: 1,
                key: [37; 32],
            }),
        ),
        ("keeper-state", from(Answer::State { state })),
        ("keeper-entries", from(Answer::Entries { vault, runs: runs() })),
        ("keeper-done", from(Answer::Done { vault, complete: true })),
        (
            "keeper-durable",
            from(Answer::Durable {
                vault,
                ranges: ranges(),
            }),
        ),
        (
            "keeper-news",
            from(Answer::News {
                vault,
                ranges: ranges(),
            }),
        ),
        (
            "keeper-proof",
            from(Answer::Proof {
                vault,
                log,
                seq: 1,
                hash: Some([38; 32]),
            }),
        ),
        (
            "keeper-refused",
            from(Answer::Refused {
                vault,
                why: Refusal::Full {},
            }),
        ),
    ]
}
