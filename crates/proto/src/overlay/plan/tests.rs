//! What a plan chooses, seen on rooms and peers laid out by hand, then whatever they are.

use proptest::prelude::*;

use super::*;
use crate::overlay::ledger::Urgency;

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
fn start() -> Instant {
    Instant::now()
}

const SECOND: Duration = Duration::from_secs(1);

fn device(n: u16) -> DeviceId {
    let mut id = [0; 32];
    id[..2].copy_from_slice(&n.to_be_bytes());
    DeviceId(id)
}

fn quiet() -> Room {
    Room {
        spoken: None,
        is_pair: false,
        is_urgent: false,
        opened: None,
    }
}

fn peer(rooms: impl IntoIterator<Item = u32>, now: Instant) -> Peer {
    Peer {
        rooms: rooms.into_iter().collect(),
        line: None,
        dialling_since: None,
        due: Some(now),
        failures: 0,
        address: None,
        is_near: false,
        seen_ms: 0,
        heard: None,
    }
}

/// Rooms `0..rooms`, and peers numbered from 1 in the order given.
fn sight(rooms: u32, peers: Vec<Peer>) -> Sight {
    Sight {
        rooms: (0..rooms).map(|n| (n, quiet())).collect(),
        peers: (1..).map(device).zip(peers).collect(),
    }
}

/// Plays the network: what is dialled comes up at once and is in step after a second; what is closed goes.
struct Play {
    planner: Planner,
    sight: Sight,
    now: Instant,
    dials: Vec<(Instant, DeviceId, Reason)>,
    lines_max: usize,
    plans: usize,
}

impl Play {
    fn new(sight: Sight, now: Instant) -> Self {
        Self {
            planner: Planner::new(Limits::default()),
            sight,
            now,
            dials: Vec::new(),
            lines_max: 0,
            plans: 0,
        }
    }

    fn lines(&self) -> usize {
        self.sight.peers.values().filter(|peer| peer.line.is_some()).count()
    }

    fn step(&mut self) -> Plan {
        let plan = self.planner.plan(&self.sight, self.now);
        self.plans += 1;
        for (device, reason) in &plan.dial {
            self.dials.push((self.now, *device, *reason));
            let peer = self.sight.peers.get_mut(device).unwrap();
            peer.line = Some(Line {
                since: self.now,
                last_frame: self.now,
                greeted: peer.rooms.clone(),
                is_busy: false,
                is_own: true,
            });
        }
        for device in &plan.close {
            let peer = self.sight.peers.get_mut(device).unwrap();
            peer.line = None;
            peer.due = Some(self.now + Duration::from_secs(120));
        }
        self.lines_max = self.lines_max.max(self.lines());
        plan
    }

    fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let plan = self.step();
            let soon = self.now + SECOND;
            let next = match plan.dial.is_empty() && plan.close.is_empty() {
                true => plan.again.unwrap_or(end),
                false => soon,
            };
            self.now = next.max(self.now + Duration::from_millis(1)).min(end);
        }
    }
}

/// One room of `peers` members, one of whom has a line, in which something was said at `said`.
fn spoken_room(peers: usize, said: Instant) -> Sight {
    let mut sight = sight(1, (0..peers).map(|_| peer([0], said)).collect());
    sight.rooms.get_mut(&0).unwrap().spoken = Some(said);
    sight
}

fn spread(play: &Play) -> Vec<DeviceId> {
    let calls = play.dials.iter().filter(|dial| dial.2 == Reason::Spread);
    calls.map(|dial| dial.1).collect()
}

#[test]
fn those_of_whom_nothing_came_are_called_until_there_are_lines_enough() {
    let now = start();
    let mut play = Play::new(spoken_room(20, now), now);
    play.run_for(SPREAD_FOR);
    let called = spread(&play);
    // Some of the lines are for mixing.
    assert!(
        called.len() > 1 && called.len() + COVER_ACTIVE <= SPREAD_LINES,
        "{called:?}"
    );
    let at = |device: &DeviceId| play.dials.iter().find(|dial| dial.1 == *device).unwrap().0;
    assert!(called.iter().all(|device| at(device) >= now + SPREAD_AFTER));
    assert!(called.windows(2).all(|two| at(&two[1]) >= at(&two[0]) + SPREAD_GAP));
}

