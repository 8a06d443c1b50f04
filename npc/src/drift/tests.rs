use weft_netfilter::{Element, Family, Set, SetKind, SetName, Table};

use super::*;

const MS: Duration = Duration::from_millis(1);

/// Looks at `at` that take 1 ms and find something to repair each time somebody undoes it at once.
fn fight(schedule: &mut Schedule, from: Instant, time: Duration) -> Vec<(Duration, News)> {
    let mut told = Vec::new();
    let mut now = from;
    while now < from + time {
        schedule.alarm(now);
        now = schedule.look_at();
        schedule.looking(now);
        told.push((now - from, schedule.repaired(now)));
        schedule.looked(now, MS, true);
    }
    told
}

#[test]
fn a_foreign_change_is_looked_at_soon_and_changes_that_come_together_once() {
    let start = Instant::now();
    let mut schedule = Schedule::new(start);
    let later = start + 5 * VERIFY / 10;
    schedule.alarm(later);
    schedule.alarm(later + 30 * MS);
    assert_eq!(schedule.look_at(), later + CALM);
    schedule.looking(later + 50 * MS);
    schedule.looked(later + 60 * MS, 10 * MS, true);
    assert_eq!(schedule.look_at(), later + 60 * MS + VERIFY);
}

#[test]
fn a_fight_makes_pauses_grow_to_less_than_a_second_and_reports_rare() {
    let start = Instant::now();
    let mut schedule = Schedule::new(start);
    let told = fight(&mut schedule, start, Duration::from_secs(100));
    let pauses: Vec<_> = told.windows(2).map(|two| two[1].0 - two[0].0).collect();
    assert_eq!(
        pauses[..5],
        [200, 400, 600, 600, 600].map(|ms: u32| ms * MS)
    );
    assert!(pauses[2..].iter().all(|pause| *pause == LONGEST_PAUSE));
    assert!(schedule.is_fight(start + Duration::from_secs(100)));
    let news: Vec<_> = told.iter().filter(|(_, news)| *news != News::Old).collect();
    let [a, b, c, d, first, second, third] = news[..] else {
        panic!("{news:?}");
    };
    for calm in [a, b, c, d] {
        assert_eq!(calm.1, News::Repaired);
    }
    assert_eq!(first.1, News::Fight(FIGHT));
    let between = [second.0 - first.0, third.0 - second.0];
    assert!(
        between[0] >= REPORT[0] && between[1] >= 2 * REPORT[0],
        "{between:?}"
    );
}

#[test]
fn after_a_quiet_minute_a_fight_is_over() {
    let start = Instant::now();
    let mut schedule = Schedule::new(start);
    fight(&mut schedule, start, Duration::from_secs(10));
    let later = start + Duration::from_secs(11) + FIGHT_TIME;
    assert!(!schedule.is_fight(later));
    assert_eq!(schedule.repaired(later), News::Repaired);
}

#[test]
fn without_events_the_probe_is_made_sure_again_but_not_at_any_price() {
    let start = Instant::now();
    let mut schedule = Schedule::new(start);
    schedule.looked(start, 10 * MS, true);
    schedule.wrote(false);
    assert_eq!(schedule.look_at(), start + PROBE[0]);
    schedule.looked(start, 300 * MS, false);
    assert_eq!(schedule.look_at(), start + 3000 * MS);
}

#[test]
fn after_a_repair_the_probe_is_made_sure_soon_whatever_a_look_costs() {
    let start = Instant::now();
    let mut schedule = Schedule::new(start);
    schedule.repaired(start);
    schedule.looked(start, 2000 * MS, false);
    assert_eq!(schedule.look_at(), start + LONGEST_PAUSE);
}

#[test]
fn rules_that_change_after_we_wrote_them_are_noticed_before_a_look_made_sure() {
    let mut print = Print::default();
    assert_eq!(
        [7, 7, 8].map(|seen| print.differs(seen)),
        [false, false, true]
    );
    let mut print = Print::found(Some(7));
    assert_eq!(
        [7, 8, 7].map(|seen| print.differs(seen)),
        [false, true, false]
    );
}

#[test]
fn probes_take_a_small_part_of_the_time_and_still_come_within_a_second() {
    let start = Instant::now();
    let mut schedule = Schedule::new(start);
    for (took, pause) in [(2, 500), (14, 700), (60, 800)] {
        schedule.probed(start, took * MS);
        assert_eq!(schedule.probe_at(), start + pause * MS);
    }
}

#[test]
fn a_set_with_too_few_or_too_many_elements_is_wrong_whichever_twin_is_in_use() {
    let name = SetName::new("weft-npc-known-4").expect("name");
    let elements = [1, 2].map(|n| Element::Addr(std::net::Ipv4Addr::new(10, 32, 0, n).into()));
    let set = Set::new(SetKind::Addr).containing(elements);
    let mut table = Table::default();
    table.sets.insert(name, set);
    let applied = Ruleset {
        tables: [(Family::V4, table)].into(),
    };
    let counts = |counts: &[(&str, u32)]| {
        let counts = counts.iter().map(|(name, n)| ((*name).to_owned(), *n));
        right(&counts.collect(), &applied)
    };
    assert!(counts(&[("weft-npc-known-4", 2)]));
    assert!(counts(&[
        ("weft-npc-known-4", 0),
        ("weft-npc-known-4.b", 2)
    ]));
    assert!(counts(&[("weft-npc-other-4", 7), ("weft-npc-known-4", 2)]));
    assert!(!counts(&[("weft-npc-known-4", 1)]));
    assert!(!counts(&[
        ("weft-npc-known-4", 3),
        ("weft-npc-known-4.b", 1)
    ]));
}
