//! Where a device is may change twice within a millisecond, as when it learns its public address and its relay from one report: the last word counts.

#![allow(clippy::unwrap_used)]

mod net;

use std::net::SocketAddr;
use std::time::Duration;

use net::Net;
use offhook_proto::peer::{Command, Input, Output, Peer, Reply};
use offhook_proto::rooms::Role;

const RELAY: &str = "http://198.51.100.1:3340/";

#[test]
fn the_second_of_two_records_of_one_millisecond_is_believed() {
    let mut net = Net::new(1);
    let (ada, bob) = (net.add("Ada"), net.add("Bob"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    net.settle();
    for relay in [None, Some(RELAY.to_owned())] {
        let addresses = vec!["203.0.113.7:4433".parse().unwrap()];
        net.input(bob, Input::OwnAddresses { addresses, relay });
    }
    net.drain();
    net.offline(bob);
    let (peer, now) = (net.nodes[bob].device, net.now);
    let outputs = net.nodes[ada].peer.handle(Input::TryPeer { peer }, now).unwrap();
    let relays: Vec<Option<String>> = (outputs.0.into_iter())
        .filter_map(|output| match output {
            Output::Dial { peer: to, relay, .. } if to == peer => Some(relay),
            _ => None,
        })
        .collect();
    assert_eq!(relays, [Some(RELAY.to_owned())]);
}

#[test]
fn the_address_that_worked_is_tried_first_while_the_device_names_it() {
    let (dead, works, other) = ("198.51.100.1:1", "203.0.113.7:1", "203.0.113.9:1");
    let (mut net, [ada, bob]) = reached_at(dead, works);
    assert_eq!(tried_after_restart(&mut net, ada, bob), [works]);

    net.online(bob);
    named(&mut net, bob, &[dead, works, other]);
    assert_eq!(tried_after_restart(&mut net, ada, bob)[0], works);

    net.online(bob);
    named(&mut net, bob, &[dead, other]);
    assert_eq!(tried_after_restart(&mut net, ada, bob), [dead, other]);
}

#[test]
fn an_invite_puts_no_address_before_the_one_that_worked() {
    let (dead, works) = ("198.51.100.1:1", "203.0.113.7:1");
    let (mut net, [ada, bob]) = reached_at(dead, works);
    let garden = net.room(bob, "garden");
    let invite = Command::Invite {
        room: garden,
        expires_s: 3600,
        uses: 1,
        role: Role::Member,
        only_me: true,
    };
    let Ok(Reply::Invite(invite)) = net.command(bob, invite) else {
        panic!("no invite")
    };
    net.command(ada, Command::Join { invite }).unwrap();
    assert_eq!(tried_after_restart(&mut net, ada, bob), [works]);
}

#[test]
fn a_line_that_was_lost_is_sought_where_it_was() {
    let (dead, works) = ("198.51.100.1:1", "203.0.113.7:1");
    let (mut net, [ada, bob]) = reached_at(dead, works);
    let (sought, later) = (net.nodes[bob].device, net.now + Duration::from_secs(120));
    let outputs = net.nodes[ada].peer.handle(Input::Timeout, later).unwrap().0;
    let dials: Vec<SocketAddr> = (outputs.into_iter())
        .filter_map(|output| match output {
            Output::Dial { peer, addresses, .. } if peer == sought => Some(addresses),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(dials, [works.parse().unwrap()]);
}

/// Ada knows two addresses of Bob's, in this order, and has reached him at the second.
fn reached_at(dead: &str, works: &str) -> (Net, [usize; 2]) {
    let mut net = Net::new(2);
    let ([ada, bob], _) = net.kitchen_of(["Ada", "Bob"]);
    named(&mut net, bob, &[dead, works]);
    net.offline(bob);
    net.pass(Duration::from_secs(60));
    let peer = net.nodes[bob].device;
    let (exporter, address) = ([9; 32], Some(works.parse().unwrap()));
    net.input(
        ada,
        Input::LineUp {
            peer,
            exporter,
            address,
        },
    );
    net.input(ada, Input::LineDown { peer });
    (net, [ada, bob])
}

fn named(net: &mut Net, who: usize, addresses: &[&str]) {
    net.pass(Duration::from_secs(60));
    let addresses = addresses.iter().map(|at| at.parse().unwrap()).collect();
    net.input(who, Input::OwnAddresses { addresses, relay: None });
    net.settle();
}

/// Where a device is sought first by one that has just started.
fn tried_after_restart(net: &mut Net, who: usize, whom: usize) -> Vec<String> {
    net.offline(whom);
    let (store, secrets) = (net.peer(who).store().clone(), net.nodes[who].secrets.clone());
    let mut started = Peer::open(store, secrets, "", [7; 32], net.now).unwrap();
    let sought = net.nodes[whom].device;
    let mut dials = Vec::new();
    for input in [Input::NetworkChanged, Input::TryPeer { peer: sought }] {
        dials.extend(started.handle(input, net.now).unwrap().0);
    }
    let dials = dials.into_iter().filter_map(|output| match output {
        Output::Dial { peer, addresses, .. } if peer == sought => Some(addresses),
        _ => None,
    });
    dials.flatten().map(|at| at.to_string()).collect()
}
