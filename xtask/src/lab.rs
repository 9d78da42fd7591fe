//! `cargo xtask lab NAME...`: real binaries in network namespaces, by hand and (the short ones) as a step of the test run.

use std::path::PathBuf;

use anyhow::Result;

use crate::command::{cargo, in_root, root, run as run_command};
use crate::prerequisites;

/// Builds the programs under test and passes everything on to the lab's own command line.
pub(crate) fn run(args: &[String]) -> Result<()> {
    if let [name, rest @ ..] = args
        && name == "exchange-cut"
    {
        prerequisites::for_tests()?;
        let example = [
            "run",
            "--package",
            "offhook-exchange",
            "--example",
            "exchange_cut",
            "--",
        ];
        return run_command(cargo(example).args(rest));
    }
    if args.iter().any(|arg| arg == "--list") {
        return run_command(cargo(["run", "--quiet", "--package", "offhook-lab", "--"]).args(args));
    }
    prerequisites::for_build()?;
    prerequisites::want_for_lab()?;
    // As the tests build them, so that nothing is compiled twice.
    let build = [
        "build",
        "--workspace",
        "--bin",
        "offhook",
        "--bin",
        "offhook-lab",
        "--example",
        "lab_crowd",
    ];
    run_command(&mut cargo(build))?;
    play(args)
}

/// The labs that are short enough for every test run, with the programs that the tests before were run with.
pub(crate) fn short() -> Result<()> {
    prerequisites::want_for_lab()?;
    play(&["--short".to_owned()])
}

fn play(args: &[String]) -> Result<()> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let built = target.join("debug");
    let (bin, out) = (built.as_os_str(), target.join("lab"));
    let mut lab = in_root(built.join("offhook-lab"), args);
    run_command(lab.arg("--bin").arg(bin).arg("--out").arg(out))
}
