//! `offhook doctor [PERSON]`: what works on this network, what does not, what to try.

use super::{Context, Done};
use crate::api::doctor::{Doctor, Verdict};
use crate::client::Target;
use crate::render::{Style, clean_line, pad};

pub(super) async fn run(context: &Context, person: Option<&str>) -> Done {
    let target = match person {
        Some(person) => {
            context.out.talk(&format!(
                "trying to reach {}, for four seconds at most",
                clean_line(person)
            ));
            Target::new(&["doctor", person])
        }
        None => Target::new(&["doctor"]),
    };
    let doctor: Doctor = context.node.get(target).await?;
    context.out.either(&doctor, |style| text(&doctor, style))
}

fn text(doctor: &Doctor, style: Style) -> String {
    let mut text = String::new();
    for check in &doctor.checks {
        let mark = match check.verdict {
            Verdict::Good => "✓",
            Verdict::Limited => "!",
            Verdict::Bad => "✗",
            Verdict::Unknown => "?",
        };
        let name = style.bold(&pad(&check.name, 9));
        text.push_str(&format!("{mark} {name}  {}\n", clean_line(&check.text)));
        if let Some(advice) = &check.advice {
            text.push_str(&format!("             {}\n", style.dim(&clean_line(advice))));
        }
    }
    text
}
