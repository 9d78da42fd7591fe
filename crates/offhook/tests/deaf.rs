//! Clients that stop reading are cut off, and nobody else notices.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod stage;

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use stage::Machine;

/// Texts that are said while nobody listens: together more than the buffers of a socket on loopback take (4 MB where it sends, and what the other side has
/// got before it reads).
const TEXTS: usize = 130;
const TEXT_BYTES: usize = 60_000;
/// The node's own patience is 20 s.
const CUT_OFF_WITHIN: Duration = Duration::from_secs(120);

/// A connection that asks for everything that happens.
struct Client {
    name: &'static str,
    asks: String,
    write: Box<dyn Write + Send>,
    read: Box<dyn Read + Send>,
}

impl Client {
    fn tcp(name: &'static str, at: &str, asks: &str) -> Self {
        let stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(2 * CUT_OFF_WITHIN)).unwrap();
        let read = Box::new(stream.try_clone().unwrap());
        Self::new(name, asks, Box::new(stream), read)
    }

    fn unix(name: &'static str, ada: &Machine, socket: &str, asks: &str) -> Self {
        let stream = UnixStream::connect(ada.home.join(socket)).unwrap();
        stream.set_read_timeout(Some(2 * CUT_OFF_WITHIN)).unwrap();
        let read = Box::new(stream.try_clone().unwrap());
        Self::new(name, asks, Box::new(stream), read)
    }

    fn new(name: &'static str, asks: &str, mut write: Box<dyn Write + Send>, read: Box<dyn Read + Send>) -> Self {
        write.write_all(asks.as_bytes()).unwrap();
        Self {
            name,
            asks: asks.to_owned(),
            write,
            read,
        }
    }

    /// Whether the node has ended the connection. Empty lines mean nothing to either protocol, and nothing is read here.
    fn is_cut_off(&mut self) -> bool {
        self.write.write_all(b"\r\n").is_err()
    }

    /// Reads on until a line holds this text, empty lines said on the way.
    fn reads_until(mut self, wanted: &'static str) -> JoinHandle<()> {
        std::thread::spawn(move || {
            let mut lines = BufReader::new(self.read);
            let mut line = Vec::new();
            for number in 0_u64.. {
                line.clear();
                let count = lines.read_until(b'\n', &mut line).unwrap();
                assert!(
                    count > 0,
                    "{} was cut off though it read; it had asked {:?}",
                    self.name,
                    self.asks
                );
                if String::from_utf8_lossy(&line).contains(wanted) {
                    return;
                }
                if line.starts_with(b"PING ") {
                    self.write.write_all(&[b"PONG ", &line[5..]].concat()).unwrap();
                }
                if number % 1000 == 0 {
                    self.write.write_all(b"\r\n").unwrap();
                }
            }
        })
    }
}

#[test]
fn clients_that_stop_reading_are_cut_off_and_nobody_else_notices() {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    let status = ada.up();
    let http = status["http"]
        .as_str()
        .unwrap()
        .trim_start_matches("http://")
        .to_owned();
    let room = ada.json(&["room", "new", "Kitchen"])["room"]
        .as_str()
        .unwrap()
        .to_owned();
    let irc = ada.json(&["irc", "on", "--port", "0"])["at"]
        .as_str()
        .unwrap()
        .to_owned();
    let token = ada.json(&["token", "new", "client", "--scope", "read,send"]);
    let token = token["token"].as_str().unwrap();

    let events = format!("GET /api/v1/events HTTP/1.1\r\nhost: {http}\r\nauthorization: Bearer {token}\r\n\r\n");
    let chat = format!("PASS {token}\r\nNICK a\r\nUSER a 0 * :a\r\n");
    let clients = || {
        [
            Client::tcp("events over TCP", &http, &events),
            Client::unix("events over the control socket", &ada, "control.sock", &events),
            Client::tcp("IRC over TCP", &irc, &chat),
            Client::unix("IRC over its socket", &ada, "irc.sock", &chat),
        ]
    };
    let mut deaf = clients().map(Some);
    let reading = clients().map(|client| client.reads_until("the end of it"));
    // Long enough to be let in. Whoever comes later misses the first of many texts.
    std::thread::sleep(Duration::from_secs(1));

    let said = "word ".repeat(TEXT_BYTES / 5);
    for number in 0..TEXTS {
        let body = format!("{{\"text\":\"{number} {said}\"}}");
        let answer = ada.raw(&format!(
            "POST /api/v1/rooms/{room}/entries HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }

    let start = Instant::now();
    while deaf.iter().any(Option::is_some) {
        for client in &mut deaf {
            if client.as_mut().is_some_and(Client::is_cut_off) {
                *client = None;
            }
        }
        let left: Vec<&str> = deaf.iter().flatten().map(|client| client.name).collect();
        assert!(start.elapsed() < CUT_OFF_WITHIN, "nothing ends {left:?}");
        std::thread::sleep(Duration::from_millis(300));
    }
    ada.say("Kitchen", "the end of it");
    for client in reading {
        client.join().unwrap();
    }
}
