//! The node as a service of systemd: what it tells the service manager, and the unit that it writes.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod stage;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::Command;

use stage::{Machine, PATIENCE};

/// What a node tells systemd, one datagram after another.
struct Systemd(UnixDatagram);

impl Systemd {
    fn next(&self) -> String {
        let mut told = [0; 256];
        let count = self.0.recv(&mut told).expect("the node tells something in time");
        String::from_utf8(told[..count].to_vec()).unwrap()
    }
}

#[test]
fn the_service_manager_hears_of_readiness_of_life_and_of_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify");
    let systemd = Systemd(UnixDatagram::bind(&socket).unwrap());
    systemd.0.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    ada.environment = vec![("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", "900000".into())];
    ada.up();
    // The watchdog may be the first to hear on a slow machine.
    let mut told = vec![systemd.next()];
    while !told.contains(&"READY=1".to_owned()) || told.iter().filter(|told| *told == "WATCHDOG=1").count() < 3 {
        assert!(told.len() < 500, "{told:?}");
        told.push(systemd.next());
    }
    assert_eq!(ada.run(&["status"]).code, 0, "ready means that it answers");
    ada.stop();
    let mut last = systemd.next();
    while last == "WATCHDOG=1" {
        last = systemd.next();
    }
    assert_eq!(last, "STOPPING=1");
}

#[test]
fn the_unit_that_it_writes_is_one_that_systemd_takes() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    // Without a `systemctl` to be found: nothing is installed on the machine that tests.
    let ran = Command::new(env!("CARGO_BIN_EXE_offhook"))
        .args([
            "--home",
            folder.path().join("home of ada").to_str().unwrap(),
            "up",
            "--service",
        ])
        .env("XDG_CONFIG_HOME", &config)
        .env("PATH", folder.path())
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let unit = config.join("systemd/user/offhook.service");
    let text = fs::read_to_string(&unit).unwrap();
    assert!(text.contains("home of ada\" up --headless\n"), "{text}");

    // Flags would be lost: they are to be written down.
    let ran = Command::new(env!("CARGO_BIN_EXE_offhook"))
        .arg("--home")
        .arg(folder.path().join("home of ada"))
        .args([
            "up",
            "--service",
            "--relay",
            "--flows",
            "20",
            "--listen",
            "0.0.0.0:4001",
        ])
        .env("XDG_CONFIG_HOME", &config)
        .env("PATH", folder.path())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ran.stderr);
    let lines = "listen = \"0.0.0.0:4001\"\nflows = 20\nrelay = true\n";
    assert!(!ran.status.success() && told.contains(lines), "{told}");

    let verify = |unit: &std::path::Path| {
        let mut verify = Command::new("systemd-analyze");
        verify.args(["--user", "--man=no", "verify"]).arg(unit);
        verify.env("XDG_RUNTIME_DIR", folder.path());
        let ran = verify.output().expect("systemd is installed");
        (ran.status.success(), String::from_utf8(ran.stderr).unwrap())
    };
    let (fine, told) = verify(&unit);
    assert!(fine && !told.contains("offhook.service"), "{told}");

    // The check can fail.
    let wrong = folder.path().join("wrong.service");
    fs::write(
        &wrong,
        text.replace("ExecStart=\"/", "ExecStart=\"/nowhere/")
            .replace("Type=notify", "Type=wrong"),
    )
    .unwrap();
    let (_, told) = verify(&wrong);
    assert!(told.contains("wrong.service"), "{told}");
}
