//! Files as a person sends and gets them, with real nodes and the real binary.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod stage;

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use stage::{Machine, PATIENCE};

/// Two people in a room.
fn two_in_a_room(folder: &Path) -> (Machine, Machine) {
    let [mut ada, mut bea] = ["Ada", "Bea"].map(|name| Machine::new(folder, name));
    ada.up();
    bea.up();
    ada.json(&["room", "new", "Kitchen"]);
    invite(&ada, &bea);
    (ada, bea)
}

fn invite(from: &Machine, newcomer: &Machine) {
    let invite = from.json(&["invite", "Kitchen"]);
    let joined = newcomer.json(&["join", invite["invite"].as_str().unwrap()]);
    assert_eq!(joined["joined"], true);
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A picture of 3 x 2 pixels.
const PNG: &[u8] = &[
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52, 0x00, 0x00, 0x00,
    0x03, 0x00, 0x00, 0x00, 0x02, 0x08, 0x02, 0x00, 0x00, 0x00, 0x12, 0x16, 0xf1, 0x4d, 0x00, 0x00, 0x00, 0x0b, 0x49,
    0x44, 0x41, 0x54, 0x78, 0x9c, 0x63, 0x60, 0xc0, 0x04, 0x00, 0x00, 0x14, 0x00, 0x01, 0x7d, 0xfe, 0x1e, 0xee, 0x00,
    0x00, 0x00, 0x00, 0x49, 0x45, 0x4e, 0x44, 0xae, 0x42, 0x60, 0x82,
];

#[test]
fn a_file_is_sent_listed_and_got_also_from_somebody_else() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ada, bea) = two_in_a_room(folder.path());
    let (plan, photo) = (
        folder.path().join("plan of the house.bin"),
        folder.path().join("photo.png"),
    );
    fs::write(&plan, noise(5_000_000)).unwrap();
    fs::write(&photo, PNG).unwrap();
    let sent = ada.json(&[
        "send",
        "Kitchen",
        "the plan",
        "--file",
        path(&plan),
        "--file",
        path(&photo),
    ]);
    let id = sent["id"].as_str().unwrap();

    bea.wait_until("the message is there", |bea| bea.texts("Kitchen") == ["the plan"]);
    let line = bea
        .lines(&["log", "Kitchen"])
        .into_iter()
        .find(|line| line["id"] == id)
        .unwrap();
    let (first, second) = (&line["files"][0], &line["files"][1]);
    assert_eq!(
        (&first["name"], &first["bytes"]),
        (&"plan of the house.bin".into(), &5_000_000.into())
    );
    assert_eq!(
        (&second["type"], &second["width"], &second["height"]),
        (&"image/png".into(), &3.into(), &2.into())
    );
    assert!(second["thumbnail"].as_str().unwrap().len() > 100);
    let shown = bea.run(&["log", "Kitchen"]).stdout;
    assert!(
        shown.contains("the plan [file plan of the house.bin, 5 MB] [file photo.png, "),
        "{shown}"
    );

    // The small one comes by itself, the large one does not.
    bea.wait_until("the photo is there", |bea| {
        bea.json(&["file", "list", id])["files"][1]["state"] == "here"
    });
    assert_eq!(bea.json(&["file", "list", id])["files"][0]["state"], "away");
    let out = folder.path().join("got");
    fs::create_dir(&out).unwrap();
    let several = bea.run(&["file", "get", id, "--out", path(&out)]);
    assert_eq!(several.code, 5);
    assert!(
        several.stderr.contains("say which: plan of the house.bin, photo.png"),
        "{}",
        several.stderr
    );
    let got = bea.json(&["file", "get", id, "plan of the house.bin", "--out", path(&out)]);
    assert_eq!(fs::read(got["path"].as_str().unwrap()).unwrap(), noise(5_000_000));
    let again = bea.run(&["file", "get", id, "plan of the house.bin", "--out", path(&out)]);
    assert!(again.code == 6 && again.stderr.contains("--force"), "{again:?}");

    // Its author is gone; whoever has it gives it to those who come later.
    ada.stop();
    let mut cem = Machine::new(folder.path(), "Cem");
    cem.up();
    invite(&bea, &cem);
    cem.wait_until("the message is there", |cem| cem.texts("Kitchen") == ["the plan"]);
    let elsewhere = folder.path().join("elsewhere");
    cem.json(&["file", "get", id, "plan of the house.bin", "--out", path(&elsewhere)]);
    assert_eq!(fs::read(&elsewhere).unwrap(), noise(5_000_000));
}

#[test]
fn what_cannot_be_sent_or_got_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "Ada");
    ada.up_with(&["--name", "Ada", "--files-send-max", "100 kB"]);
    ada.json(&["room", "new", "Study"]);
    let (large, gone) = (folder.path().join("large"), folder.path().join("gone"));
    fs::write(&large, noise(100_001)).unwrap();
    let refused = |args: &[&str], code: i32, words: &str| {
        let ran = ada.run(args);
        assert_eq!(ran.code, code, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(words), "{args:?}: {}", ran.stderr);
    };
    refused(
        &["send", "Study", "--file", path(&large)],
        7,
        "larger than 100000 bytes",
    );
    refused(&["send", "Study", "--file", path(&gone)], 7, "cannot read");
    refused(
        &["send", "Study", "--file", path(folder.path())],
        7,
        "folders are sent as an archive",
    );
    let fifth: Vec<&str> = ["--file", "/etc/hostname"].repeat(5);
    refused(&[&["send", "Study"], fifth.as_slice()].concat(), 6, "at most 4 files");
    let id = ada.say("Study", "only words");
    refused(&["file", "get", &id], 4, "carries no file");
    refused(&["file", "list", "kjcxdvlubyz2w.6"], 4, "no such entry");
    assert!(
        ada.lines(&["log", "Study"])
            .iter()
            .all(|line| line["kind"] != "message" || line["text"] == "only words")
    );

    // An empty file, sent without a word, and taken back.
    let empty = folder.path().join("empty.txt");
    fs::write(&empty, "").unwrap();
    let sent = ada.json(&["send", "Study", "--file", path(&empty)]);
    let id = sent["id"].as_str().unwrap();
    let got = ada.run(&["file", "get", id, "--out", "-"]);
    assert_eq!((got.code, got.stdout.as_str()), (0, ""));
    ada.json(&["delete", id]);
    let kept = ada.home.join("files");
    ada.wait_until("the file is gone", |_| fs::read_dir(&kept).unwrap().count() == 0);
}

