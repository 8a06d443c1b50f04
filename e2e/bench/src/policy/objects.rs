//! The cluster of the benchmark: one node with the measured pod and others, pods elsewhere, policies.

use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};

use super::api::{Api, Kind};

pub(crate) const NODE: &str = "n1";
pub(crate) const BLOCK: &str = "10.32.0.0/26";
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 32, 0, 1);
/// The measured pod.
pub(crate) const TARGET: Ipv4Addr = Ipv4Addr::new(10, 32, 0, 10);
/// A pod of the same node that no policy selects.
pub(crate) const FREE: Ipv4Addr = Ipv4Addr::new(10, 32, 0, 11);
/// A pod of another node, inside [`LAST`].
pub(crate) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 36, 7, 1);
/// Network of the rule that lets the client in.
pub(crate) const LAST: &str = "10.36.7.0/30";

/// The client may always connect here.
pub(crate) const ALLOWED: u16 = 40080;
/// Allowed or not, as the changing policy says.
pub(crate) const CHANGING: u16 = 40081;
/// Never allowed.
pub(crate) const FORBIDDEN: u16 = 40082;
/// UDP that is always allowed.
pub(crate) const FLOW: u16 = 40083;

/// Other pods of the node; each policy of a [`fill`] selects one of them.
pub(crate) const OTHERS: usize = 30;
/// Groups of pods elsewhere that policies let in.
pub(crate) const GROUPS: usize = 20;
/// One pod of so many is in a group.
const GROUPED: usize = 3;
/// Nodes of the cluster.
const NODES: usize = 100;

const NAMESPACE: &str = "bench";

/// The measured pod's port.
pub(crate) fn at(port: u16) -> SocketAddr {
    SocketAddr::from((TARGET, port))
}

/// Address of an other pod of the node.
pub(crate) fn other(n: usize) -> Ipv4Addr {
    offset(Ipv4Addr::new(10, 32, 0, 12), n)
}

/// Address of a pod elsewhere.
pub(crate) fn elsewhere(n: usize) -> Ipv4Addr {
    offset(Ipv4Addr::new(10, 33, 0, 0), n)
}

fn offset(base: Ipv4Addr, n: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(base.to_bits() + u32::try_from(n).unwrap_or_default())
}

/// Group of a pod elsewhere, if it is in one.
pub(crate) fn group(n: usize) -> Option<usize> {
    n.is_multiple_of(GROUPED).then_some(n / GROUPED % GROUPS)
}

/// Network and port of rule `n`: each has its own.
pub(crate) fn network(n: usize) -> (String, u16) {
    let base = offset(Ipv4Addr::new(172, 16, 0, 0), n * 4);
    let port = 20_000 + u16::try_from(n % 10_000).unwrap_or_default();
    (format!("{base}/30"), port)
}

