//! Flows over time as SVG: areas by kind, stacked, against the cap. No dependency, no script, no font but the reader's.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::api::network::Sample;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 420.0;
/// Around the drawing: room for the title, the axes and the legend.
const LEFT: f64 = 56.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 76.0;
/// Points of an area; more cannot be told apart at this width.
const POINTS_MAX: usize = 900;

/// Kinds from the bottom up, what they are called, and their colours (Okabe and Ito 2008: told apart by the colour-blind too).
const KINDS: [(&str, &str, &str); 8] = [
    ("path", "lines", "#0072b2"),
    ("inbound", "answers to callers", "#56b4e9"),
    ("relay", "relays", "#009e73"),
    ("lan", "local network", "#b8b8b8"),
    ("lookup", "look-ups", "#cc79a7"),
    ("probe", "network probes", "#f0e442"),
    ("punch", "hole punching", "#e69f00"),
    ("dial", "dials", "#d55e00"),
];

/// Draws a recording of at least two moments.
pub(crate) fn flows(samples: &[Sample]) -> String {
    let step = samples.len().div_ceil(POINTS_MAX).max(1);
    // Of moments that fall together the highest is drawn: a peak may not be lost.
    let highest = |group: &[Sample]| group.iter().max_by_key(|sample| sample.now).cloned();
    let drawn: Vec<Sample> = samples.chunks(step).filter_map(highest).collect();
    let frame = Frame::new(&drawn);
    let mut svg = String::new();
    head(&mut svg, samples);
    frame.axes(&mut svg);
    areas(&mut svg, &frame, &drawn);
    frame.cap(&mut svg, &drawn);
    legend(&mut svg, &drawn);
    svg.push_str("</svg>\n");
    svg
}

fn head(svg: &mut String, samples: &[Sample]) {
    let peak = samples.iter().map(|sample| sample.now).max().unwrap_or(0);
    let last = samples.last().map_or(0, |sample| sample.now);
    let cap = samples.last().map_or(0, |sample| sample.cap);
    // Writing to a string does not fail.
    let _ = writeln!(
        svg,
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="13" role="img" aria-label="Flows over time: {peak} at the most, {last} at the end, {cap} allowed">
<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>
<text x="{LEFT}" y="26" font-size="17" font-weight="600" fill="#1a1a1a">What the gateway sees</text>
<text x="{LEFT}" y="44" fill="#666666">{peak} flows at the most, {last} at the end; never more than {cap}</text>"##
    );
}

/// The scales.
struct Frame {
    start_ms: i64,
    span_ms: i64,
    most: u64,
}

impl Frame {
    fn new(samples: &[Sample]) -> Self {
        let times = samples.iter().map(milliseconds);
        let start_ms = times.clone().min().unwrap_or(0);
        let span_ms = (times.max().unwrap_or(0) - start_ms).max(1);
        let highest = samples
            .iter()
            .map(|sample| sample.now.max(sample.cap as u64))
            .max()
            .unwrap_or(1);
        Self {
            start_ms,
            span_ms,
            most: (highest + highest / 8).max(4),
        }
    }

    fn x(&self, sample: &Sample) -> f64 {
        let share = (milliseconds(sample) - self.start_ms) as f64 / self.span_ms as f64;
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, flows: u64) -> f64 {
        let height = HEIGHT - TOP - BOTTOM;
        HEIGHT - BOTTOM - flows as f64 / self.most as f64 * height
    }

    fn axes(&self, svg: &mut String) {
        let step = [1, 2, 5, 10, 20, 50, 100, 200]
            .into_iter()
            .find(|step| self.most / step <= 8)
            .unwrap_or(500);
        for flows in (0..=self.most).step_by(step as usize) {
            let y = self.y(flows);
            let _ = writeln!(
                svg,
                r##"<line x1="{LEFT}" x2="{}" y1="{y:.1}" y2="{y:.1}" stroke="#e6e6e6"/><text x="{}" y="{:.1}" text-anchor="end" fill="#666666">{flows}</text>"##,
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0
            );
        }
        let span_s = self.span_ms / 1000;
        let steps = [
            1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400,
        ];
        let step_s = steps.into_iter().find(|step| span_s / step <= 8).unwrap_or(604_800);
        for at_s in (0..=span_s).step_by(step_s as usize) {
            let x = LEFT + at_s as f64 * 1000.0 / self.span_ms as f64 * (WIDTH - LEFT - RIGHT);
            let label = match (step_s, at_s) {
                (_, 0) => "0".to_owned(),
                (..60, _) => format!("{at_s} s"),
                (60..3600, _) => format!("{} min", at_s / 60),
                _ => format!("{} h", at_s / 3600),
            };
            let _ = writeln!(
                svg,
                r##"<line x1="{x:.1}" x2="{x:.1}" y1="{0}" y2="{1}" stroke="#b8b8b8"/><text x="{x:.1}" y="{2}" text-anchor="middle" fill="#666666">{label}</text>"##,
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 5.0,
                HEIGHT - BOTTOM + 20.0
            );
        }
    }

