use std::path::Path;

use super::*;
use crate::options::{Families, ProxyMode};

#[test]
fn families_decide_the_service_range_and_nothing_reads_the_callers_environment() {
    let layout = Layout::new(Path::new("/src"), Path::new("/cache"));
    let options = Options {
        nodes: 1,
        proxy_mode: ProxyMode::Iptables,
        families: Families::Dual,
        underlay_mtu: 1500,
    };
    let server = daemon(&layout, &options, "kube-apiserver");
    assert_eq!(
        server.program,
        Path::new("/src/target/lab/bin/kube-apiserver")
    );
    assert_eq!(
        server.log,
        Path::new("/src/target/lab/log/hub-kube-apiserver.log")
    );
    for expected in [
        "--bind-address=172.30.0.1",
        "--service-cluster-ip-range=10.96.0.0/16,fd96::/112",
        "--tls-cert-file=/src/target/lab/pki/apiserver.crt",
    ] {
        assert!(
            server.arguments.iter().any(|argument| argument == expected),
            "{expected}"
        );
    }
    for process in PROCESSES {
        let daemon = daemon(&layout, &options, process);
        assert!(daemon.program.ends_with(process), "{process}");
        assert!(!daemon.arguments.is_empty(), "{process}");
    }
}
