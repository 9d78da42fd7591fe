//! `offhook keeper`, `offhook room keepers ...`.

use hyper::Method;

use super::{Context, Done};
use crate::api::model::{Keeper, KeeperNode, Keepers, NewKeeper};
use crate::client::Target;
use crate::flags::KeepersVerb;
use crate::render::{Style, clean_line, count, moment, short};

pub(super) async fn run(context: &Context, room: &str, verb: Option<KeepersVerb>) -> Done {
    let target = || Target::new(&["rooms", room, "keepers"]);
    let keepers: Keepers = match verb {
        None => context.node.get(target()).await?,
        Some(KeepersVerb::Add { address }) => context.node.post(target(), &NewKeeper { address }).await?,
        Some(KeepersVerb::Remove { keeper }) => {
            let target = Target::new(&["rooms", room, "keepers", &keeper]);
            context.node.send(Method::DELETE, target, None::<&()>).await?
        }
    };
    if context.out.json {
        return keepers.keepers.iter().try_for_each(|keeper| context.out.object(keeper));
    }
    for keeper in &keepers.keepers {
        context.out.data(&line(keeper, context.out.style))?;
    }
    let there = keepers.keepers.len();
    if there < keepers.advised {
        let advice = match there {
            0 => "no keepers: what is said waits with the members who have it; add one with `offhook room keepers R add ADDRESS`".to_owned(),
            _ => format!("{} are advised: with {there}, what is said may wait until a member is back", keepers.advised),
        };
        context.out.talk(&advice);
    }
    Ok(())
}

fn line(keeper: &Keeper, style: Style) -> String {
    let mut facts = vec![match (keeper.up, keeper.pending, &keeper.seen) {
        (true, false, _) => "up".to_owned(),
        (_, true, _) => "not reached yet to open its vault".to_owned(),
        (false, _, Some(seen)) => format!("down, last answered {}", moment(seen)),
        (false, _, None) => "down, never reached from here".to_owned(),
    }];
    facts.push(format!("holds {}", entries(keeper.holds)));
    if keeper.lacks > 0 {
        facts.push(format!("lacks {}", keeper.lacks));
    }
    if let (Some(bytes), Some(max)) = (keeper.bytes, keeper.bytes_max) {
        facts.push(format!("{} of {} KiB", bytes.div_ceil(1024), max / 1024));
    }
    if let Some(days) = keeper.days {
        facts.push(format!("keeps messages {days} days"));
    }
    if let Some(permille) = keeper.uptime_permille {
        facts.push(format!(
            "there {}.{} % of the times tried",
            permille / 10,
            permille % 10
        ));
    }
    if keeper.proofs > 0 {
        facts.push(format!("proved it {}", times(keeper.proofs)));
    }
    if let Some(fault) = &keeper.fault {
        facts.push(style.bold(&clean_line(fault)));
    }
    format!("  {}  {}\n", style.bold(short(&keeper.device)), facts.join(", "))
}

fn entries(n: u64) -> String {
    match n {
        1 => "1 entry".to_owned(),
        n => format!("{n} entries"),
    }
}

fn times(n: u32) -> String {
    match n {
        1 => "once".to_owned(),
        n => format!("{n} times"),
    }
}

/// What a node keeps for others, in a line or two.
pub(super) fn own_lines(own: &KeeperNode) -> Vec<String> {
    vec![
        format!(
            "keeper   for {}: {}, {} KiB",
            count(own.rooms as u64, "room"),
            entries(own.entries),
            own.bytes.div_ceil(1024)
        ),
        format!("address  {}", own.address),
    ]
}
