//! Namespaces, cables, and clearing them away.
//!
//! A *site* is what one lab builds: namespaces named `offhook-lab-PID-NAME` and a folder for homes and logs. All of it goes when the site is dropped, at Ctrl-C or
//! SIGTERM ([`end_on_signals`]), and where neither happened, when the next lab starts ([`clear_leftovers`]). Only processes inside namespaces of this name are ended.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::report::Figures;

/// The beginning of every namespace's name.
const PREFIX: &str = "offhook-lab-";
/// Where iproute2 keeps named namespaces.
const NETNS: &str = "/run/netns";

/// Lines of each log that are shown when a lab has failed.
const LOG_LINES_SHOWN: usize = 12;

/// What one lab builds.
pub(crate) struct Site {
    lab: &'static str,
    /// The folder of homes and logs.
    dir: PathBuf,
    bin: PathBuf,
    out: PathBuf,
    keep: bool,
    links: AtomicU32,
}

impl Site {
    pub(crate) fn open(lab: &'static str, bin: PathBuf, out: PathBuf, keep: bool) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("{}{lab}", own_prefix()));
        fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        fs::create_dir_all(&out).with_context(|| format!("making {}", out.display()))?;
        Ok(Self {
            lab,
            dir,
            bin,
            out,
            keep,
            links: AtomicU32::new(0),
        })
    }

    /// What this machine lacks for any lab at all.
    pub(crate) fn missing(&self) -> Option<String> {
        if !rustix::process::geteuid().is_root() {
            return Some("network namespaces need root".to_owned());
        }
        for (program, package) in [("ip", "iproute2"), ("nft", "nftables"), ("conntrack", "conntrack")] {
            if !succeeds(Command::new(program).arg("--version")) && !succeeds(Command::new(program).arg("-V")) {
                return Some(format!("`{program}` is not installed (Debian: {package})"));
            }
        }
        let tried = self.namespace("try").and_then(|tried| {
            tried.ip("link add v0 type veth peer name v1")?;
            tried.nft(
                "table ip t { chain c { type nat hook postrouting priority srcnat; oifname \"v0\" masquerade; }; }",
            )
        });
        remove_namespaces(&format!("{}try", own_prefix()));
        tried
            .err()
            .map(|error| format!("the kernel gives no namespaces, veth or NAT: {error:#}"))
    }

    /// Makes a namespace with loopback up and forwarding on.
    pub(crate) fn namespace(&self, name: &str) -> Result<Namespace> {
        let namespace = Namespace {
            name: format!("{}{name}", own_prefix()),
        };
        run(Command::new("ip").args(["netns", "add", &namespace.name]))?;
        namespace.ip("link set lo up")?;
        namespace.sysctl(&[
            "net.ipv4.ip_forward=1",
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.default.rp_filter=0",
            // Duplicate address detection would hold IPv6 addresses back for a second.
            "net.ipv6.conf.default.accept_dad=0",
        ])?;
        Ok(namespace)
    }

    /// A name for an interface that is free in every namespace.
    pub(crate) fn fresh_interface(&self) -> String {
        format!("x{}", self.links.fetch_add(1, Ordering::Relaxed))
    }

    /// Keeps homes and logs of a lab that failed, and shows the end of each log.
    pub(crate) fn keep_and_show(&mut self) {
        self.keep = true;
        let logs = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let mut logs: Vec<PathBuf> = logs.map(|file| file.path()).collect();
        logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.sort();
        for log in logs {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
            let name = log.file_name().unwrap_or_default().to_string_lossy();
            println!("   -- {name}, {} of {} lines", shown.len(), lines.len());
            for line in shown {
                println!("      {line}");
            }
        }
    }

