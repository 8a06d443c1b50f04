//! The file tree of the image, chosen from the unpacked packages: the programs weft calls, the
//! shared libraries they need, and a shell for people who debug.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::{Arch, Placed};
use crate::command::{command, output};

/// Programs taken from the packages.
const PROGRAMS: [&str; 9] = [
    "usr/sbin/xtables-nft-multi",
    "usr/sbin/xtables-legacy-multi",
    "usr/sbin/ipset",
    "usr/sbin/nft",
    "usr/sbin/conntrack",
    "usr/bin/ip",
    "usr/bin/ss",
    "usr/sbin/bridge",
    // The shell: busybox' own prefers its applets to the `ip` that is installed.
    "usr/bin/dash",
];

/// Names under which `xtables-*-multi` is called. Without suffix it is the nft variant, as Debian
/// has it; weft itself always calls a variant by its full name.
const IPTABLES: [&str; 6] = [
    "iptables",
    "iptables-save",
    "iptables-restore",
    "ip6tables",
    "ip6tables-save",
    "ip6tables-restore",
];

/// Applets of busybox that get a name.
const APPLETS: [&str; 39] = [
    "arping", "awk", "basename", "cat", "chmod", "cp", "cut", "date", "df", "dirname", "du",
    "echo", "env", "false", "find", "grep", "head", "hostname", "id", "kill", "less", "ln", "ls",
    "mkdir", "mount", "nc", "nslookup", "ping", "ps", "readlink", "rm", "sed", "sleep", "sort",
    "tail", "top", "true", "vi", "wget",
];

const PASSWD: &str =
    "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";
/// ipset takes the names of protocols from here (getprotobyname(3)): without it every set of ports
/// is refused. Numbers from IANA's registry of assigned protocol numbers.
const PROTOCOLS: &str = "icmp 1 ICMP\ntcp 6 TCP\nudp 17 UDP\nipv6-icmp 58 IPv6-ICMP\nsctp 132 SCTP\nudplite 136 UDPLite\n";
const NSSWITCH: &str =
    "passwd: files\ngroup: files\nhosts: files dns\nnetworks: files\nprotocols: files\n";

/// Makes the tree anew at `root`.
pub(super) fn assemble(root: &Path, arch: Arch, files: &[Placed], userland: &Path) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("remove {}", root.display()))?;
    }
    for directory in [
        "usr/bin",
        "usr/sbin",
        "usr/lib",
        "usr/lib64",
        "etc",
        "tmp",
        "run",
        "var/lib",
        "proc",
        "sys",
        "dev",
        "opt/weft/cni",
    ] {
        fs::create_dir_all(root.join(directory))?;
    }
    for merged in ["bin", "sbin", "lib", "lib64"] {
        symlink(format!("usr/{merged}"), root.join(merged))?;
    }
    symlink("../run", root.join("var/run"))?;
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    fs::write(root.join("etc/passwd"), PASSWD)?;
    fs::write(root.join("etc/group"), GROUP)?;
    fs::write(root.join("etc/nsswitch.conf"), NSSWITCH)?;
    fs::write(root.join("etc/protocols"), PROTOCOLS)?;

    for Placed { source, directory } in files {
        let name = source.file_name().context("a file has a name")?;
        copy(source, &root.join(directory).join(name))?;
    }
    let mut copied = Vec::new();
    for program in PROGRAMS {
        copy(&userland.join(program), &root.join(program))?;
        copied.push(root.join(program));
    }
    for family in IPTABLES {
        let (base, action) = family
            .split_once('-')
            .map_or((family, String::new()), |(b, a)| (b, format!("-{a}")));
        for variant in ["nft", "legacy"] {
            symlink(
                format!("xtables-{variant}-multi"),
                root.join(format!("usr/sbin/{base}-{variant}{action}")),
            )?;
        }
        symlink("xtables-nft-multi", root.join("usr/sbin").join(family))?;
    }
    // Extensions of iptables are opened by name at run time.
    let extensions = format!("usr/lib/{}/xtables", arch.multiarch());
    for entry in fs::read_dir(userland.join(&extensions))? {
        let entry = entry?;
        let target = root.join(&extensions).join(entry.file_name());
        copy(&entry.path(), &target)?;
        copied.push(target);
    }
    busybox(root, userland)?;
    libraries(root, arch, userland, copied)?;
    copyrights(root, userland)
}

