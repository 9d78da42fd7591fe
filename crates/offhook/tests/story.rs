//! The story that this program is for, with real nodes: one is away while the others talk, the others leave, and the one who comes back gets
//! everything from whoever still holds it, decrypted, in order, searchable. Then a removal, and a backup that restores.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod stage;

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use serde_json::Value;
use stage::{Machine, names};

const LINE_NAMES: [&str; 9] = ["author", "device", "id", "kind", "room", "seq", "state", "text", "time"];

/// Three people in a room that the first made.
struct Cast {
    ada: Machine,
    bea: Machine,
    cem: Machine,
    room: String,
    _folder: tempfile::TempDir,
}

/// Ada makes a room and invites Bea and Cem.
fn three_in_a_room() -> Cast {
    let folder = tempfile::tempdir().unwrap();
    let [mut ada, mut bea, mut cem] = ["Ada", "Bea", "Cem"].map(|name| Machine::new(folder.path(), name));
    ada.up();
    bea.up();
    cem.up();
    let made = ada.json(&["room", "new", "Kitchen"]);
    assert_eq!(names(&made), ["name", "room"]);
    let room = made["room"].as_str().unwrap().to_owned();
    for friend in [&bea, &cem] {
        let invite = ada.json(&["invite", "Kitchen"]);
        assert_eq!(
            names(&invite),
            ["expires", "invite", "name", "role", "room", "uses", "words"]
        );
        let joined = friend.json(&["join", invite["invite"].as_str().unwrap()]);
        assert_eq!(joined["room"], made["room"]);
        assert_eq!(joined["joined"], true);
        let steps: Vec<&str> = joined["steps"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["step"].as_str().unwrap())
            .collect();
        assert!(
            steps.contains(&"admitted") && steps.last() == Some(&"readable"),
            "{steps:?}"
        );
    }
    for machine in [&ada, &bea, &cem] {
        machine.wait_until("three members", |m| m.lines(&["room", "members", "Kitchen"]).len() == 3);
    }
    Cast {
        ada,
        bea,
        cem,
        room,
        _folder: folder,
    }
}

fn with_text<'a>(lines: &'a [Value], text: &str) -> &'a Value {
    let found = lines.iter().find(|line| line["text"] == text);
    found.unwrap_or_else(|| panic!("no line says {text:?}"))
}

