//! The userland of the image: programs of Debian, taken from its packages by apt without touching
//! the packages of this machine (a state directory of its own, also for a foreign architecture).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use super::Arch;
use crate::{
    command::{at, command, output, run},
    lab,
};

/// Packages that bring the programs. What they need is found by [`closure`].
const PACKAGES: [&str; 7] = [
    "iptables",
    "ipset",
    "nftables",
    "conntrack",
    "iproute2",
    "busybox-static",
    "dash",
];

/// Unpacked packages.
pub(super) struct Userland {
    /// Their files, in the merged layout (`bin` is a link to `usr/bin`).
    pub(super) directory: PathBuf,
    /// File names of the packages, which hold name and version.
    pub(super) packages: Vec<String>,
}

/// Downloads the packages (once, into the cache that survives `cargo clean`) and unpacks them.
pub(super) fn extract(arch: Arch) -> Result<Userland> {
    let lab = lab::of_this_checkout()?;
    let cache = lab.layout().cache().join("debian").join(arch.name());
    let complete = cache.join("complete");
    let wanted = PACKAGES.join(" ");
    if !fs::read_to_string(&complete).is_ok_and(|present| present == wanted) {
        download(arch, &cache)?;
        fs::write(&complete, &wanted)?;
    }
    let packages = packages_in(&cache.join("packages"))?;
    ensure!(!packages.is_empty(), "no packages in {}", cache.display());

    let directory = at("target/image/debian").join(arch.name());
    let stamp = directory.with_extension("packages");
    let list = packages.join("\n");
    if !fs::read_to_string(&stamp).is_ok_and(|present| present == list) {
        unpack(&cache.join("packages"), &packages, &directory)?;
        fs::write(&stamp, &list)?;
    }
    Ok(Userland {
        directory,
        packages,
    })
}

fn packages_in(directory: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| format!("{}", directory.display()))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".deb") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn download(arch: Arch, cache: &Path) -> Result<()> {
    println!(
        "image: downloading Debian packages for {} by apt",
        arch.name()
    );
    let packages = cache.join("packages");
    // Old versions must not lie beside new ones.
    if packages.exists() {
        fs::remove_dir_all(&packages)?;
    }
    fs::create_dir_all(&packages)?;
    let state = cache.join("apt");
    for directory in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(state.join(directory))?;
    }
    let options: Vec<String> = [
        format!("APT::Architecture={}", arch.name()),
        format!("APT::Architectures={}", arch.name()),
        format!("Dir::State={}", state.display()),
        format!("Dir::State::lists={}", state.join("lists").display()),
        "Dir::State::status=/dev/null".into(),
        format!("Dir::Cache={}", state.join("cache").display()),
        "Acquire::Languages=none".into(),
        "Acquire::Retries=5".into(),
        "APT::Sandbox::User=root".into(),
    ]
    .into_iter()
    .flat_map(|option| ["-o".into(), option])
    .collect();
    let apt = |program: &str, arguments: &[&str]| {
        let mut line: Vec<&str> = options.iter().map(String::as_str).collect();
        line.extend(arguments);
        let mut call = command(program, &line);
        call.current_dir(&packages);
        output(call)
    };
    apt("apt-get", &["update", "-q"])?;
    let mut depends = vec!["depends", "--recurse", "--important"];
    depends.extend(PACKAGES);
    let closure = closure(&apt("apt-cache", &depends)?);
    let mut download = vec!["download", "-q"];
    download.extend(closure.iter().map(String::as_str));
    apt("apt-get", &download)?;
    // Package lists are a hundred megabytes unpacked and of no use any more.
    fs::remove_dir_all(&state)?;
    Ok(())
}

/// The packages themselves and the libraries they reach, from the output of `apt-cache depends
/// --recurse`. Maintainer scripts are never run, so what only they need (debconf, dpkg, perl) is
/// left out.
fn closure(depends: &str) -> BTreeSet<String> {
    let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut package = "";
    for line in depends.lines() {
        if !line.starts_with([' ', '|']) {
            package = line.trim();
            edges.entry(package).or_default();
        } else if let Some((_, dependency)) = line.split_once("Depends: ") {
            edges.entry(package).or_default().push(dependency.trim());
        }
    }
    let library = |name: &str| name.starts_with("lib") || name == "zlib1g";
    let mut found = BTreeSet::new();
    let mut open: Vec<&str> = PACKAGES.to_vec();
    while let Some(name) = open.pop() {
        if found.insert(name.to_owned()) {
            open.extend(
                edges
                    .get(name)
                    .into_iter()
                    .flatten()
                    .filter(|dependency| library(dependency)),
            );
        }
    }
    found
}

fn unpack(packages: &Path, names: &[String], directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    for merged in ["bin", "sbin", "lib", "lib64"] {
        fs::create_dir_all(directory.join("usr").join(merged))?;
        std::os::unix::fs::symlink(format!("usr/{merged}"), directory.join(merged))?;
    }
    for name in names {
        // dpkg-deb -x would put directories in the place of the links above.
        let line = format!(
            "set -o pipefail; dpkg-deb --fsys-tarfile '{}' | tar -x --no-same-owner --keep-directory-symlink -C '{}'",
            packages.join(name).display(),
            directory.display()
        );
        run(command("bash", &["-c", &line])).with_context(|| format!("unpack {name}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closure_follows_libraries_and_nothing_else() {
        let depends = "\
iptables
  Depends: libip4tc2
  Depends: netbase
iproute2
 |Depends: debconf
  Depends: <debconf-2.0>
    cdebconf
  Depends: libelf1
libelf1
  Depends: zlib1g
debconf
  Depends: libperl
zlib1g
  Depends: libc6
";
        let mut wanted: BTreeSet<String> = PACKAGES.map(String::from).into();
        wanted.extend(["libip4tc2", "libelf1", "zlib1g", "libc6"].map(String::from));
        assert_eq!(closure(depends), wanted);
    }
}
