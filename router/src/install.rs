//! `weft-router install-cni`: the plugins into the host's directory.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use anyhow::Context;

use crate::args::InstallArgs;

/// Plugins of the CNI project that we bring for hosts that have none.
const CHAINED: [&str; 3] = ["portmap", "bandwidth", "loopback"];

/// Copies `weft-cni` always, and the others where they are missing. What the host has of those is
/// left alone: another network may rely on it.
///
/// # Errors
/// A file cannot be read or written.
pub fn install(args: &InstallArgs) -> anyhow::Result<()> {
    fs::create_dir_all(&args.bin_dir)
        .with_context(|| format!("cannot make the directory {}", args.bin_dir.display()))?;
    copy(&args.source_dir, &args.bin_dir, "weft-cni")?;
    for plugin in CHAINED {
        if args.bin_dir.join(plugin).exists() {
            tracing::info!(plugin, "The host has its own");
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
