//! From what a person types to what is meant: rooms and persons by id, name or the beginning of an id.
//!
//! The first rule that fits anything decides: the whole id; the name, letter for letter; the name in any case; the beginning of an id. If it
//! fits several the answer lists them: nothing is ever guessed.

use crate::proto::history::{EntryId, RoomId};
use crate::proto::identity::PersonId;
use crate::proto::peer::view::RoomView;
use crate::proto::peer::{Peer, ProposalView};
use crate::proto::rooms::proposal::Token;
use crate::proto::store::Store;

use super::model::{Neighbour, hex};
use super::storage_problem;
use crate::problem::{Candidate, Kind, Problem};

/// The shortest beginning of an id that is taken for one.
const PREFIX_DIGITS_MIN: usize = 4;

/// One thing that can be named.
struct Named<T> {
    id: String,
    names: Vec<String>,
    thing: T,
}

/// The room that `wanted` means.
pub(crate) fn room<S: Store>(peer: &Peer<S>, wanted: &str) -> Result<RoomView, Problem> {
    if let Some(view) = whole_id(wanted)
        .map(|id| peer.room(id))
        .transpose()
        .map_err(storage_problem)?
        .flatten()
    {
        return Ok(view);
    }
    let rooms = peer.rooms().map_err(storage_problem)?;
    let named = rooms.into_iter().map(|room| Named {
        id: hex(&room.room.0),
        names: vec![room.name.clone()],
        thing: room,
    });
    let none = || {
        let detail = format!("there is no room `{wanted}` here; `offhook room list` shows those there are");
        Problem::new(Kind::NoRoom, detail)
    };
    choose(named.collect(), wanted, "rooms").unwrap_or_else(|| Err(none()))
}

/// A room's id written out, which is what programs send: no list has to be made for it.
fn whole_id(text: &str) -> Option<RoomId> {
    let digits = text.as_bytes();
    let mut id = RoomId(Default::default());
    if digits.len() != 2 * id.0.len() {
        return None;
    }
    for (byte, pair) in id.0.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(*pair.get(at)?).to_digit(16);
        *byte = u8::try_from(digit(0)? * 16 + digit(1)?).ok()?;
    }
    Some(id)
}

/// The id of the room that `wanted` means.
pub(crate) fn room_id<S: Store>(peer: &Peer<S>, wanted: &str) -> Result<RoomId, Problem> {
    Ok(room(peer, wanted)?.room)
}

/// The person that `wanted` means: anybody known from any room, or the own person.
pub(crate) fn person<S: Store>(peer: &Peer<S>, wanted: &str) -> Result<PersonId, Problem> {
    let me = peer.me();
    let contacts = peer.contacts().map_err(storage_problem)?;
    let mut named: Vec<Named<PersonId>> = contacts
        .into_iter()
        .map(|contact| Named {
            id: hex(&contact.person.0),
            names: contact.petname.into_iter().chain(contact.own_name).collect(),
            thing: contact.person,
        })
        .collect();
    if !named.iter().any(|known| known.thing == me.person) {
        named.push(Named {
            id: hex(&me.person.0),
            names: vec![me.name],
            thing: me.person,
        });
    }
    let none = || {
        let detail =
            format!("there is nobody here by the name or key `{wanted}`; `offhook contact list` shows whom you know");
        Problem::new(Kind::NoPerson, detail)
    };
    choose(named, wanted, "persons").unwrap_or_else(|| Err(none()))
}

/// Who of those nearby `wanted` means: by device, or by the name that they are known by or claim.
pub(crate) fn neighbour<'a>(near: &'a [Neighbour], wanted: &str) -> Result<&'a Neighbour, Problem> {
    let named = near.iter().map(|node| Named {
        id: node.device.clone(),
        names: node.name.iter().chain(&node.claims).cloned().collect(),
        thing: node,
    });
    let none = || {
        let mut detail = format!("nobody near here is `{wanted}`; `offhook near` lists who announces themselves");
        let hidden = near.iter().filter(|node| node.name.is_none() && node.claims.is_none());
        match hidden.count() {
            0 => {}
            1 => detail += ", and one of them does not show a name: `offhook near show` on that device does",
            several => {
                detail += &format!(
                    ", and {several} of them do not show a name: `offhook near show` on the device that you mean does"
                );
            }
        }
        Problem::new(Kind::NotNear, detail)
    };
    choose(named.collect(), wanted, "devices").unwrap_or_else(|| Err(none()))
}

