//! Pulling the plug: a cluster of real processes in three data centres made of network namespaces, phones that talk,
//! a cut, and what became of the calls.

#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used)]

pub mod cost;
pub mod engine;
pub mod load;
pub mod net;
pub mod phones;
pub mod picture;
pub mod sound;
pub mod watch;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use net::{Net, PHONES, address};
use offhook_exchange::cluster::ClusterSettings;
use offhook_exchange::proto::MediaPath;
use offhook_exchange::proto::wire::Wire;
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

    /// STOP or CONT.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.0.id().to_string())
            .status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{name}");
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
    /// SIGKILL of the instance that carries the calls.
    Process,
    /// Its machine's cable.
    Machine,
    DataCentre,
    /// A data centre that can be heard and hears nobody.
    OneWay,
    /// SIGSTOP, and SIGCONT when another has long gone on: it must not speak again.
    Pause,
    /// One of the engine's servers.
    EngineServer,
    /// All of them, for [`Plan::seconds`].
    Engine,
    /// Nothing, for [`Plan::seconds`]: nobody may take anything over.
    Nothing,
    /// The instance that carries the calls is stopped by its operator (TERM) and hands them over.
    Stop,
    /// Nothing either, but one more instance is started: how soon does it carry calls?
    Newcomer,
}

impl Cut {
    const NAMES: [(Self, &str); 10] = [
        (Self::Process, "process"),
        (Self::Machine, "machine"),
        (Self::DataCentre, "data-centre"),
        (Self::OneWay, "one-way"),
        (Self::Pause, "pause"),
        (Self::EngineServer, "engine-server"),
        (Self::Engine, "engine"),
        (Self::Nothing, "nothing"),
        (Self::Stop, "stop"),
        (Self::Newcomer, "newcomer"),
    ];

    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(cut, _)| *cut)
    }

    fn name(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(cut, _)| *cut == self)
            .map_or("", |(_, name)| name)
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
    /// Calls that are being set up at the cut.
    pub ringing: usize,
    /// Off: the control.
    pub replicate: bool,
    /// Sound goes from phone to phone, not through the exchange.
    pub direct: bool,
    /// How long the engine is away, or nothing is cut.
    pub seconds: u64,
    /// Meanwhile so many threads for each processor keep it busy.
    pub burn: usize,
    /// Phones keep a flow to each data centre (RFC 5626), instead of to the first alone.
    pub flows: bool,
    /// Phones are behind an address translator.
    pub translated: bool,
    /// One more instance is there that speaks this version between instances.
    pub stranger: Option<u8>,
}

impl Plan {
    pub fn new(cut: Cut) -> Self {
        Self {
            cut,
            calls: 12,
            audio: 4,
            ringing: 4,
            replicate: true,
            direct: false,
            seconds: 10,
            burn: 0,
            flows: false,
            translated: false,
            stranger: None,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub up_before: usize,
    pub up_after: usize,
    pub held: usize,
    pub hung: usize,
    pub transferred: bool,
    /// Calls in set-up that came up.
    pub rung: usize,
    pub gap_before_ms: u64,
    pub gap_p50_ms: u64,
    pub gap_p99_ms: u64,
    pub gap_max_ms: u64,
    /// Samples that were not what had been said.
    pub wrong_samples: u64,
    /// The longest time without an answer at the calls' address.
    pub signalling_ms: u64,
    /// Phones told that their call goes on elsewhere, the first and the last after so many ms.
    pub told: (u64, u64, u64),
    /// Packets of each turn in which one machine alone spoke from the calls' address.
    pub turns: Vec<u64>,
    /// Epochs begun since before the cut.
    pub epochs: u64,
    pub records: usize,
    pub records_doubled: usize,
    /// After how many ms from the start of its process a new instance answered, and carried a call.
    pub newcomer_ms: (u64, u64),
    /// While nothing was cut.
    pub load: load::Load,
    /// How many instances of another version the first instance and the one of another version knew of.
    pub strangers: Vec<usize>,
    /// What that one said to its operator.
    pub stranger_said: Vec<String>,
    /// How many phones hear sound, and each silence since the cut: phone, begin and length in ms.
    pub hearing: u64,
    pub silences: Vec<[u64; 3]>,
    /// What instances said since the cut, and when, ms.
    pub remarks: Vec<(u64, String)>,
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
        "watch" => runtime.block_on(watch::run(words[1], words[2].parse().unwrap())),
        "greet" => runtime.block_on(greet(&words[1..])),
        _ => runtime.block_on(talk(&words[1..])),
    }
    std::process::exit(0);
}

/// `instance HOME NETWORK HOST REPLICATE DIRECT [VERSION]`.
async fn instance(words: &[&str]) {
    let (network, host): (u8, u8) = (words[1].parse().unwrap(), words[2].parse().unwrap());
    let mut settings = Settings::new(words[0]);
    settings.domain = DOMAIN.to_owned();
    settings.listen = address(network, host).parse().unwrap();
    settings.tls_port = None;
    settings.media = match words[4] {
        "true" => MediaPath::Direct,
        _ => MediaPath::Relayed {
            first_port: 20_000,
            count: 6_000,
        },
    };
    let mut cluster = ClusterSettings::new(engine::urls(network), format!("dc{network}"));
    cluster.movable = Some(address(network, MOVABLE + host - 1).parse().unwrap());
    cluster.replicate = words[3] == "true";
    if let Some(version) = words.get(5) {
        cluster.wire = Wire(version.parse().unwrap());
    }
    settings.cluster = Some(cluster);
    let mut stopped = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).unwrap();
    let end = async move {
        stopped.recv().await;
    };
    let ended = offhook_exchange::run(settings, |node| println!("@{}", node.banner()), end).await;
    if let Err(error) = ended {
        println!("@failed: {error}");
    }
}

