//! What goes wrong is told in a sentence that says what to do, with a stable exit code, and changes nothing.

mod stage;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use serde_json::Value;
use stage::Machine;

/// Every command that needs a running node.
const NEED_A_NODE: &[&[&str]] = &[
    &["status"],
    &["room", "new", "Kitchen"],
    &["room", "list"],
    &["room", "members", "Kitchen"],
    &["room", "role", "Kitchen", "Bea", "admin"],
    &["room", "remove", "Kitchen", "Bea"],
    &["room", "leave", "Kitchen"],
    &["room", "rename", "Kitchen", "Attic"],
    &["invite", "Kitchen"],
    &["contact", "list"],
    &["contact", "name", "Bea", "B"],
    &["contact", "verify", "Bea"],
    &["contact", "block", "Bea"],
    &["near"],
    &["near", "invite", "Bea"],
    &["near", "hide"],
    &["chat", "Bea"],
    &["send", "Kitchen", "hello"],
    &["edit", "aaaaaaaaaaaaa.1", "hello"],
    &["delete", "aaaaaaaaaaaaa.1"],
    &["react", "aaaaaaaaaaaaa.1", "+"],
    &["reply", "aaaaaaaaaaaaa.1", "hello"],
    &["log", "Kitchen"],
    &["tail"],
    &["where", "aaaaaaaaaaaaa.1"],
    &["search", "hello"],
    &["export", "Kitchen"],
    &["identity", "phrase"],
];

#[test]
fn without_a_node_every_command_says_how_to_start_one() {
    let folder = tempfile::tempdir().unwrap();
    let ada = Machine::new(folder.path(), "ada");
    for args in NEED_A_NODE {
        let ran = ada.run(args);
        assert_eq!(ran.code, 3, "{args:?}: {}", ran.stderr);
        assert!(
            ran.stderr
                .contains("no node is running on this home; start it with `offhook up`"),
            "{args:?}: {}",
            ran.stderr
        );
        assert_eq!(ran.stdout, "");
    }
    assert!(!ada.home.exists(), "asking makes no home");
}

#[test]
fn with_json_a_problem_is_one_document_on_stderr() {
    let folder = tempfile::tempdir().unwrap();
    let ran = Machine::new(folder.path(), "ada").run(&["--json", "status"]);
    let problem: Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(problem["code"], "no-node");
    assert_eq!(stage::names(&problem), ["code", "detail", "status", "title", "type"]);
    assert_eq!(ran.stdout, "");
}

#[test]
fn a_second_node_on_one_home_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    ada.up();
    let second = ada.run(&["up"]);
    assert_eq!(second.code, 9, "{}", second.stderr);
    assert!(
        second.stderr.contains("another node is already running"),
        "{}",
        second.stderr
    );
    assert_eq!(ada.run(&["status"]).code, 0, "the first goes on undisturbed");
}

#[test]
fn sigterm_ends_a_node_even_while_somebody_follows() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    ada.up();
    let follower = ada.another_terminal();
    let follower = std::thread::spawn(move || follower.run(&["tail"]));
    std::thread::sleep(Duration::from_millis(300));
    // It takes less than two seconds; on a busy machine, only that it does not wait for the follower, who stays for ever.
    let took = ada.stop();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let followed = follower.join().unwrap();
    assert_eq!(followed.code, 3, "{}", followed.stderr);
    assert!(!ada.home.join("control.sock").exists());
    assert_eq!(ada.run(&["status"]).code, 3);
}

#[test]
fn a_killed_node_leaves_a_home_that_starts_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    let before = ada.up();
    ada.kill();
    assert_eq!(ada.run(&["status"]).code, 3, "a socket left over is no running node");
    let after = ada.up();
    assert_eq!(before["device"], after["device"]);
}

