use super::*;
use crate::options::{Families, ProxyMode};

fn arguments(families: Families, proxy_mode: ProxyMode, process: &str) -> Vec<String> {
    let layout = Layout::new(Path::new("/src"), Path::new("/cache"));
    let options = Options {
        nodes: 1,
        proxy_mode,
        families,
        underlay_mtu: 1500,
    };
    daemon(&layout, &options, 2, process).arguments
}

#[test]
fn kube_proxy_is_told_what_is_local() {
    let arguments = arguments(Families::V4, ProxyMode::Nftables, "kube-proxy");
    assert_eq!(
        arguments,
        [
            "--kubeconfig=/src/target/lab/proxy.kubeconfig",
            "--hostname-override=n2",
            "--proxy-mode=nftables",
            "--cluster-cidr=10.32.0.0/12",
            "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
        ]
    );
}

#[test]
fn a_dual_stack_kubelet_has_both_addresses() {
    let arguments = arguments(Families::Dual, ProxyMode::Iptables, "kubelet");
    assert!(
        arguments.contains(&"--node-ip=172.30.0.12,fd30::12".to_owned()),
        "{arguments:?}"
    );
    assert!(arguments.contains(&"--kubeconfig=/src/target/lab/n2.kubeconfig".to_owned()));
}

#[test]
fn configuration_names_the_nodes_own_things() {
    let layout = Layout::new(Path::new("/src"), Path::new("/cache"));
    let kubelet = kubelet_configuration(&layout, "0a1b2c3d", "n2", "172.30.0.12");
    for line in [
        "address: 172.30.0.12",
        "tlsCertFile: /src/target/lab/pki/n2.crt",
        "cgroupRoot: /weft-lab-0a1b2c3d/n2",
    ] {
        assert!(kubelet.lines().any(|found| found == line), "{line}");
    }
    assert!(containerd_configuration().contains("sandbox = \"docker.io/weft/lab-pause:1\""));
}
