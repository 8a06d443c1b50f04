//! The loop every controller runs in: woken, coalesced, timed, backed off, re-checked for drift.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use weft_runtime::{
    backoff::{Backoff, random},
    health::Health,
};

use crate::{
    metrics::{Controller, Failure, Metrics},
    table::Wake,
};

/// Without any event, everything is looked at again after this long (less up to a tenth).
const DRIFT: Duration = Duration::from_mins(10);

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API refused or did not answer.
    #[error("{what}: {}", brief(source))]
    Api {
        /// What was tried, on which object.
        what: String,
        /// Cause.
        source: kube::Error,
    },
    /// Several things failed; the rest was done.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Several(Vec<Error>),
    /// An uninstall has begun: what would bring weft back is not done.
    #[error("{0}")]
    Uninstalling(String),
    /// Anything that is not the API.
    #[error("{0}")]
    Other(String),
}

/// The server's own sentence; kube's text repeats it with every field of the Status.
pub(crate) fn brief(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        status.message.clone()
    } else {
        error.to_string()
    }
}

impl Error {
    /// For the metric: few and stable.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Api {
                source: kube::Error::Api(status),
                ..
            } => match status.code {
                403 => "forbidden",
                404 => "not-found",
                409 => "conflict",
                422 => "invalid",
                429 => "too-many-requests",
                _ => "api",
            },
            Self::Api { .. } => "transport",
            Self::Several(errors) => errors.first().map_or("other", Self::class),
            Self::Uninstalling(_) => "uninstalling",
            Self::Other(_) => "other",
        }
    }

    /// Puts errors of independent steps together; none is success.
    pub(crate) fn join(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.pop() {
            None => Ok(()),
            Some(one) if errors.is_empty() => Err(one),
            Some(last) => {
                errors.push(last);
                Err(Self::Several(errors))
            }
        }
    }
}

/// Adds what was tried to an API error.
pub(crate) trait Tried<T> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Tried<T> for Result<T, kube::Error> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::Api {
            what: what(),
            source,
        })
    }
}

/// How a controller is run.
pub(crate) struct Rhythm {
    pub(crate) name: &'static str,
    /// Changes within this time after a wake are one reconcile.
    pub(crate) quiet: Duration,
    /// A reconcile that takes longer is given up.
    pub(crate) limit: Duration,
}

/// What every controller's loop reports to.
pub(crate) struct Looped {
    pub(crate) metrics: Metrics,
    pub(crate) health: Health,
}

impl Looped {
    /// Runs `reconcile` for ever: at once, after each wake, after `Ok(Some(delay))`, after a
    /// failure with back-off, and every ten minutes. One at a time.
    pub(crate) async fn run<F>(&self, (rhythm, wake): (Rhythm, Wake), mut reconcile: F)
    where
        F: AsyncFnMut() -> Result<Option<Duration>, Error>,
    {
        let Rhythm { name, quiet, limit } = rhythm;
        let pulse = self.health.heartbeat(name, DRIFT + limit + limit);
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(60));
        loop {
            sleep(quiet).await;
            let begin = Instant::now();
            let result = timeout(limit, reconcile()).await;
            self.metrics
                .durations
                .get_or_create(&Controller { controller: name })
                .observe(begin.elapsed().as_secs_f64());
            let (error, class) = match result {
                Ok(Ok(again)) => {
                    backoff.reset();
                    pulse.beat();
                    let drift = DRIFT.mul_f64(1.0 - random() / 10.0);
                    tokio::select! {
                        () = wake.notified() => {}
                        () = sleep(again.unwrap_or(drift).min(drift)) => {}
                    }
                    pulse.beat();
                    continue;
                }
                Ok(Err(error)) => (error.to_string(), error.class()),
                Err(_) => (format!("not done after {limit:?}"), "timeout"),
            };
            let failure = Failure {
                controller: name,
                class,
            };
            self.metrics.errors.get_or_create(&failure).inc();
            let pause = backoff.next(random());
            if class == "conflict" {
                self.metrics.conflicts.inc();
                tracing::debug!(controller = name, error, "lost a race, will look again");
            } else {
                tracing::warn!(controller = name, error, ?pause, "reconcile failed");
            }
            pulse.beat();
            // Not cut short by a wake: a storm of events must not defeat the back-off.
            sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, sync::Arc};

    use super::*;

    async fn times(
        wake: Wake,
        until: Duration,
        mut outcome: impl FnMut(usize) -> Result<Option<Duration>, Error>,
    ) -> Vec<u128> {
        let start = Instant::now();
        let seen = RefCell::new(Vec::new());
        let rhythm = Rhythm {
            name: "test",
            quiet: Duration::from_millis(100),
            limit: Duration::from_secs(5),
        };
        let looped = Looped {
            metrics: Metrics::new().0,
            health: Health::default(),
        };
        let looping = looped.run((rhythm, wake), async || {
            seen.borrow_mut().push(start.elapsed().as_millis());
            let n = seen.borrow().len();
            outcome(n)
        });
        let _ = timeout(until, looping).await;
        seen.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn many_wakes_are_one_reconcile() {
        let wake = Wake::default();
        let later = Arc::clone(&wake);
        tokio::spawn(async move {
            for _ in 0..50 {
                sleep(Duration::from_millis(1)).await;
                later.notify_one();
            }
        });
        // One at the start; the wakes of the first 100 ms are one more.
        let seen = times(wake, Duration::from_secs(60), |_| Ok(None)).await;
        assert_eq!(seen, [100, 200]);
    }

    #[tokio::test(start_paused = true)]
    async fn failures_back_off_and_success_ends_it() {
        let seen = times(Wake::default(), Duration::from_secs(300), |n| {
            if n < 5 {
                Err(Error::Other("no".into()))
            } else {
                Ok(None)
            }
        })
        .await;
        let gaps: Vec<u128> = seen.windows(2).map(|w| w[1] - w[0] - 100).collect();
        assert_eq!(seen.len(), 5);
        for (gap, full) in gaps.iter().zip([200, 400, 800, 1600]) {
            assert!((full / 2..=full + 1).contains(gap), "{gaps:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn drift_is_looked_for_within_ten_minutes_and_a_wish_comes_first() {
        let seen = times(Wake::default(), Duration::from_secs(601), |_| Ok(None)).await;
        assert_eq!(seen.len(), 2, "{seen:?}");
        let wish = Some(Duration::from_secs(100));
        let seen = times(Wake::default(), Duration::from_secs(601), |_| Ok(wish)).await;
        assert_eq!(seen.len(), 7, "{seen:?}");
    }
}
