//! Somebody nearby who shares no room invites: nothing happens until the person says yes, and what strangers can take up is bounded.

mod net;

use std::time::Duration;

use net::Net;
use offhook_proto::identity::IdentityBundle;
use offhook_proto::peer::{Command, CommandError, Event, Input, Reply, Verdict};
use offhook_proto::rooms::proposal::{QUIET_FOR, SEEN_WITHIN, Standing, WAITS_FOR};
use offhook_proto::sync::frame::Frame;
use offhook_proto::wire::Wire as _;

/// Ada and Bob, who see each other on the local network and share nothing; both are open to strangers.
fn neighbours() -> (Net, usize, usize) {
    let mut net = Net::new(1);
    let (ada, bob) = (net.add("Ada"), net.add("Bob"));
    for at in [ada, bob] {
        assert!(!net.peer(at).takes_proposals(), "nobody is seen who did not say so");
        net.command(at, Command::TakeProposals { on: true })
            .expect("it is theirs to say");
    }
    see(&mut net, ada, bob);
    net.settle();
    assert_eq!(net.dials, [], "to be near is no reason to call");
    (net, ada, bob)
}

fn see(net: &mut Net, a: usize, b: usize) {
    for (at, other) in [(a, b), (b, a)] {
        let peer = net.nodes[other].device;
        let addresses = vec![format!("192.0.2.{}:4433", other + 1).parse().expect("an address")];
        net.input(at, Input::Found { peer, addresses });
    }
}

fn invite(
    net: &mut Net,
    from: usize,
    to: usize,
    room: Option<offhook_proto::history::RoomId>,
) -> Result<Reply, CommandError> {
    let device = net.nodes[to].device;
    let reply = net.command(from, Command::Propose { device, room });
    net.settle();
    reply
}

fn answer(net: &mut Net, at: usize, verdict: Verdict) -> Result<Reply, CommandError> {
    let token = net.peer(at).proposals().first().map(|asked| asked.token);
    let token = token.expect("somebody asks");
    let reply = net.command(at, Command::AnswerProposal { token, verdict });
    net.settle();
    reply
}

fn standing(net: &Net, at: usize) -> Vec<Standing> {
    net.peer(at).made_proposals().iter().map(|made| made.standing).collect()
}

#[test]
fn a_yes_leads_into_the_room() {
    let (mut net, ada, bob) = neighbours();
    let kitchen = net.room(ada, "kitchen");
    net.say(ada, kitchen, "who is cooking?");
    invite(&mut net, ada, bob, Some(kitchen)).expect("he is near");
    assert_eq!(standing(&net, ada), [Standing::Shown]);
    let asked = net.peer(bob).proposals();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].claimed.as_deref(), Some("Ada"));
    assert_eq!(asked[0].person, net.person(ada));
    assert_eq!(
        (asked[0].name.clone(), asked[0].room.clone()),
        (None, Some((kitchen, "kitchen".to_owned())))
    );
    // Nothing without a yes: no room, no contact.
    assert_eq!(net.peer(bob).rooms().expect("memory").len(), 0);
    assert_eq!(net.peer(bob).contacts().expect("memory").len(), 0);

    answer(&mut net, bob, Verdict::Accept).expect("the invitation holds");
    assert_eq!(standing(&net, ada), [Standing::Accepted]);
    assert_eq!(net.texts(bob, kitchen), ["who is cooking?"]);
    net.say(bob, kitchen, "I am");
    net.settle();
    assert_eq!(net.texts(ada, kitchen), ["who is cooking?", "I am"]);
    let told = |at| {
        net.events
            .iter()
            .any(|(to, event)| *to == at && matches!(event, Event::Proposals { .. }))
    };
    assert!(told(ada) && told(bob));
    let news = net.events.iter().find_map(|(_, event)| match event {
        Event::Proposals { news } => news.clone(),
        _ => None,
    });
    let expected = r#"somebody nearby who goes by "Ada" invites you to the room "kitchen""#;
    assert!(news.is_some_and(|news| news.starts_with(expected)));
}

