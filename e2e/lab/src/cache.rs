//! A directory of built things, named by what they were built from. An entry appears whole or not
//! at all and never changes; the cache survives `cargo clean` and is shared by all checkouts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use sha2::{Digest, Sha256};

use crate::image::hex;

#[cfg(test)]
mod tests;

/// Hash of everything that an entry is made from.
#[derive(Clone, Default)]
pub(crate) struct Inputs(Sha256);

impl Inputs {
    /// Adds a part. Its length goes in too, so that parts cannot run into each other.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Adds a file's content.
    pub(crate) fn add_file(&mut self, path: &Path) -> anyhow::Result<()> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        self.add(&bytes);
        Ok(())
    }

    /// `<name>-<version>-<12 digits of the hash>`.
    pub(crate) fn entry(self, name: &str, version: &str) -> String {
        format!("{name}-{version}-{}", &hex(&self.0.finalize())[..12])
    }
}

/// The entry's directory, if it was built.
pub(crate) fn find(cache: &Path, entry: &str) -> Option<PathBuf> {
    let path = cache.join(entry);
    path.is_dir().then_some(path)
}

/// Builds an entry in a directory of its own and publishes it. The caller holds the cache's lock.
pub(crate) fn build(
    cache: &Path,
    entry: &str,
    build: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    // One name per entry: what an interrupted build left behind is replaced, not collected.
    let staging = cache.join(format!(".partial-{entry}"));
    let context = || format!("cannot prepare {}", staging.display());
    if staging.exists() {
        fs::remove_dir_all(&staging).with_context(context)?;
    }
    fs::create_dir_all(&staging).with_context(context)?;
    build(&staging)?;
    let path = cache.join(entry);
    fs::rename(&staging, &path)
        .with_context(|| format!("cannot publish {} as {}", staging.display(), path.display()))?;
    Ok(path)
}
