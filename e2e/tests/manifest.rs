//! `charts/weft.yaml`, the rendered chart: every document is what Kubernetes knows, nothing needs
//! another document first, and the roles are those that the operator needs. No cluster is needed.

#![allow(clippy::panic, reason = "assertions outside of test functions")]

use std::collections::BTreeMap;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, ServiceAccount},
    rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding},
};
use serde::{Deserialize as _, Serialize, de::DeserializeOwned};
use serde_json::Value;
use weft_crds::{IPPoolSpec, WeftNetworkSpec};

const MANIFEST: &str = include_str!("../../charts/weft.yaml");

fn documents() -> Vec<Value> {
    serde_yaml::Deserializer::from_str(MANIFEST)
        .map(|document| Value::deserialize(document).expect("YAML"))
        .filter(|document| !document.is_null())
        .collect()
}

fn find<T: DeserializeOwned>(kind: &str, name: &str) -> T {
    let document = documents()
        .into_iter()
        .find(|document| document["kind"] == kind && document["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {kind} {name}"));
    serde_json::from_value(document).expect("its type")
}

/// Paths of `document` that its type does not know: what a server with field validation refuses.
fn unknown<T: DeserializeOwned + Serialize>(document: &Value) -> Vec<String> {
    let typed: T = serde_json::from_value(document.clone())
        .unwrap_or_else(|error| panic!("{}: {error}", document["metadata"]["name"]));
    let mut lost = Vec::new();
    compare(
        "",
        document,
        &serde_json::to_value(typed).expect("JSON"),
        &mut lost,
    );
    lost
}

fn compare(path: &str, written: &Value, read: &Value, lost: &mut Vec<String>) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (key, value) in written {
                let path = format!("{path}.{key}");
                match read.get(key) {
                    Some(read) => compare(&path, value, read, lost),
                    None => lost.push(path),
                }
            }
        }
        (Value::Array(written), Value::Array(read)) if written.len() == read.len() => {
            for (index, (written, read)) in written.iter().zip(read).enumerate() {
                compare(&format!("{path}[{index}]"), written, read, lost);
            }
        }
        (written, read) if written == read => {}
        _ => lost.push(path.to_owned()),
    }
}

#[test]
fn every_document_is_known_to_kubernetes_field_by_field() {
    let documents = documents();
    for document in &documents {
        let lost = match document["kind"].as_str().unwrap_or_default() {
            "ServiceAccount" => unknown::<ServiceAccount>(document),
            "ConfigMap" => unknown::<ConfigMap>(document),
            "ClusterRole" => unknown::<ClusterRole>(document),
            "ClusterRoleBinding" => unknown::<ClusterRoleBinding>(document),
            "Role" => unknown::<Role>(document),
            "RoleBinding" => unknown::<RoleBinding>(document),
            "Deployment" => unknown::<Deployment>(document),
            other => {
                panic!("a {other} in the manifest: hooks, tests and custom resources stay out")
            }
        };
        assert_eq!(
            lost,
            Vec::<String>::new(),
            "{}",
            document["metadata"]["name"]
        );
    }
    assert!(documents.len() >= 9, "{} documents", documents.len());
}

#[test]
fn unknown_fields_are_found() {
    let document = serde_json::json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "nmaespace": "y"},
    });
    assert_eq!(unknown::<ConfigMap>(&document), [".metadata.nmaespace"]);
}

/// Rules as sets of (group, resource, verb), so that their grouping does not matter.
fn grants(rules: &[PolicyRule]) -> BTreeMap<(String, String), Vec<String>> {
    let mut grants: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for rule in rules {
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                let verbs = grants.entry((group.clone(), resource.clone())).or_default();
                verbs.extend(rule.verbs.iter().cloned());
                verbs.sort();
                verbs.dedup();
            }
        }
    }
    grants
}

#[test]
fn operator_may_do_what_it_needs_and_no_more() {
    let cluster: ClusterRole = find("ClusterRole", "weft-operator");
    assert_eq!(
        grants(&cluster.rules.unwrap_or_default()),
        grants(&weft_render::operator_rules())
    );
    let namespaced: Role = find("Role", "weft-operator");
    assert_eq!(
        grants(&namespaced.rules.unwrap_or_default()),
        grants(&weft_render::operator_namespace_rules())
    );
}

#[test]
fn config_is_a_network_and_pools() {
    let config: ConfigMap = find("ConfigMap", "weft-config");
    let text = config.data.unwrap_or_default()["config.json"].clone();
    let value: Value = serde_json::from_str(&text).expect("JSON");
    let network: WeftNetworkSpec =
        serde_json::from_value(value["network"].clone()).expect("a WeftNetwork spec");
    assert_eq!(network, WeftNetworkSpec::default());
    let pool: IPPoolSpec =
        serde_json::from_value(value["pools"][0]["spec"].clone()).expect("an IPPool spec");
    assert_eq!(pool.cidrs, ["10.32.0.0/12"]);
    assert_eq!(value["pools"][0]["name"], "default");
}

#[test]
fn operator_runs_before_any_network_and_twice_on_one_node() {
    let deployment: Deployment = find("Deployment", "weft-operator");
    let spec = deployment.spec.expect("a spec");
    let pod = spec.template.spec.expect("a pod");
    assert_eq!(pod.host_network, Some(true));
    assert_eq!(
        pod.priority_class_name.as_deref(),
        Some("system-cluster-critical")
    );
    let affinity = pod.affinity.and_then(|affinity| affinity.pod_anti_affinity);
    assert_eq!(
        affinity.and_then(|anti| anti.required_during_scheduling_ignored_during_execution),
        None
    );
    for container in &pod.containers {
        assert_eq!(
            container.ports, None,
            "a host port would exclude the second replica"
        );
    }
    let tolerated: Vec<String> = pod
        .tolerations
        .into_iter()
        .flatten()
        .filter_map(|toleration| toleration.key)
        .collect();
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/network-unavailable",
        "node-role.kubernetes.io/control-plane",
    ] {
        assert!(tolerated.iter().any(|tolerated| tolerated == key), "{key}");
    }
}
