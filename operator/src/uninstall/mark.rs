//! The mark of an uninstall. helm runs the pre-delete hook first and deletes the operator after it:
//! an operator that starts in between would bring back what the hook has just removed. So the hook
//! marks the operator's ServiceAccount, and an operator that finds the mark installs nothing (it
//! still takes down what is being deleted).
//!
//! The ServiceAccount, because the mark must neither be lost too early nor stay too long: helm
//! deletes it after the Deployment, the configuration and the roles, an operator whose account is
//! gone can write nothing at all, and a fresh install makes a new one without a mark.

use std::time::Duration;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    clock,
    looping::{Error, Tried},
};

/// Annotation on the operator's ServiceAccount; its value is the time, for people.
pub(crate) const ANNOTATION: &str = "weft.dev/uninstalling";
/// The operator's ServiceAccount.
pub(crate) const ACCOUNT: &str = "weft-operator";
/// Longest time from a look at the mark to the end of the write that depends on it.
const WRITE: Duration = Duration::from_secs(5);
/// How long after the mark a write can still arrive of an operator that had not seen it: twice
/// [`WRITE`], for what is on its way when the operator gives up.
pub(crate) const SETTLED: Duration = Duration::from_secs(10);

/// Where the mark is.
#[derive(Clone)]
pub(crate) struct Mark {
    accounts: Api<ServiceAccount>,
    namespace: String,
}

impl Mark {
    pub(crate) fn new(client: &Client, namespace: &str) -> Self {
        Self {
            accounts: Api::namespaced(client.clone(), namespace),
            namespace: namespace.to_owned(),
        }
    }

    /// Leaves the mark. `false`: there is no such ServiceAccount, so no operator either.
    pub(crate) async fn leave(&self) -> Result<bool, Error> {
        let patch = json!({"metadata": {"annotations": {ANNOTATION: clock::rfc3339()}}});
        let params = PatchParams::default();
        match self
            .accounts
            .patch(ACCOUNT, &params, &Patch::Merge(&patch))
            .await
        {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(false),
            Err(error) => Err(error).tried(|| format!("cannot annotate {}", self.account())),
        }
    }

    /// Does `write` unless there is a mark. Whoever leaves a mark and waits for [`SETTLED`] sees
    /// every write that did not see the mark.
    ///
    /// # Errors
    /// [`Error::Uninstalling`] with a mark; otherwise what the look or the write says.
    pub(crate) async fn unless_left<T>(
        &self,
        write: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let both = async {
            let account = self
                .accounts
                .get_opt(ACCOUNT)
                .await
                .tried(|| format!("cannot read {}", self.account()))?;
            // None outside of a cluster: a person runs the operator, and no hook.
            if account.is_some_and(|a| a.annotations().contains_key(ANNOTATION)) {
                return Err(Error::Uninstalling(format!(
                    "weft is being uninstalled, nothing is installed any more. To keep weft after \
                     all: kubectl annotate -n {} serviceaccount {ACCOUNT} {ANNOTATION}-",
                    self.namespace
                )));
            }
            write.await
        };
        timeout(WRITE, both)
            .await
            .unwrap_or_else(|_| Err(Error::Other(format!("the API took more than {WRITE:?}"))))
    }

    fn account(&self) -> String {
        format!("ServiceAccount {}/{ACCOUNT}", self.namespace)
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use serde_json::Value;

    use super::*;
    use crate::{
        crds, defaults,
        events::Events,
        scripted::{Call, call, failure, scenario},
    };

    const PATH: &str = "/api/v1/namespaces/ns/serviceaccounts/weft-operator";
    const CRD: &str =
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/weftnetworks.weft.dev";

    fn account(annotations: &Value) -> Value {
        json!({"kind": "ServiceAccount", "apiVersion": "v1", "metadata": {
            "name": ACCOUNT, "namespace": "ns", "annotations": annotations,
        }})
    }

    fn look(annotations: &Value) -> Call {
        call(Method::GET, PATH, 200, account(annotations))
    }

    #[tokio::test]
    async fn the_hook_marks_the_account_and_does_without_one() {
        let script = vec![
            call(Method::PATCH, PATH, 200, account(&json!({}))),
            call(Method::PATCH, PATH, 404, failure(404, "NotFound")),
        ];
        let (done, bodies) = scenario(script, async |client| {
            let mark = Mark::new(&client, "ns");
            (mark.leave().await.unwrap(), mark.leave().await.unwrap())
        })
        .await;
        assert_eq!(done, (true, false));
        let mark = &bodies[0]["metadata"]["annotations"][ANNOTATION];
        assert!(mark.is_string(), "{bodies:?}");
    }

    /// The calls end at the look: nothing is written.
    #[tokio::test]
    async fn an_operator_that_starts_after_the_hook_installs_nothing() {
        let marked = json!({ANNOTATION: "2026-01-01T00:00:00Z"});
        let first = weft_crds::all()[0].name_any();
        assert_eq!(CRD.rsplit('/').next(), Some(first.as_str()));
        let script = vec![
            call(Method::GET, CRD, 404, failure(404, "NotFound")),
            look(&marked),
            look(&marked),
        ];
        let (done, _) = scenario(script, async |client| {
            let mark = Mark::new(&client, "ns");
            let crds = crds::install(&client, true, &mark).await;
            let config = defaults::parse(br#"{"network": {"fabric": {"port": 6785}}}"#).unwrap();
            let events = Events::new(client.clone(), "p");
            let defaults = defaults::apply(&client, "ns", &config, &events, &mark).await;
            [crds, defaults].map(|r| r.unwrap_err().class())
        })
        .await;
        assert_eq!(done, ["uninstalling"; 2]);
    }

    #[tokio::test]
    async fn a_fresh_install_is_not_held_up() {
        let no = || failure(403, "Forbidden");
        const NETWORK: &str = "/apis/weft.dev/v1alpha1/weftnetworks/default";
        let script = vec![
            call(Method::GET, CRD, 404, failure(404, "NotFound")),
            look(&json!({"else": "where"})),
            call(Method::PATCH, CRD, 403, no()),
            call(Method::GET, PATH, 404, failure(404, "NotFound")),
            call(Method::PATCH, NETWORK, 403, no()),
        ];
        let (done, _) = scenario(script, async |client| {
            let mark = Mark::new(&client, "ns");
            let crds = crds::install(&client, true, &mark).await;
            let config = defaults::parse(br#"{"network": {}}"#).unwrap();
            let events = Events::new(client.clone(), "p");
            let defaults = defaults::apply(&client, "ns", &config, &events, &mark).await;
            [crds, defaults].map(|r| r.unwrap_err().class())
        })
        .await;
        assert_eq!(done, ["forbidden"; 2]);
    }
}
