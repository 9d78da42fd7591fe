//! A cable with faults, in user space: not every kernel has `netem`.
//!
//! One TAP in each of two namespaces; a thread carries frames between them and delays, jitters, reorders, loses, doubles, slows or cuts them on the way. The
//! dice are seeded: the same frames meet the same fate. Faults can be changed while frames fly.
//!
//! What it does not do: burst losses, bit errors (checksums drop those frames anyway), more than a few hundred Mbit/s.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::ioctl;

use crate::site::Namespace;

/// The longest frame.
const FRAME_BYTES_MAX: usize = 65_536;
/// An Ethernet header.
const HEADER_BYTES: usize = 14;
/// Frames on the way at once; what comes beyond is lost, as in a full queue.
const FRAMES_MAX: usize = 65_536;
/// Frames taken from one end before the other is looked at.
const BATCH: usize = 64;
/// How often the thread looks whether it should end.
const IDLE: Duration = Duration::from_millis(100);

/// What happens to frames of one direction.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Faults {
    /// One-way.
    pub(crate) delay: Duration,
    /// The delay varies by this much either way, evenly.
    pub(crate) jitter: Duration,
    /// Whether jitter may change the order of frames.
    pub(crate) reorder: bool,
    /// The share of frames that are lost, 0 to 1.
    pub(crate) loss: f64,
    /// The share of frames that arrive twice, 0 to 1.
    pub(crate) duplicate: f64,
    /// How much fits through.
    pub(crate) rate_kbit_s: Option<u32>,
    /// How long frames may queue for the rate; later ones are lost.
    pub(crate) queue: Duration,
    /// Unplugged.
    pub(crate) down: bool,
    /// IP packets longer than this vanish without a word: a path-MTU black hole.
    pub(crate) packet_bytes_max: Option<usize>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reorder: false,
            loss: 0.0,
            duplicate: 0.0,
            rate_kbit_s: None,
            queue: Duration::from_millis(200),
            down: false,
            packet_bytes_max: None,
        }
    }
}

impl Faults {
    /// Only a delay.
    pub(crate) fn delay_ms(ms: u64) -> Self {
        Self {
            delay: Duration::from_millis(ms),
            ..Self::default()
        }
    }
}

/// A cable between two namespaces. Pulled out when dropped.
#[derive(Debug)]
pub(crate) struct Wire {
    faults: Arc<Mutex<Faults>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Makes an interface in each of two namespaces, and what is between them.
    pub(crate) fn new(a: (&Namespace, &str), b: (&Namespace, &str), faults: Faults, seed: u64) -> Result<Self> {
        let ends = [tap(a.0, a.1)?, tap(b.0, b.1)?];
        for (namespace, interface) in [a, b] {
            namespace.ip(&format!("link set {interface} up"))?;
        }
        let faults = Arc::new(Mutex::new(faults));
        let stop = Arc::new(AtomicBool::new(false));
        let carrier = Carrier {
            ends,
            faults: faults.clone(),
            stop: stop.clone(),
            dice: ChaCha8Rng::seed_from_u64(seed),
            flying: BinaryHeap::new(),
            sent: 0,
            free: [Instant::now(); 2],
            last: [Instant::now(); 2],
        };
        let thread = thread::Builder::new()
            .name("wire".into())
            .spawn(move || carrier.run())
            .context("no thread for a wire")?;
        Ok(Self {
            faults,
            stop,
            thread: Some(thread),
        })
    }

    /// From now on frames of both directions meet these faults.
    pub(crate) fn set(&self, faults: Faults) {
        *locked(&self.faults) = faults;
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends with the process otherwise.
            let _ = thread.join();
        }
    }
}

/// A frame on its way: when it arrives, a number that keeps equals in order, where to, and what.
type Flight = Reverse<(Instant, u64, usize, Vec<u8>)>;

struct Carrier {
    ends: [File; 2],
    faults: Arc<Mutex<Faults>>,
    stop: Arc<AtomicBool>,
    dice: ChaCha8Rng,
    flying: BinaryHeap<Flight>,
    sent: u64,
    /// When the rate of each direction is free again.
    free: [Instant; 2],
    /// When the last frame of each direction arrives.
    last: [Instant; 2],
}

