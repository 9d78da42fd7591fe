//! systemd: readiness, the watchdog, and the user's unit.
//!
//! The protocol of `sd_notify(3)`: datagrams to the socket in `NOTIFY_SOCKET`. The watchdog is only told of a node that answers a query: one that hangs is
//! restarted. Where no service manager listens, nothing of this does anything.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use etcetera::BaseStrategy as _;
use offhook_node::NodeHandle;

use crate::problem::{Kind, Problem};

/// What the user's unit is called.
const UNIT: &str = "offhook.service";

/// Tells the service manager something.
pub(crate) fn notify(state: &str) {
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
        // Nobody to tell is no error.
        let _ = send(&socket, state);
    }
}

fn send(socket: &OsStr, state: &str) -> std::io::Result<()> {
    let bytes = socket.as_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(Path::new(socket))?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

/// Tells the watchdog that the node answers, as often as it wants to hear it. Never returns.
pub(crate) async fn feed_watchdog(node: NodeHandle) {
    let period = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
    let Some(period) = period.map(Duration::from_micros).filter(|period| !period.is_zero()) else {
        return std::future::pending().await;
    };
    loop {
        tokio::time::sleep(period / 3).await;
        if node.query(|peer| peer.me()).await.is_ok() {
            notify("WATCHDOG=1");
        }
    }
}

/// The user's unit for this program, home and configuration file, where those were named.
fn unit(program: &Path, home: Option<&Path>, config: Option<&Path>) -> String {
    let named =
        |flag: &str, path: Option<&Path>| path.map_or(String::new(), |path| format!(" {flag} {}", quoted(path)));
    let (home, config) = (named("--home", home), named("--config", config));
    format!(
        "[Unit]
Description=Offhook node
Documentation=man:offhook(1)
After=network.target

[Service]
Type=notify
NotifyAccess=main
ExecStart={}{home}{config} up --headless
Restart=on-failure
RestartSec=2
WatchdogSec=60
TimeoutStopSec=10
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
UMask=0077

[Install]
WantedBy=default.target
",
        quoted(program)
    )
}

/// A word of a unit's command line.
fn quoted(path: &Path) -> String {
    let text = path
        .display()
        .to_string()
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%");
    format!("\"{text}\"")
}

/// Writes the user's unit, and starts it where systemd runs. Says what was done.
pub(crate) fn install(home: Option<&Path>, config: Option<&Path>) -> Result<String, Problem> {
    let strategy = etcetera::choose_base_strategy().map_err(|_| {
        Problem::new(
            Kind::BadHome,
            "there is no home folder on this machine to keep the unit in",
        )
    })?;
    let folder = strategy.config_dir().join("systemd/user");
    let path = write_unit(&folder, home, config)?;
    let mut told = format!("wrote {}\n", path.display());
    let started = ["daemon-reload", "enable --now"].iter().all(|verb| systemctl(verb));
    told.push_str(match started {
        true => "the node runs now, and after every login; see it with: systemctl --user status offhook\n",
        false => "systemd does not run for this user here; later: systemctl --user enable --now offhook\n",
    });
    told.push_str("to have it run while you are logged out: loginctl enable-linger\n");
    Ok(told)
}

fn write_unit(folder: &Path, home: Option<&Path>, config: Option<&Path>) -> Result<PathBuf, Problem> {
    let program = std::env::current_exe()?;
    let path = folder.join(UNIT);
    let cannot =
        |error: std::io::Error| Problem::new(Kind::BadHome, format!("cannot write {}: {error}", path.display()));
    std::fs::create_dir_all(folder).map_err(cannot)?;
    std::fs::write(&path, unit(&program, home, config)).map_err(cannot)?;
    Ok(path)
}

fn systemctl(verb: &str) -> bool {
    let mut command = Command::new("systemctl");
    command.arg("--user").arg("--quiet").args(verb.split(' '));
    if verb.starts_with("enable") {
        command.arg(UNIT);
    }
    command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives_at_the_socket() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        send(path.as_os_str(), "READY=1").unwrap();
        let mut held = [0; 64];
        let count = socket.recv(&mut held).unwrap();
        assert_eq!(&held[..count], b"READY=1");
        assert!(send(OsStr::new("/nowhere/at/all"), "READY=1").is_err());
    }

    #[test]
    fn the_unit_names_program_and_home_whatever_is_in_them() {
        let unit = unit(
            Path::new("/opt/off hook/offhook"),
            Some(Path::new("/x/100%\"")),
            Some(Path::new("/y.toml")),
        );
        assert!(
            unit.contains(
                "ExecStart=\"/opt/off hook/offhook\" --home \"/x/100%%\\\"\" --config \"/y.toml\" up --headless\n"
            ),
            "{unit}"
        );
        assert!(unit.contains("Type=notify") && unit.contains("WatchdogSec="));
    }
}
