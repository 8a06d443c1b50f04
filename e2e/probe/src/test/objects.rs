//! The Service and the policies of the test.

use k8s_openapi::api::{core::v1::Service, networking::v1::NetworkPolicy};
use serde_json::json;
use weft_probe::cluster::PORT;

/// A ClusterIP Service for the pod `server`.
pub(super) fn service() -> serde_json::Result<Service> {
    serde_json::from_value(json!({
        "metadata": {"name": "server"},
        "spec": {
            "selector": {"app": "server"},
            "ports": [{"name": "tcp", "port": 80, "targetPort": PORT, "protocol": "TCP"}],
        },
    }))
}

/// Nobody may reach the pod `server`.
pub(super) fn deny() -> serde_json::Result<NetworkPolicy> {
    serde_json::from_value(json!({
        "metadata": {"name": "deny"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "server"}},
            "policyTypes": ["Ingress"],
        },
    }))
}

/// Pods with the label `role: friend` may reach the pod `server`, on its TCP port.
pub(super) fn allow_friends() -> serde_json::Result<NetworkPolicy> {
    serde_json::from_value(json!({
        "metadata": {"name": "allow-friends"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "server"}},
            "policyTypes": ["Ingress"],
            "ingress": [{
                "from": [{"podSelector": {"matchLabels": {"role": "friend"}}}],
                "ports": [{"protocol": "TCP", "port": PORT}],
            }],
        },
    }))
}
