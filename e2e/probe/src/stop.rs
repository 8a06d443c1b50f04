//! The end of a container: as process 1 nothing happens on SIGTERM unless we ask for it.

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// Returns when the container is told to stop.
pub(crate) async fn requested() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
