//! Which keepers a room has: from its control log, and put there by its admins.

use rand_core::Rng as _;

use crate::history::RoomId;
use crate::identity::DeviceId;
use crate::keeper::KeeperAddress;
use crate::peer::Peer;
use crate::peer::Reply;
use crate::peer::command::CommandError;
use crate::peer::keeping::Keeping;
use crate::peer::record::KeeperRecord;
use crate::peer::table;
use crate::rooms::KeeperPlace;
use crate::rooms::Op;
use crate::rooms::Role;
use crate::rooms::VaultId;
use crate::rooms::keepers::KEEPER_ADDRESSES_MAX;
use crate::rooms::keepers::KEEPERS_MAX;
use crate::store::RoomNo;
use crate::store::Store;
use crate::store::StoreError;
use crate::wire::Wire;

impl<S: Store> Peer<S> {
    /// Takes in which keepers a room has now.
    pub(in crate::peer) fn learn_keepers(&mut self, no: RoomNo) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get(&no) else { return Ok(()) };
        let places = room.roster.keepers.clone();
        let known: Vec<DeviceId> = self.keepers_of(no).map(|(device, _)| device).collect();
        for device in known {
            let stays = |place: &KeeperPlace| {
                place.device == device
                    && self
                        .keepers
                        .get(&(no, device))
                        .is_some_and(|k| k.record.vault == place.vault)
            };
            if !places.iter().any(stays) {
                self.keepers.remove(&(no, device));
                self.store.delete(&table::room_device(table::KEEPERS, no, &device))?;
                self.forget_delivery(no, device)?;
            }
        }
        for place in places {
            if place.device == self.ctx.device {
                continue;
            }
            if self
                .book
                .get(&place.device)
                .is_none_or(|dial| dial.record.addresses.is_empty())
            {
                self.note_old_addresses(place.device, &place.addresses, place.relay.clone())?;
            }
            let keeping = self.keepers.entry((no, place.device)).or_insert_with(|| Keeping {
                record: KeeperRecord::new(place.vault),
                dirty: true,
                owes: true,
                session: None,
            });
            if keeping.session.is_none() && self.lines.contains_key(&place.device) {
                self.open_vault(no, place.device)?;
            }
        }
        Ok(())
    }

    /// Names a keeper and opens a vault there as soon as it is reached.
    pub(in crate::peer) fn add_keeper(
        &mut self,
        id: RoomId,
        keeper: &KeeperAddress,
    ) -> Result<Result<Reply, CommandError>, StoreError> {
        let no = match self.allowed(id, Role::Admin) {
            Ok(no) => no,
            Err(error) => return Ok(Err(error)),
        };
        let Some(room) = self.rooms.get(&no) else {
            return Ok(Err(CommandError::NoRoom));
        };
        if keeper.device == self.ctx.device || room.devices.contains_key(&keeper.device) {
            return Ok(Err(CommandError::Already(
                "that node is a member of this room: it holds everything as it is",
            )));
        }
        let mut keepers = room.roster.keepers.clone();
        keepers.retain(|place| place.device != keeper.device);
        if keepers.len() >= KEEPERS_MAX {
            return Ok(Err(CommandError::Limit(
                "a room has at most 6 keepers; remove one first",
            )));
        }
        let mut vault = [0; 16];
        self.ctx.rng.fill_bytes(&mut vault);
        let vault = VaultId(vault);
        keepers.push(KeeperPlace {
            device: keeper.device,
            vault,
            addresses: keeper.addresses.iter().copied().take(KEEPER_ADDRESSES_MAX).collect(),
            relay: keeper.relay.clone(),
        });
        // Known here before the room's log names it: else a vault would be looked for that nobody has opened.
        self.keepers.remove(&(no, keeper.device));
        self.forget_delivery(no, keeper.device)?;
        let mut record = KeeperRecord::new(vault);
        record.ticket = Some(keeper.ticket);
        let bytes = record.to_bytes();
        self.store
            .put(&table::room_device(table::KEEPERS, no, &keeper.device), &bytes)?;
        let keeping = Keeping {
            record,
            dirty: false,
            owes: true,
            session: None,
        };
        self.keepers.insert((no, keeper.device), keeping);
        self.note_old_addresses(keeper.device, &keeper.addresses, keeper.relay.clone())?;
        self.dial_soon(keeper.device);
        self.write_control(no, vec![Op::SetKeepers { keepers }], false)?;
        Ok(Ok(Reply::Done))
    }

    /// Takes a keeper away. What it has stays sealed, and goes when nobody calls for it.
    pub(in crate::peer) fn remove_keeper(
        &mut self,
        id: RoomId,
        device: DeviceId,
    ) -> Result<Result<Reply, CommandError>, StoreError> {
        let no = match self.allowed(id, Role::Admin) {
            Ok(no) => no,
            Err(error) => return Ok(Err(error)),
        };
        let mut keepers = self
            .rooms
            .get(&no)
            .map(|room| room.roster.keepers.clone())
            .unwrap_or_default();
        let before = keepers.len();
        keepers.retain(|place| place.device != device);
        if keepers.len() == before {
            return Ok(Err(CommandError::Already("that is no keeper of this room")));
        }
        self.write_control(no, vec![Op::SetKeepers { keepers }], false)?;
        Ok(Ok(Reply::Done))
    }
}
