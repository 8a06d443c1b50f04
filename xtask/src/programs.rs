//! Programs that are built from pinned Go modules and kept in the cache of the lab.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::{
    command::{at, command, exists, output, run},
    image::{Arch, PLUGINS},
};

/// `${WEFT_CACHE:-$HOME/.cache/weft}`: survives `cargo clean`, shared by all checkouts.
///
/// # Errors
/// Neither variable is set.
pub(crate) fn cache() -> Result<PathBuf> {
    if let Some(directory) = std::env::var_os("WEFT_CACHE") {
        return Ok(directory.into());
    }
    let home = std::env::var_os("HOME").context("set WEFT_CACHE: HOME is not set either")?;
    Ok(Path::new(&home).join(".cache/weft"))
}

/// Linker flag that gives the plugins their version.
const PLUGIN_VERSION: &str =
    "-s -w -X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=";

/// Directory with the CNI plugins that go into the image, static and for `arch`.
///
/// # Errors
/// go is missing, or the build failed.
pub(crate) fn cni_plugins(arch: Arch) -> Result<PathBuf> {
    let module = "github.com/containernetworking/plugins";
    go_tools("cni", module, &PLUGINS, PLUGIN_VERSION, arch)
}

/// The two plugins that a benchmark compares with.
///
/// # Errors
/// go is missing, or the build failed.
pub(crate) fn control_plugins() -> Result<PathBuf> {
    let module = "github.com/containernetworking/plugins";
    go_tools(
        "cni",
        module,
        &["bridge", "host-local"],
        PLUGIN_VERSION,
        Arch::host(),
    )
}

/// helm of this machine, in the version that the lab uses.
///
/// # Errors
/// go is missing, or the build failed.
pub(crate) fn helm() -> Result<PathBuf> {
    let link = "-s -w -X helm.sh/helm/v4/internal/version.version=";
    Ok(go_tools("helm", "helm.sh/helm/v4", &["helm"], link, Arch::host())?.join("helm"))
}

/// Builds `names` from the module `e2e/lab/programs/<project>`, which pins `module`; `link` are the
/// linker's flags, to which the version is appended.
fn go_tools(
    project: &str,
    module: &str,
    names: &[&str],
    link: &str,
    arch: Arch,
) -> Result<PathBuf> {
    // The version is part of the path, so a new one is built beside the old one.
    let sources = at("e2e/lab/programs").join(project);
    let version = version(&fs::read_to_string(sources.join("go.mod"))?, module)?.to_owned();
    let directory = cache()?.join(format!("{}-{version}-{}", names.join("-"), arch.name()));
    if names.iter().all(|name| directory.join(name).is_file()) {
        return Ok(directory);
    }
    ensure!(
        exists("go"),
        "go is not installed: it builds {} (apt-get install golang-go, or https://go.dev/dl)",
        names.join(", ")
    );
    println!(
        "building {} {version} for {} by go",
        names.join(", "),
        arch.name()
    );
    // Into a directory of its own first: a build cut short leaves nothing that looks complete.
    let partial = PathBuf::from(format!("{}.partial", directory.display()));
    fs::create_dir_all(&partial)?;
    let mut list = command("go", &["list", "tool"]);
    list.current_dir(&sources);
    let tools = output(list)?;
    let link = format!("{link}{version}");
    for name in names {
        let package = tools
            .lines()
            .find(|line| line.ends_with(&format!("/{name}")))
            .with_context(|| format!("{} has no tool {name}", sources.display()))?;
        let out = partial.join(name);
        let out = out.to_string_lossy();
        let mut build = command(
            "go",
            &["build", "-trimpath", "-ldflags", &link, "-o", &out, package],
        );
        build
            .current_dir(&sources)
            .env("CGO_ENABLED", "0")
            .env("GOOS", "linux")
            .env("GOARCH", arch.name());
        run(build)?;
    }
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::rename(&partial, &directory)?;
    Ok(directory)
}

/// Version of `module` in the text of a go.mod.
pub(crate) fn version<'a>(go_mod: &'a str, module: &str) -> Result<&'a str> {
    go_mod
        .lines()
        .find_map(|line| {
            let (name, rest) = line.trim().split_once(' ')?;
            (name == module).then(|| rest.split(' ').next())?
        })
        .with_context(|| format!("go.mod does not require {module}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_go_mod() {
        let text = "tool (\n\texample.org/plugins/portmap\n)\nrequire (\n\texample.org/plugins v1.9.1 // indirect\n)\n";
        assert_eq!(version(text, "example.org/plugins").unwrap(), "v1.9.1");
        assert!(version("module x\n", "example.org/plugins").is_err());
    }

    #[test]
    fn plugins_of_the_image_are_not_vulnerable() {
        // CVE-2025-67499 is fixed in 1.9.0.
        let text = fs::read_to_string(at("e2e/lab/programs/cni/go.mod")).unwrap();
        let version = version(&text, "github.com/containernetworking/plugins").unwrap();
        let mut parts = version.trim_start_matches('v').split('.');
        let minor: (u32, u32) = (
            parts.next().unwrap().parse().unwrap(),
            parts.next().unwrap().parse().unwrap(),
        );
        assert!(minor >= (1, 9), "{version}");
    }
}
