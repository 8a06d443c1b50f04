//! A node: its file system view, its configuration files and its three daemons.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::cgroup;
use crate::command::tail;
use crate::layout::Layout;
use crate::namespace::{Daemon, Namespaces};
use crate::network::{node_addresses, node_name, pod_ranges};
use crate::options::Options;
use crate::programs::PAUSE_IMAGE;
use crate::underlay::write_if_there;
use crate::wait;

#[cfg(test)]
mod tests;

/// Daemons of a node, in the order of their start.
pub(crate) const PROCESSES: &[&str] = &["containerd", "kubelet", "kube-proxy"];

/// Directories that a node has for itself: the name in the node's storage and where it stands.
const OWN_DIRECTORIES: &[(&str, &str)] = &[
    ("containerd", "/var/lib/containerd"),
    ("kubelet", "/var/lib/kubelet"),
    ("weft", "/var/lib/weft"),
    ("cni-state", "/var/lib/cni"),
    ("cni-plugins", "/opt/cni"),
    ("cni-configuration", "/etc/cni"),
    ("log", "/var/log"),
];

/// Trees that a node sees as the machine has them, and changes for itself only. This also gives the
/// directories above a place to stand that is not made on the machine.
const OVERLAID: &[&str] = &["/etc", "/opt", "/var/lib"];

/// Sysctls that a kubelet sets for the whole kernel. The node sees files that already say what it
/// wants, so the machine's stay as they are.
const KUBELET_SYSCTLS: &[(&str, &str)] = &[
    ("/proc/sys/vm/overcommit_memory", "1"),
    ("/proc/sys/vm/panic_on_oom", "0"),
    ("/proc/sys/kernel/panic", "10"),
    ("/proc/sys/kernel/panic_on_oops", "1"),
    ("/proc/sys/kernel/keys/root_maxkeys", "1000000"),
    ("/proc/sys/kernel/keys/root_maxbytes", "25000000"),
];

/// Prepares the calling thread's new mount namespace to be a node's.
pub(crate) fn mount_node(layout: &Layout, name: &str) -> anyhow::Result<()> {
    let storage = layout.member(name);
    make_directory(&storage)?;
    mount_sys(&storage)?;
    for tree in OVERLAID {
        overlay(&storage, tree)?;
    }
    for (own, target) in OWN_DIRECTORIES {
        let source = storage.join(own);
        make_directory(&source)?;
        make_directory(Path::new(target))?;
        bind(&source, target)?;
    }
    for directory in [
        "/opt/cni/bin",
        "/etc/cni/net.d",
        "/etc/kubernetes/manifests",
    ] {
        make_directory(Path::new(directory))?;
    }
    mount(
        Some("tmpfs"),
        "/run",
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=755"),
    )
    .context("cannot mount /run")?;
    for directory in ["/run/netns", "/run/lock"] {
        make_directory(Path::new(directory))?;
    }
    for (path, value) in KUBELET_SYSCTLS {
        if !Path::new(path).exists() {
            continue;
        }
        let file = storage.join(path.trim_start_matches('/').replace('/', "."));
        write(&file, &format!("{value}\n"))?;
        bind(&file, path)?;
    }
    // A resolv.conf that links into /run would be unreadable now; the lab has no name server.
    fs::remove_file("/etc/resolv.conf").ok();
    write(
        Path::new("/etc/resolv.conf"),
        "# The lab has no name server.\n",
    )?;
    write(Path::new("/etc/hostname"), &format!("{name}\n"))
}

/// Prepares the mount namespace of a member that is no node: `/sys` shows its own devices.
pub(crate) fn mount_host(layout: &Layout, name: &str) -> anyhow::Result<()> {
    let storage = layout.member(name);
    make_directory(&storage)?;
    mount_sys(&storage)
}

