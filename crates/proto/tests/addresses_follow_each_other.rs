//! Where a device is may change twice within a millisecond, as when it learns its public address and its relay from one report: the last word counts.

mod net;

use net::Net;
use offhook_proto::peer::{Input, Output};

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
