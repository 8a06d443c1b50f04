//! `weft-probe meter` in the network namespace of a pod, started from the machine of the lab: it
//! goes on when the API server, a kubelet or the container runtime does not.

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, ChildStdin},
    task::JoinHandle,
    time::timeout,
};
use weft_probe::measured::Measured;

use crate::{Lab, Running};

/// Until the flows stand; each may take two seconds to be opened.
const BEGIN: Duration = Duration::from_secs(20);
/// Until the report is there, after it was told to stop.
const END: Duration = Duration::from_secs(10);

/// A prober at work; killed when dropped.
pub(crate) struct Prober {
    what: String,
    child: Child,
    /// It stops when this is closed.
    stdin: Option<ChildStdin>,
    stdout: JoinHandle<std::io::Result<String>>,
    stderr: JoinHandle<String>,
}

/// Where a pod's network is: the name of its namespace on its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    node: String,
    netns: String,
}

impl Place {
    /// Of a pod.
    pub(crate) async fn of(lab: &Lab, pod: &Running) -> anyhow::Result<Self> {
        let script = format!(
            "for n in /run/netns/cni-*; do n=${{n##*/}}; \
               if ip -n $n -o addr show dev eth0 2>/dev/null | grep -qF ' {}/'; then echo $n; fi; \
             done; true",
            pod.ip
        );
        let found = lab.enter(&pod.node, &["sh", "-c", &script]).await?;
        let netns = found
            .lines()
            .next()
            .with_context(|| format!("no network namespace on {} has {}", pod.node, pod.ip))?;
        Ok(Self {
            node: pod.node.clone(),
            netns: netns.to_owned(),
        })
    }
}

impl Prober {
    /// Starts `weft-probe meter <arguments>` and waits until it measures.
    pub(crate) async fn start(
        lab: &Lab,
        place: &Place,
        arguments: &[String],
    ) -> anyhow::Result<Self> {
        let probe = lab.probe();
        let probe = probe.to_string_lossy();
        // A busy machine must not blind it.
        let mut words = vec!["nice", "-n", "-15", "ip", "netns", "exec", &place.netns];
        words.extend([&*probe, "meter", "--until-eof"]);
        words.extend(arguments.iter().map(String::as_str));
        let what = format!("on {} {}", place.node, words.join(" "));
        let mut child = lab
            .inside(&place.node, &words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| what.clone())?;
        let stdin = child.stdin.take();
        let mut stdout = child.stdout.take().context("stdout is piped")?;
        let stdout = tokio::spawn(async move {
            let mut text = String::new();
            stdout.read_to_string(&mut text).await?;
            Ok(text)
        });
        let mut lines = BufReader::new(child.stderr.take().context("stderr is piped")?).lines();
        let begun = timeout(BEGIN, async {
            let mut said = String::new();
            while let Some(line) = lines.next_line().await? {
                if line == "measuring" {
                    return anyhow::Ok(None);
                }
                said.push_str(&line);
            }
            Ok(Some(said))
        })
        .await
        .with_context(|| format!("{what}: not measuring within {BEGIN:?}"))??;
        if let Some(said) = begun {
            anyhow::bail!("{what}: ended before it measured: {said}");
        }
        let stderr = tokio::spawn(async move {
            let mut said = String::new();
            while let Ok(Some(line)) = lines.next_line().await {
                said.push_str(&line);
                said.push('\n');
            }
            said
        });
        Ok(Self {
            what,
            child,
            stdin,
            stdout,
            stderr,
        })
    }

    /// Stops it and reads its report.
    pub(crate) async fn end(mut self) -> anyhow::Result<Measured> {
        drop(self.stdin.take());
        let what = self.what.clone();
        let status = timeout(END, self.child.wait())
            .await
            .with_context(|| format!("{what}: no end within {END:?}"))??;
        let text = self.stdout.await.context("the reader ended")??;
        let said = self.stderr.await.unwrap_or_default();
        ensure!(status.success(), "{what}: {status}: {said}");
        serde_json::from_str(&text).with_context(|| format!("{what}: no report: {text}"))
    }
}
