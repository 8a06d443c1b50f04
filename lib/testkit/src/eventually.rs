//! Waiting for something to become true, without a fixed sleep.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Asks `probe` until it answers `Ok`, and returns what it answered.
///
/// # Panics
/// After `deadline`, with the last `Err` that was seen, at the line of the caller.
#[track_caller]
#[allow(clippy::panic, reason = "a test assertion")]
#[allow(
    clippy::disallowed_methods,
    reason = "this is the one place where tests wait"
)]
pub fn eventually<T, E: fmt::Debug>(
    deadline: Duration,
    mut probe: impl FnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    let mut looks = 0_u32;
    loop {
        looks += 1;
        match probe() {
            Ok(value) => return value,
            Err(last) if start.elapsed() >= deadline => {
                panic!("not within {deadline:?} ({looks} looks); last seen: {last:?}")
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// As [`eventually`], for a comparison: waits until `observe` returns `expected`.
///
/// # Panics
/// After `deadline`, with the value that was seen last.
#[track_caller]
pub fn eventually_eq<T: PartialEq + fmt::Debug>(
    deadline: Duration,
    expected: &T,
    mut observe: impl FnMut() -> T,
) {
    eventually(deadline, || {
        let seen = observe();
        if seen == *expected {
            Ok(())
        } else {
            Err(format!("{seen:?} instead of {expected:?}"))
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_the_first_success() {
        let mut n = 0;
        let got = eventually(Duration::from_secs(5), || {
            n += 1;
            if n == 3 { Ok(n) } else { Err(n) }
        });
        assert_eq!(got, 3);
    }

    #[test]
    #[should_panic(expected = "last seen: \"7 instead of 8\"")]
    fn panics_with_the_last_value() {
        eventually_eq(Duration::ZERO, &8, || 7);
    }
}