#[test]
fn a_home_that_cannot_be_used_is_told_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "x").unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    ada.home = file;
    let ran = ada.run(&["up"]);
    assert_eq!(
        (ran.code, ran.stderr.contains("must be a folder")),
        (10, true),
        "{}",
        ran.stderr
    );
    ada.home = folder.path().join("x".repeat(120));
    let ran = ada.run(&["up"]);
    assert_eq!(
        (ran.code, ran.stderr.contains("too long for the control socket")),
        (10, true),
        "{}",
        ran.stderr
    );
    ada.home = "/proc/nowhere".into();
    let ran = ada.run(&["up"]);
    assert_eq!(
        (ran.code, ran.stderr.contains("cannot use")),
        (10, true),
        "{}",
        ran.stderr
    );
}

#[test]
fn a_damaged_store_is_refused_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    ada.up();
    ada.stop();
    for file in fs::read_dir(&ada.home).unwrap() {
        let path = file.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("store.db-") {
            fs::remove_file(path).unwrap();
        }
    }
    fs::write(ada.home.join("store.db"), vec![7; 8192]).unwrap();
    let ran = ada.run(&["up"]);
    assert_eq!(ran.code, 10, "{}", ran.stderr);
    assert_eq!(fs::read(ada.home.join("store.db")).unwrap(), vec![7; 8192]);
}

#[test]
fn invites_that_are_none_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    ada.up();
    for (invite, words) in [
        ("https://example.org", "invites begin with `offhook:`"),
        ("offhook:aaaa", "damaged"),
        ("offhook:", "damaged"),
    ] {
        let ran = ada.run(&["join", invite]);
        assert_eq!(
            (ran.code, ran.stderr.contains(words)),
            (7, true),
            "{invite}: {}",
            ran.stderr
        );
    }
    let other = Machine::new(folder.path(), "other");
    let ran = other.run(&["up", "offhook:aaaa"]);
    assert_eq!(
        (ran.code, other.home.exists()),
        (7, false),
        "refused before a home is made"
    );
}

#[test]
fn unknown_names_and_bad_ids_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    ada.up();
    for (args, words) in [
        (vec!["send", "Attic", "hello"], "there is no room `Attic` here"),
        (vec!["log", "Attic"], "`offhook room list` shows those there are"),
        (vec!["chat", "Zoe"], "there is nobody here by the name or key `Zoe`"),
        (vec!["where", "aaaaaaaaaaaaa.1"], "there is no such entry here"),
        (vec!["edit", "17", "hello"], "is not the id of an entry"),
    ] {
        let ran = ada.run(&args);
        assert_eq!(
            (ran.code, ran.stderr.contains(words)),
            (4, true),
            "{args:?}: {}",
            ran.stderr
        );
    }
}

#[test]
fn texts_that_are_empty_too_long_or_no_text_are_not_sent() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    ada.up();
    for (stdin, words) in [
        (&b"\n"[..], "the text is empty"),
        (&vec![b'a'; 65_537][..], "longer than 65536 bytes"),
        (&b"\xff\xfe"[..], "not text in UTF-8"),
    ] {
        let ran = ada.run_with_stdin(&["send", "Kitchen", "-"], stdin);
        assert_eq!((ran.code, ran.stderr.contains(words)), (7, true), "{}", ran.stderr);
    }
}

#[test]
fn wrong_flags_are_usage_errors() {
    let folder = tempfile::tempdir().unwrap();
    let ada = Machine::new(folder.path(), "ada");
    for args in [
        &["frobnicate"][..],
        &["invite", "Kitchen", "--expires", "soon"],
        &["invite", "Kitchen", "--uses", "0"],
        &["up", "--listen", "here"],
        &["log"],
        &[],
    ] {
        assert_eq!(ada.run(args).code, 2, "{args:?}");
    }
}