/// A file with a name and a password a line.
fn read_accounts(file: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(file).unwrap();
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs
        .map(|(name, password)| (name.to_owned(), password.to_owned()))
        .collect()
}

/// `greet ACCOUNTS`: phones of the new instance.
async fn greet(words: &[&str]) {
    let (_, network, host) = NEWCOMER;
    let cast = phones::Cast {
        server: format!("{}:5060", address(network, MOVABLE + host - 1))
            .parse()
            .unwrap(),
        domain: DOMAIN.to_owned(),
        own: address(PHONES, 3).parse().unwrap(),
        probe: address(PHONES, 4).parse().unwrap(),
        accounts: read_accounts(words[0]),
        others: Vec::new(),
        audio: 0,
        slow: 0,
        ring: Duration::ZERO,
    };
    phones::greet(cast).await;
}

/// `phones ACCOUNTS AUDIO SLOW FLOWS`.
async fn talk(words: &[&str]) {
    let cast = phones::Cast {
        server: format!("{}:5060", address(1, MOVABLE)).parse().unwrap(),
        domain: DOMAIN.to_owned(),
        own: address(PHONES, 1).parse().unwrap(),
        probe: address(PHONES, 2).parse().unwrap(),
        others: (2..=3)
            .filter(|_| words[3] == "true")
            .map(|network| format!("{}:5060", address(network, MOVABLE)).parse().unwrap())
            .collect(),
        accounts: read_accounts(words[0]),
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
    /// What it said to people, and when.
    remarks: Arc<Mutex<Vec<(Instant, String)>>>,
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
            .stderr(Stdio::piped());
        let mut process = start(&mut command);
        let output = process.0.stdout.take().unwrap();
        let errors = process.0.stderr.take().unwrap();
        let mut log = fs::File::create(log).unwrap();
        let remarks: Arc<Mutex<Vec<(Instant, String)>>> = Arc::default();
        let heard = remarks.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                let _ = writeln!(log, "{line}");
                heard.lock().unwrap().push((Instant::now(), line));
            }
        });
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
        Self {
            process,
            stdin,
            lines,
            remarks,
        }
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
        self.say_of(Instant::now(), text);
    }

    fn say_of(&self, at: Instant, text: &str) {
        println!("{:8.3} s  {text}", (at - self.begun).as_secs_f64());
    }
}

/// One line for whoever started this part.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "@{line}");
    let _ = out.flush();
}

/// Name, data centre, host. The first carries the calls, the second is beside it.
const MACHINES: [(&str, u8, u8); 4] = [("a1", 1, 1), ("a2", 1, 2), ("b1", 2, 1), ("c1", 3, 1)];

/// One more, where it is wanted; and how many accounts its phones have.
const NEWCOMER: (&str, u8, u8) = ("b2", 2, 2);
const GUESTS: usize = 3;

