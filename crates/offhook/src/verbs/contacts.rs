//! `offhook contact ...`. Somebody is marked as verified only by the ceremony: both read the number to each other over another
//! channel, and what the other side read is typed in here and compared.

use std::io::{self, BufRead as _, IsTerminal as _};

use hyper::Method;

use super::{Context, Done};
use crate::api::model::{Contact, ContactChange, Contacts};
use crate::client::Target;
use crate::flags::ContactVerb;
use crate::problem::{Kind, Problem};
use crate::render::{clean_line, count, pad, short};

pub(super) async fn run(context: &Context, verb: ContactVerb) -> Done {
    match verb {
        ContactVerb::List => list(context).await,
        ContactVerb::Name { person, petname } => {
            let change = ContactChange {
                petname: Some(petname),
                ..Default::default()
            };
            let contact = change_contact(context, &person, &change).await?;
            told(
                context,
                &contact,
                &format!("{} is now {} here", short(&contact.person), clean_line(&contact.name)),
            )
        }
        ContactVerb::Block { person, undo } => {
            let change = ContactChange {
                blocked: Some(!undo),
                ..Default::default()
            };
            let contact = change_contact(context, &person, &change).await?;
            let now = if undo {
                "shown again"
            } else {
                "hidden, in every room, here only"
            };
            told(
                context,
                &contact,
                &format!("what {} says is {now}", clean_line(&contact.name)),
            )
        }
        ContactVerb::Verify { person, number, undo } => verify(context, &person, number, undo).await,
    }
}

async fn list(context: &Context) -> Done {
    let contacts: Contacts = context.node.get(Target::new(&["contacts"])).await?;
    if context.out.json {
        return contacts
            .contacts
            .iter()
            .try_for_each(|contact| context.out.object(contact));
    }
    if contacts.contacts.is_empty() {
        context
            .out
            .talk("nobody yet; you come to know people by sharing a room with them");
    }
    let widest = contacts
        .contacts
        .iter()
        .map(|c| c.name.chars().count())
        .max()
        .unwrap_or(0);
    for contact in &contacts.contacts {
        let mut facts = vec![count(contact.rooms.len() as u64, "shared room")];
        match (&contact.petname, &contact.own_name) {
            (Some(_), Some(own)) => facts.push(format!("calls themselves {}", clean_line(own))),
            _ => facts.push("name not given by you".to_owned()),
        }
        facts.extend(contact.verified.then(|| "verified".to_owned()));
        facts.extend(contact.blocked.then(|| "blocked".to_owned()));
        let style = context.out.style;
        let name = style.bold(&pad(&clean_line(&contact.name), widest));
        let id = style.dim(short(&contact.person));
        context.out.data(&format!("  {id}  {name}  {}\n", facts.join(", ")))?;
    }
    Ok(())
}

async fn verify(context: &Context, person: &str, number: Option<String>, undo: bool) -> Done {
    let contact: Contact = context.node.get(Target::new(&["contacts", person])).await?;
    let name = clean_line(&contact.name);
    if undo {
        let contact = mark(context, &contact, false).await?;
        return told(context, &contact, &format!("{name} is no longer marked as verified"));
    }
    let read_aloud = match number {
        Some(number) => number,
        None if context.out.json || !io::stdin().is_terminal() => {
            context
                .out
                .talk("not marked: give the number that they read to you with --number");
            return context.out.either(&contact, |_| format!("{}\n", contact.safety_number));
        }
        None => ask(context, &contact, &name)?,
    };
    if digits(&read_aloud) != digits(&contact.safety_number) {
        let detail = format!(
            "the numbers differ: {name} is not marked. If you both read well, somebody may stand between you: compare the keys in \
             person before you say anything private"
        );
        return Err(Problem::new(Kind::BadRequest, detail).into());
    }
    let contact = mark(context, &contact, true).await?;
    told(context, &contact, &format!("the numbers are equal: {name} is verified"))
}

fn ask(context: &Context, contact: &Contact, name: &str) -> Result<String, super::Stop> {
    context.out.talk(&format!(
        "The safety number of you and {name}:\n\n    {}\n",
        contact.safety_number
    ));
    context.out.talk(&format!(
        "Call or meet {name}. Both of you see the same number only if nobody stands between you.\nType the digits that {name} \
         reads to you:"
    ));
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line)
}

fn digits(text: &str) -> String {
    text.chars().filter(char::is_ascii_digit).collect()
}

async fn mark(context: &Context, contact: &Contact, verified: bool) -> Result<Contact, Problem> {
    let change = ContactChange {
        verified: Some(verified),
        ..Default::default()
    };
    change_contact(context, &contact.person, &change).await
}

async fn change_contact(context: &Context, person: &str, change: &ContactChange) -> Result<Contact, Problem> {
    context
        .node
        .send(Method::PATCH, Target::new(&["contacts", person]), Some(change))
        .await
}

fn told(context: &Context, contact: &Contact, sentence: &str) -> Done {
    context.out.either(contact, |_| format!("{sentence}\n"))
}
