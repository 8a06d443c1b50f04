//! Kernel settings, as files below `/proc/sys/net`.

use std::{fs, io, path::PathBuf};

use weft_fabric::Sysctl;

/// A directory like `/proc/sys/net`.
#[derive(Debug, Clone)]
pub struct Settings {
    dir: PathBuf,
}

/// Why a setting could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot set {path} to {value}: {source}")]
pub struct SysctlError {
    path: String,
    value: u32,
    source: io::Error,
}

impl Settings {
    /// Settings below `dir`.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// br_netfilter is there: bridged packets pass iptables.
    #[must_use]
    pub fn has_bridge_netfilter(&self) -> bool {
        self.dir.join("bridge").is_dir()
    }

    /// Writes the setting if it differs; returns what was changed.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub fn apply(&self, sysctl: &Sysctl) -> Result<Option<String>, SysctlError> {
        let path = self.dir.join(&sysctl.path);
        let error = |value, source| SysctlError {
            path: format!("net/{}", sysctl.path),
            value,
            source,
        };
        let current = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) => return Err(error(sysctl.missing("").unwrap_or(0), e)),
        };
        let Some(value) = sysctl.missing(&current) else {
            return Ok(None);
        };
        fs::write(&path, value.to_string()).map_err(|e| error(value, e))?;
        Ok(Some(format!(
            "set net/{} to {value} (was {})",
            sysctl.path,
            current.trim()
        )))
    }
}