/// Plays a plan from beginning to end.
pub fn play(plan: &Plan) -> Outcome {
    let mut outcome = Outcome::default();
    let mut lab = Lab::open(plan);
    if let Some(version) = plan.stranger {
        lab.let_in(version, &mut outcome);
    }
    lab.call(&mut outcome);
    lab.cut(&mut outcome);
    lab.look(&mut outcome);
    if plan.replicate {
        lab.use_calls(&mut outcome);
        lab.count_records(&mut outcome);
    }
    outcome
}

struct Lab {
    plan: Plan,
    timeline: Timeline,
    accounts: Vec<(String, String)>,
    phones: Part,
    watch: Part,
    instances: Vec<Part>,
    engines: Vec<Process>,
    epochs: u64,
    cut_at: Instant,
    // Last: it goes after the processes.
    net: Net,
    folder: Folder,
}

impl Lab {
    fn open(plan: &Plan) -> Self {
        let timeline = Timeline { begun: Instant::now() };
        let mut net = Net::new();
        let folder = Folder::new(&net);
        for (name, network, host) in MACHINES {
            net.machine(name, network, &[host]);
        }
        for network in 1..=3 {
            net.machine(&format!("engine{network}"), network, &[engine::HOST]);
        }
        net.machine("phones", PHONES, &[1, 2]);
        let (name, network, host) = NEWCOMER;
        net.machine(name, network, &[host]);
        net.machine("guests", PHONES, &[3, 4]);
        if plan.translated {
            net.translate_phones();
        }
        let engines: Vec<Process> = (1..=3).map(|network| engine::serve(&net, &folder.0, network)).collect();
        timeline.say("three data centres with an engine server in each");

        let pairs = plan.calls + plan.ringing;
        let mut accounts = make_accounts(&folder.0.join("a1"), 2 * pairs + 3 + GUESTS);
        let instances: Vec<Part> = MACHINES
            .iter()
            .map(|machine| start_instance(&net, &folder, plan, *machine))
            .collect();
        for (instance, (name, ..)) in instances.iter().zip(MACHINES) {
            timeline.say(&format!("{name}: {}", instance.hear(Duration::from_secs(60))));
        }
        wait_for(
            "every instance speaks for its shard and has a standby",
            Duration::from_secs(90),
            || ready(&folder.0.join("b1"), plan.replicate),
        );
        wait_for("the accounts are known", Duration::from_secs(90), || {
            let known = |name: &str| {
                Store::open(&folder.0.join(name))
                    .is_ok_and(|store| store.accounts().is_ok_and(|all| all.len() >= accounts.len()))
            };
            MACHINES.iter().all(|(name, ..)| known(name))
        });
        timeline.say("every instance speaks for its own address, and has a standby");
        let watched = format!("watch br1 {}", address(1, MOVABLE));
        let watch = Part::start(&net, "net", &watched, &folder.0.join("watch.log"));
        watch.hear(Duration::from_secs(60));
        let guests = accounts.split_off(accounts.len() - GUESTS);
        write_accounts(&folder.0.join("guests"), &guests);
        let file = folder.0.join("accounts");
        write_accounts(&file, &accounts);
        let part = format!(
            "phones {} {} {} {}",
            file.display(),
            plan.audio,
            plan.ringing,
            plan.flows
        );
        let phones = Part::start(&net, "phones", &part, &folder.0.join("phones.log"));
        timeline.say(&format!("phones: {}", phones.hear(Duration::from_secs(180))));
        Self {
            plan: *plan,
            timeline,
            accounts,
            phones,
            watch,
            instances,
            engines,
            epochs: 0,
            cut_at: Instant::now(),
            net,
            folder,
        }
    }

    fn home(&self, name: &str) -> PathBuf {
        self.folder.0.join(name)
    }

    /// What each instance has used so far.
    fn processor_us(&self) -> Vec<u64> {
        self.instances
            .iter()
            .map(|instance| cost::used_us(instance.process.0.id()))
            .collect()
    }

    /// Whether the calls go on in another data centre, under another address.
    fn is_elsewhere(&self) -> bool {
        matches!(self.plan.cut, Cut::DataCentre | Cut::OneWay)
    }

