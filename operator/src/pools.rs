//! The pool status controller: capacity, usage, conditions; events and metrics for them.

use std::{sync::Arc, time::Duration};

use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use weft_crds::IPPool;

use crate::{
    api::{BLOCKS, named},
    blocks::{
        grant::grants,
        service_range::ServiceRange,
        status::{Amounts, changed, news},
        verdict::judge,
        views,
    },
    clock,
    events::Events,
    looping::{Error, Tried},
    metrics::{Metrics, Pool},
    stores::Stores,
};

/// The controller.
pub(crate) struct Pools {
    pub(crate) client: Client,
    pub(crate) stores: Arc<Stores>,
    pub(crate) services: Arc<ServiceRange>,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
}

impl Pools {
    /// Computes every pool's status and writes those that changed.
    pub(crate) async fn reconcile(&self) -> Result<Option<Duration>, Error> {
        let pools = self.stores.pools.rows();
        let nodes = self.stores.nodes.rows();
        let blocks = views(&self.stores.blocks.rows());
        let services = self.services.get(&self.client).await;
        let verdicts = judge(&pools, &nodes, &services);
        let grants = grants(&verdicts, &nodes, &blocks, clock::seconds());
        self.metrics.capacity.clear();
        self.metrics.allocated.clear();
        self.metrics.free.clear();
        for (name, verdict) in &verdicts {
            let own: Vec<_> = blocks.iter().filter(|b| b.pool == *name).collect();
            let amounts = Amounts::of(verdict.pool.as_ref(), &own);
            let label = Pool { pool: name.clone() };
            #[allow(clippy::cast_precision_loss, reason = "metrics are floats")]
            for (family, value) in [
                (&self.metrics.capacity, amounts.capacity),
                (&self.metrics.allocated, amounts.allocated),
                (&self.metrics.free, amounts.free()),
            ] {
                family.get_or_create(&label).set(value as f64);
            }
        }
        let mut errors = Vec::new();
        let api = Api::<IPPool>::all(self.client.clone());
        let params = PatchParams::apply(BLOCKS).force();
        for (pool, status) in changed(&pools, &verdicts, &grants, &blocks, &clock::rfc3339()) {
            let name = pool.name_any();
            // The UID keeps an apply from making anew what was deleted meanwhile.
            let patch = json!({
                "apiVersion": IPPool::api_version(&()),
                "kind": IPPool::kind(&()),
                "metadata": {"name": name, "uid": pool.uid()},
                "status": status,
            });
            match api
                .patch_status(&name, &params, &Patch::Apply(&patch))
                .await
                .tried(|| format!("cannot write the status of {}", named::<IPPool>(&name)))
            {
                Ok(_) => {
                    for bad in news(pool.status.as_ref(), &status) {
                        let object = pool.object_ref(&());
                        self.events
                            .warn(&object, &bad.reason, "Allocate", &bad.message)
                            .await;
                    }
                }
                Err(error) => errors.push(error),
            }
        }
        Error::join(errors).map(|()| None)
    }
}
