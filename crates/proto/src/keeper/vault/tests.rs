use super::*;
use crate::crypto::{KeyPair, Secret};
use crate::history::Clock;
use crate::history::entry::EpochId;
use crate::keeper::access::{prove_writer, reader_tag};
use crate::store::MemoryStore;

const VAULT: VaultId = VaultId([1; 16]);
const TICKET_BYTES: [u8; 16] = [7; 16];
const EXPORTER: [u8; 32] = [8; 32];
const START_MS: u64 = 1_700_000_000_000;

fn key(seed: u8) -> KeyPair {
    KeyPair::from_seed(&Secret([seed; 32]))
}

fn device(seed: u8) -> DeviceId {
    DeviceId([seed; 32])
}

/// A log of `count` entries from number 1, every fifth a control entry.
fn log_of(author: &KeyPair, count: u32, text: &[u8]) -> Vec<Entry> {
    let log = LogKey(author.public());
    let mut prev = [0; 32];
    let mut entries = Vec::new();
    for seq in 1..=count {
        let header = Header {
            class: if seq % 5 == 1 { Class::Control } else { Class::Message },
            seq,
            prev,
            clock: Clock::at_ms(START_MS + u64::from(seq)),
            epoch: EpochId([2; 8]),
            parents: Vec::new(),
            payload_hash: entry::payload_hash(text),
            payload_len: u32::try_from(text.len()).unwrap(),
        };
        prev = header.hash(&log);
        let signature = entry::sign(author, &prev);
        entries.push(Entry {
            header,
            signature,
            payload: Some(text.to_vec()),
        });
    }
    entries
}

struct Keeper {
    vaults: Vaults,
    store: MemoryStore,
    next_log: u32,
    now_ms: u64,
}

impl Keeper {
    fn new(limits: Limits) -> Self {
        let mut store = MemoryStore::default();
        let mut vaults = Vaults::load(&store).unwrap();
        vaults.keep(&mut store, limits, TICKET_BYTES).unwrap();
        Self {
            vaults,
            store,
            next_log: 1,
            now_ms: START_MS,
        }
    }

    /// With a vault that devices 1 and 2 may read, written with key 20, owned by key 9.
    fn with_vault(limits: Limits) -> Self {
        let mut keeper = Self::new(limits);
        let answers = keeper.ask(1, redeem(TICKET_BYTES));
        assert!(matches!(answers[..], [(_, Answer::State { .. })]), "{answers:?}");
        keeper
    }

    fn ask(&mut self, from: u8, ask: Ask) -> Answers {
        let caller = Caller {
            device: device(from),
            exporter: &EXPORTER,
            now_ms: self.now_ms,
        };
        self.vaults
            .answer(&mut self.store, &mut self.next_log, caller, ask)
            .unwrap()
    }

    fn put(&mut self, from: u8, entries: Vec<Entry>, author: &KeyPair) -> Answers {
        let log = LogKey(author.public());
        let runs = vec![KeptRun { log, entries }];
        self.ask(from, Ask::Put { vault: VAULT, runs })
    }

    fn held(&mut self, from: u8) -> Vec<Holding> {
        match self
            .ask(
                from,
                Ask::Open {
                    vault: VAULT,
                    known: [0; 8],
                },
            )
            .remove(0)
            .1
        {
            Answer::State { state } => state.held.unwrap(),
            other => panic!("{other:?}"),
        }
    }

    fn get(&mut self, from: u8, author: &KeyPair) -> Vec<Entry> {
        let ranges = vec![KeptRanges {
            log: LogKey(author.public()),
            seqs: IntervalSet::range(1, 1000),
        }];
        let answers = self.ask(from, Ask::Get { vault: VAULT, ranges });
        let runs = answers.into_iter().flat_map(|(_, answer)| match answer {
            Answer::Entries { runs, .. } => runs,
            _ => Vec::new(),
        });
        runs.flat_map(|run| run.entries).collect()
    }
}

fn readers(devices: &[u8]) -> Vec<[u8; 16]> {
    devices.iter().map(|seed| reader_tag(&VAULT, &device(*seed))).collect()
}

fn redeem(ticket: [u8; 16]) -> Ask {
    let access = Access::issue(VAULT, 1, key(9).public(), key(20).public(), readers(&[1, 2]), &key(9));
    Ask::Redeem { ticket, access }
}

fn write(seed: u8, number: u64) -> Ask {
    let proof = prove_writer(&key(seed), &EXPORTER, &VAULT, number);
    Ask::Write { vault: VAULT, proof }
}