    /// An instance of another version comes, to the data centre that goes on when the first is lost.
    fn let_in(&mut self, version: u8, outcome: &mut Outcome) {
        let part = start_instance_of(&self.net, &self.folder, &self.plan, NEWCOMER, Some(version));
        self.timeline.say(&format!(
            "one of version {version}: {}",
            part.hear(Duration::from_secs(60))
        ));
        let homes = ["a1", NEWCOMER.0].map(|name| self.home(name));
        let mut strange = Vec::new();
        wait_for("both versions know of each other", Duration::from_secs(60), || {
            strange = homes.iter().map(|home| strangers(home)).collect();
            // The one knows of one stranger, the other of all the others.
            strange == [1, MACHINES.len()]
        });
        outcome.strangers = strange;
        let said = || {
            part.remarks
                .lock()
                .unwrap()
                .iter()
                .any(|(_, line)| line.contains("witnesses speak"))
        };
        wait_for("it says that it takes no calls", Duration::from_secs(60), said);
        outcome.stranger_said = part
            .remarks
            .lock()
            .unwrap()
            .iter()
            .map(|(_, line)| line.clone())
            .collect();
        for line in &outcome.stranger_said {
            self.timeline.say(&format!("it says: {line}"));
        }
        self.instances.push(part);
    }

    fn call(&mut self, outcome: &mut Outcome) {
        let before = self.processor_us();
        outcome.up_before = self.phones.ask("call")[0] as usize;
        let calls = self.plan.calls.max(1) as u64;
        let used = self.processor_us().into_iter().zip(before);
        let per_call: Vec<u64> = used.map(|(now, before)| (now - before) / calls).collect();
        let names = MACHINES.map(|(name, ..)| name);
        self.timeline
            .say(&format!("{} of {} calls are up", outcome.up_before, self.plan.calls));
        self.timeline
            .say(&format!("processor time of {names:?} for each: {per_call:?} us"));
        std::thread::sleep(Duration::from_secs(2));
        let before = self.phones.ask("gaps");
        outcome.gap_before_ms = before[3];
        self.timeline.say(&format!(
            "{} phones hear sound; longest silence so far {} ms",
            before[0], before[3]
        ));
        self.epochs = epochs(&self.home("b1"));
        if self.plan.ringing > 0 {
            self.phones.ask("ring");
            // Where an address is left, some are dialled after the cut.
            let before = if self.is_elsewhere() && !self.plan.flows {
                phones::DIALLING
            } else {
                phones::DIALLING * 3 / 4
            };
            std::thread::sleep(before);
        }
        self.phones.ask("mark");
    }

    fn cut(&mut self, outcome: &mut Outcome) {
        self.cut_at = Instant::now();
        self.timeline.say(&format!("CUT: {}", self.plan.cut.name()));
        let settle = Duration::from_secs(if self.plan.replicate { 5 } else { 3 });
        match self.plan.cut {
            Cut::Process => self.instances[0].process.kill(),
            Cut::Machine => self.net.cut_machine("a1"),
            Cut::DataCentre => self.net.cut_network(1),
            Cut::OneWay => self.net.deafen_network(1),
            Cut::EngineServer => self.engines[0].kill(),
            Cut::Pause => {
                self.instances[0].process.signal("STOP");
                std::thread::sleep(Duration::from_secs(3));
                self.instances[0].process.signal("CONT");
                self.timeline.say("the one that was paused goes on");
            }
            Cut::Engine => {
                self.engines.iter_mut().for_each(Process::kill);
                std::thread::sleep(Duration::from_secs(self.plan.seconds));
                self.engines = (1..=3)
                    .map(|network| engine::serve(&self.net, &self.folder.0, network))
                    .collect();
                self.timeline.say("the engine is there again");
            }
            Cut::Nothing => self.wait(outcome),
            Cut::Stop => self.instances[0].process.signal("TERM"),
            Cut::Newcomer => self.newcomer(outcome),
        }
        std::thread::sleep(settle);
        outcome.epochs = epochs(&self.home("b1")).saturating_sub(self.epochs);
        self.timeline.say(&format!("epochs begun since: {}", outcome.epochs));
    }