#[test]
fn a_backup_that_is_none_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let ada = Machine::new(folder.path(), "ada");
    let file = folder.path().join("backup");
    let word = folder.path().join("word");
    fs::write(&word, "correct horse\n").unwrap();
    let (file_text, word_text) = (file.to_str().unwrap(), word.to_str().unwrap());
    let restore = ["restore", file_text, "--passphrase-file", word_text];
    let ran = ada.run(&restore);
    assert_eq!(
        (ran.code, ran.stderr.contains("cannot read")),
        (7, true),
        "{}",
        ran.stderr
    );
    fs::write(&file, "something else").unwrap();
    let ran = ada.run(&restore);
    assert_eq!(
        (ran.code, ran.stderr.contains("not an Offhook backup")),
        (7, true),
        "{}",
        ran.stderr
    );
    assert_eq!(
        ada.run(&["restore", file_text]).code,
        7,
        "no passphrase and no terminal"
    );
    assert!(!ada.home.exists());
}

#[test]
fn only_the_owner_reaches_the_node() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    ada.up();
    let mode = |name: &str| fs::metadata(ada.home.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(""), mode("control.sock"), mode("identity.key")),
        (0o700, 0o600, 0o600)
    );
}

#[test]
fn output_that_nobody_reads_any_more_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let ada = Machine::new(folder.path(), "ada");
    let script = format!(
        "{} --home {} completions bash | head -n 1 >/dev/null; exit ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_offhook"),
        ada.home.display()
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &script])
        .output()
        .unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

#[test]
fn a_start_is_quick() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    let start = Instant::now();
    ada.up();
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn a_configuration_is_used_and_what_is_wrong_in_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    assert_eq!(ada.run(&["config", "check"]).code, 0, "none is needed");
    fs::create_dir_all(&ada.home).unwrap();
    let file = ada.home.join("config.toml");
    fs::write(&file, "name = \"Ada of the file\"\nhttp = \"off\"\n").unwrap();
    let shown = ada.lines(&["config", "show"]);
    let name = shown.iter().find(|line| line["key"] == "name").unwrap();
    assert_eq!(name["value"], "Ada of the file");
    assert!(name["origin"].as_str().unwrap().starts_with("file "), "{name}");
    let listen = shown.iter().find(|line| line["key"] == "listen").unwrap();
    assert_eq!(
        (&listen["value"], &listen["origin"]),
        (&Value::Null, &Value::from("default"))
    );
    let status = ada.up_with(&["--listen", "127.0.0.1:0"]);
    assert_eq!(
        (&status["name"], &status["http"]),
        (&Value::from("Ada of the file"), &Value::Null)
    );
    ada.stop();
    fs::write(&file, "nmae = \"x\"\n").unwrap();
    for args in [["config", "check"], ["config", "show"]] {
        let ran = ada.run(&args);
        assert_eq!(
            (ran.code, ran.stderr.contains("did you mean `name`?")),
            (7, true),
            "{}",
            ran.stderr
        );
    }
    assert_eq!(ada.run(&["up"]).code, 7, "a wrong file is not passed over");
    let ran = ada.run(&["--config", "/nowhere/at/all.toml", "config", "check"]);
    assert_eq!(
        (ran.code, ran.stderr.contains("cannot read")),
        (7, true),
        "{}",
        ran.stderr
    );
}

#[test]
fn the_dht_needs_hosts_that_may_be_asked_and_the_doctor_tells_how_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    let ran = ada.run(&["up", "--dht", "--no-public-infrastructure"]);
    assert!(
        ran.code != 0 && ran.stderr.contains("name others with --dht-bootstrap"),
        "{}",
        ran.stderr
    );
    ada.up();
    let doctor = ada.run(&["doctor"]);
    assert!(
        doctor.stdout.contains("those who are found neither where they were"),
        "{}",
        doctor.stdout
    );
    ada.stop();
    // Nobody listens there.
    ada.up_with(&["--dht", "--dht-bootstrap", "127.0.0.1:9"]);
    // It waits its turn behind what the node itself asks there.
    let answers = (0..20).map(|_| ada.run(&["doctor"]).stdout);
    let is_told = |text: String| text.contains("nobody in the Mainline DHT answers");
    assert!(answers.into_iter().any(is_told));
}
