//! What the detector tells, through a socket: neither side ever holds anything that the other waits for.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use offhook_exchange_proto::detector::NodeId;
use tokio::io::AsyncReadExt;

/// What has become of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Its owner is not heard: the witnesses are asked for it, `lacking` something that phones have been told.
    Asking { shard: NodeId, lacking: bool },
    /// It is ours under this epoch.
    Owned { shard: NodeId, epoch: u64 },
    /// It is somebody else's.
    Lost { shard: NodeId },
    /// The detector itself was not let run for so long, ms: what is told of silence in that time is of no worth.
    Stood { ms: u64 },
}

const OCTETS: usize = 17;

impl Turn {
    fn to_octets(self) -> [u8; OCTETS] {
        let (kind, shard, value) = match self {
            Self::Lost { shard } => (0, shard, 0),
            Self::Owned { shard, epoch } => (1, shard, epoch),
            Self::Asking { shard, lacking } => (2, shard, u64::from(lacking)),
            Self::Stood { ms } => (3, 0, ms),
        };
        let mut octets = [kind; OCTETS];
        octets[1..9].copy_from_slice(&shard.to_le_bytes());
        octets[9..].copy_from_slice(&value.to_le_bytes());
        octets
    }

    fn from_octets(octets: [u8; OCTETS]) -> Self {
        let [kind, rest @ ..] = octets;
        let whole = u128::from_le_bytes(rest);
        let (shard, value) = (whole as u64, (whole >> 64) as u64);
        match kind {
            0 => Self::Lost { shard },
            1 => Self::Owned { shard, epoch: value },
            3 => Self::Stood { ms: value },
            _ => Self::Asking {
                shard,
                lacking: value == 1,
            },
        }
    }
}

/// Where turns are told.
pub(crate) struct Turns(UnixStream);

/// Where they are heard.
pub(crate) struct Heard(tokio::net::UnixStream);

/// Both ends; within a runtime.
pub(crate) fn open() -> io::Result<(Turns, Heard)> {
    let (turns, heard) = UnixStream::pair()?;
    turns.set_nonblocking(true)?;
    heard.set_nonblocking(true)?;
    Ok((Turns(turns), Heard(tokio::net::UnixStream::from_std(heard)?)))
}

impl Turns {
    /// Tells it; whether there was room, of which there is for thousands.
    pub(crate) fn say(&self, turn: Turn) -> bool {
        (&self.0).write(&turn.to_octets()).is_ok_and(|length| length == OCTETS)
    }
}

impl Heard {
    /// The next one; none when the detector has ended. May be given up and begun anew only between two turns, which are
    /// written whole.
    pub(crate) async fn next(&mut self) -> Option<Turn> {
        self.0.readable().await.ok()?;
        let mut octets = [0; OCTETS];
        self.0.read_exact(&mut octets).await.ok()?;
        Some(Turn::from_octets(octets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn turns_arrive_as_they_were_told() {
        let all = [
            Turn::Asking {
                shard: 7,
                lacking: true,
            },
            Turn::Owned {
                shard: u64::MAX,
                epoch: 3,
            },
            Turn::Lost { shard: 1 << 40 },
            Turn::Stood { ms: 112 },
        ];
        let (turns, mut heard) = open().unwrap();
        assert!(all.into_iter().all(|turn| turns.say(turn)));
        for turn in all {
            assert_eq!(heard.next().await, Some(turn));
        }
        drop(turns);
        assert_eq!(heard.next().await, None);
    }
}
