//! How cost grows with people, rooms and members: the overlay by the thousand (`docs/scale.md`).
//!
//! `cargo xtask bench scale [NODES...] [--plots DIR]` runs the hotel with its control, then crowds of the sizes given (200, 1,000, 2,000 and 10,000 unless told), each at rest and with churn, and up to 5,000 nodes with helpers that fail
//! together and a mass restart, and prints a table. Real: flow ledger and line plan; stand-ins: see `offhook_sim::crowd`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result};
use offhook_sim::crowd::{CrowdPlan, CrowdReport, percentile, run_crowd};

const SEED: u64 = 1;
/// Larger crowds are run at rest and with churn only.
const FAULTS_MAX: usize = 5_000;
/// Shares of liars with which look-ups are tried.
const LIARS: [f64; 4] = [0.0, 0.5, 0.9, 1.0];

fn main() -> Result<()> {
    let mut sizes = Vec::new();
    let mut plots = None;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--plots" => plots = Some(PathBuf::from(words.next().context("--plots wants a folder")?)),
            size => sizes.push(size.parse().with_context(|| format!("{size} is no number of nodes"))?),
        }
    }
    if sizes.is_empty() {
        sizes = vec![200, 1_000, 2_000, 10_000];
    }
    hotel(plots.as_deref())?;
    println!(
        "\n| nodes | online | run | flows p50 / p99 / most | lines p50 / most | delivery p50 / p95 / p99 ms | while reachable p95 / p99 / most ms | not delivered | busiest / median sent | dials failed | plans | s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    let mut drawn = Vec::new();
    for nodes in sizes {
        drawn.push((nodes, row(nodes, "at rest", |plan| plan.liars = LIARS.to_vec())));
        row(nodes, "churn 50 %/h", |plan| plan.session_s = 3_600);
        if nodes > FAULTS_MAX {
            continue;
        }
        row(nodes, "5 % busiest fail", |plan| {
            (plan.helpers_fail, plan.fail_s) = (0.05, 600)
        });
        row(nodes, "mass restart", |plan| plan.mass_restart_s = 600);
    }
    look_ups(&drawn);
    match plots {
        Some(dir) if drawn.len() > 1 => {
            std::fs::write(dir.join("scale.svg"), growth(&drawn)).context("cannot write the plot")
        }
        _ => Ok(()),
    }
}

/// Who has moved is looked for by somebody who shares a room of two with it and nothing else.
fn look_ups(drawn: &[(usize, CrowdReport)]) {
    println!("\n| nodes | liars | found | messages each |");
    println!("|---|---|---|---|");
    for (nodes, look_ups) in drawn
        .iter()
        .flat_map(|(nodes, report)| report.look_ups.iter().map(move |of| (nodes, of)))
    {
        println!(
            "| {nodes} | {:.0} % | {} of {} | {} |",
            look_ups.liars * 100.0,
            look_ups.found,
            look_ups.tried,
            look_ups.messages / look_ups.tried.max(1)
        );
    }
}

fn hotel(plots: Option<&Path>) -> Result<()> {
    println!("hotel: a guest with 76 rooms and 625 memberships of 255 others, 1,000 entries missed, 40 ms one way");
    let plan = CrowdPlan::hotel(SEED);
    let smart = run_crowd(&plan, SEED);
    let rest = smart
        .series
        .iter()
        .filter(|(at, ..)| *at >= 60 + 600)
        .map(|(.., flows)| *flows)
        .max();
    println!(
        "Offhook: {} flows at the most, {} five minutes after the last word, all {} entries after {:?} ms, {} of {} deliveries open",
        smart.peaks[0],
        rest.unwrap_or_default(),
        plan.missed,
        smart.caught_up_ms,
        smart.undelivered,
        smart.deliveries
    );
    let mut naive = plan;
    naive.naive.insert(0);
    let control = run_crowd(&naive, SEED);
    println!("naive client, same peers: {} flows at the most", control.peaks[0]);
    if let Some(dir) = plots {
        std::fs::create_dir_all(dir)?;
        std::fs::write(dir.join("hotel.svg"), hotel_plot(&smart, &control))?;
    }
    Ok(())
}

