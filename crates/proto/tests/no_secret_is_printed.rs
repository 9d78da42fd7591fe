//! Nothing that may end up in a log or a panic shows a secret: what is printed is searched for every secret that went in, as bytes in a list and as digits.

mod net;

use net::{Net, text};
use offhook_proto::crypto::Secret;
use offhook_proto::history::RoomId;
use offhook_proto::peer::{Command, Input, Output, Reply, Secrets};
use offhook_proto::rooms::{Invite, Role};
use offhook_proto::sync::Frame;
use offhook_proto::sync::frame::EpochGift;
use offhook_proto::wire::Wire as _;

fn hides(what: &str, printed: &str, secret: &[u8]) {
    let list = format!("{secret:?}");
    let inner = list.trim_matches(['[', ']']);
    let digits: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    for form in [inner, &digits] {
        assert!(
            !printed.to_lowercase().contains(form),
            "{what} prints a secret: {printed}"
        );
    }
}

fn invite(net: &mut Net, at: usize, room: RoomId) -> Invite {
    let invite = Command::Invite {
        room,
        expires_s: 3600,
        uses: 1,
        role: Role::Member,
        only_me: false,
    };
    match net.command(at, invite) {
        Ok(Reply::Invite(invite)) => invite,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_printed_holds_no_secret() {
    let mut net = Net::new(1);
    let (ada, bob) = (net.add("Ada"), net.add("Bob"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    net.post(ada, room, text("a secret word"));
    let invite = invite(&mut net, ada, room);
    net.settle();

    let printed = format!("{:?}", net.peer(ada));
    let Secrets { root, device } = net.nodes[ada].secrets.clone();
    for (what, secret) in [
        ("the root key", root.entropy().0.to_vec()),
        ("the device key", device.0.seed().0.to_vec()),
        // The scaffold's, of the line between the first two.
        ("an exporter", vec![1; 32]),
        ("an invite", invite.secret.to_vec()),
    ] {
        hides(what, &printed, &secret);
    }
    hides("the recovery phrase", &printed, root.phrase().as_bytes());
    assert!(!printed.contains(&root.phrase()) && !printed.contains("a secret word"));

    hides("an invite", &format!("{invite:?}"), &invite.secret);
    let (join, made) = (Command::Join { invite: invite.clone() }, Reply::Invite(invite.clone()));
    hides("a command", &format!("{join:?}"), &invite.secret);
    hides("a reply", &format!("{made:?}"), &invite.secret);

    let secret = Secret([0xc3; 32]);
    let gifts = vec![EpochGift::Whole { secret: secret.clone() }];
    let frame = Frame::Welcome { room, gifts };
    hides("a frame", &format!("{frame:?}"), &secret.0);
    let (peer, bytes) = (net.nodes[bob].device, frame.to_bytes());
    let sent = Output::Send {
        peer,
        bytes: bytes.clone(),
    };
    hides("a sent frame", &format!("{sent:?}"), &secret.0);
    hides(
        "a heard frame",
        &format!("{:?}", Input::Frame { peer, bytes }),
        &secret.0,
    );
    let line_up = Input::LineUp {
        peer,
        exporter: secret.0,
        address: None,
    };
    hides("a line", &format!("{line_up:?}"), &secret.0);
}

/// The check itself can fail: a plain structure shows what it holds, in either form.
#[test]
fn a_plain_structure_is_found_out() {
    #[derive(Debug)]
    #[allow(dead_code, reason = "read by its printing")]
    struct Plain {
        key: [u8; 32],
    }
    let found =
        |printed: String| std::panic::catch_unwind(|| hides("a plain structure", &printed, &[0xc3; 32])).is_err();
    assert!(found(format!("{:?}", Plain { key: [0xc3; 32] })));
    assert!(found("c3".repeat(32)));
    assert!(!found("nothing".to_owned()));
}
