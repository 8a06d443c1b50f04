//! A node may write about itself alone: RBAC says "status of WeftNodes and IPBlocks", this policy
//! says "of those that stand for the node the token was issued to". Kubernetes puts the node's name
//! into every pod-bound token (`authentication.kubernetes.io/node-name`, stable since 1.32).

use k8s_openapi::{
    api::admissionregistration::v1::{
        MatchCondition, MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy,
        ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec,
        ValidatingAdmissionPolicySpec, Validation, Variable,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use weft_crds::{GROUP, VERSION};

use crate::{Facts, NODE_AGENT, meta};

const CLAIM: &str = "authentication.kubernetes.io/node-name";

pub(crate) fn policy(facts: &Facts, owner: &OwnerReference) -> ValidatingAdmissionPolicy {
    let account = format!("system:serviceaccount:{}:{NODE_AGENT}", facts.namespace);
    let validation = |expression: &str, message: &str| Validation {
        expression: expression.to_owned(),
        message: Some(message.to_owned()),
        reason: Some("Forbidden".into()),
        ..Validation::default()
    };
    let resources = [
        "weftnodes",
        "weftnodes/status",
        "ipblocks",
        "ipblocks/status",
    ];
    ValidatingAdmissionPolicy {
        metadata: meta(NODE_AGENT, None, owner),
        spec: Some(ValidatingAdmissionPolicySpec {
            failure_policy: Some("Fail".into()),
            match_constraints: Some(MatchResources {
                resource_rules: Some(vec![NamedRuleWithOperations {
                    api_groups: Some(vec![GROUP.into()]),
                    api_versions: Some(vec![VERSION.into()]),
                    operations: Some(["CREATE", "UPDATE", "DELETE"].map(String::from).into()),
                    resources: Some(resources.map(String::from).into()),
                    scope: Some("Cluster".into()),
                    ..NamedRuleWithOperations::default()
                }]),
                match_policy: Some("Equivalent".into()),
                ..MatchResources::default()
            }),
            match_conditions: Some(vec![MatchCondition {
                name: "node-agent".into(),
                expression: format!("request.userInfo.username == '{account}'"),
            }]),
            variables: Some(vec![Variable {
                name: "node".into(),
                expression: format!(
                    "has(request.userInfo.extra) && '{CLAIM}' in request.userInfo.extra ? request.userInfo.extra['{CLAIM}'][0] : ''"
                ),
            }]),
            validations: Some(vec![
                validation(
                    "request.operation == 'UPDATE' && request.subResource == 'status'",
                    "the node agent may only report status",
                ),
                validation(
                    "variables.node != ''",
                    "the token of the node agent names no node: weft needs Kubernetes 1.32 or newer",
                ),
                validation(
                    "request.resource.resource != 'weftnodes' || request.name == variables.node",
                    "a node agent may only write the WeftNode of its own node",
                ),
                validation(
                    "request.resource.resource != 'ipblocks' || dyn(object).spec.node.name == variables.node",
                    "a node agent may only write IPBlocks of its own node",
                ),
            ]),
            ..ValidatingAdmissionPolicySpec::default()
        }),
        ..ValidatingAdmissionPolicy::default()
    }
}

pub(crate) fn binding(owner: &OwnerReference) -> ValidatingAdmissionPolicyBinding {
    ValidatingAdmissionPolicyBinding {
        metadata: meta(NODE_AGENT, None, owner),
        spec: Some(ValidatingAdmissionPolicyBindingSpec {
            policy_name: Some(NODE_AGENT.into()),
            validation_actions: Some(vec!["Deny".into()]),
            ..ValidatingAdmissionPolicyBindingSpec::default()
        }),
    }
}
