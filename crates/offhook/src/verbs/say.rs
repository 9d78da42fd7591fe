//! `offhook send`, `edit`, `delete`, `react`, `reply`. What they write is durable here when they return; they work offline.

use std::io::{self, Read as _};
use std::time::{Duration, Instant};

use hyper::Method;
use serde::Serialize;

use super::{Context, Done, Stop, files};
use crate::api::model::{EntryChange, EntryMade, NewEntry, Whereabouts};
use crate::client::Target;
use crate::flags::Send;
use crate::problem::{Kind, Problem};

/// How long a send waits to say whether others hold it already.
const GLANCE: Duration = Duration::from_millis(500);
/// The longest message, in bytes.
const TEXT_BYTES_MAX: usize = 65_536;

pub(super) async fn send(context: &Context, flags: Send) -> Done {
    let said = match flags.text {
        Some(given) => text(given)?,
        None => String::new(),
    };
    let new = NewEntry {
        text: said,
        files: files::take(context, &flags.room, &flags.file).await?,
        client_id: flags.client_id,
    };
    let target = Target::new(&["rooms", &flags.room, "entries"]);
    let made: EntryMade = context.node.send(Method::POST, target, Some(&new)).await?;
    if context.out.json && flags.wait == 0 {
        return context.out.object(&made);
    }
    let at = until_safe(context, &made.id, Duration::from_secs(flags.wait)).await?;
    if context.out.json {
        return context.out.object(&Sent { made, safe: at.safe });
    }
    context.out.data(&format!("{}\n", made.id))?;
    context.out.talk(&super::delivery::safety(&at));
    Ok(())
}

/// What was said, and whether two others held it in the time given.
#[derive(Serialize)]
struct Sent {
    #[serde(flatten)]
    made: EntryMade,
    safe: bool,
}

/// Where an entry is once two others hold it, or when the time is up: half a second at least, for those who are there.
async fn until_safe(context: &Context, id: &str, wait: Duration) -> Result<Whereabouts, Stop> {
    let end = Instant::now() + wait.max(GLANCE);
    loop {
        let at: Whereabouts = context.node.get(Target::new(&["entries", id, "where"])).await?;
        if at.safe || Instant::now() >= end {
            return Ok(at);
        }
        tokio::time::sleep(GLANCE / 5).await;
    }
}

pub(super) async fn reply(context: &Context, id: &str, words: String, client_id: Option<String>) -> Done {
    let new = NewEntry {
        text: text(words)?,
        files: Vec::new(),
        client_id,
    };
    write(
        context,
        Method::POST,
        Target::new(&["entries", id, "replies"]),
        Some(&new),
    )
    .await
}

pub(super) async fn edit(context: &Context, id: &str, words: String) -> Done {
    let change = EntryChange { text: text(words)? };
    write(context, Method::PATCH, Target::new(&["entries", id]), Some(&change)).await
}

pub(super) async fn delete(context: &Context, id: &str) -> Done {
    write(context, Method::DELETE, Target::new(&["entries", id]), None::<&()>).await
}

pub(super) async fn react(context: &Context, id: &str, emoji: &str, off: bool) -> Done {
    let method = if off { Method::DELETE } else { Method::PUT };
    write(
        context,
        method,
        Target::new(&["entries", id, "reactions", emoji]),
        None::<&()>,
    )
    .await
}

async fn write(context: &Context, method: Method, target: Target, body: Option<&impl Serialize>) -> Done {
    let made: EntryMade = context.node.send(method, target, body).await?;
    context.out.either(&made, |_| format!("{}\n", made.id))
}

/// The text given, or all of stdin for `-`, without its closing line break.
fn text(given: String) -> Result<String, Stop> {
    let text = if given == "-" { from_stdin()? } else { given };
    match text.len() {
        0 => Err(Problem::new(Kind::Length, "there is nothing to say: the text is empty").into()),
        1..=TEXT_BYTES_MAX => Ok(text),
        _ => {
            let detail = format!("the text is longer than {TEXT_BYTES_MAX} bytes; send it in parts");
            Err(Problem::new(Kind::Length, detail).into())
        }
    }
}

fn from_stdin() -> Result<String, Stop> {
    let mut bytes = Vec::new();
    // Two more than fit: one for a closing line break, one to see that there is more.
    io::stdin()
        .lock()
        .take(TEXT_BYTES_MAX as u64 + 2)
        .read_to_end(&mut bytes)?;
    let mut text = String::from_utf8(bytes)
        .map_err(|_| Problem::new(Kind::BadRequest, "stdin is not text in UTF-8; `--file` sends files"))?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}
