//! The programs of a lab and how they are built: pinned Go modules, one C file, two images.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;

use self::go::{AGNHOST, CNI_PLUGINS, CONTAINERD, GoUnit, HELM, KUBERNETES, NETPOL};
use crate::cache::{self, Inputs};
use crate::command::run;
use crate::image::{Entry, ImageConfig, write_docker_archive};
use crate::layout::Layout;
use crate::lock::{Lock, wait_lock};
use crate::packages::find;
use crate::progress::Progress;

mod go;

/// Name under which nodes know the sandbox image.
pub(crate) const PAUSE_IMAGE: &str = "docker.io/weft/lab-pause:1";
/// Upstream's name of the test image; upstream's tests ask for exactly this one.
pub(crate) const AGNHOST_IMAGE: &str = "registry.k8s.io/e2e-test-images/agnhost:2.63.0";

/// What a lab is started from.
const OF_A_LAB: [GoUnit; 5] = [KUBERNETES, AGNHOST, CONTAINERD, HELM, CNI_PLUGINS];

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
        &self.directories[CNI_PLUGINS.name]
    }

    fn path(&self, unit: &str, file: &str) -> PathBuf {
        self.directories[unit].join(file)
    }
}

/// Builds what is not in the cache and returns where everything is.
pub(crate) fn ensure(layout: &Layout, progress: Progress) -> anyhow::Result<Programs> {
    let _lock = lock(layout, progress)?;
    let total = OF_A_LAB.len() + 2;
    let mut directories = BTreeMap::new();
    for (index, unit) in OF_A_LAB.iter().enumerate() {
        let place = format!("({} of {total}) ", index + 1);
        directories.insert(
            unit.name,
            unit.ensure(layout, go::host(), progress, &place)?,
        );
    }
    let pause = ensure_pause(layout, progress, total)?;
    let images = ensure_images(layout, progress, total, &directories["agnhost"], &pause)?;
    directories.insert("pause", pause);
    directories.insert("images", images);
    Ok(Programs { directories })
}

/// helm for this machine.
pub(crate) fn helm(layout: &Layout, progress: Progress) -> anyhow::Result<PathBuf> {
    Ok(one(&HELM, layout, go::host(), progress)?.join("helm"))
}

/// Directory of the CNI plugins for the processor `goarch`.
pub(crate) fn cni_plugins(
    layout: &Layout,
    goarch: &str,
    progress: Progress,
) -> anyhow::Result<PathBuf> {
    one(&CNI_PLUGINS, layout, goarch, progress)
}

/// Upstream's NetworkPolicy suite for this machine.
pub(crate) fn netpol(layout: &Layout, progress: Progress) -> anyhow::Result<PathBuf> {
    Ok(one(&NETPOL, layout, go::host(), progress)?.join("netpol"))
}

fn one(
    unit: &GoUnit,
    layout: &Layout,
    goarch: &str,
    progress: Progress,
) -> anyhow::Result<PathBuf> {
    let _lock = lock(layout, progress)?;
    unit.ensure(layout, goarch, progress, "")
}

fn lock(layout: &Layout, progress: Progress) -> anyhow::Result<Lock> {
    wait_lock(
        layout.cache(),
        progress,
        "another build fills the cache; waiting for it",
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
