//! Every check on timelines made by hand: it finds what is wrong, and nothing where all is well.

use offhook_proto::identity::DeviceId;
use offhook_proto::peer::view::DeliveryState;

use super::*;
use crate::model::{Knowledge, RoomModel};
use offhook_proto::history::RoomId;

const PERSONS: u8 = 3;

fn person(n: u8) -> PersonId {
    PersonId([n; 32])
}

fn id(log: u8, seq: u32) -> EntryId {
    EntryId { log: [log; 8], seq }
}

fn line(log: u8, seq: u32) -> EntryView {
    EntryView {
        id: id(log, seq),
        room: RoomId([1; 32]),
        author: person(log),
        author_name: String::new(),
        device: DeviceId([log; 32]),
        seq,
        time_ms: 0,
        kind: EntryKind::Message,
        text: format!("text {log} {seq}"),
        state: DeliveryState::Saved,
        reply_to: None,
        files: Vec::new(),
        edited_ms: None,
        reactions: Vec::new(),
        late: false,
        clock_ahead: false,
        after_removal: false,
        by_reader: false,
        equivocation: false,
        mentions_me: false,
    }
}

/// Three members; 0 and 1 have each said two things, everybody shows them, and nobody is gone.
fn peace() -> (Vec<RoomSights>, Model) {
    let mut model = Model::default();
    model.persons = (0..PERSONS).map(person).collect();
    model.rooms.push(RoomModel::default());
    model.rooms[0].joined = (0..usize::from(PERSONS)).collect();
    let lines = vec![line(0, 1), line(1, 1), line(0, 2), line(1, 2)];
    for said in &lines {
        let post = Posted {
            room: 0,
            node: usize::from(said.author.0[0]),
            author: said.author,
            number: 0,
            text: said.text.clone(),
            knew: Knowledge::default(),
            holders: [0, 1, 2].into(),
            destroyed: false,
        };
        model.posts.insert(said.id, post);
    }
    let sight = |n: u8| {
        let mut sight = Sight {
            node: usize::from(n),
            person: person(n),
            standing: Standing::Member,
            members: (0..PERSONS).map(|m| (person(m), Role::Member)).collect(),
            lines: Vec::new(),
            settings: ("room".to_owned(), 0),
            places: BTreeMap::new(),
        };
        sight.show(lines.clone());
        sight
    };
    let sights = (0..PERSONS).map(sight).collect();
    (vec![RoomSights { room: 0, sights }], model)
}

fn change(sight: &mut Sight, change: impl FnOnce(&mut Vec<EntryView>)) {
    let mut lines = sight.lines.clone();
    change(&mut lines);
    sight.show(lines);
}

fn broken(rooms: &[RoomSights], model: &Model) -> BTreeSet<Invariant> {
    let found = check_all(rooms, model, History::All);
    found.into_iter().map(|violation| violation.invariant).collect()
}

#[test]
fn nothing_is_found_in_peace() {
    let (rooms, model) = peace();
    assert_eq!(check_all(&rooms, &model, History::All), []);
}

#[test]
fn a_missing_message_is_lost_unless_every_replica_is() {
    let (mut rooms, mut model) = peace();
    for sight in &mut rooms[0].sights {
        change(sight, |lines| drop(lines.remove(1)));
    }
    assert_eq!(broken(&rooms, &model), [Invariant::NothingLost].into());
    model.posts.get_mut(&id(1, 1)).unwrap().destroyed = true;
    assert!(broken(&rooms, &model).is_empty());
}

#[test]
fn what_cannot_be_read_or_was_changed_is_lost() {
    for bend in [
        |line: &mut EntryView| line.kind = EntryKind::Sealed,
        |line: &mut EntryView| line.kind = EntryKind::Deleted,
        |line: &mut EntryView| line.text = "something else".into(),
    ] {
        let (mut rooms, model) = peace();
        rooms[0]
            .sights
            .iter_mut()
            .for_each(|sight| change(sight, |lines| bend(&mut lines[1])));
        assert_eq!(broken(&rooms, &model), [Invariant::NothingLost].into());
    }
}

#[test]
fn the_same_text_under_two_ids_is_shown_twice() {
    let (mut rooms, model) = peace();
    let mut again = line(1, 3);
    again.text = line(1, 2).text;
    rooms[0]
        .sights
        .iter_mut()
        .for_each(|sight| change(sight, |lines| lines.push(again.clone())));
    assert_eq!(broken(&rooms, &model), [Invariant::NothingTwice].into());
}

#[test]
fn an_answer_above_its_question_is_found() {
    let (mut rooms, model) = peace();
    let answers = |lines: &mut Vec<EntryView>| lines[0].reply_to = Some(id(1, 2));
    rooms[0].sights.iter_mut().for_each(|sight| change(sight, answers));
    assert_eq!(broken(&rooms, &model), [Invariant::CausesFirst].into());
}

#[test]
fn what_the_author_had_seen_stands_above() {
    let (rooms, mut model) = peace();
    model.posts.get_mut(&id(0, 1)).unwrap().knew.causes = vec![id(1, 1)];
    assert_eq!(broken(&rooms, &model), [Invariant::CausesFirst].into());
}

#[test]
fn two_orders_are_found() {
    let (mut rooms, model) = peace();
    change(&mut rooms[0].sights[2], |lines| lines.swap(0, 1));
    assert_eq!(broken(&rooms, &model), [Invariant::EqualOrder].into());
}

#[test]
fn two_rosters_are_found() {
    let (mut rooms, model) = peace();
    rooms[0].sights[1].members.insert(person(0), Role::Reader);
    assert_eq!(broken(&rooms, &model), [Invariant::EqualMembership].into());
    let (mut rooms, model) = peace();
    rooms[0].sights[1].standing = Standing::Left;
    assert_eq!(broken(&rooms, &model), [Invariant::EqualMembership].into());
    let (mut rooms, model) = peace();
    rooms[0].sights[1].settings.1 = 1_000_000;
    assert_eq!(broken(&rooms, &model), [Invariant::EqualMembership].into());
}

#[test]
fn somebody_who_was_removed_and_does_not_know_is_no_difference() {
    let (mut rooms, mut model) = peace();
    model.rooms[0].perhaps_gone.insert(person(2));
    for sight in &mut rooms[0].sights[..2] {
        sight.members.remove(&person(2));
    }
    assert!(broken(&rooms, &model).is_empty());
    model.posts.get_mut(&id(0, 2)).unwrap().knew.gone.insert(person(2));
    assert_eq!(broken(&rooms, &model), [Invariant::RemovedReadNothing].into());
}
