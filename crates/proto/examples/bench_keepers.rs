//! Availability with keepers: whoever spoke is gone, the reader comes back some hours later, and keepers that are there nine hours of ten are all there is.
//!
//! The peers are the real ones; lines are perfect, keepers come and go by themselves (exponential times: up nine hours, down one hour in the mean). In each trial Ada says something, stays
//! until the program tells her that it is safe to go offline, ten minutes at most, and leaves; Bob comes after eight hours in the mean, and reads or does not. Nobody else
//! is there at any time. With fewer than two keepers there is no second holder to wait for: Ada leaves after half a minute.
#![allow(clippy::unwrap_used, reason = "a bench")]

#[path = "../tests/net/mod.rs"]
mod net;
mod world;

use std::time::Duration;

use net::Net;
use offhook_proto::history::RoomId;
use offhook_proto::keeper::Limits;
use offhook_proto::peer::Command;
use offhook_proto::peer::view::LineView;
use world::{figure, table_head};

const UP_S: f64 = 9.0 * 3600.0;
const DOWN_S: f64 = 3600.0;
const AWAY_S: f64 = 8.0 * 3600.0;
/// How long Ada waits to be told that it is safe to leave.
const PATIENCE: Duration = Duration::from_secs(600);
/// Within this time of coming back counts as at once: dials, an answer.
const AT_ONCE: Duration = Duration::from_secs(30);
/// How often it is looked whether something holds.
const LOOK: Duration = Duration::from_secs(10);
const AN_HOUR: Duration = Duration::from_secs(3600);
const TRIALS: u32 = 3000;
/// Trials in one room; then a new one is made.
const TRIALS_OF_ROOM: u32 = 30;

fn main() {
    table_head();
    for keepers in [0, 1, 2, 3, 4, 6] {
        let mut dice = Dice(1000 + keepers as u64);
        let mut count = Count::default();
        while count.trials < TRIALS {
            World::new(keepers, &mut dice).play(&mut dice, &mut count);
        }
        count.print(keepers);
    }
}

/// Outcomes.
#[derive(Default)]
struct Count {
    trials: u32,
    at_once: u32,
    in_an_hour: u32,
    /// Ada was told that it is safe to leave.
    safe: u32,
    /// Of those, what came within an hour.
    safe_in_an_hour: u32,
}

impl Count {
    fn print(&self, keepers: usize) {
        let part = |n: u32, of: u32| format!("{:.2} % ({n} of {of})", 100.0 * f64::from(n) / f64::from(of.max(1)));
        let goal = if keepers == 3 { ">= 99.9 %" } else { "-" };
        figure(
            &format!("{keepers} keepers of 90 %: read at once"),
            goal,
            &part(self.at_once, self.trials),
        );
        figure("  within an hour", goal, &part(self.in_an_hour, self.trials));
        figure(
            "  told that it is safe before leaving",
            "-",
            &part(self.safe, self.trials),
        );
        figure("  of those within an hour", "-", &part(self.safe_in_an_hour, self.safe));
    }
}

struct World {
    net: Net,
    room: RoomId,
    keepers: Vec<Keeper>,
}

struct Keeper {
    at: usize,
    is_up: bool,
    /// When it changes.
    until: std::time::Instant,
}

const ADA: usize = 0;
const BOB: usize = 1;

impl World {
    fn new(keepers: usize, dice: &mut Dice) -> Self {
        let mut net = Net::new(1);
        net.add("Ada");
        net.add("Bob");
        let room = net.room(ADA, "kitchen");
        net.join(ADA, BOB, room);
        let mut all = Vec::new();
        for i in 0..keepers {
            let at = net.add(&format!("Keeper {i}"));
            net.command(
                at,
                Command::Keep {
                    limits: Limits::default(),
                },
            )
            .unwrap();
            let keeper = net.peer(at).keeper_address().unwrap();
            net.command(ADA, Command::AddKeeper { room, keeper }).unwrap();
            net.settle();
            all.push(at);
        }
        net.offline(ADA);
        net.offline(BOB);
        let now = net.now;
        let keepers = all.into_iter().map(|at| Keeper {
            at,
            is_up: true,
            until: now + dice.time(UP_S),
        });
        let keepers = keepers.collect();
        Self { net, room, keepers }
    }

    fn play(mut self, dice: &mut Dice, count: &mut Count) {
        // The keepers' first outages come at their own times.
        self.pass(Duration::from_secs(24 * 3600), dice, |_| false);
        for trial in 0..TRIALS_OF_ROOM {
            self.net.online(ADA);
            let words = format!("said in trial {trial}");
            let id = self.net.say(ADA, self.room, &words);
            let is_safe = |net: &Net| net.peer(ADA).where_is(id).unwrap().is_some_and(|at| at.kept.len() >= 2);
            let safe = self.pass(if self.keepers.len() > 1 { PATIENCE } else { AT_ONCE }, dice, is_safe);
            self.net.offline(ADA);
            self.pass(dice.time(AWAY_S), dice, |_| false);

            let room = self.room;
            let has_it = |net: &Net| {
                let newest = net.peer(BOB).timeline(room, None, 1).unwrap().unwrap_or_default();
                matches!(newest.last(), Some(LineView::Entry(entry)) if entry.text == words)
            };
            self.net.online(BOB);
            let at_once = self.pass(AT_ONCE, dice, has_it);
            let in_an_hour = at_once || !self.keepers.is_empty() && self.pass(AN_HOUR - AT_ONCE, dice, has_it);
            count.trials += 1;
            count.at_once += u32::from(at_once);
            count.in_an_hour += u32::from(in_an_hour);
            count.safe += u32::from(safe);
            count.safe_in_an_hour += u32::from(safe && in_an_hour);
            // They meet before the next trial, so that each stands for itself.
            self.net.online(ADA);
            self.pass(Duration::from_secs(300), dice, |_| false);
            self.net.offline(ADA);
            self.net.offline(BOB);
            self.pass(dice.time(AWAY_S), dice, |_| false);
        }
    }

    /// Lets time pass until something holds, with keepers that come and go. Whether it held.
    fn pass(&mut self, time: Duration, dice: &mut Dice, until: impl Fn(&Net) -> bool) -> bool {
        let end = self.net.now + time;
        loop {
            if until(&self.net) {
                return true;
            }
            let now = self.net.now;
            if now >= end {
                return false;
            }
            let change = self.keepers.iter().map(|keeper| keeper.until).min().unwrap_or(end);
            let alone = [ADA, BOB].iter().all(|at| !self.net.nodes[*at].online);
            // Nobody is there to look at anything: in one step to the next change.
            let step = if alone { Duration::MAX } else { LOOK };
            let step = step.min(end - now).min(change.saturating_duration_since(now));
            self.net.pass(step);
            let now = self.net.now;
            for keeper in self.keepers.iter_mut().filter(|keeper| keeper.until <= now) {
                keeper.is_up = !keeper.is_up;
                if keeper.is_up {
                    self.net.online(keeper.at);
                } else {
                    self.net.offline(keeper.at);
                }
                keeper.until = now + dice.time(if keeper.is_up { UP_S } else { DOWN_S });
            }
        }
    }
}

/// Splitmix64.
struct Dice(u64);

impl Dice {
    /// An exponentially distributed time.
    fn time(&mut self, mean_s: f64) -> Duration {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let unit = ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
        Duration::from_secs_f64(-mean_s * (1.0 - unit).ln())
    }
}