    /// Lets time pass, with every processor kept busy by so many threads, and says now and then how it is.
    fn wait(&self, outcome: &mut Outcome) {
        const REPORT: Duration = Duration::from_secs(300);
        let until = Instant::now() + Duration::from_secs(self.plan.seconds);
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let (mut load, mut report) = (load::Load::new(), Instant::now() + REPORT);
        let taken = Mutex::default();
        std::thread::scope(|scope| {
            scope.spawn(|| load::watch_taken(until, &taken));
            for _ in 0..self.plan.burn * processors {
                scope.spawn(|| while Instant::now() < until {});
            }
            while Instant::now() < until {
                std::thread::sleep(load::STEP.min(until.saturating_duration_since(Instant::now())));
                load.look();
                if Instant::now() > report {
                    report += REPORT;
                    let since = epochs(&self.home("b1")).saturating_sub(self.epochs);
                    self.timeline.say(&format!("epochs begun so far: {since}; {load}"));
                    self.tell_remarks(&mut Outcome::default());
                }
            }
        });
        for load::Taken { at, processor, ms } in taken.into_inner().unwrap() {
            let after_ms = (at - self.cut_at).as_millis();
            self.timeline.say_of(
                at,
                &format!(
                    "{after_ms} ms after the cut, processor {processor} had been taken from this machine for {ms} ms"
                ),
            );
        }
        self.timeline.say(&load.to_string());
        outcome.load = load;
    }

    /// Starts one more instance, with phones that wait for it.
    fn newcomer(&mut self, outcome: &mut Outcome) {
        let file = self.folder.0.join("guests");
        let log = self.folder.0.join("guests.log");
        let mut guests = Part::start(&self.net, "guests", &format!("greet {}", file.display()), &log);
        guests.hear(Duration::from_secs(60));
        let begun = Instant::now();
        let newcomer = start_instance(&self.net, &self.folder, &self.plan, NEWCOMER);
        let before_ms = begun.elapsed().as_millis() as u64;
        let greeted = guests.ask("go");
        outcome.newcomer_ms = (before_ms + greeted[0], before_ms + greeted[1]);
        let (answers_ms, carries_ms) = outcome.newcomer_ms;
        self.timeline.say(&format!(
            "a new instance answers {answers_ms} ms after its process was started, and has carried a call after {carries_ms} ms"
        ));
        self.instances.push(newcomer);
    }

    /// What the instances said since the cut.
    fn tell_remarks(&self, outcome: &mut Outcome) {
        let mut all = Vec::new();
        for (instance, (name, ..)) in self.instances.iter().zip(MACHINES) {
            let remarks = instance.remarks.lock().unwrap();
            let since = remarks.iter().filter(|(at, _)| *at >= self.cut_at);
            all.extend(since.map(|(at, line)| (*at, name, line.clone())));
        }
        all.sort();
        for (at, name, line) in all.iter().take(60) {
            let after_ms = (*at - self.cut_at).as_millis();
            let line = line.trim_start_matches("offhook exchange: ");
            outcome.remarks.push((after_ms as u64, format!("{name}: {line}")));
            self.timeline
                .say_of(*at, &format!("{after_ms} ms after the cut, {name}: {line}"));
        }
    }

    fn look(&mut self, outcome: &mut Outcome) {
        self.tell_remarks(outcome);
        let silences = self.phones.ask("silences");
        outcome.silences = silences.as_chunks().0.to_vec();
        let gaps = self.phones.ask("gaps");
        [
            outcome.gap_p50_ms,
            outcome.gap_p99_ms,
            outcome.gap_max_ms,
            outcome.wrong_samples,
        ] = [gaps[1], gaps[2], gaps[3], gaps[4]];
        outcome.hearing = gaps[0];
        self.timeline.say(&format!(
            "longest silence of {} phones: half <= {} ms, p99 {} ms, longest {} ms; wrong samples {}",
            gaps[0], gaps[1], gaps[2], gaps[3], gaps[4]
        ));
        outcome.signalling_ms = self.phones.ask("probe")[0];
        self.timeline.say(&format!(
            "longest time without an answer at the address: {} ms",
            outcome.signalling_ms
        ));
        let told = self.phones.ask("moved");
        outcome.told = (told[0], told[1], told[2]);
        if told[0] > 0 {
            let (count, first, last) = outcome.told;
            self.timeline.say(&format!(
                "phones told where their call goes on: {count}, {first} to {last} ms after the cut"
            ));
        }
        outcome.turns = self.watch.ask("turns");
        self.timeline.say(&format!(
            "packets from the address, machine after machine: {:?}",
            outcome.turns
        ));
        if self.plan.ringing > 0 {
            outcome.rung = self.phones.ask("rung")[0] as usize;
            self.timeline.say(&format!(
                "{} of {} calls in set-up came up",
                outcome.rung, self.plan.ringing
            ));
        }
        outcome.up_after = match self.plan.replicate {
            true => (self.phones.ask("up")[0] as usize / 2).saturating_sub(outcome.rung),
            // Phones cannot know that nobody knows their call before they ask.
            false => self.phones.ask("hold")[0] as usize,
        };
        self.timeline
            .say(&format!("{} of {} calls are left", outcome.up_after, outcome.up_before));
    }

