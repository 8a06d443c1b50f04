//! The last state that was in force, on disk: for a kernel that has lost the rules (a reboot) while
//! the API cannot be reached ([`crate::early`]).
//!
//! ```text
//! file := "weft-npc-snapshot 1\n" body "\n" crc "\n"
//! body := JSON on one line; crc := CRC-32 of everything before it, 8 hex digits
//! ```
//!
//! Kept are the model and the node's blocks, not rules: which pods are still here is known only
//! later, and a backend may have been replaced. The file is replaced as a whole (temporary file,
//! fsync, rename, fsync of the directory), so it is the old one or the new one. What is not exactly
//! what was written is ignored and named on the log: then nobody is known and the node's blocks
//! stay closed.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Read as _, Write},
    net::IpAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use weft_policy::PolicyModel;
use weft_socket::NPC_SNAPSHOT;

use crate::{kernel::InUse, sync::Compiled};

/// Version of the format; part of the first line.
const FORMAT: u32 = 1;
/// What the first line starts with.
const MAGIC: &str = "weft-npc-snapshot ";
/// Length of the last line.
const TRAILER: usize = 9;
/// Largest file that is written or read, in bytes. 10,000 policies with 150,000 peers are a tenth.
const MAX_BYTES: u64 = 64 << 20;
/// Between two writes, however much changes.
const PAUSE: Duration = Duration::from_secs(1);
/// After a write that failed.
const RETRY: Duration = Duration::from_secs(10);

/// What is kept. Reading and writing use the same names.
#[derive(Debug, Serialize, Deserialize)]
struct Body<T> {
    /// Cluster id: of another cluster it says nothing about this one.
    cluster: String,
    /// Name of the Node.
    node: String,
    /// Name of the backend that held the rules.
    backend: String,
    blocks: BTreeSet<IpNet>,
    gateways: BTreeSet<IpAddr>,
    model: T,
}

/// The last state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Name of the backend that held the rules.
    pub(crate) backend: String,
    /// Confirmed blocks of the node.
    pub(crate) blocks: BTreeSet<IpNet>,
    /// The node's own addresses on the bridge.
    pub(crate) gateways: BTreeSet<IpAddr>,
    /// Pods, policies and peers.
    pub(crate) model: PolicyModel,
}

/// Removes the snapshot in this directory: what it holds is not the last state any more.
///
/// # Errors
/// It is there and stays.
pub(crate) fn forget(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(NPC_SNAPSHOT)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Why a snapshot is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    /// Nothing in it.
    #[error("it is empty")]
    Empty,
    /// Larger than [`MAX_BYTES`].
    #[error("it has more than {MAX_BYTES} bytes")]
    Oversized,
    /// The first line is not ours, or not all there.
    #[error("it does not start as a snapshot does")]
    NotASnapshot,
    /// Written by a later version.
    #[error("it has format {0}, this version reads {FORMAT}")]
    Format(u32),
    /// Cut or changed.
    #[error("its checksum is wrong")]
    Corrupt,
    /// The checksum is right and the content is not what this version writes.
    #[error("its content cannot be read: {0}")]
    Unreadable(String),
    /// Of another cluster or node.
    #[error("it belongs to node {node} of cluster {cluster}")]
    Foreign {
        /// Its node.
        node: String,
        /// Its cluster.
        cluster: String,
    },
    /// The file cannot be read at all.
    #[error("it cannot be read: {0}")]
    Io(String),
}

/// The file.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotFile {
    dir: PathBuf,
    cluster: String,
    node: String,
}

impl SnapshotFile {
    /// In `dir`, which need not exist yet.
    pub(crate) fn new(dir: &Path, cluster: &str, node: &str) -> Self {
        Self {
            dir: dir.to_owned(),
            cluster: cluster.to_owned(),
            node: node.to_owned(),
        }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(NPC_SNAPSHOT)
    }

    /// What it holds, if it can be used; the log tells if not.
    pub(crate) fn last(&self) -> Option<Kept> {
        let path = self.path().display().to_string();
        match self.read() {
            Ok(None) => {
                tracing::info!(path, "there is no snapshot of the last state yet");
                None
            }
            Ok(Some(kept)) => {
                tracing::info!(
                    path,
                    pods = kept.model.subjects.len(),
                    policies = kept.model.policies.len(),
                    "read the snapshot of the last state"
                );
                Some(kept)
            }
            Err(damage) => {
                tracing::error!(path, %damage, "the snapshot of the last state is ignored; without \
                    rules in the kernel this node's pods are closed until the API answers");
                None
            }
        }
    }

    fn read(&self) -> Result<Option<Kept>, Damage> {
        let unreadable = |error: io::Error| Damage::Io(error.to_string());
        let file = match File::open(self.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(unreadable)?,
        };
        let mut bytes = Vec::new();
        let mut start = file.take(MAX_BYTES + 1);
        start.read_to_end(&mut bytes).map_err(unreadable)?;
        self.decode(&bytes).map(Some)
    }

