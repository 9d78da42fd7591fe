//! Lines over time as SVG, for documents and for the technician of the hotel.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

/// One line.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) colour: &'static str,
    /// Seconds and values.
    pub(crate) points: Vec<(f64, f64)>,
}

/// A level that is not to be crossed.
pub(crate) struct Level {
    pub(crate) name: String,
    pub(crate) value: f64,
}

/// Draws lines and levels, and writes them to a file.
pub(crate) fn write(path: &Path, title: &str, series: &[Series], levels: &[Level]) -> Result<()> {
    std::fs::write(path, drawn(title, series, levels)).with_context(|| format!("writing {}", path.display()))?;
    println!("   drawn: {}", path.display());
    Ok(())
}

fn drawn(title: &str, series: &[Series], levels: &[Level]) -> String {
    let points = || series.iter().flat_map(|line| &line.points);
    let time_max = points().map(|(at, _)| *at).fold(1.0, f64::max);
    let marks = levels.iter().map(|level| level.value);
    let value_max = points().map(|(_, value)| *value).chain(marks).fold(1.0, f64::max) * 1.05;
    let x = |at: f64| LEFT + at / time_max * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / value_max * (HEIGHT - TOP - BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"16\">{title}</text>\n\
         <path d=\"M{LEFT} {TOP}V{}H{}\" fill=\"none\" stroke=\"black\"/>\n",
        HEIGHT - BOTTOM,
        WIDTH - RIGHT
    );
    for step in 0..=5 {
        let share = f64::from(step) / 5.0;
        let (at, value) = (time_max * share, value_max * share);
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{at:.0} s</text>\n\
             <text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{value:.0}</text>",
            x(at),
            HEIGHT - BOTTOM + 20.0,
            LEFT - 8.0,
            y(value) + 4.0
        );
    }
    for level in levels {
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {0:.1}H{1}\" stroke=\"#999\" stroke-dasharray=\"6 4\"/>\n<text x=\"{2}\" y=\"{3:.1}\" fill=\"#555\">{4}</text>",
            y(level.value),
            WIDTH - RIGHT,
            WIDTH - RIGHT + 6.0,
            y(level.value) + 4.0,
            level.name
        );
    }
    for (number, line) in series.iter().enumerate() {
        let path: Vec<String> = line
            .points
            .iter()
            .map(|(at, value)| format!("{:.1},{:.1}", x(*at), y(*value)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>\n<text x=\"{}\" y=\"{}\" fill=\"{1}\">{}</text>",
            path.join(" "),
            line.colour,
            LEFT + 14.0,
            TOP + 14.0 + 18.0 * f64::from(u8::try_from(number).unwrap_or(u8::MAX)),
            line.name
        );
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_and_level_is_drawn() {
        let line = Series {
            name: "flows".to_owned(),
            colour: "#c00",
            points: vec![(0.0, 0.0), (10.0, 60.0)],
        };
        let level = Level {
            name: "cap 60".to_owned(),
            value: 60.0,
        };
        let svg = drawn("a title", &[line], &[level]);
        assert!(svg.contains("<polyline") && svg.contains("cap 60") && svg.contains("a title"));
    }
}
