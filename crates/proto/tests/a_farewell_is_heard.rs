//! Who leaves while nobody listens tells the others later.

mod net;

use net::Net;
use offhook_proto::peer::Command;
use offhook_proto::rooms::Role;

#[test]
fn a_leave_said_offline_reaches_the_others() {
    let mut net = Net::new(1);
    let (ada, bob) = (net.add("Ada"), net.add("Bob"));
    let room = net.room(ada, "kitchen");
    net.join(ada, bob, room);
    let person = net.person(bob);
    net.command(
        ada,
        Command::SetRole {
            room,
            person,
            role: Role::Owner,
        },
    )
    .unwrap();
    net.settle();
    net.offline(bob);
    net.command(bob, Command::LeaveRoom { room }).unwrap();
    let store = net.peer(bob).store().clone();
    net.reopen(bob, store);
    assert_eq!(net.peer(ada).members(room).unwrap().unwrap().len(), 2);
    net.online(bob);
    net.settle();
    assert_eq!(net.peer(ada).members(room).unwrap().unwrap().len(), 1);
    net.say(ada, room, "alone");
    net.settle();
    assert!(!net.texts(bob, room).contains(&"alone".to_owned()));
}
