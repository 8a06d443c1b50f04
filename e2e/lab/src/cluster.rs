//! The verbs of a lab.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::layout::Layout;
use crate::lock::{Lock, try_lock};
use crate::namespace::{Namespaces, environment};
use crate::node;
use crate::packages;
use crate::programs;
use crate::progress::Progress;
use crate::state::{Phase, State, Store};
use crate::status::{self, Status};

mod component;
mod daemons;
mod nodes;
mod startup;
mod teardown;

pub use component::Component;

/// A checkout's lab.
#[derive(Debug, Clone)]
pub struct Lab {
    layout: Layout,
    progress: Progress,
}

impl Lab {
    /// The lab with these directories; nothing is looked at yet.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            progress: Progress::start(),
        }
    }

    /// Where the lab keeps its files.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Builds every program and image that is not in the cache.
    ///
    /// # Errors
    /// A missing Go or C compiler, a package that cannot be installed, a failed build (with the end
    /// of its log).
    pub fn build(&self) -> anyhow::Result<()> {
        packages::ensure(self.progress)?;
        programs::ensure(&self.layout, self.progress).map(drop)
    }

    /// Path of helm, in the version of the lab; built when it is not in the cache.
    ///
    /// # Errors
    /// As [`Lab::build`].
    pub fn helm(&self) -> anyhow::Result<PathBuf> {
        programs::helm(&self.layout, self.progress)
    }

    /// Directory of the reference CNI plugins (`bandwidth`, `bridge`, `host-local`, `loopback`,
    /// `portmap`; static) for a processor; `goarch` is Go's word for it.
    ///
    /// # Errors
    /// As [`Lab::build`].
    pub fn cni_plugins(&self, goarch: &str) -> anyhow::Result<PathBuf> {
        programs::cni_plugins(&self.layout, goarch, self.progress)
    }

    /// Path of upstream's NetworkPolicy suite, a program with the flags of `e2e.test`.
    ///
    /// # Errors
    /// As [`Lab::build`].
    pub fn netpol(&self) -> anyhow::Result<PathBuf> {
        programs::netpol(&self.layout, self.progress)
    }

    /// Gives every node an image archive, and every node that is added later.
    ///
    /// # Errors
    /// No lab, an archive that cannot be read or imported.
    pub fn load_image(&self, archive: &Path) -> anyhow::Result<()> {
        require_root("load-image")?;
        let _lock = self.lock()?;
        let store = self.open()?;
        let name = archive
            .file_name()
            .context("the archive has no file name")?;
        let images = self.layout.root().join("images");
        let kept = images.join(name);
        fs::create_dir_all(&images)
            .and_then(|()| fs::copy(archive, &kept))
            .with_context(|| format!("cannot read the image archive {}", archive.display()))?;
        store.change(|state| {
            if !state.images.contains(&kept) {
                state.images.push(kept.clone());
            }
        })?;
        let state = store.get();
        let names: Vec<&String> = state.nodes.keys().collect();
        in_parallel(&names, |name| {
            node::import(&self.namespaces(&state, name)?, &kept)
                .with_context(|| format!("{name}: cannot import {}", archive.display()))
        })?;
        self.progress
            .say(format!("{} is on {} nodes", archive.display(), names.len()));
        Ok(())
    }

    /// What is up; `None` when nothing is.
    ///
    /// # Errors
    /// A broken state file.
    pub fn status(&self) -> anyhow::Result<Option<Status>> {
        Ok(State::read(&self.layout.state())?.map(|state| status::of(&self.layout, &state)))
    }

    /// Replaces this process by a command in a member's namespaces.
    ///
    /// # Errors
    /// No lab, no such member, a command that cannot be run; otherwise it does not return.
    pub fn enter(&self, member: &str, words: &[String]) -> anyhow::Result<()> {
        require_root("enter")?;
        let state = self.state()?;
        crate::enter::enter(&self.namespaces(&state, member)?, words)
    }

    fn lock(&self) -> anyhow::Result<Lock> {
        let busy = "another lab command is at work in this checkout; wait for it or end it";
        try_lock(&self.layout.lock(), busy)
    }

    fn state(&self) -> anyhow::Result<State> {
        State::read(&self.layout.state())?
            .context("no lab is up in this checkout; start one by `cargo xtask lab up`")
    }

    /// The state of a lab that is up, to change it.
    fn open(&self) -> anyhow::Result<Store> {
        let state = self.state()?;
        if state.phase != Phase::Up {
            bail!(
                "the lab is not up but {:?}; run `cargo xtask lab down`",
                state.phase
            );
        }
        Store::create(self.layout.state(), state)
    }

    fn namespaces(&self, state: &State, member: &str) -> anyhow::Result<Namespaces> {
        let Some(holder) = state.holders.get(member) else {
            let members: Vec<&str> = state.holders.keys().map(String::as_str).collect();
            bail!("the lab has no {member:?}; it has {}", members.join(", "));
        };
        let environment = environment(&state.id, member, &self.layout.programs());
        Ok(Namespaces {
            holder: *holder,
            environment,
        })
    }
}

/// Runs `work` for every item on a thread of its own; the first error counts.
fn in_parallel<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = items
            .iter()
            .map(|item| scope.spawn(move || work(item)))
            .collect();
        // All are waited for, also after an error: nobody works on in the background.
        let results: Vec<anyhow::Result<()>> = threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| bail!("a thread of the lab panicked"))
            })
            .collect();
        results.into_iter().collect()
    })
}

fn require_root(verb: &str) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "`lab {verb}` makes namespaces, mounts and cgroups and needs root; run it by sudo \
             (with your PATH: `sudo --preserve-env=PATH,HOME cargo xtask lab {verb}`)"
        );
    }
    Ok(())
}

fn require_node(state: &State, name: &str) -> anyhow::Result<()> {
    if !state.nodes.contains_key(name) {
        let nodes: Vec<&str> = state.nodes.keys().map(String::as_str).collect();
        bail!("the lab has no node {name:?}; it has {}", nodes.join(", "));
    }
    Ok(())
}
