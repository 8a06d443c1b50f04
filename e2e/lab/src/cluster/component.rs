//! What can be stopped and started.

use std::str::FromStr;

use anyhow::bail;

use crate::network::HUB;
use crate::state::State;

#[cfg(test)]
mod tests;

/// A part of the lab that `stop` and `start` know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// etcd, in the hub.
    Etcd,
    /// kube-apiserver, in the hub.
    ApiServer,
    /// kube-controller-manager, in the hub.
    ControllerManager,
    /// kube-scheduler, in the hub.
    Scheduler,
    /// A node's kubelet.
    Kubelet,
    /// A node's containerd; containers live on.
    Containerd,
    /// A node's kube-proxy; its rules stay.
    Proxy,
    /// A node's cable.
    Link,
}

const WORDS: [(&str, Component); 8] = [
    ("etcd", Component::Etcd),
    ("apiserver", Component::ApiServer),
    ("controller-manager", Component::ControllerManager),
    ("scheduler", Component::Scheduler),
    ("kubelet", Component::Kubelet),
    ("containerd", Component::Containerd),
    ("proxy", Component::Proxy),
    ("link", Component::Link),
];

impl FromStr for Component {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        match WORDS.iter().find(|(word, _)| *word == text) {
            Some((_, component)) => Ok(*component),
            None => {
                let words = WORDS.map(|(word, _)| word).join(", ");
                bail!("unknown component {text:?}; use one of {words}")
            }
        }
    }
}

impl Component {
    /// The process's name, and whether it runs on nodes.
    fn process(self) -> (&'static str, bool) {
        match self {
            Self::Etcd => ("etcd", false),
            Self::ApiServer => ("kube-apiserver", false),
            Self::ControllerManager => ("kube-controller-manager", false),
            Self::Scheduler => ("kube-scheduler", false),
            Self::Kubelet => ("kubelet", true),
            Self::Containerd => ("containerd", true),
            Self::Proxy => ("kube-proxy", true),
            Self::Link => ("link", true),
        }
    }

    /// The member and process that are meant.
    pub(super) fn place(
        self,
        state: &State,
        node: Option<&str>,
    ) -> anyhow::Result<(String, &'static str)> {
        match (self.process(), node) {
            ((process, true), Some(node)) => {
                super::require_node(state, node)?;
                Ok((node.to_owned(), process))
            }
            ((process, true), None) => bail!("say which node's {process}, for example n1"),
            ((process, false), None) => Ok((HUB.to_owned(), process)),
            ((process, false), Some(node)) => {
                bail!("{process} belongs to no node; leave out {node:?}")
            }
        }
    }
}
