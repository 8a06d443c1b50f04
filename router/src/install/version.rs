//! Versions of the CNI project's plugins, as they say them: `CNI portmap plugin v1.9.1`.

use std::{fmt, path::Path};

use crate::exec;

/// Major, minor, patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32, pub(super) u32);

/// The first without CVE-2025-67499.
pub(super) const FIXED: Version = Version(1, 9, 0);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(major, minor, patch) = self;
        write!(f, "v{major}.{minor}.{patch}")
    }
}

impl Version {
    /// The first word of `text` that is a version with a `v`.
    pub(super) fn find(text: &str) -> Option<Self> {
        text.split_whitespace().find_map(|word| {
            // What stands behind a dash is a build, such as `v1.1.1-3` of a distribution.
            let word = word.strip_prefix('v')?.split(['-', '+', '~']).next()?;
            let mut numbers = word.split('.').map(str::parse);
            let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
            let patch = numbers.next().map_or(Some(0), Result::ok)?;
            Some(Self(major, minor, patch))
        })
    }
}

/// Asks a plugin: started without `CNI_COMMAND` it prints who it is and does nothing.
pub(super) async fn of(path: &Path) -> Result<Version, String> {
    let said = exec::said(path).await?;
    Version::find(&said).ok_or_else(|| match said.lines().next() {
        Some(line) => format!("it says {line:?}"),
        None => "it says nothing".to_owned(),
    })
}
