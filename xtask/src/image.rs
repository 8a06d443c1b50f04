//! `cargo xtask image`: the one OCI image of weft, made without an engine, registry or root.
//!
//! ```text
//! cargo build (static)  --+
//! CNI plugins (go)      --+--> target/image/root/<arch>/  --> target/image/weft.tar
//! Debian packages (apt) --+        (Dockerfile copies it)      (ctr images import, docker load)
//! ```
//!
//! The same inputs give the same bytes: entries are sorted, owners and times fixed. When no input
//! changed since the last run, nothing is written.

mod debian;
mod oci;
mod root;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::{
    command::{at, command, output, run},
    lab, packages,
};

/// Reference under which the image is imported and which the chart's values name.
pub(crate) const REFERENCE: &str = concat!("docker.io/weft/weft:", env!("CARGO_PKG_VERSION"));

/// Crates whose binaries are in the image, with the directory they go to.
const BINARIES: [(&str, &str); 5] = [
    ("weft-operator", "usr/bin"),
    ("weft-router", "usr/bin"),
    ("weft-npc", "usr/bin"),
    ("weft-probe", "usr/bin"),
    ("weft-cni", "opt/weft/cni"),
];

/// CNI plugins of the reference project that the router installs where they are missing.
const PLUGINS: [&str; 3] = ["portmap", "bandwidth", "loopback"];

/// Raised when the way of assembling changes, so that old results are not taken for fresh.
const ASSEMBLY: u32 = 1;

/// Processor the image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Arch {
    /// x86_64.
    Amd64,
    /// aarch64.
    Arm64,
}

impl Arch {
    /// Of this machine.
    pub(crate) fn host() -> Self {
        if cfg!(target_arch = "aarch64") {
            Self::Arm64
        } else {
            Self::Amd64
        }
    }

    /// Debian's, Go's and OCI's word for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    fn rust_target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// Directory of libraries under `usr/lib`.
    fn multiarch(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
        }
    }
}

/// Makes the image and checks that the programs in it start. Gives the path of the archive.
///
/// # Errors
/// A build or download failed, or a program in the image does not start.
pub(crate) fn build(arch: Arch) -> Result<PathBuf> {
    let directory = at("target/image");
    fs::create_dir_all(&directory)?;
    let archive = directory.join(if arch == Arch::host() {
        "weft.tar".into()
    } else {
        format!("weft-{}.tar", arch.name())
    });

    let mut files = binaries(arch)?;
    files.extend(plugins(arch)?);
    let userland = debian::extract(arch)?;

    let stamp_path = directory.join(format!("stamp-{}", arch.name()));
    let root = directory.join("root").join(arch.name());
    let stamp = stamp(&files, &userland)?;
    if archive.exists()
        && root.exists()
        && fs::read_to_string(&stamp_path).is_ok_and(|present| present == stamp)
    {
        println!("image {REFERENCE} is up to date: {}", archive.display());
        return Ok(archive);
    }

    // The stamp is removed first and written last: a run cut short is never taken for complete.
    let _ = fs::remove_file(&stamp_path);
    root::assemble(&root, arch, &files, &userland.directory)?;
    if arch == Arch::host() {
        check(&root)?;
    }
    oci::write(&archive, &root, REFERENCE, arch)?;
    fs::write(&stamp_path, stamp)?;
    println!(
        "image {REFERENCE} ({}): {} MB in {}",
        arch.name(),
        fs::metadata(&archive)?.len() / 1_000_000,
        archive.display()
    );
    Ok(archive)
}

/// A file to put into the root, with its directory there.
struct Placed {
    source: PathBuf,
    directory: &'static str,
}

fn binaries(arch: Arch) -> Result<Vec<Placed>> {
    let directory = compile(arch, &BINARIES.map(|(package, _)| package))?;
    Ok(BINARIES
        .iter()
        .map(|(name, place)| Placed {
            source: directory.join(name),
            directory: place,
        })
        .collect())
}

/// Builds programs as they are in the image. Gives the directory that their programs are in.
///
/// # Errors
/// The build failed.
pub(crate) fn compile(arch: Arch, crates: &[&str]) -> Result<PathBuf> {
    let target = arch.rust_target();
    let mut arguments = vec!["build", "--locked", "--release", "--target", target];
    for package in crates {
        arguments.extend(["--package", package]);
    }
    let mut build = command("cargo", &arguments);
    // Static, so that the binaries need nothing of the node or of the image; `--target` keeps the
    // flag away from build scripts and macros.
    build.env("RUSTFLAGS", "-C target-feature=+crt-static");
    if arch != Arch::host() {
        packages::install(
            "cross build for arm64",
            &["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross"],
        )?;
        run(command("rustup", &["target", "add", target]))?;
        build.env(
            "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
            "aarch64-linux-gnu-gcc",
        );
    }
    println!(
        "building static release binaries for {} (minutes when cold)",
        arch.name()
    );
    run(build)?;
    Ok(at(&format!("target/{target}/release")))
}

