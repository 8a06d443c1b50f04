//! The programs of a lab and how they are built: pinned Go modules, one C file, two images.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::cache::{self, Inputs};
use crate::command::{command, run, shown, tail};
use crate::image::{Entry, ImageConfig, write_docker_archive};
use crate::layout::Layout;
use crate::lock::{Lock, wait_lock};
use crate::packages::find;
use crate::progress::Progress;
use crate::wait;

/// Name under which nodes know the sandbox image.
pub(crate) const PAUSE_IMAGE: &str = "docker.io/weft/lab-pause:1";
/// Upstream's name of the test image; upstream's tests ask for exactly this one.
pub(crate) const AGNHOST_IMAGE: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";

/// Unit of the CNI plugins.
const CNI_PLUGINS: &str = "cni-plugins";

/// Where upstream's builds put a version into a Kubernetes binary (`hack/lib/version.sh`); without
/// it nodes report v0.0.0 and charts with a `kubeVersion` are refused.
const KUBERNETES_VERSION_FLAGS: &str = "-s -w \
    -X k8s.io/component-base/version.gitVersion=v1.36.3 \
    -X k8s.io/component-base/version.gitMajor=1 \
    -X k8s.io/component-base/version.gitMinor=36 \
    -X k8s.io/component-base/version.gitTreeState=clean \
    -X k8s.io/client-go/pkg/version.gitVersion=v1.36.3";

/// Programs of one Go module.
struct GoUnit {
    name: &'static str,
    version: &'static str,
    /// Directory of the module below `e2e/lab`.
    module: &'static str,
    packages: &'static [&'static str],
    tags: &'static str,
    link: &'static str,
}

const GO_UNITS: &[GoUnit] = &[
    GoUnit {
        name: "kubernetes",
        version: "1.36.3",
        module: "kubernetes",
        packages: &["."],
        tags: "",
        link: KUBERNETES_VERSION_FLAGS,
    },
    GoUnit {
        name: "agnhost",
        version: "1.36.3",
        module: "kubernetes",
        packages: &["k8s.io/kubernetes/test/images/agnhost"],
        tags: "",
        link: "-s -w",
    },
    GoUnit {
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
    },
    GoUnit {
        name: "helm",
        version: "4.3.1",
        module: "programs/helm",
        packages: &["helm.sh/helm/v4/cmd/helm"],
        tags: "",
        link: "-s -w -X helm.sh/helm/v4/internal/version.version=v4.3.1",
    },
    GoUnit {
        name: CNI_PLUGINS,
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
    },
];

/// Roles of the multi-call binary, each a link in the lab's `bin`.
const ROLES: &[&str] = &[
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
];

/// Directories of the built programs by unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Programs {
    directories: BTreeMap<&'static str, PathBuf>,
}

impl Programs {
    /// Links for the lab's `bin` directory: name and target.
    pub(crate) fn links(&self) -> Vec<(String, PathBuf)> {
        let mut links: Vec<(String, PathBuf)> = ROLES
            .iter()
            .map(|role| ((*role).to_owned(), self.path("kubernetes", "kubelab")))
            .collect();
        for program in ["containerd", "containerd-shim-runc-v2", "ctr"] {
            links.push((program.to_owned(), self.path("containerd", program)));
        }
        links.push(("helm".to_owned(), self.path("helm", "helm")));
        links
    }

    /// Archives that every node gets, the sandbox image first.
    pub(crate) fn images(&self) -> Vec<PathBuf> {
        vec![
            self.path("images", "pause.tar"),
            self.path("images", "agnhost.tar"),
        ]
    }

    /// Directory of the CNI plugins.
    pub(crate) fn cni_plugins(&self) -> &Path {
        &self.directories[CNI_PLUGINS]
    }

    fn path(&self, unit: &str, file: &str) -> PathBuf {
        self.directories[unit].join(file)
    }
}

/// Builds what is not in the cache and returns where everything is.
pub(crate) fn ensure(layout: &Layout, progress: Progress) -> anyhow::Result<Programs> {
    let _lock = lock(layout, progress)?;
    let total = GO_UNITS.len() + 2;
    let mut directories = BTreeMap::new();
    for (index, unit) in GO_UNITS.iter().enumerate() {
        let place = format!("({} of {total}) ", index + 1);
        directories.insert(unit.name, unit.ensure(layout, progress, &place)?);
    }
    let pause = ensure_pause(layout, progress, total)?;
    let images = ensure_images(layout, progress, total, &directories["agnhost"], &pause)?;
    directories.insert("pause", pause);
    directories.insert("images", images);
    Ok(Programs { directories })
}

