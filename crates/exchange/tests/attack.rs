//! Attacks that need a socket: slow and lying streams, an engine that lies, an old one, a silent one.
#![allow(clippy::unwrap_used)]

mod field;

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use field::Field;
use offhook_exchange::cluster::ClusterSettings;
use offhook_exchange::{Node, Settings};

/// Whether the other side has closed.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 1_024];
    match stream.read(&mut buffer) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

/// One octet a second, which never ends a message: cut off when its time is over, not when it pauses.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_comes_drop_by_drop_is_cut_off() {
    let field = Field::open("attack-slow", 32_600).await;
    let port = field.settings.port;
    let closed_after = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let begun = Instant::now();
        let request = "OPTIONS sip:offhook SIP/2.0\r\n".bytes().chain(std::iter::repeat(b'a'));
        for octet in request.take(120) {
            if stream.write_all(&[octet]).is_err() || is_closed(&mut stream) {
                return Some(begun.elapsed());
            }
        }
        None
    });
    let closed_after = closed_after.await.unwrap();
    assert!(closed_after.is_some(), "held open for two minutes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_length_that_lies_ends_the_connection_and_nothing_else() {
    let field = Field::open("attack-length", 32_800).await;
    let port = field.settings.port;
    for length in ["99999999999999999999", "70000", "-1", "1, 2"] {
        let closed = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let request = format!(
                "OPTIONS sip:offhook SIP/2.0\r\nVia: SIP/2.0/TCP 127.0.0.1;branch=z9hG4bKx\r\nContent-Length: {length}\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).unwrap();
            (0..6).any(|_| is_closed(&mut stream))
        });
        assert!(closed.await.unwrap(), "Content-Length: {length}");
    }
    assert!(
        field.node.metrics().await.contains("offhook_exchange_calls_live 0"),
        "it runs on"
    );
}

/// An engine that says it is `version`, and answers nothing but pings; its settings are shown on a second port.
fn false_engine(version: &'static str, shown: &'static str) -> (u16, u16) {
    let (engine, monitor) = (
        TcpListener::bind("127.0.0.1:0").unwrap(),
        TcpListener::bind("127.0.0.1:0").unwrap(),
    );
    let ports = (
        engine.local_addr().unwrap().port(),
        monitor.local_addr().unwrap().port(),
    );
    std::thread::spawn(move || {
        for mut stream in engine.incoming().map_while(Result::ok) {
            if version.is_empty() {
                // Held open in silence.
                std::mem::forget(stream);
                continue;
            }
            let info = format!(
                "INFO {{\"server_id\":\"x\",\"server_name\":\"x\",\"version\":\"{version}\",\"proto\":1,\"go\":\"go\",\"host\":\"127.0.0.1\",\
                 \"port\":{},\"headers\":true,\"max_payload\":1048576,\"client_id\":1}}\r\n",
                ports.0
            );
            let _ = stream.write_all(info.as_bytes());
            let reader = BufReader::new(stream.try_clone().unwrap());
            std::thread::spawn(move || {
                for line in reader.lines().map_while(Result::ok) {
                    if line.starts_with("PING") && stream.write_all(b"PONG\r\n").is_err() {
                        return;
                    }
                }
            });
        }
    });
    std::thread::spawn(move || {
        for mut stream in monitor.incoming().map_while(Result::ok) {
            let mut request = [0; 1_024];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(format!("HTTP/1.0 200 OK\r\n\r\n{shown}").as_bytes());
        }
    });
    ports
}

async fn refusal_of(version: &'static str, shown: &'static str) -> String {
    let folder = field::Folder::new(&format!("attack-engine-{version}-{}", shown.len()));
    let (engine, monitor) = false_engine(version, shown);
    let mut settings = Settings::new(folder.0.join("exchange"));
    settings.listen = "127.0.0.1".parse().unwrap();
    settings.port = field::next_ports(2);
    settings.tls_port = None;
    let mut cluster = ClusterSettings::new(vec![format!("nats://127.0.0.1:{engine}")], "here");
    cluster.monitor_port = monitor;
    settings.cluster = Some(cluster);
    let started = tokio::time::timeout(Duration::from_secs(60), Node::start(settings)).await;
    match started.expect("no start takes for ever") {
        Ok(_) => panic!("an engine of this kind is taken"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_cannot_do_is_refused_with_what_to_change() {
    let old = refusal_of("2.9.10", "{}").await;
    assert!(old.contains("2.9.10") && old.contains("2.12.3"), "{old}");
    let careless = "{\"jetstream\":{\"config\":{\"max_storage\":1,\"sync_always\":false}}}";
    let careless = refusal_of("2.15.1", careless).await;
    assert!(careless.contains("sync_interval: always"), "{careless}");
    let without = refusal_of("2.15.1", "{\"jetstream\":{}}").await;
    assert!(without.contains("JetStream is off"), "{without}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_says_nothing_is_given_up() {
    let silent = refusal_of("", "").await;
    assert!(silent.contains("cannot reach"), "{silent}");
}
