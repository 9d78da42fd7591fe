//! Shell: the one binary. The command line, and the local API that it speaks; `offhook-node` runs the peer.
//!
//! [`flags`] is what was typed, [`verbs`] carries it out by asking the API through [`client`]; `offhook up` runs the node and serves [`api`] on the
//! control socket in the home and, with the browser client, over [`http`] and [`irc`] on loopback, where [`access`] says who may do what. [`problem`] has every error with its exit code; [`render`] is what people see; [`archive`] and [`seal`] are backups. [`plot`] draws.

mod access;
mod api;
mod archive;
mod client;
mod config;
mod flags;
mod home;
mod http;
mod irc;
mod picture;
mod plot;
mod problem;
mod render;
mod seal;
mod service;
mod verbs;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
pub(crate) use offhook_node::proto;

use flags::Flags;
use problem::{Exit, Problem};
use verbs::Stop;

/// How long work that cannot be interrupted (the sealing of a backup) may hold up the end.
const LINGER: Duration = Duration::from_millis(50);

fn main() -> ExitCode {
    let flags = Flags::parse();
    let json = flags.json;
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("offhook: the system gives no threads: {error}");
            return Exit::Failed.into();
        }
    };
    let ended = runtime.block_on(verbs::run(flags));
    runtime.shutdown_timeout(LINGER);
    match ended {
        Ok(()) | Err(Stop::OutputClosed) => ExitCode::SUCCESS,
        Err(Stop::Problem(problem)) => {
            tell(&problem, json);
            problem.kind.exit().into()
        }
    }
}

/// Says what is wrong, on stderr: for people, or with `--json` as one problem document.
fn tell(problem: &Problem, json: bool) {
    match serde_json::to_string(problem) {
        Ok(text) if json => eprintln!("{text}"),
        _ => eprintln!("offhook: {problem}"),
    }
}