fn refusal(answers: &Answers) -> Option<Refusal> {
    answers.iter().find_map(|(_, answer)| match answer {
        Answer::Refused { why, .. } => Some(*why),
        _ => None,
    })
}

#[test]
fn a_vault_takes_a_ticket() {
    let mut keeper = Keeper::new(Limits::default());
    assert_eq!(refusal(&keeper.ask(1, redeem([0; 16]))), Some(Refusal::Ticket {}));
    assert_eq!(refusal(&keeper.ask(3, redeem(TICKET_BYTES))), Some(Refusal::Access {}));
    assert_eq!(refusal(&keeper.ask(1, redeem(TICKET_BYTES))), None);
    assert_eq!(
        refusal(&keeper.ask(1, redeem(TICKET_BYTES))),
        None,
        "its answer may have been lost"
    );
}

#[test]
fn what_was_put_comes_back_also_after_a_restart() {
    let mut keeper = Keeper::with_vault(Limits::default());
    let author = key(30);
    let entries = log_of(&author, 12, b"sealed");
    assert_eq!(
        refusal(&keeper.put(1, entries.clone(), &author)),
        Some(Refusal::Writer {})
    );
    keeper.ask(1, write(20, 1));
    let answers = keeper.put(1, entries.clone(), &author);
    assert!(matches!(&answers[..], [(_, Answer::Durable { ranges, .. })] if ranges[0].seqs.len() == 12));
    keeper.vaults = Vaults::load(&keeper.store).unwrap();
    keeper
        .vaults
        .keep(&mut keeper.store, Limits::default(), [0; 16])
        .unwrap();
    let mut got = keeper.get(2, &author);
    assert_eq!(got[0].header.class, Class::Control, "control entries come first");
    assert!(got[1].header.class == Class::Control);
    got.sort_by_key(|entry| entry.header.seq);
    assert_eq!(got, entries);
    assert_eq!(keeper.vaults.ticket(), Some(TICKET_BYTES), "the ticket stays");
}

#[test]
fn who_is_not_listed_learns_not_even_that_there_is_a_vault() {
    let mut keeper = Keeper::with_vault(Limits::default());
    let open = |vault| Ask::Open { vault, known: [0; 8] };
    let unlisted = refusal(&keeper.ask(3, open(VAULT)));
    let unknown = refusal(&keeper.ask(3, open(VaultId([9; 16]))));
    assert_eq!(
        (unlisted, unknown),
        (Some(Refusal::Closed {}), Some(Refusal::Closed {}))
    );
}

#[test]
fn a_renewal_shuts_out_the_removed_on_the_line_they_have() {
    let mut keeper = Keeper::with_vault(Limits::default());
    let author = key(30);
    let entries = log_of(&author, 6, b"sealed");
    for member in [1, 2] {
        keeper.held(member);
        keeper.ask(member, write(20, 1));
    }
    keeper.put(2, entries[..3].to_vec(), &author);
    let access = Access::issue(VAULT, 2, key(9).public(), key(21).public(), readers(&[1]), &key(20));
    let answers = keeper.ask(1, Ask::Renew { access });
    let told = answers
        .iter()
        .any(|(to, answer)| *to == device(2) && matches!(answer, Answer::Refused { .. }));
    assert!(told, "{answers:?}");
    assert_eq!(
        refusal(&keeper.put(2, entries[3..].to_vec(), &author)),
        Some(Refusal::Closed {})
    );
    assert!(keeper.get(2, &author).is_empty());
    assert_eq!(
        refusal(&keeper.put(1, entries[3..].to_vec(), &author)),
        Some(Refusal::Writer {})
    );
    // The one who was removed does not know the key that renews it.
    let back = Access::issue(VAULT, 3, key(9).public(), key(20).public(), readers(&[1, 2]), &key(20));
    assert!(refusal(&keeper.ask(2, Ask::Renew { access: back })).is_some());
    keeper.ask(1, write(21, 2));
    assert_eq!(refusal(&keeper.put(1, entries[3..].to_vec(), &author)), None);
    assert_eq!(keeper.get(1, &author).len(), 6);
}

#[test]
fn what_no_log_key_signed_is_not_kept() {
    let mut keeper = Keeper::with_vault(Limits::default());
    keeper.ask(1, write(20, 1));
    let author = key(30);
    let mut forged = log_of(&author, 3, b"sealed");
    forged[2].signature = [0; 64];
    assert_eq!(refusal(&keeper.put(1, forged, &author)), Some(Refusal::Entries {}));
    assert!(keeper.held(1).is_empty());
    keeper.put(1, log_of(&author, 3, b"sealed"), &author);
    let fork = log_of(&author, 4, b"something else");
    assert_eq!(refusal(&keeper.put(1, fork, &author)), Some(Refusal::Entries {}));
    assert_eq!(keeper.held(1)[0].held.len(), 3, "the branch that came first stays");
}

