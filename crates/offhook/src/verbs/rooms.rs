//! `offhook room ...`, `offhook invite`, `offhook chat`.

use std::io::{self, IsTerminal as _};

use hyper::Method;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

use super::status::room_lines;
use super::{Context, Done};
use crate::api::model::{
    self, InviteMade, Member, Members, NewInvite, NewRoom, RoleChange, Room, RoomChange, RoomMade, Rooms,
};
use crate::client::Target;
use crate::flags::{Invite, RoomVerb};
use crate::render::{Style, clean_line, count, moment, pad, short, size};

pub(super) async fn run(context: &Context, verb: RoomVerb) -> Done {
    match verb {
        RoomVerb::New { name, history } => new(context, name, history).await,
        RoomVerb::List => list(context).await,
        RoomVerb::Members { room } => members(context, &room).await,
        RoomVerb::Role { room, person, role } => set_role(context, &room, &person, role).await,
        RoomVerb::Remove { room, person } => remove(context, &room, &person).await,
        RoomVerb::Leave { room } => leave(context, &room).await,
        RoomVerb::Keepers { room, verb } => super::keepers::run(context, &room, verb).await,
        RoomVerb::Limit { room, size } => limit(context, &room, size).await,
        RoomVerb::Rename { room, name } => rename(context, &room, name).await,
    }
}

async fn new(context: &Context, name: String, history: String) -> Done {
    let new = NewRoom {
        name,
        history: Some(history),
    };
    let made: RoomMade = context.node.post(Target::new(&["rooms"]), &new).await?;
    context.out.either(&made, |style| {
        let (name, id) = (style.bold(&made.name), short(&made.room));
        format!("room {name} ({id}) is made; invite somebody with `offhook invite {id}`\n")
    })
}

async fn list(context: &Context) -> Done {
    let rooms: Rooms = context.node.get(Target::new(&["rooms"])).await?;
    if context.out.json {
        return rooms.rooms.iter().try_for_each(|room| context.out.object(room));
    }
    if rooms.rooms.is_empty() {
        context.out.talk("no rooms yet; make one with `offhook room new NAME`");
    }
    let lines = room_lines(&rooms.rooms, context.out.style);
    lines.iter().try_for_each(|line| context.out.data(&format!("{line}\n")))
}

async fn members(context: &Context, room: &str) -> Done {
    let members: Members = context.node.get(Target::new(&["rooms", room, "members"])).await?;
    if context.out.json {
        return members.members.iter().try_for_each(|member| context.out.object(member));
    }
    let widest = members
        .members
        .iter()
        .map(|m| m.name.chars().count())
        .max()
        .unwrap_or(0);
    for member in &members.members {
        context.out.data(&member_line(member, widest, context.out.style))?;
    }
    Ok(())
}

fn member_line(member: &Member, widest: usize, style: Style) -> String {
    let seen = match (member.me, member.online, &member.seen) {
        (true, ..) => "you".to_owned(),
        (_, true, _) => "online".to_owned(),
        (_, _, Some(seen)) => format!("seen {}", moment(seen)),
        (_, _, None) => "never reached from here".to_owned(),
    };
    let name = style.bold(&pad(&clean_line(&member.name), widest));
    let verified = if member.verified { ", verified" } else { "" };
    let devices = count(member.devices.len() as u64, "device");
    let id = style.dim(short(&member.person));
    format!("  {id}  {name}  {}, {seen}, {devices}{verified}\n", member.role)
}

async fn set_role(context: &Context, room: &str, person: &str, role: String) -> Done {
    let target = Target::new(&["rooms", room, "members", person, "role"]);
    let done: model::Done = context
        .node
        .send(Method::PUT, target, Some(&RoleChange { role: role.clone() }))
        .await?;
    context
        .out
        .either(&done, |_| format!("{person} is now {role} of {room}\n"))
}

async fn remove(context: &Context, room: &str, person: &str) -> Done {
    let target = Target::new(&["rooms", room, "members", person]);
    let done: model::Done = context.node.send(Method::DELETE, target, None::<&()>).await?;
    context.out.either(&done, |_| {
        format!("{person} is removed from {room}; what is said from now on is sealed without them, what they had they keep\n")
    })
}

