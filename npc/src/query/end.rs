//! Whom the words of a question mean.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use weft_policy::{ObjectKey, Protocol};
use weft_socket::{ErrorReply, QueryEnd, code};

use super::refused;
use crate::{state::State, sync::Compiled};

/// How the node itself is called.
const NODE: &str = "node";

/// An end as it may be meant: a pod or a name has an address per family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    pub(super) shown: QueryEnd,
    /// It is this node: what it sends and receives is no pod's.
    pub(super) is_node: bool,
    /// A pod with an address of its own.
    pub(super) has_policy: bool,
}

/// What is known of the node.
pub(super) struct Here<'a> {
    pub(super) state: &'a State,
    pub(super) compiled: &'a Compiled,
    /// Addresses of its devices.
    pub(super) own: &'a BTreeSet<IpAddr>,
}

impl Here<'_> {
    /// Every address that the words name.
    pub(super) fn ends(&self, words: &str) -> Result<Vec<End>, ErrorReply> {
        if let Ok(address) = words.parse::<IpAddr>() {
            return Ok(vec![self.at(address)]);
        }
        if words == NODE {
            let gateways = &self.compiled.view.gateways;
            if gateways.is_empty() {
                return Err(refused(
                    code::TRY_AGAIN_LATER,
                    "the router has not told npc the node's own address on the bridge".to_owned(),
                    "ask again when `kubectl get weftnodes` shows this node as ready",
                ));
            }
            return Ok(gateways.iter().map(|address| self.at(*address)).collect());
        }
        match words.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() => {
                self.pod(&ObjectKey::new(namespace, name))
            }
            Some(_) | None => Err(refused(
                code::UNSUPPORTED_FIELD,
                format!("{words:?} is no pod, no address and not \"{NODE}\""),
                "give a pod as NAMESPACE/POD, an address, or \"node\" for the node that is asked",
            )),
        }
    }

    fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address) || self.compiled.view.gateways.contains(&address)
    }

    fn at(&self, address: IpAddr) -> End {
        let (found, here) = self.state.look_up(|index| {
            let found = index.pod_at(address).and_then(|key| {
                let (_, node) = index.pod(&key)?;
                Some((key, node))
            });
            (found, index.node().to_owned())
        });
        let is_node = self.is_own(address);
        let (pod, node) = found.map_or((None, None), |(key, node)| (Some(key.to_string()), node));
        End {
            is_node,
            has_policy: pod.is_some(),
            shown: QueryEnd {
                address,
                node: node
                    .map(|node| node.to_string())
                    .or(is_node.then_some(here)),
                pod,
            },
        }
    }

    fn pod(&self, key: &ObjectKey) -> Result<Vec<End>, ErrorReply> {
        let (found, on_host, namespace) = self.state.look_up(|index| {
            (
                index.pod(key),
                index.is_on_host_network(key),
                index.has_namespace(&key.namespace),
            )
        });
        let ObjectKey {
            namespace: of,
            name,
        } = key;
        match found {
            Some((addresses, node)) if !addresses.is_empty() => {
                let node: Option<Arc<str>> = node;
                let end = |address| End {
                    is_node: on_host && self.is_own(address),
                    has_policy: !on_host,
                    shown: QueryEnd {
                        address,
                        pod: Some(key.to_string()),
                        node: node.as_ref().map(ToString::to_string),
                    },
                };
                Ok(addresses.into_iter().map(end).collect())
            }
            Some(_) => Err(refused(
                code::UNKNOWN_CONTAINER,
                format!("pod {key} has no address yet"),
                &format!("ask again when `kubectl get pod -n {of} {name} -o wide` shows one"),
            )),
            None if !namespace => Err(refused(
                code::UNKNOWN_CONTAINER,
                format!("npc knows no pod {key}, and no namespace {of}"),
                "is it spelled as `kubectl get pods -A` shows it?",
            )),
            None => Err(refused(
                code::UNKNOWN_CONTAINER,
                format!(
                    "npc knows no pod {key}, neither from the API nor as attached to this node"
                ),
                &format!("is it spelled as `kubectl get pods -n {of}` shows it?"),
            )),
        }
    }

    /// The number of a destination port; a name is one of the destination's container ports.
    pub(super) fn port(
        &self,
        words: Option<&str>,
        protocol: Protocol,
        to: &End,
    ) -> Result<u16, ErrorReply> {
        let Some(words) = words else {
            return Err(refused(
                code::UNSUPPORTED_FIELD,
                format!("a port must be given for {protocol}"),
                "add --port, a number or the name of a container port of the destination",
            ));
        };
        if words.bytes().all(|byte| byte.is_ascii_digit()) && !words.is_empty() {
            let number = words.parse().ok().filter(|number| *number > 0);
            return number.ok_or_else(|| {
                refused(
                    code::UNSUPPORTED_FIELD,
                    format!("{words} is no port"),
                    "ports are 1 to 65535",
                )
            });
        }
        let Some(pod) = &to.shown.pod else {
            return Err(refused(
                code::UNSUPPORTED_FIELD,
                format!(
                    "{} is no pod: it has no container port named {words:?}",
                    to.shown.address
                ),
                "give the port's number",
            ));
        };
        let key = pod
            .split_once('/')
            .map(|(ns, name)| ObjectKey::new(ns, name));
        let ports = key.and_then(|key| self.state.look_up(|index| index.named_ports(&key)));
        let ports = ports.unwrap_or_default();
        let named = ports
            .iter()
            .find(|port| port.protocol == protocol && *port.name == *words);
        if let Some(port) = named {
            return Ok(port.port);
        }
        let others: Vec<String> = ports
            .iter()
            .map(|port| format!("{} ({} {})", port.name, port.protocol, port.port))
            .collect();
        let advice = if others.is_empty() {
            "it has no named ports; give a number".to_owned()
        } else {
            format!("it has {}", others.join(", "))
        };
        Err(refused(
            code::UNSUPPORTED_FIELD,
            format!("pod {pod} has no {protocol} port named {words:?}"),
            &advice,
        ))
    }
}