#[test]
fn a_yes_to_a_room_of_two_makes_one() {
    let (mut net, ada, bob) = neighbours();
    invite(&mut net, ada, bob, None).expect("he is near");
    assert_eq!(
        net.peer(ada).rooms().expect("memory").len(),
        0,
        "only a yes makes a room"
    );
    let Ok(Reply::Room(pair)) = answer(&mut net, bob, Verdict::Accept) else {
        panic!("no room of two");
    };
    net.say(bob, pair, "hello, neighbour");
    net.settle();
    assert_eq!(net.texts(ada, pair), ["hello, neighbour"]);
    for at in [ada, bob] {
        let rooms = net.peer(at).rooms().expect("memory");
        assert_eq!(rooms.len(), 1);
        assert!(rooms[0].pair.is_some(), "{rooms:?}");
    }
    assert!(
        matches!(invite(&mut net, ada, bob, None), Err(CommandError::Already(_))),
        "they know each other now"
    );
}

#[test]
fn an_answer_waits_for_a_line() {
    let (mut net, ada, bob) = neighbours();
    invite(&mut net, ada, bob, None).expect("he is near");
    net.forbid(ada, bob);
    let Ok(Reply::Room(pair)) = answer(&mut net, bob, Verdict::Accept) else {
        panic!("no room of two");
    };
    net.say(bob, pair, "are you still there?");
    net.unbar(ada, bob);
    net.pass(Duration::from_secs(120));
    assert_eq!(net.texts(ada, pair), ["are you still there?"]);
}

#[test]
fn a_no_is_told_and_keeps_for_a_while() {
    let (mut net, ada, bob) = neighbours();
    let kitchen = net.room(ada, "kitchen");
    invite(&mut net, ada, bob, Some(kitchen)).expect("he is near");
    answer(&mut net, bob, Verdict::Decline).expect("it is there");
    assert_eq!(standing(&net, ada), [Standing::Declined]);
    assert!(net.lines_of(ada).is_empty(), "the line was for this alone");
    invite(&mut net, ada, bob, None).expect("he is near");
    assert_eq!(standing(&net, ada), [Standing::NotTaken]);
    assert!(net.peer(bob).proposals().is_empty());
    net.pass(QUIET_FOR);
    invite(&mut net, ada, bob, None).expect("he is near");
    assert_eq!(net.peer(bob).proposals().len(), 1);
}

#[test]
fn whoever_is_blocked_is_not_heard_and_not_told() {
    let (mut net, ada, bob) = neighbours();
    invite(&mut net, ada, bob, None).expect("he is near");
    answer(&mut net, bob, Verdict::Block).expect("it is there");
    assert_eq!(standing(&net, ada), [Standing::Shown], "as if he had not looked");
    let contacts = net.peer(bob).contacts().expect("memory");
    assert!(
        contacts.iter().all(|contact| contact.blocked) && contacts.len() == 1,
        "can be taken back there"
    );
    net.pass(WAITS_FOR + QUIET_FOR);
    assert_eq!(standing(&net, ada), [Standing::Expired]);
    invite(&mut net, ada, bob, None).expect("he is near");
    assert!(net.peer(bob).proposals().is_empty());
    assert_eq!(standing(&net, ada), [Standing::Sent]);
}

#[test]
fn whoever_hides_is_not_announced_and_takes_nothing() {
    let (mut net, ada, bob) = neighbours();
    invite(&mut net, ada, bob, None).expect("he is near");
    net.command(bob, Command::TakeProposals { on: false })
        .expect("it is his to say");
    assert!(net.peer(bob).proposals().is_empty(), "what waits goes too");
    let cleo = net.add("Cleo");
    see(&mut net, cleo, bob);
    invite(&mut net, cleo, bob, None).expect("he is near");
    assert_eq!(standing(&net, cleo), [Standing::NotTaken]);
    // It outlasts the program.
    let store = net.peer(bob).store().clone();
    net.reopen(bob, store);
    assert!(!net.peer(bob).takes_proposals());
    net.command(bob, Command::TakeProposals { on: true })
        .expect("it is his to say");
    assert!(net.peer(bob).takes_proposals());
}