/// Mounts a `/sys` of the network namespace, and keeps the cgroup tree in it.
fn mount_sys(storage: &Path) -> anyhow::Result<()> {
    let keep = storage.join("cgroup");
    make_directory(&keep)?;
    let recursive = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(
        Some("/sys/fs/cgroup"),
        &keep,
        None::<&str>,
        recursive,
        None::<&str>,
    )
    .context("cannot keep the cgroup tree")?;
    mount(
        Some("sysfs"),
        "/sys",
        Some("sysfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .context("cannot mount /sys")?;
    mount(
        Some(&keep),
        "/sys/fs/cgroup",
        None::<&str>,
        recursive,
        None::<&str>,
    )
    .context("cannot put the cgroup tree back")?;
    umount2(&keep, MntFlags::MNT_DETACH).context("cannot unmount the spare cgroup tree")
}

fn overlay(storage: &Path, tree: &str) -> anyhow::Result<()> {
    let name = tree.trim_start_matches('/').replace('/', ".");
    let upper = storage.join("overlay").join(&name).join("upper");
    let work = storage.join("overlay").join(&name).join("work");
    make_directory(&upper)?;
    make_directory(&work)?;
    let options = format!(
        "lowerdir={tree},upperdir={},workdir={}",
        upper.display(),
        work.display()
    );
    mount(
        Some("overlay"),
        tree,
        Some("overlay"),
        MsFlags::empty(),
        Some(options.as_str()),
    )
    .with_context(|| {
        format!(
            "cannot mount an overlay on {tree} (the checkout must be on a file system that \
                 overlays can write to, such as ext4 or xfs)"
        )
    })
}

fn bind(source: &Path, target: &str) -> anyhow::Result<()> {
    mount(
        Some(source),
        target,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .with_context(|| format!("cannot bind {} to {target}", source.display()))
}

/// Sets what a node's network needs before its link comes up.
pub(crate) fn set_sysctls(node: &Namespaces, options: &Options) -> anyhow::Result<()> {
    let mut sysctls = vec![
        ("/proc/sys/net/ipv4/ip_forward", "1"),
        // As Kubernetes' installation guides ask for it.
        ("/proc/sys/net/bridge/bridge-nf-call-iptables", "1"),
        ("/proc/sys/net/bridge/bridge-nf-call-ip6tables", "1"),
    ];
    if options.families.has_v6() {
        sysctls.push(("/proc/sys/net/ipv6/conf/all/forwarding", "1"));
    }
    node.within(|| {
        sysctls
            .iter()
            .try_for_each(|(path, value)| write_if_there(path, value))
    })
}

/// Writes the configuration files of a node's daemons.
pub(crate) fn configure(
    layout: &Layout,
    lab: &str,
    index: u8,
    options: &Options,
) -> anyhow::Result<()> {
    let name = node_name(index);
    let storage = layout.member(&name);
    make_directory(&storage)?;
    write(
        &storage.join("containerd.toml"),
        &containerd_configuration(),
    )?;
    write(
        &storage.join("kubelet.yaml"),
        &kubelet_configuration(
            layout,
            lab,
            &name,
            &node_addresses(index, options.families)[0],
        ),
    )
}

fn containerd_configuration() -> String {
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "/run/containerd/containerd.sock"

[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{PAUSE_IMAGE}"

[plugins.'io.containerd.cri.v1.runtime']
  # Without CAP_SYS_RESOURCE a lower oom_score_adj than the caller's is refused.
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/opt/cni/bin"]
    conf_dir = "/etc/cni/net.d"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      SystemdCgroup = false
"#
    )
}

fn kubelet_configuration(layout: &Layout, lab: &str, name: &str, address: &str) -> String {
    let pki = layout.pki();
    let pki = pki.display();
    let root = cgroup::node_root(lab, name);
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {address}
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: {pki}/ca.crt}}
authorization: {{mode: Webhook}}
tlsCertFile: {pki}/{name}.crt
tlsPrivateKeyFile: {pki}/{name}.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
staticPodPath: /etc/kubernetes/manifests
resolvConf: /etc/resolv.conf
# The default lies below /usr, which the nodes share with the machine.
volumePluginDir: /var/lib/kubelet/volumeplugins
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
cgroupDriver: cgroupfs
cgroupRoot: {root}
cgroupsPerQOS: true
# The node's root cgroup is made by the lab and holds the pods only.
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
# Images come from archives; one that was collected could not be pulled again.
imageGCHighThresholdPercent: 100
evictionHard: {{memory.available: 100Mi}}
"
    )
}

