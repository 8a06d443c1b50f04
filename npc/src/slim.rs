//! Objects of the API as npc watches them. What policy does not need is skipped while an answer is
//! read: it never becomes an object.
//!
//! The operator reads Pods in its own way: it needs no ports and annotations, and policy is none of
//! its business.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{core::v1 as core, networking::v1 as networking},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::Resource;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use weft_policy::{ObjectKey, SlimPod, Version};

/// A Pod: its resourceVersion and what policy needs of it.
#[derive(Debug, Clone, Resource)]
#[resource(inherit = core::Pod)]
pub(crate) struct Pod {
    metadata: ObjectMeta,
    pub(crate) pruned: weft_policy::Pod,
}

impl<'de> Deserialize<'de> for Pod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let pod = SlimPod::deserialize(deserializer)?;
        Ok(Self {
            metadata: version(pod.resource_version()),
            pruned: pod.into(),
        })
    }
}

/// A Namespace: what policy needs of it, and what its annotations ask of npc.
#[derive(Debug, Clone, Resource)]
#[resource(inherit = core::Namespace)]
pub(crate) struct Namespace {
    metadata: ObjectMeta,
    pub(crate) pruned: weft_policy::Namespace,
    /// Connections that policies allow from and to its pods are to be logged
    /// ([`weft_crds::ANNOTATION_LOG_ALLOWED`] is `true`).
    pub(crate) logs_allowed: bool,
}

impl<'de> Deserialize<'de> for Namespace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Slim {
            metadata: Metadata,
        }
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Metadata {
            name: String,
            resource_version: Option<String>,
            deletion_timestamp: Option<Time>,
            labels: Option<BTreeMap<String, String>>,
            annotations: Option<Annotations>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Annotations {
            #[serde(rename = "weft.dev/log-allowed")]
            log_allowed: Option<String>,
        }
        let Slim { metadata } = Slim::deserialize(deserializer)?;
        let asked = metadata.annotations.and_then(|all| all.log_allowed);
        Ok(Self {
            metadata: version(metadata.resource_version.as_deref()),
            logs_allowed: asked.as_deref() == Some("true"),
            pruned: weft_policy::Namespace {
                name: metadata.name.into(),
                labels: metadata.labels.into_iter().flatten().collect(),
                terminating: metadata.deletion_timestamp.is_some(),
                version: Version::parse(metadata.resource_version.as_deref()),
            },
        })
    }
}

/// A NetworkPolicy; also one that does not have the shape that this version of the API gives it.
/// If that were an error, the list with it could not be read, and no other policy of it.
#[derive(Debug, Clone, Resource)]
#[resource(inherit = networking::NetworkPolicy)]
pub(crate) struct NetworkPolicy {
    metadata: ObjectMeta,
    pub(crate) key: ObjectKey,
    pub(crate) uid: String,
    pub(crate) policy: Result<Box<networking::NetworkPolicy>, String>,
}

impl<'de> Deserialize<'de> for NetworkPolicy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut object = Value::deserialize(deserializer)?;
        let field = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
        let key = ObjectKey::new(field("namespace"), field("name"));
        let uid = field("uid").to_owned();
        let metadata = version(object["metadata"]["resourceVersion"].as_str());
        if let Some(fields) = object["metadata"].as_object_mut() {
            fields.retain(|name, _| name == "namespace" || name == "name");
        }
        let policy = serde_json::from_value(object).map_err(|error| error.to_string());
        Ok(Self {
            metadata,
            key,
            uid,
            policy: policy.map(Box::new),
        })
    }
}

impl NetworkPolicy {
    /// Of one that was deleted, the version of its deletion.
    pub(crate) fn version(&self) -> Option<Version> {
        Version::parse(self.meta().resource_version.as_deref())
    }
}

