//! Which pools a pod takes its address from: pod annotation, then namespace annotation, then
//! selectors by priority, then the pool `default`. `weft ipam explain` prints the same decision.

mod selector;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use selector::{Operator, Requirement, Selector};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// What a pool says about who may take from it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PoolRules {
    /// Name.
    pub name: String,
    /// Higher wins among pools whose selectors match; equal ones by name.
    pub priority: i32,
    /// `spec.phase` is `Active`: new addresses are given out.
    pub active: bool,
    /// Nodes that may hold blocks. `None`: all.
    pub node: Option<Selector>,
    /// Namespaces that take from it without naming it.
    pub namespace: Option<Selector>,
    /// Pods that take from it without naming it.
    pub pod: Option<Selector>,
}

/// The pod that needs an address, and where it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject<'a> {
    /// Value of `weft.dev/pools` on the Pod.
    pub pod_annotation: Option<&'a str>,
    /// Value of `weft.dev/pools` on the Namespace.
    pub namespace_annotation: Option<&'a str>,
    /// Labels of the Pod.
    pub pod_labels: Labels,
    /// Labels of the Namespace.
    pub namespace_labels: Labels,
    /// Labels of the Node.
    pub node_labels: Labels,
}

/// Why these pools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The Pod names them.
    PodAnnotation,
    /// The Namespace names them.
    NamespaceAnnotation,
    /// Selectors of the pool match.
    Selector,
    /// Nothing else applied.
    Default,
}

/// Pools to try in order; the first with room for every family wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Names, never empty.
    pub pools: Vec<String>,
    /// Why.
    pub reason: Reason,
}

/// Why a pod cannot have a pool. An annotation that cannot be followed is an error, never a reason
/// to take another pool: the user asked for something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChoiceError {
    /// The annotation is there and names nothing.
    #[error("annotation weft.dev/pools of the {0} is empty: name an IPPool or remove it")]
    EmptyAnnotation(&'static str),
    /// None of the named pools can be used; one reason per name.
    #[error("annotation weft.dev/pools of the {on}: {}", reasons.join("; "))]
    Unusable {
        /// `pod` or `namespace`.
        on: &'static str,
        /// One sentence for every named pool.
        reasons: Vec<String>,
    },
    /// No pool matches and `default` cannot be used.
    #[error("no IPPool matches the pod and pool \"default\" {0}")]
    NoDefault(String),
}

/// Chooses the pools of a pod.
///
/// # Errors
/// See [`ChoiceError`].
pub fn choose(subject: &Subject<'_>, pools: &[PoolRules]) -> Result<Choice, ChoiceError> {
    if let Some(names) = subject.pod_annotation {
        return named("pod", names, subject, pools, Reason::PodAnnotation);
    }
    if let Some(names) = subject.namespace_annotation {
        return named(
            "namespace",
            names,
            subject,
            pools,
            Reason::NamespaceAnnotation,
        );
    }
    let mut selected: Vec<&PoolRules> = pools
        .iter()
        .filter(|p| p.namespace.is_some() || p.pod.is_some())
        .filter(|p| selectors_match(p, subject) && obstacle(p, subject).is_none())
        .collect();
    selected.sort_by(|a, b| {
        b.priority
            .cmp(&a.priority)
            .then_with(|| a.name.cmp(&b.name))
    });
    if let Some(best) = selected.first() {
        return Ok(Choice {
            pools: vec![best.name.clone()],
            reason: Reason::Selector,
        });
    }
    let Some(default) = pools.iter().find(|p| p.name == "default") else {
        return Err(ChoiceError::NoDefault("does not exist".into()));
    };
    if let Some(why) = obstacle(default, subject) {
        return Err(ChoiceError::NoDefault(why.into()));
    }
    if !selectors_match(default, subject) {
        return Err(ChoiceError::NoDefault(
            "has selectors that do not match".into(),
        ));
    }
    Ok(Choice {
        pools: vec![default.name.clone()],
        reason: Reason::Default,
    })
}

fn named(
    on: &'static str,
    names: &str,
    subject: &Subject<'_>,
    pools: &[PoolRules],
    reason: Reason,
) -> Result<Choice, ChoiceError> {
    let mut usable = Vec::new();
    let mut reasons = Vec::new();
    for name in names.split(',').map(str::trim).filter(|n| !n.is_empty()) {
        match pools.iter().find(|p| p.name == name) {
            None => reasons.push(format!("IPPool {name:?} does not exist")),
            Some(pool) => match obstacle(pool, subject) {
                Some(why) => reasons.push(format!("IPPool {name:?} {why}")),
                None if usable.iter().any(|u| u == name) => {}
                None => usable.push(name.to_owned()),
            },
        }
    }
    if !usable.is_empty() {
        return Ok(Choice {
            pools: usable,
            reason,
        });
    }
    if reasons.is_empty() {
        return Err(ChoiceError::EmptyAnnotation(on));
    }
    Err(ChoiceError::Unusable { on, reasons })
}

fn selectors_match(pool: &PoolRules, subject: &Subject<'_>) -> bool {
    let matches = |selector: &Option<Selector>, labels: &Labels| {
        selector.as_ref().is_none_or(|s| s.matches(labels))
    };
    matches(&pool.namespace, &subject.namespace_labels) && matches(&pool.pod, &subject.pod_labels)
}

fn obstacle(pool: &PoolRules, subject: &Subject<'_>) -> Option<&'static str> {
    if !pool.active {
        return Some("gives out no new addresses (phase is not Active)");
    }
    let here = pool
        .node
        .as_ref()
        .is_none_or(|s| s.matches(&subject.node_labels));
    (!here).then_some("is not for this node (nodeSelector)")
}
