//! Carrying out what the person asks for.

use crate::crypto::KeyPair;
use crate::history::body::{EMOJI_BYTES_MAX, TEXT_BYTES_MAX};
use crate::history::file::{FILE_BYTES_MAX, FILE_NAME_BYTES_MAX, FILES_MAX, MEDIA_TYPE_BYTES_MAX, THUMBNAIL_BYTES_MAX};
use crate::history::{Attachment, Body, Class, EntryId, RoomId};
use crate::identity::{NAME_BYTES_MAX, PersonId};
use crate::peer::author::Prekeys;
use crate::peer::record::StoredStanding;
use crate::peer::room::{OwnLog, Room};
use crate::peer::{
    Command, CommandError, Direction, Doorway, EntryRef, Event, HistoryPolicy, Invite, LogCertificate, LogKey, Op,
    Peer, Post, Reply, Role, RoomKind, RoomNo, Store, StoreError, Wire, after_prefix, record, table, timeline,
};
use crate::rooms::invite::{ADDRESSES_MAX, SOCKETS_MAX};
use crate::rooms::op::{CUTOFFS_MAX, ROOM_NAME_BYTES_MAX};
use crate::rooms::{Address, Cutoff};
use crate::sync::frame::{EpochGift, Receipt};
use rand_core::Rng;

/// The longest that an invite may hold, in seconds: a year.
const INVITE_S_MAX: u64 = 366 * 24 * 3600;
/// The most uses of an invite.
const INVITE_USES_MAX: u32 = 10_000;
/// The most rooms.
pub(super) const ROOMS_MAX: usize = 4096;

type Answer = Result<Result<Reply, CommandError>, StoreError>;

impl<S: Store> Peer<S> {
    pub(super) fn command(&mut self, command: Command) -> Answer {
        match command {
            Command::CreateRoom { name, history } => match check_length("the name", &name, ROOM_NAME_BYTES_MAX) {
                Err(error) => Ok(Err(error)),
                Ok(()) if self.rooms.len() >= ROOMS_MAX => Ok(Err(CommandError::Limit("4,096 rooms are the most"))),
                Ok(()) => Ok(Ok(Reply::Room(self.create_room(name, RoomKind::Group {}, history)?.1))),
            },
            Command::RenameRoom { room, name } => match check_length("the name", &name, ROOM_NAME_BYTES_MAX) {
                Err(error) => Ok(Err(error)),
                Ok(()) => self.control(room, Role::Admin, vec![Op::Rename { name }], false),
            },
            Command::LimitFiles { bytes_max, .. } if bytes_max > FILE_BYTES_MAX => {
                Ok(Err(CommandError::Limit("64 GiB are the most that a room can allow")))
            }
            Command::LimitFiles { room, bytes_max } => {
                self.control(room, Role::Admin, vec![Op::SetFileLimit { bytes: bytes_max }], false)
            }
            Command::SetRole { room, person, role } => self.set_role(room, person, role),
            Command::RemoveMember { room, person } => self.remove_member(room, person),
            Command::LeaveRoom { room } => self.leave(room),
            Command::Invite {
                room,
                expires_s,
                uses,
                role,
                only_me,
            } => {
                let Some(no) = self.by_id.get(&room).copied() else {
                    return Ok(Err(CommandError::NoRoom));
                };
                Ok(self.make_invite(no, expires_s, uses, role, only_me)?.map(Reply::Invite))
            }
            Command::Join { invite } => self.join(&invite),
            Command::CancelJoin { room } => self.cancel_join(room),
            Command::Propose { device, room } => self.make_proposal(device, room),
            Command::AnswerProposal { token, verdict } => self.answer_proposal(token, verdict),
            Command::TakeProposals { on } => self.take_proposals(on),
            Command::NamePerson { person, petname } => self.name_person(person, petname),
            Command::VerifyPerson { person, verified } => self.verify_person(person, verified),
            Command::BlockPerson { person, blocked } => self.block_person(person, blocked),
            Command::Chat { person } => self.chat(person),
            Command::Post { room, post, client_id } => self.post(room, post, client_id),
            Command::MarkRead { room, up_to } => self.mark_read(room, up_to),
            Command::SetName { name } => self.set_name(name),
            Command::AddAddress { device, address } => {
                self.note_addresses(device, vec![address], None)?;
                self.dial_soon(device);
                Ok(Ok(Reply::Done))
            }
            Command::AddKeeper { room, keeper } => self.add_keeper(room, &keeper),
            Command::RemoveKeeper { room, device } => self.remove_keeper(room, device),
            Command::Keep { limits } => self.keep_for_others(limits),
            Command::OpenRoom { room } => {
                self.opened_room = room.and_then(|id| self.by_id.get(&id).copied());
                if let Some(no) = self.opened_room {
                    self.note_opened(no);
                    self.ask_for_screen(no);
                }
                Ok(Ok(Reply::Done))
            }
        }
    }

