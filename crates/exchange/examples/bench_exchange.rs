//! The exchange beside Kamailio and rtpengine, one after another on this machine: processor time of the servers, from
//! `/proc`, for registrations and calls that sipp makes and sound that this program makes.
//!
//! `bench_exchange [--rate N] [--seconds N] [--call-rate N] [--calls N] [--streams N]`; no calls, and it ends after the
//! registrations. Kamailio keeps everything in memory; the
//! exchange writes each binding and call record to disk before it answers.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../tests/plug/cost.rs"]
mod cost;
#[allow(dead_code)]
#[path = "../tests/plug/sound.rs"]
mod sound;

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use offhook_exchange::Settings;
use offhook_exchange::proto::MediaPath;
use offhook_exchange::proto::relay::{MediaSource, RelayCommand};
use offhook_exchange::proto::route::Account;
use offhook_exchange::proto::sip::digest::Secret;
use offhook_exchange::relay::Relay;
use offhook_exchange::store::Store;

const REALM: &str = "bench.test";
const PASSWORD: &str = "secret";
const USERS: usize = 1_000;
const EXCHANGE: u16 = 5_070;
const KAMAILIO: u16 = 5_090;
/// Where sipp answers calls.
const CALLEE: u16 = 5_092;
const PART: &str = "OFFHOOK_BENCH_PART";

struct Sizes {
    /// Registrations a second; then twice as many.
    rate: u32,
    /// For how long.
    seconds: u32,
    call_rate: u32,
    calls: u32,
    streams: u16,
}

