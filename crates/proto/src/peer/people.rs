//! Persons known from any room: names, prekeys, and what this person thinks of them.

use crate::history::RoomId;
use crate::identity::{DeviceId, IdentityRecord, IdentityState, NAME_BYTES_MAX, PersonId, safety_number};
use crate::peer::author::Prekeys;
use crate::peer::record::{self, ContactRecord};
use crate::peer::view::ContactView;
use crate::peer::{CommandError, Peer, Reply, table};
use crate::store::{Direction, RoomNo, Store, StoreError, after_prefix};
use crate::wire::Wire;

/// A person as known here.
#[derive(Debug, Clone)]
pub(super) struct Person {
    pub identity: IdentityState,
    pub petname: String,
    pub verified: bool,
    pub blocked: bool,
}

impl Person {
    fn new(person: PersonId) -> Self {
        Self {
            identity: IdentityState::new(person),
            petname: String::new(),
            verified: false,
            blocked: false,
        }
    }

    fn to_record(&self) -> ContactRecord {
        ContactRecord {
            petname: self.petname.clone(),
            verified: self.verified,
            blocked: self.blocked,
            identity: self.identity.bundle(),
        }
    }
}

impl<S: Store> Peer<S> {
    pub(super) fn load_people(&mut self) -> Result<(), StoreError> {
        let from = table::key(table::PERSONS, &[]);
        for (key, value) in self
            .store
            .scan(&from, &after_prefix(&from), Direction::Ascending, usize::MAX)?
        {
            let id = key.get(1..33).and_then(|b| b.try_into().ok()).map(PersonId);
            let id = id.ok_or(StoreError::Damaged("person"))?;
            let record: ContactRecord = record::decode(&value, "person")?;
            let mut person = Person::new(id);
            // Records were checked when they came; one that no longer passes is left out.
            let _ = person.identity.merge_bundle(&record.identity);
            person.petname = record.petname;
            person.verified = record.verified;
            person.blocked = record.blocked;
            if person.blocked {
                self.ctx.blocked.insert(id);
            }
            self.people.insert(id, person);
        }
        Ok(())
    }

    /// Takes in one identity record of a person.
    pub(super) fn learn_identity(&mut self, person: &PersonId, record: &IdentityRecord) -> Result<(), StoreError> {
        let known = self.people.entry(*person).or_insert_with(|| Person::new(*person));
        if known.identity.merge(record) == Ok(true) {
            let bytes = known.to_record().to_bytes();
            self.store.put(&table::person(person), &bytes)?;
        }
        Ok(())
    }

    /// Takes in what a room's roster knows of its members.
    pub(super) fn learn_members(&mut self, no: RoomNo) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get(&no) else { return Ok(()) };
        let unknown = |person: &PersonId, identity: &IdentityState| {
            self.people.get(person).is_none_or(|known| known.identity != *identity)
        };
        let members = room
            .roster
            .members
            .iter()
            .filter(|(person, member)| unknown(person, &member.identity));
        let news: Vec<(PersonId, IdentityState)> = members
            .map(|(p, member)| (*p, IdentityState::clone(&member.identity)))
            .collect();
        for (person, identity) in news {
            let known = self.people.entry(person).or_insert_with(|| Person::new(person));
            let before = known.identity.clone();
            // The roster holds checked records only.
            let _ = known.identity.merge_bundle(&identity.bundle());
            if known.identity != before {
                let bytes = known.to_record().to_bytes();
                self.store.put(&table::person(&person), &bytes)?;
            }
        }
        Ok(())
    }

    /// The newest prekey of a device.
    pub(super) fn prekey_of(&self, person: &PersonId, device: &DeviceId) -> Option<[u8; 32]> {
        self.people.get(person)?.identity.prekey(device)
    }

    /// The newest prekeys of a room's devices.
    pub(super) fn prekeys(&self, no: RoomNo) -> Prekeys {
        let Some(room) = self.rooms.get(&no) else {
            return Prekeys::new();
        };
        let prekey = |(device, person): (&DeviceId, &PersonId)| {
            let known = self.prekey_of(person, device).or_else(|| room.roster.prekey(device));
            known.map(|prekey| (*device, prekey))
        };
        room.devices.iter().filter_map(prekey).collect()
    }

    /// What a person is called here.
    pub(super) fn name_of(&self, person: &PersonId) -> String {
        let short = || {
            person.0[..4]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let Some(known) = self.people.get(person) else {
            return short();
        };
        if !known.petname.is_empty() {
            return known.petname.clone();
        }
        known.identity.name().map_or_else(short, str::to_owned)
    }

    fn change_person(
        &mut self,
        person: PersonId,
        change: impl FnOnce(&mut Person),
    ) -> Result<Result<Reply, CommandError>, StoreError> {
        let Some(known) = self.people.get_mut(&person).filter(|_| person != self.ctx.me) else {
            return Ok(Err(CommandError::NoPerson));
        };
        change(known);
        if known.blocked {
            self.ctx.blocked.insert(person);
        } else {
            self.ctx.blocked.remove(&person);
        }
        let bytes = known.to_record().to_bytes();
        self.store.put(&table::person(&person), &bytes)?;
        Ok(Ok(Reply::Done))
    }

    pub(super) fn name_person(
        &mut self,
        person: PersonId,
        petname: String,
    ) -> Result<Result<Reply, CommandError>, StoreError> {
        if petname.len() > NAME_BYTES_MAX {
            return Ok(Err(CommandError::Length {
                what: "the name",
                bytes_max: NAME_BYTES_MAX,
            }));
        }
        self.change_person(person, |known| known.petname = petname)
    }

    pub(super) fn verify_person(
        &mut self,
        person: PersonId,
        verified: bool,
    ) -> Result<Result<Reply, CommandError>, StoreError> {
        self.change_person(person, |known| known.verified = verified)
    }

    pub(super) fn block_person(
        &mut self,
        person: PersonId,
        blocked: bool,
    ) -> Result<Result<Reply, CommandError>, StoreError> {
        self.change_person(person, |known| known.blocked = blocked)
    }

    /// Everybody known from any room.
    pub fn contacts(&self) -> Result<Vec<ContactView>, StoreError> {
        let others = self.people.iter().filter(|(person, _)| **person != self.ctx.me);
        Ok(others
            .map(|(person, known)| ContactView {
                person: *person,
                own_name: known.identity.name().map(str::to_owned),
                petname: Some(known.petname.clone()).filter(|name| !name.is_empty()),
                verified: known.verified,
                blocked: known.blocked,
                safety_number: safety_number(&self.ctx.me, person),
                rooms: self.rooms_with(person),
            })
            .collect())
    }

    fn rooms_with(&self, person: &PersonId) -> Vec<RoomId> {
        let with = self
            .rooms
            .values()
            .filter(|room| room.is_member() && room.roster.members.contains_key(person));
        with.map(|room| room.id).collect()
    }
}
