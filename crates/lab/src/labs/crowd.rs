//! The crowd: some hundred real nodes in a few processes, and the client that dials them all.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::site::{Namespace, Site};

/// How long one step of a crowd may take.
const STEP_MAX: Duration = Duration::from_secs(300);

/// One process of the crowd, driven by lines.
pub(super) struct Crowd {
    process: Child,
    orders: ChildStdin,
    answers: Receiver<String>,
}

impl Crowd {
    pub(super) fn start(site: &Site, machine: &Namespace, name: &str, args: &[&str]) -> Result<Self> {
        let log = std::fs::File::create(site.dir().join(format!("{name}.log")))?;
        let runtime = site.dir().join(format!("{name}.run"));
        std::fs::create_dir_all(&runtime)?;
        let mut process = machine
            .command(site.program("examples/lab_crowd")?)
            .args(args)
            // Else they would fill the folder in which other nodes of this machine find each other.
            .env("XDG_RUNTIME_DIR", &runtime)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("cannot start the crowd")?;
        let orders = process.stdin.take().context("stdin was piped")?;
        let answers = lines_of(process.stdout.take().context("stdout was piped")?);
        Ok(Self {
            process,
            orders,
            answers,
        })
    }

    /// Tells without waiting.
    pub(super) fn tell(&mut self, order: &str) -> Result<()> {
        writeln!(self.orders, "{order}").context("the crowd has ended")
    }

    /// Waits for the answer to one order; returns its words.
    pub(super) fn answer(&self) -> Result<Vec<String>> {
        let line = self
            .answers
            .recv_timeout(STEP_MAX)
            .context("the crowd gives no answer")?;
        Ok(line.split_whitespace().map(str::to_owned).collect())
    }

    /// Tells and waits; returns the last word of the answer.
    pub(super) fn ask(&mut self, order: &str) -> Result<String> {
        self.tell(order)?;
        let words = self.answer()?;
        let verb = order.split(' ').next().unwrap_or_default();
        let expected = if verb == "say" { "said" } else { verb };
        ensure!(
            words.first().is_some_and(|word| word == expected),
            "{words:?} is no answer to {order}"
        );
        words.last().cloned().context("an empty answer")
    }

    /// The newest line, for programs that tell by themselves.
    pub(super) fn newest(&self) -> Option<String> {
        self.answers.try_iter().last()
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn lines_of(output: ChildStdout) -> Receiver<String> {
    let (found, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if found.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
