//! `offhook lines` and `offhook flows`: whom this node talks to and why, and what a gateway sees of it.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

use super::{Context, Done};
use crate::api::network::{Flow, Flows, History, Line, Lines, Sample};
use crate::client::Target;
use crate::flags::FlowsFlags;
use crate::plot;
use crate::problem::{Kind, Problem};
use crate::render::{Style, clean_line, count, pad, short};

/// Between two moments of a recording.
const RECORD_PERIOD: Duration = Duration::from_secs(1);

pub(super) async fn lines(context: &Context) -> Done {
    let lines: Lines = context.node.get(Target::new(&["lines"])).await?;
    context.out.either(&lines, |style| line_text(&lines.lines, style))
}

fn line_text(lines: &[Line], style: Style) -> String {
    if lines.is_empty() {
        return "no lines: nobody who shares a room is reached now\n".to_owned();
    }
    let widest = lines
        .iter()
        .map(|line| line.name.chars().count())
        .max()
        .unwrap_or(0)
        .min(16);
    let line = |line: &Line| {
        let path = match (&line.to, line.rtt_ms) {
            (Some(to), Some(rtt_ms)) => format!("{} {to}, {rtt_ms:.1} ms", line.path),
            _ => line.path.clone(),
        };
        format!(
            "  {}  {}  {path}, up {}\n      {}\n",
            style.dim(short(&line.device)),
            style.bold(&pad(&clean_line(&line.name), widest)),
            span(line.up_s),
            line.reason
        )
    };
    lines.iter().map(line).collect()
}

pub(super) async fn flows(context: &Context, flags: FlowsFlags) -> Done {
    if let Some(file) = &flags.record {
        record(context, file, flags.seconds).await?;
    }
    if let Some(file) = &flags.plot {
        return plot(context, file, flags.from.as_deref().or(flags.record.as_deref())).await;
    }
    if flags.record.is_some() {
        return Ok(());
    }
    let flows: Flows = context.node.get(Target::new(&["flows"])).await?;
    context.out.either(&flows, |style| flow_text(&flows, style))
}

fn flow_text(flows: &Flows, style: Style) -> String {
    let mut text = format!(
        "{} of at most {} flows now ({} for everyday), {} at the most so far\n",
        style.bold(&flows.now.to_string()),
        flows.cap,
        flows.soft,
        flows.peak
    );
    let widest = flows.flows.iter().map(|flow| flow.to.len()).max().unwrap_or(0).min(48);
    let flow = |flow: &Flow| {
        let left = flow
            .forgotten_in_s
            .filter(|_| flow.state != "open")
            .map_or_else(String::new, |left| format!(", forgotten in {}", span(left)));
        format!(
            "  {}  {}  {}{left}: {}\n",
            pad(&flow.kind, 7),
            pad(&clean_line(&flow.to), widest),
            flow.state,
            flow.reason
        )
    };
    text.extend(flows.flows.iter().map(flow));
    if !flows.waiting.is_empty() {
        text.push_str(&style.dim("waiting\n"));
    }
    text.extend(flows.waiting.iter().map(|waiting| {
        format!(
            "  {}  {} since {}: {}\n",
            style.dim(short(&waiting.device)),
            waiting.wants,
            span(waiting.age_s),
            waiting.reason
        )
    }));
    if !flows.refused.is_empty() {
        let packets = count(flows.refusals, "packet");
        text.push_str(&style.dim(&format!("not sent ({packets} since the start)\n")));
    }
    text.extend(flows.refused.iter().map(|refused| {
        let times = count(refused.times, "packet");
        format!("  {}  {times}: {}\n", refused.to, refused.reason)
    }));
    text
}

/// Writes one line a second until Ctrl-C, or for so many seconds.
async fn record(context: &Context, file: &Path, seconds: Option<u64>) -> Done {
    let cannot = |error: std::io::Error| Problem::new(Kind::BadRequest, format!("{}: {error}", file.display()));
    let mut out = fs::File::create(file).map_err(cannot)?;
    // A year is as good as for ever.
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(366 * 24 * 3600));
    let mut period = interval(RECORD_PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    context
        .out
        .talk(&format!("recording to {}; Ctrl-C ends it", file.display()));
    let mut moments = 0u64;
    loop {
        let ended = tokio::select! {
            tick = timeout_at(end, period.tick()) => tick.is_err(),
            _ = tokio::signal::ctrl_c() => true,
        };
        if ended {
            break;
        }
        let flows: Flows = context.node.get(Target::new(&["flows"])).await?;
        let line = serde_json::to_string(&Sample::of(&flows)).map_err(std::io::Error::from)?;
        writeln!(out, "{line}").map_err(cannot)?;
        moments += 1;
    }
    context.out.talk(&format!("recorded {}", count(moments, "moment")));
    Ok(())
}

/// Draws a recording, or the node's own last hour.
async fn plot(context: &Context, file: &Path, from: Option<&Path>) -> Done {
    let samples = match from {
        Some(recording) => read(recording)?,
        None => {
            let history: History = context.node.get(Target::new(&["flows", "history"])).await?;
            history.samples
        }
    };
    if samples.len() < 2 {
        let detail = "there is nothing to draw yet: a node takes a moment every five seconds";
        return Err(Problem::new(Kind::BadRequest, detail).into());
    }
    let cannot = |error: std::io::Error| Problem::new(Kind::BadRequest, format!("{}: {error}", file.display()));
    fs::write(file, plot::flows(&samples)).map_err(cannot)?;
    let moments = count(samples.len() as u64, "moment");
    context.out.talk(&format!("drew {moments} to {}", file.display()));
    Ok(())
}

fn read(recording: &Path) -> Result<Vec<Sample>, Problem> {
    let cannot = |why: String| Problem::new(Kind::BadRequest, format!("{}: {why}", recording.display()));
    let text = fs::read_to_string(recording).map_err(|error| cannot(error.to_string()))?;
    let sample = |(number, line): (usize, &str)| {
        let bad =
            |error: serde_json::Error| cannot(format!("line {} is no moment of a recording: {error}", number + 1));
        serde_json::from_str(line).map_err(bad)
    };
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(sample)
        .collect()
}

impl Sample {
    fn of(flows: &Flows) -> Self {
        let mut kinds = std::collections::BTreeMap::new();
        for flow in &flows.flows {
            *kinds.entry(flow.kind.clone()).or_insert(0) += 1;
        }
        Self {
            time: format!("{:.3}", jiff::Timestamp::now()),
            now: flows.now as u64,
            cap: flows.cap,
            soft: flows.soft,
            kinds,
            waiting: u16::try_from(flows.waiting.len()).unwrap_or(u16::MAX),
        }
    }
}

/// `45 s`, `12 min`, `3 h`.
fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}
