//! Waiting for something that another process does.

use std::time::{Duration, Instant};

use anyhow::bail;

/// Asks `probe` every `step` until it answers or `limit` has passed.
///
/// # Errors
/// What was waited for, for how long, and what the last answer lacked.
pub(crate) fn until<T>(
    what: &str,
    limit: Duration,
    step: Duration,
    mut probe: impl FnMut() -> Result<T, String>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(missing) if start.elapsed() >= limit => {
                bail!("waited {} s for {what}: {missing}", limit.as_secs())
            }
            Err(_) => pause(step),
        }
    }
}

/// Lets time pass between two looks at something that sends no event.
#[allow(
    clippy::disallowed_methods,
    reason = "the lab waits for other processes; no runtime here"
)]
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}
