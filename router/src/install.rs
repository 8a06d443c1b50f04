//! `weft-router install-cni`: the plugins into the host's directory.

mod version;

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use anyhow::Context;

use crate::args::InstallArgs;
use version::Version;

/// Plugins of the CNI project that we bring for hosts that have none.
const CHAINED: [&str; 3] = ["portmap", "bandwidth", "loopback"];

/// Copies `weft-cni` always, and the others where they are missing. What the host has of those is
/// left alone, because another network may rely on it, and reported where it is too old.
///
/// # Errors
/// A file cannot be read or written.
pub async fn install(args: &InstallArgs) -> anyhow::Result<()> {
    fs::create_dir_all(&args.bin_dir)
        .with_context(|| format!("cannot make the directory {}", args.bin_dir.display()))?;
    copy(&args.source_dir, &args.bin_dir, "weft-cni")?;
    for plugin in CHAINED {
        if args.bin_dir.join(plugin).exists() {
            report(plugin, &args.bin_dir.join(plugin)).await;
        } else if args.source_dir.join(plugin).exists() {
            copy(&args.source_dir, &args.bin_dir, plugin)?;
        } else {
            tracing::warn!(plugin, "Neither the host nor the image has it");
        }
    }
    Ok(())
}

/// All or nothing: the runtime may start the plugin at any moment.
fn copy(from: &Path, to: &Path, name: &str) -> anyhow::Result<()> {
    let (source, target) = (from.join(name), to.join(name));
    let new = to.join(format!(".{name}.new"));
    let place = || -> io::Result<()> {
        fs::copy(&source, &new)?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
        fs::File::open(&new)?.sync_all()?;
        fs::rename(&new, &target)
    };
    place().with_context(|| {
        format!(
            "cannot install {} as {}",
            source.display(),
            target.display()
        )
    })?;
    tracing::info!(path = %target.display(), "Installed");
    Ok(())
}

/// Says what the host has, and what to do about it.
async fn report(plugin: &str, path: &Path) {
    let found = version::of(path).await;
    match advice(plugin, path, &found) {
        Some(advice) => tracing::warn!(plugin, "{advice}"),
        None => tracing::info!(plugin, version = ?found.ok(), "The host has its own"),
    }
}

/// What is wrong with a plugin of the host and what to do; `None` if it is recent.
fn advice(plugin: &str, path: &Path, found: &Result<Version, String>) -> Option<String> {
    let path = path.display();
    let remedy = format!(
        "upgrade the host's CNI plugins, or remove {path} and delete the pod weft-node of this node: \
         it brings a recent one"
    );
    let fixed = version::FIXED;
    match found {
        Ok(version) if *version >= fixed => None,
        Ok(version) if plugin == "portmap" => Some(format!(
            "the host's {path} is {version}; before {fixed} a hostPort may catch traffic to other \
             hosts (CVE-2025-67499): {remedy}"
        )),
        Ok(version) => Some(format!(
            "the host's {path} is {version}, older than {fixed}: {remedy}"
        )),
        Err(why) => Some(format!(
            "cannot tell the version of the host's {path} ({why}); portmap before {fixed} may catch \
             traffic to other hosts (CVE-2025-67499): {remedy}"
        )),
    }
}

#[cfg(test)]
mod tests;
