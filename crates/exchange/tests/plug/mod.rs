//! Pulling the plug: a cluster of real processes in three data centres made of network namespaces, phones that talk,
//! a cut, and what became of the calls.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

pub mod engine;
pub mod net;
pub mod phones;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use net::{Net, PHONES, address};
use offhook_exchange::cluster::ClusterSettings;
use offhook_exchange::store::Store;
use offhook_exchange::{Settings, account, control};

/// Set for a process that is a part of the laboratory; its words say which.
const PART: &str = "OFFHOOK_EXCHANGE_PART";
const DOMAIN: &str = "lab.test";
const MOVABLE: u8 = 101;

/// A process that ends with its owner.
pub struct Process(pub Child);

impl Process {
    /// SIGKILL, to this process alone.
    pub fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn start(command: &mut Command) -> Process {
    Process(command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
}

/// What is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    Process,
    Machine,
    DataCentre,
    /// One of the engine's servers.
    EngineServer,
    /// All of them, for as long as the run lasts.
    Engine,
}

impl Cut {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "process" => Self::Process,
            "machine" => Self::Machine,
            "data-centre" => Self::DataCentre,
            "engine-server" => Self::EngineServer,
            "engine" => Self::Engine,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Machine => "machine",
            Self::DataCentre => "data-centre",
            Self::EngineServer => "engine-server",
            Self::Engine => "engine",
        }
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub cut: Cut,
    /// Calls that are up at the cut.
    pub calls: usize,
    /// So many of them with sound.
    pub audio: usize,
    /// Calls that ring at the cut.
    pub ringing: usize,
    /// Off: the control.
    pub replicate: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub up_before: usize,
    pub up_after: usize,
    pub held: usize,
    pub hung: usize,
    pub transferred: bool,
    pub rung: usize,
    pub gap_p50_ms: u64,
    pub gap_p99_ms: u64,
    pub gap_max_ms: u64,
    pub takeover_ms: Option<u64>,
    pub records: usize,
    pub records_doubled: usize,
}

/// In a part's process: runs it and never returns. Elsewhere: nothing.
pub fn run_part_if_one() {
    let Ok(words) = std::env::var(PART) else { return };
    let words: Vec<&str> = words.split(' ').collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    match words[0] {
        "instance" => runtime.block_on(instance(&words[1..])),
        _ => runtime.block_on(talk(&words[1..])),
    }
    std::process::exit(0);
}

/// `instance HOME NETWORK HOST REPLICATE`.
async fn instance(words: &[&str]) {
    let (network, host): (u8, u8) = (words[1].parse().unwrap(), words[2].parse().unwrap());
    let mut settings = Settings::new(words[0]);
    settings.domain = DOMAIN.to_owned();
    settings.listen = address(network, host).parse().unwrap();
    settings.tls_port = None;
    settings.media = offhook_exchange::proto::MediaPath::Relayed {
        first_port: 20_000,
        count: 6_000,
    };
    let mut cluster = ClusterSettings::new(engine::urls(network), format!("dc{network}"));
    cluster.movable = Some(address(network, MOVABLE + host - 1).parse().unwrap());
    cluster.replicate = words[3] == "true";
    settings.cluster = Some(cluster);
    let ended = offhook_exchange::run(settings, |node| println!("@{}", node.banner()), std::future::pending()).await;
    if let Err(error) = ended {
        println!("@failed: {error}");
    }
}

/// `phones ACCOUNTS AUDIO SLOW`: a file with a name and a password a line.
async fn talk(words: &[&str]) {
    let accounts = fs::read_to_string(words[0]).unwrap();
    let account = |line: &str| {
        line.split_once(' ')
            .map(|(name, password)| (name.to_owned(), password.to_owned()))
    };
    let cast = phones::Cast {
        server: format!("{}:5060", address(1, MOVABLE)).parse().unwrap(),
        domain: DOMAIN.to_owned(),
        own: address(PHONES, 1).parse().unwrap(),
        accounts: accounts.lines().filter_map(account).collect(),
        audio: words[1].parse().unwrap(),
        slow: words[2].parse().unwrap(),
        ring: Duration::from_secs(4),
    };
    phones::run(cast).await;
}

