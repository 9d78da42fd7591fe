//! The plug-pull laboratory: `exchange_cut [--cut process|machine|data-centre|engine-server|engine] [--calls N]
//! [--audio N] [--ringing N] [--no-replication]`. Prints a timeline, then one line of JSON.

#[path = "../tests/plug/mod.rs"]
mod plug;

use plug::{Cut, Outcome, Plan};

fn main() {
    plug::run_part_if_one();
    let mut plan = Plan {
        cut: Cut::Process,
        calls: 60,
        audio: 20,
        ringing: 0,
        replicate: true,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|value| value.parse().ok());
        let known = match word.as_str() {
            "--calls" => number().map(|n| plan.calls = n),
            "--audio" => number().map(|n| plan.audio = n),
            "--ringing" => number().map(|n| plan.ringing = n),
            "--no-replication" => {
                plan.replicate = false;
                Some(())
            }
            "--cut" => words
                .next()
                .and_then(|name| Cut::named(&name))
                .map(|cut| plan.cut = cut),
            _ => None,
        };
        if known.is_none() {
            eprintln!("exchange_cut: cannot use {word}");
            std::process::exit(2);
        }
    }
    let outcome = plug::play(&plan);
    let Outcome {
        up_before,
        up_after,
        held,
        hung,
        transferred,
        rung,
        gap_p50_ms,
        gap_p99_ms,
        gap_max_ms,
        takeover_ms,
        records,
        records_doubled,
    } = outcome;
    let takeover = takeover_ms.map_or("null".to_owned(), |ms| ms.to_string());
    println!(
        "{{\"cut\":\"{:?}\",\"calls\":{up_before},\"left\":{up_after},\"dropped\":{},\"held\":{held},\"hung\":{hung},\
         \"transferred\":{transferred},\"ringing\":{},\"rung\":{rung},\"gap_p50_ms\":{gap_p50_ms},\
         \"gap_p99_ms\":{gap_p99_ms},\"gap_max_ms\":{gap_max_ms},\"told_ms\":{takeover},\"records\":{records},\
         \"records_doubled\":{records_doubled},\"replicate\":{}}}",
        plan.cut,
        up_before.saturating_sub(up_after),
        plan.ringing,
        plan.replicate
    );
}
