//! `down`: removes everything that a lab made, however far it came, and nothing else.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

use super::{Lab, require_root};
use crate::cgroup;
use crate::process::{LAB_MARK, Marks, sweep};
use crate::state::{Phase, State, Store};
use crate::underlay;

impl Lab {
    /// Removes the lab: processes, namespaces, devices, cgroups, files. Returns whether there was
    /// one. Works after a crash at any point of `up`, and when the state file was deleted or broken.
    ///
    /// # Errors
    /// No root, another verb at work, something that cannot be removed (then it can be run again).
    pub fn down(&self) -> anyhow::Result<bool> {
        require_root("down")?;
        let _lock = self.lock()?;
        let path = self.layout.state();
        let (id, namespaces) = match State::read(&path) {
            Ok(Some(state)) => {
                let store = Store::create(path, state)?;
                store.change(|state| state.phase = Phase::Stopping)?;
                let state = store.get();
                (state.id.clone(), self.identities(&state))
            }
            unknown => {
                let Some(id) = self.id_without_state()? else {
                    // Files without a state or a device: `up` ended before it made anything.
                    unknown?;
                    return self.remove_files();
                };
                if let Err(error) = unknown {
                    self.progress
                        .say(format!("{error:#}; going by the lab's marks"));
                }
                (id, BTreeSet::new())
            }
        };
        let environment = vec![format!("{LAB_MARK}={id}")];
        sweep(
            Marks {
                environment,
                namespaces,
                ..Marks::default()
            },
            || cgroup::processes(&id, None),
        )?;
        underlay::remove(&id)?;
        cgroup::remove(&id, None)?;
        self.remove_files()?;
        self.progress.say("the lab is down");
        Ok(true)
    }

    /// The namespaces that are still held open.
    fn identities(&self, state: &State) -> BTreeSet<String> {
        state
            .holders
            .keys()
            .filter_map(|member| self.namespaces(state, member).ok())
            .flat_map(|namespaces| namespaces.identities())
            .collect()
    }

    /// The lab's id by its device in the root namespace, when the state file cannot say it.
    fn id_without_state(&self) -> anyhow::Result<Option<String>> {
        match underlay::owner()? {
            Some(owner) if owner.root == self.layout.root() => Ok(Some(owner.lab)),
            Some(owner) => bail!(
                "this checkout has no lab; the one that is up belongs to {}",
                owner.root.display()
            ),
            None => Ok(None),
        }
    }

    fn remove_files(&self) -> anyhow::Result<bool> {
        let root = self.layout.root();
        if !root.exists() {
            return Ok(false);
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot list mounts")?;
        let mounts = mounts_below(&mounts, root);
        if !mounts.is_empty() {
            bail!(
                "something is mounted in the lab's directory, and not by the lab: {}; unmount it and \
                 run `cargo xtask lab down` again",
                mounts.join(", ")
            );
        }
        fs::remove_dir_all(root).with_context(|| format!("cannot remove {}", root.display()))?;
        Ok(true)
    }
}

/// Mount points at or below `root` (field 5 of `/proc/PID/mountinfo`).
fn mounts_below(mounts: &str, root: &Path) -> Vec<String> {
    mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| Path::new(point).starts_with(root))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_in_the_labs_directory_are_seen_and_no_others() {
        let mounts = "22 1 8:1 / / rw - ext4 /dev/vda rw\n\
                      30 22 0:9 / /src/target/lab/nodes/n1 rw - tmpfs tmpfs rw\n\
                      31 22 0:9 / /src/target/laboratory rw - tmpfs tmpfs rw\n";
        let root = Path::new("/src/target/lab");
        assert_eq!(mounts_below(mounts, root), ["/src/target/lab/nodes/n1"]);
    }
}