/// How a daemon of a node is started.
pub(crate) fn daemon(layout: &Layout, options: &Options, index: u8, process: &str) -> Daemon {
    let name = node_name(index);
    let storage = layout.member(&name);
    let arguments: Vec<String> = match process {
        "containerd" => {
            vec![
                "--config".to_owned(),
                storage.join("containerd.toml").display().to_string(),
            ]
        }
        "kubelet" => vec![
            format!("--config={}", storage.join("kubelet.yaml").display()),
            format!("--kubeconfig={}", layout.kubeconfig(&name).display()),
            format!("--hostname-override={name}"),
            format!(
                "--node-ip={}",
                node_addresses(index, options.families).join(",")
            ),
            "--root-dir=/var/lib/kubelet".to_owned(),
        ],
        _ => vec![
            format!("--kubeconfig={}", layout.kubeconfig("proxy").display()),
            format!("--hostname-override={name}"),
            format!("--proxy-mode={}", options.proxy_mode),
            format!("--cluster-cidr={}", pod_ranges(options.families)),
            // These sysctls belong to the whole kernel and cannot be written from a namespace.
            "--conntrack-max-per-core=0".to_owned(),
            "--conntrack-tcp-timeout-established=0".to_owned(),
            "--conntrack-tcp-timeout-close-wait=0".to_owned(),
        ],
    };
    Daemon {
        program: layout.programs().join(process),
        arguments,
        log: layout.log(&name, process),
    }
}

/// Waits until a daemon of a node says that it is well.
pub(crate) fn wait_healthy(
    layout: &Layout,
    node: &Namespaces,
    name: &str,
    process: &str,
) -> anyhow::Result<()> {
    let what = format!("{name}: {process}");
    wait::until(
        &what,
        Duration::from_secs(60),
        Duration::from_millis(100),
        || {
            let answer = match process {
                "containerd" => node
                    .run("ctr", &["--connect-timeout", "2s", "version"])
                    .map(drop),
                // The ports of the kubelet's and kube-proxy's health endpoints.
                "kubelet" => node.within(|| require_healthz(10248)),
                _ => node.within(|| require_healthz(10256)),
            };
            answer.map_err(|error| {
                let log = layout.log(name, process);
                format!("{error:#}\nend of {}:\n{}", log.display(), tail(&log, 10))
            })
        },
    )
}

/// Asks `/healthz` of the calling thread's network namespace.
fn require_healthz(port: u16) -> anyhow::Result<()> {
    let patience = Duration::from_secs(2);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let context = || format!("http://{address}/healthz");
    let mut stream = TcpStream::connect_timeout(&address, patience).with_context(context)?;
    stream.set_read_timeout(Some(patience))?;
    stream
        .write_all(b"GET /healthz HTTP/1.0\r\n\r\n")
        .with_context(context)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(context)?;
    let status = answer.lines().next().unwrap_or_default();
    anyhow::ensure!(status.contains(" 200 "), "{} answers {status:?}", context());
    Ok(())
}

/// Gives a node an image archive.
pub(crate) fn import(node: &Namespaces, archive: &Path) -> anyhow::Result<()> {
    let archive = archive
        .to_str()
        .context("the archive's path is not UTF-8")?;
    node.run(
        "ctr",
        &["--namespace", "k8s.io", "images", "import", archive],
    )
    .map(drop)
}

fn make_directory(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot create {}", path.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
