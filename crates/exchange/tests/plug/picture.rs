//! What each phone heard around the cut, drawn: one row a phone, a bar where it heard nothing.

use std::fmt::Write as _;

use super::{Outcome, Plan};

const LEFT: u64 = 70;
const WIDTH: u64 = 900;
const ROW: u64 = 9;
const TOP: u64 = 64;
/// Shown at least, and at most, ms.
const SPAN_MS: std::ops::RangeInclusive<u64> = 600..=6_000;

/// The picture as SVG.
pub fn draw(plan: &Plan, outcome: &Outcome) -> String {
    let ends = outcome.silences.iter().map(|[_, begin, length]| begin + length + 100);
    let span_ms = ends.max().unwrap_or(0).clamp(*SPAN_MS.start(), *SPAN_MS.end());
    let x = |ms: u64| LEFT + ms.min(span_ms) * WIDTH / span_ms;
    let y = |row: u64| TOP + row * ROW;
    let bottom = y(outcome.hearing);
    let remarks: Vec<_> = outcome
        .remarks
        .iter()
        .filter(|(ms, _)| *ms <= span_ms)
        .take(12)
        .collect();
    let height = bottom + 40 + 14 * remarks.len() as u64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        LEFT + WIDTH + 20
    );
    let title = format!(
        "{:?} cut with {} calls up: what {} phones heard, sample by sample",
        plan.cut, outcome.up_before, outcome.hearing
    );
    let figures = format!(
        "longest silence: half of them at most {} ms, 99 % at most {} ms; {} wrong samples; {} calls left",
        outcome.gap_p50_ms, outcome.gap_p99_ms, outcome.wrong_samples, outcome.up_after
    );
    // Writing into a String cannot fail.
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"20\" font-size=\"14\">{title}</text>");
    let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"38\" fill=\"#555\">{figures}</text>");
    for ms in (0..=span_ms).step_by(100) {
        let (x, label) = (
            x(ms),
            if ms % 200 == 0 {
                format!("{ms} ms")
            } else {
                String::new()
            },
        );
        let _ = writeln!(svg, "<path d=\"M{x} {TOP}V{bottom}\" stroke=\"#ddd\"/>");
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{label}</text>",
            TOP - 6
        );
    }
    for row in 0..outcome.hearing {
        let _ = writeln!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{}\" width=\"{WIDTH}\" height=\"{}\" fill=\"#2a7f62\" opacity=\"0.35\"/>",
            y(row),
            ROW - 2
        );
        if row % 5 == 0 {
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#555\">phone {row}</text>",
                LEFT - 6,
                y(row) + ROW - 1
            );
        }
    }
    for [phone, begin, length] in &outcome.silences {
        let (from, to) = (x(*begin), x(begin + length));
        let _ = writeln!(
            svg,
            "<rect x=\"{from}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"#b3261e\"/>",
            y(*phone),
            (to - from).max(1),
            ROW - 2
        );
    }
    for (n, (ms, remark)) in remarks.iter().enumerate() {
        let (x, line) = (x(*ms), bottom + 34 + 14 * n as u64);
        let _ = writeln!(
            svg,
            "<path d=\"M{x} {TOP}V{}\" stroke=\"#1a4f8a\" stroke-dasharray=\"2 3\"/>",
            bottom + 6
        );
        let _ = writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"{line}\" fill=\"#1a4f8a\">{ms} ms after the cut, {remark}</text>"
        );
    }
    svg + "</svg>\n"
}
