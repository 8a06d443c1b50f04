//! What a lab has made, on disk before it is made.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use crate::options::Options;
use crate::process::ProcessId;

#[cfg(test)]
mod tests;

/// How far a lab came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// `up` began and did not finish.
    Starting,
    /// `up` finished.
    Up,
    /// `down` began and did not finish.
    Stopping,
}

/// The state file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct State {
    /// Version of this file's form.
    pub(crate) version: u32,
    /// Random name of this lab; part of every mark.
    pub(crate) id: String,
    pub(crate) phase: Phase,
    pub(crate) options: Options,
    /// Index for the next node that is added without a name.
    pub(crate) next_index: u8,
    /// Nodes of the lab by name.
    pub(crate) nodes: BTreeMap<String, u8>,
    /// Processes that hold namespaces open, by member.
    pub(crate) holders: BTreeMap<String, ProcessId>,
    /// Daemons by `member/process`.
    pub(crate) daemons: BTreeMap<String, ProcessId>,
    /// Daemons (`member/process`) and links (`member/link`) that a person stopped.
    pub(crate) stopped: BTreeSet<String>,
    /// Image archives that every node has, in the order of their import.
    pub(crate) images: Vec<PathBuf>,
}

impl State {
    const VERSION: u32 = 1;

    /// A lab of which nothing exists yet.
    pub(crate) fn new(id: String, options: Options) -> Self {
        Self {
            version: Self::VERSION,
            id,
            phase: Phase::Starting,
            next_index: options.nodes + 1,
            options,
            nodes: BTreeMap::new(),
            holders: BTreeMap::new(),
            daemons: BTreeMap::new(),
            stopped: BTreeSet::new(),
            images: Vec::new(),
        }
    }

    /// Reads the state file; `None` when there is none.
    ///
    /// # Errors
    /// A file that cannot be read or is not a state file of this version.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Option<Self>> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        let state: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} is no state file of a lab", path.display()))?;
        if state.version != Self::VERSION {
            bail!(
                "{} has version {}, this program knows {}; run `down` from the checkout that made it",
                path.display(),
                state.version,
                Self::VERSION
            );
        }
        Ok(Some(state))
    }

    /// Replaces the state file as a whole.
    fn write(&self, path: &Path) -> anyhow::Result<()> {
        let staging = path.with_extension("json.partial");
        let context = || format!("cannot write {}", path.display());
        std::fs::write(&staging, serde_json::to_vec_pretty(self)?).with_context(context)?;
        std::fs::rename(&staging, path).with_context(context)
    }
}

/// Key of a daemon or link.
pub(crate) fn key(member: &str, process: &str) -> String {
    format!("{member}/{process}")
}

/// The state shared by the threads of a verb; every change is on disk before anybody acts on it.
pub(crate) struct Store {
    path: PathBuf,
    state: Mutex<State>,
}

impl Store {
    /// Takes over `state` and writes it.
    pub(crate) fn create(path: PathBuf, state: State) -> anyhow::Result<Self> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        state.write(&path)?;
        Ok(Self {
            path,
            state: Mutex::new(state),
        })
    }

    /// Changes the state and writes it.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> anyhow::Result<T> {
        let mut state = self.guard();
        let result = change(&mut state);
        state.write(&self.path)?;
        Ok(result)
    }

    /// A copy of the state.
    pub(crate) fn get(&self) -> State {
        self.guard().clone()
    }

    fn guard(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held leaves a whole state: changes are single assignments.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
