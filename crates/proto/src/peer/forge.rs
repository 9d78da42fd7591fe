//! What a changed program could write with its own keys: well-formed, properly signed, and against the rules. For the simulator and for tests, which must show
//! that others come to no harm; nothing else calls it.

use crate::crypto::Secret;
use crate::history::{Body, Clock, EntryId, RoomId};
use crate::identity::{DeviceId, PersonId};
use crate::peer::author::Written;
use crate::peer::room::Ingested;
use crate::peer::{Outputs, Peer};
use crate::rooms::{Control, ControlPayload, Op, Role};
use crate::store::{RoomNo, Store, StoreError};
use crate::sync::Frame;
use crate::sync::frame::{Ends, Run, Runs};
use crate::wire::Wire;

/// One deed against the rules.
#[derive(Debug, Clone)]
pub enum Forgery {
    /// Says something whatever the own role is, with the clock off by so much.
    Say {
        /// What.
        text: String,
        /// Milliseconds ahead of the own clock, or behind.
        clock_off_ms: i64,
    },
    /// Deletes, edits and reacts to somebody else's message.
    Meddle {
        /// The message.
        target: EntryId,
    },
    /// Makes an epoch, seals garbage to everybody else, and speaks under it.
    SealToNobody {
        /// What.
        text: String,
    },
    /// States a prekey that nothing can be sealed to.
    UselessPrekey,
    /// Takes the highest role, and removes somebody, whatever the own role is.
    Seize {
        /// Whom.
        victim: PersonId,
    },
    /// Writes two control entries with one number, and shows one to a single peer and the other to everybody else.
    SplitControl,
}

impl<S: Store> Peer<S> {
    /// Does it, in a room that this peer may write in as far as keys go. The entries that were written.
    pub fn forge(&mut self, room: RoomId, forgery: Forgery) -> Result<(Outputs, Vec<EntryId>), StoreError> {
        let no = self.by_id.get(&room).copied();
        let no = no.filter(|no| {
            let room = &self.rooms[no];
            room.is_member() && room.own.is_some() && room.roster.members.contains_key(&self.ctx.me)
        });
        let Some(no) = no else {
            return Ok((Outputs::default(), Vec::new()));
        };
        self.ensure_writable(no)?;
        let (written, outcome) = self.write_forgery(no, forgery)?;
        let ids = written.entries.iter().map(|(log, entry)| entry.reference(log).id());
        let ids = ids.collect();
        self.written(no, &written, outcome)?;
        self.save()?;
        Ok((Outputs(std::mem::take(&mut self.ctx.out)), ids))
    }

    fn write_forgery(&mut self, no: RoomNo, forgery: Forgery) -> Result<(Written, Ingested), StoreError> {
        let prekeys = self.prekeys(no);
        let me = self.ctx.me;
        let nonsense = |(device, _): (&DeviceId, &[u8; 32])| {
            (
                *device,
                crate::crypto::SealKeyPair::from_seed(Secret(device.0)).public(),
            )
        };
        match forgery {
            Forgery::Say { text, clock_off_ms } => self.say_at(no, text, clock_off_ms),
            Forgery::Meddle { target } => {
                let mut all = (Written::default(), Ingested::default());
                let text = "what you said, as I would have it".to_owned();
                let emoji = "!".to_owned();
                for body in [
                    Body::Edit { target, text },
                    Body::React {
                        target,
                        emoji,
                        on: true,
                    },
                    Body::Delete { target },
                ] {
                    self.say_forged(no, body, &mut all)?;
                }
                Ok(all)
            }
            Forgery::SealToNobody { text } => {
                let garbled = prekeys.iter().map(nonsense).collect();
                let room = self.rooms.get_mut(&no).expect("looked up by the caller");
                let (_, written, outcome) =
                    room.write_control(&mut self.store, &mut self.ctx, &garbled, vec![Op::Seal {}], true)?;
                let mut all = (written, outcome);
                self.say_forged(no, text_body(text), &mut all)?;
                Ok(all)
            }
            Forgery::UselessPrekey => {
                let record = self.secrets.device.state_public(u64::MAX / 2, [0; 32]);
                let body = text_body("my new prekey".to_owned());
                let room = self.rooms.get_mut(&no).expect("looked up by the caller");
                let (_, written, outcome) =
                    room.write_message(&mut self.store, &mut self.ctx, &prekeys, vec![record], body)?;
                Ok((written, outcome))
            }
            Forgery::Seize { victim } => {
                let role = Role::Owner;
                let cutoffs = Vec::new();
                let ops = vec![
                    Op::SetRole {
                        person: me,
                        role,
                        cutoffs: cutoffs.clone(),
                    },
                    Op::Remove {
                        person: victim,
                        cutoffs,
                    },
                ];
                let room = self.rooms.get_mut(&no).expect("looked up by the caller");
                let (_, written, outcome) = room.write_control(&mut self.store, &mut self.ctx, &prekeys, ops, false)?;
                Ok((written, outcome))
            }
            Forgery::SplitControl => self.split_control(no),
        }
    }

