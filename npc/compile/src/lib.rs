//! From the policy model and a node's view to a ruleset: [`compile`].
//!
//! The rules say what [`weft_policy::evaluate`] says, for every packet; tests hold the two
//! together. The crate must not know how a ruleset is written (iptables, ipset, nft), nor any
//! Kubernetes object, client, clock or process. Nothing in it can fail, and equal arguments give
//! equal rulesets (I1).
//!
//! # Layout
//!
//! ```text
//! FORWARD -> WEFT-NPC                                INPUT, in bridge -> WEFT-NPC-INPUT
//!   datapath -> datapath            RETURN             neighbour discovery       RETURN
//!   neighbour discovery (IPv6)      RETURN             flow is cut          goto WEFT-NPC-CUT
//!   flow is cut                goto WEFT-NPC-CUT       established, related      RETURN
//!   established, related            RETURN             source not yet known      DROP
//!   source or destination in our                       -> WEFT-NPC-EGRESS
//!     blocks and not yet known      DROP             OUTPUT, flow is cut -> WEFT-NPC-CUT
//!   -> WEFT-NPC-EGRESS    by source, goto the pod's chain
//!   -> WEFT-NPC-INGRESS   by destination, goto the pod's chain
//!   -> WEFT-NPC-GROUP     bridged, and nobody here has the destination: by port of departure
//!
//! WEFT-NPC-E-<pod>, WEFT-NPC-I-<pod>      one per pod and direction in which it is isolated
//!   the other end is the pod itself         RETURN
//!   invalid                                 goto the direction's deny chain
//!   clear the mark
//!   for each policy: -> WEFT-NPC-PE-<policy>, WEFT-NPC-PI-<policy>; marked: goto WEFT-NPC-PASS
//!     (pods whose allowed connections are logged: marked: -> WEFT-NPC-LOG-E, WEFT-NPC-LOG-I before)
//!   goto WEFT-NPC-DENY-E, WEFT-NPC-DENY-I   NFLOG (limited, if somebody reads it), DROP
//!
//! WEFT-NPC-LOG-E, WEFT-NPC-LOG-I          first packet of a connection: NFLOG (limited)
//!                                         entered at once by pods that are not isolated
//!
//! WEFT-NPC-PE-<policy>, WEFT-NPC-PI-<policy>   shared by all pods the policy selects
//!   peers and ports of a rule -> goto WEFT-NPC-ALLOW (sets the mark, back in the pod's chain)
//! ```
//!
//! - *Allow* is RETURN: egress that is allowed goes on to ingress (both ends may be here), and
//!   what is allowed altogether goes on in the built-in chain, where other people's rules still
//!   count. *Deny* is DROP. Nothing here ever accepts.
//! - The mark is how a policy's chain tells the pod's chain that it allowed the packet. It is
//!   cleared before and after, so it neither comes from outside nor leaves: a mark on a bridged
//!   packet would show on its outer VXLAN packet.
//! - A flow is *cut* by a bit of its connmark: npc sets it on flows that were allowed and would not
//!   be now, and takes it away when they would be again. It counts in both directions, in OUTPUT too
//!   (a server on the node that pushes).
//! - OUTPUT has no other rules: what the node sends to its own pods is always allowed (probes,
//!   `kubectl exec`), what it sends to pods of other nodes is judged there, and nothing else
//!   passes OUTPUT that concerns a pod.
//! - Pods are matched by address: `--physdev-out` is not known for routed packets, and in `inet`
//!   tables ports of a bridge are not visible at all. Ports are looked at only for group frames.
//! - A new connection walks at most a few rules per level of a tree of address prefixes, however
//!   many pods there are ([`dispatch`]).
//!
//! The ruleset is shaped as iptables and ipset hold it; [`weft_netfilter::nft::lower`] says the same
//! in nftables, where base chains of our own stand in place of the jumps from FORWARD and INPUT.

mod allowed;
mod closed;
mod dispatch;
mod name;
mod node;
mod peer;
mod pod;
mod policy;
mod table;
#[cfg(test)]
mod tests;

pub use node::NodeView;

use std::collections::BTreeMap;

use weft_netfilter::Ruleset;
use weft_policy::PolicyModel;

/// The rules of a node: one table per family of the node.
#[must_use]
pub fn compile(model: &PolicyModel, node: &NodeView) -> Ruleset {
    let tables: BTreeMap<_, _> = node
        .families
        .iter()
        .map(|family| (*family, table::Builder::new(*family, model, node).build()))
        .collect();
    Ruleset { tables }
}
