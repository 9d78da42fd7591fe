//! One value of every kind, from fixed keys, so that the bytes are the same on every run.

use offhook_proto::crypto::{HPKE_SECRET_BYTES, KeyPair, SealKeyPair, Secret};
use offhook_proto::history::{
    Body, Class, Clock, Entry, EntryId, EntryRef, EpochId, Header, IntervalSet, LogKey, RoomId, Said, entry,
};
use offhook_proto::identity::{DeviceId, DeviceKey, IdentityBundle, PersonId, RootKey};
use offhook_proto::rooms::{
    Address, Control, ControlPayload, Cutoff, Doorway, Equivocation, HistoryPolicy, Invite, InviteUse, LogCertificate,
    Op, RelayUrl, Role, RoomKind, Slot,
};
use offhook_proto::sync::frame::{
    AddressRecord, EpochGift, LogName, LogRanges, Receipt, RoomHello, RoomTag, Run, ShownEntry,
};
use offhook_proto::sync::vector::{Change, Held};
use offhook_proto::sync::{Frame, Vector};
use offhook_proto::wire::Wire as _;

/// Samples of one target by name.
pub(crate) type Samples = Vec<(&'static str, Vec<u8>)>;

/// The samples of every target.
pub(crate) fn all() -> Vec<(&'static str, Samples)> {
    vec![
        ("control", control()),
        ("entry", entries()),
        ("entry_id", entry_ids()),
        ("frame", frames()),
        ("identity", vec![("bundle", identity().to_bytes())]),
        ("invite", invites()),
        ("payload", vec![("two-slots", payload().to_bytes())]),
        ("line", lines()),
        ("said", said()),
        ("vector", vec![("two-logs", vector().to_bytes())]),
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
    vec![("link", invite.to_link().into_bytes()), ("inside", invite.to_bytes())]
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
    ]
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
    let (tag, log) = ([12; 8], LogKey(log_key().public()));
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
                rooms: vec![RoomHello { tag, digest: [13; 8] }; 3],
            },
        ),
        ("summary", summary(tag)),
        ("no-base", Frame::NoBase { tag }),
        (
            "want",
            Frame::Want {
                tag,
                control_only: true,
                ranges: ranges(),
            },
        ),
        ("want-all", Frame::WantAll { tag }),
        ("want-page", Frame::WantPage { tag, count: 50 }),
        ("entries", entries_frame(tag, log)),
        ("done", Frame::Done { tag, complete: true }),
        ("have", Frame::Have { tag, ranges: ranges() }),
        ("in-step", Frame::InStep { tag, digest: [13; 8] }),
        (
            "hashes",
            Frame::Hashes {
                tag,
                log: LogName::Known(2),
                hashes: vec![(9, [1; 8]), (4, [2; 8])],
            },
        ),
        (
            "need-epochs",
            Frame::NeedEpochs {
                tag,
                epochs: vec![EpochId([9; 8])],
            },
        ),
        ("epochs", Frame::Epochs { tag, gifts: gifts() }),
        (
            "receipts",
            Frame::Receipts {
                tag,
                receipts: vec![receipt(log)],
            },
        ),
        (
            "addresses",
            Frame::Addresses {
                records: vec![address_record()],
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
                tag,
                shown: vec![shown_entry()],
            },
        ),
        ("offer", Frame::Offer { invite: invite() }),
        (
            "forked",
            Frame::Forked {
                tag,
                log,
                entries: vec![signed(header(Class::Message, b"said", 1), Some(b"said"))],
            },
        ),
        ("unknown", Frame::Unknown { tag }),
        (
            "admitted",
            Frame::Admitted {
                tag,
                shown: vec![shown_entry()],
            },
        ),
    ];
    frames
        .into_iter()
        .map(|(name, frame)| (name, frame.to_bytes()))
        .collect()
}

fn shown_entry() -> ShownEntry {
    ShownEntry {
        log: LogKey(log_key().public()),
        entry: signed(header(Class::Control, b"gone", 1), Some(b"gone")),
        key: Secret([14; 32]),
    }
}

fn summary(tag: RoomTag) -> Frame {
    Frame::Summary {
        tag,
        base: Some([15; 8]),
        changes: vec![
            Change::Grew { index: 0, by: 3 },
            Change::Replaced {
                index: 1,
                held: held(&[(2, 8)]),
            },
            Change::Added {
                log: LogKey([3; 32]),
                held: held(&[(1, 1), (5, 5)]),
            },
        ],
    }
}

fn entries_frame(tag: RoomTag, log: LogKey) -> Frame {
    let entry = |text: &[u8]| signed(header(Class::Message, text, 1), Some(text));
    Frame::Entries {
        tag,
        runs: vec![
            Run {
                log: LogName::New(log),
                entries: vec![entry(b"one"), entry(b"two")],
            },
            Run {
                log: LogName::Known(0),
                entries: vec![entry(b"three")],
            },
        ],
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
