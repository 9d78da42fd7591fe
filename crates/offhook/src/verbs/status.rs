//! `offhook status`: this node, its rooms, its peers.

use super::{Context, Done};
use crate::api::model::{Peer, Room, Standing, Status};
use crate::client::Target;
use crate::render::{Style, clean_line, count, moment, pad, short};

pub(super) async fn run(context: &Context) -> Done {
    let status: Status = context.node.get(Target::new(&["status"])).await?;
    context.out.either(&status, |style| text(&status, style))
}

fn text(status: &Status, style: Style) -> String {
    let mut lines = vec![
        format!(
            "you      {}  person {}  device {}",
            style.bold(&clean_line(&status.name)),
            short(&status.person),
            short(&status.device)
        ),
        format!("home     {}", status.home),
        format!("network  {}", status.network),
        format!(
            "version  {}, up since {}",
            status.versions.offhook,
            moment(&status.since)
        ),
    ];
    if let Some(relay) = &status.relay {
        lines.push(format!(
            "relay    {} carries to here what cannot come directly",
            clean_line(relay)
        ));
    }
    if let Some(own) = &status.keeper {
        lines.extend(super::keepers::own_lines(own));
    }
    lines.push(format!("offline  {}", safety(&status.rooms)));
    lines.push(style.dim(if status.rooms.is_empty() {
        "no rooms yet; make one with `offhook room new NAME`"
    } else {
        "rooms"
    }));
    lines.extend(room_lines(&status.rooms, style));
    if !status.peers.is_empty() {
        lines.push(style.dim("peers"));
    }
    lines.extend(status.peers.iter().map(|peer| peer_line(peer, style)));
    lines.join("\n") + "\n"
}

/// Whether this node can go offline without anybody missing what was said here.
fn safety(rooms: &[Room]) -> String {
    match rooms.iter().map(|room| room.exposed).sum::<u64>() {
        0 => "safe to go offline: two others hold all that you said, or nobody else is in the room".to_owned(),
        1 => "not yet safe to go offline: one of your entries is not held by two others".to_owned(),
        n => format!("not yet safe to go offline: {n} of your entries are not held by two others"),
    }
}

/// Rooms as a table.
pub(super) fn room_lines(rooms: &[Room], style: Style) -> Vec<String> {
    let widest = rooms.iter().map(|room| room.name.chars().count()).max().unwrap_or(0);
    let line = |room: &Room| {
        let mut facts = vec![
            count(room.members as u64, "member"),
            format!("{} online", room.members_online),
            count(room.entries, "message"),
        ];
        let extra = [
            (room.unread, "unread"),
            (room.missing, "missing"),
            (room.sealed, "not readable yet"),
            (room.exposed, "not held by two others yet"),
        ];
        facts.extend(
            extra
                .iter()
                .filter(|(n, _)| *n > 0)
                .map(|(n, what)| format!("{n} {what}")),
        );
        match room.standing {
            Standing::Member => {}
            Standing::Joining => facts = vec!["knocking: not let in yet".to_owned()],
            Standing::Left => facts.push("you left".to_owned()),
            Standing::Removed => facts.push(match &room.why_out {
                Some(why) => format!("you are out: {why}"),
                None => "you were removed".to_owned(),
            }),
        }
        let name = style.bold(&pad(&clean_line(&room.name), widest));
        format!("  {}  {name}  {}", style.dim(short(&room.room)), facts.join(", "))
    };
    rooms.iter().map(line).collect()
}

fn peer_line(peer: &Peer, style: Style) -> String {
    let path = match (&peer.path, peer.up, &peer.seen) {
        (Some(path), true, _) => format!("up, {path}"),
        (None, true, _) => "up".to_owned(),
        (_, false, Some(seen)) => format!("down, last up {}", moment(seen)),
        (_, false, None) => "down, never reached".to_owned(),
    };
    let name = style.bold(&clean_line(&peer.name));
    format!(
        "  {}  {name}  {path}, {}",
        style.dim(short(&peer.device)),
        count(peer.rooms as u64, "shared room")
    )
}