fn busybox(root: &Path, userland: &Path) -> Result<()> {
    copy(
        &userland.join("usr/bin/busybox"),
        &root.join("usr/bin/busybox"),
    )?;
    for applet in APPLETS {
        symlink("busybox", root.join("usr/bin").join(applet))
            .with_context(|| format!("applet {applet}"))?;
    }
    symlink("dash", root.join("usr/bin/sh")).context("the shell")?;
    Ok(())
}

/// Copies the loader and every library that `open` needs, and what those need.
fn libraries(root: &Path, arch: Arch, userland: &Path, mut open: Vec<PathBuf>) -> Result<()> {
    let directory = format!("usr/lib/{}", arch.multiarch());
    let mut done = BTreeSet::new();
    while let Some(file) = open.pop() {
        let dynamic = output(command(
            "readelf",
            &["--dynamic".as_ref(), "--wide".as_ref(), file.as_os_str()],
        ))?;
        for name in needed(&dynamic) {
            if !done.insert(name.clone()) {
                continue;
            }
            let source = userland.join(&directory).join(&name);
            ensure!(
                source.exists(),
                "{} needs {name}, which no package of the image brings",
                file.display()
            );
            let target = root.join(&directory).join(&name);
            copy(&source, &target)?;
            open.push(target);
        }
    }
    // The interpreter is named by an absolute path, which differs from the library directory.
    let (loader, place) = match arch {
        Arch::Amd64 => ("ld-linux-x86-64.so.2", "usr/lib64"),
        Arch::Arm64 => ("ld-linux-aarch64.so.1", "usr/lib"),
    };
    if !done.contains(loader) {
        copy(
            &userland.join(&directory).join(loader),
            &root.join(&directory).join(loader),
        )?;
    }
    let relative = format!("/{directory}/{loader}");
    symlink(relative, root.join(place).join(loader))?;
    Ok(())
}

/// Names after `NEEDED` in the output of `readelf --dynamic`.
fn needed(dynamic: &str) -> Vec<String> {
    dynamic
        .lines()
        .filter(|line| line.contains("(NEEDED)"))
        .filter_map(|line| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned()))
        .collect()
}

/// Licence texts of what was copied: Debian keeps one file per package.
fn copyrights(root: &Path, userland: &Path) -> Result<()> {
    for entry in fs::read_dir(userland.join("usr/share/doc"))? {
        let entry = entry?;
        let source = entry.path().join("copyright");
        // A link leads to the package it was built with, whose text is there as well.
        if source.is_file() && !entry.path().is_symlink() {
            copy(
                &source,
                &root
                    .join("usr/share/doc")
                    .join(entry.file_name())
                    .join("copyright"),
            )?;
        }
    }
    Ok(())
}

/// Copies what a link points to, so that no chain of links has to be kept whole.
fn copy(source: &Path, target: &Path) -> Result<()> {
    if let Some(directory) = target.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::copy(source, target)
        .with_context(|| format!("copy {} to {}", source.display(), target.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needed_libraries_are_read_from_readelf() {
        let text = "\
Dynamic section at offset 0x1 contains 2 entries:
 0x0000000000000001 (NEEDED)             Shared library: [libmnl.so.0]
 0x0000000000000001 (NEEDED)             Shared library: [libc.so.6]
 0x000000000000000e (SONAME)             Library soname: [libx.so.1]
";
        assert_eq!(needed(text), vec!["libmnl.so.0", "libc.so.6"]);
    }
}