    pub(super) fn add_room(&mut self, id: RoomId, standing: StoredStanding, name: String) -> RoomNo {
        let no = RoomNo(self.ctx.next_room);
        self.ctx.next_room += 1;
        self.rooms.insert(no, Room::new(no, id, standing, name));
        self.by_id.insert(id, no);
        no
    }

    pub(super) fn create_room(
        &mut self,
        name: String,
        kind: RoomKind,
        history: HistoryPolicy,
    ) -> Result<(RoomNo, RoomId), StoreError> {
        let key = KeyPair::random(&mut self.ctx.rng);
        let log = LogCertificate::issue(&self.secrets.device.0, &key);
        let own = OwnLog { log: log.log, key };
        let mut nonce = [0; 16];
        self.ctx.rng.fill_bytes(&mut nonce);
        let (person, identity) = (self.ctx.me, self.my_identity.bundle());
        let create = Op::Create {
            name: name.clone(),
            kind,
            history,
            person,
            identity,
            log,
            nonce,
        };
        let device = self.ctx.device;
        let prekeys: Prekeys = self
            .my_identity
            .prekey(&device)
            .map(|prekey| (device, prekey))
            .into_iter()
            .collect();
        let (entry, secret) = Room::genesis(&mut self.ctx, &own, vec![create], &prekeys);
        let id = RoomId(entry.header.hash(&own.log));
        let no = self.add_room(id, StoredStanding::Member {}, name);
        let gift = EpochGift::Whole {
            secret: secret.0.clone(),
        };
        self.store.put(&table::epoch(no, &secret.id()), &gift.to_bytes())?;
        if let Some(room) = self.rooms.get_mut(&no) {
            room.epochs.learn_secret(secret);
            room.add_log(&mut self.ctx, own.log);
            room.told_prekey = self.my_prekeys.last().map_or(0, |prekey| prekey.number);
            room.told_profile = self.my_profile;
            let log = own.log;
            room.own = Some(own);
            room.ingest(&mut self.store, &mut self.ctx, log, vec![entry])?;
        }
        self.settle(no)?;
        Ok((no, id))
    }

    /// The room and the own role, if that is enough.
    pub(super) fn allowed(&self, id: RoomId, need: Role) -> Result<RoomNo, CommandError> {
        let no = self.by_id.get(&id).copied().ok_or(CommandError::NoRoom)?;
        let room = self.rooms.get(&no).ok_or(CommandError::NoRoom)?;
        match room.standing {
            StoredStanding::Member {} => {}
            StoredStanding::Joining {} => return Err(CommandError::NoKeys),
            StoredStanding::Left {} | StoredStanding::Removed {} => return Err(CommandError::NoLongerMember),
        }
        let have = room.my_role(&self.ctx.me).ok_or(CommandError::NoKeys)?;
        if have < need {
            Err(CommandError::NotAllowed { have, need })
        } else {
            Ok(no)
        }
    }

