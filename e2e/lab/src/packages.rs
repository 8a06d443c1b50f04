//! Debian packages that the lab's nodes use. Missing ones are installed, and nothing else.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::command::{command, output};
use crate::progress::Progress;

#[cfg(test)]
mod tests;

/// A program (found in the usual directories) and the package that brings it.
const PROGRAMS: &[(&str, &str)] = &[
    ("busybox", "busybox-static"),
    ("cc", "gcc"),
    ("conntrack", "conntrack"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("iperf3", "iperf3"),
    ("ipset", "ipset"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("ping", "iputils-ping"),
    ("runc", "runc"),
    ("setsid", "util-linux"),
    ("socat", "socat"),
    ("tcpdump", "tcpdump"),
];

/// Where daemons look for programs, whatever the caller's `PATH` is.
const DIRECTORIES: &[&str] = &[
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// Path of an installed program.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    DIRECTORIES
        .iter()
        .map(|directory| Path::new(directory).join(program))
        .find(|path| path.exists())
}

/// The packages whose programs `find` does not know, each once.
fn missing(find: impl Fn(&str) -> Option<PathBuf>) -> Vec<&'static str> {
    let mut packages: Vec<&str> = PROGRAMS
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

/// Installs what is missing.
///
/// # Errors
/// No `apt-get`, or it failed: the message lists what a person must install.
pub(crate) fn ensure(progress: Progress) -> anyhow::Result<()> {
    let packages = missing(find);
    if packages.is_empty() {
        return require_static_busybox();
    }
    let list = packages.join(" ");
    if find("apt-get").is_none() {
        bail!(
            "these programs are missing, and this machine has no apt-get; install what brings them \
             (Debian's packages are: {list})"
        );
    }
    progress.say(format!("installing Debian packages: {list}"));
    let apt = |arguments: &[&str]| {
        output(
            command("apt-get")
                .args(arguments)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        )
    };
    apt(&["update", "-qq"]).context("cannot update the list of Debian packages")?;
    let install = ["install", "-qq", "--yes", "--no-install-recommends"];
    apt(&[&install[..], &packages].concat())
        .with_context(|| format!("cannot install Debian packages; install them by hand: {list}"))?;
    let still = missing(find);
    if !still.is_empty() {
        bail!(
            "apt-get installed {list}, but programs of {} are still missing",
            still.join(" ")
        );
    }
    require_static_busybox()
}

/// The test image holds nothing but agnhost and busybox, so busybox must need no library.
fn require_static_busybox() -> anyhow::Result<()> {
    let Some(path) = find("busybox") else {
        bail!("busybox is missing")
    };
    let start = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    if needs_interpreter(&start) {
        bail!(
            "{} is linked dynamically; install the Debian package busybox-static instead of busybox",
            path.display()
        );
    }
    Ok(())
}

/// Whether an ELF file names a dynamic loader (its path stands in the first page).
fn needs_interpreter(program: &[u8]) -> bool {
    let head = &program[..program.len().min(4096)];
    let needle: &[u8] = b"/ld-";
    head.windows(needle.len()).any(|window| window == needle)
}
