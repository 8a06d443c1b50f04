//! Where a lab keeps its files.

use std::path::{Path, PathBuf};

/// The directories of one checkout's lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    repository: PathBuf,
    root: PathBuf,
    cache: PathBuf,
}

impl Layout {
    /// The lab of the checkout at `repository`; `cache` holds built programs and outlives it.
    #[must_use]
    pub fn new(repository: &Path, cache: &Path) -> Self {
        Self {
            repository: repository.to_owned(),
            root: repository.join("target/lab"),
            cache: cache.to_owned(),
        }
    }

    /// Everything that belongs to a running lab; removed by `down`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Built programs, shared by all checkouts.
    #[must_use]
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// Kubeconfig of the cluster's administrator.
    #[must_use]
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.kubeconfig("admin")
    }

    /// Programs for people: `kubectl`, `helm`, `ctr`.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.root.join("bin")
    }

    /// Directory of the Go modules and the C file that programs are built from.
    pub(crate) fn sources(&self) -> PathBuf {
        self.repository.join("e2e/lab")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state.json")
    }

    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        self.root.join(format!("{user}.kubeconfig"))
    }

    pub(crate) fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// Log of `process` (`etcd`, `kubelet`, ...) on `member` (`hub`, `n1`, ...).
    pub(crate) fn log(&self, member: &str, process: &str) -> PathBuf {
        self.root
            .join("log")
            .join(format!("{member}-{process}.log"))
    }

    /// What a member keeps on disk.
    pub(crate) fn member(&self, member: &str) -> PathBuf {
        self.root.join("nodes").join(member)
    }

    /// The directory whose lock serialises the verbs. It outlives `down`, unlike [`Self::root`].
    pub(crate) fn lock(&self) -> PathBuf {
        self.repository.join("target")
    }
}
