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

fn counts(counts: &[(&str, u32)]) -> BTreeMap<String, u32> {
    let counts = counts.iter().map(|(name, n)| ((*name).to_owned(), *n));
    counts.collect()
}

#[test]
fn a_set_with_too_few_or_too_many_elements_is_wrong_whichever_twin_is_in_use() {
    let (plain, twin) = ("weft-npc-known-4", "weft-npc-known-4.b");
    for (in_use, seen, differs) in [
        (plain, &[(plain, 2)][..], false),
        (twin, &[(plain, 0), (twin, 2)], false),
        (plain, &[("weft-npc-other-4", 7), (plain, 2)], false),
        (plain, &[(plain, 1)], true),
        (plain, &[(plain, 3), (twin, 1)], true),
        // The half that no rule looks up, held by the kernel for a moment, proves nothing.
        (twin, &[(plain, 2), (twin, 0)], true),
        (twin, &[(plain, 2)], true),
    ] {
        let sizes = [(in_use.to_owned(), 2)].into();
        let found = Counts::default().differs(&counts(seen), &sizes);
        assert_eq!(found, differs, "{in_use} of {seen:?}");
    }
}

#[test]
fn numbers_that_a_look_found_to_be_right_are_so_until_something_changes() {
    let name = "weft-npc-known-4";
    let seen = counts(&[(name, 0)]);
    let sizes = BTreeMap::from([(name.to_owned(), 2)]);
    let mut lookout = Lookout::blind();
    let after_a_look = |lookout: &mut Lookout, repaired| {
        let before = Before {
            rules: None,
            sets: seen.clone(),
        };
        lookout.looked(Instant::now(), before, repaired);
        lookout.counts.differs(&seen, &sizes)
    };
    assert!(!after_a_look(&mut lookout, false));
    assert!(after_a_look(&mut lookout, true));
    assert!(!after_a_look(&mut lookout, false));
    // Our own change, of elements alone.
    lookout.wrote(&Done {
        steps: 1,
        ..Done::default()
    });
    assert!(lookout.counts.differs(&seen, &sizes));
}