impl Carrier {
    fn run(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            self.land();
            self.wait();
            for from in [0, 1] {
                self.take(from);
            }
        }
    }

    /// Hands over what has arrived.
    fn land(&mut self) {
        let is_due = |flight: &Flight| flight.0.0 <= Instant::now();
        while self.flying.peek().is_some_and(is_due)
            && let Some(Reverse((_, _, to, frame))) = self.flying.pop()
        {
            // An interface that is down takes nothing: lost, as on a real cable.
            let _ = (&self.ends[to]).write(&frame);
        }
    }

    /// Waits for a frame to come or to arrive.
    fn wait(&self) {
        let next = self.flying.peek().map(|Reverse((at, ..))| *at);
        let pause = next.map_or(IDLE, |at| at.saturating_duration_since(Instant::now()).min(IDLE));
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: pause.subsec_nanos().into(),
        };
        let mut watched = [
            PollFd::new(&self.ends[0], PollFlags::IN),
            PollFd::new(&self.ends[1], PollFlags::IN),
        ];
        // A signal may interrupt: then the loop comes round again.
        let _ = poll(&mut watched, Some(&timeout));
    }

    fn take(&mut self, from: usize) {
        let faults = locked(&self.faults).clone();
        let mut buffer = vec![0; FRAME_BYTES_MAX];
        for _ in 0..BATCH {
            match (&self.ends[from]).read(&mut buffer) {
                Ok(length) => self.carry(from, &buffer[..length], &faults),
                Err(_) => return,
            }
        }
    }

    /// Decides when a frame arrives, and whether.
    fn carry(&mut self, from: usize, frame: &[u8], faults: &Faults) {
        let black_hole = faults
            .packet_bytes_max
            .is_some_and(|max| frame.len() > max + HEADER_BYTES);
        let is_lost = self.chance(faults.loss);
        if faults.down || black_hole || is_lost || self.flying.len() >= FRAMES_MAX {
            return;
        }
        let Some(start) = self.through_rate(from, frame.len(), faults) else {
            return;
        };
        let jitter = faults.jitter.mul_f64(2.0 * self.dice());
        let mut at = (start + faults.delay + jitter)
            .checked_sub(faults.jitter)
            .unwrap_or(start)
            .max(start);
        if !faults.reorder {
            at = at.max(self.last[from]);
            self.last[from] = at;
        }
        let copies = 1 + usize::from(self.chance(faults.duplicate));
        for _ in 0..copies {
            self.sent += 1;
            self.flying.push(Reverse((at, self.sent, 1 - from, frame.to_vec())));
        }
    }

    /// When the last bit of a frame is through; none where it would queue too long.
    fn through_rate(&mut self, from: usize, bytes: usize, faults: &Faults) -> Option<Instant> {
        let now = Instant::now();
        let Some(rate) = faults.rate_kbit_s else {
            return Some(now);
        };
        let begin = self.free[from].max(now);
        if begin.duration_since(now) > faults.queue {
            return None;
        }
        let bits = u32::try_from(bytes * 8).unwrap_or(u32::MAX);
        self.free[from] = begin + Duration::from_secs_f64(f64::from(bits) / (f64::from(rate) * 1000.0));
        Some(self.free[from])
    }

    fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.dice() < share
    }

    /// Evenly from 0 to 1.
    fn dice(&mut self) -> f64 {
        f64::from(self.dice.next_u32()) / f64::from(u32::MAX)
    }
}

fn locked(faults: &Mutex<Faults>) -> MutexGuard<'_, Faults> {
    // Faults are replaced as a whole: they are sound after a panic, too.
    faults.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a TAP interface in a namespace. It goes when the file is closed.
fn tap(namespace: &Namespace, name: &str) -> Result<File> {
    namespace.within(|| {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open("/dev/net/tun", flags, Mode::empty()).context("opening /dev/net/tun")?;
        attach_tap(file.as_fd(), name).with_context(|| format!("making the TAP {name}"))?;
        Ok(File::from(file))
    })
}

/// `struct ifreq` as TUNSETIFF takes it (linux/if.h): a name of 16 bytes, flags, and room for the rest of the union.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// IFF_TAP | IFF_NO_PI: whole Ethernet frames and nothing before them (linux/if_tun.h).
const TAP_WITHOUT_INFORMATION: u16 = 0x0002 | 0x1000;
/// `_IOW('T', 202, int)`.
const TUNSETIFF: ioctl::Opcode = 0x4004_54ca;

#[allow(
    unsafe_code,
    reason = "there is no safe way in to TUNSETIFF, and nothing else makes a TAP that a program holds"
)]
fn attach_tap(tun: std::os::fd::BorrowedFd<'_>, name: &str) -> Result<()> {
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: TAP_WITHOUT_INFORMATION,
        rest: [0; 22],
    };
    anyhow::ensure!(name.len() < request.name.len(), "the interface name {name} is too long");
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF on /dev/net/tun reads and writes one `struct ifreq`, which `InterfaceRequest` has the size and layout of; it lives until the call returns.
    unsafe {
        let order = ioctl::Updater::<TUNSETIFF, InterfaceRequest>::new(&mut request);
        ioctl::ioctl(tun, order)?;
    }
    Ok(())
}