    fn say_forged(&mut self, no: RoomNo, body: Body, all: &mut (Written, Ingested)) -> Result<(), StoreError> {
        let prekeys = self.prekeys(no);
        let room = self.rooms.get_mut(&no).expect("looked up by the caller");
        let (_, written, outcome) = room.write_message(&mut self.store, &mut self.ctx, &prekeys, Vec::new(), body)?;
        all.0.entries.extend(written.entries);
        all.1.absorb(outcome);
        Ok(())
    }

    fn say_at(&mut self, no: RoomNo, text: String, clock_off_ms: i64) -> Result<(Written, Ingested), StoreError> {
        let wall_ms = self.ctx.wall_ms;
        let room = self.rooms.get_mut(&no).expect("looked up by the caller");
        let last_clock = room.last_clock;
        if clock_off_ms < 0 {
            // As if nothing had been seen or said: an honest clock never goes back.
            room.last_clock = Clock::default();
            let own = room.own.as_ref().map(|own| own.log);
            if let Some(state) = own.and_then(|own| room.logs.get_mut(&own)) {
                state.top_clock = Clock::default();
            }
        }
        self.ctx.wall_ms = wall_ms.saturating_add_signed(clock_off_ms);
        let mut all = (Written::default(), Ingested::default());
        self.say_forged(no, text_body(text), &mut all)?;
        self.ctx.wall_ms = wall_ms;
        let room = self.rooms.get_mut(&no).expect("looked up by the caller");
        room.last_clock = last_clock;
        Ok(all)
    }

    /// The one for a single peer goes out at once, the other is held here and goes to everybody.
    fn split_control(&mut self, no: RoomNo) -> Result<(Written, Ingested), StoreError> {
        let prekeys = self.prekeys(no);
        let room = self.rooms.get_mut(&no).expect("looked up by the caller");
        let (_, written, outcome) =
            room.write_control(&mut self.store, &mut self.ctx, &prekeys, vec![Op::Seal {}], false)?;
        let single = self.lines.iter().find(|(_, line)| line.rooms.contains_key(&no));
        let single = single.map(|(device, _)| *device);
        let (Some(peer), Some((log, entry))) = (single, written.entries.last()) else {
            return Ok((written, outcome));
        };
        let room = &self.rooms[&no];
        let (Some(keys), Some(own)) = (room.epochs.keys(&entry.header.epoch), &room.own) else {
            return Ok((written, outcome));
        };
        let control = Control {
            heads: room.graph.heads_for(log),
            ops: vec![Op::Identity {
                identity: self.my_identity.bundle(),
            }],
        };
        let other = ControlPayload::seal(&entry.header, log, keys, Vec::new(), &control);
        let Ok(other) = other else {
            return Ok((written, outcome));
        };
        let forged = super::author::sign(&own.key, log, entry.header.clone(), other.to_bytes());
        let log = *log;
        let Some(shared) = self.shared(peer, no) else {
            return Ok((written, outcome));
        };
        let runs = Runs(vec![Run {
            log: shared.log_name(&log),
            entries: vec![forged],
        }]);
        let (name, ends) = (shared.name, Ends(None));
        self.send(peer, &Frame::Entries { name, ends, runs });
        Ok((written, outcome))
    }
}

fn text_body(text: String) -> Body {
    Body::Text {
        text,
        reply_to: None,
        files: Vec::new(),
    }
}
