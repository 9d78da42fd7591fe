//! `offhook exchange ...` as somebody types it: accounts, a running exchange asked from beside it, and what is said when
//! something is wrong.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn offhook(home: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offhook"));
    command
        .arg("--home")
        .arg(home)
        .arg("--json")
        .arg("exchange")
        .args(words);
    command
}

fn run(home: &Path, words: &[&str]) -> Output {
    offhook(home, words).output().unwrap()
}

fn json(home: &Path, words: &[&str]) -> Vec<Value> {
    let output = run(home, words);
    assert!(
        output.status.success(),
        "{words:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn problem(home: &Path, words: &[&str]) -> (i32, Value) {
    let output = run(home, words);
    let problem = serde_json::from_slice(&output.stderr).unwrap();
    (output.status.code().unwrap(), problem)
}

/// A running exchange; ends with its owner.
struct Exchange(Child);

impl Drop for Exchange {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that is free now, for UDP and TCP: one that a connection of another test has just left is not.
fn free_port() -> u16 {
    let free = || {
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        TcpListener::bind(("127.0.0.1", port)).is_ok().then_some(port)
    };
    (0..100).find_map(|_| free()).unwrap()
}

fn up(home: &Path, port: u16) -> (Exchange, Value) {
    let port = port.to_string();
    let words = ["up", "--listen", "127.0.0.1", "--port", &port, "--tls-port", "0"];
    let mut child = offhook(home, &words).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let exchange = Exchange(child);
    (exchange, serde_json::from_str(&line).unwrap())
}

#[test]
fn accounts_are_made_listed_and_removed() {
    let home = tempfile::tempdir().unwrap();
    let made = json(home.path(), &["user", "add", "ada"]);
    assert_eq!(made[0]["user"], "ada");
    assert_eq!(made[0]["extension"], "100");
    assert_eq!(made[0]["password"].as_str().unwrap().len(), 20);
    assert_eq!(json(home.path(), &["user", "list"])[0]["user"], "ada");
    let (code, twice) = problem(home.path(), &["user", "add", "ada"]);
    assert_eq!((code, twice["code"].as_str()), (6, Some("already")));
    let (code, bad) = problem(home.path(), &["user", "add", "a b"]);
    assert_eq!((code, bad["code"].as_str()), (7, Some("bad-request")));
    assert_eq!(json(home.path(), &["user", "remove", "ada"])[0]["removed"], "ada");
    assert!(json(home.path(), &["user", "list"]).is_empty());
    let (code, gone) = problem(home.path(), &["user", "remove", "ada"]);
    assert_eq!((code, gone["code"].as_str()), (4, Some("no-person")));
}

#[test]
fn a_running_exchange_is_asked_from_beside_it_and_ends_on_sigterm() {
    let home = tempfile::tempdir().unwrap();
    let (code, absent) = problem(home.path(), &["calls"]);
    assert_eq!((code, absent["code"].as_str()), (3, Some("no-node")));
    json(home.path(), &["user", "add", "ada", "--domain", "pbx.test"]);
    let port = free_port();
    let (mut exchange, said) = up(home.path(), port);
    assert_eq!(said["port"], port);
    assert_eq!(said["domain"], "pbx.test");
    assert_eq!(said["accounts"], 1);
    assert!(json(home.path(), &["calls"]).is_empty());
    assert!(json(home.path(), &["phones"]).is_empty());
    assert!(json(home.path(), &["records"]).is_empty());
    let metrics = json(home.path(), &["metrics"]);
    assert!(
        metrics[0]["metrics"]
            .as_str()
            .unwrap()
            .contains("offhook_exchange_calls_live 0")
    );
    let (code, busy) = problem(home.path(), &["up", "--listen", "127.0.0.1"]);
    assert_eq!((code, busy["code"].as_str()), (9, Some("busy")));

    let kill = Command::new("kill").arg(exchange.0.id().to_string()).status().unwrap();
    assert!(kill.success());
    let until = Instant::now() + Duration::from_secs(30);
    while exchange.0.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "it does not end");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(problem(home.path(), &["calls"]).0, 3);
}