fn row(nodes: usize, name: &str, change: impl FnOnce(&mut CrowdPlan)) -> CrowdReport {
    let mut plan = CrowdPlan::drawn(nodes, SEED);
    change(&mut plan);
    #[expect(
        clippy::disallowed_methods,
        reason = "a bench times itself; what is simulated has its own clock"
    )]
    let started = Instant::now();
    let report = run_crowd(&plan, SEED);
    let mut peaks = report.peaks.clone();
    peaks.retain(|peak| *peak > 0);
    peaks.sort_unstable();
    let busiest = report.sent.last().copied().unwrap_or(0) as f64 / percentile(&report.sent, 0.5).max(1) as f64;
    println!(
        "| {nodes} | {} | {name} | {} / {} / {} | {} / {} | {} / {} / {} | {} / {} / {} | {} of {} | {busiest:.1} | {} of {} | {} | {:.0} |",
        report.online,
        percentile(&peaks, 0.5),
        percentile(&peaks, 0.99),
        peaks.last().copied().unwrap_or(0),
        percentile(&report.lines, 0.5),
        report.lines.last().copied().unwrap_or(0),
        report.delay_ms(0.5),
        report.delay_ms(0.95),
        report.delay_ms(0.99),
        percentile(&report.reachable_ms, 0.95),
        percentile(&report.reachable_ms, 0.99),
        report.reachable_ms.last().copied().unwrap_or(0),
        report.undelivered,
        report.delays_ms.len(),
        report.dials[1],
        report.dials[0],
        report.plans,
        started.elapsed().as_secs_f64()
    );
    report
}

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 380.0;
const LEFT: f64 = 60.0;
const BOTTOM: f64 = 50.0;
const TOP: f64 = 50.0;

fn open(title: &str) -> String {
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="13">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>
<text x="{LEFT}" y="26" font-size="17" font-weight="600" fill="#1a1a1a">{title}</text>
"##
    )
}

