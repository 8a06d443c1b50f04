//! Named ports of peers.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::objects::Objects;
use crate::template::Template;
use crate::{PeerSelector, Protocol};

/// A named port of the pods among some peers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NamedKey {
    pub(crate) protocol: Protocol,
    pub(crate) name: Arc<str>,
    /// `None`: every pod is a peer.
    pub(crate) among: Option<BTreeSet<Arc<PeerSelector>>>,
}

impl NamedKey {
    /// The numbers that pods of the template have for the name; several only where containers of
    /// one pod disagree.
    pub(crate) fn ports(&self, template: &Template) -> impl Iterator<Item = u16> {
        let ports = template.ports.iter();
        ports
            .filter(|port| port.protocol == self.protocol && port.name == self.name)
            .map(|port| port.port)
    }

    /// The same, if pods of the template are among the peers.
    pub(super) fn ports_among(&self, objects: &Objects<'_>, template: &Template) -> Vec<u16> {
        let mut ports = self.ports(template).peekable();
        if ports.peek().is_none() || !self.is_among(objects, template) {
            return Vec::new();
        }
        ports.collect()
    }

    fn is_among(&self, objects: &Objects<'_>, template: &Template) -> bool {
        match &self.among {
            None => !template.host_network && objects.namespaces.contains_key(&template.namespace),
            Some(among) => among
                .iter()
                .any(|selector| objects.names(selector, template)),
        }
    }
}
