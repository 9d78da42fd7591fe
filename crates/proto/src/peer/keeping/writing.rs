//! Who may read and write at a vault: proving it, and bringing it up to date after a change of members or keys.

use crate::crypto::KeyPair;
use crate::identity::DeviceId;
use crate::keeper::Ask;
use crate::keeper::access;
use crate::keeper::access::Access;
use crate::peer::Peer;
use crate::peer::keeping::REFUSALS_MAX;
use crate::peer::keeping::RESET_AFTER;
use crate::peer::room::Room;
use crate::rooms::Sending;
use crate::rooms::VaultId;
use crate::store::RoomNo;
use crate::store::Store;

impl<S: Store> Peer<S> {
    /// The write key and the readers that a vault should have by what is known here. Where a new epoch is due and not made yet, the write key stays.
    pub(super) fn wanted_access(
        &self,
        no: RoomNo,
        vault: &VaultId,
        now: Option<[u8; 32]>,
    ) -> Option<([u8; 32], Vec<access::ReaderTag>)> {
        let room = self.rooms.get(&no)?;
        let sending = room.epochs.sending_epoch(&room.roster, &room.graph, self.ctx.device);
        let sync = match sending {
            Sending::Use { epoch, .. } => room.epochs.keys(&epoch).map(|keys| keys.sync.clone()),
            Sending::NewEpoch => None,
        };
        let write = match (sync, now) {
            (Some(sync), _) => access::write_key(&sync, vault).public(),
            (None, Some(now)) => now,
            (None, None) => access::write_key(room.epochs.sync_secrets().next()?, vault).public(),
        };
        let mut readers: Vec<_> = room
            .roster
            .devices()
            .keys()
            .map(|device| access::reader_tag(vault, device))
            .collect();
        readers.sort_unstable();
        readers.dedup();
        readers.truncate(access::READERS_MAX);
        Some((write, readers))
    }

    /// The secret half of a vault's write key, where it is known here.
    fn key_of_vault(&self, no: RoomNo, vault: &VaultId, write: &[u8; 32]) -> Option<KeyPair> {
        let room = self.rooms.get(&no)?;
        let keys = room.epochs.sync_secrets().map(|sync| access::write_key(sync, vault));
        keys.into_iter().find(|key| key.public() == *write)
    }

    /// Whether the keeper takes entries from this device now; proves to it that it may where that has not been done.
    pub(super) fn may_write(&mut self, no: RoomNo, device: DeviceId) -> bool {
        let now = self.ctx.now;
        let Some(keeping) = self.keepers.get(&(no, device)) else {
            return false;
        };
        let Some(session) = &keeping.session else { return false };
        let Some(state) = &session.state else { return false };
        if session.refusals >= REFUSALS_MAX {
            return false;
        }
        let (number, vault) = (state.number, state.vault);
        if session.writing == number {
            return true;
        }
        let Some(exporter) = self.lines.get(&device).map(|line| line.exporter.clone()) else {
            return false;
        };
        let Some(key) = self.key_of_vault(no, &vault, &state.write) else {
            if let Some(session) = self.session(no, device) {
                session.locked_since.get_or_insert(now);
            }
            return false;
        };
        let proof = access::prove_writer(&key, &exporter.0, &vault, number);
        if let Some(session) = self.session(no, device) {
            session.writing = number;
            session.locked_since = None;
        }
        self.ask_keeper(device, Ask::Write { vault, proof });
        true
    }

    /// States the next access where the one that holds is not what is known here.
    pub(super) fn renew_access(&mut self, no: RoomNo, device: DeviceId) {
        let now = self.ctx.now;
        let Some(keeping) = self.keepers.get(&(no, device)) else {
            return;
        };
        let Some(session) = &keeping.session else { return };
        let Some(state) = session.state.clone().filter(|_| session.refusals < REFUSALS_MAX) else {
            return;
        };
        let member = self.rooms.get(&no).is_some_and(Room::is_member);
        let wanted = self
            .wanted_access(no, &state.vault, Some(state.write))
            .filter(|_| member);
        let Some((write, readers)) = wanted else { return };
        if access::fingerprint(&write, &readers) == state.fingerprint {
            return;
        }
        let owner = access::owner_key(&self.secrets.device.0, &state.vault);
        let locked = session.locked_since.is_some_and(|since| since + RESET_AFTER <= now);
        let by = match self.key_of_vault(no, &state.vault, &state.write) {
            Some(key) => key,
            // A member turned the vault against the room, or keys are lost: its owner takes it back.
            None if locked && owner.public() == state.owner => owner,
            None => return,
        };
        let number = state.number.saturating_add(1);
        let access = Access::issue(state.vault, number, state.owner, write, readers, &by);
        if let Some(session) = self.session(no, device) {
            session.renewing = true;
            session.writing = 0;
        }
        self.ask_keeper(device, Ask::Renew { access });
    }
}
