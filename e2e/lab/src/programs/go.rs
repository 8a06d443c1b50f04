//! Programs that are built from pinned Go modules.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::cache::{self, Inputs};
use crate::command::{command, run, shown, tail};
use crate::layout::Layout;
use crate::progress::Progress;
use crate::wait;

#[cfg(test)]
mod tests;

/// Where upstream's builds put a version into a Kubernetes binary (`hack/lib/version.sh`); without
/// it nodes report v0.0.0 and charts with a `kubeVersion` are refused.
const KUBERNETES_VERSION_FLAGS: &str = "-s -w \
    -X k8s.io/component-base/version.gitVersion=v1.36.3 \
    -X k8s.io/component-base/version.gitMajor=1 \
    -X k8s.io/component-base/version.gitMinor=36 \
    -X k8s.io/component-base/version.gitTreeState=clean \
    -X k8s.io/client-go/pkg/version.gitVersion=v1.36.3";

/// Programs of one Go module.
pub(super) struct GoUnit {
    pub(super) name: &'static str,
    version: &'static str,
    /// Directory of the module below `e2e/lab`.
    module: &'static str,
    packages: &'static [&'static str],
    tags: &'static str,
    link: &'static str,
}

/// The control plane, kubelet, kube-proxy, kubectl and etcd.
pub(super) const KUBERNETES: GoUnit = GoUnit {
    name: "kubernetes",
    version: "1.36.3",
    module: "kubernetes",
    packages: &["."],
    tags: "",
    link: KUBERNETES_VERSION_FLAGS,
};

/// Upstream's test server.
pub(super) const AGNHOST: GoUnit = GoUnit {
    name: "agnhost",
    version: "1.36.3",
    module: "kubernetes",
    packages: &["k8s.io/kubernetes/test/images/agnhost"],
    tags: "",
    link: "-s -w",
};

/// The container runtime.
pub(super) const CONTAINERD: GoUnit = GoUnit {
    name: "containerd",
    version: "2.2.9",
    module: "programs/containerd",
    packages: &[
        "github.com/containerd/containerd/v2/cmd/containerd",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        "github.com/containerd/containerd/v2/cmd/ctr",
    ],
    tags: "no_btrfs no_zfs no_devmapper",
    link: "-s -w -X github.com/containerd/containerd/v2/version.Version=v2.2.9",
};

/// helm.
pub(super) const HELM: GoUnit = GoUnit {
    name: "helm",
    version: "4.3.1",
    module: "programs/helm",
    packages: &["helm.sh/helm/v4/cmd/helm"],
    tags: "",
    link: "-s -w -X helm.sh/helm/v4/internal/version.version=v4.3.1",
};

/// CNI plugins of the reference project.
pub(super) const CNI_PLUGINS: GoUnit = GoUnit {
    name: "cni-plugins",
    version: "1.9.1",
    module: "programs/cni",
    packages: &[
        "github.com/containernetworking/plugins/plugins/ipam/host-local",
        "github.com/containernetworking/plugins/plugins/main/bridge",
        "github.com/containernetworking/plugins/plugins/main/loopback",
        "github.com/containernetworking/plugins/plugins/meta/bandwidth",
        "github.com/containernetworking/plugins/plugins/meta/portmap",
    ],
    tags: "",
    link: "-s -w -X github.com/containernetworking/plugins/pkg/utils/buildversion.BuildVersion=v1.9.1",
};

/// Upstream's NetworkPolicy suite. A lab does not need it to start.
pub(super) const NETPOL: GoUnit = GoUnit {
    name: "netpol",
    version: "1.36.3",
    module: "programs/netpol",
    packages: &["."],
    tags: "",
    link: KUBERNETES_VERSION_FLAGS,
};

/// Go's word for the processor of this machine.
pub(super) fn host() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

impl GoUnit {
    /// Directory of the programs for the processor `goarch`; builds them when they are not in the
    /// cache. The caller holds the cache's lock.
    pub(super) fn ensure(
        &self,
        layout: &Layout,
        goarch: &str,
        progress: Progress,
        place: &str,
    ) -> anyhow::Result<PathBuf> {
        let entry = self.entry(layout, goarch)?;
        if let Some(path) = cache::find(layout.cache(), &entry) {
            return Ok(path);
        }
        let title = format!("{place}{} {}", self.name, self.version);
        cache::build(layout.cache(), &entry, |staging| {
            self.build(layout, goarch, staging, progress, &title)
        })
    }

    fn entry(&self, layout: &Layout, goarch: &str) -> anyhow::Result<String> {
        // The kernel's word, which entries of older checkouts were named by.
        let machine = match goarch {
            "amd64" => "x86_64",
            "arm64" => "aarch64",
            other => other,
        };
        let directory = layout.sources().join(self.module);
        let mut inputs = Inputs::default();
        for file in ["go.mod", "go.sum"] {
            inputs.add_file(&directory.join(file))?;
        }
        if self.packages.contains(&".") {
            inputs.add_file(&directory.join("main.go"))?;
        }
        for part in [&[self.tags, self.link, machine][..], self.packages].concat() {
            inputs.add(part.as_bytes());
        }
        Ok(inputs.entry(self.name, self.version))
    }

    fn build(
        &self,
        layout: &Layout,
        goarch: &str,
        staging: &Path,
        progress: Progress,
        title: &str,
    ) -> anyhow::Result<()> {
        require_go()?;
        let log = layout.cache().join(format!("{}.log", self.name));
        let output = File::create(&log)
            .with_context(|| format!("cannot write the build log {}", log.display()))?;
        let mut go = command("go");
        go.arg("build")
            .args([
                "-trimpath",
                "-mod=readonly",
                "-tags",
                self.tags,
                "-ldflags",
                self.link,
                "-o",
            ])
            .arg(format!("{}/", staging.display()))
            .args(self.packages)
            .current_dir(layout.sources().join(self.module))
            .env("CGO_ENABLED", "0")
            .env("GOOS", "linux")
            .env("GOARCH", goarch)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        progress.say(format!("building {title}"));
        let start = Instant::now();
        let mut said = start;
        let mut child = go
            .spawn()
            .with_context(|| format!("cannot run `{}`", shown(&go)))?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if said.elapsed() >= Duration::from_secs(15) {
                said = Instant::now();
                progress.say(format!(
                    "building {title}: {} s so far",
                    start.elapsed().as_secs()
                ));
            }
            wait::pause(Duration::from_millis(200));
        };
        if !status.success() {
            bail!(
                "cannot build {}: `{}` failed ({status}); the log is {}, its end:\n{}",
                self.name,
                shown(&go),
                log.display(),
                tail(&log, 20)
            );
        }
        progress.say(format!("built {title} in {} s", start.elapsed().as_secs()));
        std::fs::remove_file(&log).ok();
        Ok(())
    }
}

fn require_go() -> anyhow::Result<()> {
    run("go", &["version"]).map(drop).context(
        "the lab builds its programs from Go modules and needs Go 1.26 or newer in PATH \
         (https://go.dev/dl)",
    )
}