fn lock(layout: &Layout, progress: Progress) -> anyhow::Result<Lock> {
    wait_lock(
        layout.cache(),
        progress,
        "another build fills the cache; waiting for it",
    )
}

impl GoUnit {
    fn ensure(&self, layout: &Layout, progress: Progress, place: &str) -> anyhow::Result<PathBuf> {
        let entry = self.entry(layout)?;
        if let Some(path) = cache::find(layout.cache(), &entry) {
            return Ok(path);
        }
        let title = format!("{place}{} {}", self.name, self.version);
        cache::build(layout.cache(), &entry, |staging| {
            self.build(layout, staging, progress, &title)
        })
    }

    fn entry(&self, layout: &Layout) -> anyhow::Result<String> {
        let directory = layout.sources().join(self.module);
        let mut inputs = Inputs::default();
        for file in ["go.mod", "go.sum"] {
            inputs.add_file(&directory.join(file))?;
        }
        if self.packages.contains(&".") {
            inputs.add_file(&directory.join("main.go"))?;
        }
        for part in [
            &[self.tags, self.link, std::env::consts::ARCH][..],
            self.packages,
        ]
        .concat()
        {
            inputs.add(part.as_bytes());
        }
        Ok(inputs.entry(self.name, self.version))
    }

    fn build(
        &self,
        layout: &Layout,
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
        "the lab builds Kubernetes from its Go modules and needs Go 1.26 or newer in PATH \
         (https://go.dev/dl)",
    )
}

fn ensure_pause(layout: &Layout, progress: Progress, total: usize) -> anyhow::Result<PathBuf> {
    let source = layout.sources().join("pause/pause.c");
    let mut inputs = Inputs::default();
    inputs.add_file(&source)?;
    inputs.add(std::env::consts::ARCH.as_bytes());
    let entry = inputs.entry("pause", "1");
    if let Some(path) = cache::find(layout.cache(), &entry) {
        return Ok(path);
    }
    progress.say(format!("building ({} of {total}) pause", total - 1));
    cache::build(layout.cache(), &entry, |staging| {
        let source = source.display().to_string();
        let program = staging.join("pause").display().to_string();
        run("cc", &["-static", "-Os", "-s", "-o", &program, &source]).map(drop)
    })
}

fn ensure_images(
    layout: &Layout,
    progress: Progress,
    total: usize,
    agnhost: &Path,
    pause: &Path,
) -> anyhow::Result<PathBuf> {
    let busybox = find("busybox").context("busybox is not installed")?;
    let mut inputs = Inputs::default();
    for path in [agnhost, pause] {
        inputs.add(path.as_os_str().as_encoded_bytes());
    }
    inputs.add(PAUSE_IMAGE.as_bytes());
    inputs.add(AGNHOST_IMAGE.as_bytes());
    inputs.add_file(&busybox)?;
    let entry = inputs.entry("images", "1");
    if let Some(path) = cache::find(layout.cache(), &entry) {
        return Ok(path);
    }
    progress.say(format!("building ({total} of {total}) images"));
    cache::build(layout.cache(), &entry, |staging| {
        let config = ImageConfig {
            entrypoint: vec!["/pause".into()],
            user: "65535:65535".into(),
            ..ImageConfig::default()
        };
        let entries = [Entry::program("/pause", &pause.join("pause"))];
        write_docker_archive(
            &staging.join("pause.tar"),
            &[PAUSE_IMAGE.into()],
            &config,
            &entries,
        )?;

        let config = ImageConfig {
            entrypoint: vec!["/agnhost".into()],
            command: vec!["pause".into()],
            environment: BTreeMap::from([(
                "PATH".into(),
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
            )]),
            ..ImageConfig::default()
        };
        let mut entries = vec![
            Entry::program("/agnhost", &agnhost.join("agnhost")),
            Entry::program("/bin/busybox", &busybox),
            Entry {
                mode: 0o1777,
                ..Entry::directory("/tmp")
            },
            Entry::directory("/etc"),
            Entry::text(
                "/etc/passwd",
                "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
            ),
            Entry::text("/etc/group", "root:x:0:\nnobody:x:65534:\n"),
        ];
        for applet in run(&busybox, &["--list"])?
            .lines()
            .filter(|applet| *applet != "busybox")
        {
            entries.push(Entry::symlink(&format!("/bin/{applet}"), "busybox"));
        }
        let out = staging.join("agnhost.tar");
        write_docker_archive(&out, &[AGNHOST_IMAGE.into()], &config, &entries).map(drop)
    })
}
