use std::collections::BTreeSet;

use super::{Evidence, MIN_AGE, Suspects, Verdict, judge, not_listed};
use crate::{
    node::{Attachment, Reservation},
    sighting::Patience,
};

const PATIENCE: Patience = Patience { gap: 30, grace: 30 };
const GONE: Evidence = Evidence {
    host_link: Some(false),
};
const THERE: Evidence = Evidence {
    host_link: Some(true),
};

fn reservation(seq: u64, container: &str) -> Reservation {
    Reservation {
        seq,
        id: Attachment {
            container_id: container.into(),
            ifname: "eth0".into(),
        },
        at: 1000,
        ..Reservation::default()
    }
}

#[test]
fn unknown_means_in_use() {
    let now = 1000 + MIN_AGE;
    assert_eq!(judge(&reservation(1, "a"), GONE, now), Verdict::Leaked);
    assert_eq!(judge(&reservation(1, "a"), THERE, now), Verdict::InUse);
    assert_eq!(
        judge(&reservation(1, "a"), Evidence::default(), now),
        Verdict::Unknown
    );
    assert_eq!(judge(&reservation(1, ""), GONE, now), Verdict::Unknown);
    assert_eq!(judge(&reservation(1, "a"), GONE, now - 1), Verdict::Young);
    // A clock behind the reservation.
    assert_eq!(judge(&reservation(1, "a"), GONE, 10), Verdict::Young);
}

#[test]
fn two_sightings_are_needed_and_one_in_use_between_starts_over() {
    let leaked = reservation(7, "a");
    let mut suspects = Suspects::default();
    let mut sweep = |evidence, now| suspects.sweep([(&leaked, evidence)], now, PATIENCE);
    assert_eq!(sweep(GONE, 2000), Vec::<u64>::new());
    assert_eq!(sweep(GONE, 2010), Vec::<u64>::new());
    assert_eq!(sweep(THERE, 2020), Vec::<u64>::new());
    assert_eq!(sweep(GONE, 2030), Vec::<u64>::new());
    assert_eq!(sweep(GONE, 2060), vec![7]);
}

#[test]
fn suspects_that_are_gone_are_forgotten() {
    let mut suspects = Suspects::default();
    suspects.sweep([(&reservation(7, "a"), GONE)], 2000, PATIENCE);
    assert_eq!(suspects.len(), 1);
    suspects.sweep([], 2030, PATIENCE);
    assert!(suspects.is_empty());
}

#[test]
fn what_the_runtime_does_not_list_goes_but_not_what_has_no_name() {
    let held = [reservation(1, "a"), reservation(2, "b"), reservation(3, "")];
    let valid: BTreeSet<Attachment> = [held[1].id.clone()].into();
    assert_eq!(not_listed(&held, &valid), [1]);
}
