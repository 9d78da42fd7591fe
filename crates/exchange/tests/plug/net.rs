//! Three data centres and a network of phones, in network namespaces; gone with their owner.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "offhook-lab-";
/// The network that phones are in; the data centres are 1, 2 and 3.
pub const PHONES: u8 = 9;
/// Where phones behind a translator seem to be.
const OUTSIDE: u8 = 8;

pub struct Net {
    /// Several may be there at once.
    number: u32,
    names: BTreeSet<String>,
}

/// One machine of a data centre.
pub fn address(network: u8, host: u8) -> String {
    format!("10.81.{network}.{host}")
}

impl Net {
    /// A router with a bridge for each network.
    pub fn new() -> Self {
        remove_leftovers();
        static NUMBERS: AtomicU32 = AtomicU32::new(0);
        let mut net = Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            names: BTreeSet::new(),
        };
        let router = net.add("net");
        let mut lines = vec!["link set lo up".to_owned()];
        for network in [1, 2, 3, PHONES] {
            lines.push(format!("link add br{network} type bridge"));
            lines.push(format!("link set br{network} up"));
            lines.push(format!("addr add {}/24 dev br{network}", address(network, 254)));
        }
        batch(&router, &lines);
        run(
            "ip",
            &["netns", "exec", &router, "sysctl", "-qw", "net.ipv4.ip_forward=1"],
        );
        net
    }

    /// Phones are behind a translator from now on: what they send comes from one address, and nothing gets in but from
    /// where they have sent something.
    pub fn translate_phones(&self) {
        let (router, outside) = (self.full("net"), address(OUTSIDE, 1));
        batch(&router, &[format!("addr add {outside}/32 dev lo")]);
        let rule = format!(
            "add table ip lab; add chain ip lab out {{ type nat hook postrouting priority 100; }}; add rule ip lab out ip \
             saddr {}/24 ip daddr != {}/24 snat to {outside}",
            address(PHONES, 0),
            address(PHONES, 0)
        );
        run("ip", &["netns", "exec", &router, "nft", &rule]);
    }

    fn add(&mut self, name: &str) -> String {
        let full = self.full(name);
        run("ip", &["netns", "add", &full]);
        self.names.insert(full.clone());
        full
    }

    pub fn full(&self, name: &str) -> String {
        format!("{PREFIX}{}-{}-{name}", std::process::id(), self.number)
    }

    /// A machine with these addresses on one network.
    pub fn machine(&mut self, name: &str, network: u8, hosts: &[u8]) {
        let (router, full) = (self.full("net"), self.add(name));
        batch(
            &router,
            &[
                format!("link add {name} type veth peer name eth0 netns {full}"),
                format!("link set {name} master br{network}"),
                format!("link set {name} up"),
            ],
        );
        let mut lines = vec!["link set lo up".to_owned(), "link set eth0 up".to_owned()];
        lines.extend(
            hosts
                .iter()
                .map(|host| format!("addr add {}/24 dev eth0", address(network, *host))),
        );
        lines.push(format!("route add default via {}", address(network, 254)));
        batch(&full, &lines);
    }

    /// A command that will run on a machine.
    pub fn on(&self, name: &str, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.full(name)]).arg(program);
        command
    }

    /// Pulls a machine's cable.
    pub fn cut_machine(&self, name: &str) {
        batch(&self.full("net"), &[format!("link set {name} down")]);
    }

    /// Cuts a data centre off from everything else; its machines still reach each other.
    pub fn cut_network(&self, network: u8) {
        self.deafen_network(network);
        batch(&self.full("net"), &[format!("rule add iif br{network} blackhole")]);
    }

    /// What a data centre sends still arrives everywhere, and nothing gets into it any more.
    pub fn deafen_network(&self, network: u8) {
        batch(
            &self.full("net"),
            &[format!("addr del {}/24 dev br{network}", address(network, 254))],
        );
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

/// Whether namespaces can be made here: as root, with the rights for it. Tried once: tests ask at the same time.
pub fn possible() -> bool {
    static POSSIBLE: OnceLock<bool> = OnceLock::new();
    *POSSIBLE.get_or_init(|| {
        let name = format!("{PREFIX}{}-try", std::process::id());
        let ip = |verb| {
            Command::new("ip")
                .args(["netns", verb, &name])
                .stderr(Stdio::null())
                .status()
        };
        let made = ip("add").is_ok_and(|status| status.success());
        let _ = ip("del");
        made
    })
}

/// Namespaces of earlier runs whose process is gone.
fn remove_leftovers() {
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !fs::exists(format!("/proc/{pid}")).unwrap_or(true)) {
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
        }
    }
}

fn run(program: &str, args: &[&str]) {
    let status = Command::new(program)
        .args(args)
        .status()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(status.success(), "{program} {args:?}: {status}");
}

fn batch(namespace: &str, lines: &[String]) {
    let mut child = Command::new("ip")
        .args(["-n", namespace, "-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("ip: {error}"));
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let status = child.wait().unwrap();
    assert!(status.success(), "ip -batch in {namespace}: {status}\n{text}");
}