#[test]
fn a_room_says_how_large_its_files_may_be_and_progress_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (ada, bea) = two_in_a_room(folder.path());
    assert_eq!(bea.json(&["room", "limit", "Kitchen"])["file_limit"], 100_000_000);
    let (plan, film) = (folder.path().join("plan.bin"), folder.path().join("film.bin"));
    fs::write(&plan, noise(2_000_000)).unwrap();
    fs::write(&film, noise(3_000_001)).unwrap();

    let refused = bea.run(&["room", "limit", "Kitchen", "1 MB"]);
    assert!(
        refused.code != 0 && refused.stderr.contains("it takes admin"),
        "{refused:?}"
    );
    let film_sent = ada.json(&["send", "Kitchen", "--file", path(&film)]);
    ada.json(&["room", "limit", "Kitchen", "2 MB"]);
    bea.wait_until("the limit is known", |bea| {
        bea.json(&["room", "limit", "Kitchen"])["file_limit"] == 2_000_000
    });
    let refused = bea.run(&["send", "Kitchen", "--file", path(&film)]);
    assert!(
        refused.code == 7 && refused.stderr.contains("takes files of at most 2 MB"),
        "{refused:?}"
    );
    let id = film_sent["id"].as_str().unwrap();
    bea.wait_until("the message is there", |bea| bea.run(&["file", "list", id]).code == 0);
    assert_eq!(bea.json(&["file", "list", id])["files"][0]["state"], "refused");
    let refused = bea.run(&["file", "get", id, "--out", "-"]);
    assert!(refused.stderr.contains("takes files of at most 2 MB"), "{refused:?}");

    // What it takes comes, and whoever follows the events is told how far it is.
    let plan_sent = ada.json(&["send", "Kitchen", "--file", path(&plan)]);
    let id = plan_sent["id"].as_str().unwrap().to_owned();
    bea.wait_until("the message is there", |bea| bea.run(&["file", "list", &id]).code == 0);
    let mut events = UnixStream::connect(bea.home.join("control.sock")).unwrap();
    events.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = "GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n";
    events.write_all(request.as_bytes()).unwrap();
    let mut told = String::new();
    let mut read_until = |words: &str| {
        let mut part = [0; 4096];
        while !told.contains(words) {
            let bytes = events.read(&mut part).unwrap();
            assert!(bytes > 0, "never {words}: {told}");
            told.push_str(&String::from_utf8_lossy(&part[..bytes]));
        }
        told.clone()
    };
    read_until("\r\n\r\n");
    let got = folder.path().join("got");
    bea.json(&["file", "get", &id, "--out", path(&got)]);
    assert_eq!(fs::read(&got).unwrap(), noise(2_000_000));
    let told = read_until("\"state\":\"here\"");
    let events: Vec<serde_json::Value> = told
        .split("event: file\n")
        .skip(1)
        .filter_map(|event| serde_json::from_str(event.strip_prefix("data: ")?.lines().next()?).ok())
        .collect();
    let last = events.last().unwrap_or_else(|| panic!("no file is told of: {told}"));
    assert_eq!(
        (&last["entry"], &last["state"]),
        (&id.as_str().into(), &"here".into()),
        "{told}"
    );
    assert_eq!(last["here"], 2_000_000);
}

#[test]
fn a_backup_brings_files_back_where_it_was_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "Ada");
    ada.up();
    ada.json(&["room", "new", "Study"]);
    let plan = folder.path().join("plan.bin");
    fs::write(&plan, noise(2_000_000)).unwrap();
    let sent = ada.json(&["send", "Study", "--file", path(&plan)]);
    let id = sent["id"].as_str().unwrap();
    let word = folder.path().join("word");
    fs::write(&word, "a long passphrase").unwrap();
    let (lean, full) = (folder.path().join("lean"), folder.path().join("full"));
    ada.json(&["backup", path(&lean), "--passphrase-file", path(&word)]);
    ada.json(&["backup", path(&full), "--with-files", "--passphrase-file", path(&word)]);
    ada.kill();

    let counted = |backup: &Path| {
        let args = ["restore", path(backup), "--verify", "--passphrase-file", path(&word)];
        ada.json(&args)["files"].as_u64().unwrap()
    };
    assert_eq!((counted(&lean), counted(&full)), (0, 1));
    let mut restored = Machine::new(folder.path(), "Restored");
    restored.json(&["restore", path(&full), "--passphrase-file", path(&word)]);
    restored.up();
    let got = folder.path().join("got");
    restored.json(&["file", "get", id, "--out", path(&got)]);
    assert_eq!(fs::read(&got).unwrap(), noise(2_000_000));
}
