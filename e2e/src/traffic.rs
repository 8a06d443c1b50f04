//! Traffic that flows in the background while something is done to the cluster.

use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinHandle;
use weft_probe::{
    cluster::{Cluster, Running},
    report::Report,
};

/// Running traffic.
pub struct Traffic {
    what: String,
    task: JoinHandle<anyhow::Result<Report>>,
}

impl Traffic {
    /// Starts `weft-probe connect TARGET <more> --duration <duration>` in a pod.
    #[must_use]
    pub fn start(
        cluster: &Cluster,
        pod: &Running,
        target: &str,
        more: &[&str],
        duration: Duration,
    ) -> Self {
        let what = format!("{} -> {target} {}", pod.name, more.join(" "));
        let (cluster, pod, target) = (cluster.clone(), pod.clone(), target.to_owned());
        let mut more: Vec<String> = more.iter().map(|word| (*word).to_owned()).collect();
        more.extend(["--duration".into(), format!("{}ms", duration.as_millis())]);
        let task = tokio::spawn(async move {
            let more: Vec<&str> = more.iter().map(String::as_str).collect();
            cluster.connect(&pod, &target, &more).await
        });
        Self { what, task }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// The probe could not run.
    pub async fn end(self) -> anyhow::Result<Report> {
        self.task
            .await
            .context("the traffic task ended")
            .and_then(|result| result)
            .with_context(|| self.what.clone())
    }

    /// Waits for its end; every packet must have come back.
    ///
    /// # Errors
    /// Something was lost.
    pub async fn end_without_loss(self) -> anyhow::Result<Report> {
        let what = self.what.clone();
        let report = self.end().await?;
        anyhow::ensure!(
            report.sent > 0 && report.received == report.sent && report.errors.is_empty(),
            "{what}: {} of {} came back, longest gap {} ms, errors {:?} ({})",
            report.received,
            report.sent,
            report.longest_gap_ms,
            report.errors,
            report.last_error.unwrap_or_default()
        );
        Ok(report)
    }
}