#[test]
fn who_was_heard_of_since_or_keeps_failing_is_not_called() {
    let now = start();
    let mut sight = spoken_room(20, now);
    for (n, peer) in sight.peers.values_mut().enumerate() {
        match n % 3 {
            0 => peer.heard = Some(now + SECOND),
            1 => peer.failures = FAILURES,
            _ => peer.heard = now.checked_sub(SECOND),
        }
    }
    let silent: BTreeSet<DeviceId> = (1..).map(device).take(20).skip(2).step_by(3).collect();
    let mut play = Play::new(sight, now);
    play.run_for(SPREAD_FOR);
    let called = spread(&play);
    assert!(
        !called.is_empty() && called.iter().all(|device| silent.contains(device)),
        "{called:?}"
    );
}

#[test]
fn whoever_does_not_answer_is_not_called_again_at_every_word() {
    let now = start();
    let mut sight = spoken_room(3, now);
    let line = Line {
        since: now,
        last_frame: now,
        greeted: BTreeSet::from([0]),
        is_busy: false,
        is_own: true,
    };
    for n in 1..=COVER_ACTIVE as u16 {
        sight.peers.get_mut(&device(n)).unwrap().line = Some(line.clone());
    }
    let mut planner = Planner::new(Limits::default());
    let mut calls = Vec::new();
    for second in 0..600 {
        let now = now + SECOND * second;
        // Something is said all the time; the other is due at once, and never answers.
        sight.rooms.get_mut(&0).unwrap().spoken = now.checked_sub(SPREAD_AFTER);
        let dials = planner.plan(&sight, now).dial;
        calls.extend(dials.iter().filter(|dial| dial.1 == Reason::Spread).map(|_| now));
    }
    assert!(!calls.is_empty());
    assert!(
        calls.windows(2).all(|two| two[1] >= two[0] + SPREAD_PERIOD),
        "{calls:?}"
    );
}

#[test]
fn one_peer_that_shares_all_rooms_is_enough() {
    let now = start();
    let mut peers = vec![peer(0..20, now)];
    peers.extend((0..20).map(|n| peer([n], now)));
    let mut play = Play::new(sight(20, peers), now);
    play.run_for(SECOND * 300);
    let covering: Vec<_> = play.dials.iter().filter(|dial| dial.2 != Reason::Mix).collect();
    assert_eq!(covering.len(), 1);
    assert_eq!(covering[0].1, device(1));
    assert_eq!(covering[0].2, Reason::Only(20));
}

#[test]
fn an_active_room_gets_a_second_line_and_loses_it_when_quiet() {
    let now = start();
    let peers = (0..4).map(|_| peer([0], now)).collect();
    let mut play = Play::new(sight(1, peers), now);
    // Before the first call for mixing.
    play.run_for(MIX_FIRST / 4);
    assert_eq!(play.lines(), 1);
    play.sight.rooms.get_mut(&0).unwrap().spoken = Some(play.now);
    play.run_for(MIX_FIRST / 4);
    assert_eq!(play.lines(), 2);
    assert_eq!(play.dials[1].2, Reason::Second(1));
    let held = play.step().held;
    assert_eq!(held[&device(1)], Reason::Only(1));
}

#[test]
fn members_of_a_covered_room_are_called_in_turn() {
    let now = start();
    let peers = (0..4).map(|_| peer([0], now)).collect();
    let mut play = Play::new(sight(1, peers), now);
    play.run_for(MIX_GAP_FEW * 5);
    let called: BTreeSet<DeviceId> = play.dials.iter().map(|(_, device, _)| *device).collect();
    assert_eq!(called.len(), 4, "one covers the room, and no other is left alone");
}

