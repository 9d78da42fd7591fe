//! `cargo xtask up`: from a fresh clone to a running node with one command.

use anyhow::{Result, bail};

use crate::command::cargo;
use crate::prerequisites;

/// Checks the prerequisites, builds the binary and becomes `offhook up ARGS...`, so that Ctrl-C and SIGTERM reach the
/// node itself.
pub(crate) fn run(args: &[String]) -> Result<()> {
    prerequisites::for_build()?;
    let mut command = cargo(["run", "--quiet", "--package", "offhook", "--bin", "offhook", "--", "up"]);
    command.args(args);
    eprintln!("building; the first time takes some minutes");
    crate::command::run(&mut cargo(["build", "--package", "offhook", "--bin", "offhook"]))?;
    become_process(command)
}

#[cfg(unix)]
fn become_process(mut command: std::process::Command) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    // Relative paths among the arguments are meant from where the person stands, not from the workspace's root.
    command.current_dir(std::env::current_dir()?);
    let error = command.exec();
    bail!("cannot start offhook: {error}")
}

#[cfg(not(unix))]
fn become_process(mut command: std::process::Command) -> Result<()> {
    let status = command.status()?;
    if !status.success() {
        bail!("offhook ended with {status}");
    }
    Ok(())
}
