//! `offhook join`: a checklist with times, and a reason at the end of the wait.

use std::time::{Duration, Instant};

use hyper::Method;
use serde::Serialize;

use super::{Context, Done, Out, Stop};
use crate::api::model::{Event, NewJoin, RoomMade, Step};
use crate::client::{Client, Target};
use crate::flags::Join;
use crate::problem::{Kind, Problem};
use crate::proto::rooms::Invite;
use crate::render::{clean_line, count, moment, short};

/// A join that has come to its end, or goes on without being waited for.
#[derive(Debug, Serialize)]
struct Joined {
    room: String,
    name: String,
    /// True once the newest messages can be read.
    joined: bool,
    seconds: f64,
    steps: Vec<Timed>,
}

/// A step and when it was reached.
#[derive(Debug, Serialize)]
struct Timed {
    seconds: f64,
    #[serde(flatten)]
    step: Step,
}

pub(super) async fn run(context: &Context, flags: Join) -> Done {
    follow(&context.node, context.out, &flags.invite.join(" "), flags.wait).await
}

/// Redeems an invite and follows what comes of it for at most `wait_s` seconds.
pub(super) async fn follow(node: &Client, out: Out, invite: &str, wait_s: u64) -> Done {
    let parsed = parse(invite)?;
    // Followed before the join begins: no step can be missed.
    let mut events = node.events().await?;
    let start = Instant::now();
    let new = NewJoin {
        invite: invite.to_owned(),
    };
    let made: RoomMade = node.send(Method::POST, Target::new(&["joins"]), Some(&new)).await?;
    let mut checklist = Checklist {
        out,
        start,
        joined: Joined {
            room: made.room,
            name: made.name,
            joined: false,
            seconds: 0.0,
            steps: Vec::new(),
        },
    };
    checklist.say(&format!(
        "invite to {}, valid until {}, names {} to knock at",
        clean_line(&parsed.room_name),
        moment(&crate::api::model::time(parsed.expires_ms)),
        count(parsed.doorways.len() as u64, "member")
    ));
    if wait_s > 0 {
        let waited = tokio::time::timeout(Duration::from_secs(wait_s), checklist.follow(&mut events)).await;
        match waited {
            Ok(ended) => ended?,
            Err(_) => return Err(checklist.not_joined(wait_s).into()),
        }
    }
    checklist.joined.seconds = seconds(start);
    out.either(&checklist.joined, |style| {
        let (name, id) = (
            style.bold(&clean_line(&checklist.joined.name)),
            short(&checklist.joined.room),
        );
        match checklist.joined.joined {
            true => format!("you are in {name} ({id}); read with `offhook log {id}`\n"),
            false => format!("knocking at {name} ({id}); `offhook room list` shows when you are in\n"),
        }
    })
}

/// Reads an invite, so that a damaged one is refused before anything is done.
pub(super) fn parse(invite: &str) -> Result<Invite, Problem> {
    Invite::from_text(invite).map_err(|bad| Problem::new(Kind::BadInvite, bad.to_string()))
}

struct Checklist {
    out: Out,
    start: Instant,
    joined: Joined,
}

impl Checklist {
    async fn follow(&mut self, events: &mut crate::client::Events) -> Result<(), Stop> {
        while let Some(event) = events.next().await? {
            let Event::Join { room, step } = event else { continue };
            if room != self.joined.room {
                continue;
            }
            self.say(&words(&step));
            self.joined.steps.push(Timed {
                seconds: seconds(self.start),
                step: step.clone(),
            });
            match step {
                Step::Readable { .. } => {
                    self.joined.joined = true;
                    return Ok(());
                }
                Step::Refused { why, last: true } => return Err(refused(&why).into()),
                _ => {}
            }
        }
        Err(Problem::new(
            Kind::NoNode,
            "the node stopped; start it with `offhook up`, it goes on joining",
        )
        .into())
    }

    /// One line with its time.
    fn say(&self, line: &str) {
        self.out.talk(&format!("{:6.1} s  {line}", seconds(self.start)));
    }

    /// Why it took too long, by the furthest step.
    fn not_joined(&self, wait_s: u64) -> Problem {
        let steps = &self.joined.steps;
        let has = |wanted: fn(&Step) -> bool| steps.iter().any(|timed| wanted(&timed.step));
        let reason = if has(|step| matches!(step, Step::Admitted { .. })) {
            "you are let in, but the history has not arrived yet".to_owned()
        } else if let Some(why) = steps.iter().rev().find_map(|timed| match &timed.step {
            Step::Refused { why, .. } => Some(why),
            _ => None,
        }) {
            format!("refused by a member ({}), and no other has answered", clean_line(why))
        } else if has(|step| matches!(step, Step::Asked { .. })) {
            "a member was asked to let you in and has not answered; is their machine asleep?".to_owned()
        } else {
            "none of the members that the invite names could be reached; one of them must be running `offhook up`, on this network or \
             where this machine can reach them"
                .to_owned()
        };
        let detail = format!(
            "not in after {wait_s} s: {reason}. The node goes on trying; `offhook room list` shows when you are in"
        );
        Problem::new(Kind::NotJoined, detail)
    }
}

fn refused(why: &str) -> Problem {
    let detail = format!("you were not let in: {}; ask for another invite", clean_line(why));
    Problem::new(Kind::JoinRefused, detail)
}

fn words(step: &Step) -> String {
    match step {
        Step::Knocking { device } => format!("trying to reach {}", short(device)),
        Step::Asked { device } => format!("reached {}, asked to be let in", short(device)),
        Step::Admitted { by } => format!("let in by {}; the keys are here", short(by)),
        Step::Verified { members } => format!("membership verified: {}", count(*members as u64, "member")),
        Step::Readable { entries, missing: 0 } => format!("readable: {}", count(*entries, "message")),
        Step::Readable { entries, missing } => {
            format!("readable: {}, {missing} still to come", count(*entries, "message"))
        }
        Step::Refused { why, .. } => format!("refused: {}", clean_line(why)),
    }
}

/// Seconds since `start`, to the millisecond.
fn seconds(start: Instant) -> f64 {
    start.elapsed().as_millis() as f64 / 1000.0
}
