//! `offhook where`: how far an entry got, with each member, and why not further.

use super::{Context, Done};
use crate::api::model::Whereabouts;
use crate::client::Target;
use crate::render::{Style, clean_line, count, moment, pad, state_words};

pub(super) async fn run(context: &Context, id: &str) -> Done {
    let whereabouts: Whereabouts = context.node.get(Target::new(&["entries", id, "where"])).await?;
    context.out.either(&whereabouts, |style| text(&whereabouts, style))
}

fn text(at: &Whereabouts, style: Style) -> String {
    let mut lines = vec![
        format!("saved    here, {}", moment(&at.saved)),
        format!(
            "handed   to {}{}",
            count(at.handed.len() as u64, "device"),
            match at.kept.len() {
                0 => String::new(),
                kept => format!(", of them {}", count(kept as u64, "keeper")),
            }
        ),
        format!("offline  {}", safety(at)),
        format!(
            "reached  {} of {}",
            at.reached,
            count(at.members as u64, "other member")
        ),
        format!("read     by {} of {}", at.read, at.members),
    ];
    let widest = at.per_member.iter().map(|m| m.name.chars().count()).max().unwrap_or(0);
    for member in &at.per_member {
        let name = style.bold(&pad(&clean_line(&member.name), widest));
        let why = match member.why.is_empty() {
            true => String::new(),
            false => format!(": {}", clean_line(&member.why)),
        };
        // "Saved" is saved here: with the member it has not arrived.
        let state = match member.state {
            crate::api::model::State::Saved => "not yet",
            state => state_words(state),
        };
        lines.push(format!("  {name}  {state}{why}"));
    }
    lines.join("\n") + "\n"
}

/// Whether this entry needs this node any longer.
pub(super) fn safety(at: &Whereabouts) -> String {
    match (at.safe, at.handed.len()) {
        (true, n) => format!("safe to go offline: {n} others hold it"),
        (false, 0) if at.members == 0 => "nobody else is in the room yet: it is kept here only".to_owned(),
        (false, 1) if at.members <= 1 => {
            "not yet safe to go offline: the only other member holds it, and a keeper of the room would make it safe"
                .to_owned()
        }
        (false, 1) => "not yet safe to go offline: one other holds it, two would make it safe".to_owned(),
        (false, _) => "not yet safe to go offline: nobody else holds it".to_owned(),
    }
}
