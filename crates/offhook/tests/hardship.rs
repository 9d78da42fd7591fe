//! Real nodes on machines that are out of order: a disk that fails or takes no writes, a clock in 1970; and invites that are used up or expired.
//!
//! The disk and the clock are bent by a small library that is loaded in front of the C library (`stage/interpose.c`), for the node alone.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod stage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use stage::Machine;

/// Builds the library.
fn interpose(folder: &Path) -> PathBuf {
    let library = folder.join("interpose.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stage/interpose.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library
}

/// A node whose disk fails in some way for a while.
fn a_disk_fails(fault: &str) {
    let folder = tempfile::tempdir().unwrap();
    let switch = folder.path().join("fault");
    let mut ada = Machine::new(folder.path(), "ada");
    ada.environment = vec![
        ("LD_PRELOAD", interpose(folder.path())),
        ("INTERPOSE_FAULT", switch.clone()),
    ];
    ada.up();
    ada.json(&["room", "new", "Kitchen"]);
    ada.say("Kitchen", "before");

    fs::write(&switch, fault).unwrap();
    for _ in 0..2 {
        let ran = ada.run(&["send", "Kitchen", "refused"]);
        assert_eq!(ran.code, 1, "{} {}", ran.stdout, ran.stderr);
        let told = ["the disk reports an error", "Nothing that was confirmed is lost"];
        assert!(told.iter().all(|words| ran.stderr.contains(words)), "{}", ran.stderr);
        assert_eq!(ran.stdout, "", "no id is given for what is not kept");
    }
    let confirmed = |ada: &Machine| -> Vec<String> {
        let mut texts = ada.texts("Kitchen");
        // What was refused may have reached the disk all the same; it was not promised.
        texts.retain(|text| text != "refused");
        texts
    };
    assert_eq!(confirmed(&ada), ["before"], "what is there can be read");
    let shown = ada.run(&["log", "Kitchen"]);
    assert!(!shown.stdout.contains("clock ahead"), "{}", shown.stdout);

    fs::remove_file(&switch).unwrap();
    ada.wait_until("the disk takes writes again", |ada| {
        ada.run(&["send", "Kitchen", "after"]).code == 0
    });
    assert_eq!(confirmed(&ada), ["before", "after"]);
    ada.kill();
    ada.environment.clear();
    ada.up();
    assert_eq!(confirmed(&ada), ["before", "after"]);
}

#[test]
fn a_disk_that_fails_to_sync_is_told_and_nothing_confirmed_is_lost() {
    a_disk_fails("sync");
}

#[test]
fn a_disk_that_turned_read_only_is_told_and_nothing_confirmed_is_lost() {
    a_disk_fails("write");
}

#[test]
fn a_clock_in_1970_is_told_and_keeps_nobody_from_talking() {
    let folder = tempfile::tempdir().unwrap();
    let (mut ada, mut bea) = (Machine::new(folder.path(), "ada"), Machine::new(folder.path(), "bea"));
    bea.environment = vec![
        ("LD_PRELOAD", interpose(folder.path())),
        ("INTERPOSE_CLOCK", "1970".into()),
    ];
    ada.up();
    bea.up();
    ada.json(&["room", "new", "Kitchen"]);
    let invite = ada.json(&["invite", "Kitchen"])["invite"].as_str().unwrap().to_owned();
    bea.json(&["join", &invite, "--wait", "120"]);
    ada.say("Kitchen", "hello Bea");
    bea.wait_until("Bea reads it", |bea| bea.texts("Kitchen") == ["hello Bea"]);
    bea.say("Kitchen", "hello Ada");
    ada.wait_until("Ada reads it", |ada| ada.texts("Kitchen").len() == 2);
    assert_eq!(ada.texts("Kitchen"), ["hello Bea", "hello Ada"]);
    assert_eq!(bea.texts("Kitchen"), ["hello Bea", "hello Ada"]);
    let doctor = bea.run(&["doctor"]);
    let told = [
        "the clock of this machine is years slow",
        "let the system set its clock",
    ];
    assert!(
        told.iter().all(|words| doctor.stdout.contains(words)),
        "{} {}",
        doctor.stdout,
        doctor.stderr
    );
}

#[test]
fn used_and_expired_invites_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let [mut ada, mut bea, mut cid] = ["ada", "bea", "cid"].map(|name| Machine::new(folder.path(), name));
    for machine in [&mut ada, &mut bea, &mut cid] {
        machine.up();
    }
    ada.json(&["room", "new", "Kitchen"]);
    let invite = |flags: &[&str]| {
        let args = [&["invite", "Kitchen"], flags].concat();
        ada.json(&args)["invite"].as_str().unwrap().to_owned()
    };
    let once = invite(&["--uses", "1"]);
    bea.json(&["join", &once, "--wait", "120"]);
    let ran = cid.run(&["join", &once, "--wait", "120"]);
    assert_ne!(ran.code, 0);
    assert!(
        ran.stderr.contains("used up; ask for a new one"),
        "{} {}",
        ran.stdout,
        ran.stderr
    );

    let short = invite(&["--expires", "1s"]);
    std::thread::sleep(std::time::Duration::from_millis(2_500));
    let ran = cid.run(&["join", &short, "--wait", "120"]);
    assert_ne!(ran.code, 0);
    assert!(
        ran.stderr.contains("expired; ask for a new one"),
        "{} {}",
        ran.stdout,
        ran.stderr
    );

    let good = invite(&[]);
    cid.json(&["join", &good, "--wait", "120"]);
}