    fn cap(&self, svg: &mut String, samples: &[Sample]) {
        let Some(last) = samples.last() else { return };
        for (flows, colour, dash, what) in [
            (last.cap, "#c1121f", "none", "cap"),
            (last.soft, "#c1121f", "4 5", "everyday"),
        ] {
            let y = self.y(flows as u64);
            let _ = writeln!(
                svg,
                r##"<line x1="{LEFT}" x2="{0}" y1="{y:.1}" y2="{y:.1}" stroke="{colour}" stroke-width="1.5" stroke-dasharray="{dash}"/><text x="{0}" y="{1:.1}" text-anchor="end" fill="{colour}">{what} {flows}</text>"##,
                WIDTH - RIGHT,
                y - 5.0
            );
        }
    }
}

fn milliseconds(sample: &Sample) -> i64 {
    sample.time.parse::<Timestamp>().map_or(0, Timestamp::as_millisecond)
}

fn of_kind(sample: &Sample, kind: &str) -> u64 {
    sample.kinds.get(kind).copied().unwrap_or(0).into()
}

/// Steps, not slopes: between two moments nothing is known.
fn areas(svg: &mut String, frame: &Frame, samples: &[Sample]) {
    let mut below = vec![0u64; samples.len()];
    for (kind, name, colour) in KINDS {
        if samples.iter().all(|sample| of_kind(sample, kind) == 0) {
            continue;
        }
        let above: Vec<u64> = samples
            .iter()
            .zip(&below)
            .map(|(sample, low)| low + of_kind(sample, kind))
            .collect();
        let mut path = String::new();
        for (at, sample) in samples.iter().enumerate() {
            let (x, y) = (frame.x(sample), frame.y(above[at]));
            let _ = match at {
                0 => write!(path, "M{x:.1} {y:.1}"),
                _ => write!(path, "H{x:.1}V{y:.1}"),
            };
        }
        for (at, sample) in samples.iter().enumerate().rev() {
            let (x, y) = (frame.x(sample), frame.y(below[at]));
            let _ = match at + 1 == samples.len() {
                true => write!(path, "V{y:.1}"),
                // The step back: at the later x first, since the level holds up to it.
                false => write!(path, "V{y:.1}H{x:.1}"),
            };
        }
        let _ = writeln!(svg, r#"<path d="{path}Z" fill="{colour}"><title>{name}</title></path>"#);
        below = above;
    }
}

fn legend(svg: &mut String, samples: &[Sample]) {
    let mut x = LEFT;
    for (kind, name, colour) in KINDS {
        if samples.iter().all(|sample| of_kind(sample, kind) == 0) {
            continue;
        }
        let _ = writeln!(
            svg,
            r##"<rect x="{x:.0}" y="{0:.0}" width="12" height="12" rx="2" fill="{colour}"/><text x="{1:.0}" y="{2:.0}" fill="#333333">{name}</text>"##,
            HEIGHT - 30.0,
            x + 17.0,
            HEIGHT - 19.5
        );
        x += 36.0 + 7.2 * name.len() as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(second: u32, path: u16, dial: u16) -> Sample {
        Sample {
            time: format!("2026-01-01T00:{:02}:{:02}Z", second / 60, second % 60),
            now: u64::from(path + dial),
            cap: 60,
            soft: 40,
            kinds: [("path".to_owned(), path), ("dial".to_owned(), dial)]
                .into_iter()
                .collect(),
            waiting: 0,
        }
    }

    #[test]
    fn a_recording_becomes_a_picture_with_its_peak_and_cap() {
        let samples: Vec<Sample> = (0..300).map(|n| sample(n, 10, if n == 77 { 31 } else { 2 })).collect();
        let svg = flows(&samples);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert!(svg.contains("41 flows at the most, 12 at the end; never more than 60"));
        assert!(svg.contains("<title>dials</title>") && !svg.contains("<title>relays</title>"));
        assert_eq!(svg.matches("<path ").count(), 2);
    }

    #[test]
    fn a_peak_is_not_lost_among_many_moments() {
        let samples: Vec<Sample> = (0..3600)
            .map(|n| sample(n, 5, if n == 1234 { 50 } else { 0 }))
            .collect();
        let svg = flows(&samples);
        assert!(svg.contains("55 flows at the most"));
        assert!(svg.contains("<title>dials</title>"));
    }
}
