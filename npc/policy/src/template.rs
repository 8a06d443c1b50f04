//! What pods of one workload have in common, once.

use std::collections::HashSet;
use std::sync::Arc;

use crate::{ContainerPort, Labels, Pod};

/// Everything that selectors and named ports see of a pod. The pods of a ReplicaSet share one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Template {
    pub(crate) namespace: Arc<str>,
    pub(crate) labels: Labels,
    pub(crate) ports: Box<[ContainerPort]>,
    /// Then it is nobody's peer.
    pub(crate) host_network: bool,
}

impl Template {
    pub(crate) fn of(pod: &Pod) -> Self {
        Self {
            namespace: Arc::clone(&pod.key.namespace),
            labels: pod.labels.clone(),
            ports: pod.ports.clone(),
            host_network: pod.host_network,
        }
    }

    /// The same with every text shared.
    pub(crate) fn shared(&self, texts: &mut Texts) -> Self {
        let labels = self.labels.iter();
        let ports = self.ports.iter();
        Self {
            namespace: texts.share(&self.namespace),
            labels: labels
                .map(|(key, value)| (texts.share(key), texts.share(value)))
                .collect(),
            ports: ports
                .map(|port| ContainerPort {
                    name: texts.share(&port.name),
                    ..*port
                })
                .collect(),
            host_network: self.host_network,
        }
    }
}

/// Texts that many pods have in common. Those that nobody holds any more are let go: labels that
/// change a thousand times a second do not pile up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Texts {
    known: HashSet<Arc<str>>,
    /// Size at which the next sweep is worth its cost.
    sweep_at: usize,
}

/// Fewer texts than these are not worth a sweep.
const FEW: usize = 1024;

impl Texts {
    /// One copy of the text, whoever asks.
    pub(crate) fn share(&mut self, text: &Arc<str>) -> Arc<str> {
        if let Some(known) = self.known.get(text) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.sweep_at.max(FEW) {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.sweep_at = 2 * self.known.len();
        }
        self.known.insert(Arc::clone(text));
        Arc::clone(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_nobody_holds_do_not_pile_up() {
        let mut texts = Texts::default();
        let kept: Vec<_> = (0..10)
            .map(|n| texts.share(&n.to_string().into()))
            .collect();
        for n in 10..100_000 {
            texts.share(&n.to_string().into());
        }
        assert!(texts.known.len() <= 2 * FEW, "{}", texts.known.len());
        let same = |(n, text): (usize, &Arc<str>)| {
            Arc::ptr_eq(text, &texts.clone().share(&n.to_string().into()))
        };
        assert!(kept.iter().enumerate().all(same));
    }
}
