use super::*;

fn pair(last: u8) -> Pair {
    (
        IpAddr::from([10, 32, 1, last]),
        IpAddr::from([10, 32, 0, 2]),
        Direction::Ingress,
    )
}

#[test]
fn a_pair_gets_a_line_in_ten_seconds_that_counts_what_was_passed_over() {
    let mut limiter = Limiter::default();
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    assert_eq!(limiter.admit(at(0), pair(1)), Some(0));
    assert_eq!(limiter.admit(at(1), pair(1)), None);
    assert_eq!(limiter.admit(at(2), pair(2)), Some(0));
    assert_eq!(limiter.admit(at(9_999), pair(1)), None);
    assert_eq!(limiter.admit(at(10_000), pair(1)), Some(2));
    assert_eq!(limiter.admit(at(20_000), pair(1)), Some(0));
}

#[test]
fn a_scan_of_many_addresses_gets_few_lines_and_little_memory() {
    let mut limiter = Limiter::default();
    let start = Instant::now();
    let mut lines = 0;
    // 100,000 pairs in 100 seconds.
    for n in 0..100_000_u32 {
        let pair = (
            IpAddr::V4((0x0a40_0000 + n).into()),
            IpAddr::from([10, 32, 0, 2]),
            Direction::Ingress,
        );
        lines += u32::from(
            limiter
                .admit(start + Duration::from_millis(n.into()), pair)
                .is_some(),
        );
        assert!(limiter.pairs.len() <= PAIRS);
    }
    assert_eq!(lines, 100 * LINES);
}

#[test]
fn packets_that_get_no_line_because_of_others_are_told_of_later() {
    let mut limiter = Limiter::default();
    let start = Instant::now();
    assert_eq!(limiter.admit(start, pair(1)), Some(0));
    let later = start + QUIET;
    for n in 0..LINES {
        let other = u8::try_from(100 + n).expect("few");
        assert_eq!(limiter.admit(later, pair(other)), Some(0));
    }
    assert_eq!(limiter.admit(later, pair(1)), None);
    let next = later + Duration::from_secs(1);
    assert_eq!(limiter.admit(next, pair(1)), Some(1));
}