/// A part that is told things by lines, and answers by lines that begin with `@`.
struct Part {
    process: Process,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Part {
    fn start(net: &Net, machine: &str, part: &str, log: &Path) -> Self {
        let mut command = net.on(machine, std::env::current_exe().unwrap());
        // In a test these choose the one that runs parts; a program of its own has no use for them.
        command
            .args(["a_part_of_the_laboratory", "--exact", "--nocapture"])
            .env(PART, part);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(log).unwrap());
        let mut process = start(&mut command);
        let output = process.0.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Some(said) = line.split_once('@').map(|(_, said)| said.to_owned())
                    && sender.send(said).is_err()
                {
                    return;
                }
            }
        });
        let stdin = process.0.stdin.take();
        Self { process, stdin, lines }
    }

    fn hear(&self, patience: Duration) -> String {
        self.lines
            .recv_timeout(patience)
            .unwrap_or_else(|error| format!("silent: {error}"))
    }

    /// The numbers of its answer.
    fn ask(&mut self, order: &str) -> Vec<u64> {
        writeln!(self.stdin.as_mut().unwrap(), "{order}").unwrap();
        let answer = self.hear(Duration::from_secs(90));
        let numbers: Vec<u64> = answer.split(' ').filter_map(|word| word.parse().ok()).collect();
        assert!(!numbers.is_empty(), "{order}: {answer}");
        numbers
    }
}

/// A timeline for people, and for whoever reads a failure.
struct Timeline {
    begun: Instant,
}

impl Timeline {
    fn say(&self, text: &str) {
        println!("{:8.3} s  {text}", self.begun.elapsed().as_secs_f64());
    }
}

const MACHINES: [(&str, u8, u8); 4] = [("a1", 1, 1), ("a2", 1, 2), ("b1", 2, 1), ("c1", 3, 1)];