/// Twelve lines cover twelve rooms, each of which has thirty more members.
#[test]
fn members_without_a_line_are_called_soon_after_the_start_and_seldom_later() {
    let now = start();
    let covering = (0..12).map(|n| peer([n], now));
    let others = (0..360).map(|n| peer([n % 12], now));
    let mut play = Play::new(sight(12, covering.chain(others).collect()), now);
    let mixed = |play: &Play, from: Duration, to: Duration| {
        let of = |at: &Instant| (now + from..now + to).contains(at);
        (play
            .dials
            .iter()
            .filter(|(at, _, reason)| of(at) && *reason == Reason::Mix))
        .count()
    };
    play.run_for(SECOND * 3_600);
    let first = mixed(&play, Duration::ZERO, MIX_NEW_FOR);
    assert!((7..=9).contains(&first), "{first}");
    assert!(mixed(&play, MIX_NEW_FOR, SECOND * 3_600) <= 12);
    play.planner.network_changed();
    play.run_for(MIX_NEW_FOR);
    assert!(mixed(&play, SECOND * 3_600, SECOND * 3_600 + MIX_NEW_FOR) >= 7);
}

/// Lines stand to one's own side of a partition when the network is another one: the other side is called at once.
#[test]
fn after_a_change_of_network_members_without_a_line_are_called_as_soon_as_all_rooms_are_looked_into() {
    let now = start();
    let mut play = Play::new(sight(1, (0..20).map(|_| peer([0], now)).collect()), now);
    play.run_for(SECOND * 600);
    for peer in play.sight.peers.values_mut().filter(|peer| peer.line.is_none()) {
        peer.due = Some(play.now);
    }
    let changed = play.now;
    play.planner.network_changed();
    play.run_for(MIX_FIRST + SECOND);
    let mixed = (play.dials.iter()).find(|dial| dial.2 == Reason::Mix && dial.0 >= changed);
    assert!(mixed.unwrap().0 <= changed + MIX_FIRST, "{mixed:?}");

    // Where a room was not looked into, that comes first.
    play.sight.rooms.insert(1, play.sight.rooms[&0].clone());
    play.planner.network_changed();
    let changed = play.now;
    play.run_for(MIX_FIRST + SECOND);
    assert!((play.dials.iter()).all(|dial| dial.2 != Reason::Mix || dial.0 < changed));
}

/// Where nobody else answers the next is called sooner: seven of ten members are away.
#[test]
fn a_call_for_mixing_that_nobody_answers_is_followed_by_another_sooner() {
    let now = start();
    let line = Line {
        since: now,
        last_frame: now,
        greeted: BTreeSet::from([0]),
        is_busy: false,
        is_own: true,
    };
    let mut peers: Vec<Peer> = (0..100).map(|_| peer([0], now)).collect();
    for peer in peers.iter_mut().take(MIX_LINES) {
        peer.line = Some(line.clone());
    }
    let mut sight = sight(1, peers);
    let mut planner = Planner::new(Limits::default());
    let mut calls = Vec::new();
    for second in 0..3_600 {
        let now = now + SECOND * second;
        for (device, reason) in planner.plan(&sight, now).dial {
            assert_eq!(reason, Reason::Mix);
            // It fails at once.
            let peer = sight.peers.get_mut(&device).unwrap();
            (peer.failures, peer.due) = (1, Some(now + SECOND * 7_200));
            calls.push(second);
        }
    }
    let late: Vec<u32> = calls.into_iter().filter(|at| *at > 300).collect();
    assert!((30..=34).contains(&late.len()), "{late:?}");
}

#[test]
fn rooms_that_share_no_member_are_visited_once_and_then_in_turn() {
    let now = start();
    let peers = (0..40).map(|n| peer([n], now)).collect();
    let mut play = Play::new(sight(40, peers), now);
    play.run_for(SECOND * 60);
    let looked: BTreeSet<DeviceId> = play.dials.iter().map(|(_, device, _)| *device).collect();
    assert_eq!(looked.len(), 40, "every room once");
    assert!(play.lines_max <= LINES_WITH_VISITS);
    assert_eq!(play.lines(), LINES);
    let so_far = play.dials.len();
    play.run_for(SECOND * 1800);
    let later = play.dials.len() - so_far;
    let visits = (1_800 / VISIT_GAP.as_secs()) as usize;
    assert!((visits - 6..=visits + 6).contains(&later), "{later} for {visits} turns");
    assert!(play.plans < 2_000, "{} plans in half an hour", play.plans);
}

