//! What rooms and persons are called on IRC: names without what IRC gives a meaning, each once.
//!
//! Names that collide get the beginning of the id behind them, all of them but the own nick, so that a name never changes its owner silently.

use std::collections::BTreeMap;

use offhook_node::SqliteStore;

use crate::api::model::hex;
use crate::problem::{Kind, Problem};
use crate::proto::peer::Peer;
use crate::proto::peer::view::{MemberView, RoomView, Standing};
use crate::proto::rooms::Role;

/// The longest nick or channel, in bytes, without a suffix.
const NAME_BYTES_MAX: usize = 48;

/// A room as a channel or query.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) view: RoomView,
    /// `#name`, or the other's nick.
    pub(super) target: String,
    /// Nick prefix and nick by person, of a channel.
    pub(super) members: BTreeMap<String, (&'static str, String)>,
}

/// All names at one moment.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) me: String,
    pub(super) my_nick: String,
    pub(super) my_name: String,
    nicks: BTreeMap<String, String>,
    /// By the room's id.
    pub(super) places: BTreeMap<String, Place>,
}

impl Names {
    /// Reads them all.
    pub(super) fn read(peer: &Peer<SqliteStore>) -> Result<Self, Problem> {
        let storage = |error: crate::proto::store::StoreError| Problem::new(Kind::Storage, error.to_string());
        let me = peer.me();
        let my_nick = word(&me.name);
        let mut people: BTreeMap<String, String> = BTreeMap::new();
        for contact in peer.contacts().map_err(storage)? {
            let id = hex(&contact.person.0);
            let name = contact
                .petname
                .or(contact.own_name)
                .unwrap_or_else(|| id[..8].to_owned());
            people.insert(id, word(&name));
        }
        let my_id = hex(&me.person.0);
        people.remove(&my_id);
        let mut nicks = unique(people, std::slice::from_ref(&my_nick), '_');
        nicks.insert(my_id.clone(), my_nick.clone());
        let rooms = peer.rooms().map_err(storage)?;
        let shown = |room: &RoomView| matches!(room.standing, Standing::Member | Standing::Left | Standing::Removed);
        let rooms: Vec<RoomView> = rooms.into_iter().filter(shown).collect();
        let channels = rooms.iter().filter(|room| room.pair.is_none());
        let channels = channels.map(|room| (hex(&room.room.0), format!("#{}", word(&room.name))));
        let channels = unique(channels.collect(), &[], '-');
        let mut places = BTreeMap::new();
        for view in rooms {
            let id = hex(&view.room.0);
            let target = match view.pair {
                Some(person) => nicks
                    .get(&hex(&person.0))
                    .cloned()
                    .unwrap_or_else(|| hex(&person.0)[..8].to_owned()),
                None => channels.get(&id).cloned().unwrap_or_default(),
            };
            let members = peer.members(view.room).map_err(storage)?.unwrap_or_default();
            let member = |member: MemberView| {
                let person = hex(&member.person.0);
                let nick = nicks.get(&person).cloned().unwrap_or_else(|| word(&member.name));
                (person, (prefix(member.role), nick))
            };
            let members = members.into_iter().map(member).collect();
            places.insert(id, Place { view, target, members });
        }
        Ok(Self {
            me: my_id,
            my_nick,
            my_name: me.name,
            nicks,
            places,
        })
    }

    /// What a person is called.
    pub(super) fn nick(&self, person: &str) -> String {
        self.nicks
            .get(person)
            .cloned()
            .unwrap_or_else(|| person.get(..8).unwrap_or("nobody").to_owned())
    }

    /// Who is called so, whatever the case of the letters.
    pub(super) fn person(&self, nick: &str) -> Option<&str> {
        let found = self.nicks.iter().find(|(_, known)| known.eq_ignore_ascii_case(nick));
        found.map(|(person, _)| person.as_str())
    }

    /// The room that a target means, with its id.
    pub(super) fn place(&self, target: &str) -> Option<(&str, &Place)> {
        let found = self
            .places
            .iter()
            .find(|(_, place)| place.target.eq_ignore_ascii_case(target));
        found.map(|(id, place)| (id.as_str(), place))
    }

    /// Channels with this client in them.
    pub(super) fn channels(&self) -> impl Iterator<Item = (&String, &Place)> {
        self.places
            .iter()
            .filter(|(_, place)| place.view.pair.is_none() && place.view.standing == Standing::Member)
    }
}

/// The mark of a role before a nick.
fn prefix(role: Role) -> &'static str {
    match role {
        Role::Owner => "~",
        Role::Admin => "&",
        Role::Moderator => "@",
        Role::Member => "+",
        Role::Reader => "",
    }
}

/// A name as one word: letters, digits and what no IRC software gives a meaning. A nick does not begin with a digit or a dash.
fn word(name: &str) -> String {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '[' | ']' | '{' | '}' | '|' | '^' | '`');
    let mut word = String::new();
    for c in name.trim().chars().map(|c| if fits(c) { c } else { '_' }) {
        if word.len() + c.len_utf8() > NAME_BYTES_MAX {
            break;
        }
        word.push(c);
    }
    if word.is_empty() || word.starts_with(|c: char| c.is_numeric() || c == '-') {
        word.insert(0, '_');
    }
    word
}

/// Gives a suffix to names that are there twice or are taken.
fn unique(names: BTreeMap<String, String>, taken: &[String], sign: char) -> BTreeMap<String, String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for name in names.values().chain(taken) {
        *counts.entry(name.to_ascii_lowercase()).or_default() += 1;
    }
    let named = |(id, name): (String, String)| {
        let is_alone = counts.get(&name.to_ascii_lowercase()) == Some(&1);
        let name = match is_alone {
            true => name,
            false => format!("{name}{sign}{}", id.get(..6).unwrap_or(&id)),
        };
        (id, name)
    };
    names.into_iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words() {
        assert_eq!(word("Ada Lovelace"), "Ada_Lovelace");
        assert_eq!(word("a!b@c,d:e*f?g"), "a_b_c_d_e_f_g");
        assert_eq!(word("42"), "_42");
        assert_eq!(word(""), "_");
        assert_eq!(word("Zoë"), "Zoë");
        assert!(word(&"ü".repeat(99)).len() <= NAME_BYTES_MAX);
    }

    #[test]
    fn names_are_there_once() {
        let names = [
            ("aaaaaaaa", "bea"),
            ("bbbbbbbb", "Bea"),
            ("cccccccc", "cem"),
            ("dddddddd", "ada"),
        ];
        let names = names.map(|(id, name)| (id.to_owned(), name.to_owned()));
        let unique = unique(names.into(), &["Ada".to_owned()], '_');
        let shown: Vec<&str> = unique.values().map(String::as_str).collect();
        assert_eq!(shown, ["bea_aaaaaa", "Bea_bbbbbb", "cem", "ada_dddddd"]);
    }
}
