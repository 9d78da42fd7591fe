//! Runs the pure detector on a thread of its own, before everything else on the machine: UDP from machine to machine,
//! without the engine.
//!
//! The thread asks for real-time priority; where the system refuses, it runs as it can, and a machine at full load may
//! lose its lease for a moment. Nothing is lost by that but time: see [`offhook_exchange_proto::detector`]. What has
//! arrived is read before any silence is judged.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use offhook_exchange_proto::detector::{Envelope, Member, Message, NodeId, Role, Timing, Witness};
use offhook_exchange_proto::locator::INSTANCES_MAX;
use offhook_exchange_proto::wire::{DATAGRAM_BYTES_MAX, Datagram, seal, unseal};
use thread_priority::{
    RealtimeThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};
use tokio::sync::mpsc;

use super::lease::{Lease, Progress, clock};
use crate::Error;

/// Longest sleep, so that commands are seen.
const NAP_MS: u64 = 10;
/// Most datagrams read before the members are looked after.
const READ_AT_ONCE: usize = 256;

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
pub(crate) struct Join {
    pub(crate) shard: NodeId,
    /// It begins here: claim it when nobody is heard.
    pub(crate) home: bool,
    pub(crate) misses: u64,
    pub(crate) lease: Arc<Lease>,
    pub(crate) progress: Arc<Progress>,
}

/// What the detector tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The shard is ours under this epoch.
    Owned { shard: NodeId, epoch: u64 },
    /// The shard is somebody else's.
    Lost { shard: NodeId },
}

/// Starts the thread. It ends when the command channel closes.
pub(crate) fn start(
    node: NodeId,
    listen: SocketAddr,
    key: [u8; 32],
    timing: Timing,
    memory: PathBuf,
) -> Result<(Sender<Command>, mpsc::UnboundedReceiver<Turn>), Error> {
    let socket = UdpSocket::bind(listen).map_err(|source| Error::Listen {
        address: listen,
        transport: "detector",
        source,
    })?;
    let (commands, receiver) = channel();
    let (turns, turned) = mpsc::unbounded_channel();
    let detector = Detector {
        node,
        socket,
        key,
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
        detector.run(receiver);
    };
    thread
        .spawn(run)
        .map_err(|error| Error::Cluster(format!("no thread for the detector: {error}")))?;
    Ok((commands, turned))
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
    timing: Timing,
    memory: PathBuf,
    addresses: BTreeMap<NodeId, SocketAddr>,
    witnesses: Vec<NodeId>,
    /// What we have promised as witness, by shard.
    promises: BTreeMap<NodeId, Witness>,
    members: BTreeMap<NodeId, Part>,
    turns: mpsc::UnboundedSender<Turn>,
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
    fn run(mut self, commands: Receiver<Command>) {
        let mut buffer = [0; DATAGRAM_BYTES_MAX + 32];
        loop {
            loop {
                match commands.try_recv() {
                    Ok(command) => self.command(command),
                    Err(std::sync::mpsc::TryRecvError::Empty) => break,
                    Err(std::sync::mpsc::TryRecvError::Disconnected) => return self.end(),
                }
            }
            let now = clock();
            self.promises
                .values_mut()
                .for_each(|promise| promise.handle_timeout(self.timing, now));
            let due: Vec<NodeId> = self.members.keys().copied().collect();
            for shard in due {
                self.wake(shard);
            }
            let nap = Duration::from_millis(self.nap_ms());
            // A time of zero would mean for ever.
            let _ = self.socket.set_read_timeout(Some(nap.max(Duration::from_millis(1))));
            if self.read(&mut buffer) {
                let _ = self.socket.set_nonblocking(true);
                let more = (0..READ_AT_ONCE).take_while(|_| self.read(&mut buffer)).count();
                let _ = self.socket.set_nonblocking(false);
                if more == READ_AT_ONCE {
                    eprintln!("offhook exchange: the detector gets more messages than it can read");
                }
            }
        }
    }

    /// Takes one datagram; whether there was one.
    fn read(&mut self, buffer: &mut [u8]) -> bool {
        let Ok((length, _)) = self.socket.recv_from(buffer) else {
            return false;
        };
        if let Ok(datagram) = unseal(&buffer[..length], &self.key)
            && datagram.to == self.node
        {
            self.received(datagram);
        }
        true
    }

    fn end(&self) {
        self.members.values().for_each(|part| part.lease.set(None));
    }

    fn nap_ms(&self) -> u64 {
        let now = clock();
        let next = self
            .members
            .values()
            .filter_map(|part| part.member.poll_timeout(self.timing));
        next.map(|at| at.since_ms(now)).min().unwrap_or(NAP_MS).min(NAP_MS)
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Addresses(addresses) => self.addresses = addresses,
            Command::Witnesses(witnesses) => {
                for part in self.members.values_mut() {
                    part.member.set_witnesses(witnesses.clone());
                }
                self.witnesses = witnesses;
            }
            Command::Join(join) => self.join(join),
            Command::Adjust { shard, misses, peers } => {
                if let Some(part) = self.members.get_mut(&shard) {
                    part.member.set_misses(misses);
                    part.member.set_peers(peers);
                }
            }
            Command::Leave(shard) => {
                if let Some(part) = self.members.remove(&shard) {
                    part.lease.set(None);
                }
            }
            Command::Release { shard, successor } => {
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
            let lacking = match part.member.lacks() {
                true => ", though not all is here that phones were told",
                false => "",
            };
            eprintln!("offhook exchange: nobody speaks for {shard:x}: asking the witnesses{lacking}");
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
        let file = self.memory.join(format!("witness-{shard:x}"));
        if !self.promises.contains_key(&shard) {
            if self.promises.len() >= 2 * INSTANCES_MAX {
                return None;
            }
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let promise = match text.trim().parse() {
                Ok(epoch) => Witness::recalled(self.node, epoch, self.timing, now),
                Err(_) => Witness::new(self.node, now),
            };
            self.promises.insert(shard, promise);
        }
        let promise = self.promises.get_mut(&shard)?;
        let before = promise.epoch();
        let answer = promise.handle(message, self.timing, now);
        if promise.epoch() != before {
            // Losing it to a power cut costs no safety while the other witnesses remember: see docs.
            let _ = std::fs::write(&file, promise.epoch().to_string());
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
        part.owned = acts.then_some(epoch);
        let _ = self.turns.send(turn);
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
        let _ = self.socket.send_to(&seal(&datagram, &self.key), address);
    }
}

/// Where a detector on this address listens.
pub(crate) fn listening(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}