async fn leave(context: &Context, room: &str) -> Done {
    let target = Target::new(&["rooms", room, "leave"]);
    let done: model::Done = context.node.send(Method::POST, target, None::<&()>).await?;
    context.out.either(&done, |_| {
        format!("you left {room}; what was said stays readable here\n")
    })
}

async fn rename(context: &Context, room: &str, name: String) -> Done {
    let change = RoomChange {
        name: Some(name),
        ..RoomChange::default()
    };
    let renamed: Room = context
        .node
        .send(Method::PATCH, Target::new(&["rooms", room]), Some(&change))
        .await?;
    context.out.either(&renamed, |_| {
        format!("the room is now called {}\n", clean_line(&renamed.name))
    })
}

async fn limit(context: &Context, room: &str, bytes: Option<u64>) -> Done {
    let target = Target::new(&["rooms", room]);
    let shown: Room = match bytes {
        None => context.node.get(target).await?,
        Some(bytes) => {
            let change = RoomChange {
                file_limit: Some(bytes),
                ..RoomChange::default()
            };
            context.node.send(Method::PATCH, target, Some(&change)).await?
        }
    };
    context.out.either(&shown, |_| match shown.file_limit {
        0 => format!("{} takes no files\n", clean_line(&shown.name)),
        bytes => format!("{} takes files up to {}\n", clean_line(&shown.name), size(bytes)),
    })
}

pub(super) async fn invite(context: &Context, flags: Invite) -> Done {
    let new = NewInvite {
        expires_s: flags.expires,
        uses: flags.uses,
        role: flags.role,
        only_me: flags.only_me,
    };
    let made: InviteMade = context
        .node
        .post(Target::new(&["rooms", &flags.room, "invites"]), &new)
        .await?;
    if context.out.json {
        return context.out.object(&made);
    }
    match flags.words {
        true => context.out.data(&numbered(&made.words))?,
        false => context.out.data(&format!("{}\n", made.invite))?,
    }
    let for_whom = count(u64::from(made.uses), "person");
    context.out.talk(&format!(
        "for {for_whom} as {}, until {}; they type: {}",
        made.role,
        moment(&made.expires),
        match flags.words {
            true => "offhook join, and the words behind it; case and numbers of lines do not matter",
            false => "offhook up INVITE, or offhook join INVITE",
        }
    ));
    if !flags.words && io::stdout().is_terminal() && io::stderr().is_terminal() {
        context.out.talk(&qr(&made.invite));
    }
    Ok(())
}

/// Lines to be read aloud, with their numbers: whoever listens can say which one did not fit.
fn numbered(lines: &[String]) -> String {
    let line = |(line, number): (&String, usize)| format!("{number:>2}. {line}\n");
    lines.iter().zip(1..).map(line).collect()
}

/// The link as a QR code of half blocks; the reason where it does not fit into one.
fn qr(link: &str) -> String {
    // In capitals a link needs only the alphanumeric mode, which makes a smaller code; case does not matter in a link.
    match QrCode::with_error_correction_level(link.to_uppercase(), qrcode::EcLevel::L) {
        Ok(code) => code.render::<Dense1x2>().quiet_zone(true).build(),
        Err(_) => "(too long for a QR code)".to_owned(),
    }
}

pub(super) async fn chat(context: &Context, person: &str) -> Done {
    let target = Target::new(&["contacts", person, "chat"]);
    let opened: RoomMade = context.node.send(Method::POST, target, None::<&()>).await?;
    context.out.either(&opened, |style| {
        let id = short(&opened.room);
        format!(
            "the room of you and {} is {id}; write with `offhook send {id} TEXT`\n",
            style.bold(&clean_line(&opened.name))
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_of_usual_length_fits_a_qr_code() {
        let link = format!("offhook:{}", "a2".repeat(200));
        let code = qr(&link);
        assert!(code.lines().count() > 20, "{code}");
        assert!(code.lines().all(|line| line.chars().count() < 120));
    }
}
