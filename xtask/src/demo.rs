//! `cargo xtask demo`: the story, played with three real node processes on loopback and printed as a timeline with times.
//!
//! Ada makes a room; Bea and Cem join. Cem goes away while the others talk; they leave; Bea alone comes back, and Cem gets everything. Everything
//! is driven through `offhook --json`, as any script would do it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::command::{built, cargo, output, run as run_command};
use crate::prerequisites;

/// The longest that one step may take.
const STEP_MAX: Duration = Duration::from_secs(30);
const ROOM: &str = "Kitchen";

/// Builds the binary and plays the story.
pub(crate) fn run(args: &[String]) -> Result<()> {
    if let Some(unknown) = args.first() {
        bail!("`cargo xtask demo` takes no arguments, and got `{unknown}`");
    }
    prerequisites::for_build()?;
    run_command(&mut cargo(["build", "--package", "offhook", "--bin", "offhook"]))?;
    let folder = std::env::temp_dir().join(format!("offhook-demo-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let played = play(&folder);
    // The homes hold keys of people who never were; nothing is lost if they stay.
    let _ = std::fs::remove_dir_all(&folder);
    played
}

fn play(folder: &Path) -> Result<()> {
    let start = Instant::now();
    let say = |line: &str| println!("{:6.2} s  {line}", start.elapsed().as_secs_f64());
    let mut ada = Person::new(folder, "Ada")?;
    let mut bea = Person::new(folder, "Bea")?;
    let mut cem = Person::new(folder, "Cem")?;
    for person in [&mut ada, &mut bea, &mut cem] {
        person.up()?;
        say(&format!("{} is up, in a home of their own", person.name));
    }
    ada.json(&["room", "new", ROOM])?;
    say(&format!("Ada makes the room {ROOM}"));
    for friend in [&bea, &cem] {
        let invite = ada.json(&["invite", ROOM])?;
        let joined = friend.json(&["join", invite["invite"].as_str().context("no invite")?])?;
        say(&format!(
            "{} joins with an invite, in {} s",
            friend.name, joined["seconds"]
        ));
    }
    let mut said = vec![talk(&ada, "Shall we cook on Friday?")?];
    cem.wait_for(&said)?;
    say("Cem reads: Shall we cook on Friday?");
    cem.down()?;
    say("Cem closes the laptop");
    for (speaker, listener, text) in [
        (&bea, &ada, "Friday is good"),
        (&ada, &bea, "I bring bread"),
        (&bea, &ada, "and I bring soup"),
    ] {
        said.push(talk(speaker, text)?);
        listener.wait_for(&said)?;
        say(&format!("{}: {text}", speaker.name));
    }
    ada.down()?;
    bea.down()?;
    say("Ada and Bea leave: no node of the room runs");
    cem.up()?;
    say(&format!("Cem comes back, alone, with {}", count(cem.texts()?.len())));
    bea.up()?;
    let since = Instant::now();
    cem.wait_for(&said)?;
    let took = since.elapsed().as_secs_f64();
    say(&format!(
        "Bea comes back; {took:.2} s later Cem has all {}, Ada's among them",
        count(said.len())
    ));
    let found = cem.lines(&["search", "bread"])?;
    ensure!(found.len() == 1, "searching for bread found {}", found.len());
    say("Cem searches for `bread` and finds what Ada said");
    println!("\n{}", output(&mut cem.command(&["log", ROOM]))?);
    Ok(())
}

fn count(messages: usize) -> String {
    match messages {
        1 => "1 message".to_owned(),
        n => format!("{n} messages"),
    }
}

fn talk(speaker: &Person, text: &str) -> Result<String> {
    speaker.json(&["send", ROOM, text])?;
    Ok(text.to_owned())
}

/// One person's home and node.
struct Person {
    name: &'static str,
    home: PathBuf,
    listen: String,
    node: Option<Child>,
}

impl Person {
    fn new(folder: &Path, name: &'static str) -> Result<Self> {
        let free = std::net::UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
        Ok(Self {
            name,
            home: folder.join(name),
            listen: free.to_string(),
            node: None,
        })
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = built("offhook");
        command.arg("--home").arg(&self.home).args(args);
        command
    }

    fn up(&mut self) -> Result<()> {
        let flags = [
            "--name",
            self.name,
            "--listen",
            &self.listen,
            "--headless",
            "--no-public-infrastructure",
        ];
        let mut command = self.command(&[&["--json", "up"], &flags[..]].concat());
        let mut node = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let mut status = String::new();
        BufReader::new(node.stdout.take().context("stdout was piped")?).read_line(&mut status)?;
        self.node = Some(node);
        ensure!(!status.is_empty(), "{} did not start", self.name);
        Ok(())
    }

    fn down(&mut self) -> Result<()> {
        let mut node = self.node.take().context("the node runs")?;
        run_quietly(Command::new("kill").arg(node.id().to_string()))?;
        ensure!(node.wait()?.success(), "{} did not end well", self.name);
        Ok(())
    }

    fn lines(&self, args: &[&str]) -> Result<Vec<Value>> {
        let printed = output(&mut self.command(&[&["--json"], args].concat()))?;
        printed
            .lines()
            .map(|line| serde_json::from_str(line).context("not JSON"))
            .collect()
    }

    fn json(&self, args: &[&str]) -> Result<Value> {
        self.lines(args)?.into_iter().next().context("nothing was printed")
    }

    fn texts(&self) -> Result<Vec<String>> {
        let lines = self.lines(&["log", ROOM])?;
        let messages = lines.iter().filter(|line| line["kind"] == "message");
        Ok(messages
            .filter_map(|line| line["text"].as_str().map(str::to_owned))
            .collect())
    }

    fn wait_for(&self, texts: &[String]) -> Result<()> {
        let start = Instant::now();
        while self.texts()? != texts {
            ensure!(
                start.elapsed() < STEP_MAX,
                "{} has {:?} and not {texts:?}",
                self.name,
                self.texts()?
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

fn run_quietly(command: &mut Command) -> Result<()> {
    output(command).map(drop)
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
