//! Fetching from a keeper what is lacking here.

use crate::history::IntervalSet;
use crate::identity::DeviceId;
use crate::keeper::Ask;
use crate::keeper::frame::KeptRun;
use crate::peer::Peer;
use crate::peer::keeping::session::Ranges;
use crate::peer::keeping::session::add;
use crate::peer::keeping::session::listed;
use crate::peer::keeping::session::without;
use crate::store::RoomNo;
use crate::store::Store;
use crate::store::StoreError;

impl<S: Store> Peer<S> {
    /// Asks for what the keeper holds and this node lacks and has asked nobody for. True if something was asked for.
    pub(super) fn fetch_kept(&mut self, no: RoomNo, device: DeviceId) -> bool {
        let (Some(room), Some(keeping)) = (self.rooms.get(&no), self.keepers.get(&(no, device))) else {
            return false;
        };
        let Some(session) = &keeping.session else { return false };
        let mut lacking = Ranges::new();
        for (log, held) in &session.held {
            let mut seqs = match room.logs.get(log) {
                Some(state) => held.minus(&state.held),
                None => held.clone(),
            };
            if let Some(last) = room.frozen_at(log) {
                seqs = seqs.up_to(last);
            }
            seqs = without(seqs, &session.tried, log);
            if seqs.is_empty() {
                continue;
            }
            for line in self.lines.values() {
                if let Some(shared) = line.rooms.get(&no) {
                    seqs = seqs.minus(&shared.was_asked(log));
                }
            }
            let others = self.keepers_of(no).filter(|(other, _)| *other != device);
            for (_, other) in others {
                if let Some(getting) = other.session.as_ref().and_then(|session| session.getting.as_ref()) {
                    seqs = without(seqs, getting, log);
                }
            }
            if !seqs.is_empty() {
                lacking.insert(*log, seqs);
            }
        }
        if lacking.is_empty() {
            return false;
        }
        let vault = keeping.record.vault;
        if let Some(session) = self.session(no, device) {
            session.getting = Some(lacking.clone());
        }
        let ranges = listed(lacking);
        self.ask_keeper(device, Ask::Get { vault, ranges });
        true
    }

    pub(super) fn on_kept_entries(
        &mut self,
        no: RoomNo,
        device: DeviceId,
        runs: Vec<KeptRun>,
    ) -> Result<(), StoreError> {
        for KeptRun { log, entries } in runs {
            let Some(session) = self.session(no, device).filter(|session| session.getting.is_some()) else {
                return Ok(());
            };
            for entry in &entries {
                add(
                    &mut session.came,
                    log,
                    &IntervalSet::range(entry.header.seq, entry.header.seq),
                );
            }
            self.take_run(device, no, log, entries)?;
        }
        self.settle(no)?;
        self.retry_limbo(no)?;
        self.settle(no)
    }

    pub(super) fn on_kept_done(&mut self, no: RoomNo, device: DeviceId, complete: bool) {
        let Some(keeping) = self.keepers.get_mut(&(no, device)) else {
            return;
        };
        let Some(session) = &mut keeping.session else { return };
        let Some(asked) = session.getting.take() else { return };
        let came = std::mem::take(&mut session.came);
        for (log, seqs) in asked {
            let rest = without(seqs.clone(), &came, &log);
            add(
                &mut session.tried,
                log,
                &if complete { seqs } else { seqs.minus(&rest) },
            );
            if complete && !rest.is_empty() {
                add(&mut session.doubtful, log, &rest);
            }
        }
        if session.doubtful.is_empty() {
            return;
        }
        // They may just have expired: what it says once more, it has to mean.
        let (vault, known) = (keeping.record.vault, [0; 8]);
        self.ask_keeper(device, Ask::Open { vault, known });
    }
}
