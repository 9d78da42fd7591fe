//! A look into rooms that no line covers: how long it lasts.

mod net;

use std::time::Duration;

use net::Net;
use offhook_proto::overlay::plan;

/// The frame by which a peer says what it holds.
const SUMMARY: u8 = 1;

/// Ada has more rooms than lines, one with each friend, and none of them can call her.
#[test]
fn a_look_goes_on_until_the_other_side_has_said_what_it_holds() {
    let mut net = Net::new(1);
    let ada = net.add("Ada");
    let mut rooms = Vec::new();
    for number in 0..plan::LINES + 2 {
        let friend = net.add(&format!("Friend {number}"));
        let room = net.room(friend, "den");
        net.join(friend, ada, room);
        net.unanswered.insert((friend, ada));
        rooms.push((friend, room));
    }
    net.settle();
    net.offline(ada);
    net.pass(Duration::from_secs(1));
    for (friend, room) in &rooms {
        net.say(*friend, *room, "good evening");
    }
    // A network that stalls: the first thing that they say is that they are there, and nothing comes after it.
    net.swallowed
        .extend(rooms.iter().map(|(friend, _)| (*friend, ada, SUMMARY)));
    net.online(ada);
    net.pass(Duration::from_secs(8));
    assert_eq!(net.lines_of(ada).len(), rooms.len(), "none has told what it holds");
    // And then they are not taken to have been looked into.
    net.pass(Duration::from_secs(30));
    net.swallowed.clear();
    net.pass(Duration::from_secs(400));
    let read = rooms
        .iter()
        .filter(|(_, room)| net.texts(ada, *room) == ["good evening"]);
    assert_eq!(read.count(), rooms.len());
}
