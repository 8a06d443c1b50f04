//! The real `weft-npc`, in the node of a stage: an API to watch, a router to ask, its rules in the
//! kernel.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::Child,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{
    Backend, Plan,
    api::{ADDRESS, Api},
    objects, shot,
    space::program,
    stage::Stage,
};

/// Files and sockets of an npc, and who answers it.
pub(crate) struct Home {
    directory: tempfile::TempDir,
    binary: PathBuf,
    pub(crate) api: Api,
}

impl Home {
    /// For the node of `stage`; nothing runs yet but the API and the router's socket.
    pub(crate) fn new(stage: &Stage, binary: &Path, backend: Backend) -> anyhow::Result<Self> {
        let home = Self {
            directory: tempfile::tempdir()?,
            binary: std::fs::canonicalize(binary)
                .with_context(|| format!("{}: no such program", binary.display()))?,
            api: Api::default(),
        };
        home.api.serve(&stage.node)?;
        let write = |name: &str, value: &Value| {
            std::fs::write(home.directory.path().join(name), value.to_string())
        };
        write(
            "kubeconfig",
            &json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": format!("http://{ADDRESS}")}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            }),
        )?;
        write(
            "node.json",
            &json!({"clusterId": "bench", "generation": 1,
                "network": {"policy": backend.configuration()}}),
        )?;
        let router = UnixListener::bind(home.directory.path().join("router.sock"))?;
        std::thread::spawn(move || {
            let answer = format!("{}\n", objects::attachments());
            for mut stream in router.incoming().flatten() {
                let mut line = String::new();
                // npc may have been killed meanwhile.
                let _ = stream
                    .try_clone()
                    .and_then(|asked| BufReader::new(asked).read_line(&mut line))
                    .and_then(|_| stream.write_all(answer.as_bytes()));
            }
        });
        Ok(home)
    }

    /// With the cluster of [`objects::fill`].
    pub(crate) fn filled(
        stage: &Stage,
        plan: &Plan,
        backend: Backend,
        policies: usize,
    ) -> anyhow::Result<Self> {
        let home = Self::new(stage, &plan.npc, backend)?;
        objects::fill(&home.api, plan.remotes, policies);
        Ok(home)
    }

    /// Starts it.
    pub(crate) fn start(&self, stage: &Stage) -> anyhow::Result<Npc<'_>> {
        let path = |name: &str| self.directory.path().join(name);
        // Left by one that was killed.
        let _ = std::fs::remove_file(path("npc.sock"));
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path("log"))?;
        let mut command = program(&[&self.binary]);
        command
            .env("KUBECONFIG", path("kubeconfig"))
            .env("NODE_NAME", objects::NODE)
            .args(["run", "--config"])
            .arg(path("node.json"))
            .arg("--run-dir")
            .arg(self.directory.path())
            .arg("--state-dir")
            .arg(self.directory.path())
            .stdout(log.try_clone()?)
            .stderr(log);
        Ok(Npc {
            home: self,
            child: stage.node.spawn(command)?,
        })
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// A running one; killed when dropped. Its rules stay.
pub(crate) struct Npc<'a> {
    home: &'a Home,
    child: Child,
}

/// Megabytes of memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Resident now.
    pub(crate) now: f64,
    /// The most it ever was.
    pub(crate) peak: f64,
}

impl Npc<'_> {
    /// Waits until it says that its rules are in force.
    pub(crate) fn ready(&mut self, patience: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            let last = match self.status() {
                Ok(status) if status["ok"]["ready"] == json!(true) => return Ok(()),
                Ok(status) => status.to_string(),
                Err(error) => error.to_string(),
            };
            if let Some(status) = self.child.try_wait()? {
                bail!("npc ended: {status}\n{}", self.home.log());
            }
            if start.elapsed() > patience {
                bail!(
                    "npc is not ready after {patience:?}: {last}\n{}",
                    self.home.log()
                );
            }
            shot::pause(Duration::from_millis(2));
        }
    }

    fn status(&self) -> anyhow::Result<Value> {
        let mut stream = UnixStream::connect(self.home.directory.path().join("npc.sock"))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"{\"op\":\"status\"}\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Ends it as a roll-out does.
    pub(crate) fn terminate(mut self) -> anyhow::Result<()> {
        kill(
            Pid::from_raw(i32::try_from(self.child.id())?),
            Signal::SIGTERM,
        )?;
        self.child.wait()?;
        Ok(())
    }

    /// Its memory.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<f64>().ok())
                .map(|kb| kb / 1024.0)
                .with_context(|| format!("no {name} in /proc"))
        };
        Ok(Memory {
            now: field("VmRSS:")?,
            peak: field("VmHWM:")?,
        })
    }

    /// Seconds of processor time, with those of tools that have ended.
    pub(crate) fn processor_time(&self) -> anyhow::Result<f64> {
        processor_time(&self.child.id().to_string(), 13..17)
    }
}

impl Drop for Npc<'_> {
    fn drop(&mut self) {
        // Both fail only if it ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds of processor time of children that were waited for.
pub(crate) fn processor_time_of_children() -> anyhow::Result<f64> {
    processor_time("self", 15..17)
}

/// Sum of fields of `/proc/<process>/stat` (proc(5): 13 and 14 own time, 15 and 16 children's,
/// counted from 0).
fn processor_time(process: &str, fields: std::ops::Range<usize>) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field is the name in brackets, which may hold anything.
    let (_, rest) = text.rsplit_once(')').context("/proc/.../stat is odd")?;
    let ticks: f64 = rest
        .split_whitespace()
        .skip(fields.start - 2)
        .take(fields.len())
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    // USER_HZ.
    Ok(ticks / 100.0)
}