    /// Writes a control entry with these operations.
    fn control(&mut self, id: RoomId, need: Role, ops: Vec<Op>, new_epoch: bool) -> Answer {
        match self.allowed(id, need) {
            Ok(no) => {
                self.write_control(no, ops, new_epoch)?;
                Ok(Ok(Reply::Done))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    pub(super) fn write_control(&mut self, no: RoomNo, ops: Vec<Op>, new_epoch: bool) -> Result<(), StoreError> {
        self.ensure_writable(no)?;
        let prekeys = self.prekeys(no);
        let Some(room) = self.rooms.get_mut(&no) else {
            return Ok(());
        };
        let (_, written, outcome) = room.write_control(&mut self.store, &mut self.ctx, &prekeys, ops, new_epoch)?;
        self.written(no, &written, outcome)
    }

    /// Sees to it that the own log can be written: a copied or restored home opens another first.
    pub(super) fn ensure_writable(&mut self, no: RoomNo) -> Result<(), StoreError> {
        let Some(room) = self.rooms.get_mut(&no) else {
            return Ok(());
        };
        let frozen = room
            .own
            .as_ref()
            .is_some_and(|own| room.roster.frozen.contains_key(&own.log));
        if !room.is_member() || !(room.own_stale || frozen) {
            return Ok(());
        }
        let person = self.ctx.me;
        let log = room.open_own_log(&mut self.ctx, &self.secrets.device.0);
        room.deliveries.clear();
        let prekeys = self.prekeys(no);
        let Some(room) = self.rooms.get_mut(&no) else {
            return Ok(());
        };
        let ops = vec![Op::OpenLog { person, log }];
        let (_, written, outcome) = room.write_control(&mut self.store, &mut self.ctx, &prekeys, ops, false)?;
        self.written(no, &written, outcome)
    }

    fn set_role(&mut self, id: RoomId, person: PersonId, role: Role) -> Answer {
        let no = match self.allowed(id, Role::Admin) {
            Ok(no) => no,
            Err(_) if person == self.ctx.me => match self.allowed(id, Role::Reader) {
                Ok(no) => no,
                Err(error) => return Ok(Err(error)),
            },
            Err(error) => return Ok(Err(error)),
        };
        let Some(room) = self.rooms.get(&no) else {
            return Ok(Err(CommandError::NoRoom));
        };
        let (Some(mine), Some(theirs)) = (room.roster.role(&self.ctx.me), room.roster.role(&person)) else {
            return Ok(Err(CommandError::NotMember));
        };
        let myself = person == self.ctx.me;
        let need = if role == Role::Owner || theirs == Role::Owner {
            Role::Owner
        } else {
            role.max(theirs)
        };
        if mine < need || (!myself && mine != Role::Owner && theirs >= mine) {
            return Ok(Err(CommandError::NotAllowed { have: mine, need }));
        }
        if theirs == Role::Owner && role < Role::Owner && owners(room) == 1 {
            return Ok(Err(CommandError::LastOwner));
        }
        let cutoffs = cutoffs(room, &person);
        let set = Op::SetRole { person, role, cutoffs };
        self.write_control(no, vec![set], false)?;
        Ok(Ok(Reply::Done))
    }

    fn remove_member(&mut self, id: RoomId, person: PersonId) -> Answer {
        if person == self.ctx.me {
            return self.leave(id);
        }
        let no = match self.allowed(id, Role::Moderator) {
            Ok(no) => no,
            Err(error) => return Ok(Err(error)),
        };
        let Some(room) = self.rooms.get(&no) else {
            return Ok(Err(CommandError::NoRoom));
        };
        let Some(theirs) = room.roster.role(&person) else {
            return Ok(Err(CommandError::NotMember));
        };
        let mine = room.roster.role(&self.ctx.me).unwrap_or(Role::Reader);
        if mine != Role::Owner && theirs >= mine {
            return Ok(Err(CommandError::NotAllowed {
                have: mine,
                need: Role::Owner,
            }));
        }
        let cutoffs = cutoffs(room, &person);
        self.write_control(no, vec![Op::Remove { person, cutoffs }], true)?;
        Ok(Ok(Reply::Done))
    }

    fn leave(&mut self, id: RoomId) -> Answer {
        let no = match self.allowed(id, Role::Reader) {
            Ok(no) => no,
            Err(CommandError::NoKeys) => return self.cancel_join(id),
            Err(error) => return Ok(Err(error)),
        };
        let Some(room) = self.rooms.get(&no) else {
            return Ok(Err(CommandError::NoRoom));
        };
        let last_owner = room.roster.role(&self.ctx.me) == Some(Role::Owner) && owners(room) == 1;
        if last_owner && room.roster.members.len() > 1 {
            return Ok(Err(CommandError::LastOwner));
        }
        let cutoffs = cutoffs(room, &self.ctx.me);
        self.write_control(no, vec![Op::Leave { cutoffs }], false)?;
        if let Some(room) = self.rooms.get_mut(&no) {
            room.standing = StoredStanding::Left {};
            room.farewell_due = room.roster.members.keys().any(|person| *person != self.ctx.me);
            room.dirty = true;
            self.ctx.event(Event::Room { room: id });
        }
        Ok(Ok(Reply::Done))
    }

    pub(super) fn make_invite(
        &mut self,
        no: RoomNo,
        expires_s: u64,
        uses: u32,
        role: Role,
        only_me: bool,
    ) -> Result<Result<Invite, CommandError>, StoreError> {
        let Some(id) = self.rooms.get(&no).map(|room| room.id) else {
            return Ok(Err(CommandError::NoRoom));
        };
        let need = if role <= Role::Member { Role::Member } else { role };
        if let Err(error) = self.allowed(id, need) {
            return Ok(Err(error));
        }
        if expires_s == 0 || expires_s > INVITE_S_MAX || uses == 0 || uses > INVITE_USES_MAX {
            return Ok(Err(CommandError::Limit(
                "an invite holds up to 366 days and 10,000 uses",
            )));
        }
        let mut secret = [0; 16];
        self.ctx.rng.fill_bytes(&mut secret);
        let expires_ms = self.ctx.wall_ms.saturating_add(expires_s * 1000);
        let doorways = self.doorways(no, only_me);
        let room_name = self
            .rooms
            .get(&no)
            .map(|room| room.provisional_name.clone())
            .unwrap_or_default();
        let invite = Invite {
            room: id,
            room_name,
            secret,
            role,
            expires_ms,
            doorways,
        };
        let only = only_me.then_some(self.ctx.device);
        let op = Op::OpenInvite {
            invite: invite.key().public(),
            role,
            uses,
            expires_ms,
            only,
        };
        self.write_control(no, vec![op], false)?;
        Ok(Ok(invite))
    }

    /// Where a newcomer may knock: here first, then at members with a line.
    fn doorways(&self, no: RoomNo, only_me: bool) -> Vec<Doorway> {
        let mine = self.my_addresses.as_ref();
        let mut doorways = vec![Doorway {
            device: self.ctx.device,
            addresses: mine
                .map(|m| m.addresses.iter().copied().take(SOCKETS_MAX).collect())
                .unwrap_or_default(),
            relay: mine.and_then(|m| m.relay.clone()),
        }];
        let Some(room) = self.rooms.get(&no).filter(|_| !only_me) else {
            return doorways;
        };
        let writes = |person: &PersonId| room.roster.role(person).is_some_and(|role| role >= Role::Member);
        let mut others: Vec<_> = room
            .devices
            .iter()
            .filter(|(device, person)| **device != self.ctx.device && writes(person))
            .filter_map(|(device, _)| self.book.get(device).map(|dial| (*device, &dial.record)))
            .filter(|(_, record)| !record.addresses.is_empty() || record.relay.is_some())
            .collect();
        others.sort_by_key(|(device, record)| {
            (
                std::cmp::Reverse(self.lines.contains_key(device)),
                std::cmp::Reverse(record.seen_ms),
                *device,
            )
        });
        for (device, record) in others.into_iter().take(ADDRESSES_MAX - 1) {
            let addresses: Vec<Address> = record.addresses.iter().copied().take(SOCKETS_MAX).collect();
            doorways.push(Doorway {
                device,
                addresses,
                relay: record.relay.clone(),
            });
        }
        doorways
    }

    fn set_name(&mut self, name: String) -> Answer {
        if let Err(error) = check_length("the name", &name, NAME_BYTES_MAX) {
            return Ok(Err(error));
        }
        self.my_name = name;
        self.my_profile += 1;
        self.state_identity();
        self.save_me()?;
        let records = self.my_identity.bundle().records;
        let me = self.ctx.me;
        for record in records {
            self.learn_identity(&me, &record)?;
        }
        Ok(Ok(Reply::Done))
    }

    fn post(&mut self, id: RoomId, post: Post, client_id: Option<[u8; 16]>) -> Answer {
        if let Some(client_id) = &client_id
            && let Some(bytes) = self.store.get(&timeline::client_key(client_id))?
        {
            return Ok(Ok(Reply::Entry(record::decode(&bytes, "client id")?)));
        }
        let no = match self.allowed(id, Role::Member) {
            Ok(no) => no,
            Err(error) => return Ok(Err(error)),
        };
        let body = match self.body(no, post)? {
            Ok(body) => body,
            Err(error) => return Ok(Err(error)),
        };
        let entry = self.write_message(no, body)?;
        if let Some(client_id) = &client_id {
            self.store
                .put(&timeline::client_key(client_id), &timeline::client_value(&entry))?;
        }
        Ok(Ok(Reply::Entry(entry)))
    }

    pub(super) fn write_message(&mut self, no: RoomNo, body: Body) -> Result<EntryId, StoreError> {
        self.ensure_writable(no)?;
        let prekeys = self.prekeys(no);
        let newest_prekey = self.my_prekeys.last().map_or(0, |prekey| prekey.number);
        let profile = self.my_profile;
        let records = self.my_identity.bundle().records;
        let room = self.rooms.get_mut(&no).expect("the caller looked the room up");
        let tell = room.told_prekey < newest_prekey || room.told_profile < profile;
        let riders = if tell {
            records.into_iter().filter(|r| !by_root(r)).collect()
        } else {
            Vec::new()
        };
        room.told_prekey = newest_prekey;
        room.told_profile = profile;
        let (id, written, outcome) = room.write_message(&mut self.store, &mut self.ctx, &prekeys, riders, body)?;
        self.written(no, &written, outcome)?;
        Ok(id)
    }

    /// Checks what is to be said, and turns it into what is written.
    fn body(&self, no: RoomNo, post: Post) -> Result<Result<Body, CommandError>, StoreError> {
        Ok(match post {
            Post::Text { text, reply_to, files } => {
                let bytes_max = self.rooms.get(&no).map_or(0, |room| room.roster.file_bytes_max);
                if let Err(error) = check_said(&text, &files, bytes_max) {
                    return Ok(Err(error));
                }
                let reply_to = match reply_to.map(|target| self.message(no, &target)).transpose()? {
                    Some(None) => return Ok(Err(CommandError::NoEntry)),
                    Some(Some((_, reference, _))) => Some(reference),
                    None => None,
                };
                Ok(Body::Text { text, reply_to, files })
            }
            Post::Edit { target, text } => {
                if let Err(error) = check_length("the text", &text, TEXT_BYTES_MAX) {
                    return Ok(Err(error));
                }
                self.target(no, target, false)?
                    .map(|target| Body::Edit { target, text })
            }
            Post::Delete { target } => self.target(no, target, true)?.map(|target| Body::Delete { target }),
            Post::React { target, emoji, on } => {
                if let Err(error) = check_length("the reaction", &emoji, EMOJI_BYTES_MAX) {
                    return Ok(Err(error));
                }
                self.message(no, &target)?
                    .map(|_| Body::React { target, emoji, on })
                    .ok_or(CommandError::NoEntry)
            }
        })
    }

    /// A message of a room: its log, how to refer to it, and whether its text is still there.
    fn message(&self, no: RoomNo, id: &EntryId) -> Result<Option<(LogKey, EntryRef, bool)>, StoreError> {
        let Some(room) = self.rooms.get(&no) else {
            return Ok(None);
        };
        let Some((log, key)) = room.find(id) else {
            return Ok(None);
        };
        let Some(stored) = room.stored(&self.store, key)? else {
            return Ok(None);
        };
        let is_message = stored.entry.header.class == Class::Message;
        Ok(is_message.then(|| (log, stored.entry.reference(&log), stored.entry.payload.is_some())))
    }

    /// A message that this person may edit, or delete.
    fn target(&self, no: RoomNo, id: EntryId, or_moderator: bool) -> Result<Result<EntryId, CommandError>, StoreError> {
        let Some((log, _, present)) = self.message(no, &id)? else {
            return Ok(Err(CommandError::NoEntry));
        };
        let Some(room) = self.rooms.get(&no) else {
            return Ok(Err(CommandError::NoRoom));
        };
        if !present {
            return Ok(Err(CommandError::Already("this message has been deleted")));
        }
        let mine = room.author(&log) == Some(self.ctx.me);
        let moderates = room.my_role(&self.ctx.me).is_some_and(|role| role >= Role::Moderator);
        Ok(match (mine, or_moderator) {
            (true, _) => Ok(id),
            (false, true) if moderates => Ok(id),
            (false, true) => Err(CommandError::NotYours(
                "only its author or a moderator can delete a message",
            )),
            (false, false) => Err(CommandError::NotYours("only its author can edit a message")),
        })
    }

    pub(super) fn load_read(&mut self, no: RoomNo) -> Result<(), StoreError> {
        let Some(own) = self.rooms.get(&no).and_then(|room| room.own.as_ref()) else {
            return Ok(());
        };
        let key = table::key(table::RECEIPTS, &[&no.0.to_be_bytes(), &own.log.0]);
        if let Some(bytes) = self.store.get(&key)? {
            let receipt: Receipt = record::decode(&bytes, "receipt")?;
            self.read_up_to.insert(no, receipt.read.into_iter().collect());
        }
        Ok(())
    }

    /// Every client id that stands for an entry: for tests.
    #[doc(hidden)]
    pub fn client_ids(&self) -> Result<usize, StoreError> {
        let from = [table::CLIENT_IDS];
        Ok(self
            .store
            .scan(&from, &after_prefix(&from), Direction::Ascending, usize::MAX)?
            .len())
    }
}

fn owners(room: &Room) -> usize {
    room.roster
        .members
        .values()
        .filter(|member| member.role == Role::Owner)
        .count()
}

/// The newest entry here of each of a person's logs.
fn cutoffs(room: &Room, person: &PersonId) -> Vec<Cutoff> {
    let theirs = room.roster.logs.iter().filter(|(_, owner)| owner.person == *person);
    let newest = |log: &LogKey| room.logs.get(log).map_or(0, |state| state.held.max());
    theirs
        .map(|(log, _)| Cutoff {
            log: *log,
            seq: newest(log),
        })
        .take(CUTOFFS_MAX)
        .collect()
}

fn by_root(record: &crate::identity::IdentityRecord) -> bool {
    use crate::identity::IdentityRecord::{Device, Prekey, Profile, Revoked};
    match record {
        Device { .. } | Revoked { .. } => true,
        Prekey { .. } | Profile { .. } => false,
    }
}

/// A message says something: text, or files, each described within its limits and the room's.
fn check_said(text: &str, files: &[Attachment], bytes_max: u64) -> Result<(), CommandError> {
    if files.is_empty() || !text.is_empty() {
        check_length("the text", text, TEXT_BYTES_MAX)?;
    }
    if files.len() > FILES_MAX {
        return Err(CommandError::Limit(
            "a message carries at most 4 files; send the others with another one",
        ));
    }
    for file in files {
        if file.bytes > bytes_max {
            return Err(CommandError::TooLargeForRoom { bytes_max });
        }
        check_length("the file's name", &file.name, FILE_NAME_BYTES_MAX)?;
        check_length("the file's media type", &file.media_type, MEDIA_TYPE_BYTES_MAX)?;
        let thumbnail = file.picture.as_ref().map_or(0, |picture| picture.thumbnail.len());
        if file.bytes > FILE_BYTES_MAX || thumbnail > THUMBNAIL_BYTES_MAX {
            return Err(CommandError::Limit(
                "the file or its thumbnail is larger than a message can tell of",
            ));
        }
    }
    Ok(())
}

fn check_length(what: &'static str, text: &str, bytes_max: usize) -> Result<(), CommandError> {
    let fits = !text.trim().is_empty() && text.len() <= bytes_max;
    if fits {
        Ok(())
    } else {
        Err(CommandError::Length { what, bytes_max })
    }
}