fn main() {
    if let Ok(part) = std::env::var(PART) {
        return run_part(&part);
    }
    let sizes = sizes();
    println!(
        "load of the machine at the beginning: {}",
        fs::read_to_string("/proc/loadavg").unwrap().trim()
    );
    let folder = std::env::temp_dir().join(format!("offhook-bench-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    write_scenarios(&folder);
    for rate in [sizes.rate, 2 * sizes.rate] {
        for digest in [false, true] {
            registrations(&folder, digest, rate, sizes.seconds * rate);
        }
    }
    if sizes.calls == 0 {
        let _ = fs::remove_dir_all(&folder);
        return;
    }
    println!("\ncalls set up and hung up, {} at {}/s", sizes.calls, sizes.call_rate);
    let load = ["-sf", "uac.xml", "-s", "svc", "-p", "5094", "-d", "100"];
    for (name, port) in [("exchange", EXCHANGE), ("Kamailio", KAMAILIO)] {
        let server = if port == EXCHANGE {
            exchange(&folder, false)
        } else {
            kamailio(&folder, false)
        };
        sipp(&folder, port, &["-sf", "callee.xml", "-p", &CALLEE.to_string()], 1, 1);
        let callee = [
            "-sf",
            "uas.xml",
            "-i",
            "127.0.0.1",
            "-p",
            &CALLEE.to_string(),
            "-nostdin",
        ];
        let _callee = Server::start(Command::new("sipp").args(callee).current_dir(&folder));
        std::thread::sleep(Duration::from_millis(500));
        measure(name, server, port, &folder, &load, sizes.call_rate, sizes.calls);
    }
    println!("\nsound, {} streams of 50 packets a second", sizes.streams);
    relay_of_the_exchange(sizes.streams);
    rtpengine(sizes.streams);
    let _ = fs::remove_dir_all(&folder);
}

fn registrations(folder: &Path, digest: bool, rate: u32, count: u32) {
    let kind = if digest { "with digest" } else { "without digest" };
    let file = if digest { "digest.xml" } else { "register.xml" };
    println!("\nREGISTER {kind}, {count} at {rate}/s");
    let load = ["-sf", file, "-inf", "users.csv", "-p", "5093"];
    let ours = exchange(folder, digest);
    measure("exchange", ours, EXCHANGE, folder, &load, rate, count);
    let theirs = kamailio(folder, digest);
    measure("Kamailio", theirs, KAMAILIO, folder, &load, rate, count);
}

fn sizes() -> Sizes {
    let mut sizes = Sizes {
        rate: 3_000,
        seconds: 5,
        call_rate: 800,
        calls: 6_400,
        streams: 200,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value: u32 = words
            .next()
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("{word} N"));
        match word.as_str() {
            "--rate" => sizes.rate = value,
            "--seconds" => sizes.seconds = value,
            "--call-rate" => sizes.call_rate = value,
            "--calls" => sizes.calls = value,
            "--streams" => sizes.streams = value as u16,
            _ => panic!("cannot use {word}"),
        }
    }
    sizes
}

/// A process that ends with its owner.
struct Server(Child);

impl Server {
    fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // TERM, so that Kamailio ends its children.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

fn run_part(part: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let words: Vec<&str> = part.split(' ').collect();
    match words[0] {
        "exchange" => {
            let mut settings = Settings::new(words[1]);
            settings.domain = REALM.to_owned();
            settings.listen = "127.0.0.1".parse().unwrap();
            settings.port = EXCHANGE;
            settings.tls_port = None;
            settings.media = MediaPath::Direct;
            settings.authenticate = words[2] == "true";
            runtime
                .block_on(offhook_exchange::run(settings, |_| {}, std::future::pending()))
                .unwrap();
        }
        _ => runtime.block_on(forward(words[1].parse().unwrap())),
    }
}

fn exchange(folder: &Path, digest: bool) -> Server {
    let home = folder.join(format!("exchange-{digest}"));
    let store = Store::open(&home).unwrap();
    store.domain(Some(REALM)).unwrap();
    let names = (0..USERS)
        .map(|n| format!("u{n}"))
        .chain(["svc".to_owned(), "sipp".to_owned()]);
    for name in names {
        let secret = Secret::new(&name, REALM, PASSWORD);
        // There from the run before.
        let _ = store.add_account(&Account {
            name,
            secret,
            extension: None,
        });
    }
    let server = Server::start(
        Command::new(std::env::current_exe().unwrap()).env(PART, format!("exchange {} {digest}", home.display())),
    );
    std::thread::sleep(Duration::from_secs(1));
    server
}

fn kamailio(folder: &Path, digest: bool) -> Server {
    let modules: String = [
        "tm",
        "sl",
        "rr",
        "pv",
        "maxfwd",
        "textops",
        "siputils",
        "usrloc",
        "registrar",
        "auth",
    ]
    .map(|module| format!("loadmodule \"{module}.so\"\n"))
    .concat();
    let check = if digest {
        format!(
            "if (!pv_www_authenticate(\"{REALM}\", \"{PASSWORD}\", \"0\")) {{ www_challenge(\"{REALM}\", \"1\"); exit; }}"
        )
    } else {
        String::new()
    };
    let config = format!(
        r#"debug=0
log_stderror=no
fork=yes
children=2
listen=udp:127.0.0.1:{KAMAILIO}
mpath="/usr/lib/x86_64-linux-gnu/kamailio/modules/"
{modules}modparam("usrloc","db_mode",0)
modparam("registrar","max_contacts",1)
request_route {{
  if (!mf_process_maxfwd_header("10")) {{ sl_send_reply("483","Too Many Hops"); exit; }}
  if (has_totag()) {{ if (loose_route()) {{ t_relay(); exit; }} if (is_method("ACK")) {{ if (t_check_trans()) t_relay(); exit; }} sl_send_reply("404","Not here"); exit; }}
  if (is_method("CANCEL")) {{ if (t_check_trans()) t_relay(); exit; }}
  t_check_trans();
  if (is_method("REGISTER")) {{ {check} save("location"); exit; }}
  if (is_method("INVITE")) {{ record_route(); if (!lookup("location")) {{ sl_send_reply("404","Not here"); exit; }} t_relay(); exit; }}
  sl_send_reply("200","OK");
}}
"#
    );
    let file = folder.join("kamailio.cfg");
    fs::write(&file, config).unwrap();
    let server = Server::start(
        Command::new("kamailio")
            .arg("-f")
            .arg(&file)
            .args(["-m", "512", "-M", "16", "-DD"]),
    );
    std::thread::sleep(Duration::from_secs(2));
    server
}

/// Puts a load on a server and prints what one piece of it cost.
fn measure(name: &str, server: Server, port: u16, folder: &Path, load: &[&str], rate: u32, count: u32) {
    let used = || cost::used_by_family_us(server.0.id());
    let (before, begun) = (used(), Instant::now());
    let (well, failed, again) = sipp(folder, port, load, rate, count);
    let (used, took) = (used() - before, begun.elapsed());
    println!(
        "{name:<10} {:>6.1} us of processor each   {well} went well, {failed} failed, {again} sent again, {:.1} s",
        used as f64 / f64::from(count),
        took.as_secs_f64()
    );
}

/// Successes, failures, retransmissions.
fn sipp(folder: &Path, port: u16, load: &[&str], rate: u32, count: u32) -> (u64, u64, u64) {
    let statistics = folder.join("sipp.csv");
    let _ = fs::remove_file(&statistics);
    let status = Command::new("sipp")
        .arg(format!("127.0.0.1:{port}"))
        .args(load)
        .args([
            "-i",
            "127.0.0.1",
            "-nostdin",
            "-timeout",
            "60",
            // Its own is 64 KB: what a server answers at once would be lost on it, and asked for again.
            "-buff_size",
            "4194304",
            "-l",
            "20000",
            "-trace_stat",
            "-fd",
            "1",
        ])
        .args([
            "-stf",
            statistics.to_str().unwrap(),
            "-r",
            &rate.to_string(),
            "-m",
            &count.to_string(),
        ])
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap_or_else(|error| panic!("sipp: {error}"));
    let text = fs::read_to_string(&statistics).unwrap_or_else(|_| panic!("sipp: {status}"));
    let names: Vec<&str> = text.lines().next().unwrap_or_default().split(';').collect();
    let last: Vec<&str> = text.lines().last().unwrap_or_default().split(';').collect();
    let field = |name: &str| {
        let at = names.iter().position(|known| *known == name);
        at.and_then(|at| last.get(at)?.parse().ok()).unwrap_or(0)
    };
    (
        field("SuccessfulCall(C)"),
        field("FailedCall(C)"),
        field("Retransmissions(C)"),
    )
}

fn write_scenarios(folder: &Path) {
    let users: String = (0..USERS)
        .map(|n| format!("u{n};[authentication username=u{n} password={PASSWORD}];\n"))
        .collect();
    fs::write(folder.join("users.csv"), format!("SEQUENTIAL\n{users}")).unwrap();
    let register = |user: &str, cseq: u32, more: &str| {
        format!(
            "<send retrans=\"500\"><![CDATA[\nREGISTER sip:127.0.0.1:[remote_port] SIP/2.0\nVia: SIP/2.0/[transport] [local_ip]:[local_port];branch=[branch]\n\
             From: <sip:{user}@{REALM}>;tag=[call_number]\nTo: <sip:{user}@{REALM}>\nCall-ID: [call_id]\nCSeq: {cseq} REGISTER\n\
             Contact: <sip:{user}@[local_ip]:[local_port]>\n{more}Max-Forwards: 70\nUser-Agent: baresip v1.0 by name alone, for sipp takes fright at the offer of SHA-256, as that does; padded like phon\n\
             Expires: 600\nContent-Length: 0\n\n]]></send>\n"
        )
    };
    let scenario = |body: String| {
        format!("<?xml version=\"1.0\" encoding=\"ISO-8859-1\" ?>\n<scenario name=\"bench\">\n{body}</scenario>\n")
    };
    let ok = "<recv response=\"200\" rtd=\"true\"/>\n";
    let write = |name: &str, body: String| fs::write(folder.join(name), scenario(body)).unwrap();
    write("register.xml", register("[field0]", 1, "") + ok);
    write("callee.xml", register("svc", 1, "") + ok);
    // sipp puts fields into messages before it looks for this keyword, and not into it.
    let again = register("[field0]", 2, "[field1]\n");
    write(
        "digest.xml",
        register("[field0]", 1, "") + "<recv response=\"401\" auth=\"true\"/>\n" + &again + ok,
    );
    let built_in = |name: &str| {
        let output = Command::new("sipp")
            .args(["-sd", name])
            .output()
            .unwrap_or_else(|error| panic!("sipp: {error}"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    // The built-in scenarios know no route sets.
    let uas = built_in("uas").replace("[last_CSeq:]", "[last_CSeq:]\n      [last_Record-Route:]");
    let mut uac = built_in("uac").replace(
        "<recv response=\"200\" rtd=\"true\"",
        "<recv response=\"200\" rtd=\"true\" rrs=\"true\"",
    );
    for method in ["ACK", "BYE"] {
        let plain = format!("{method} sip:[service]@[remote_ip]:[remote_port] SIP/2.0");
        uac = uac.replace(&plain, &format!("{method} [next_url] SIP/2.0\n      [routes]"));
    }
    fs::write(folder.join("uas.xml"), uas).unwrap();
    fs::write(folder.join("uac.xml"), uac).unwrap();
}

const FIRST_RELAY_PORT: u16 = 34_000;
const FIRST_PHONE_PORT: u16 = 20_000;
const SPEAKING: Duration = Duration::from_secs(8);

/// Ports of phone `n` and of the relay's side that it speaks to.
fn phone(n: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], FIRST_PHONE_PORT + 4 * n))
}

fn relay_port(n: u16) -> u16 {
    FIRST_RELAY_PORT + 2 * n
}

/// The exchange's relay alone in a process, told what calls would tell it.
async fn forward(streams: u16) {
    let mut relay = Relay::alone("127.0.0.1".parse().unwrap());
    for n in 0..streams {
        let (port, rtp) = (relay_port(n), phone(n));
        relay.handle(RelayCommand::Open { port });
        let source = MediaSource {
            rtp: Some(rtp),
            rtcp: None,
            authenticated: rtp.ip(),
        };
        relay.handle(RelayCommand::Remote { port, source });
        if n % 2 == 1 {
            relay.handle(RelayCommand::Pair {
                a: relay_port(n - 1),
                b: port,
            });
        }
    }
    std::future::pending::<()>().await;
}

fn relay_of_the_exchange(streams: u16) {
    let part = format!("relay {streams}");
    let server = Server::start(Command::new(std::env::current_exe().unwrap()).env(PART, part));
    std::thread::sleep(Duration::from_secs(1));
    let to = |n| SocketAddr::from(([127, 0, 0, 1], relay_port(n)));
    speak("exchange", &server, streams, to);
}

fn rtpengine(streams: u16) {
    const CONTROL: &str = "127.0.0.1:22222";
    let arguments = [
        "--table=-1",
        "--interface=127.0.0.1",
        "--listen-ng=127.0.0.1:22222",
        "--port-min=34000",
        "--port-max=39999",
        "--foreground",
        "--log-level=1",
    ];
    let server = Server::start(Command::new("rtpengine").args(arguments));
    std::thread::sleep(Duration::from_secs(2));
    let control = UdpSocket::bind("127.0.0.1:0").unwrap();
    control.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut ports = Vec::new();
    for call in 0..streams / 2 {
        // What is offered to the callee is where the callee speaks to, and the other way round.
        let offered = ask_rtpengine(&control, CONTROL, call, "offer", phone(2 * call).port());
        let answered = ask_rtpengine(&control, CONTROL, call, "answer", phone(2 * call + 1).port());
        ports.extend([answered, offered]);
    }
    speak("rtpengine", &server, streams, |n| {
        SocketAddr::from(([127, 0, 0, 1], ports[usize::from(n)]))
    });
}

/// One request of the ng protocol (bencode); the media port in the description that comes back.
fn ask_rtpengine(control: &UdpSocket, server: &str, call: u16, command: &str, port: u16) -> u16 {
    let sdp = format!(
        "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio {port} RTP/AVP 0\r\n"
    );
    let text = |text: &str| format!("{}:{text}", text.len());
    let pair = |key: &str, value: &str| text(key) + &text(value);
    let mut body =
        "d".to_owned() + &pair("call-id", &format!("bench{call}")) + &pair("command", command) + &pair("from-tag", "a");
    body += &pair("sdp", &sdp);
    if command == "answer" {
        body += &pair("to-tag", "b");
    }
    control
        .send_to(format!("{call}{command} {body}e").as_bytes(), server)
        .unwrap();
    let mut buffer = [0; 4_096];
    let (length, _) = control
        .recv_from(&mut buffer)
        .unwrap_or_else(|error| panic!("rtpengine is silent: {error}"));
    let answer = String::from_utf8_lossy(&buffer[..length]).into_owned();
    let port = answer
        .split("m=audio ")
        .nth(1)
        .and_then(|rest| rest.split(' ').next()?.parse().ok());
    port.unwrap_or_else(|| panic!("rtpengine: {answer}"))
}

/// Every phone sends 50 packets a second and reads what comes.
fn speak(name: &str, server: &Server, streams: u16, to: impl Fn(u16) -> SocketAddr) {
    let sockets: Vec<UdpSocket> = (0..streams)
        .map(|n| {
            let socket = UdpSocket::bind(phone(n)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .collect();
    let (mut sent, mut heard) = (0_u64, 0_u64);
    let mut buffer = [0; 2_048];
    let before = cost::used_by_family_us(server.0.id());
    let begun = Instant::now();
    for tick in 0..u32::MAX {
        if begun.elapsed() >= SPEAKING {
            break;
        }
        for (n, socket) in (0..streams).zip(&sockets) {
            let packet = sound::packet(u32::from(n), tick * sound::PACKET_SAMPLES);
            sent += u64::from(socket.send_to(&packet, to(n)).is_ok());
        }
        std::thread::sleep((begun + Duration::from_millis(20) * (tick + 1)).saturating_duration_since(Instant::now()));
        for socket in &sockets {
            while socket.recv_from(&mut buffer).is_ok() {
                heard += 1;
            }
        }
    }
    let used = cost::used_by_family_us(server.0.id()) - before;
    println!(
        "{name:<10} {:>6.2} us of processor a packet   {sent} sent, {heard} heard",
        used as f64 / heard.max(1) as f64
    );
}
