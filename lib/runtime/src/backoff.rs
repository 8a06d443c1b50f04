//! Exponential back-off with jitter. Pure: the caller brings the randomness.

use std::time::Duration;

/// Waiting times that double from `base` to `max`; each is drawn from the upper half of its step,
/// so that many clients that failed together do not come back together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    failures: u32,
}

impl Backoff {
    /// Starts at `base`, never exceeds `max`.
    #[must_use]
    pub fn new(base: Duration, max: Duration) -> Self {
        Self {
            base,
            max,
            failures: 0,
        }
    }

    /// How long to wait after one more failure. `random` is taken into `0.0..=1.0`.
    pub fn next(&mut self, random: f64) -> Duration {
        let step = self
            .base
            .saturating_mul(2u32.saturating_pow(self.failures))
            .min(self.max);
        self.failures = self.failures.saturating_add(1);
        let random = if random.is_finite() {
            random.clamp(0.0, 1.0)
        } else {
            1.0
        };
        step.mul_f64(0.5 + random / 2.0)
    }

    /// Failures since the last success.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// It worked: the next failure waits `base` again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A random number in `0.0..1.0`, for [`Backoff::next`] and for spreading periodic work.
#[must_use]
pub fn random() -> f64 {
    fastrand::f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_maximum_and_starts_anew_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(1));
        let waits: Vec<u128> = (0..5).map(|_| backoff.next(1.0).as_millis()).collect();
        assert_eq!(waits, [200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.next(1.0).as_millis(), 200);
    }

    #[test]
    fn jitter_takes_away_half_at_most() {
        let mut backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(60));
        assert_eq!(backoff.next(0.0), Duration::from_secs(1));
        assert_eq!(backoff.next(f64::NAN), Duration::from_secs(4));
    }

    #[test]
    fn never_overflows() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        for _ in 0..200 {
            assert!(backoff.next(0.5) <= Duration::from_secs(30));
        }
    }
}
