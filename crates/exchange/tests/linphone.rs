//! linphone registers and calls baresip through the exchange.
#![allow(clippy::unwrap_used)]

mod field;

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use field::{Baresip, Field, Process, next_ports};

#[tokio::test(flavor = "multi_thread")]
async fn linphone_calls_baresip() {
    let field = Field::open("linphone", 33_000).await;
    let (alice_password, bob_password) = (field.add("alice").await, field.add("bob").await);
    let (_bob, _) = Baresip {
        name: "bob",
        password: &bob_password,
        transport: "udp",
        tone_hz: 1_000,
        more: "",
        modules: &[],
    }
    .start(&field, &[]);
    let folder = field.folder.0.join("linphone");
    std::fs::create_dir_all(folder.join(".local/share/linphone")).unwrap();
    let port = next_ports(1);
    let server = format!("127.0.0.1:{}", field.settings.port);
    let config = format!(
        "[sip]\nsip_port={port}\nsip_tcp_port=0\nsip_tls_port=0\ndefault_proxy=0\n\
         [auth_info_0]\nusername=alice\npasswd={alice_password}\nrealm=offhook\n\
         [proxy_0]\nreg_proxy=<sip:{server};transport=udp>\nreg_identity=sip:alice@{server}\nreg_expires=600\nreg_sendregister=1\n"
    );
    std::fs::write(folder.join("linphonerc"), config).unwrap();
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let mut command = Command::new("linphonec");
    command
        .args(["--pipe", "-d", "6", "-c"])
        .arg(folder.join("linphonerc"))
        .env("HOME", &folder)
        .current_dir(&folder)
        .stdin(Stdio::piped())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let mut alice = Process::start("linphone-cli", &mut command);
    let mut keys = alice.0.stdin.take().unwrap();
    let server = format!("127.0.0.1:{}", field.settings.port);
    writeln!(
        keys,
        "soundcard use files\nregister sip:alice@{server} sip:{server} {alice_password}"
    )
    .unwrap();
    field
        .until("both phones are registered", Duration::from_secs(20), async |node| {
            (node.phones().await.len() == 2).then_some(())
        })
        .await;
    let agents: Vec<String> = field
        .node
        .phones()
        .await
        .into_iter()
        .map(|phone| phone.user_agent)
        .collect();
    assert!(
        agents.iter().any(|agent| agent.to_lowercase().contains("linphone")),
        "{agents:?}"
    );
    writeln!(keys, "call sip:bob@{server}").unwrap();
    let ports = field
        .until("the call is answered", Duration::from_secs(20), async |node| {
            node.calls()
                .await
                .into_iter()
                .find(|call| call.answered_ms.is_some())
                .map(|call| call.ports)
        })
        .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let forwarded = field.node.forwarded_by_port().await;
    assert!(
        ports.iter().all(|port| forwarded[port] > 0),
        "both ways: {ports:?} of {forwarded:?}"
    );
    writeln!(keys, "terminate\nquit").unwrap();
    field
        .until("the call has ended", Duration::from_secs(10), async |node| {
            node.calls().await.is_empty().then_some(())
        })
        .await;
    let records = field.records();
    assert_eq!((records.len(), records[0].disposition.as_str()), (1, "answered"));
}
