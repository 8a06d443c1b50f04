//! The network controller: WeftNetwork -> objects of the node agent, and its status.

pub(crate) mod status;
pub(crate) mod teardown;

#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, fmt::Debug, sync::Arc, time::Duration};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
        apps::v1::DaemonSet,
        core::v1::{ConfigMap, ServiceAccount},
        rbac::v1::{ClusterRole, ClusterRoleBinding},
    },
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams},
    core::PartialObjectMeta,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use weft_crds::{ConditionStatus, DEFAULT_NAME, WeftNetwork, condition};
use weft_render::{Facts, NODE_AGENT, SELECTOR};

use crate::{
    api::{NETWORK, apply, delete, named, set_finalizer},
    clock,
    events::Events,
    looping::{Error, Tried},
    stores::Stores,
};

/// The controller.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) client: Client,
    pub(crate) stores: Arc<Stores>,
    pub(crate) facts: Facts,
    pub(crate) events: Events,
}

impl Network {
    /// Renders, applies, prunes; or takes everything down.
    pub(crate) async fn reconcile(&self) -> Result<Option<Duration>, Error> {
        let Some(network) = self.stores.networks.get(DEFAULT_NAME) else {
            return Ok(None);
        };
        if network.metadata.deletion_timestamp.is_some() {
            teardown::teardown(&self.client, &network, &self.facts).await?;
            return Ok(None);
        }
        let api = Api::<WeftNetwork>::all(self.client.clone());
        set_finalizer(&api, &*network, true).await?;
        let agent = weft_render::agent(&network, &self.facts)
            .map_err(|error| Error::Other(format!("cannot render WeftNetwork default: {error}")))?;
        // What the pods need comes before the pods.
        self.own(&agent.service_account).await?;
        self.everywhere(&agent.cluster_role).await?;
        self.everywhere(&agent.cluster_role_binding).await?;
        self.everywhere(&agent.admission_policy).await?;
        self.everywhere(&agent.admission_binding).await?;
        self.own(&agent.config_map).await?;
        self.own(&agent.daemon_set).await?;
        self.prune().await?;
        Ok(None)
    }

    /// The status, from the DaemonSet's figures and the WeftNodes.
    pub(crate) async fn report(&self) -> Result<Option<Duration>, Error> {
        let Some(network) = self.stores.network() else {
            return Ok(None);
        };
        let set = format!("{}/{NODE_AGENT}", self.facts.namespace);
        let status = status::status(
            &network,
            self.stores.daemon_sets.get(&set).as_deref(),
            &self.stores.nodes.rows(),
            &self.stores.weft_nodes.rows(),
            &clock::rfc3339(),
        );
        if network.status.as_ref() == Some(&status) {
            return Ok(None);
        }
        let patch = json!({
            "apiVersion": WeftNetwork::api_version(&()),
            "kind": WeftNetwork::kind(&()),
            "metadata": {"name": DEFAULT_NAME, "uid": network.uid()},
            "status": status,
        });
        Api::<WeftNetwork>::all(self.client.clone())
            .patch_status(
                DEFAULT_NAME,
                &PatchParams::apply(NETWORK).force(),
                &Patch::Apply(&patch),
            )
            .await
            .tried(|| "cannot write the status of WeftNetwork default".into())?;
        let before = network.status.as_ref();
        let before = before.and_then(|s| condition(&s.conditions, "Degraded"));
        if let Some(degraded) = condition(&status.conditions, "Degraded")
            && degraded.status == ConditionStatus::True
            && before.is_none_or(|b| b.status != degraded.status || b.reason != degraded.reason)
        {
            let object = network.object_ref(&());
            self.events
                .warn(&object, &degraded.reason, "Reconcile", &degraded.message)
                .await;
        }
        Ok(None)
    }

    async fn own<K>(&self, object: &K) -> Result<(), Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + Serialize + DeserializeOwned,
    {
        let api = Api::<K>::namespaced(self.client.clone(), &self.facts.namespace);
        apply(&api, NETWORK, object).await.map(drop)
    }

    async fn everywhere<K>(&self, object: &K) -> Result<(), Error>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let api = Api::<K>::all(self.client.clone());
        apply(&api, NETWORK, object).await.map(drop)
    }

    /// Deletes what carries our labels and is not rendered any more (a left-over clean-up, objects
    /// of an older version).
    async fn prune(&self) -> Result<(), Error> {
        let client = &self.client;
        let namespace = &self.facts.namespace;
        leave_one::<ServiceAccount>(
            &Api::namespaced(client.clone(), namespace),
            &Api::namespaced(client.clone(), namespace),
        )
        .await?;
        leave_one::<ConfigMap>(
            &Api::namespaced(client.clone(), namespace),
            &Api::namespaced(client.clone(), namespace),
        )
        .await?;
        leave_one::<DaemonSet>(
            &Api::namespaced(client.clone(), namespace),
            &Api::namespaced(client.clone(), namespace),
        )
        .await?;
        leave_one::<ClusterRole>(&Api::all(client.clone()), &Api::all(client.clone())).await?;
        leave_one::<ClusterRoleBinding>(&Api::all(client.clone()), &Api::all(client.clone()))
            .await?;
        leave_one::<ValidatingAdmissionPolicy>(
            &Api::all(client.clone()),
            &Api::all(client.clone()),
        )
        .await?;
        leave_one::<ValidatingAdmissionPolicyBinding>(
            &Api::all(client.clone()),
            &Api::all(client.clone()),
        )
        .await
    }
}

/// Everything rendered has one name: of each kind, one object stays.
async fn leave_one<K>(metadata: &Api<PartialObjectMeta<K>>, api: &Api<K>) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let ours = ListParams::default().labels(SELECTOR);
    let list = metadata
        .list(&ours)
        .await
        .tried(|| format!("cannot list our {}", K::plural(&())))?;
    let names: BTreeSet<String> = list.items.iter().map(ResourceExt::name_any).collect();
    for name in names.iter().filter(|n| *n != NODE_AGENT) {
        tracing::info!("pruning {}", named::<K>(name));
        delete(api, name).await?;
    }
    Ok(())
}