#[test]
fn only_those_who_are_near_are_invited_and_heard() {
    let (mut net, ada, bob) = neighbours();
    let cleo = net.add("Cleo");
    assert!(matches!(invite(&mut net, ada, cleo, None), Err(CommandError::NotNear)));
    // Cleo sees Bob, who does not see her.
    let peer = net.nodes[bob].device;
    let addresses = vec!["192.0.2.2:4433".parse().expect("an address")];
    net.input(cleo, Input::Found { peer, addresses });
    invite(&mut net, cleo, bob, None).expect("she sees him");
    assert_eq!(standing(&net, cleo), [Standing::Sent], "she may have just come");
    assert!(net.peer(bob).proposals().is_empty());
    net.pass(SEEN_WITHIN);
    assert_eq!(standing(&net, cleo), [Standing::NotTaken]);
    // Once he sees her, what she asked a moment ago is heard.
    invite(&mut net, cleo, bob, None).expect("she sees him");
    see(&mut net, cleo, bob);
    net.settle();
    assert_eq!(standing(&net, cleo), [Standing::Shown]);
    assert_eq!(net.peer(bob).proposals().len(), 1);
    // Ada has gone.
    let peer = net.nodes[ada].device;
    net.input(bob, Input::Lost { peer });
    assert!(matches!(invite(&mut net, bob, ada, None), Err(CommandError::NotNear)));
}

#[test]
fn an_invitation_in_anothers_name_ends_the_line() {
    let (mut net, ada, bob) = neighbours();
    let cleo = net.add("Cleo");
    invite(&mut net, ada, bob, None).expect("he is near");
    let sent = net.sent.iter().find_map(|(from, _, bytes)| {
        let frame = Frame::from_bytes(bytes).ok().filter(|_| *from == ada)?;
        matches!(frame, Frame::Propose { .. }).then_some(frame)
    });
    let Some(Frame::Propose {
        token,
        person,
        identity,
        ..
    }) = sent
    else {
        panic!("nothing was sent");
    };
    let empty = IdentityBundle { records: Vec::new() };
    for (person, identity) in [
        (person, identity.clone()),
        (person, empty.clone()),
        (net.person(cleo), empty),
    ] {
        see(&mut net, cleo, bob);
        net.connect(cleo, bob);
        net.drain();
        let forged = Frame::Propose {
            token: [9; 16],
            person,
            identity,
            invite: None,
        };
        let peer = net.nodes[cleo].device;
        net.input(
            bob,
            Input::Frame {
                peer,
                bytes: forged.to_bytes(),
            },
        );
        net.drain();
        assert!(!net.lines_of(bob).contains(&cleo));
    }
    assert_eq!(net.peer(bob).proposals().len(), 1);
    // Nor can it be repeated without end.
    let bytes = Frame::Propose {
        token,
        person,
        identity,
        invite: None,
    }
    .to_bytes();
    let peer = net.nodes[ada].device;
    for _ in 0..100 {
        net.input(
            bob,
            Input::Frame {
                peer,
                bytes: bytes.clone(),
            },
        );
    }
    net.drain();
    assert_eq!(net.peer(bob).proposals().len(), 1);
    assert!(net.sent.len() < 200, "answers are bounded");
}

#[test]
fn a_frame_of_a_later_version_is_passed_over() {
    let (mut net, ada, bob) = neighbours();
    let kitchen = net.room(ada, "kitchen");
    net.join(ada, bob, kitchen);
    let peer = net.nodes[ada].device;
    net.input(
        bob,
        Input::Frame {
            peer,
            bytes: vec![100, 1, 2, 3],
        },
    );
    net.drain();
    net.say(ada, kitchen, "still here");
    net.settle();
    assert_eq!(net.texts(bob, kitchen), ["still here"]);
    assert!(net.lines_of(bob).contains(&ada));
    net.input(
        bob,
        Input::Frame {
            peer,
            bytes: vec![50, 1, 2, 3],
        },
    );
    assert!(
        !net.lines_of(bob).contains(&ada),
        "one that cannot be left out ends the line"
    );
}
