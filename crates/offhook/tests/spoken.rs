//! An invite that is read aloud, as its reader and its listener have it.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod stage;

use stage::Machine;

#[test]
fn words_that_were_read_aloud_let_in_and_what_was_misheard_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let [mut ada, mut bea] = ["Ada", "Bea"].map(|name| Machine::new(folder.path(), name));
    ada.up();
    bea.up();
    ada.json(&["room", "new", "Kitchen"]);
    let read = ada.run(&["invite", "Kitchen", "--words"]);
    assert!(read.code == 0 && read.stdout.starts_with(" 1. "), "{read:?}");
    let lines: Vec<&str> = read.stdout.lines().collect();

    let heard = |text: &str| bea.run(&["join", text]);
    let misheard = read
        .stdout
        .replacen(lines[3], &lines[3].replacen(' ', " offhook ", 2), 1);
    let told = heard(&misheard);
    assert!(
        told.code != 0 && told.stderr.contains("line 4 of the words"),
        "{told:?}"
    );
    let broken_off = heard(&lines[..lines.len() - 1].join("\n"));
    assert!(
        broken_off.stderr.contains("a line of the words is missing"),
        "{broken_off:?}"
    );

    // In capitals, without numbers, word by word as arguments.
    let spoken = read.stdout.to_uppercase();
    let words: Vec<&str> = spoken
        .split(|c: char| !c.is_ascii_alphabetic())
        .filter(|word| !word.is_empty())
        .collect();
    let joined = bea.json(&[&["join"], words.as_slice()].concat());
    assert_eq!(joined["joined"], true);
    bea.wait_until("the room has its name", |bea| {
        bea.json(&["room", "limit", "Kitchen"])["name"] == "Kitchen"
    });
}
