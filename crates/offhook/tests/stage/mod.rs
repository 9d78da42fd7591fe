//! Real nodes for tests: each in a home of its own, run by the real binary, driven as a script would drive it.

#![allow(dead_code, reason = "every test file uses another part of the stage")]
#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::UdpSocket;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

/// The longest that anything between nodes on one machine may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One person's machine.
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) home: PathBuf,
    /// What the node, and it alone, finds in its environment.
    pub(crate) environment: Vec<(&'static str, PathBuf)>,
    port: u16,
    node: Option<Child>,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Machine {
    /// A machine whose home does not exist yet.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        // Free now and, as ports are given out in turn, for a while.
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self {
            name: name.to_owned(),
            home: folder.join(name),
            environment: Vec::new(),
            port,
            node: None,
        }
    }

    /// The same machine, for commands from another thread.
    pub(crate) fn another_terminal(&self) -> Self {
        Self {
            name: self.name.clone(),
            home: self.home.clone(),
            environment: Vec::new(),
            port: self.port,
            node: None,
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_offhook"));
        command.arg("--home").arg(&self.home).args(args);
        command
            .env_remove("OFFHOOK_HOME")
            .env_remove("OFFHOOK_PASSPHRASE")
            .env("TZ", "UTC");
        command.stdin(Stdio::null());
        command
    }

    /// Starts the node and returns what it says of itself.
    pub(crate) fn up(&mut self) -> Value {
        let listen = format!("127.0.0.1:{}", self.port);
        let name = self.name.clone();
        self.up_with(&["--listen", &listen, "--name", &name])
    }

    /// Starts a keeper and returns what it says of itself.
    pub(crate) fn keep(&mut self) -> Value {
        let listen = format!("127.0.0.1:{}", self.port);
        let name = self.name.clone();
        self.start(&["keeper", "--listen", &listen, "--name", &name])
    }

    /// Starts the node with these flags.
    pub(crate) fn up_with(&mut self, flags: &[&str]) -> Value {
        self.start(&[&["up", "--headless"], flags].concat())
    }

    fn start(&mut self, verb: &[&str]) -> Value {
        let mut args = vec!["--json"];
        args.extend(verb);
        args.push("--no-public-infrastructure");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.home.with_extension("log"))
            .unwrap();
        let mut command = self.command(&args);
        command.envs(self.environment.iter().map(|(name, value)| (*name, value)));
        let mut node = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(node.stdout.take().unwrap())
            .read_line(&mut first)
            .unwrap();
        self.node = Some(node);
        serde_json::from_str(&first).unwrap_or_else(|_| panic!("{} did not start: {}", self.name, self.log()))
    }

    /// What the node said on stderr.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.home.with_extension("log")).unwrap_or_default()
    }

    /// Ends the node as a service manager does, and returns how long that took.
    pub(crate) fn stop(&mut self) -> Duration {
        let mut node = self.node.take().expect("the node runs");
        let start = Instant::now();
        signal(node.id(), "TERM");
        let status = node.wait().unwrap();
        assert!(status.success(), "{} ended with {status}: {}", self.name, self.log());
        start.elapsed()
    }

    /// Ends the node as a power cut does.
    pub(crate) fn kill(&mut self) {
        let mut node = self.node.take().expect("the node runs");
        node.kill().unwrap();
        node.wait().unwrap();
    }

    /// Runs one command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let mut command = self.command(args);
        finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// The same with something on stdin.
    pub(crate) fn run_with_stdin(&self, args: &[&str], stdin: &[u8]) -> Ran {
        let mut command = self.command(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The command may have ended without reading.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        finish(child)
    }

    /// Runs one command that must succeed, with `--json`, and returns its object.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let mut lines = self.lines(args);
        assert_eq!(lines.len(), 1, "{args:?} printed {lines:?}");
        lines.remove(0)
    }

    /// Runs one command that must succeed, with `--json`, and returns its lines.
    pub(crate) fn lines(&self, args: &[&str]) -> Vec<Value> {
        let ran = self.run(&[&["--json"], args].concat());
        assert_eq!(ran.code, 0, "{} {args:?}: {} {}", self.name, ran.stderr, self.log());
        ran.stdout
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// The texts of a room's messages, as shown.
    pub(crate) fn texts(&self, room: &str) -> Vec<String> {
        let lines = self.lines(&["log", room, "--limit", "1000"]);
        let messages = lines.iter().filter(|line| line["kind"] == "message");
        messages.map(|line| line["text"].as_str().unwrap().to_owned()).collect()
    }

    /// Says something and returns the entry's id.
    pub(crate) fn say(&self, room: &str, text: &str) -> String {
        self.json(&["send", room, text])["id"].as_str().unwrap().to_owned()
    }

    /// Waits until `what` holds, asking the node again and again.
    pub(crate) fn wait_until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) -> Duration {
        let start = Instant::now();
        while !holds(self) {
            if start.elapsed() > PATIENCE {
                let status = self.run(&["status"]);
                panic!(
                    "{}: still not so: {what}\n{}{}\n{}",
                    self.name,
                    status.stdout,
                    status.stderr,
                    self.log()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        start.elapsed()
    }

    /// Sends raw bytes to the API and returns all that comes back until the node closes.
    pub(crate) fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.home.join("control.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(node) = &mut self.node {
            // It may have ended by itself.
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Waits for a command's end; one that does not end by itself is ended, which shows in its code.
fn finish(child: Child) -> Ran {
    let id = child.id();
    let (ended, end) = mpsc::channel();
    std::thread::spawn(move || ended.send(child.wait_with_output()));
    let output = end.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        signal(id, "KILL");
        end.recv().unwrap()
    });
    output.unwrap().into()
}

/// Sends a signal by name.
pub(crate) fn signal(process: u32, name: &str) {
    let mut kill = Command::new("kill");
    let status = kill.arg(format!("-{name}")).arg(process.to_string()).status();
    assert!(status.unwrap().success());
}

/// The names of a JSON object, in order.
pub(crate) fn names(object: &Value) -> Vec<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}
