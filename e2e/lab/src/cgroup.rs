//! The cgroups of a lab's nodes: one tree per lab, in every hierarchy that the machine has.
//!
//! On cgroup v1 each controller is a mount of its own, and a kubelet needs its root in all of them;
//! on v2 there is one tree and the controllers are switched on from above.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::wait;

#[cfg(test)]
mod tests;

const MOUNT: &str = "/sys/fs/cgroup";

/// Name of a lab's tree; the id makes it unmistakable.
pub(crate) fn tree(lab: &str) -> String {
    format!("weft-lab-{lab}")
}

/// `cgroupRoot` of a node's kubelet.
pub(crate) fn node_root(lab: &str, node: &str) -> String {
    format!("/{}/{node}", tree(lab))
}

/// Every mounted hierarchy that has controllers or is named.
fn hierarchies() -> anyhow::Result<Vec<PathBuf>> {
    let root = Path::new(MOUNT);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(root).with_context(|| format!("cannot list {MOUNT}"))? {
        let entry = entry?;
        // `cpu -> cpu,cpuacct` is a second name of one hierarchy.
        let is_link = entry.file_type()?.is_symlink();
        if !is_link && entry.path().join("cgroup.procs").exists() {
            found.push(entry.path());
        }
    }
    found.sort();
    anyhow::ensure!(
        !found.is_empty(),
        "no cgroup hierarchy is mounted below {MOUNT}"
    );
    Ok(found)
}

/// Makes a node's cgroup in every hierarchy.
pub(crate) fn create(lab: &str, node: &str) -> anyhow::Result<()> {
    for hierarchy in hierarchies()? {
        create_in(&hierarchy, &[&tree(lab), node])
            .with_context(|| format!("cannot make a cgroup in {}", hierarchy.display()))?;
    }
    Ok(())
}

fn create_in(hierarchy: &Path, names: &[&str]) -> anyhow::Result<()> {
    let mut parent = hierarchy.to_owned();
    for name in names {
        if parent.join("cgroup.subtree_control").exists() {
            enable_controllers(&parent)?;
        }
        let child = parent.join(name);
        // Not `create_dir` after a look: two nodes are made at once.
        fs::create_dir_all(&child)?;
        // On v1 a new cpuset is empty, and no process can enter it.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let target = child.join(file);
            let is_v1 = !parent.join("cgroup.controllers").exists();
            if is_v1 && target.exists() {
                fs::write(&target, fs::read(parent.join(file))?)?;
            }
        }
        parent = child;
    }
    Ok(())
}

/// v2: lets children use every controller that the parent has.
fn enable_controllers(parent: &Path) -> anyhow::Result<()> {
    let has = fs::read_to_string(parent.join("cgroup.controllers"))?;
    let enabled = fs::read_to_string(parent.join("cgroup.subtree_control"))?;
    let missing = missing_controllers(&has, &enabled);
    if missing.is_empty() {
        return Ok(());
    }
    fs::write(parent.join("cgroup.subtree_control"), &missing).with_context(|| {
        format!(
            "cannot write {missing:?} to {}/cgroup.subtree_control (a cgroup with processes of its \
             own cannot have children with controllers)",
            parent.display()
        )
    })
}

/// What a kubelet needs of the controllers and is not yet enabled, as the kernel wants it written.
fn missing_controllers(has: &str, enabled: &str) -> String {
    let has: BTreeSet<&str> = has.split_whitespace().collect();
    let enabled: BTreeSet<&str> = enabled.split_whitespace().collect();
    ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"]
        .iter()
        .filter(|name| has.contains(**name) && !enabled.contains(**name))
        .map(|name| format!("+{name}"))
        .collect::<Vec<_>>()
        .join(" ")
}

/// Every process in the lab's tree, or in one node's part of it.
pub(crate) fn processes(lab: &str, node: Option<&str>) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    for top in tops(lab, node) {
        for directory in below(&top) {
            let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        }
    }
    found
}

/// Removes the lab's tree, or one node's part of it. Its processes must be gone.
pub(crate) fn remove(lab: &str, node: Option<&str>) -> anyhow::Result<()> {
    for top in tops(lab, node) {
        // The kernel lets go of a cgroup a little after its last process.
        let what = format!("{} to be removable", top.display());
        wait::until(
            &what,
            Duration::from_secs(10),
            Duration::from_millis(20),
            || {
                for directory in below(&top).iter().rev() {
                    match fs::remove_dir(directory) {
                        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                            return Err(format!("{}: {error}", directory.display()));
                        }
                        _ => {}
                    }
                }
                Ok(())
            },
        )?;
    }
    Ok(())
}

fn tops(lab: &str, node: Option<&str>) -> Vec<PathBuf> {
    hierarchies()
        .unwrap_or_default()
        .into_iter()
        .map(|hierarchy| hierarchy.join(tree(lab)))
        .map(|top| node.map_or_else(|| top.clone(), |node| top.join(node)))
        .filter(|top| top.exists())
        .collect()
}

/// A directory and everything below it, parents first.
fn below(top: &Path) -> Vec<PathBuf> {
    let mut all = vec![top.to_owned()];
    let mut next = 0;
    while next < all.len() {
        if let Ok(entries) = fs::read_dir(&all[next]) {
            all.extend(
                entries
                    .flatten()
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path()),
            );
        }
        next += 1;
    }
    all
}
