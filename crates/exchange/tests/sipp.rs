//! sipp drives the exchange: REGISTER with digest, calls with BYE, calls cancelled while they ring.
#![allow(clippy::unwrap_used)]

mod field;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use field::{Field, Process, next_ports};

fn scenario(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sipp").join(name)
}

struct Sipp<'a> {
    field: &'a Field,
    port: u16,
    user: &'a str,
    password: &'a str,
    calls: u32,
    rate: u32,
}

impl Sipp<'_> {
    fn start(&self, label: &str, arguments: &[&str]) -> Process {
        let log = std::fs::File::create(self.field.folder.0.join(format!("{label}.log"))).unwrap();
        let mut command = Command::new("sipp");
        command
            .arg(format!("127.0.0.1:{}", self.field.settings.port))
            .args([
                "-i",
                "127.0.0.1",
                "-nostdin",
                "-timeout",
                "40",
                "-timeout_error",
                "-trace_err",
                "-d",
                "500",
            ])
            .args([
                "-p",
                &self.port.to_string(),
                "-s",
                self.user,
                "-au",
                self.user,
                "-ap",
                self.password,
            ])
            .args([
                "-m",
                &self.calls.to_string(),
                "-r",
                &self.rate.to_string(),
                "-l",
                "1000",
            ])
            .args(arguments)
            .current_dir(&self.field.folder.0)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Process::start("sip-tester", &mut command)
    }

    fn run(&self, label: &str, file: &str) {
        let file = scenario(file);
        let status = self
            .start(label, &["-sf", file.to_str().unwrap()])
            .wait(Duration::from_secs(45));
        let log = std::fs::read_to_string(self.field.folder.0.join(format!("{label}.log"))).unwrap();
        assert!(
            status.success(),
            "sipp {label}: {status}\n{}",
            &log[log.len().saturating_sub(3_000)..]
        );
    }
}

/// An exchange, and bob registered on a port of sipp.
async fn field_with_bob(name: &str, media_port: u16) -> (Field, String, u16) {
    let field = Field::open(name, media_port).await;
    let (alice, bob) = (field.add("alice").await, field.add("bob").await);
    let port = next_ports(1);
    Sipp {
        field: &field,
        port,
        user: "bob",
        password: &bob,
        calls: 1,
        rate: 1,
    }
    .run("register", "register.xml");
    assert_eq!(field.node.phones().await.len(), 1);
    (field, alice, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_answered_and_hung_up() {
    let (field, alice, bob_port) = field_with_bob("sipp-call", 32_000).await;
    let calls = 30;
    let bob = Sipp {
        field: &field,
        port: bob_port,
        user: "bob",
        password: "",
        calls,
        rate: 10,
    };
    let mut bob = bob.start("bob", &["-sn", "uas"]);
    Sipp {
        field: &field,
        port: next_ports(1),
        user: "alice",
        password: &alice,
        calls,
        rate: 10,
    }
    .run("alice", "call.xml");
    assert!(bob.wait(Duration::from_secs(20)).success(), "bob's side");
    let records = field.records();
    assert_eq!(records.len(), calls as usize);
    assert!(
        records
            .iter()
            .all(|record| record.disposition == "answered" && record.from == "alice")
    );
    assert!(field.node.calls().await.is_empty());
    assert!(
        field
            .node
            .metrics()
            .await
            .contains("offhook_exchange_calls_answered_total 30\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_cancelled_while_they_ring() {
    let (field, alice, bob_port) = field_with_bob("sipp-cancel", 32_200).await;
    let bob = Sipp {
        field: &field,
        port: bob_port,
        user: "bob",
        password: "",
        calls: 5,
        rate: 5,
    };
    let ring = scenario("ring.xml");
    let mut bob = bob.start("bob", &["-sf", ring.to_str().unwrap()]);
    Sipp {
        field: &field,
        port: next_ports(1),
        user: "alice",
        password: &alice,
        calls: 5,
        rate: 5,
    }
    .run("alice", "cancel.xml");
    assert!(bob.wait(Duration::from_secs(20)).success(), "bob's side");
    let records = field.records();
    assert_eq!(records.len(), 5);
    assert!(
        records.iter().all(|record| record.disposition == "cancelled"),
        "{records:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_does_not_register() {
    let field = Field::open("sipp-wrong", 32_400).await;
    field.add("bob").await;
    let sipp = Sipp {
        field: &field,
        port: next_ports(1),
        user: "bob",
        password: "wrong",
        calls: 1,
        rate: 1,
    };
    let file = scenario("register.xml");
    let status = sipp
        .start("register", &["-sf", file.to_str().unwrap()])
        .wait(Duration::from_secs(45));
    assert!(!status.success());
    assert!(field.node.phones().await.is_empty());
    assert!(
        field
            .node
            .metrics()
            .await
            .contains("offhook_exchange_sip_wrong_passwords_total 1\n")
    );
}
