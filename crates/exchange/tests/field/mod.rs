//! Real phones around a real exchange on loopback.
//!
//! Needs the Debian packages `sip-tester` (sipp), `baresip-core` and `linphone-cli`. A test whose phone is missing
//! fails and says which package to install.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use offhook_exchange::store::Store;
use offhook_exchange::{Node, Settings, account};
use offhook_exchange_proto::MediaPath;

/// Each test process has its own block of ports.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

pub fn next_ports(count: u16) -> u16 {
    let base = 20_000 + (std::process::id() % 400) as u16 * 20;
    base + NEXT_PORT.fetch_add(count, Ordering::Relaxed)
}

/// A folder that goes with its owner.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("offhook-exchange-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("left for inspection: {}", self.0.display());
        } else {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// A process that ends with its owner.
pub struct Process(pub Child);

impl Process {
    pub fn start(package: &str, command: &mut Command) -> Self {
        let program = command.get_program().to_string_lossy().into_owned();
        Self(
            command.spawn().unwrap_or_else(|error| {
                panic!("cannot start {program}: {error}; install the Debian package {package}")
            }),
        )
    }

    pub fn wait(&mut self, patience: Duration) -> std::process::ExitStatus {
        let until = Instant::now() + patience;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "process did not end within {patience:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Field {
    pub folder: Folder,
    pub settings: Settings,
    pub node: Node,
}

impl Field {
    pub async fn open(name: &str, media_port: u16) -> Self {
        let folder = Folder::new(name);
        let mut settings = Settings::new(folder.0.join("exchange"));
        settings.listen = "127.0.0.1".parse().unwrap();
        settings.port = next_ports(2);
        settings.tls_port = Some(settings.port + 1);
        settings.media = MediaPath::Relayed {
            first_port: media_port,
            count: 64,
        };
        let node = Node::start(settings.clone()).await.unwrap();
        Self { folder, settings, node }
    }

    /// Adds an account the way `exchange user add` does, and gives its password.
    pub async fn add(&self, name: &str) -> String {
        let store = Store::open(&self.settings.home).unwrap();
        let password = account::add(&store, &self.settings, name).unwrap().password;
        // The running exchange looks for new accounts twice a second.
        tokio::time::sleep(Duration::from_millis(700)).await;
        password
    }

    pub fn records(&self) -> Vec<offhook_exchange::store::StoredRecord> {
        Store::open(&self.settings.home).unwrap().records(1_000).unwrap()
    }

    /// Waits until something is so.
    pub async fn until<T>(&self, what: &str, patience: Duration, mut probe: impl AsyncFnMut(&Node) -> Option<T>) -> T {
        let until = Instant::now() + patience;
        loop {
            if let Some(found) = probe(&self.node).await {
                return found;
            }
            if Instant::now() > until {
                panic!("not within {patience:?}: {what}\n{}", self.node.metrics().await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// How a baresip phone is set up.
pub struct Baresip<'a> {
    pub name: &'a str,
    pub password: &'a str,
    /// `udp`, `tcp` or `tls`.
    pub transport: &'a str,
    /// Hz of the tone it sends.
    pub tone_hz: u32,
    /// Further account parameters, such as `;mediaenc=srtp-mand`.
    pub more: &'a str,
    pub modules: &'a [&'a str],
}

impl Baresip<'_> {
    pub fn server_port(&self, field: &Field) -> u16 {
        if self.transport == "tls" {
            field.settings.port + 1
        } else {
            field.settings.port
        }
    }

    /// Starts it; what it hears and says is written into its folder by baresip's `sndfile`.
    pub fn start(&self, field: &Field, commands: &[String]) -> (Process, PathBuf) {
        let folder = field.folder.0.join(self.name);
        fs::create_dir_all(&folder).unwrap();
        let port = next_ports(2);
        let tone = folder.join("tone.wav");
        write_tone(&tone, self.tone_hz);
        let modules: String = self
            .modules
            .iter()
            .map(|module| format!("module {module}.so\n"))
            .collect();
        let config = format!(
            "sip_listen 127.0.0.1:{port}\nsip_trans_bsize 128\ncall_local_timeout 60\ncall_max_calls 4\n\
             audio_player aubridge,{}\naudio_source aufile,{}\naudio_alert aubridge,alert\nsnd_path {}\nausrc_srate 8000\nauplay_srate 8000\nausrc_channels 1\nauplay_channels 1\n\
             rtp_ports {}-{}\nmodule_path /usr/lib/baresip/modules\nmodule g711.so\nmodule aufile.so\nmodule aubridge.so\nmodule sndfile.so\nmodule stdio.so\n{modules}\
             module_tmp uuid.so\nmodule_tmp account.so\nmodule_app menu.so\n",
            self.name,
            tone.display(),
            folder.display(),
            40_000 + port % 1_000 * 8,
            40_006 + port % 1_000 * 8,
        );
        fs::write(folder.join("config"), config).unwrap();
        let server_port = if self.transport == "tls" {
            field.settings.port + 1
        } else {
            field.settings.port
        };
        let account = format!(
            "<sip:{}@127.0.0.1:{server_port};transport={}>;auth_pass={};answermode=auto;regint=60{}\n",
            self.name, self.transport, self.password, self.more
        );
        fs::write(folder.join("accounts"), account).unwrap();
        fs::write(folder.join("contacts"), "").unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut command = Command::new("baresip");
        command.arg("-4").arg("-s").arg("-f").arg(&folder);
        for wanted in commands {
            command.arg("-e").arg(wanted);
        }
        command
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        (Process::start("baresip-core", &mut command), folder)
    }
}

/// Forty seconds of a tone, 8 kHz mono.
fn write_tone(path: &Path, tone_hz: u32) {
    let samples = (0..40 * 8_000).map(|n| {
        let phase = 2.0 * std::f64::consts::PI * f64::from(tone_hz) * f64::from(n) / 8_000.0;
        (phase.sin() * 10_000.0) as i16
    });
    let data: Vec<u8> = samples.flat_map(i16::to_le_bytes).collect();
    let mut wav = b"RIFF".to_vec();
    wav.extend((36 + data.len() as u32).to_le_bytes());
    wav.extend(b"WAVEfmt ");
    wav.extend(16_u32.to_le_bytes());
    wav.extend([1, 0, 1, 0]);
    wav.extend(8_000_u32.to_le_bytes());
    wav.extend(16_000_u32.to_le_bytes());
    wav.extend([2, 0, 16, 0]);
    wav.extend(b"data");
    wav.extend((data.len() as u32).to_le_bytes());
    wav.extend(data);
    fs::write(path, wav).unwrap();
}

/// What a phone has heard: the decoded audio of its call.
pub fn heard(folder: &Path) -> PathBuf {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> = names
        .filter(|path| path.to_string_lossy().ends_with("-dec.wav"))
        .collect();
    found.sort();
    found
        .pop()
        .unwrap_or_else(|| panic!("no recording in {}", folder.display()))
}

/// Strength of one tone in a recording relative to all of it (Goertzel), over its loudest second.
pub fn tone_share(wav: &Path, tone_hz: f64) -> f64 {
    let bytes = fs::read(wav).unwrap_or_else(|error| panic!("{}: {error}", wav.display()));
    let data = bytes
        .windows(4)
        .position(|window| window == b"data")
        .expect("a WAV file")
        + 8;
    let rate = f64::from(u32::from_le_bytes(bytes[24..28].try_into().unwrap()));
    let samples: Vec<f64> = bytes[data..]
        .chunks_exact(2)
        .map(|pair| f64::from(i16::from_le_bytes([pair[0], pair[1]])))
        .collect();
    let window = rate as usize;
    let energy = |part: &[f64]| part.iter().map(|sample| sample * sample).sum::<f64>();
    let loudest = samples
        .chunks_exact(window)
        .max_by(|a, b| energy(a).total_cmp(&energy(b)));
    let Some(part) = loudest else {
        panic!("only {} samples were heard", samples.len())
    };
    let coefficient = 2.0 * (2.0 * std::f64::consts::PI * tone_hz / rate).cos();
    let (mut s1, mut s2) = (0.0, 0.0);
    for sample in part {
        (s1, s2) = (sample + coefficient * s1 - s2, s1);
    }
    let power = s1 * s1 + s2 * s2 - coefficient * s1 * s2;
    // A pure tone of amplitude A has energy N A^2 / 2 and power (N A / 2)^2.
    if energy(part) == 0.0 {
        0.0
    } else {
        power / (energy(part) * part.len() as f64 / 2.0)
    }
}
