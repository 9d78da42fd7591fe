//! Runs the pure detector on a thread of its own, before everything else on the machine: UDP from machine to machine,
//! without the engine.
//!
//! The thread asks for real-time priority; where the system refuses, it runs as it can, and a machine at full load may
//! lose its lease for a moment. Nothing is lost by that but time: see [`offhook_exchange_proto::detector`]. What has
//! arrived is read before any silence is judged.
//!
//! It never waits for a thread that does not go first: on a busy machine that one may be put aside for a tenth of a
//! second while it holds a lock, which is a takeover. So it looks at its [`mailbox`] only when nobody else does, frees
//! no memory of others and gives none of its own away, tells its [`Turn`]s through a socket, and prints nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use offhook_exchange_proto::detector::{Envelope, Member, Message, NodeId, Role, Timing, Witness};
use offhook_exchange_proto::locator::INSTANCES_MAX;
use offhook_exchange_proto::wire::{DATAGRAM_BYTES_MAX, Datagram, Wire};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

use super::lease::{Lease, Progress, clock};
use super::mailbox::{self, Letters, Orders};
use super::turn::{self, Turn, Turns};
use crate::Error;

/// Longest sleep, so that commands are seen.
const NAP_MS: u64 = 10;
/// Most datagrams read before the members are looked after.
const READ_AT_ONCE: usize = 256;

/// Longest wait for room to send, ms.
const SEND_MS_MAX: u64 = 1;

/// What the detector is told.
pub(crate) enum Command {
    /// Where the others listen.
    Addresses(BTreeMap<NodeId, SocketAddr>),
    /// The witnesses of this cluster, the same for everybody.
    Witnesses(Vec<NodeId>),
    /// Take part in a shard.
    Join(Join),
    /// How patient to be, and whom to tell of one's life.
    Adjust {
        shard: NodeId,
        misses: u64,
        peers: Vec<NodeId>,
    },
    /// Take no further part in a shard.
    Leave(NodeId),
    /// Stop acting and let another go on at once.
    Release { shard: NodeId, successor: NodeId },
}

/// Taking part in a shard.
#[derive(Clone)]
pub(crate) struct Join {
    pub(crate) shard: NodeId,
    /// It begins here: claim it when nobody is heard.
    pub(crate) home: bool,
    pub(crate) misses: u64,
    pub(crate) lease: Arc<Lease>,
    pub(crate) progress: Arc<Progress>,
}

/// Starts the thread. It ends when nobody can tell it anything any more.
pub(crate) fn start(
    node: NodeId,
    listen: SocketAddr,
    key: [u8; 32],
    wire: Wire,
    timing: Timing,
    memory: PathBuf,
) -> Result<(Orders<Command>, turn::Heard), Error> {
    let socket = UdpSocket::bind(listen).map_err(|source| Error::Listen {
        address: listen,
        transport: "detector",
        source,
    })?;
    let no_thread = |error| Error::Cluster(format!("no thread for the detector: {error}"));
    let (orders, letters) = mailbox::open();
    let (turns, heard) = turn::open().map_err(no_thread)?;
    let detector = Detector {
        node,
        socket,
        key,
        wire,
        timing,
        memory,
        addresses: BTreeMap::new(),
        witnesses: Vec::new(),
        promises: BTreeMap::new(),
        members: BTreeMap::new(),
        turns,
    };
    let thread = std::thread::Builder::new().name("detector".to_owned());
    let run = move || {
        go_first();
        detector.run(&letters);
    };
    thread.spawn(run).map_err(no_thread)?;
    Ok((orders, heard))
}

/// Real-time priority for this thread, where the system grants it.
fn go_first() {
    let policy = ThreadSchedulePolicy::Realtime(RealtimeThreadSchedulePolicy::RoundRobin);
    // The least of all real-time priorities goes before everything ordinary.
    let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, policy);
}

struct Detector {
    node: NodeId,
    socket: UdpSocket,
    key: [u8; 32],
    wire: Wire,
    timing: Timing,
    memory: PathBuf,
    addresses: BTreeMap<NodeId, SocketAddr>,
    witnesses: Vec<NodeId>,
    /// What we have promised as witness, by shard.
    promises: BTreeMap<NodeId, Promise>,
    members: BTreeMap<NodeId, Part>,
    turns: Turns,
}

