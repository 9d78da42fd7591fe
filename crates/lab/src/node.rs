//! A person with a real `offhook` in a namespace of their own, driven through `offhook --json` as any script would do it.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::site::{Namespace, Site};

/// The longest that one step may take, unless a lab says otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// What nodes log: enough to see afterwards which line came up when, and which dial failed.
const LOGGED: &str = "offhook=debug,offhook_node=debug,warn";
/// How often something waited for is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// One person, their home and their machine.
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) machine: Namespace,
    pub(crate) home: PathBuf,
    program: PathBuf,
    node: Option<Child>,
}

impl Person {
    /// A person whose home does not exist yet.
    pub(crate) fn new(site: &Site, name: &str, machine: &Namespace) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            machine: machine.clone(),
            home: site.dir().join(name),
            program: site.program("offhook")?,
            node: None,
        })
    }

    /// Starts the node, without public infrastructure, and returns what it says of itself.
    pub(crate) fn up(&mut self, flags: &[&str]) -> Result<Value> {
        self.start(&[&["up", "--headless"], flags].concat())
    }

    /// Starts the node as nothing but a keeper.
    pub(crate) fn keep(&mut self, listen: &str) -> Result<Value> {
        self.start(&["keeper", "--listen", listen])
    }

    fn start(&mut self, verb: &[&str]) -> Result<Value> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.home.with_extension("log"))?;
        let mut command = self.machine.command(&self.program);
        command
            .arg("--home")
            .arg(&self.home)
            .arg("--json")
            .args(verb)
            .args(["--no-public-infrastructure", "--name", &self.name])
            // Nodes of one machine and user find each other through this folder; here each has a machine of its own.
            .env("XDG_RUNTIME_DIR", self.runtime_dir()?)
            .env("RUST_LOG", LOGGED);
        let mut node = plain(&mut command)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("cannot start offhook")?;
        let output = node.stdout.take().context("stdout was piped")?;
        self.node = Some(node);
        let mut first = String::new();
        let mut output = BufReader::new(output);
        output.read_line(&mut first)?;
        // Nobody reads the rest, but the pipe must stay open.
        thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        serde_json::from_str(&first).with_context(|| format!("{} did not start: {}", self.name, self.log()))
    }

    fn runtime_dir(&self) -> Result<PathBuf> {
        let dir = self.home.with_extension("run");
        fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// What the node said on stderr, its end.
    pub(crate) fn log(&self) -> String {
        let text = fs::read_to_string(self.home.with_extension("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Ends the node as Ctrl-C does.
    pub(crate) fn down(&mut self) -> Result<()> {
        let mut node = self.node.take().context("the node does not run")?;
        send_signal(node.id(), "TERM")?;
        ensure!(node.wait()?.success(), "{} did not end well: {}", self.name, self.log());
        Ok(())
    }

    /// Ends the node as a loss of power does.
    pub(crate) fn power_off(&mut self) -> Result<()> {
        let mut node = self.node.take().context("the node does not run")?;
        node.kill()?;
        node.wait()?;
        Ok(())
    }

    pub(crate) fn is_up(&self) -> bool {
        self.node.is_some()
    }

    /// The node's process.
    pub(crate) fn process(&self) -> Result<u32> {
        Ok(self.node.as_ref().context("the node does not run")?.id())
    }

    /// One command, which must succeed; the lines of JSON that it prints.
    pub(crate) fn lines(&self, args: &[&str]) -> Result<Vec<Value>> {
        let mut command = Command::new(&self.program);
        command.arg("--home").arg(&self.home).arg("--json").args(args);
        let ended = plain(&mut command).output().context("cannot start offhook")?;
        ensure!(
            ended.status.success(),
            "{} {args:?}: {}",
            self.name,
            String::from_utf8_lossy(&ended.stderr).trim_end()
        );
        let printed = String::from_utf8_lossy(&ended.stdout).into_owned();
        let parsed = printed
            .lines()
            .map(|line| serde_json::from_str(line).context("not JSON"));
        parsed.collect()
    }

    /// One command that prints one object.
    pub(crate) fn json(&self, args: &[&str]) -> Result<Value> {
        self.lines(args)?.into_iter().next().context("nothing was printed")
    }

    pub(crate) fn make_room(&self, room: &str) -> Result<()> {
        self.json(&["room", "new", room]).map(drop)
    }

    /// Invites a friend and waits until they are in.
    pub(crate) fn let_in(&self, friend: &Self, room: &str) -> Result<()> {
        let invite = self.json(&["invite", room])?;
        friend
            .json(&["join", text_of(&invite, "invite")?, "--wait", "60"])
            .map(drop)
    }

    pub(crate) fn say(&self, room: &str, text: &str) -> Result<()> {
        self.json(&["send", room, text]).map(drop)
    }

    /// Follows a room, as somebody does who has it open.
    pub(crate) fn follow(&self, room: &str) -> Result<Follower> {
        let mut command = Command::new(&self.program);
        command.arg("--home").arg(&self.home).args(["tail", room]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        plain(&mut command)
            .spawn()
            .map(Follower)
            .context("cannot start offhook")
    }

    /// The texts of a room's newest messages, as shown.
    pub(crate) fn texts(&self, room: &str) -> Result<Vec<String>> {
        let lines = self.lines(&["log", room, "--limit", "1000"])?;
        let messages = lines.iter().filter(|line| line["kind"] == "message");
        Ok(messages
            .filter_map(|line| line["text"].as_str().map(str::to_owned))
            .collect())
    }

    /// Waits until this person sees exactly these texts; returns how long it took.
    pub(crate) fn wait_for(&self, room: &str, texts: &[String], patience: Duration) -> Result<Duration> {
        self.wait_until(&format!("sees {} messages", texts.len()), patience, || {
            Ok(self.texts(room)? == texts)
        })
    }

    /// Waits until something holds, and returns how long it took.
    pub(crate) fn wait_until(
        &self,
        what: &str,
        patience: Duration,
        holds: impl FnMut() -> Result<bool>,
    ) -> Result<Duration> {
        wait_until(patience, holds).with_context(|| format!("{}: not so: {what}\n{}", self.name, self.log()))
    }

    /// The line to a peer, as `offhook status` tells: its path, where one is up.
    pub(crate) fn path_to(&self, peer: &str) -> Result<Option<String>> {
        let status = self.json(&["status"])?;
        let peers = status["peers"].as_array().cloned().unwrap_or_default();
        let line = peers.iter().find(|line| line["name"] == peer && line["up"] == true);
        Ok(line.map(|line| line["path"].as_str().unwrap_or_default().to_owned()))
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        if let Some(node) = &mut self.node {
            // It may have ended by itself.
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

/// A person who reads along in a room.
pub(crate) struct Follower(Child);

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a machine has sent, received and computed since it started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) cpu: Duration,
}

/// Clock ticks a second in /proc (USER_HZ, the same on every Linux).
const TICKS_PER_S: f64 = 100.0;

impl Person {
    /// Packets and bytes of the interface, both ways, and the node's processor time.
    pub(crate) fn usage(&self, interface: &str) -> Result<Usage> {
        let table = self
            .machine
            .within(|| fs::read_to_string("/proc/thread-self/net/dev").context("reading interface counters"))?;
        let line = table
            .lines()
            .find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'))
            .with_context(|| format!("no interface {interface}"))?;
        let counters: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let counter = |place: usize| counters.get(place).copied().context("a counter is missing");
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process()?))?;
        // Fields 14 and 15, counted after the name, which may hold spaces.
        let (_, fields) = stat.rsplit_once(')').context("no such process")?;
        let ticks = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|word| word.parse::<u32>().ok());
        Ok(Usage {
            packets: counter(1)? + counter(9)?,
            bytes: counter(0)? + counter(8)?,
            cpu: Duration::from_secs_f64(f64::from(ticks.sum::<u32>()) / TICKS_PER_S),
        })
    }
}

/// A running `offhook relay`.
pub(crate) struct RelayProcess {
    pub(crate) url: String,
    process: Child,
}

impl RelayProcess {
    pub(crate) fn start(site: &Site, machine: &Namespace, listen: &str) -> Result<Self> {
        let log = File::create(site.dir().join("relay.log"))?;
        let mut command = machine.command(site.program("offhook")?);
        command.args(["--json", "relay", "--listen", listen]);
        let mut process = plain(&mut command).stdout(Stdio::piped()).stderr(log).spawn()?;
        let mut first = String::new();
        BufReader::new(process.stdout.take().context("stdout was piped")?).read_line(&mut first)?;
        let up: Value = serde_json::from_str(&first).context("the relay did not start")?;
        Ok(Self {
            url: text_of(&up, "url")?.to_owned(),
            process,
        })
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Waits until something holds, and returns how long it took.
pub(crate) fn wait_until(patience: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<Duration> {
    let start = Instant::now();
    while !holds()? {
        if start.elapsed() > patience {
            bail!("waited {} s in vain", patience.as_secs());
        }
        thread::sleep(LOOK);
    }
    Ok(start.elapsed())
}

/// A text of a JSON object.
pub(crate) fn text_of<'v>(object: &'v Value, field: &str) -> Result<&'v str> {
    object[field]
        .as_str()
        .with_context(|| format!("no `{field}` in {object}"))
}

/// Sends a signal to a process that a lab started.
pub(crate) fn send_signal(process: u32, name: &str) -> Result<()> {
    crate::site::run(Command::new("kill").arg(format!("-{name}")).arg(process.to_string()))
}

/// Without this person's own settings.
fn plain(command: &mut Command) -> &mut Command {
    command
        .env_remove("OFFHOOK_HOME")
        .env_remove("OFFHOOK_PASSPHRASE")
        .env("TZ", "UTC")
        .stdin(Stdio::null())
}
