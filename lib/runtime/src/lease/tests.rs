use super::*;

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn held_by(holder: &str) -> Option<Record> {
    Some(Record {
        holder: holder.into(),
        duration: secs(15),
        version: "7".into(),
    })
}

#[test]
fn decision_table() {
    use Decision::{Acquire, Lost, Renew, Wait};
    // (record, first seen at, last renewed by us, now) -> decision
    let table = [
        ("no lease", None, 0, None, 0, Acquire),
        ("given back", held_by(""), 0, None, 0, Acquire),
        (
            "ours from before a restart",
            held_by("me"),
            0,
            None,
            0,
            Acquire,
        ),
        ("another's, fresh", held_by("other"), 100, None, 101, Wait),
        (
            "another's, at the edge",
            held_by("other"),
            100,
            None,
            115,
            Wait,
        ),
        (
            "another's, expired",
            held_by("other"),
            100,
            None,
            116,
            Acquire,
        ),
        ("ours", held_by("me"), 100, Some(100), 102, Renew),
        (
            "ours, just in time",
            held_by("me"),
            100,
            Some(100),
            109,
            Renew,
        ),
        ("ours, too late", held_by("me"), 100, Some(100), 110, Lost),
        ("taken from us", held_by("other"), 101, Some(100), 102, Lost),
        ("deleted under us", None, 101, Some(100), 102, Lost),
    ];
    for (name, record, seen, renewed, now, expected) in table {
        let view = View {
            record,
            seen: secs(seen),
            renewed: renewed.map(secs),
        };
        assert_eq!(
            decide(&view, "me", secs(now), &Timing::default()),
            expected,
            "{name}"
        );
    }
}

#[test]
fn a_holder_gives_up_before_another_may_take_over() {
    let timing = Timing::default();
    assert!(timing.deadline + timing.retry < timing.duration);
}

#[test]
fn taking_over_counts_a_transition_and_renewing_does_not() {
    let timing = Timing::default();
    let at = |s| Timestamp::from_second(s).unwrap();
    let first = claimed(None, "weft-operator", "a", &timing, at(10));
    let renewed = claimed(Some(&first), "weft-operator", "a", &timing, at(12));
    let taken = claimed(Some(&renewed), "weft-operator", "b", &timing, at(40));
    let brief = |lease: &Lease| {
        let spec = lease.spec.clone().unwrap();
        (
            spec.holder_identity.unwrap(),
            spec.acquire_time.unwrap().0.as_second(),
            spec.renew_time.unwrap().0.as_second(),
            spec.lease_transitions.unwrap(),
        )
    };
    assert_eq!(brief(&first), ("a".into(), 10, 10, 0));
    assert_eq!(brief(&renewed), ("a".into(), 10, 12, 0));
    assert_eq!(brief(&taken), ("b".into(), 40, 40, 1));
}
