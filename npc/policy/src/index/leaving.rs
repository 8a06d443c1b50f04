//! Namespaces that are being deleted.
//!
//! The API deletes what is in such a namespace in no order: its NetworkPolicies may be gone while
//! its pods still run (CVE-2024-7598). The policies that it had stay in force until the Namespace
//! and all its pods are gone, or until there is a new Namespace of its name.
//!
//! Namespaces and policies come by two watches, so a policy's deletion may be heard first. Then it
//! opens its pods; but it comes back as soon as the Namespace's deletion is heard, if that is the
//! older of the two.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::Index;
use crate::parse::PolicySpec;
use crate::{Namespace, ObjectKey, Version};

/// Deleted policies that are remembered, of all namespaces.
const REMEMBERED: usize = 64;

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Leaving {
    /// Namespaces that are being deleted, or are gone and have pods left.
    pub(super) namespaces: BTreeSet<Arc<str>>,
    /// Policies in force that the API has no more.
    pub(super) policies: BTreeSet<ObjectKey>,
    /// Policies that were deleted last, and when, while no deletion of their namespace was known.
    lately: VecDeque<(Version, Arc<PolicySpec>)>,
}

impl Leaving {
    fn remember(&mut self, version: Version, policy: Arc<PolicySpec>) {
        if self.lately.len() == REMEMBERED {
            self.lately.pop_front();
        }
        self.lately.push_back((version, policy));
    }

    /// Policies of the namespace that were deleted after `version`, as they were last.
    fn recall(
        &mut self,
        name: &str,
        version: Option<Version>,
    ) -> BTreeMap<ObjectKey, Arc<PolicySpec>> {
        let lately = std::mem::take(&mut self.lately).into_iter();
        let (own, others): (VecDeque<_>, VecDeque<_>) =
            lately.partition(|(_, policy)| *policy.key.namespace == *name);
        self.lately = others;
        own.into_iter()
            .filter(|(deleted, _)| version.is_some_and(|version| *deleted > version))
            .map(|(_, policy)| (policy.key.clone(), policy))
            .collect()
    }
}

impl Index {
    /// A NetworkPolicy is gone; nothing is known of when.
    pub fn delete_network_policy(&mut self, key: &ObjectKey) -> bool {
        self.delete_network_policy_at(key, None)
    }

    /// A NetworkPolicy is gone; `version`: since when.
    pub fn delete_network_policy_at(&mut self, key: &ObjectKey, version: Option<Version>) -> bool {
        if self.leaving.namespaces.contains(&key.namespace) {
            if self.policies.contains_key(key) {
                self.leaving.policies.insert(key.clone());
            }
            return false;
        }
        self.cache.policy_changes(key, None);
        let Some(policy) = self.policies.remove(key) else {
            return false;
        };
        if let Some(version) = version {
            self.leaving.remember(version, policy);
        }
        true
    }

    /// A Namespace was seen; answers whether that changes which policies are in force.
    pub(super) fn see_namespace(&mut self, namespace: &Namespace) -> bool {
        let name = &namespace.name;
        if !namespace.terminating {
            // Nothing takes a deletion back: it is a new one.
            return self.drop_kept(name);
        }
        if !self.leaving.namespaces.insert(Arc::clone(name)) {
            return false;
        }
        let mut changed = false;
        for (key, policy) in self.leaving.recall(name, namespace.version) {
            if !self.policies.contains_key(&key) {
                self.cache.policy_changes(&key, Some(&policy));
                self.leaving.policies.insert(key.clone());
                self.policies.insert(key, policy);
                changed = true;
            }
        }
        changed
    }

    /// The Namespace, or a pod of it, is gone: with the last of them its policies go.
    pub(super) fn has_left(&mut self, name: &str) {
        let has_left = self.leaving.namespaces.contains(name)
            && !self.namespaces.contains_key(name)
            && !self.pods.has_namespace(name)
            && !self.endpoints.has_namespace(name);
        if has_left {
            self.drop_kept(name);
        }
    }

    /// The namespace is not being deleted (any more): only policies that the API has are in force.
    fn drop_kept(&mut self, name: &str) -> bool {
        if !self.leaving.namespaces.remove(name) {
            return false;
        }
        let kept = self.leaving.policies.iter();
        let kept: Vec<ObjectKey> = kept
            .filter(|key| *key.namespace == *name)
            .cloned()
            .collect();
        for key in &kept {
            self.leaving.policies.remove(key);
            self.delete_network_policy(key);
        }
        !kept.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use k8s_openapi::api::core::v1 as core;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use weft_testkit::builders::{make_namespace, make_network_policy, make_pod};

    use super::*;
    use crate::{Direction, Endpoint, EndpointId};

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("x", name)
    }

    fn id() -> EndpointId {
        EndpointId::new("1", "eth0")
    }

    fn version(number: u64) -> Option<Version> {
        Version::parse(Some(&number.to_string()))
    }

    /// The Namespace `x`, deleted at this version.
    fn terminating(version: u64) -> core::Namespace {
        let mut namespace = make_namespace("x", &[]);
        namespace.metadata.resource_version = Some(version.to_string());
        namespace.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        namespace
    }