    /// A folder for homes and logs.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A program under test.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.bin.join(name);
        if !path.is_file() {
            bail!("{} is not built; `cargo xtask lab NAME` builds it", path.display());
        }
        Ok(path)
    }

    /// A file of results.
    pub(crate) fn result(&self, extension: &str) -> PathBuf {
        self.out.join(format!("{}.{extension}", self.lab))
    }

    /// The lab's figures.
    pub(crate) fn figures(&self) -> Figures {
        Figures::new(self.result("json"))
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        remove_namespaces(&own_prefix());
        if self.keep {
            // Under another name: the next lab clears away what this one left.
            let kept = std::env::temp_dir().join(format!("offhook-kept-{}-{}", std::process::id(), self.lab));
            match fs::rename(&self.dir, &kept) {
                Ok(()) => println!("   kept: {}", kept.display()),
                Err(error) => println!("   not kept: {error}"),
            }
        } else {
            // Homes of people who never were; what stays is in the temporary folder.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// One network namespace: a machine as far as the network goes.
#[derive(Debug, Clone)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// `ip` inside the namespace; words are split at spaces.
    pub(crate) fn ip(&self, words: &str) -> Result<()> {
        run(Command::new("ip")
            .args(["-n", &self.name])
            .args(words.split_whitespace()))
    }

    /// Replaces rules of the packet filter.
    pub(crate) fn nft(&self, ruleset: &str) -> Result<()> {
        let mut nft = self
            .command("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start nft")?;
        nft.stdin
            .take()
            .context("stdin was piped")?
            .write_all(ruleset.as_bytes())?;
        let ended = nft.wait_with_output()?;
        if !ended.status.success() {
            bail!(
                "nft refused: {}\n{ruleset}",
                String::from_utf8_lossy(&ended.stderr).trim_end()
            );
        }
        Ok(())
    }

    pub(crate) fn sysctl(&self, settings: &[&str]) -> Result<()> {
        for setting in settings {
            let (key, value) = setting.split_once('=').context("a setting is KEY=VALUE")?;
            let path = Path::new("/proc/sys").join(key.replace('.', "/"));
            self.within(|| {
                fs::write(&path, value).with_context(|| format!("setting {key}"))?;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// A program inside the namespace.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// What a program inside the namespace prints.
    pub(crate) fn output(&self, program: &str, args: &[&str]) -> Result<String> {
        let ended = self.command(program).args(args).stdin(Stdio::null()).output()?;
        if !ended.status.success() {
            bail!(
                "{program} {args:?} failed: {}",
                String::from_utf8_lossy(&ended.stderr).trim_end()
            );
        }
        Ok(String::from_utf8_lossy(&ended.stdout).into_owned())
    }

    /// Does something on a thread that lives in the namespace: sockets opened there stay there.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = Path::new(NETNS).join(&self.name);
        let inside = || {
            let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .context("entering a namespace")?;
            work()
        };
        thread::scope(|scope| {
            scope
                .spawn(inside)
                .join()
                .unwrap_or_else(|_| bail!("a thread inside a namespace panicked"))
        })
    }
}

/// A cable between two namespaces, both ends up.
pub(crate) fn cable(a: &Namespace, a_end: &str, b: &Namespace, b_end: &str) -> Result<()> {
    a.ip(&format!(
        "link add {a_end} type veth peer name {b_end} netns {}",
        b.name
    ))?;
    a.ip(&format!("link set {a_end} up"))?;
    b.ip(&format!("link set {b_end} up"))
}

/// Runs a program to its end; its exit code other than 0 is an error that quotes it.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let ended = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !ended.status.success() {
        bail!(
            "{command:?} failed: {}",
            String::from_utf8_lossy(&ended.stderr).trim_end()
        );
    }
    Ok(())
}

fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn own_prefix() -> String {
    format!("{PREFIX}{}-", std::process::id())
}

/// Ends the lab at Ctrl-C, SIGTERM or SIGHUP, with everything cleared away.
pub(crate) fn end_on_signals() {
    let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else {
        return;
    };
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            eprintln!("lab: interrupted; clearing away");
            remove_namespaces(&own_prefix());
            remove_folders(&own_prefix());
            std::process::exit(130);
        }
    });
}

/// Clears away what labs left that are no longer running.
pub(crate) fn clear_leftovers() {
    for name in names(Path::new(NETNS)).into_iter().chain(names(&std::env::temp_dir())) {
        let Some((owner, _)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')) else {
            continue;
        };
        let is_running = owner.parse::<u32>().is_err() || Path::new("/proc").join(owner).exists();
        if !is_running {
            let prefix = format!("{PREFIX}{owner}-");
            remove_namespaces(&prefix);
            remove_folders(&prefix);
        }
    }
}

/// Ends what runs in the namespaces whose names begin so, and removes them.
fn remove_namespaces(prefix: &str) {
    for name in names(Path::new(NETNS)).iter().filter(|name| name.starts_with(prefix)) {
        if let Ok(found) = Command::new("ip").args(["netns", "pids", name]).output() {
            for process in String::from_utf8_lossy(&found.stdout).split_whitespace() {
                // The lab's own threads visit namespaces.
                if process != std::process::id().to_string() {
                    let _ = Command::new("kill").args(["-KILL", process]).status();
                }
            }
        }
        let _ = Command::new("ip").args(["netns", "del", name]).status();
    }
}

fn remove_folders(prefix: &str) {
    let folder = std::env::temp_dir();
    for name in names(&folder).iter().filter(|name| name.starts_with(prefix)) {
        let _ = fs::remove_dir_all(folder.join(name));
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_namespaces_of_labs_that_ended_are_cleared() {
        let ended = format!("{PREFIX}4194304000-x");
        let running = format!("{}x", own_prefix());
        let folder = std::env::temp_dir();
        for name in [&ended, &running] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        clear_leftovers();
        assert!(!folder.join(&ended).exists());
        assert!(folder.join(&running).exists());
        remove_folders(&running);
    }
}
