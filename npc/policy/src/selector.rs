//! Label selectors in normal form.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

/// Labels of an object, ordered by key. A clone shares them.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[(Arc<str>, Arc<str>)]>);

impl Labels {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.binary_search_by(|(own, _)| (**own).cmp(key));
        found.ok().map(|i| &*self.0[i].1)
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = &(Arc<str>, Arc<str>)> {
        self.0.iter()
    }
}

impl<K: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(K, V)> for Labels {
    /// Of labels with equal keys the last one counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(labels: I) -> Self {
        let labels: BTreeMap<Arc<str>, Arc<str>> = labels
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        Self(labels.into_iter().collect())
    }
}

/// All requirements must hold; none at all matches everything. Equal selectors compare equal
/// however they were written (`matchLabels` is `In` with one value).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "stored", derive(serde::Serialize, serde::Deserialize))]
pub struct Selector {
    requirements: BTreeSet<Requirement>,
}

/// What one label must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "stored", derive(serde::Serialize, serde::Deserialize))]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must hold for it.
    pub operator: Operator,
}

/// Operators of a requirement.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "stored", derive(serde::Serialize, serde::Deserialize))]
pub enum Operator {
    /// The label is there with one of the values.
    In(BTreeSet<String>),
    /// The label is missing or has none of the values.
    NotIn(BTreeSet<String>),
    /// The label is there.
    Exists,
    /// The label is missing.
    DoesNotExist,
}

impl Requirement {
    /// Whether the labels meet it.
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => !value.is_some_and(|value| values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }

    fn parse(raw: &LabelSelectorRequirement) -> Result<Self, String> {
        let values: BTreeSet<String> = raw.values.iter().flatten().cloned().collect();
        let operator = match (raw.operator.as_str(), values.is_empty()) {
            ("In", false) => Operator::In(values),
            ("NotIn", false) => Operator::NotIn(values),
            ("Exists", true) => Operator::Exists,
            ("DoesNotExist", true) => Operator::DoesNotExist,
            (operator @ ("In" | "NotIn"), true) => {
                return Err(format!("operator {operator} needs at least one value"));
            }
            (operator @ ("Exists" | "DoesNotExist"), false) => {
                return Err(format!("operator {operator} takes no values"));
            }
            (operator, _) => {
                return Err(format!(
                    "operator {operator:?} is not supported; use In, NotIn, Exists or DoesNotExist"
                ));
            }
        };
        Ok(Self {
            key: raw.key.clone(),
            operator,
        })
    }
}

impl Selector {
    /// The selector, and for each requirement that could not be read its path under `field` and
    /// why. Such a requirement is left out, so the result selects *more* than was meant: right for
    /// the subjects of a policy (they are isolated), wrong for peers (the caller must not use it).
    pub(crate) fn parse(raw: &LabelSelector, field: &str) -> (Self, Vec<(String, String)>) {
        let mut errors = Vec::new();
        let labels = raw
            .match_labels
            .iter()
            .flatten()
            .map(|(key, value)| Requirement {
                key: key.clone(),
                operator: Operator::In(BTreeSet::from([value.clone()])),
            });
        let mut requirements: BTreeSet<Requirement> = labels.collect();
        for (i, raw) in raw.match_expressions.iter().flatten().enumerate() {
            match Requirement::parse(raw) {
                Ok(requirement) => {
                    requirements.insert(requirement);
                }
                Err(why) => errors.push((format!("{field}.matchExpressions[{i}]"), why)),
            }
        }
        (Self { requirements }, errors)
    }

    /// Whether all requirements hold.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.matches(labels))
    }

    /// The requirements, ordered.
    pub fn requirements(&self) -> &BTreeSet<Requirement> {
        &self.requirements
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.requirements.is_empty() {
            return f.write_str("all");
        }
        for (i, Requirement { key, operator }) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            match operator {
                Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", join(values))?,
                Operator::In(values) => write!(f, "{key} in ({})", join(values))?,
                Operator::NotIn(values) => write!(f, "{key} notin ({})", join(values))?,
                Operator::Exists => write!(f, "{key}")?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
            }
        }
        Ok(())
    }
}

fn join(values: &BTreeSet<String>) -> String {
    values
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Pods of other ends: a selector of namespaces **and** a selector of pods.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "stored", derive(serde::Serialize, serde::Deserialize))]
pub struct PeerSelector {
    /// In which namespaces.
    pub namespaces: Namespaces,
    /// Which pods there.
    pub pods: Selector,
}

/// Namespaces of a peer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "stored", derive(serde::Serialize, serde::Deserialize))]
pub enum Namespaces {
    /// The one of the policy (no `namespaceSelector` given).
    Named(#[cfg_attr(feature = "stored", serde(with = "crate::stored::text"))] Arc<str>),
    /// All that match. A namespace whose object is not known never matches.
    Matching(Selector),
}

impl fmt::Display for PeerSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespaces {
            Namespaces::Named(name) => write!(f, "pods {} in namespace {name}", self.pods),
            Namespaces::Matching(selector) => {
                write!(f, "pods {} in namespaces {selector}", self.pods)
            }
        }
    }
}
