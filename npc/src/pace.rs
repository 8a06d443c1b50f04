//! How often the kernel may be written when changes do not end: a pod that is relabelled a thousand
//! times a second must not keep a processor busy, nor whoever waits for the loop.
//!
//! Changes that come now and then are applied at once. When they come faster than they can be
//! applied at half a processor, they are collected; the longest wait is [`LONGEST`]. CNI does not
//! wait at all.

use std::time::{Duration, Instant};

/// Work on credit: so much of it is done without a wait.
const CREDIT: Duration = Duration::from_millis(200);
/// Longest wait for one sync.
const LONGEST: Duration = Duration::from_millis(200);
/// A sync that took less changed nothing.
const CHEAP: Duration = Duration::from_millis(1);
/// Least share of time of a sync that changed something: 100 of them in a second.
const SHORTEST: Duration = Duration::from_millis(10);

/// Time is an argument.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// When what was done so far is paid.
    paid: Option<Instant>,
}

impl Pace {
    /// How long the next sync should wait.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        let debt = self.paid.map(|paid| paid.saturating_duration_since(now));
        debt.unwrap_or_default().saturating_sub(CREDIT)
    }

    /// A sync ended at `now` and took so long.
    pub(crate) fn spent(&mut self, now: Instant, took: Duration) {
        let cost = if took < CHEAP {
            CHEAP
        } else {
            (2 * took).clamp(SHORTEST, LONGEST)
        };
        let paid = self.paid.map_or(now, |paid| paid.max(now)) + cost;
        // Syncs that did not wait do not pile up debt.
        self.paid = Some(paid.min(now + CREDIT + LONGEST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Syncs in ten seconds of changes that never end, and the longest wait.
    fn endless(took: Duration, urgent: bool) -> (u32, Duration) {
        let begin = Instant::now();
        let mut now = begin;
        let (mut pace, mut syncs, mut longest) = (Pace::default(), 0, Duration::ZERO);
        while now < begin + Duration::from_secs(10) {
            let wait = pace.wait(now);
            longest = longest.max(wait);
            now += if urgent { Duration::ZERO } else { wait };
            now += took;
            pace.spent(now, took);
            syncs += 1;
        }
        (syncs, longest)
    }

    #[test]
    fn changes_without_end_take_half_a_processor_at_most_and_a_hundred_syncs_a_second() {
        let milliseconds = Duration::from_millis;
        let (syncs, longest) = endless(milliseconds(3), false);
        assert!((900..=1100).contains(&syncs), "{syncs}");
        assert!(longest <= milliseconds(10), "{longest:?}");
        let (syncs, longest) = endless(milliseconds(50), false);
        assert!((95..=110).contains(&syncs), "{syncs}");
        assert!(longest <= milliseconds(100), "{longest:?}");
        let (_, longest) = endless(Duration::from_secs(1), false);
        assert!(longest <= LONGEST, "{longest:?}");
    }

    #[test]
    fn changes_now_and_then_do_not_wait() {
        let mut now = Instant::now();
        let mut pace = Pace::default();
        for _ in 0..1000 {
            assert_eq!(pace.wait(now), Duration::ZERO);
            now += Duration::from_millis(5);
            pace.spent(now, Duration::from_millis(5));
            now += Duration::from_millis(45);
        }
    }

    #[test]
    fn syncs_that_nobody_lets_wait_do_not_make_the_next_one_wait_longer() {
        let (_, longest) = endless(Duration::from_millis(3), true);
        assert!(longest <= LONGEST, "{longest:?}");
    }
}