#[test]
fn a_payload_that_was_lacking_is_filled_in() {
    let mut keeper = Keeper::with_vault(Limits::default());
    keeper.ask(1, write(20, 1));
    let author = key(30);
    let entries = log_of(&author, 3, b"sealed");
    let mut bare = entries.clone();
    bare[1].payload = None;
    keeper.put(1, bare, &author);
    assert_eq!(keeper.held(1)[0].bare.ranges(), [(2, 2)]);
    keeper.put(1, entries.clone(), &author);
    assert!(keeper.held(1)[0].bare.is_empty());
    assert!(keeper.get(1, &author).iter().all(|entry| entry.payload.is_some()));
}

#[test]
fn quotas_hold_for_a_log_and_for_a_vault() {
    let limits = Limits {
        vault_bytes_max: 9_000,
        log_bytes_max: 4_000,
        ..Limits::default()
    };
    let mut keeper = Keeper::with_vault(limits);
    keeper.ask(1, write(20, 1));
    for seed in 30..35 {
        let author = key(seed);
        let answers = keeper.put(1, log_of(&author, 40, &[5; 400]), &author);
        assert_eq!(refusal(&answers), Some(Refusal::Full {}));
    }
    let usage = keeper.vaults.usage();
    assert!(usage.bytes <= 9_000 && usage.bytes > 6_000, "{usage:?}");
    assert!(keeper.held(1).iter().all(|holding| holding.held.len() < 10));
}

#[test]
fn messages_expire_control_entries_stay_and_an_abandoned_vault_goes() {
    let mut keeper = Keeper::with_vault(Limits::default());
    keeper.ask(1, write(20, 1));
    let author = key(30);
    keeper.put(1, log_of(&author, 11, b"sealed"), &author);
    keeper.now_ms += 31 * DAY_MS;
    let more = log_of(&author, 13, b"sealed")[11..].to_vec();
    keeper.put(1, more, &author);
    let now_ms = keeper.now_ms;
    assert!(!keeper.vaults.sweep(&mut keeper.store, now_ms).unwrap());
    let held = keeper.held(1);
    assert_eq!(held[0].held.ranges(), [(1, 1), (6, 6), (11, 13)]);
    assert_eq!(keeper.get(1, &author).len(), 5);
    keeper.now_ms += 91 * DAY_MS;
    let now_ms = keeper.now_ms;
    keeper.vaults.sweep(&mut keeper.store, now_ms).unwrap();
    assert_eq!(
        keeper.vaults.usage(),
        Usage {
            vaults: 0,
            entries: 0,
            bytes: 0
        }
    );
    let left = keeper.store.entries(LogNo(1), 1, 100, 100).unwrap();
    assert!(left.is_empty());
}

#[test]
fn a_challenge_is_met_by_who_has_the_entry() {
    let mut keeper = Keeper::with_vault(Limits::default());
    keeper.ask(1, write(20, 1));
    let author = key(30);
    let log = LogKey(author.public());
    let entries = log_of(&author, 3, b"sealed");
    keeper.put(1, entries.clone(), &author);
    let challenge = |seq| Ask::Challenge {
        vault: VAULT,
        log,
        seq,
        key: [6; 32],
    };
    let expected = audit::proof(&[6; 32], &log, &entries[1].header, Some(b"sealed"));
    let of = |answers: Answers| match answers[0].1 {
        Answer::Proof { hash, .. } => hash,
        ref other => panic!("{other:?}"),
    };
    assert_eq!(of(keeper.ask(2, challenge(2))), Some(expected));
    assert_ne!(of(keeper.ask(2, challenge(3))), Some(expected));
    assert_eq!(of(keeper.ask(2, challenge(4))), None);
}

#[test]
fn others_who_listen_hear_what_comes_new() {
    let mut keeper = Keeper::with_vault(Limits::default());
    keeper.held(2);
    keeper.ask(1, write(20, 1));
    let author = key(30);
    let answers = keeper.put(1, log_of(&author, 2, b"sealed"), &author);
    assert!(
        answers
            .iter()
            .any(|(to, answer)| *to == device(2) && matches!(answer, Answer::News { .. }))
    );
    keeper.vaults.line_down(&device(2));
    let answers = keeper.put(1, log_of(&author, 3, b"sealed"), &author);
    assert!(answers.iter().all(|(to, _)| *to == device(1)));
}
