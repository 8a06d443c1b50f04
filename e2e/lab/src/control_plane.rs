//! The control plane: one etcd, API server, controller manager and scheduler in the hub.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::command::{command, output, tail};
use crate::layout::Layout;
use crate::namespace::Daemon;
use crate::network::{API_PORT, API_SERVER, HUB, service_ranges};
use crate::options::Options;
use crate::wait;

#[cfg(test)]
mod tests;

/// Processes of the control plane, in the order of their start.
pub(crate) const PROCESSES: &[&str] = &[
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];

/// How a process of the control plane is started.
pub(crate) fn daemon(layout: &Layout, options: &Options, process: &str) -> Daemon {
    let arguments = match process {
        "etcd" => etcd(layout),
        "kube-apiserver" => api_server(layout, options),
        "kube-controller-manager" => controller_manager(layout),
        _ => scheduler(layout),
    };
    Daemon {
        program: layout.programs().join(process),
        arguments: arguments
            .into_iter()
            .map(|(flag, value)| format!("--{flag}={value}"))
            .collect(),
        log: layout.log(HUB, process),
    }
}

type Flags = BTreeMap<&'static str, String>;

fn flags<const N: usize>(flags: [(&'static str, &str); N]) -> Flags {
    flags.map(|(flag, value)| (flag, value.to_owned())).into()
}

fn etcd(layout: &Layout) -> Flags {
    let data = layout.member(HUB).join("etcd").display().to_string();
    flags([
        ("name", "lab"),
        ("data-dir", &data),
        ("listen-client-urls", "http://127.0.0.1:2379"),
        ("advertise-client-urls", "http://127.0.0.1:2379"),
        ("listen-peer-urls", "http://127.0.0.1:2380"),
        ("initial-advertise-peer-urls", "http://127.0.0.1:2380"),
        ("initial-cluster", "lab=http://127.0.0.1:2380"),
        // The lab's data need not survive a power cut.
        ("unsafe-no-fsync", "true"),
        ("logger", "zap"),
        ("log-level", "warn"),
    ])
}

fn api_server(layout: &Layout, options: &Options) -> Flags {
    let pki = |file: &str| layout.pki().join(file).display().to_string();
    flags([
        ("etcd-servers", "http://127.0.0.1:2379"),
        ("bind-address", &API_SERVER.to_string()),
        ("advertise-address", &API_SERVER.to_string()),
        ("secure-port", &API_PORT.to_string()),
        ("service-cluster-ip-range", service_ranges(options.families)),
        ("client-ca-file", &pki("ca.crt")),
        ("tls-cert-file", &pki("apiserver.crt")),
        ("tls-private-key-file", &pki("apiserver.key")),
        ("service-account-issuer", "https://kubernetes.default.svc"),
        ("service-account-key-file", &pki("service-accounts.pub")),
        (
            "service-account-signing-key-file",
            &pki("service-accounts.key"),
        ),
        ("authorization-mode", "Node,RBAC"),
        // As kubeadm sets it: a kubelet writes its own Node and pods only.
        ("enable-admission-plugins", "NodeRestriction"),
        // Whether a pod may be privileged is for Pod Security admission to say.
        ("allow-privileged", "true"),
        ("kubelet-client-certificate", &pki("kubelet-client.crt")),
        ("kubelet-client-key", &pki("kubelet-client.key")),
        ("kubelet-preferred-address-types", "InternalIP"),
        ("profiling", "false"),
    ])
}

fn controller_manager(layout: &Layout) -> Flags {
    flags([
        (
            "kubeconfig",
            &layout
                .kubeconfig("controller-manager")
                .display()
                .to_string(),
        ),
        (
            "service-account-private-key-file",
            &layout
                .pki()
                .join("service-accounts.key")
                .display()
                .to_string(),
        ),
        (
            "root-ca-file",
            &layout.pki().join("ca.crt").display().to_string(),
        ),
        (
            "cluster-signing-cert-file",
            &layout.pki().join("ca.crt").display().to_string(),
        ),
        (
            "cluster-signing-key-file",
            &layout.pki().join("ca.key").display().to_string(),
        ),
        ("use-service-account-credentials", "true"),
        ("leader-elect", "false"),
        (
            "cert-dir",
            &layout
                .pki()
                .join("controller-manager")
                .display()
                .to_string(),
        ),
        ("bind-address", "127.0.0.1"),
        ("profiling", "false"),
    ])
}

fn scheduler(layout: &Layout) -> Flags {
    flags([
        (
            "kubeconfig",
            &layout.kubeconfig("scheduler").display().to_string(),
        ),
        ("leader-elect", "false"),
        (
            "cert-dir",
            &layout.pki().join("scheduler").display().to_string(),
        ),
        ("bind-address", "127.0.0.1"),
        ("profiling", "false"),
    ])
}

/// `kubectl` as the administrator, from the root namespace.
pub(crate) fn kubectl(layout: &Layout, arguments: &[&str]) -> anyhow::Result<String> {
    output(
        command(layout.programs().join("kubectl"))
            .args(arguments)
            .env_clear()
            .env("HOME", layout.root())
            .env("KUBECONFIG", layout.admin_kubeconfig()),
    )
}

/// Waits until the API server answers `/readyz`.
pub(crate) fn wait_ready(layout: &Layout) -> anyhow::Result<()> {
    let limit = Duration::from_secs(90);
    wait::until("the API server", limit, Duration::from_millis(250), || {
        kubectl(layout, &["get", "--raw", "/readyz"])
            .map(drop)
            .map_err(|error| {
                let log = layout.log(HUB, "kube-apiserver");
                format!("{error:#}\nend of {}:\n{}", log.display(), tail(&log, 10))
            })
    })
}
