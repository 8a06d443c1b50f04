//! Debian packages that a task needs: installed when missing, with a message.

use anyhow::{Context, Result};

use crate::command::{command, exists, output, run};

/// Installs the packages that dpkg does not list as installed.
///
/// # Errors
/// No apt on this machine, or apt failed (the message says which packages are wanted).
pub(crate) fn install(reason: &str, packages: &[&str]) -> Result<()> {
    let missing = missing(packages);
    if missing.is_empty() {
        return Ok(());
    }
    println!("{reason}: installing {} by apt", missing.join(" "));
    if !exists("apt-get") {
        anyhow::bail!(
            "no apt-get on this machine: install the equivalents of {} yourself",
            missing.join(" ")
        );
    }
    let mut arguments = vec!["install", "-y", "-q", "--no-install-recommends"];
    arguments.extend(&missing);
    let attempt = |arguments: &[&str]| {
        let mut install = command("apt-get", arguments);
        install.env("DEBIAN_FRONTEND", "noninteractive");
        output(install)
    };
    if attempt(&arguments).is_err() {
        // The package lists of a fresh machine are old or absent.
        run(command("apt-get", &["update", "-q"])).context("update the package lists")?;
        attempt(&arguments).with_context(|| format!("install {} (as root?)", missing.join(" ")))?;
    }
    Ok(())
}

fn missing<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let mut missing = Vec::new();
    for package in packages {
        let installed = output(command(
            "dpkg-query",
            &["--show", "--showformat=${db:Status-Status}", package],
        ))
        .is_ok_and(|status| status == "installed");
        if !installed {
            missing.push(*package);
        }
    }
    missing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_packages_are_named() {
        assert_eq!(
            missing(&["dpkg", "no-such-package-anywhere"]),
            vec!["no-such-package-anywhere"]
        );
    }
}