/// As witness: what has been promised, and where that is remembered over a restart of this process.
struct Promise {
    witness: Witness,
    memory: Option<File>,
}

/// Our part in a shard.
struct Part {
    member: Member,
    lease: Arc<Lease>,
    progress: Arc<Progress>,
    /// The epoch that we were last told to own.
    owned: Option<u64>,
}

impl Detector {
    fn run(mut self, letters: &Letters<Command>) {
        let mut buffer = [0; DATAGRAM_BYTES_MAX + 32];
        let _ = self.socket.set_write_timeout(Some(Duration::from_millis(SEND_MS_MAX)));
        let mut ran = clock();
        while letters.read(|command| self.command(command)) {
            let now = clock();
            let stood_ms = now.since_ms(ran);
            if stood_ms > self.timing.starved_ms {
                self.turns.say(Turn::Stood { ms: stood_ms });
            }
            ran = now;
            self.promises
                .values_mut()
                .for_each(|promise| promise.witness.handle_timeout(self.timing, now));
            let due: Vec<NodeId> = self.members.keys().copied().collect();
            for shard in due {
                self.wake(shard);
            }
            let nap = Duration::from_millis(self.nap_ms());
            // A time of zero would mean for ever.
            let _ = self.socket.set_read_timeout(Some(nap.max(Duration::from_millis(1))));
            if self.read(&mut buffer) {
                let _ = self.socket.set_nonblocking(true);
                // What is left is read in the next round.
                let _ = (0..READ_AT_ONCE).take_while(|_| self.read(&mut buffer)).count();
                let _ = self.socket.set_nonblocking(false);
            }
        }
        self.members.values().for_each(|part| part.lease.set(None));
    }

    /// Takes one datagram; whether there was one.
    fn read(&mut self, buffer: &mut [u8]) -> bool {
        let Ok((length, _)) = self.socket.recv_from(buffer) else {
            return false;
        };
        if let Ok(datagram) = self.wire.unseal(&buffer[..length], &self.key)
            && datagram.to == self.node
        {
            self.received(datagram);
        }
        true
    }

    fn nap_ms(&self) -> u64 {
        let now = clock();
        let next = self
            .members
            .values()
            .filter_map(|part| part.member.poll_timeout(self.timing));
        next.map(|at| at.since_ms(now)).min().unwrap_or(NAP_MS).min(NAP_MS)
    }

    /// What is said here stays where it is, and is copied where it is needed.
    fn command(&mut self, command: &Command) {
        match command {
            Command::Addresses(addresses) => self.addresses = addresses.clone(),
            Command::Witnesses(witnesses) => {
                for part in self.members.values_mut() {
                    part.member.set_witnesses(witnesses.clone());
                }
                self.witnesses = witnesses.clone();
            }
            Command::Join(join) => self.join(join.clone()),
            Command::Adjust { shard, misses, peers } => {
                if let Some(part) = self.members.get_mut(shard) {
                    part.member.set_misses(*misses);
                    part.member.set_peers(peers.clone());
                }
            }
            Command::Leave(shard) => {
                if let Some(part) = self.members.remove(shard) {
                    part.lease.set(None);
                }
            }
            &Command::Release { shard, successor } => {
                let Some(part) = self.members.get_mut(&shard) else {
                    return;
                };
                part.lease.set(None);
                part.member.set_has(part.progress.has());
                let out = part.member.release(successor, clock());
                // A successor that never comes must not leave the shard alone for ever, but is waited for.
                part.member.set_misses(100);
                self.send_all(shard, out);
                self.settle(shard);
            }
        }
    }

    fn join(&mut self, join: Join) {
        let Join {
            shard,
            home,
            misses,
            lease,
            progress,
        } = join;
        let witnesses = self.witnesses.clone();
        let now = clock();
        let member = if home {
            Member::home(self.node, Vec::new(), witnesses, misses, now)
        } else {
            Member::standby(self.node, Vec::new(), witnesses, misses, now)
        };
        let part = Part {
            member,
            lease,
            progress,
            owned: None,
        };
        self.members.insert(shard, part);
    }

