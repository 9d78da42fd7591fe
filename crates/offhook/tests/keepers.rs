//! The story of keepers, with real nodes: Ada speaks and leaves, Bea was away all the time, comes back when nobody but a keeper is there, and reads
//! everything. Without a keeper she reads nothing.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod stage;

use std::fs;
use std::path::Path;
use std::time::Duration;

use stage::{Machine, names};

const SAID: [&str; 4] = [
    "Bea is away",
    "I shall be, too",
    "the key is under the mat",
    "good night",
];

/// Ada makes a room, and Bea is in it.
fn two_in_a_room(folder: &Path) -> (Machine, Machine) {
    let [mut ada, mut bea] = ["Ada", "Bea"].map(|name| Machine::new(folder, name));
    ada.up();
    bea.up();
    ada.json(&["room", "new", "Kitchen"]);
    let invite = ada.json(&["invite", "Kitchen"]);
    bea.json(&["join", invite["invite"].as_str().unwrap()]);
    ada.wait_until("two members", |m| m.lines(&["room", "members", "Kitchen"]).len() == 2);
    (ada, bea)
}

#[test]
fn who_comes_back_reads_everything_from_a_keeper_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ada, mut bea) = two_in_a_room(folder.path());
    let mut keepers = ["Keeper1", "Keeper2"].map(|name| Machine::new(folder.path(), name));
    for keeper in &mut keepers {
        let status = keeper.keep();
        let address = status["keeper"]["address"].as_str().unwrap().to_owned();
        let added = ada.run(&["room", "keepers", "Kitchen", "add", &address]);
        assert_eq!(added.code, 0, "{}", added.stderr);
        assert!(added.stderr.contains("3 are advised"), "{}", added.stderr);
    }
    bea.wait_until("the keepers", |m| m.lines(&["room", "keepers", "Kitchen"]).len() == 2);
    bea.stop();

    for text in &SAID[..3] {
        ada.say("Kitchen", text);
    }
    let sent = ada.run(&["send", "Kitchen", SAID[3], "--wait", "30"]);
    assert!(
        sent.stderr.contains("safe to go offline: 2 others hold it"),
        "{} {}",
        sent.stderr,
        ada.log()
    );
    let at = ada.json(&["where", sent.stdout.trim()]);
    assert_eq!(
        (at["safe"].as_bool(), at["kept"].as_array().unwrap().len()),
        (Some(true), 2)
    );
    ada.wait_until("all is held", |m| m.json(&["status"])["rooms"][0]["exposed"] == 0);
    assert!(ada.run(&["status"]).stdout.contains("safe to go offline"));
    let kept = ada.lines(&["room", "keepers", "Kitchen"]);
    assert_eq!(
        names(&kept[0]),
        [
            "addresses",
            "bytes",
            "bytes_max",
            "days",
            "device",
            "fault",
            "holds",
            "lacks",
            "pending",
            "proofs",
            "seen",
            "up",
            "uptime_permille"
        ]
    );
    ada.stop();
    // One keeper is lost for good, the other's machine loses its power and comes back.
    keepers[0].stop();
    keepers[1].kill();
    keepers[1].keep();

    bea.up();
    bea.wait_until("all that was said", |m| m.texts("Kitchen") == SAID);
    let lines = bea.lines(&["log", "Kitchen", "--limit", "1000"]);
    assert!(
        lines
            .iter()
            .all(|line| line["kind"] != "gap" && line["kind"] != "sealed"),
        "{lines:?}"
    );

    // What the keeper has on its disk is no text, no name.
    let status = keepers[1].json(&["status"]);
    assert_eq!(status["keeper"]["rooms"], 1);
    assert!(status["keeper"]["entries"].as_u64().unwrap() > 4);
    assert_eq!(status["rooms"].as_array().unwrap().len(), 0);
    keepers[1].stop();
    for file in ["store.db", "store.db-wal"] {
        let bytes = fs::read(keepers[1].home.join(file)).unwrap_or_default();
        for word in [SAID[0], SAID[2], "Kitchen", "Ada"] {
            assert!(
                !bytes.windows(word.len()).any(|window| window == word.as_bytes()),
                "{word} in {file}"
            );
        }
    }
    let refused = bea.run(&["room", "keepers", "Kitchen", "add", "offhook-keeper:nonsense"]);
    assert_eq!(
        (refused.code, refused.stderr.contains("damaged")),
        (7, true),
        "{}",
        refused.stderr
    );
    assert_eq!(bea.run(&["room", "keepers", "Kitchen", "remove", "00000000"]).code, 4);
}

#[test]
fn without_a_keeper_nothing_comes_while_the_others_are_away() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ada, mut bea) = two_in_a_room(folder.path());
    bea.stop();
    let sent = ada.run(&["send", "Kitchen", SAID[0]]);
    assert!(sent.stderr.contains("not yet safe to go offline"), "{}", sent.stderr);
    ada.stop();
    bea.up();
    std::thread::sleep(Duration::from_secs(3));
    assert!(bea.texts("Kitchen").is_empty());
}
