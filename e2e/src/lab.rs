//! What only the lab can do: a host outside the cluster, nodes that come and go. It is driven by
//! the verbs that people have (`cargo xtask lab ...`).

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use tokio::{
    process::{Child, Command},
    sync::OnceCell,
};
use weft_probe::{cluster::eventually, report::Report};

use crate::Settings;

/// The host outside the cluster: its member name in the lab.
const MEMBER: &str = "outside";
/// Its address.
pub const OUTSIDE: &str = "172.30.0.200";
/// Its IPv6 address in a lab of both families.
pub const OUTSIDE_V6: &str = "fd30::200";

/// xtask and weft-probe are built once in a run.
static BUILT: OnceCell<()> = OnceCell::const_new();

/// The lab of this checkout.
pub struct Lab {
    workspace: PathBuf,
}

/// A probe server on the host outside; ends with this value.
pub struct OutsideServer {
    _process: Child,
}

impl Lab {
    /// The lab that the tests run against.
    ///
    /// # Errors
    /// They run against another cluster, or its tools cannot be built.
    pub async fn new(settings: &Settings) -> anyhow::Result<Self> {
        settings.need_lab()?;
        let lab = Self {
            workspace: settings.workspace.clone(),
        };
        BUILT.get_or_try_init(async || lab.build().await).await?;
        Ok(lab)
    }

    async fn build(&self) -> anyhow::Result<()> {
        // cargo tells a test where itself is; the plain name serves who starts the test by hand.
        let cargo = option_env!("CARGO").unwrap_or("cargo");
        let mut build = command(cargo);
        build
            .args([
                "build",
                "--quiet",
                "--package",
                "xtask",
                "--package",
                "weft-probe",
            ])
            .current_dir(&self.workspace);
        finish(build).await.map(drop)
    }

    fn program(&self, name: &str) -> PathBuf {
        self.workspace.join("target/debug").join(name)
    }

    /// A command in a member, not yet started.
    pub(crate) fn inside(&self, member: &str, words: &[&str]) -> Command {
        let mut line = vec!["enter", member, "--"];
        line.extend(words);
        self.lab(&line)
    }

    /// weft-probe of this checkout, for this machine.
    pub(crate) fn probe(&self) -> PathBuf {
        self.program("weft-probe")
    }

    /// `cargo xtask lab <words>`.
    fn lab(&self, words: &[&str]) -> Command {
        let mut lab = command(self.program("xtask"));
        lab.arg("lab").args(words).current_dir(&self.workspace);
        lab
    }

    /// Runs a lab verb and returns its stdout.
    ///
    /// # Errors
    /// It failed; the message has its stderr.
    pub async fn run(&self, words: &[&str]) -> anyhow::Result<String> {
        finish(self.lab(words)).await
    }

    /// Runs a command in a member (a node, or the host outside).
    ///
    /// # Errors
    /// It failed; the message has its stderr.
    pub async fn enter(&self, member: &str, words: &[&str]) -> anyhow::Result<String> {
        let mut line = vec!["enter", member, "--"];
        line.extend(words);
        self.run(&line).await
    }

    /// helm of the lab, against the lab.
    ///
    /// # Errors
    /// It failed; the message has its stderr.
    pub async fn helm(&self, words: &[&str]) -> anyhow::Result<String> {
        self.client("helm", words).await
    }

    /// kubectl of the lab, against the lab.
    ///
    /// # Errors
    /// It failed; the message has its stderr.
    pub async fn kubectl(&self, words: &[&str]) -> anyhow::Result<String> {
        self.client("kubectl", words).await
    }

    async fn client(&self, name: &str, words: &[&str]) -> anyhow::Result<String> {
        let mut client = command(self.workspace.join("target/lab/bin").join(name));
        client.args(words).current_dir(&self.workspace).env(
            "KUBECONFIG",
            self.workspace.join("target/lab/admin.kubeconfig"),
        );
        finish(client).await
    }

    /// Serves TCP and UDP on the host outside.
    ///
    /// # Errors
    /// The server does not come up.
    pub async fn serve_outside(&self, port: u16) -> anyhow::Result<OutsideServer> {
        let probe = self.program("weft-probe");
        let port_text = port.to_string();
        let process = self
            .lab(&[
                "enter",
                MEMBER,
                "--",
                &probe.to_string_lossy(),
                "serve",
                "--tcp",
                &port_text,
                "--udp",
                &port_text,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("start the server outside")?;
        let server = OutsideServer { _process: process };
        let target = format!("127.0.0.1:{port}");
        eventually(Duration::from_secs(10), "the server outside", async || {
            self.connect_outside(&target, &["--timeout", "500ms"])
                .await
                .map(drop)
        })
        .await?;
        Ok(server)
    }

    /// Runs `weft-probe connect` on the host outside.
    ///
    /// # Errors
    /// The probe could not run, or nothing came back.
    pub async fn connect_outside(&self, target: &str, more: &[&str]) -> anyhow::Result<Report> {
        let probe = self.program("weft-probe");
        let probe = probe.to_string_lossy();
        let mut line: Vec<&str> = vec![&probe, "connect", target];
        line.extend(more);
        let answer = self.enter(MEMBER, &line).await?;
        serde_json::from_str(&answer).with_context(|| format!("no JSON: {answer}"))
    }
}

#[allow(clippy::disallowed_methods, reason = "the lab is driven by its verbs")]
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.kill_on_drop(true);
    command
}

/// Runs a command to its end; stdout, or an error with both streams.
async fn finish(mut command: Command) -> anyhow::Result<String> {
    let words = format!("{:?}", command.as_std());
    let output = command
        .stdin(Stdio::null())
        .output()
        .await
        .with_context(|| format!("start {words}"))?;
    ensure!(
        output.status.success(),
        "{words}: {}: {} {}",
        output.status,
        String::from_utf8_lossy(&output.stdout).trim(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
