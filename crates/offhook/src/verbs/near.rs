//! `offhook near ...`: who is near, inviting them, and answering those who invite.

use hyper::Method;

use super::{Context, Done};
use crate::api::model::{
    NearAnswer, NearAnswered, NearChange, NearInvite, NearRequest, NearVerdict, Nearby, Neighbour,
};
use crate::client::Target;
use crate::flags::NearVerb;
use crate::problem::{Kind, Problem};
use crate::render::{clean_line, pad, short};

pub(super) async fn run(context: &Context, verb: Option<NearVerb>) -> Done {
    match verb {
        None => list(context).await,
        Some(NearVerb::Invite { device, room }) => invite(context, &device, room).await,
        Some(NearVerb::Accept { request }) => answer(context, request, NearVerdict::Accept).await,
        Some(NearVerb::Decline { request }) => answer(context, request, NearVerdict::Decline).await,
        Some(NearVerb::Block { request }) => answer(context, request, NearVerdict::Block).await,
        Some(NearVerb::Show) => show(context, true).await,
        Some(NearVerb::Hide) => show(context, false).await,
    }
}

async fn nearby(context: &Context) -> Result<Nearby, Problem> {
    context.node.get(Target::new(&["near"])).await
}

async fn list(context: &Context) -> Done {
    let nearby = nearby(context).await?;
    context.out.either(&nearby, |style| {
        let mut text = String::new();
        for request in &nearby.requests {
            let id = style.bold(short(&request.request));
            text += &format!("  {id}  {}\n", asks(request));
        }
        if !nearby.requests.is_empty() {
            text += "        answer with `offhook near accept`, `decline` or `block`, and the first word of the line\n";
        }
        if nearby.near.is_empty() {
            text += "nobody announces themselves on this network or machine\n";
        }
        let widest = nearby
            .near
            .iter()
            .map(|node| called(node).chars().count())
            .max()
            .unwrap_or(0);
        for node in &nearby.near {
            let id = style.dim(short(&node.device));
            text += &format!("  {id}  {}  {}\n", style.bold(&pad(&called(node), widest)), facts(node));
        }
        text += match nearby.visible {
            true => "strangers here see your name and may invite you; `offhook near hide` ends that\n",
            false => "strangers here do not see your name and cannot invite you; `offhook near show` changes that\n",
        };
        text
    })
}

/// What somebody nearby is called: as known here, or in quotes as they claim.
fn called(node: &Neighbour) -> String {
    match (&node.name, &node.claims) {
        (Some(name), _) => clean_line(name),
        (None, Some(claim)) => format!("\u{201c}{}\u{201d}", clean_line(claim)),
        (None, None) => "somebody".to_owned(),
    }
}

fn facts(node: &Neighbour) -> String {
    let mut facts = vec![match (node.up, node.place.as_str()) {
        (true, _) => "connected".to_owned(),
        (false, "machine") => "on this machine".to_owned(),
        (false, _) => "on this network".to_owned(),
    }];
    match (&node.name, &node.claims) {
        (Some(_), _) => {}
        (None, Some(_)) => facts.push("so they claim; you share no room".to_owned()),
        (None, None) => facts.push("not open to strangers".to_owned()),
    }
    facts.extend(
        node.invited
            .last()
            .map(|invited| standing(&invited.standing).to_owned()),
    );
    facts.join(", ")
}

/// How far an own invitation has got.
fn standing(word: &str) -> &'static str {
    match word {
        "calling" => "invited: being called",
        "sent" => "invited: told, no answer yet",
        "shown" => "invited: waits for their answer",
        "accepted" => "invited: they say yes",
        "declined" => "invited: they say no",
        "not-taken" => "invited: takes no invitations now",
        _ => "invited: nobody answered",
    }
}

fn asks(request: &NearRequest) -> String {
    let who = match (&request.name, &request.claims) {
        (Some(name), _) => clean_line(name),
        (None, Some(claim)) => format!("somebody who claims to be \u{201c}{}\u{201d}", clean_line(claim)),
        (None, None) => "somebody without a name".to_owned(),
    };
    let into = match &request.room_name {
        Some(room) => format!("to {}", clean_line(room)),
        None => "to a chat of two".to_owned(),
    };
    format!(
        "{who} (key {}) invites you {into}; {} min left",
        short(&request.person),
        request.expires_s.div_ceil(60)
    )
}

async fn invite(context: &Context, device: &str, room: Option<String>) -> Done {
    let new = NearInvite { room };
    let target = Target::new(&["near", device, "invite"]);
    let told: Neighbour = context.node.send(Method::POST, target, Some(&new)).await?;
    context.out.either(&told, |_| {
        format!(
            "{} is being asked; `offhook near` says how far that has got\n",
            called(&told)
        )
    })
}

async fn answer(context: &Context, request: Option<String>, answer: NearVerdict) -> Done {
    let request = match request {
        Some(request) => request,
        None => match &nearby(context).await?.requests[..] {
            [only] => only.request.clone(),
            [] => return Err(Problem::new(Kind::NoRequest, "nobody near here invites you now").into()),
            several => {
                let detail = format!(
                    "{} invitations wait for you; say which: `offhook near` lists them",
                    several.len()
                );
                return Err(Problem::new(Kind::Ambiguous, detail).into());
            }
        },
    };
    let target = Target::new(&["near", "requests", &request]);
    let answered: NearAnswered = context
        .node
        .send(Method::POST, target, Some(&NearAnswer { answer }))
        .await?;
    context
        .out
        .either(&answered, |_| match (answer, &answered.room, &answered.name) {
            (NearVerdict::Accept, Some(room), Some(name)) => {
                let (name, id) = (clean_line(name), short(room));
                format!("joining {name} ({id}); `offhook room list` shows when you are in\n")
            }
            (NearVerdict::Block, ..) => {
                "blocked: nothing of that person is shown any more; `offhook contact block --undo` takes that back\n"
                    .to_owned()
            }
            _ => "declined; they are told\n".to_owned(),
        })
}

async fn show(context: &Context, visible: bool) -> Done {
    let change = NearChange { visible };
    let now: Nearby = context
        .node
        .send(Method::PATCH, Target::new(&["near"]), Some(&change))
        .await?;
    context.out.either(&now, |_| match now.visible {
        true => "strangers here see your name and may invite you\n".to_owned(),
        false => {
            "strangers here do not see your name and cannot invite you; members of your rooms still find this node\n"
                .to_owned()
        }
    })
}