    /// Hold, transfer and hanging up, from both sides.
    fn use_calls(&mut self, outcome: &mut Outcome) {
        outcome.held = self.phones.ask("hold")[0] as usize;
        self.timeline.say(&format!(
            "held and resumed, by callers and callees in turn: {}",
            outcome.held
        ));
        // The caller of the first call, the callee of the second.
        let spare = self.accounts.iter().rev().skip(1).map(|(name, _)| name.clone());
        let orders: Vec<String> = [0, 3]
            .into_iter()
            .zip(spare)
            .map(|(who, whom)| format!("transfer {who} {whom}"))
            .collect();
        let mut done = orders
            .iter()
            .take(self.plan.calls)
            .map(|order| self.phones.ask(order)[0] == 1);
        outcome.transferred = done.all(|done| done);
        self.timeline.say(&format!(
            "transferred, by a caller and by a callee: {}",
            outcome.transferred
        ));
        outcome.hung = self.phones.ask("hang")[0] as usize;
        self.timeline
            .say(&format!("hung up, by callers and callees in turn: {}", outcome.hung));
        if self.plan.ringing > 0 {
            self.phones.ask("hang slow");
        }
    }

    fn count_records(&mut self, outcome: &mut Outcome) {
        let expected = outcome.up_before + outcome.rung;
        let home = self.home(if self.is_elsewhere() { "b1" } else { "a2" });
        let deadline = Instant::now() + Duration::from_secs(60);
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
        let (records, doubled) = (outcome.records, outcome.records_doubled);
        self.timeline
            .say(&format!("call records: {records} of {expected}, doubled: {doubled}"));
    }
}

/// All shards' epochs, added. An instance that is busy may take a while to say.
fn epochs(home: &Path) -> u64 {
    let members = std::iter::repeat_with(|| control::ask(home, control::Ask::Members)).take(5);
    let Some(members) = members.into_iter().find_map(|answer| match answer {
        Ok(control::Answer::Members(members)) => Some(members),
        _ => None,
    }) else {
        return 0;
    };
    let epoch = |shard: &String| shard.split("epoch ").nth(1)?.split(' ').next()?.parse::<u64>().ok();
    let mut newest = std::collections::BTreeMap::new();
    for shard in members.iter().flat_map(|member| &member.owns) {
        let id = shard.split('@').next().unwrap_or_default();
        let known = newest.entry(id).or_insert(0);
        *known = epoch(shard).unwrap_or(0).max(*known);
    }
    newest.values().sum()
}

/// How many instances of other versions an instance knows of.
fn strangers(home: &Path) -> usize {
    match control::ask(home, control::Ask::Members) {
        Ok(control::Answer::Members(members)) => members.iter().filter(|member| !member.understood).count(),
        _ => 0,
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

fn start_instance(net: &Net, folder: &Folder, plan: &Plan, machine: (&str, u8, u8)) -> Part {
    start_instance_of(net, folder, plan, machine, None)
}

fn start_instance_of(net: &Net, folder: &Folder, plan: &Plan, machine: (&str, u8, u8), version: Option<u8>) -> Part {
    let (name, network, host) = machine;
    let home = folder.0.join(name);
    let version = version.map(|version| format!(" {version}")).unwrap_or_default();
    let part = format!(
        "instance {} {network} {host} {} {}{version}",
        home.display(),
        plan.replicate,
        plan.direct
    );
    Part::start(net, name, &part, &folder.0.join(format!("{name}.log")))
}

fn write_accounts(file: &Path, accounts: &[(String, String)]) {
    let lines = accounts.iter().map(|(name, password)| format!("{name} {password}\n"));
    fs::write(file, lines.collect::<String>()).unwrap();
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
    fn new(net: &Net) -> Self {
        let path = std::env::temp_dir().join(net.full("cut"));
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