#[test]
fn who_comes_back_gets_everything_from_whoever_still_holds_it() {
    let Cast {
        mut ada,
        mut bea,
        mut cem,
        room,
        _folder,
    } = three_in_a_room();

    ada.say("Kitchen", "who brings bread?");
    cem.wait_until("the first message", |m| m.texts("Kitchen") == ["who brings bread?"]);
    assert!(cem.stop() < Duration::from_secs(2));

    // Ada and Bea talk while Cem is away: messages, an edit, a deletion, a reaction, an answer.
    let mut said = vec!["who brings bread?".to_owned()];
    for turn in 0..5 {
        for speaker in [&ada, &bea] {
            let text = format!("{} says thing {turn}", speaker.name);
            speaker.say("Kitchen", &text);
            let other = if speaker.name == "Ada" { &bea } else { &ada };
            other.wait_until("the next message", |m| m.texts("Kitchen").contains(&text));
            said.push(text);
        }
    }
    let typo = ada.say("Kitchen", "I bring brad");
    let regret = ada.say("Kitchen", "a secret that I regret");
    let again = ada.json(&["send", "Kitchen", "only once", "--client-id", "retry-1"]);
    assert_eq!(
        again,
        ada.json(&["send", "Kitchen", "only once", "--client-id", "retry-1"])
    );
    bea.wait_until("the last message", |m| {
        m.texts("Kitchen").contains(&"only once".to_owned())
    });
    ada.json(&["edit", &typo, "I bring bread"]);
    ada.json(&["delete", &regret]);
    bea.json(&["react", &typo, "👍"]);
    said.extend(["I bring bread", "only once"].map(str::to_owned));
    for machine in [&ada, &bea] {
        machine.wait_until("edit and deletion", |m| m.texts("Kitchen") == said);
    }

    // Ada leaves, and so certainly has not got what Bea says then. Bea leaves as well. Cem comes back and nobody is there; then Bea comes back alone.
    ada.stop();
    bea.json(&["reply", &typo, "wonderful"]);
    said.push("wonderful".to_owned());
    bea.stop();
    cem.up();
    assert_eq!(cem.texts("Kitchen"), ["who brings bread?"]);
    bea.up();
    cem.wait_until("everything that was said", |m| m.texts("Kitchen") == said);
    let lines = cem.lines(&["log", "Kitchen", "--limit", "1000"]);
    for line in &lines {
        let has: BTreeSet<&str> = names(line).into_iter().collect();
        assert!(LINE_NAMES.iter().all(|name| has.contains(name)), "{line}");
    }
    assert!(
        lines
            .iter()
            .all(|line| line["kind"] != "gap" && line["kind"] != "sealed")
    );
    let edited = with_text(&lines, "I bring bread");
    assert!(edited["edited"].is_string(), "{edited}");
    assert_eq!(edited["reactions"][0]["emoji"], "👍");
    assert_eq!(with_text(&lines, "wonderful")["reply_to"], typo.as_str());
    assert!(
        lines
            .iter()
            .any(|line| line["id"] == regret.as_str() && line["kind"] == "deleted")
    );
    let order = |m: &Machine| -> Vec<String> {
        m.lines(&["log", "Kitchen", "--limit", "1000"])
            .iter()
            .map(|line| line["id"].to_string())
            .collect()
    };
    assert_eq!(order(&cem), order(&bea), "the order is the same everywhere");

    // Searchable, exportable, and pages fit together.
    let found = cem.lines(&["search", "bread"]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(cem.lines(&["search", "regret", "--room", "Kitchen"]).is_empty());
    let exported = cem.run(&["export", "Kitchen"]);
    assert_eq!(exported.stdout.lines().count(), lines.len());
    let older = cem.lines(&[
        "log",
        "Kitchen",
        "--limit",
        "3",
        "--before",
        lines[10]["id"].as_str().unwrap(),
    ]);
    let ids = |lines: &[Value]| lines.iter().map(|line| line["id"].to_string()).collect::<Vec<_>>();
    assert_eq!(ids(&older), ids(&lines[7..10]));

    // Where the answer is: with Cem, and not yet with Ada, who is away.
    let answer = with_text(&lines, "wonderful")["id"].as_str().unwrap().to_owned();
    bea.wait_until("Cem has it", |m| m.json(&["where", &answer])["reached"] == 1);
    let at = bea.json(&["where", &answer]);
    assert_eq!((&at["state"], &at["members"]), (&"handed".into(), &2.into()), "{at}");
    let ada_at = at["per_member"]
        .as_array()
        .unwrap()
        .iter()
        .find(|member| member["name"] == "Ada")
        .unwrap();
    assert_eq!(ada_at["state"], "saved");
    assert!(!ada_at["why"].as_str().unwrap().is_empty());
    assert_eq!(lines[0]["room"], room.as_str());
}

#[test]
fn a_removed_member_reads_nothing_that_is_said_afterwards() {
    let Cast {
        ada, bea, cem, _folder, ..
    } = three_in_a_room();
    ada.say("Kitchen", "before");
    for machine in [&bea, &cem] {
        machine.wait_until("what is said before", |m| m.texts("Kitchen") == ["before"]);
    }
    let refused = bea.run(&["room", "remove", "Kitchen", "Cem"]);
    assert_eq!(
        (refused.code, refused.stderr.contains("your role")),
        (6, true),
        "{}",
        refused.stderr
    );
    ada.json(&["room", "remove", "Kitchen", "Cem"]);
    bea.wait_until("two members", |m| m.lines(&["room", "members", "Kitchen"]).len() == 2);
    ada.say("Kitchen", "after by Ada");
    bea.say("Kitchen", "after by Bea");
    for machine in [&ada, &bea] {
        machine.wait_until("what is said after", |m| m.texts("Kitchen").len() == 3);
    }
    // Cem keeps what Cem had, gets nothing more, and cannot speak.
    cem.wait_until("the removal", |m| {
        m.json(&["status"])["rooms"][0]["standing"] == "removed"
    });
    let sent = cem.run(&["send", "Kitchen", "still here"]);
    assert_eq!(
        (sent.code, sent.stderr.contains("no longer a member")),
        (6, true),
        "{}",
        sent.stderr
    );
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(cem.texts("Kitchen"), ["before"]);
    let store = fs::read(cem.home.join("store.db")).unwrap();
    assert!(!store.windows(8).any(|bytes| bytes == b"after by"));
    assert_eq!(ada.texts("Kitchen").len(), 3, "nothing of Cem's came after the removal");
}

#[test]
fn a_backup_opens_counts_and_becomes_a_home_that_speaks() {
    let Cast {
        ada,
        bea,
        mut cem,
        _folder: folder,
        ..
    } = three_in_a_room();
    ada.say("Kitchen", "one");
    cem.wait_until("one", |m| m.texts("Kitchen") == ["one"]);
    let file = folder.path().join("cem.backup");
    let word = folder.path().join("word");
    fs::write(&word, "correct horse battery staple\n").unwrap();
    let (file, word) = (file.to_str().unwrap(), word.to_str().unwrap());
    cem.json(&["backup", file, "--passphrase-file", word]);
    let again = cem.run(&["backup", file, "--passphrase-file", word]);
    assert_eq!(
        (again.code, again.stderr.contains("exists already")),
        (7, true),
        "{}",
        again.stderr
    );

    let verified = cem.json(&["restore", file, "--verify", "--passphrase-file", word]);
    assert_eq!(
        (&verified["rooms"], &verified["entries"]),
        (&1.into(), &1.into()),
        "{verified}"
    );
    assert_eq!(verified["verified_only"], true);
    let over = cem.run(&["restore", file, "--passphrase-file", word]);
    assert_eq!(
        (over.code, over.stderr.contains("is not empty")),
        (10, true),
        "{}",
        over.stderr
    );
    let other_word = folder.path().join("other");
    fs::write(&other_word, "wrong").unwrap();
    let wrong = cem.run(&[
        "restore",
        file,
        "--verify",
        "--passphrase-file",
        other_word.to_str().unwrap(),
    ]);
    assert_eq!(
        (wrong.code, wrong.stderr.contains("the passphrase is wrong")),
        (7, true),
        "{}",
        wrong.stderr
    );

    // What Cem says after the backup is lost with the machine, but not with the others.
    cem.say("Kitchen", "two, after the backup");
    bea.wait_until("two", |m| m.texts("Kitchen").len() == 2);
    cem.stop();
    let mut restored = Machine::new(folder.path(), "Cem2");
    restored.json(&["restore", file, "--passphrase-file", word]);
    let status = restored.up_with(&[]);
    assert_eq!(status["person"], verified["person"]);
    restored.wait_until("what came after the backup", |m| m.texts("Kitchen").len() == 2);
    restored.say("Kitchen", "three, from the restored home");
    for machine in [&ada, &bea] {
        machine.wait_until("three", |m| m.texts("Kitchen").len() == 3);
        let lines = machine.lines(&["log", "Kitchen"]);
        assert!(lines.iter().all(|line| line["equivocation"] != true), "{lines:?}");
    }
}

#[test]
fn names_roles_contacts_and_rooms_of_two() {
    let Cast {
        ada, bea, cem, _folder, ..
    } = three_in_a_room();
    let members = ada.lines(&["room", "members", "Kitchen"]);
    assert_eq!(
        names(&members[0]),
        ["devices", "me", "name", "online", "person", "role", "seen", "verified"]
    );
    assert_eq!(
        (&members[0]["name"], &members[0]["role"]),
        (&"Ada".into(), &"owner".into())
    );
    ada.json(&["room", "role", "Kitchen", "Bea", "moderator"]);
    bea.wait_until("the role", |m| m.json(&["status"])["rooms"][0]["role"] == "moderator");
    ada.json(&["room", "rename", "Kitchen", "Attic"]);
    cem.wait_until("the new name", |m| m.run(&["log", "Attic"]).code == 0);

    // Two contacts by one petname: ambiguity lists the candidates.
    ada.json(&["contact", "name", "Bea", "Friend"]);
    ada.json(&["contact", "name", "Cem", "Friend"]);
    let ambiguous = ada.run(&["--json", "chat", "Friend"]);
    assert_eq!(ambiguous.code, 5);
    let problem: Value = serde_json::from_str(&ambiguous.stderr).unwrap();
    assert_eq!(problem["candidates"].as_array().unwrap().len(), 2, "{problem}");
    let contacts = ada.lines(&["contact", "list"]);
    assert_eq!(
        names(&contacts[0]),
        [
            "blocked",
            "name",
            "own_name",
            "person",
            "petname",
            "rooms",
            "safety_number",
            "verified"
        ]
    );

    // The safety number is the same on both sides, and only the right one verifies.
    let number = |m: &Machine, person: &str| m.json(&["contact", "verify", person])["safety_number"].clone();
    let digits = number(&ada, "Bea");
    assert_eq!(digits, number(&bea, "Ada"));
    assert_eq!(digits.as_str().unwrap().bytes().filter(u8::is_ascii_digit).count(), 60);
    let wrong = ada.run(&["contact", "verify", "Bea", "--number", "12345"]);
    assert_eq!(
        (wrong.code, wrong.stderr.contains("the numbers differ")),
        (7, true),
        "{}",
        wrong.stderr
    );
    let verified = ada.json(&["contact", "verify", "Bea", "--number", digits.as_str().unwrap()]);
    assert_eq!(verified["verified"], true);

    // A room of two.
    let pair = ada.json(&["chat", "Bea"]);
    let room = pair["room"].as_str().unwrap();
    ada.say(room, "just us");
    bea.wait_until("the room of two", |m| m.run(&["log", "Ada"]).stdout.contains("just us"));
    assert!(!cem.run(&["search", "just"]).stdout.contains("just us"));
}

#[test]
fn tail_shows_what_comes_as_it_comes() {
    let Cast { ada, bea, _folder, .. } = three_in_a_room();
    ada.say("Kitchen", "already here");
    let mut tail = std::process::Command::new(env!("CARGO_BIN_EXE_offhook"))
        .args(["--json", "--home", ada.home.to_str().unwrap(), "tail", "Kitchen"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let printed = tail.stdout.take().unwrap();
    let (sender, lines) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::BufRead::lines(std::io::BufReader::new(printed)) {
            let _ = sender.send(line.unwrap());
        }
    });
    let next_message = || loop {
        let line = lines
            .recv_timeout(Duration::from_secs(60))
            .expect("a line within a minute");
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["kind"] == "message" {
            return line;
        }
    };
    assert_eq!(next_message()["text"], "already here");
    bea.say("Kitchen", "new");
    let line = next_message();
    assert_eq!(line["text"], "new");
    let has: BTreeSet<&str> = names(&line).into_iter().collect();
    assert!(LINE_NAMES.iter().all(|name| has.contains(name)), "{line}");
    stage::signal(tail.id(), "INT");
    assert!(tail.wait().unwrap().success());
}
