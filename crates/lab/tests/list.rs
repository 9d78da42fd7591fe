//! The lab's own command line. That this test exists makes the test build leave the lab's program behind, which `cargo xtask test` then plays the short labs with.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

fn lab(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_offhook-lab"))
        .args(args)
        .output()
        .unwrap()
}

#[test]
fn labs_are_listed_without_playing_any() {
    let listed = lab(&["--list"]);
    assert!(listed.status.success());
    let text = String::from_utf8(listed.stdout).unwrap();
    for name in ["three", "gateways", "relay", "nat-matrix", "hotel"] {
        assert!(text.lines().any(|line| line.trim_start().starts_with(name)), "{text}");
    }
}

#[test]
fn an_unknown_lab_is_named_and_the_others_listed() {
    let refused = lab(&["no-such-lab"]);
    assert!(!refused.status.success());
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("no-such-lab") && text.contains("hotel"), "{text}");
}
