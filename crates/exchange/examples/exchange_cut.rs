//! The plug-pull laboratory. Prints a timeline, then one line of JSON.
//!
//! `exchange_cut [--cut process|machine|data-centre|one-way|pause|engine-server|engine|nothing|stop|newcomer]
//! [--calls N] [--audio N] [--ringing N] [--seconds N] [--direct] [--burn] [--burn-hard] [--flows] [--translated]
//! [--stranger VERSION] [--no-replication] [--picture FILE]`

#[path = "../tests/plug/mod.rs"]
mod plug;

use plug::{Cut, Outcome, Plan};

fn main() {
    plug::run_part_if_one();
    let (plan, picture) = plan(std::env::args().skip(1)).unwrap_or_else(|word| {
        eprintln!("exchange_cut: cannot use {word}");
        std::process::exit(2)
    });
    let outcome = plug::play(&plan);
    println!("{}", json(&plan, &outcome));
    if let Some(file) = picture {
        std::fs::write(&file, plug::picture::draw(&plan, &outcome)).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
}

/// The plan that the words describe and the file for a picture, or the first word that cannot be understood.
fn plan(mut words: impl Iterator<Item = String>) -> Result<(Plan, Option<String>), String> {
    let mut picture = None;
    let mut plan = Plan {
        calls: 60,
        audio: 20,
        ringing: 10,
        ..Plan::new(Cut::Process)
    };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(word.clone());
        let mut number = || value()?.parse::<usize>().map_err(|_| word.clone());
        match word.as_str() {
            "--calls" => plan.calls = number()?,
            "--audio" => plan.audio = number()?,
            "--ringing" => plan.ringing = number()?,
            "--seconds" => plan.seconds = number()? as u64,
            "--direct" => plan.direct = true,
            "--burn" => plan.burn = 1,
            // So many that everything else gets a tenth of the processors.
            "--burn-hard" => plan.burn = 9,
            "--flows" => plan.flows = true,
            "--translated" => plan.translated = true,
            "--picture" => picture = Some(value()?),
            "--stranger" => plan.stranger = Some(number()? as u8),
            "--no-replication" => plan.replicate = false,
            "--cut" => plan.cut = Cut::named(&value()?).ok_or(word)?,
            _ => return Err(word),
        }
    }
    Ok((plan, picture))
}

fn json(plan: &Plan, outcome: &Outcome) -> String {
    let (told, told_first_ms, told_last_ms) = outcome.told;
    let dropped = outcome.up_before.saturating_sub(outcome.up_after);
    let mut line = format!(
        "{{\"cut\":\"{:?}\",\"replicate\":{},\"direct\":{}",
        plan.cut, plan.replicate, plan.direct
    );
    let numbers = [
        ("calls", outcome.up_before as u64),
        ("dropped", dropped as u64),
        ("held", outcome.held as u64),
        ("hung", outcome.hung as u64),
        ("transferred", u64::from(outcome.transferred)),
        ("in_set_up", plan.ringing as u64),
        ("came_up", outcome.rung as u64),
        ("gap_before_ms", outcome.gap_before_ms),
        ("gap_p50_ms", outcome.gap_p50_ms),
        ("gap_p99_ms", outcome.gap_p99_ms),
        ("gap_max_ms", outcome.gap_max_ms),
        ("wrong_samples", outcome.wrong_samples),
        ("signalling_ms", outcome.signalling_ms),
        ("told", told),
        ("told_first_ms", told_first_ms),
        ("told_last_ms", told_last_ms),
        ("turns", outcome.turns.len() as u64),
        ("epochs", outcome.epochs),
        ("records", outcome.records as u64),
        ("records_doubled", outcome.records_doubled as u64),
        ("newcomer_answers_ms", outcome.newcomer_ms.0),
        ("newcomer_carries_ms", outcome.newcomer_ms.1),
    ];
    for (name, value) in numbers {
        line += &format!(",\"{name}\":{value}");
    }
    if let (Some(average), Some(busy)) = (outcome.load.average, outcome.load.busy) {
        line += &format!(",\"load_average\":[{:.1},{:.1}]", average.0, average.1);
        line += &format!(",\"busy_percent\":[{:.1},{:.1}]", busy.0, busy.1);
    }
    line + "}"
}
