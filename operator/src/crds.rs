//! The operator brings its own CustomResourceDefinitions: neither helm nor `kubectl apply` of one
//! file can map a kind whose definition comes in the same call.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client, ResourceExt,
    runtime::{conditions::is_crd_established, wait::await_condition},
};
use tokio::time::timeout;

use crate::{
    api::{CRDS, apply},
    looping::{Error, Tried},
    uninstall::mark::Mark,
};

const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
const OPERATOR: &str = "weft-operator";
const ESTABLISHED: Duration = Duration::from_secs(30);

/// Whether the operator applied the definition (and may delete it at uninstall).
pub(crate) fn is_ours(crd: &CustomResourceDefinition) -> bool {
    crd.labels().get(MANAGED_BY).map(String::as_str) == Some(OPERATOR)
}

/// Applies every definition and waits until the API server serves it. One that somebody else
/// manages (the chart `weft-crds`, GitOps) is left as it is, as are all without `manage`.
///
/// # Errors
/// [`Error::Uninstalling`]: nothing is installed any more.
pub(crate) async fn install(client: &Client, manage: bool, mark: &Mark) -> Result<(), Error> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    for mut crd in weft_crds::all() {
        let name = crd.name_any();
        let present = api
            .get_opt(&name)
            .await
            .tried(|| format!("cannot read CustomResourceDefinition {name}"))?;
        let other = present.filter(|p| p.labels().contains_key(MANAGED_BY) && !is_ours(p));
        if !manage {
            tracing::debug!(crd = name, "not managed by the operator");
        } else if let Some(other) = other {
            let by = other.labels().get(MANAGED_BY).cloned().unwrap_or_default();
            tracing::info!(crd = name, by, "managed by somebody else, left as it is");
        } else {
            crd.labels_mut().insert(MANAGED_BY.into(), OPERATOR.into());
            mark.unless_left(apply(&api, CRDS, &crd)).await?;
        }
        let waiting = await_condition(api.clone(), &name, is_crd_established());
        match timeout(ESTABLISHED, waiting).await {
            Ok(Ok(_)) => tracing::debug!(crd = name, "established"),
            Ok(Err(error)) => {
                return Err(Error::Other(format!(
                    "cannot watch CustomResourceDefinition {name}: {error}"
                )));
            }
            Err(_) => {
                return Err(Error::Other(format!(
                    "CustomResourceDefinition {name} is not established after {ESTABLISHED:?}: see its \
                     conditions (kubectl describe crd {name})"
                )));
            }
        }
    }
    Ok(())
}
