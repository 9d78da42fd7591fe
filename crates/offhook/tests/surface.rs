//! The API as other programs see it: names of the JSON, shapes of problems, the event stream. The names are a promise.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod stage;

use serde_json::Value;
use stage::{Machine, names};

/// The body of an answer, and its status line and headers.
fn split(answer: &str) -> (&str, &str) {
    answer.split_once("\r\n\r\n").expect("an answer has a head")
}

fn problem(answer: &str) -> Value {
    let (head, body) = split(answer);
    assert!(head.contains("content-type: application/problem+json"), "{head}");
    serde_json::from_str(body).unwrap()
}

#[test]
fn status_has_the_names_that_scripts_rely_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    let from_up = ada.up();
    let status = ada.json(&["status"]);
    let expected = [
        "addresses",
        "device",
        "home",
        "keeper",
        "name",
        "network",
        "peers",
        "person",
        "rooms",
        "since",
        "versions",
    ];
    assert_eq!(names(&status), expected);
    assert_eq!(names(&from_up), expected);
    for id in ["person", "device"] {
        let id = status[id].as_str().unwrap();
        assert!(
            id.len() == 64 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)),
            "{id}"
        );
    }
    assert!(
        status["addresses"][0].as_str().unwrap().starts_with("127.0.0.1:"),
        "{status}"
    );
    assert!(status["network"].as_str().unwrap().contains("this machine only"));
}

#[test]
fn requests_that_do_not_fit_are_problems_with_a_code() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    ada.up();
    let ask = |method: &str, path: &str, headers: &str, body: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
            body.len()
        );
        problem(&ada.raw(&request))
    };
    let json = "content-type: application/json\r\n";
    for (method, path, headers, body, code, status) in [
        ("GET", "/", "", "", "no-endpoint", 404),
        ("GET", "/api/v1/nothing", "", "", "no-endpoint", 404),
        ("GET", "/api/v1/../status", "", "", "no-endpoint", 404),
        ("PUT", "/api/v1/status", "", "", "bad-method", 405),
        ("POST", "/api/v1/rooms", "", "{\"name\":\"x\"}", "not-json", 415),
        ("POST", "/api/v1/rooms", json, "{\"name\":", "bad-request", 400),
        (
            "POST",
            "/api/v1/rooms",
            json,
            "{\"name\":\"x\",\"colour\":1}",
            "bad-request",
            400,
        ),
        (
            "POST",
            "/api/v1/rooms",
            json,
            "{\"name\":\"x\",\"history\":\"0d\"}",
            "bad-request",
            400,
        ),
        (
            "POST",
            "/api/v1/joins",
            json,
            "{\"invite\":\"offhook:zz\"}",
            "bad-invite",
            422,
        ),
        ("GET", "/api/v1/rooms/Attic", "", "", "no-room", 404),
        ("GET", "/api/v1/rooms/%2E%2E", "", "", "no-room", 404),
        ("GET", "/api/v1/rooms/Attic/entries?limit=0", "", "", "bad-request", 400),
        (
            "GET",
            "/api/v1/rooms/Attic/entries?limit=1001",
            "",
            "",
            "bad-request",
            400,
        ),
        (
            "GET",
            "/api/v1/rooms/Attic/entries?cursor=x",
            "",
            "",
            "bad-request",
            400,
        ),
        ("GET", "/api/v1/search?words=%20", "", "", "bad-request", 400),
        ("GET", "/api/v1/search", "", "", "bad-request", 400),
        ("GET", "/api/v1/events", "last-event-id: x\r\n", "", "bad-request", 400),
        ("GET", "/api/v1/contacts/Zoe", "", "", "no-person", 404),
        ("GET", "/api/v1/entries/x", "", "", "no-entry", 404),
        (
            "POST",
            "/api/v1/backup",
            json,
            "{\"passphrase\":\"\"}",
            "bad-backup",
            422,
        ),
    ] {
        let problem = ask(method, path, headers, body);
        assert_eq!(
            (problem["code"].as_str(), problem["status"].as_u64()),
            (Some(code), Some(status)),
            "{method} {path}: {problem}"
        );
        assert!(problem["detail"].as_str().unwrap().len() > 10, "{problem}");
    }
    let large = ask(
        "POST",
        "/api/v1/rooms",
        json,
        &format!("{{\"name\":\"{}\"}}", "x".repeat(600_000)),
    );
    assert_eq!(large["code"], "too-large");
}

#[test]
fn a_number_that_is_no_longer_held_resumes_with_a_reset() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    ada.up();
    let follow = "GET /api/v1/events HTTP/1.1\r\nhost: localhost\r\nlast-event-id: 5\r\n\r\n";
    let follower = ada.another_terminal();
    let follower = std::thread::spawn(move || follower.raw(follow));
    std::thread::sleep(std::time::Duration::from_millis(300));
    ada.stop();
    let answer = follower.join().unwrap();
    let (head, body) = split(&answer);
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    assert!(body.contains("event: reset\ndata: {\"event\":\"reset\"}"), "{body}");
    let id = body.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
    assert!(id.parse::<u64>().unwrap() > 1_700_000_000_000_000, "{id}");
}

#[test]
fn the_recovery_phrase_has_24_words() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    let status = ada.up();
    let phrase = ada.json(&["identity", "phrase"]);
    assert_eq!(names(&phrase), ["person", "phrase"]);
    assert_eq!(phrase["person"], status["person"]);
    assert_eq!(phrase["phrase"].as_str().unwrap().split(' ').count(), 24);
}