fn plugins(arch: Arch) -> Result<Vec<Placed>> {
    let directory = lab::of_this_checkout()?.cni_plugins(arch.name())?;
    PLUGINS
        .iter()
        .map(|name| {
            let source = directory.join(name);
            ensure!(source.is_file(), "no CNI plugin at {}", source.display());
            Ok(Placed {
                source,
                directory: "opt/weft/cni",
            })
        })
        .collect()
}

/// What the image is made of. Sizes and times instead of contents: cargo, go and apt do not touch
/// a file that did not change.
fn stamp(files: &[Placed], userland: &debian::Userland) -> Result<String> {
    let mut text = format!("assembly {ASSEMBLY}\nimage {REFERENCE}\n");
    for Placed { source, directory } in files {
        let meta = fs::metadata(source).with_context(|| format!("{}", source.display()))?;
        text.push_str(&format!(
            "{directory} {} {} {}.{:09}\n",
            source.display(),
            meta.len(),
            meta.mtime(),
            meta.mtime_nsec()
        ));
    }
    for package in &userland.packages {
        text.push_str(&format!("package {package}\n"));
    }
    Ok(text)
}

/// Programs that must start inside the root, with a word that their output holds.
const STARTS: [(&str, &[&str], &str); 16] = [
    ("/usr/sbin/iptables", &["--version"], "nf_tables"),
    ("/usr/sbin/iptables-nft", &["--version"], "nf_tables"),
    ("/usr/sbin/iptables-legacy", &["--version"], "legacy"),
    ("/usr/sbin/ip6tables-nft", &["--version"], "nf_tables"),
    ("/usr/sbin/ip6tables-legacy", &["--version"], "legacy"),
    (
        "/usr/sbin/iptables-nft-restore",
        &["--version"],
        "nf_tables",
    ),
    (
        "/usr/sbin/iptables-legacy-restore",
        &["--version"],
        "legacy",
    ),
    ("/usr/sbin/ipset", &["--version"], "ipset"),
    ("/usr/sbin/nft", &["--version"], "nftables"),
    ("/usr/sbin/conntrack", &["--version"], "conntrack"),
    ("/usr/bin/ip", &["-V"], "iproute2"),
    ("/bin/sh", &["-c", "echo shell"], "shell"),
    ("/usr/bin/weft-operator", &["--help"], "weft-operator"),
    ("/usr/bin/weft-router", &["--help"], "weft-router"),
    ("/usr/bin/weft-npc", &["--help"], "weft-npc"),
    ("/usr/bin/weft-probe", &["--help"], "weft-probe"),
];

/// Starts each program with the prepared root as its only file system, in a network namespace of
/// its own (`ipset --version` asks the kernel). `chroot` needs root; a
/// user namespace does as well where the kernel allows it.
fn check(root: &Path) -> Result<()> {
    for (program, arguments, word) in STARTS {
        let mut line = vec!["--map-root-user", "--net", "--root"];
        let text = root.to_string_lossy();
        line.extend([text.as_ref(), program]);
        line.extend(arguments);
        let said = output(command("unshare", &line))
            .with_context(|| format!("{program} does not start inside {text}"))?;
        ensure!(
            said.contains(word),
            "{program} inside {text} said `{}`, expected `{word}` in it",
            said.trim()
        );
    }
    println!("image: {} programs start inside its root", STARTS.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_changes_with_a_binary_and_with_a_package() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("b");
        fs::write(&source, "1").unwrap();
        let files = [Placed {
            source: source.clone(),
            directory: "usr/bin",
        }];
        let userland = |package: &str| debian::Userland {
            directory: PathBuf::new(),
            packages: vec![package.into()],
        };
        let first = stamp(&files, &userland("a_1.deb")).unwrap();
        assert_eq!(stamp(&files, &userland("a_1.deb")).unwrap(), first);
        assert_ne!(stamp(&files, &userland("a_2.deb")).unwrap(), first);
        fs::write(&source, "12").unwrap();
        assert_ne!(stamp(&files, &userland("a_1.deb")).unwrap(), first);
    }

    #[test]
    fn a_root_without_the_programs_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let error = check(root.path()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("/usr/sbin/iptables does not start"),
            "{error}"
        );
    }
}