    fn decode(&self, bytes: &[u8]) -> Result<Kept, Damage> {
        if bytes.is_empty() {
            return Err(Damage::Empty);
        }
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Damage::Oversized);
        }
        let rest = bytes.strip_prefix(MAGIC.as_bytes());
        let end = rest.and_then(|rest| rest.iter().position(|byte| *byte == b'\n'));
        let (Some(rest), Some(end)) = (rest, end) else {
            return Err(Damage::NotASnapshot);
        };
        let format = std::str::from_utf8(&rest[..end]).ok();
        let format: u32 = format
            .and_then(|format| format.parse().ok())
            .ok_or(Damage::NotASnapshot)?;
        // Before the checksum: a later version may have another one.
        if format != FORMAT {
            return Err(Damage::Format(format));
        }
        let body = &rest[end + 1..];
        let (Some(body_end), Some(sum_at)) = (
            body.len().checked_sub(TRAILER),
            bytes.len().checked_sub(TRAILER),
        ) else {
            return Err(Damage::Corrupt);
        };
        if bytes[sum_at..] != *trailer(crc32fast::hash(&bytes[..sum_at])).as_bytes() {
            return Err(Damage::Corrupt);
        }
        let body: Body<PolicyModel> = serde_json::from_slice(&body[..body_end])
            .map_err(|error| Damage::Unreadable(error.to_string()))?;
        if (&body.cluster, &body.node) != (&self.cluster, &self.node) {
            return Err(Damage::Foreign {
                node: body.node,
                cluster: body.cluster,
            });
        }
        Ok(Kept {
            backend: body.backend,
            blocks: body.blocks,
            gateways: body.gateways,
            model: body.model,
        })
    }

    /// Puts the state in place of what the file held, and returns when it is on disk. After a failure
    /// there is no file: an older state could allow what was forbidden since.
    ///
    /// # Errors
    /// It is too large, or the file system's.
    pub(crate) fn write(&self, compiled: &Compiled, backend: &str) -> io::Result<()> {
        let new = self.dir.join(format!("{NPC_SNAPSHOT}.new"));
        let written = fs::create_dir_all(&self.dir)
            .and_then(|()| self.write_new(&new, compiled, backend))
            .and_then(|()| fs::rename(&new, self.path()))
            // The rename itself is on disk only when the directory is.
            .and_then(|()| File::open(&self.dir)?.sync_all());
        written.inspect_err(|_| {
            // The error that counts is the first.
            let _ = fs::remove_file(&new);
            let _ = fs::remove_file(self.path());
        })
    }

    fn write_new(&self, path: &Path, compiled: &Compiled, backend: &str) -> io::Result<()> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        let body = Body {
            cluster: self.cluster.clone(),
            node: self.node.clone(),
            backend: backend.to_owned(),
            blocks: compiled.view.blocks.clone(),
            gateways: compiled.view.gateways.clone(),
            model: &compiled.model,
        };
        // Never as a whole in memory: a large state is written beside the one that is in use.
        let mut to = Summing::new(BufWriter::new(file));
        writeln!(to, "{MAGIC}{FORMAT}")?;
        serde_json::to_writer(&mut to, &body)?;
        to.write_all(b"\n")?;
        let sum = trailer(to.sum.clone().finalize());
        to.write_all(sum.as_bytes())?;
        let file = to.inner.into_inner()?;
        file.sync_all()
    }
}

fn trailer(sum: u32) -> String {
    format!("{sum:08x}\n")
}

/// Adds up what is written, and refuses what would not be read.
struct Summing<W> {
    inner: W,
    sum: crc32fast::Hasher,
    length: u64,
}

impl<W: Write> Summing<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            sum: crc32fast::Hasher::new(),
            length: 0,
        }
    }
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.length + bytes.len() as u64 > MAX_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("the state has more than {MAX_BYTES} bytes"),
            ));
        }
        let n = self.inner.write(bytes)?;
        self.sum.update(&bytes[..n]);
        self.length += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Hands over what is in force; the newest counts.
pub(crate) type InForce = watch::Receiver<Option<Arc<Compiled>>>;

/// Writes what is in force, at most once in [`PAUSE`], and what is newest when `token` is cancelled.
pub(crate) async fn run(
    file: SnapshotFile,
    backend: InUse,
    mut in_force: InForce,
    token: CancellationToken,
) {
    let file = Arc::new(file);
    let mut written: Option<Arc<Compiled>> = None;
    let mut failing = false;
    loop {
        let stopping = tokio::select! {
            () = token.cancelled() => true,
            // The sync loop ends with us.
            changed = in_force.changed() => changed.is_err(),
            // What could not be written is tried again.
            () = sleep(RETRY), if failing => false,
        };
        let newest = in_force.borrow_and_update().clone();
        let same = match (&newest, &written) {
            (Some(newest), Some(written)) => Arc::ptr_eq(newest, written),
            (None, _) => true,
            (Some(_), None) => false,
        };
        if let Some(newest) = newest.filter(|_| !same) {
            let result = {
                let (file, backend, newest) =
                    (Arc::clone(&file), backend.get(), Arc::clone(&newest));
                tokio::task::spawn_blocking(move || file.write(&newest, &backend)).await
            };
            let result = result.unwrap_or_else(|panic| Err(io::Error::other(panic)));
            if let Err(error) = &result
                && !failing
            {
                tracing::error!(%error, path = %file.path().display(), "cannot write the snapshot \
                    of the last state; after a reboot without the API this node's pods stay closed");
            }
            if result.is_ok() && failing {
                tracing::info!("the snapshot of the last state is written again");
            }
            failing = result.is_err();
            written = result.ok().map(|()| newest);
        }
        if stopping {
            return;
        }
        tokio::select! {
            () = token.cancelled() => {}
            () = sleep(PAUSE) => {}
        }
    }
}

#[cfg(test)]
mod tests;
