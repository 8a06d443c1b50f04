//! Pods and Nodes as far as the operator reads them. What is not named here is skipped while an
//! answer is read and never becomes an object: a page of 500 whole Pods costs 75 MB, which the
//! allocator keeps.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1 as core,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::Resource;
use serde::{Deserialize, Deserializer};

/// A Pod.
#[derive(Debug, Clone, Default, Deserialize, Resource)]
#[resource(inherit = core::Pod)]
#[serde(default)]
pub(crate) struct Pod {
    #[serde(deserialize_with = "metadata")]
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: PodSpec,
    pub(crate) status: PodStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct PodSpec {
    pub(crate) node_name: Option<String>,
    pub(crate) host_network: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodStatus {
    pub(crate) phase: Option<String>,
    #[serde(rename = "podIPs")]
    pub(crate) pod_ips: Option<Vec<PodIp>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct PodIp {
    pub(crate) ip: String,
}

/// A Node.
#[derive(Debug, Clone, Default, Deserialize, Resource)]
#[resource(inherit = core::Node)]
#[serde(default)]
pub(crate) struct Node {
    #[serde(deserialize_with = "metadata")]
    pub(crate) metadata: ObjectMeta,
    pub(crate) status: NodeStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeStatus {
    pub(crate) addresses: Option<Vec<NodeAddress>>,
    pub(crate) allocatable: Option<Allocatable>,
    pub(crate) conditions: Option<Vec<NodeCondition>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeAddress {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) address: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Allocatable {
    pub(crate) pods: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NodeCondition {
    #[serde(rename = "type")]
    pub(crate) type_: String,
    pub(crate) status: String,
}

/// `metadata` without managed fields and annotations, which are most of it.
fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Meta {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        labels: Option<BTreeMap<String, String>>,
        deletion_timestamp: Option<Time>,
    }
    let meta = Meta::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: meta.name,
        namespace: meta.namespace,
        uid: meta.uid,
        resource_version: meta.resource_version,
        labels: meta.labels,
        deletion_timestamp: meta.deletion_timestamp,
        ..ObjectMeta::default()
    })
}

#[cfg(test)]
mod tests {
    use kube::{Api, ResourceExt, api::ListParams};
    use serde_json::json;

    use super::*;
    use crate::scripted::{call, scenario};

    #[tokio::test]
    async fn a_list_of_whole_objects_is_read_without_what_nobody_needs() {
        let pod = json!({"metadata": {
                "name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "7",
                "labels": {"app": "web"}, "deletionTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"a": "b"}, "managedFields": [{"manager": "kubelet"}]},
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running", "podIPs": [{"ip": "10.32.0.5"}], "qosClass": "Burstable"}});
        let list = json!({"kind": "PodList", "apiVersion": "v1",
            "metadata": {"resourceVersion": "9", "continue": "x"}, "items": [pod]});
        let script = vec![call(http::Method::GET, "/api/v1/pods", 200, list)];
        let (list, _) = scenario(script, async |client| {
            let list = Api::<Pod>::all(client).list(&ListParams::default()).await;
            list.unwrap()
        })
        .await;
        assert_eq!(list.metadata.continue_.as_deref(), Some("x"));
        let pod = &list.items[0];
        assert_eq!(
            (pod.name_any(), pod.namespace()),
            ("p".into(), Some("ns".into()))
        );
        assert_eq!(pod.resource_version().as_deref(), Some("7"));
        assert_eq!(pod.labels()["app"], "web");
        assert!(pod.metadata.deletion_timestamp.is_some());
        assert_eq!(
            (pod.annotations().len(), pod.managed_fields().len()),
            (0, 0)
        );
        assert_eq!(pod.spec.node_name.as_deref(), Some("n1"));
        assert_eq!(pod.status.pod_ips.as_ref().unwrap()[0].ip, "10.32.0.5");
    }

    #[test]
    fn null_is_nothing() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": "n1", "labels": null},
            "status": {"addresses": null, "conditions": null, "allocatable": null},
        }))
        .unwrap();
        assert_eq!(node.name_any(), "n1");
        assert!(node.status.addresses.is_none());
    }
}
