//! A check that cannot fail is a defect: every invariant finds the fault that is planted for it, and finds nothing in the same run without it.

use std::collections::BTreeSet;

use offhook_sim::{Invariant, Options, Plant, Scenario, run};

fn scenario(plant: Plant) -> Scenario {
    let name = match plant {
        Plant::LoseAcknowledged
        | Plant::ForgetClientId
        | Plant::Hoard
        | Plant::StayCutOff
        | Plant::SpoilStore
        | Plant::MissLast => "story",
        Plant::AnswerFirst | Plant::StaleRole | Plant::SwapTwo | Plant::ShowToRemoved | Plant::HandOverDevice => {
            "partition-removal"
        }
        Plant::UnmarkReader => "hostile-reader",
    };
    Scenario::named(name).expect("the scenario exists")
}

fn finds(plant: Plant) {
    let scenario = scenario(plant);
    let clean = run(&scenario, 1, Options::default());
    assert!(clean.passed(), "{clean}");
    let options = Options {
        plant: Some(plant),
        ..Options::default()
    };
    let planted = run(&scenario, 1, options);
    assert!(planted.broke(plant.breaks()), "{plant:?} was not found:\n{planted}");
}

#[test]
fn a_lost_message_is_found() {
    finds(Plant::LoseAcknowledged);
}

#[test]
fn a_message_shown_twice_is_found() {
    finds(Plant::ForgetClientId);
}

#[test]
fn an_effect_before_its_cause_is_found() {
    finds(Plant::AnswerFirst);
}

#[test]
fn differing_membership_is_found() {
    finds(Plant::StaleRole);
}

#[test]
fn differing_order_is_found() {
    finds(Plant::SwapTwo);
}

#[test]
fn a_read_by_the_removed_is_found() {
    finds(Plant::ShowToRemoved);
}

#[test]
fn a_device_in_the_hands_of_the_removed_is_found() {
    finds(Plant::HandOverDevice);
}

#[test]
fn a_reader_shown_like_others_is_found() {
    finds(Plant::UnmarkReader);
}

#[test]
fn a_store_without_bounds_is_found() {
    finds(Plant::Hoard);
}

#[test]
fn a_node_that_does_not_come_back_is_found() {
    finds(Plant::StayCutOff);
}

#[test]
fn a_damaged_store_is_found() {
    finds(Plant::SpoilStore);
}

#[test]
fn what_the_script_expects_in_vain_is_found() {
    finds(Plant::MissLast);
}

#[test]
fn every_invariant_has_its_planted_fault() {
    let broken: BTreeSet<Invariant> = Plant::ALL.iter().map(|plant| plant.breaks()).collect();
    assert_eq!(broken, Invariant::ALL.into());
}