fn version(resource_version: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        resource_version: resource_version.map(str::to_owned),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use kube::core::ObjectList;
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn a_pod_as_the_api_writes_it_is_what_pruning_the_whole_object_gives() {
        let whole = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {
                "name": "kube-proxy-n1", "namespace": "kube-system", "uid": "u1",
                "resourceVersion": "7", "generateName": "kube-proxy-",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "deletionTimestamp": "2026-01-02T00:00:00Z",
                "labels": {"app": "web", "tier": ""},
                "annotations": {"kubernetes.io/config.hash": "0123456789abcdef0123456789abcdef",
                    "kubernetes.io/config.mirror": "0123456789abcdef0123456789abcdef",
                    "other": "x"},
                "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:metadata": {}}}]},
            "spec": {"nodeName": "n1", "hostNetwork": true,
                "containers": [
                    {"name": "c", "image": "i", "ports": [
                        {"name": "web", "containerPort": 80, "protocol": "TCP"},
                        {"containerPort": 81}]},
                    {"name": "d"}],
                "initContainers": [
                    {"name": "side", "restartPolicy": "Always", "ports": [
                        {"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
                    {"name": "init", "ports": [{"name": "no", "containerPort": 1}]}]},
            "status": {"phase": "Failed", "podIP": "10.32.0.5", "qosClass": "Burstable",
                "podIPs": [{"ip": "10.32.0.5"}, {"ip": "fd00::5"}]}});
        let slim: Pod = from_value(whole.clone()).expect("a pod");
        let pod: core::Pod = from_value(whole).expect("a pod");
        assert_eq!(slim.pruned, weft_policy::Pod::prune(&pod));
        assert_eq!(slim.meta().resource_version.as_deref(), Some("7"));
        let ports = slim
            .pruned
            .ports
            .iter()
            .map(|port| (&*port.name, port.port));
        assert_eq!(ports.collect::<Vec<_>>(), [("dns", 53), ("web", 80)]);
        let weft_policy::Pod { uid, created, .. } = &slim.pruned;
        assert_eq!(
            (&*uid.0, *created),
            ("0123456789abcdef0123456789abcdef", 1_767_225_600)
        );
        let weft_policy::Pod {
            host_network,
            finished,
            terminating,
            ..
        } = slim.pruned;
        assert!(host_network && finished && terminating);
    }

    #[test]
    fn a_namespace_as_the_api_writes_it_is_what_pruning_the_whole_object_gives() {
        for deleted in [json!("2026-01-02T00:00:00Z"), json!(null)] {
            let whole = json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {
                    "name": "shop", "uid": "u1", "resourceVersion": "7",
                    "deletionTimestamp": deleted, "labels": {"team": "a"}},
                "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Terminating"}});
            let slim: Namespace = from_value(whole.clone()).expect("a namespace");
            let namespace: core::Namespace = from_value(whole).expect("a namespace");
            assert_eq!(slim.pruned, weft_policy::Namespace::prune(&namespace));
            assert_eq!(slim.pruned.terminating, !deleted.is_null());
            assert!(slim.pruned.version.is_some());
        }
    }

    #[test]
    fn a_namespace_asks_for_the_log_with_the_word_true_alone() {
        let asks = |annotations: Value| {
            let namespace = json!({"metadata": {"name": "shop", "annotations": annotations}});
            let namespace: Namespace = from_value(namespace).expect("a namespace");
            namespace.logs_allowed
        };
        let with = |value: &str| json!({"a": "b", weft_crds::ANNOTATION_LOG_ALLOWED: value});
        assert!(asks(with("true")));
        for other in [
            with("false"),
            with("True"),
            with(""),
            json!({}),
            json!(null),
        ] {
            assert!(!asks(other.clone()), "{other}");
        }
    }

    #[test]
    fn what_is_null_or_missing_in_a_pod_is_nothing() {
        for status in [
            json!({}),
            json!({"podIPs": null, "podIP": null, "phase": null}),
        ] {
            let pod: Pod = from_value(json!({
                "metadata": {"name": "p", "namespace": "x", "labels": null, "annotations": null,
                    "creationTimestamp": null},
                "spec": {"containers": null, "initContainers": null, "nodeName": null},
                "status": status}))
            .expect("a pod");
            assert_eq!(pod.pruned.key, ObjectKey::new("x", "p"));
            assert!(pod.pruned.addresses.is_empty() && pod.pruned.ports.is_empty());
        }
    }

    #[test]
    fn a_policy_that_cannot_be_read_does_not_hide_the_others() {
        let policy = |name: &str, spec: Value| {
            json!({"metadata": {"name": name, "namespace": "x", "uid": "u", "resourceVersion": "3"},
                "spec": spec})
        };
        let list: ObjectList<NetworkPolicy> = from_value(json!({
        "metadata": {"resourceVersion": "9"},
        "items": [
            policy("good", json!({"podSelector": {}, "ingress": [{}]})),
            policy("odd", json!({"podSelector": {}, "ingress": [{"ports": [{"port": 1.5}]}]})),
            policy("null", json!({"podSelector": {}, "ingress": [null]})),
            policy("nulls", json!({"podSelector": {"matchLabels": null,
                "matchExpressions": null}, "ingress": null, "egress": null,
                "policyTypes": null})),
        ]}))
        .expect("a list");
        let read = list.items.iter();
        let read: Vec<_> = read
            .map(|p| (&*p.key.name, p.policy.is_ok(), &*p.uid))
            .collect();
        assert_eq!(
            read,
            [
                ("good", true, "u"),
                ("odd", false, "u"),
                ("null", false, "u"),
                ("nulls", true, "u")
            ]
        );
        assert_eq!(list.items[1].meta().resource_version.as_deref(), Some("3"));
    }
}
