//! Two baresip phones register and talk through the exchange; each must hear the other's tone.
#![allow(clippy::unwrap_used)]

mod field;

use std::time::Duration;

use field::{Baresip, Field, heard, tone_share};

async fn hear_each_other(name: &str, media_port: u16, transport: &str, more: &str, modules: &[&str]) {
    let field = Field::open(name, media_port).await;
    let (alice_password, bob_password) = (field.add("alice").await, field.add("bob").await);
    let phone = |name, password, tone_hz| Baresip {
        name,
        password,
        transport,
        tone_hz,
        more,
        modules,
    };
    let (bob, bob_folder) = phone("bob", &bob_password, 1_000).start(&field, &[]);
    let (alice, alice_folder) = phone("alice", &alice_password, 600).start(&field, &[]);
    field
        .until("both phones are registered", Duration::from_secs(15), async |node| {
            (node.phones().await.len() == 2).then_some(())
        })
        .await;

    drop(alice);
    let alice = phone("alice", &alice_password, 600);
    let dial = format!("/dial sip:bob@127.0.0.1:{}", alice.server_port(&field));
    let (mut alice, _) = alice.start(&field, &[dial]);
    let ports = field
        .until("the call is answered", Duration::from_secs(15), async |node| {
            node.calls()
                .await
                .into_iter()
                .find(|call| call.answered_ms.is_some())
                .map(|call| call.ports)
        })
        .await;
    assert_eq!(ports.len(), 2);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let forwarded = field.node.forwarded_by_port().await;
    for port in &ports {
        assert!(forwarded[port] > 100, "port {port} of {forwarded:?}");
    }
    use std::io::Write;
    alice.0.stdin.take().unwrap().write_all(b"/quit\n").unwrap();
    alice.wait(Duration::from_secs(10));
    field
        .until("the call has ended", Duration::from_secs(10), async |node| {
            node.calls().await.is_empty().then_some(())
        })
        .await;
    let records = field.records();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0].disposition, "answered");
    drop(bob);
    let (at_alice, at_bob) = (
        tone_share(&heard(&alice_folder), 1_000.0),
        tone_share(&heard(&bob_folder), 600.0),
    );
    assert!(
        at_alice > 0.8 && at_bob > 0.8,
        "share of the other's tone: alice {at_alice:.2}, bob {at_bob:.2}"
    );
    assert!(
        tone_share(&heard(&alice_folder), 600.0) < 0.1,
        "the control: nobody hears itself"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn over_udp() {
    hear_each_other("baresip-udp", 31_000, "udp", "", &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tcp() {
    hear_each_other("baresip-tcp", 31_200, "tcp", "", &[]).await;
}

/// Signalling over TLS, media sealed with keys that the exchange carries across and never uses.
#[tokio::test(flavor = "multi_thread")]
async fn over_tls_with_srtp() {
    hear_each_other("baresip-tls", 31_400, "tls", ";mediaenc=srtp-mand", &["srtp"]).await;
}

/// The same with keys agreed by DTLS inside the media path.
#[tokio::test(flavor = "multi_thread")]
async fn over_udp_with_dtls_srtp() {
    hear_each_other("baresip-dtls", 31_600, "udp", ";mediaenc=dtls_srtp", &["dtls_srtp"]).await;
}