#[test]
fn a_room_of_two_gets_a_line_when_something_is_said() {
    let now = start();
    let peers = (0..30).map(|n| peer([n], now)).collect();
    let mut play = Play::new(sight(30, peers), now);
    for room in play.sight.rooms.values_mut() {
        room.is_pair = true;
    }
    play.run_for(SECOND * 120);
    assert_eq!(play.lines(), 0, "all were visited, none is held");
    let room = play.sight.rooms.get_mut(&7).unwrap();
    (room.spoken, room.is_urgent) = (Some(play.now), true);
    play.sight.peers.get_mut(&device(8)).unwrap().due = Some(play.now);
    let plan = play.step();
    assert_eq!(plan.dial, [(device(8), Reason::Write)]);
    assert_eq!(Reason::Write.urgency(false), Urgency::Urgent);
    play.sight.rooms.get_mut(&7).unwrap().is_urgent = false;
    play.run_for(PAIR_ACTIVE + IDLE + SECOND * 5);
    assert_eq!(play.lines(), 0);
}

#[test]
fn at_most_four_dials_are_in_flight() {
    let now = start();
    let mut sight = sight(40, (0..40).map(|n| peer([n], now)).collect());
    let mut planner = Planner::new(Limits::default());
    let plan = planner.plan(&sight, now);
    assert_eq!(plan.dial.len(), DIALS);
    for (device, _) in &plan.dial {
        sight.peers.get_mut(device).unwrap().dialling_since = Some(now);
    }
    assert!(planner.plan(&sight, now).dial.is_empty());
    for room in sight.rooms.values_mut() {
        room.is_urgent = true;
    }
    let waited_for = planner.plan(&sight, now).dial;
    assert_eq!(waited_for.len(), 2, "{waited_for:?}");
}

#[test]
fn who_does_not_answer_soon_is_not_waited_for() {
    let now = start();
    // Two members of each of twelve rooms.
    let mut sight = sight(12, (0..24).map(|n| peer([n % 12], now)).collect());
    let mut planner = Planner::new(Limits::default());
    let mut at = now;
    let mut dialled = Vec::new();
    for _ in 0..4 {
        for (device, _) in planner.plan(&sight, at).dial {
            sight.peers.get_mut(&device).unwrap().dialling_since = Some(at);
            dialled.push((at, device));
        }
        at += SLOW;
    }
    let by_round: Vec<usize> = (0..4)
        .map(|n| dialled.iter().filter(|(at, _)| *at == now + SLOW * n).count())
        .collect();
    assert_eq!(by_round, [DIALS, DIALS, DIALS, 0], "up to {DIALS_WITH_SLOW} in all");
    let again = planner.plan(&sight, now + Duration::from_millis(1)).again;
    assert!(again.is_some_and(|at| at <= now + SLOW), "{again:?}");
}

#[test]
fn another_member_is_called_beside_a_slow_dial() {
    let now = start();
    let mut sight = sight(1, vec![peer([0], now), peer([0], now)]);
    let mut planner = Planner::new(Limits::default());
    let first = planner.plan(&sight, now).dial;
    assert_eq!(first.len(), 1);
    sight.peers.get_mut(&first[0].0).unwrap().dialling_since = Some(now);
    assert!(planner.plan(&sight, now + SLOW / 2).dial.is_empty());
    let second = planner.plan(&sight, now + SLOW).dial;
    assert_eq!(second.len(), 1);
    assert_ne!(first[0].0, second[0].0);
}

#[test]
fn one_block_of_addresses_cannot_have_all_lines() {
    let now = start();
    let hostile = |n: u8| Peer {
        address: Some(SocketAddr::from(([198, 51, 100, n], 1))),
        seen_ms: 1_000,
        heard: None,
        ..peer([0, 1, 2], now)
    };
    let honest = |n: u8| Peer {
        address: Some(SocketAddr::from(([203, 0, n, 1], 1))),
        ..peer([0, 1, 2], now)
    };
    let mut peers: Vec<Peer> = (0..40).map(hostile).collect();
    peers.extend((0..3).map(honest));
    let mut play = Play::new(sight(60, peers), now);
    for number in 0..3 {
        play.sight.rooms.get_mut(&number).unwrap().spoken = Some(now);
    }
    // So many lines are wanted that the block would have them all.
    for room in 3..60 {
        play.sight
            .peers
            .get_mut(&device(1 + (room % 40) as u16))
            .unwrap()
            .rooms
            .insert(room);
        play.sight.rooms.get_mut(&room).unwrap().spoken = Some(now);
        play.sight
            .peers
            .get_mut(&device(41 + (room % 3) as u16))
            .unwrap()
            .rooms
            .insert(room);
    }
    play.run_for(SECOND * 30);
    let up = |from: u16, to: u16| {
        let line = |n: &u16| play.sight.peers[&device(*n)].line.is_some();
        (from..to).filter(line).count()
    };
    assert_eq!(up(41, 44), 3, "every honest peer has a line");
}