/// The guest's gateway, on a logarithmic scale: else the control leaves no room for what matters.
fn hotel_plot(smart: &CrowdReport, control: &CrowdReport) -> String {
    let mut svg = open("The hotel: flows that the gateway counts for one guest with 76 rooms (simulated)");
    let end = smart.series.last().map_or(1, |(at, ..)| *at) as f64;
    let x = |second: f64| LEFT + second / end * (WIDTH - LEFT - 120.0);
    let y = |flows: f64| HEIGHT - BOTTOM - (flows.max(1.0).log10() / 3.4) * (HEIGHT - BOTTOM - TOP);
    for flows in [1.0, 10.0, 100.0, 1000.0] {
        let _ = writeln!(
            svg,
            r##"<line x1="{LEFT}" x2="{}" y1="{1:.1}" y2="{1:.1}" stroke="#e6e6e6"/><text x="{2}" y="{3:.1}" text-anchor="end" fill="#666666">{flows}</text>"##,
            WIDTH - 120.0,
            y(flows),
            LEFT - 8.0,
            y(flows) + 4.0
        );
    }
    for minute in 0..=(end / 60.0) as u64 {
        let at = x(minute as f64 * 60.0);
        let _ = writeln!(
            svg,
            r##"<text x="{at:.1}" y="{}" text-anchor="middle" fill="#666666">{minute}</text>"##,
            HEIGHT - BOTTOM + 18.0
        );
    }
    let _ = writeln!(
        svg,
        r##"<text x="{}" y="{}" text-anchor="middle" fill="#666666">minutes; the guest arrives after one, the last word is said after six</text>"##,
        WIDTH / 2.0 - 30.0,
        HEIGHT - 12.0
    );
    for (limit, what) in [(200.0, "hotel blocks at 200"), (60.0, "cap 60"), (20.0, "20 at rest")] {
        let _ = writeln!(
            svg,
            r##"<line x1="{LEFT}" x2="{0}" y1="{1:.1}" y2="{1:.1}" stroke="#c1121f" stroke-dasharray="4 5"/><text x="{2}" y="{3:.1}" fill="#c1121f">{what}</text>"##,
            WIDTH - 120.0,
            y(limit),
            WIDTH - 114.0,
            y(limit) + 4.0
        );
    }
    for (report, colour, name) in [(control, "#8a8a8a", "naive client"), (smart, "#0072b2", "Offhook")] {
        let mut path = String::new();
        for (at, _, flows) in &report.series {
            let _ = write!(
                path,
                "{}{:.1} {:.1}",
                if path.is_empty() { "M" } else { "L" },
                x(*at as f64),
                y(*flows as f64)
            );
        }
        let last = report
            .series
            .iter()
            .max_by_key(|(.., flows)| *flows)
            .map_or((0.0, 1.0), |(at, _, flows)| (*at as f64, *flows as f64));
        let _ = writeln!(
            svg,
            r##"<path d="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/><text x="{:.1}" y="{:.1}" fill="{colour}" font-weight="600">{name}: {} at the most</text>"##,
            x(last.0) + 8.0,
            y(last.1) - 6.0,
            last.1
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Flows, lines and delay against the number of nodes, the nodes on a logarithmic scale.
fn growth(drawn: &[(usize, CrowdReport)]) -> String {
    let mut svg = open("Cost against people: 30 % online, rooms of 2 to 200 members (simulated)");
    let low = drawn.iter().map(|(nodes, _)| *nodes).min().unwrap_or(1) as f64;
    let high = drawn.iter().map(|(nodes, _)| *nodes).max().unwrap_or(10) as f64;
    let x = |nodes: f64| LEFT + (nodes / low).log10() / (high / low).log10().max(0.1) * (WIDTH - LEFT - 190.0);
    let y = |value: f64| HEIGHT - BOTTOM - value / 70.0 * (HEIGHT - BOTTOM - TOP);
    for value in (0..=70).step_by(10) {
        let _ = writeln!(
            svg,
            r##"<line x1="{LEFT}" x2="{}" y1="{1:.1}" y2="{1:.1}" stroke="#e6e6e6"/><text x="{2}" y="{3:.1}" text-anchor="end" fill="#666666">{value}</text>"##,
            WIDTH - 190.0,
            y(value as f64),
            LEFT - 8.0,
            y(value as f64) + 4.0
        );
    }
    for (nodes, _) in drawn {
        let _ = writeln!(
            svg,
            r##"<text x="{:.1}" y="{}" text-anchor="middle" fill="#666666">{nodes}</text>"##,
            x(*nodes as f64),
            HEIGHT - BOTTOM + 18.0
        );
    }
    let _ = writeln!(
        svg,
        r##"<line x1="{LEFT}" x2="{0}" y1="{1:.1}" y2="{1:.1}" stroke="#c1121f" stroke-dasharray="4 5"/><text x="{2}" y="{3:.1}" fill="#c1121f">cap 60</text>"##,
        WIDTH - 190.0,
        y(60.0),
        WIDTH - 184.0,
        y(60.0) + 4.0
    );
    type Reading = fn(&CrowdReport) -> f64;
    let most_flows: Reading = |report| report.peaks.iter().max().copied().unwrap_or(0) as f64;
    let median_flows: Reading = |report| {
        let mut peaks: Vec<usize> = report.peaks.iter().copied().filter(|peak| *peak > 0).collect();
        peaks.sort_unstable();
        percentile(&peaks, 0.5) as f64
    };
    let lines: Reading = |report| percentile(&report.lines, 0.5) as f64;
    let delay: Reading = |report| report.delay_ms(0.95) as f64 / 100.0;
    for (reading, colour, name) in [
        (most_flows, "#d55e00", "most flows of any node"),
        (median_flows, "#0072b2", "peak flows, median node"),
        (lines, "#009e73", "lines, median node"),
        (delay, "#cc79a7", "delivery p95, tenths of a second"),
    ] {
        let mut path = String::new();
        for (nodes, report) in drawn {
            let _ = write!(
                path,
                "{}{:.1} {:.1}",
                if path.is_empty() { "M" } else { "L" },
                x(*nodes as f64),
                y(reading(report))
            );
        }
        let end = drawn.last().map_or(0.0, |(_, report)| reading(report));
        let _ = writeln!(
            svg,
            r##"<path d="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/><text x="{:.1}" y="{:.1}" fill="{colour}">{name}</text>"##,
            WIDTH - 184.0,
            y(end) + 4.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}