/// The invitation that `wanted` means: by its id, or by who made it.
pub(crate) fn proposal(asked: &[ProposalView], wanted: &str) -> Result<Token, Problem> {
    let named = asked.iter().map(|asked| Named {
        id: hex(&asked.token),
        names: asked.name.iter().chain(&asked.claimed).cloned().collect(),
        thing: asked.token,
    });
    let none = || {
        let detail = format!("there is no invitation `{wanted}` (any more); `offhook near` lists those there are");
        Problem::new(Kind::NoRequest, detail)
    };
    choose(named.collect(), wanted, "invitations").unwrap_or_else(|| Err(none()))
}

/// The entry id that a text states.
pub(crate) fn entry(text: &str) -> Result<EntryId, Problem> {
    text.parse().map_err(|_| {
        let detail = format!("`{text}` is not the id of an entry; they look like k3j5xq2m7pabc.17");
        Problem::new(Kind::NoEntry, detail)
    })
}

/// What makes a name fit, in the order in which it is tried.
#[derive(Clone, Copy)]
enum Rule {
    WholeId,
    Name,
    NameInAnyCase,
    BeginningOfId,
}

impl Rule {
    const ALL: [Self; 4] = [Self::WholeId, Self::Name, Self::NameInAnyCase, Self::BeginningOfId];

    fn fits<T>(self, named: &Named<T>, wanted: &str) -> bool {
        let lower = wanted.to_lowercase();
        match self {
            Self::WholeId => named.id == lower,
            Self::Name => named.names.iter().any(|name| name == wanted),
            Self::NameInAnyCase => named.names.iter().any(|name| name.to_lowercase() == lower),
            Self::BeginningOfId => wanted.len() >= PREFIX_DIGITS_MIN && named.id.starts_with(&lower),
        }
    }
}

fn choose<T>(mut fitting: Vec<Named<T>>, wanted: &str, what: &str) -> Option<Result<T, Problem>> {
    let fits_any = |rule: &Rule| fitting.iter().any(|named| rule.fits(named, wanted));
    let rule = Rule::ALL.into_iter().find(fits_any)?;
    fitting.retain(|named| rule.fits(named, wanted));
    if fitting.len() == 1 {
        return fitting.pop().map(|named| Ok(named.thing));
    }
    let candidate = |named: Named<T>| Candidate {
        id: named.id,
        name: named.names.into_iter().next().unwrap_or_default(),
    };
    let candidates = fitting.into_iter().map(candidate).collect();
    Some(Err(Problem::ambiguous(what, wanted, candidates)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(wanted: &str) -> Option<Result<u8, Problem>> {
        let named = |id: &str, names: &[&str], thing| Named {
            id: id.into(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            thing,
        };
        let all = vec![
            named("aaaa1111", &["Kitchen"], 1),
            named("aaaa2222", &["kitchen"], 2),
            named("bbbb3333", &["Ada", "Ada L."], 3),
            named("cccc4444", &["Ada"], 4),
            named("dddd5555", &["bbbb3333"], 5),
        ];
        choose(all, wanted, "things")
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        assert_eq!(chosen("Kitchen"), Some(Ok(1)));
        assert_eq!(chosen("Ada L."), Some(Ok(3)));
        assert_eq!(chosen("AAAA1"), Some(Ok(1)));
        assert_eq!(chosen("bbbb3333"), Some(Ok(3)), "a whole id goes before a name");
        assert_eq!(chosen("nobody"), None);
        assert_eq!(chosen("ccc"), None, "too short for the beginning of an id");
    }

    #[test]
    fn what_fits_several_lists_them() {
        for (wanted, ids) in [
            ("KITCHEN", ["aaaa1111", "aaaa2222"]),
            ("Ada", ["bbbb3333", "cccc4444"]),
            ("aaaa", ["aaaa1111", "aaaa2222"]),
        ] {
            let problem = chosen(wanted).expect("something fits").expect_err("ambiguous");
            assert_eq!(problem.kind, Kind::Ambiguous);
            let listed: Vec<&str> = problem.candidates.iter().map(|c| c.id.as_str()).collect();
            assert_eq!(listed, ids);
        }
    }
}