#[test]
fn the_local_network_comes_first_among_equals() {
    let now = start();
    let near = Peer {
        is_near: true,
        ..peer([0], now)
    };
    let far = Peer {
        seen_ms: 10,
        heard: None,
        ..peer([0], now)
    };
    let mut planner = Planner::new(Limits::default());
    let plan = planner.plan(&sight(1, vec![far, near]), now);
    assert_eq!(plan.dial[0].0, device(2));
}

#[test]
fn a_small_cap_means_few_lines() {
    let planner = Planner::new(Limits::new(8, None).unwrap());
    assert_eq!(planner.lines(), 2);
    let now = start();
    let mut play = Play::new(sight(40, (0..40).map(|n| peer([n], now)).collect()), now);
    play.planner = planner;
    play.run_for(SECOND * 600);
    assert!(play.lines_max <= 3, "{}", play.lines_max);
    let looked: BTreeSet<DeviceId> = play.dials.iter().map(|(_, device, _)| *device).collect();
    assert_eq!(looked.len(), 40, "slower, not lost");
}

#[test]
fn devices_that_keep_failing_are_tried_slowly() {
    let now = start();
    let mut sight = sight(20, (0..20).map(|n| peer([n], now)).collect());
    for peer in sight.peers.values_mut() {
        peer.failures = FAILURES;
    }
    let mut planner = Planner::new(Limits::default());
    let mut tried = 0;
    for second in 0..60 {
        tried += planner.plan(&sight, now + SECOND * second).dial.len();
    }
    assert_eq!(tried, 6);
}

#[test]
fn who_keeps_failing_does_not_keep_others_from_being_met() {
    let now = start();
    // Six members of one room: one has a line, one fails again and again and was seen last, the others were never met.
    let mut peers: Vec<Peer> = (0..6).map(|_| peer([0], now)).collect();
    (peers[1].failures, peers[1].seen_ms) = (FAILURES, 10);
    let mut play = Play::new(sight(1, peers), now);
    // The failing one never answers: a dial to it changes nothing.
    let failing = device(2);
    for _ in 0..60 {
        let plan = play.planner.plan(&play.sight, play.now);
        for (to, _) in plan.dial.iter().filter(|(to, _)| *to != failing) {
            play.sight.peers.get_mut(to).unwrap().line = Some(Line {
                since: play.now,
                last_frame: play.now,
                greeted: BTreeSet::from([0]),
                is_busy: false,
                is_own: true,
            });
        }
        play.now += SECOND;
    }
    assert_eq!(play.lines(), 5, "all that answer");
}

#[test]
fn a_room_is_covered_by_who_is_there_before_those_who_keep_failing_and_share_more() {
    let now = start();
    let mut peers: Vec<Peer> = (0..4).map(|_| peer([0, 1], now)).collect();
    for away in &mut peers {
        (away.failures, away.seen_ms) = (FAILURES, 10);
    }
    peers.push(peer([0], now));
    let mut planner = Planner::new(Limits::default());
    let dials = planner.plan(&sight(2, peers), now).dial;
    assert_eq!(dials[0], (device(5), Reason::Only(1)), "{dials:?}");
    assert_eq!(
        dials[1],
        (device(1), Reason::Only(1)),
        "for the room where nobody else is"
    );
    assert_eq!(dials.len(), 2);
}

#[test]
fn a_quiet_room_is_looked_into_at_who_is_there_before_those_who_keep_failing() {
    let now = start();
    // Two lines, each to a room of its own, so that both other rooms are for visits.
    let mut peers: Vec<Peer> = (0..2).map(|n| peer([n, n + 4], now)).collect();
    let mut away = peer([2, 3], now);
    (away.failures, away.seen_ms) = (FAILURES, 10);
    peers.extend([away, peer([2], now)]);
    let mut play = Play::new(sight(6, peers), now);
    play.planner = Planner::new(Limits::new(8, None).unwrap());
    let plan = play.step();
    let visits: Vec<_> = plan
        .dial
        .iter()
        .filter(|dial| matches!(dial.1, Reason::Visit(_)))
        .collect();
    assert_eq!(visits[0], &(device(4), Reason::Visit(1)), "{:?}", plan.dial);
}

