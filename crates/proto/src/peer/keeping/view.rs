//! What a person is shown of keepers, and what the line plan asks about them.

use crate::history::IntervalSet;
use crate::history::RoomId;
use crate::identity::DeviceId;
use crate::keeper::vault::both;
use crate::peer::Peer;
use crate::peer::keeping::session::Ranges;
use crate::peer::keeping::session::Session;
use crate::peer::keeping::session::without;
use crate::peer::record::DeliveryRecord;
use crate::peer::room::Room;
use crate::peer::view::KeeperView;
use crate::rooms::KeeperPlace;
use crate::store::RoomNo;
use crate::store::Store;

impl<S: Store> Peer<S> {
    /// The keepers of a room.
    pub fn keepers(&self, room: RoomId) -> Option<Vec<KeeperView>> {
        let no = *self.by_id.get(&room)?;
        let room = self.rooms.get(&no)?;
        let view = |place: &KeeperPlace| {
            let keeping = self.keepers.get(&(no, place.device));
            let record = keeping.map(|keeping| &keeping.record);
            let session = keeping.and_then(|keeping| keeping.session.as_ref());
            let state = session.and_then(|session| session.state.as_ref());
            let held: Ranges = record
                .map(|record| record.held.iter().map(|h| (h.log, h.held.clone())).collect())
                .unwrap_or_default();
            let lacking = room
                .logs
                .iter()
                .map(|(log, state)| without(state.held.clone(), &held, log).len());
            KeeperView {
                device: place.device,
                up: self.lines.contains_key(&place.device),
                pending: record.is_some_and(|record| record.ticket.is_some()),
                holds: held.values().map(IntervalSet::len).sum(),
                lacks: lacking.sum(),
                bytes: state.map(|state| state.bytes),
                bytes_max: state.map(|state| state.bytes_max),
                days: state.map(|state| state.days),
                seen_ms: record.map(|record| record.seen_ms).filter(|ms| *ms > 0),
                uptime_permille: record.and_then(|record| record.uptime.permille()),
                proofs: record.map_or(0, |record| record.proofs),
                fault: record.and_then(|record| record.fault),
                addresses: self
                    .book
                    .get(&place.device)
                    .map(|dial| dial.record.addresses.iter().map(|address| address.0).collect())
                    .unwrap_or_default(),
            }
        };
        Some(room.roster.keepers.iter().map(view).collect())
    }

    /// Which devices, members' or keepers', have said that an own entry is durable there.
    pub(in crate::peer) fn holders(room: &Room, seq: u32) -> Vec<DeviceId> {
        let holds = |(_, record): &(&DeviceId, &DeliveryRecord)| record.reached.contains(seq);
        room.deliveries
            .iter()
            .filter(holds)
            .map(|(device, _)| *device)
            .collect()
    }

    /// How many own entries of a room are not held by two others yet.
    pub(in crate::peer) fn exposed(&self, room: &Room) -> u64 {
        let Some(own) = room.own.as_ref().and_then(|own| room.logs.get(&own.log)) else {
            return 0;
        };
        let (mut once, mut twice) = (IntervalSet::default(), IntervalSet::default());
        for record in room.deliveries.values() {
            twice.union(&both(&once, &record.reached));
            once.union(&record.reached);
        }
        own.held.minus(&twice).len()
    }

    /// Whether a keeper of a room is there and says how its vault stands.
    pub(in crate::peer) fn has_open_vault(&self, no: RoomNo) -> bool {
        let is_open = |session: &Session| session.state.is_some();
        self.keepers_of(no)
            .any(|(_, keeping)| keeping.session.as_ref().is_some_and(is_open))
    }

    pub(in crate::peer) fn is_vault_open(&self, no: RoomNo, device: DeviceId) -> bool {
        let session = self
            .keepers
            .get(&(no, device))
            .and_then(|keeping| keeping.session.as_ref());
        session.is_some_and(|session| session.state.is_some())
    }
}