    fn wake(&mut self, shard: NodeId) {
        let Some(part) = self.members.get_mut(&shard) else {
            return;
        };
        part.member.set_has(part.progress.has());
        let before = part.member.role();
        let out = part.member.handle_timeout(self.timing, clock());
        if before == Role::Standby && part.member.role() == Role::Claimant {
            let lacking = part.member.lacks();
            self.turns.say(Turn::Asking { shard, lacking });
        }
        self.send_all(shard, out);
        self.settle(shard);
    }

    fn received(&mut self, datagram: Datagram) {
        let Datagram {
            shard, from, message, ..
        } = datagram;
        if let Some(answer) = self.witness(shard, message) {
            self.send(shard, from, answer);
        }
        if let Some(part) = self.members.get_mut(&shard) {
            part.member.set_has(part.progress.has());
            part.member.handle(message, self.timing, clock());
            part.progress.set_told(part.member.told());
            self.settle(shard);
        }
    }

    /// As witness. What was granted is remembered over a restart of this process.
    fn witness(&mut self, shard: NodeId, message: Message) -> Option<Message> {
        let of_witness = matches!(message, Message::Claim { .. } | Message::Released { .. });
        if !of_witness || !self.witnesses.contains(&self.node) {
            return None;
        }
        let now = clock();
        if !self.promises.contains_key(&shard) {
            if self.promises.len() >= 2 * INSTANCES_MAX {
                return None;
            }
            let file = self.memory.join(format!("witness-{shard:x}"));
            let witness = match recalled(&file) {
                Some(epoch) => Witness::recalled(self.node, epoch, self.timing, now),
                None => Witness::new(self.node, now),
            };
            let memory = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .open(&file)
                .ok();
            self.promises.insert(shard, Promise { witness, memory });
        }
        let Promise { witness, memory } = self.promises.get_mut(&shard)?;
        let before = witness.epoch();
        let answer = witness.handle(message, self.timing, now);
        if let (Some(memory), true) = (memory, witness.epoch() != before) {
            // In place, so that the file system has little to do. Losing it to a power cut costs no safety while the
            // other witnesses remember: see docs.
            let _ = memory.write_all_at(format!("{:020}", witness.epoch()).as_bytes(), 0);
        }
        answer
    }

    /// Brings the lease in line, and tells when the shard has become ours or is no longer.
    fn settle(&mut self, shard: NodeId) {
        let Some(part) = self.members.get_mut(&shard) else {
            return;
        };
        part.lease.set(part.member.lease_until(self.timing));
        let epoch = part.member.epoch();
        let acts = part.member.may_act(self.timing, clock());
        let turn = match part.owned {
            owned if acts && owned != Some(epoch) => Turn::Owned { shard, epoch },
            // Heard a newer owner, or was refused: not a mere pause.
            Some(_) if part.member.role() == Role::Standby => Turn::Lost { shard },
            _ => return,
        };
        // Else it is told the next time.
        if self.turns.say(turn) {
            part.owned = acts.then_some(epoch);
        }
    }

    fn send_all(&mut self, shard: NodeId, out: Vec<Envelope>) {
        for (to, message) in out {
            self.send(shard, to, message);
        }
    }

    fn send(&mut self, shard: NodeId, to: NodeId, message: Message) {
        if to == self.node {
            // We are a witness of our own lease too.
            if let Some(answer) = self.witness(shard, message)
                && let Some(part) = self.members.get_mut(&shard)
            {
                part.member.handle(answer, self.timing, clock());
            }
            return;
        }
        let Some(address) = self.addresses.get(&to) else {
            return;
        };
        let datagram = Datagram {
            shard,
            from: self.node,
            to,
            message,
        };
        // Lost datagrams are what the protocol is made for.
        let _ = self.socket.send_to(&self.wire.seal(&datagram, &self.key), address);
    }
}

/// The epoch that this witness granted last, in an earlier process.
fn recalled(file: &Path) -> Option<u64> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Where a detector on this address listens.
pub(crate) fn listening(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}