/// As many lines as are held, each to a room of its own, and a quiet room beyond them is opened.
#[test]
fn a_room_that_is_opened_has_a_line_at_once_and_for_two_minutes() {
    let now = start();
    let peers = (0..40).map(|n| peer([n], now)).collect();
    let mut play = Play::new(sight(40, peers), now);
    // By then every room was looked into, and the lines of those looks are closed.
    play.run_for(SECOND * 100);
    let line_of = |play: &Play, room: u32| {
        let peer = play.sight.peers.values().find(|peer| peer.rooms.contains(&room));
        peer.unwrap().line.is_some()
    };
    let closed = (0..40).find(|room| !line_of(&play, *room)).unwrap();
    let member = device(closed as u16 + 1);
    play.sight.peers.get_mut(&member).unwrap().due = Some(play.now);
    assert!(
        play.step().dial.iter().all(|dial| dial.0 != member),
        "it was looked into before"
    );
    play.sight.rooms.get_mut(&closed).unwrap().opened = Some(play.now);
    let plan = play.step();
    assert!(plan.dial.contains(&(member, Reason::Open)), "{:?}", plan.dial);
    play.run_for(OPEN_FOR - SECOND);
    assert!(line_of(&play, closed));
    assert_eq!(play.step().held[&member], Reason::Open);
    play.run_for(SURPLUS_STAY + SECOND * 5);
    assert_ne!(
        play.step().held.get(&member),
        Some(&Reason::Open),
        "nobody has it open any more"
    );
    assert_eq!(play.lines(), LINES, "it took the place of another");
}

#[test]
fn lines_are_replaced_one_after_the_other() {
    let now = start();
    // Twelve pairs of rooms of one peer each; then twelve others, each of whom covers two pairs.
    let old = (0..12).map(|n| peer([2 * n, 2 * n + 1], now));
    let mut play = Play::new(sight(24, old.collect()), now);
    play.run_for(SECOND * 30);
    assert_eq!(play.lines(), LINES);
    for n in 0..12u16 {
        let rooms = (0..4).map(|room| (2 * u32::from(n) + room) % 24);
        play.sight.peers.insert(device(100 + n), peer(rooms, play.now));
    }
    let begun = play.now;
    play.run_for(SECOND * 150);
    let replacing = |(at, _, reason): &&(Instant, DeviceId, Reason)| *at >= begun && *reason != Reason::Mix;
    let dials = play.dials.iter().filter(replacing).count();
    assert!((1..=5).contains(&dials), "{dials} dials: at most one a minute");
    let carried = |room: u32| (play.sight.peers.values()).any(|peer| peer.line.is_some() && peer.rooms.contains(&room));
    assert!((0..24).all(carried), "no room was let go of meanwhile");
}

#[test]
fn a_line_that_others_dialled_is_left_to_them() {
    let now = start();
    let mut peers: Vec<Peer> = (0..10).map(|_| peer([0], now)).collect();
    for (n, peer) in peers.iter_mut().enumerate() {
        peer.line = Some(Line {
            since: now,
            last_frame: now,
            greeted: peer.rooms.clone(),
            is_busy: false,
            is_own: n < 5,
        });
    }
    let mut play = Play::new(sight(1, peers), now);
    play.run_for(IDLE + SECOND * 10);
    let up: Vec<bool> = play
        .sight
        .peers
        .values()
        .map(|peer| peer.line.as_ref().is_some())
        .collect();
    assert!(up[5..].iter().all(|up| *up));
}