    /// The pod `x/a` of this node, closed by the policy `x/p`.
    fn index() -> Index {
        let mut index = Index::new("n1");
        index.apply_namespace(&make_namespace("x", &[]));
        index.apply_pod(&make_pod("x", "a").uid("uid").node("n1").build());
        let endpoint = Endpoint {
            pod: key("a"),
            uid: "uid".into(),
            addresses: [IpAddr::from([10, 32, 0, 2])].into(),
            host_ifname: "veth".to_owned(),
        };
        index.apply_endpoint(id(), endpoint);
        index.apply_network_policy(&make_network_policy("x", "p").build());
        index
    }

    /// The policies that close the pod.
    fn closed_by(index: &mut Index) -> Vec<String> {
        let model = index.refresh();
        assert_eq!(model, index.model());
        let subjects = model.subjects.values();
        let closed = subjects.filter_map(|s| s.standing.isolated_by(Direction::Ingress));
        closed.flatten().map(|key| key.name.to_string()).collect()
    }

    #[test]
    fn policies_of_a_namespace_that_is_deleted_hold_until_it_and_its_last_pod_are_gone() {
        let mut index = index();
        assert!(!index.apply_namespace(&terminating(5)));
        assert!(!index.delete_network_policy_at(&key("p"), version(6)));
        assert!(!index.apply_namespace(&terminating(7)));
        assert_eq!(closed_by(&mut index), ["p"]);
        // Also after a list that does not have it.
        assert!(!index.reset_network_policies([]));
        assert_eq!(closed_by(&mut index), ["p"]);
        index.delete_namespace("x");
        assert_eq!(closed_by(&mut index), ["p"]);
        index.delete_pod(&key("a"));
        assert_eq!(closed_by(&mut index), ["p"]);
        index.delete_endpoint(&id());
        assert_eq!(index, Index::new("n1"));
    }

    #[test]
    fn the_order_in_which_namespace_pod_and_endpoint_go_does_not_matter() {
        type Go = fn(&mut Index) -> bool;
        let namespace: Go = |index| index.delete_namespace("x");
        let pod: Go = |index| index.delete_pod(&key("a"));
        let endpoint: Go = |index| index.delete_endpoint(&id());
        for order in [
            [namespace, pod, endpoint],
            [namespace, endpoint, pod],
            [pod, namespace, endpoint],
            [pod, endpoint, namespace],
            [endpoint, namespace, pod],
            [endpoint, pod, namespace],
        ] {
            let mut index = index();
            index.apply_namespace(&terminating(5));
            index.delete_network_policy(&key("p"));
            for go in order {
                assert!(!index.policies.is_empty());
                assert!(go(&mut index));
            }
            assert_eq!(index, Index::new("n1"));
        }
    }

    #[test]
    fn a_policy_comes_back_when_the_older_deletion_of_its_namespace_is_heard_later() {
        let mut index = index();
        assert!(index.delete_network_policy_at(&key("p"), version(6)));
        assert!(closed_by(&mut index).is_empty());
        assert!(index.apply_namespace(&terminating(5)));
        assert_eq!(closed_by(&mut index), ["p"]);
    }

    #[test]
    fn a_policy_that_was_deleted_before_its_namespace_stays_away() {
        for (deleted, namespace) in [(version(4), 5), (version(5), 5), (None, 5)] {
            let mut index = index();
            assert!(index.delete_network_policy_at(&key("p"), deleted));
            assert!(!index.apply_namespace(&terminating(namespace)));
            assert!(closed_by(&mut index).is_empty(), "{deleted:?}");
        }
    }

    #[test]
    fn a_policy_made_anew_takes_the_place_of_the_one_that_was_kept() {
        let mut index = index();
        index.apply_namespace(&terminating(5));
        index.delete_network_policy(&key("p"));
        let anew = make_network_policy("x", "p").types(&["Egress"]).build();
        assert!(index.apply_network_policy(&anew));
        assert!(closed_by(&mut index).is_empty());
        // It is the API's again, and as such it goes or is kept.
        assert_eq!(index.leaving.policies, BTreeSet::new());
        index.delete_network_policy(&key("p"));
        assert_eq!(index.leaving.policies, BTreeSet::from([key("p")]));
    }

    #[test]
    fn a_new_namespace_of_the_name_has_none_of_the_policies_of_the_old_one() {
        let mut index = index();
        index.apply_network_policy(&make_network_policy("x", "q").build());
        index.apply_namespace(&terminating(5));
        index.delete_network_policy(&key("p"));
        assert_eq!(closed_by(&mut index), ["p", "q"]);
        assert!(index.apply_namespace(&make_namespace("x", &[])));
        assert_eq!(closed_by(&mut index), ["q"]);
        assert!(index.delete_network_policy(&key("q")));
    }

    #[test]
    fn deleted_policies_do_not_pile_up_and_the_last_version_of_one_comes_back() {
        let mut index = index();
        for n in 0..1000 {
            let policy = make_network_policy("x", "p").types(&["Egress", "Ingress"][n % 2..]);
            index.apply_network_policy(&policy.build());
            let deleted = u64::try_from(n).expect("small");
            assert!(index.delete_network_policy_at(&key("p"), version(deleted)));
        }
        assert_eq!(index.leaving.lately.len(), REMEMBERED);
        index.apply_namespace(&terminating(0));
        assert!(index.leaving.lately.is_empty());
        let policy = &index.policies[&key("p")];
        assert!(policy.ingress.is_some() && policy.egress.is_none());
    }
}
