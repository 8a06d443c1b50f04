//! Permissions: of the node agent, and of the operator itself.
//!
//! The API server refuses to grant what the granter does not hold, so every rule of the agent is a
//! rule of the operator too. The chart's roles are checked against the functions here.

use k8s_openapi::{
    api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, RoleRef, Subject},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use weft_crds::GROUP;

use crate::{Facts, NODE_AGENT, meta};

const READ: [&str; 3] = ["get", "list", "watch"];

fn rule(groups: &[&str], resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(owned(groups)),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

/// What the node agent may do: read what it compiles, create events, report on its own objects.
/// Which objects are its own is decided by the admission policy: RBAC cannot.
#[must_use]
pub fn node_rules() -> Vec<PolicyRule> {
    vec![
        rule(&[""], &["pods", "namespaces", "nodes"], &READ),
        rule(&["networking.k8s.io"], &["networkpolicies"], &READ),
        rule(
            &[GROUP],
            &[
                "weftnetworks",
                "ippools",
                "ipblocks",
                "weftnodes",
                "peerslices",
            ],
            &READ,
        ),
        rule(
            &[GROUP],
            &["weftnodes/status", "ipblocks/status"],
            &["get", "update", "patch"],
        ),
        rule(&["", "events.k8s.io"], &["events"], &["create", "patch"]),
    ]
}

/// What the operator may do in the whole cluster (ClusterRole `weft-operator`).
#[must_use]
pub fn operator_rules() -> Vec<PolicyRule> {
    let manage = [
        "get", "list", "watch", "create", "update", "patch", "delete",
    ];
    let mut rules = node_rules();
    rules.extend([
        rule(&[""], &["nodes/status"], &["patch"]),
        // The Service range: the `kubernetes` Service and, from 1.33 on, the ServiceCIDRs.
        rule(&[""], &["services"], &["get"]),
        rule(&["networking.k8s.io"], &["servicecidrs"], &["get", "list"]),
        rule(
            &[GROUP],
            &[
                "weftnetworks",
                "ippools",
                "ipblocks",
                "weftnodes",
                "peerslices",
            ],
            &manage,
        ),
        rule(
            &[GROUP],
            &["weftnetworks/status", "ippools/status"],
            &["get", "update", "patch"],
        ),
        rule(
            &["apiextensions.k8s.io"],
            &["customresourcedefinitions"],
            &manage,
        ),
        rule(
            &["rbac.authorization.k8s.io"],
            &["clusterroles", "clusterrolebindings"],
            &manage,
        ),
        rule(
            &["admissionregistration.k8s.io"],
            &[
                "validatingadmissionpolicies",
                "validatingadmissionpolicybindings",
            ],
            &manage,
        ),
    ]);
    rules
}

/// What the operator may do in its own namespace (Role `weft-operator`).
#[must_use]
pub fn operator_namespace_rules() -> Vec<PolicyRule> {
    let manage = [
        "get", "list", "watch", "create", "update", "patch", "delete",
    ];
    vec![
        rule(&[""], &["configmaps", "serviceaccounts"], &manage),
        rule(&["apps"], &["daemonsets"], &manage),
        rule(
            &["coordination.k8s.io"],
            &["leases"],
            &["get", "create", "update"],
        ),
    ]
}

pub(crate) fn cluster_role(owner: &OwnerReference) -> ClusterRole {
    ClusterRole {
        metadata: meta(NODE_AGENT, None, owner),
        rules: Some(node_rules()),
        ..ClusterRole::default()
    }
}

pub(crate) fn cluster_role_binding(facts: &Facts, owner: &OwnerReference) -> ClusterRoleBinding {
    ClusterRoleBinding {
        metadata: meta(NODE_AGENT, None, owner),
        role_ref: RoleRef {
            api_group: "rbac.authorization.k8s.io".into(),
            kind: "ClusterRole".into(),
            name: NODE_AGENT.into(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".into(),
            name: NODE_AGENT.into(),
            namespace: Some(facts.namespace.clone()),
            api_group: None,
        }]),
    }
}
