//! What newcomers may read is a policy of the room.

mod net;

use net::Net;
use offhook_proto::rooms::HistoryPolicy;

#[test]
fn a_newcomer_reads_what_the_policy_gives() {
    for (history, reads) in [(HistoryPolicy::All {}, true), (HistoryPolicy::None {}, false)] {
        let mut net = Net::new(1);
        let (ada, bob, eve) = (net.add("Ada"), net.add("Bob"), net.add("Eve"));
        let room = net.room_with(ada, "kitchen", history);
        net.join(ada, bob, room);
        net.say(ada, room, "before Eve");
        net.settle();
        net.join(ada, eve, room);
        net.say(bob, room, "hello Eve");
        net.settle();
        let texts = net.texts(eve, room);
        assert_eq!(
            texts.contains(&"before Eve".to_owned()),
            reads,
            "{history:?}: {texts:?}"
        );
        assert!(texts.contains(&"hello Eve".to_owned()), "{texts:?}");
        net.say(eve, room, "hello both");
        net.settle();
        assert!(net.texts(bob, room).contains(&"hello both".to_owned()));
    }
}

#[test]
fn an_old_invite_works_through_another_member_while_the_inviter_is_away() {
    use offhook_proto::peer::{Command, Reply};
    use offhook_proto::rooms::Role;
    let mut net = Net::new(2);
    let (ada, bob, eve) = (net.add("Ada"), net.add("Bob"), net.add("Eve"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    net.say(ada, room, "before Eve");
    let invite = |only_me| Command::Invite {
        room,
        expires_s: 3600,
        uses: 1,
        role: Role::Member,
        only_me,
    };
    let Ok(Reply::Invite(strict)) = net.command(ada, invite(true)) else {
        panic!()
    };
    let Ok(Reply::Invite(shared)) = net.command(ada, invite(false)) else {
        panic!()
    };
    net.settle();
    net.offline(ada);

    net.command(eve, Command::Join { invite: strict }).unwrap();
    net.settle();
    assert!(
        net.peer(eve).members(room).unwrap().unwrap().is_empty(),
        "a strict invite waits for its maker"
    );
    net.command(eve, Command::Join { invite: shared }).unwrap();
    net.settle();
    assert_eq!(net.texts(eve, room), ["before Eve"]);
}

#[test]
fn a_used_or_expired_invite_is_refused_with_a_reason() {
    use offhook_proto::peer::{Command, Event, JoinStep, Reply};
    use offhook_proto::rooms::Role;
    let mut net = Net::new(3);
    let (ada, bob, eve) = (net.add("Ada"), net.add("Bob"), net.add("Eve"));
    let room = net.room(ada, "kitchen");
    let invite = Command::Invite {
        room,
        expires_s: 3600,
        uses: 1,
        role: Role::Member,
        only_me: false,
    };
    let Ok(Reply::Invite(invite)) = net.command(ada, invite) else {
        panic!()
    };
    net.command(bob, Command::Join { invite: invite.clone() }).unwrap();
    net.settle();
    net.command(eve, Command::Join { invite: invite.clone() }).unwrap();
    net.settle();
    let refused = net.events.iter().any(|(at, event)| {
        *at == eve && matches!(event, Event::Join { step: JoinStep::Refused { why, last: true }, .. } if why.contains("used up"))
    });
    assert!(refused, "{:?}", net.events);
    net.pass(std::time::Duration::from_secs(3601));
    assert!(net.command(eve, Command::Join { invite }).is_err(), "expired");
}
