//! The lab as this program sees it: commands inside nodes, kubectl, pods' namespaces.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use anyhow::{Context, bail};

/// A running lab.
pub(crate) struct Lab {
    xtask: PathBuf,
    kubectl: PathBuf,
    kubeconfig: PathBuf,
}

impl Lab {
    /// Finds the lab and checks that it answers.
    pub(crate) fn new(xtask: &Path, kubectl: &Path, kubeconfig: &Path) -> anyhow::Result<Self> {
        for path in [xtask, kubectl, kubeconfig] {
            if !path.exists() {
                bail!(
                    "{} is missing: bring the lab up and install weft first (make lab-up install)",
                    path.display()
                );
            }
        }
        Ok(Self {
            xtask: xtask.into(),
            kubectl: kubectl.into(),
            kubeconfig: kubeconfig.into(),
        })
    }

    /// A command inside a node, not yet started.
    #[allow(
        clippy::disallowed_methods,
        reason = "driving programs is what a benchmark does"
    )]
    pub(crate) fn inside(&self, node: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.xtask);
        command
            .args(["lab", "enter", node, "--"])
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    /// Runs a command inside a node and returns its standard output.
    pub(crate) fn run(&self, node: &str, arguments: &[&str]) -> anyhow::Result<String> {
        output(
            &mut self.inside(node, arguments),
            &format!("{node}: {}", arguments.join(" ")),
        )
    }

    /// Runs kubectl.
    #[allow(
        clippy::disallowed_methods,
        reason = "driving programs is what a benchmark does"
    )]
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.kubectl);
        command
            .env("KUBECONFIG", &self.kubeconfig)
            .args(arguments)
            .stdin(Stdio::null());
        output(&mut command, &format!("kubectl {}", arguments.join(" ")))
    }

    /// Starts kubectl and lets it run.
    #[allow(
        clippy::disallowed_methods,
        reason = "driving programs is what a benchmark does"
    )]
    pub(crate) fn kubectl_start(&self, arguments: &[&str]) -> anyhow::Result<Running> {
        let child = Command::new(&self.kubectl)
            .env("KUBECONFIG", &self.kubeconfig)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start: kubectl {}", arguments.join(" ")))?;
        Ok(Running(child))
    }

    /// Runs kubectl with `input` on its standard input.
    #[allow(
        clippy::disallowed_methods,
        reason = "driving programs is what a benchmark does"
    )]
    pub(crate) fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> anyhow::Result<()> {
        let what = format!("kubectl {}", arguments.join(" "));
        let mut child = Command::new(&self.kubectl)
            .env("KUBECONFIG", &self.kubeconfig)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start: {what}"))?;
        child
            .stdin
            .take()
            .context("kubectl's standard input is closed")?
            .write_all(input.as_bytes())?;
        let Output { status, stderr, .. } = child.wait_with_output()?;
        if !status.success() {
            bail!("{what}: {status}\n{}", String::from_utf8_lossy(&stderr));
        }
        Ok(())
    }

    /// Stops or starts a component of a node (`verb` as `xtask lab` knows it).
    #[allow(
        clippy::disallowed_methods,
        reason = "driving programs is what a benchmark does"
    )]
    pub(crate) fn component(&self, verb: &str, name: &str, node: &str) -> anyhow::Result<()> {
        let mut command = Command::new(&self.xtask);
        command.args(["lab", verb, name, node]).stdin(Stdio::null());
        output(&mut command, &format!("lab {verb} {name} {node}")).map(drop)
    }

    /// Name of the network namespace on `node` whose eth0 has `address`.
    pub(crate) fn pod_netns(&self, node: &str, address: &str) -> anyhow::Result<String> {
        let script = format!(
            "for n in /run/netns/cni-*; do ip netns exec ${{n##*/}} ip -4 -o addr show dev eth0 \
             2>/dev/null | grep -q ' {address}/' && echo ${{n##*/}}; done; true"
        );
        let found = self.run(node, &["sh", "-c", &script])?;
        match found.lines().next() {
            Some(name) => Ok(name.to_owned()),
            None => bail!("no network namespace on {node} has the pod address {address}"),
        }
    }
}

/// A child that is ended when dropped.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both may fail only if it ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn output(command: &mut Command, what: &str) -> anyhow::Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .with_context(|| format!("cannot start: {what}"))?;
    if !status.success() {
        bail!("{what}: {status}\n{}", String::from_utf8_lossy(&stderr));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}
