//! Waiting for something to become true, with a deadline and the last thing that was seen.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

/// Time between two looks.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks `probe` until it answers `Ok`, and returns what it answered.
///
/// # Errors
/// The last error of `probe`, after `deadline`; `what` says what was waited for.
pub async fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(last) if start.elapsed() >= deadline => {
                return Err(last).with_context(|| format!("{what}: not within {deadline:?}"));
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn last_error_is_reported_after_the_deadline() {
        let mut looks = 0;
        let error = eventually(Duration::from_secs(1), "a miracle", async || {
            looks += 1;
            anyhow::bail!("look {looks}") as anyhow::Result<()>
        })
        .await
        .expect_err("no miracle");
        assert_eq!(format!("{error:#}"), "a miracle: not within 1s: look 11");
    }
}
