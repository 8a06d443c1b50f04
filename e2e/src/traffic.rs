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

    /// Starts each kind of traffic from each of `pods`: a held TCP connection, a held UDP flow, and
    /// new TCP connections.
    #[must_use]
    pub fn of_each_kind(
        cluster: &Cluster,
        pods: &[&Running],
        target: &str,
        duration: Duration,
    ) -> Vec<Self> {
        pods.iter()
            .flat_map(|pod| {
                [
                    &["--hold", "--interval", "10ms"][..],
                    &["--hold", "--interval", "10ms", "--proto", "udp"][..],
                    &["--interval", "20ms", "--timeout", "2s"][..],
                ]
                .map(|more| Self::start(cluster, pod, target, more, duration))
            })
            .collect()
    }

    /// Waits for its end; nothing may have come back.
    ///
    /// # Errors
    /// Something came back, or nothing was sent.
    pub async fn end_without_answer(self) -> anyhow::Result<()> {
        let what = self.what.clone();
        let report = self.end().await?;
        anyhow::ensure!(
            report.sent > 0 && report.received == 0,
            "{what}: a denied client got through, or sent nothing: {report:?}"
        );
        Ok(())
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