/// A pod as the API server gives it, with the fields that policy does not look at.
fn pod(name: &str, node: &str, address: Ipv4Addr, labels: &Value) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": NAMESPACE, "uid": format!("uid-{name}"), "labels": labels,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": {"kubernetes.io/psp": "none", "prometheus.io/scrape": "true"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": true,
                "blockOwnerDeletion": true, "name": "application-5d4f8c7b9", "uid": "uid-of-owner"}],
            "managedFields": [{"manager": "kube-controller-manager", "operation": "Update",
                "apiVersion": "v1", "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1",
                "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                    "f:spec": {"f:containers": {"k:{\"name\":\"main\"}": {".": {}, "f:image": {},
                        "f:imagePullPolicy": {}, "f:name": {}, "f:ports": {}, "f:resources": {}}}}}}],
        },
        "spec": {
            "nodeName": node, "serviceAccountName": "default", "restartPolicy": "Always",
            "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
            "terminationGracePeriodSeconds": 30,
            "containers": [{"name": "main", "image": "registry.example/application:1.2.3",
                "imagePullPolicy": "IfNotPresent",
                "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
                "env": [{"name": "LOG_LEVEL", "value": "info"}],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
                "volumeMounts": [{"name": "token", "readOnly": true,
                    "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}]}],
            "tolerations": [{"key": "node.kubernetes.io/not-ready", "operator": "Exists",
                "effect": "NoExecute", "tolerationSeconds": 300}],
        },
        "status": {
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "hostIP": "172.30.0.2", "qosClass": "Burstable",
            "conditions": [{"type": "Ready", "status": "True",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        },
    })
}

/// A pod elsewhere; `moved` puts it into the next group, if it is in one.
pub(crate) fn remote(n: usize, moved: bool) -> Value {
    let mut labels = json!({"app": format!("application-{}", n % 50),
        "app.kubernetes.io/instance": format!("application-{}", n % 50),
        "pod-template-hash": "5d4f8c7b9"});
    if let Some(group) = group(n) {
        labels["group"] = json!(format!("g{}", (group + usize::from(moved)) % GROUPS));
    }
    let node = format!("n{}", 2 + n % (NODES - 1));
    pod(&format!("remote-{n}"), &node, elsewhere(n), &labels)
}

/// Namespace, the node's pods, the client, and so many pods elsewhere.
pub(crate) fn pods(api: &Api, remotes: usize) {
    api.put(
        Kind::Namespaces,
        json!({"metadata": {"name": NAMESPACE, "uid": "uid-of-namespace",
            "labels": {"kubernetes.io/metadata.name": NAMESPACE}}}),
    );
    let mut own = vec![("target".to_owned(), TARGET), ("free".to_owned(), FREE)];
    own.extend((0..OTHERS).map(|n| (format!("other-{n}"), other(n))));
    for (name, address) in own {
        api.put(Kind::Pods, pod(&name, NODE, address, &json!({"app": name})));
    }
    let client = pod("client", "n2", CLIENT, &json!({"app": "client"}));
    api.put(Kind::Pods, client);
    for n in 0..remotes {
        api.put(Kind::Pods, remote(n, false));
    }
}

/// What the router answers when npc asks what is attached here.
pub(crate) fn attachments() -> Value {
    let mut own = vec![("target".to_owned(), TARGET), ("free".to_owned(), FREE)];
    own.extend((0..OTHERS).map(|n| (format!("other-{n}"), other(n))));
    let endpoints: Vec<Value> = own
        .iter()
        .map(|(name, address)| {
            // Target and free pod share a namespace.
            let device = if name == "free" { "target" } else { name };
            json!({"container_id": format!("container-{name}"), "ifname": "eth0",
                "pod": {"namespace": NAMESPACE, "name": name, "uid": format!("uid-{name}")},
                "addresses": [address], "host_ifname": format!("vethwepl{}", short(device))})
        })
        .collect();
    json!({"ok": {"endpoints": endpoints, "blocks": [BLOCK], "gateways": [GATEWAY]}})
}

/// Seven characters, as a device name has room for.
pub(crate) fn short(name: &str) -> String {
    name.replace("other-", "o").chars().take(7).collect()
}

/// A policy for ingress to the pods with this label `app`.
pub(crate) fn policy(name: &str, app: &str, ingress: &[Value]) -> Value {
    json!({
        "metadata": {"name": name, "namespace": NAMESPACE, "uid": format!("uid-of-policy-{name}"),
            "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, "policyTypes": ["Ingress"],
            "ingress": ingress},
    })
}

/// A rule for one network and port.
pub(crate) fn network_rule(cidr: &str, port: u16) -> Value {
    json!({"from": [{"ipBlock": {"cidr": cidr}}], "ports": [{"protocol": "TCP", "port": port}]})
}

/// Policy of the measured pod: the client may use the allowed ports, and the changing one if `open`.
pub(crate) fn target_policy(open: bool) -> Value {
    let mut ports = vec![
        json!({"protocol": "TCP", "port": ALLOWED}),
        json!({"protocol": "UDP", "port": FLOW}),
    ];
    if open {
        ports.push(json!({"protocol": "TCP", "port": CHANGING}));
    }
    // The last by name, so the last in any list.
    policy(
        "zz-target",
        "target",
        &[json!({"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": ports})],
    )
}

/// A cluster with so many pods elsewhere and so many policies, the measured pod's among them. All
/// of them select pods of this node, each has a network and a port of its own and lets in a group.
pub(crate) fn fill(api: &Api, remotes: usize, policies: usize) {
    pods(api, remotes);
    for n in 0..policies.saturating_sub(1) {
        let (cidr, port) = network(n);
        let peers = json!({"from": [{"podSelector": {"matchLabels": {
            "group": format!("g{}", n % GROUPS)}}}], "ports": [{"protocol": "TCP", "port": 8080}]});
        let app = format!("other-{}", n % OTHERS);
        let rules = [peers, network_rule(&cidr, port)];
        api.put(Kind::Policies, policy(&format!("p-{n:05}"), &app, &rules));
    }
    api.put(Kind::Policies, target_policy(false));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_rule_has_a_network_and_a_port_of_its_own() {
        let all: BTreeSet<_> = (0..10_000).map(network).collect();
        let ports: BTreeSet<_> = all.iter().map(|(_, port)| *port).collect();
        let networks: BTreeSet<_> = all.iter().map(|(network, _)| network).collect();
        assert_eq!((networks.len(), ports.len()), (10_000, 10_000));
        assert!(!ports.contains(&ALLOWED) && !networks.contains(&LAST.to_owned()));
    }

    #[test]
    fn a_move_takes_a_pod_to_another_group() {
        let group = |pod: &Value| pod["metadata"]["labels"]["group"].clone();
        let (before, after) = (remote(3, false), remote(3, true));
        assert_eq!((group(&before), group(&after)), (json!("g1"), json!("g2")));
        assert_eq!(remote(4, false), remote(4, true));
    }
}
