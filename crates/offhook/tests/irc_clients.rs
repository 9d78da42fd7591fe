//! WeeChat and irssi, as people run them: in a terminal, signed in, talking in a room, away and back.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

mod stage;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use stage::{Machine, PATIENCE};

/// A terminal of its own server, so that nobody else's is touched.
struct Terminal {
    socket: PathBuf,
}

impl Terminal {
    fn open(folder: &Path, name: &str, command: &str) -> Self {
        let socket = folder.join(format!("{name}.tmux"));
        let terminal = Self { socket };
        terminal.tmux(&["new-session", "-d", "-x", "150", "-y", "50", command]);
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut tmux = Command::new("tmux");
        tmux.arg("-S")
            .arg(&self.socket)
            .args(["-f", "/dev/null"])
            .args(args)
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm");
        String::from_utf8_lossy(&tmux.output().unwrap().stdout).into_owned()
    }

    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    fn type_line(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
        self.tmux(&["send-keys", "Enter"]);
    }

    fn until(&self, text: &str) -> String {
        let start = Instant::now();
        loop {
            let screen = self.screen();
            if screen.contains(text) {
                return screen;
            }
            assert!(start.elapsed() < PATIENCE * 2, "{text:?} does not show:\n{screen}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

struct Scene {
    ada: Machine,
    port: String,
    token: String,
    folder: tempfile::TempDir,
}

fn scene() -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let mut ada = Machine::new(folder.path(), "ada");
    ada.up();
    ada.json(&["room", "new", "Kitchen"]);
    ada.say("Kitchen", "said before you came");
    let on = ada.json(&["irc", "on", "--port", "0"]);
    let token = ada.json(&["token", "new", "irc", "--scope", "read,send"]);
    Scene {
        port: on["at"].as_str().unwrap().rsplit(':').next().unwrap().to_owned(),
        token: token["token"].as_str().unwrap().to_owned(),
        ada,
        folder,
    }
}

/// The same for both: reads what was said, says something, is away, comes back and reads what it missed, each line once.
fn talk(scene: &Scene, open: impl Fn() -> Terminal, show: impl Fn(&Terminal), quit: &str) {
    let terminal = open();
    show(&terminal);
    terminal.until("said before you came");
    scene.ada.say("Kitchen", "said while you are here");
    terminal.until("said while you are here");
    terminal.type_line("hello from a terminal");
    scene.ada.wait_until("it is said", |ada| {
        ada.texts("Kitchen").contains(&"hello from a terminal".to_owned())
    });
    // Long enough for what was heard to be noted.
    std::thread::sleep(Duration::from_secs(3));
    terminal.type_line(quit);
    std::thread::sleep(Duration::from_secs(1));
    drop(terminal);
    scene.ada.say("Kitchen", "said while you were away");
    let terminal = open();
    show(&terminal);
    let screen = terminal.until("said while you were away");
    assert_eq!(screen.matches("said while you were away").count(), 1, "{screen}");
    assert_eq!(
        screen.matches("said before you came").count(),
        0,
        "heard already:\n{screen}"
    );
}

/// WeeChat without a screen: what it shows is in its logs. It ends when this is dropped.
struct WeeChat(Child);

impl WeeChat {
    fn run(scene: &Scene, home: &Path, on_connect: &str) -> Self {
        let server = format!(
            "/server add oh 127.0.0.1/{} -notls -sasl_mechanism=plain -sasl_username=weechat -sasl_password={}",
            scene.port, scene.token
        );
        let on_connect = format!("/set irc.server.oh.command \"{on_connect}\"");
        let commands = [
            "/set logger.file.flush_delay 0",
            "/set logger.level.irc 9",
            &server,
            &on_connect,
            "/connect oh",
        ];
        let mut weechat = Command::new("weechat-headless");
        weechat.arg("-d").arg(home).env("LC_ALL", "C.UTF-8");
        for command in commands {
            weechat.arg("-r").arg(command);
        }
        // Its input stays open: it would read the end of it again and again.
        Self(
            weechat
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    /// As a session's end does: it says goodbye.
    fn end(mut self) {
        stage::signal(self.0.id(), "TERM");
        let start = Instant::now();
        while self.0.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "WeeChat does not end");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for WeeChat {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn weechat_talks_and_comes_back() {
    let scene = scene();
    let home = scene.folder.path().join("weechat");
    let log = || {
        let files = fs::read_dir(home.join("logs")).into_iter().flatten().flatten();
        let of_room = files.filter(|file| file.file_name().to_string_lossy().to_lowercase().contains("kitchen"));
        of_room
            .map(|file| fs::read_to_string(file.path()).unwrap_or_default())
            .collect::<String>()
    };
    let until = |text: &str| {
        let start = Instant::now();
        while !log().contains(text) {
            assert!(
                start.elapsed() < PATIENCE * 2,
                "{text:?} is not in WeeChat's log:\n{}",
                log()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    let weechat = WeeChat::run(&scene, &home, "/msg #Kitchen hello from WeeChat");
    until("said before you came");
    scene.ada.say("Kitchen", "said while you are here");
    until("said while you are here");
    scene.ada.wait_until("it is said", |ada| {
        ada.texts("Kitchen").contains(&"hello from WeeChat".to_owned())
    });
    // Long enough for what was heard to be noted.
    std::thread::sleep(Duration::from_secs(3));
    weechat.end();
    scene.ada.say("Kitchen", "said while you were away");
    let weechat = WeeChat::run(&scene, &home, "");
    until("said while you were away");
    for text in [
        "said before you came",
        "said while you are here",
        "said while you were away",
    ] {
        assert_eq!(log().matches(text).count(), 1, "{text}:\n{}", log());
    }
    weechat.end();
}

#[test]
fn irssi_talks_and_comes_back() {
    let scene = scene();
    let home = scene.folder.path().join("irssi");
    fs::create_dir_all(&home).unwrap();
    let config = format!(
        "servers = ( {{ address = \"127.0.0.1\"; port = \"{}\"; chatnet = \"oh\"; autoconnect = \"yes\"; use_tls = \"no\"; }} );\n\
         chatnets = {{ oh = {{ type = \"IRC\"; sasl_mechanism = \"PLAIN\"; sasl_username = \"irssi\"; sasl_password = \"{}\"; }}; }};\n\
         settings = {{ core = {{ nick = \"ada\"; user_name = \"irssi\"; }}; }};\n",
        scene.port, scene.token
    );
    fs::write(home.join("config"), config).unwrap();
    let open = || {
        Terminal::open(
            scene.folder.path(),
            "irssi",
            &format!("irssi --home={}", home.display()),
        )
    };
    let show = |terminal: &Terminal| {
        terminal.until("#Kitchen");
        terminal.type_line("/window goto #Kitchen");
    };
    talk(&scene, open, show, "/quit");
}
