//! Writes as the operator does them: server-side apply for what users may see and edit too,
//! compare-and-swap for what only weft writes.

use std::fmt::Debug;

use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::looping::{Error, Tried};

/// Field manager of the blocks controller.
pub(crate) const BLOCKS: &str = "weft-operator/blocks";
/// Field manager of the nodes controller.
pub(crate) const NODES: &str = "weft-operator/nodes";
/// Field manager of the network controller.
pub(crate) const NETWORK: &str = "weft-operator/network";
/// Field manager of the defaults from the configuration file.
pub(crate) const CONFIG: &str = "weft-operator/config";
/// Field manager of the CustomResourceDefinitions.
pub(crate) const CRDS: &str = "weft-operator/crds";

/// `Kind name`, for messages.
pub(crate) fn named<K: Resource<DynamicType = ()>>(name: &str) -> String {
    format!("{} {name}", K::kind(&()))
}

/// Parameters of a write that is not an apply.
pub(crate) fn post(manager: &str) -> PostParams {
    PostParams {
        field_manager: Some(manager.to_owned()),
        ..PostParams::default()
    }
}

/// Applies an object whose fields are ours alone: what somebody else wrote there is taken back.
pub(crate) async fn apply<K>(api: &Api<K>, manager: &str, object: &K) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
{
    let name = object.name_any();
    let params = PatchParams::apply(manager).force();
    api.patch(&name, &params, &Patch::Apply(object))
        .await
        .tried(|| format!("cannot apply {}", named::<K>(&name)))
}

/// Deletes exactly the object that was looked at. Gone already is success; changed since is a
/// conflict.
pub(crate) async fn delete_exactly<K>(api: &Api<K>, object: &K) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let name = object.name_any();
    let params = DeleteParams::background().preconditions(Preconditions {
        uid: object.uid(),
        resource_version: object.resource_version(),
    });
    gone(api.delete(&name, &params).await).tried(|| format!("cannot delete {}", named::<K>(&name)))
}

/// Deletes by name. Gone already is success.
pub(crate) async fn delete<K>(api: &Api<K>, name: &str) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    gone(api.delete(name, &DeleteParams::background()).await)
        .tried(|| format!("cannot delete {}", named::<K>(name)))
}

fn gone<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Puts our finalizer on (`true`) or takes it off, by compare-and-swap.
pub(crate) async fn set_finalizer<K>(api: &Api<K>, object: &K, wanted: bool) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let name = object.name_any();
    let mut finalizers = object.finalizers().to_vec();
    let has = finalizers.iter().any(|f| f == weft_crds::FINALIZER);
    if has == wanted {
        return Ok(());
    }
    if wanted {
        finalizers.push(weft_crds::FINALIZER.into());
    } else {
        finalizers.retain(|f| f != weft_crds::FINALIZER);
    }
    let patch = serde_json::json!({"metadata": {
        "resourceVersion": object.resource_version(),
        "finalizers": finalizers,
    }});
    let params = PatchParams::default();
    gone(api.patch(&name, &params, &Patch::Merge(&patch)).await)
        .tried(|| format!("cannot set the finalizer of {}", named::<K>(&name)))
}
