//! Keeping for others: the vaults of this node, and who may use them.

use rand_core::Rng as _;

use crate::identity::DeviceId;
use crate::keeper::vault::Usage;
use crate::keeper::{Answer, Ask, Caller, KeeperAddress, Limits, Refusal};
use crate::peer::{Peer, Reply};
use crate::rooms::keepers::KEEPER_ADDRESSES_MAX;
use crate::store::{Store, StoreError};
use crate::sync::Frame;

use super::command::CommandError;

/// How often kept entries are looked through for what has expired.
const SWEEP_EVERY: std::time::Duration = std::time::Duration::from_secs(3600);
/// The pause between parts of one long sweep.
const SWEEP_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

impl<S: Store> Peer<S> {
    /// Keeps sealed entries for rooms that show the ticket, from now on.
    pub(super) fn keep_for_others(&mut self, limits: Limits) -> Result<Result<Reply, CommandError>, StoreError> {
        let mut fresh = [0; 16];
        self.ctx.rng.fill_bytes(&mut fresh);
        self.vaults.keep(&mut self.store, limits, fresh)?;
        self.sweep_at = Some(self.ctx.now);
        Ok(Ok(Reply::Done))
    }

    /// A member, or somebody who would be one, asks something of this keeper.
    pub(super) fn on_ask(&mut self, peer: DeviceId, ask: Ask) -> Result<(), StoreError> {
        let Some(exporter) = self.lines.get(&peer).map(|line| line.exporter.clone()) else {
            return Ok(());
        };
        if self.vaults.ticket().is_none() {
            let answer = Answer::Refused {
                vault: ask.vault(),
                why: Refusal::Closed {},
            };
            self.send(peer, &Frame::Keeper { answer });
            return Ok(());
        }
        let caller = Caller {
            device: peer,
            exporter: &exporter.0,
            now_ms: self.ctx.wall_ms,
        };
        let answers = self
            .vaults
            .answer(&mut self.store, &mut self.ctx.next_log, caller, ask)?;
        for (to, answer) in answers {
            if self.lines.contains_key(&to) {
                self.send(to, &Frame::Keeper { answer });
            }
        }
        Ok(())
    }

    pub(super) fn sweep_vaults(&mut self) -> Result<(), StoreError> {
        let more = self.vaults.sweep(&mut self.store, self.ctx.wall_ms)?;
        self.sweep_at = Some(self.ctx.now + if more { SWEEP_PAUSE } else { SWEEP_EVERY });
        Ok(())
    }

    /// This keeper's address, to be given to those whose rooms it shall keep; `None` while it keeps for nobody.
    pub fn keeper_address(&self) -> Option<KeeperAddress> {
        let ticket = self.vaults.ticket()?;
        let mine = self.my_addresses.as_ref();
        Some(KeeperAddress {
            device: self.ctx.device,
            ticket,
            addresses: mine
                .map(|mine| mine.addresses.iter().copied().take(KEEPER_ADDRESSES_MAX).collect())
                .unwrap_or_default(),
            relay: mine.and_then(|mine| mine.relay.clone()),
        })
    }

    /// What this node keeps for others.
    pub fn keeper_usage(&self) -> Usage {
        self.vaults.usage()
    }
}