/// It has no other way to the room; we have one: closing its line again and again costs it and us a handshake each time.
#[test]
fn who_dials_back_whenever_its_line_is_closed_is_waited_for_ever_longer() {
    let now = start();
    let line = |since, is_own, rooms: &BTreeSet<RoomNumber>| Line {
        since,
        last_frame: since,
        greeted: rooms.clone(),
        is_busy: false,
        is_own,
    };
    let needed = LINES as u32;
    let mut peers: Vec<Peer> = (0..needed).map(|room| peer([room], now)).collect();
    peers.push(peer([0], now));
    for (n, peer) in (0..).zip(&mut peers) {
        peer.line = Some(line(now, n < needed, &peer.rooms));
    }
    let mut play = Play::new(sight(needed, peers), now);
    let caller = device(LINES as u16 + 1);
    let mut closed = Vec::new();
    for second in 0..3_600 {
        play.now = now + SECOND * second;
        if play.step().close.contains(&caller) {
            closed.push(second);
            let peer = play.sight.peers.get_mut(&caller).unwrap();
            peer.line = Some(line(play.now + SECOND, false, &peer.rooms));
        }
    }
    let waits: Vec<u32> = closed.windows(2).map(|two| two[1] - two[0]).collect();
    let idle = IDLE.as_secs() as u32;
    assert_eq!(closed[0], idle);
    assert_eq!(waits, [2, 4, 8, 16].map(|times| times * idle + 1));
}

fn any_peer(now: Instant) -> impl Strategy<Value = Peer> {
    let rooms = prop::collection::btree_set(0..30u32, 0..8);
    (
        rooms,
        any::<bool>(),
        any::<bool>(),
        0..6u8,
        0..120u64,
        0..6u32,
        any::<u8>(),
    )
        .prop_map(move |(rooms, has_line, is_own, flags, idle, failures, net)| Peer {
            line: has_line.then(|| Line {
                since: now,
                last_frame: now + SECOND * idle as u32,
                greeted: rooms.clone(),
                is_busy: flags == 5,
                is_own,
            }),
            dialling_since: (!has_line && flags == 1).then(|| now + SECOND * (110 + idle as u32 % 10)),
            due: (flags != 2).then_some(now + SECOND * u32::from(flags == 3) * 500),
            failures,
            address: (flags != 4).then(|| SocketAddr::from(([203, 0, net % 3, net], 1))),
            is_near: flags == 5,
            seen_ms: idle,
            heard: (failures == 4).then_some(now),
            rooms,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_there_the_limits_hold(
        peers in start_peers(),
        spoken in prop::collection::vec(any::<(bool, bool, bool, bool)>(), 30),
        cap in 8..70u16,
    ) {
        let (now, peers) = peers;
        let mut sight = sight(30, peers);
        for (room, (said, is_pair, is_urgent, is_open)) in sight.rooms.values_mut().zip(spoken) {
            *room = Room { spoken: said.then_some(now), is_pair, is_urgent, opened: is_open.then_some(now + SECOND * 60) };
        }
        let limits = Limits::new(cap, None).unwrap();
        let mut planner = Planner::new(limits);
        let at = now + SECOND * 120;
        let plan = planner.plan(&sight, at);
        let again = Planner::new(limits).plan(&sight, at);
        prop_assert_eq!(&plan, &again, "the same sight gives the same plan");
        let dialling = sight.peers.values().filter(|peer| peer.is_awaited(at)).count();
        let waited_for = plan.dial.iter().filter(|(_, reason)| matches!(reason, Reason::Join | Reason::Write | Reason::Open));
        let (all, waited_for) = (dialling + plan.dial.len(), waited_for.count());
        // Those under way may have been waited for, too.
        let most = DIALS + if waited_for > 0 { DIALS_WAITED_FOR } else { 0 };
        prop_assert!(all == dialling || all <= most);
        for (device, _) in &plan.dial {
            let peer = &sight.peers[device];
            prop_assert!(peer.line.is_none() && !peer.is_dialling() && peer.due.is_some_and(|due| due <= at));
        }
        for (device, peer) in &sight.peers {
            let (held, closed) = (plan.held.contains_key(device), plan.close.contains(device));
            prop_assert_eq!(peer.line.is_some(), held ^ closed, "each line is held for a reason or closed");
        }
        prop_assert!(plan.again.is_none_or(|again| again > at), "no plan is due at once");
    }
}

fn start_peers() -> impl Strategy<Value = (Instant, Vec<Peer>)> {
    let now = start();
    prop::collection::vec(any_peer(now), 0..60).prop_map(move |peers| (now, peers))
}
