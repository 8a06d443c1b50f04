//! The nodes controllers: Node -> WeftNode with its gateway, Node condition, and the peer slices.
//!
//! Decisions are pure ([`weft_node`], [`slices`], [`condition`]); this file reads and writes.

pub(crate) mod condition;
pub(crate) mod slices;
pub(crate) mod weft_node;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use weft_crds::{PeerSlice, WeftNode};

use self::{slices::Write, weft_node::Step};
use crate::{
    api::{NODES, delete_exactly, named, post},
    blocks::{verdict::judge, views},
    clock,
    events::Events,
    looping::{Error, Tried},
    rows::NodeRow,
    stores::Stores,
};

/// Both controllers share what they need.
#[derive(Clone)]
pub(crate) struct Nodes {
    pub(crate) client: Client,
    pub(crate) stores: Arc<Stores>,
    pub(crate) events: Events,
}

impl Nodes {
    /// WeftNodes and Node conditions. One node's failure does not hold up another's.
    pub(crate) async fn reconcile(&self) -> Result<Option<Duration>, Error> {
        if self.stores.network().is_none() {
            return Ok(None);
        }
        let nodes = self.stores.nodes.rows();
        let weft_nodes = self.stores.weft_nodes.rows();
        let blocks = views(&self.stores.blocks.rows());
        let pools = judge(&self.stores.pools.rows(), &nodes, &[])
            .into_iter()
            .filter_map(|(name, verdict)| Some((name, verdict.pool?)))
            .collect();
        let mut errors = Vec::new();
        for step in weft_node::steps(&nodes, &weft_nodes, &blocks, &pools) {
            if let Err(error) = self.take(step).await {
                errors.push(error);
            }
        }
        for (node, unavailable) in condition::network_unavailable(&nodes, &weft_nodes) {
            if let Err(error) = self.set_network_unavailable(&node, unavailable).await {
                errors.push(error);
            }
        }
        for (object, conditions) in condition::addresses(&nodes, &weft_nodes, &clock::rfc3339()) {
            let mut object = WeftNode::clone(&object);
            object.status.get_or_insert_default().conditions = conditions;
            if let Err(error) = self.write_status(&object).await {
                errors.push(error);
            }
            if let Some(node) = nodes.iter().find(|n| n.id.name == object.name_any())
                && node.addresses.is_empty()
            {
                let note = condition::no_address(&node.id.name);
                let reference = node_reference(node);
                self.events
                    .warn(&reference, "NoInternalIP", "Join", &note)
                    .await;
            }
        }
        Error::join(errors).map(|()| None)
    }

    /// The peer slices. Writes in the order of their generations and stops at the first failure:
    /// a router that has seen a generation has seen all before it.
    pub(crate) async fn publish(&self) -> Result<Option<Duration>, Error> {
        if self.stores.network().is_none() {
            return Ok(None);
        }
        let peers = slices::peers(
            &self.stores.nodes.rows(),
            &self.stores.weft_nodes.rows(),
            &views(&self.stores.blocks.rows()),
        );
        let api = Api::<PeerSlice>::all(self.client.clone());
        for write in slices::writes(&self.stores.slices.rows(), &peers) {
            let (result, slice) = match write {
                Write::Create(slice) => (api.create(&post(NODES), &slice).await, slice),
                Write::Replace(slice) => {
                    let name = slice.name_any();
                    (api.replace(&name, &post(NODES), &slice).await, slice)
                }
            };
            let name = slice.name_any();
            result.tried(|| format!("cannot write {}", named::<PeerSlice>(&name)))?;
            tracing::info!(
                slice = name,
                generation = slice.spec.generation,
                peers = slice.spec.peers.len(),
                "peers published"
            );
        }
        Ok(None)
    }

    async fn take(&self, step: Step) -> Result<(), Error> {
        let api = Api::<WeftNode>::all(self.client.clone());
        match step {
            Step::Create(object) => {
                let name = object.name_any();
                match api.create(&post(NODES), &object).await {
                    Ok(_) => tracing::info!(node = name, "joins"),
                    Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                    Err(error) => {
                        return Err(error)
                            .tried(|| format!("cannot create {}", named::<WeftNode>(&name)));
                    }
                }
                Ok(())
            }
            Step::Replace(object) => {
                let name = object.name_any();
                api.replace(&name, &post(NODES), &object)
                    .await
                    .map(drop)
                    .tried(|| format!("cannot write {}", named::<WeftNode>(&name)))
            }
            Step::Delete(object) => {
                tracing::info!(node = object.name_any(), "leaves");
                delete_exactly(&api, &*object).await
            }
        }
    }

    async fn write_status(&self, object: &WeftNode) -> Result<(), Error> {
        let name = object.name_any();
        Api::<WeftNode>::all(self.client.clone())
            .replace_status(&name, &post(NODES), object)
            .await
            .map(drop)
            .tried(|| format!("cannot write the status of {}", named::<WeftNode>(&name)))
    }

    /// Merged by type, so other writers' conditions stay. The kubelet and the scheduler read it.
    async fn set_network_unavailable(
        &self,
        node: &NodeRow,
        unavailable: bool,
    ) -> Result<(), Error> {
        let now = clock::rfc3339();
        let [up, not_ready] = condition::REASONS;
        let (status, reason, message) = if unavailable {
            (
                "True",
                not_ready,
                "the WeftNode of this node is not Ready: see its conditions",
            )
        } else {
            ("False", up, "weft connects the pods of this node")
        };
        let patch = json!({"metadata": {"uid": node.id.uid}, "status": {"conditions": [{
            "type": condition::NETWORK_UNAVAILABLE,
            "status": status,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }]}});
        let params = PatchParams {
            field_manager: Some(NODES.into()),
            ..PatchParams::default()
        };
        Api::<Node>::all(self.client.clone())
            .patch_status(&node.id.name, &params, &Patch::Strategic(patch))
            .await
            .map(drop)
            .tried(|| {
                format!(
                    "cannot write condition NetworkUnavailable of Node {}",
                    node.id.name
                )
            })
    }
}

/// The kubelet's own events name a Node by name *as* its UID; `kubectl describe node` finds both.
fn node_reference(node: &NodeRow) -> k8s_openapi::api::core::v1::ObjectReference {
    let mut object = Node::default();
    object.metadata.name = Some(node.id.name.clone());
    object.metadata.uid = Some(node.id.uid.clone());
    object.object_ref(&())
}