/// Plays a plan from beginning to end.
pub fn play(plan: &Plan) -> Outcome {
    let timeline = Timeline { begun: Instant::now() };
    let folder = Folder::new();
    let mut net = Net::new();
    for (name, network, host) in MACHINES {
        net.machine(name, network, &[host]);
    }
    for network in 1..=3 {
        net.machine(&format!("engine{network}"), network, &[engine::HOST]);
    }
    net.machine("phones", PHONES, &[1]);
    let mut engines: Vec<Process> = (1..=3).map(|network| engine::serve(&net, &folder.0, network)).collect();
    timeline.say("three data centres with an engine server in each");

    let pairs = plan.calls + plan.ringing;
    let accounts = make_accounts(&folder.0.join("a1"), 2 * pairs + 1);
    let file = folder.0.join("accounts");
    let lines: String = accounts
        .iter()
        .map(|(name, password)| format!("{name} {password}\n"))
        .collect();
    fs::write(&file, lines).unwrap();
    let mut instances: Vec<Part> = MACHINES
        .iter()
        .map(|(name, network, host)| {
            let home = folder.0.join(name);
            let part = format!("instance {} {network} {host} {}", home.display(), plan.replicate);
            Part::start(&net, name, &part, &folder.0.join(format!("{name}.log")))
        })
        .collect();
    for (instance, (name, ..)) in instances.iter().zip(MACHINES) {
        timeline.say(&format!("{name}: {}", instance.hear(Duration::from_secs(60))));
    }
    wait_for(
        "every instance speaks for its shard and has a standby",
        Duration::from_secs(60),
        || ready(&folder.0.join("b1"), plan.replicate),
    );
    wait_for("the accounts are known", Duration::from_secs(60), || {
        let known = |name: &str| {
            Store::open(&folder.0.join(name)).is_ok_and(|store| store.accounts().is_ok_and(|all| all.len() > 2 * pairs))
        };
        MACHINES.iter().all(|(name, ..)| known(name))
    });
    timeline.say("every instance speaks for its own address, and has a standby");

    let part = format!("phones {} {} {}", file.display(), plan.audio, plan.ringing);
    let mut phones = Part::start(&net, "phones", &part, &folder.0.join("phones.log"));
    timeline.say(&format!("phones: {}", phones.hear(Duration::from_secs(120))));
    let up = phones.ask("call")[0] as usize;
    timeline.say(&format!("{up} of {} calls are up", plan.calls));
    std::thread::sleep(Duration::from_secs(2));
    if plan.ringing > 0 {
        phones.ask("ring");
        std::thread::sleep(Duration::from_millis(1_500));
    }
    let before = phones.ask("gaps");
    timeline.say(&format!(
        "{} phones hear sound; longest silence so far {} ms",
        before[0], before[3]
    ));
    let marked = phones.ask("mark")[0];
    cut(plan.cut, &net, &mut instances, &mut engines);
    timeline.say(&format!("CUT: {}", plan.cut.name()));
    std::thread::sleep(Duration::from_secs(if plan.replicate { 5 } else { 3 }));
    let gaps = phones.ask("gaps");
    timeline.say(&format!(
        "longest silence of {} phones: half <= {} ms, p99 {} ms, longest {} ms",
        gaps[0], gaps[1], gaps[2], gaps[3]
    ));
    let moved = phones.ask("moved")[0];
    let takeover_ms = (moved > marked).then(|| moved - marked);
    if let Some(ms) = takeover_ms {
        timeline.say(&format!(
            "the last phone was told where its call goes on {ms} ms after the cut"
        ));
    }
    let mut outcome = Outcome {
        up_before: up,
        takeover_ms,
        gap_p50_ms: gaps[1],
        gap_p99_ms: gaps[2],
        gap_max_ms: gaps[3],
        ..Outcome::default()
    };
    if plan.ringing > 0 {
        outcome.rung = phones.ask("rung")[0] as usize;
        timeline.say(&format!("{} of {} calls that rang are up", outcome.rung, plan.ringing));
    }
    outcome.up_after = phones.ask("up")[0] as usize / 2 - outcome.rung;
    if !plan.replicate {
        outcome.up_after = phones.ask("hold")[0] as usize;
        timeline.say(&format!(
            "{} of {up} calls are left, without replication",
            outcome.up_after
        ));
        return outcome;
    }
    outcome.held = phones.ask("hold")[0] as usize;
    timeline.say(&format!("held and resumed: {} of {up}", outcome.held));
    let spare = &accounts[2 * pairs].0;
    outcome.transferred = phones.ask(&format!("transfer 0 {spare}"))[0] == 1;
    timeline.say(&format!("transferred: {}", outcome.transferred));
    outcome.hung = phones.ask("hang")[0] as usize;
    timeline.say(&format!("hung up, by callers and callees in turn: {}", outcome.hung));
    if plan.ringing > 0 {
        phones.ask("hang slow");
    }
    let expected = up + outcome.rung;
    let survivor = if plan.cut == Cut::DataCentre { "b1" } else { "a2" };
    let home = folder.0.join(survivor);
    if plan.cut == Cut::Engine {
        return outcome;
    }
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let all = Store::open(&home).unwrap().records(100_000).unwrap();
        let answered: Vec<_> = all.iter().filter(|record| record.disposition == "answered").collect();
        outcome.records = answered.len();
        let mut pairs: Vec<_> = answered.iter().map(|record| (&record.from, &record.to)).collect();
        pairs.sort();
        outcome.records_doubled = pairs.windows(2).filter(|two| two[0] == two[1]).count();
        if outcome.records >= expected || Instant::now() > deadline {
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    timeline.say(&format!(
        "call records: {} of {expected}, doubled: {}",
        outcome.records, outcome.records_doubled
    ));
    outcome
}

fn cut(cut: Cut, net: &Net, instances: &mut [Part], engines: &mut [Process]) {
    match cut {
        Cut::Process => instances[0].process.kill(),
        Cut::Machine => net.cut_machine("a1"),
        Cut::DataCentre => net.cut_network(1),
        Cut::EngineServer => engines[0].kill(),
        Cut::Engine => engines.iter_mut().for_each(Process::kill),
    }
}

/// Whether all four speak for their own, and each is held by somebody.
fn ready(home: &Path, replicate: bool) -> bool {
    let Ok(control::Answer::Members(members)) = control::ask(home, control::Ask::Members) else {
        return false;
    };
    let own = members
        .iter()
        .filter(|member| member.owns.iter().any(|shard| !shard.contains("epoch 0")))
        .count();
    let held: usize = members.iter().map(|member| member.stands_by.len()).sum();
    own == MACHINES.len() && (held >= 6 || !replicate)
}

fn wait_for(what: &str, patience: Duration, mut probe: impl FnMut() -> bool) {
    let until = Instant::now() + patience;
    while !probe() {
        assert!(Instant::now() < until, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn make_accounts(home: &Path, count: usize) -> Vec<(String, String)> {
    let store = Store::open(home).unwrap();
    let mut settings = Settings::new(home);
    settings.domain = store.domain(Some(DOMAIN)).unwrap();
    (0..count)
        .map(|n| {
            let made = account::add(&store, &settings, &format!("p{n}")).unwrap();
            (made.user, made.password)
        })
        .collect()
}

struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("offhook-cut-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("OFFHOOK_KEEP").is_some() {
            eprintln!("left for inspection: {}", self.0.display());
        } else {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}
