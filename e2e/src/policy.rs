//! NetworkPolicies of the tests, written as people write them.

use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use serde_json::{Value, json};

use crate::{Flow, Scenario};

/// A policy with this `spec`.
///
/// # Errors
/// The spec is none.
pub fn policy(name: &str, spec: Value) -> serde_json::Result<NetworkPolicy> {
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec}))
}

/// The pod with the label `app: <app>`, as a pod selector.
#[must_use]
pub fn app(app: &str) -> Value {
    json!({"matchLabels": {"app": app}})
}

/// Ingress of `subject` from `from` (a list of peers; empty list: any) on `ports` (empty: all).
#[must_use]
pub fn ingress(subject: &str, from: Value, ports: Value) -> Value {
    json!({
        "podSelector": app(subject),
        "policyTypes": ["Ingress"],
        "ingress": [{"from": from, "ports": ports}],
    })
}

/// Egress of `subject` to `to` on `ports`.
#[must_use]
pub fn egress(subject: &str, to: Value, ports: Value) -> Value {
    json!({
        "podSelector": app(subject),
        "policyTypes": ["Egress"],
        "egress": [{"to": to, "ports": ports}],
    })
}

impl Scenario {
    /// Creates a policy in the test's namespace.
    ///
    /// # Errors
    /// The API server refuses it.
    pub async fn create_policy(&self, name: &str, spec: Value) -> anyhow::Result<()> {
        let policies: Api<NetworkPolicy> =
            Api::namespaced(self.cluster.client.clone(), &self.namespace);
        policies
            .create(&PostParams::default(), &policy(name, spec)?)
            .await?;
        Ok(())
    }

    /// Deletes a policy of the test's namespace.
    ///
    /// # Errors
    /// There is none.
    pub async fn delete_policy(&self, name: &str) -> anyhow::Result<()> {
        let policies: Api<NetworkPolicy> =
            Api::namespaced(self.cluster.client.clone(), &self.namespace);
        policies.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// With the policy in force the flows fare as told.
    ///
    /// # Errors
    /// They don't; the message names the policy.
    pub async fn under(&self, name: &str, spec: Value, flows: &[Flow]) -> anyhow::Result<()> {
        self.create_policy(name, spec).await?;
        let result = self.expect(flows).await;
        self.delete_policy(name).await?;
        result.map_err(|error| error.context(format!("under the policy {name}")))
    }
}
