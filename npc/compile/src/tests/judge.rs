//! What both kernel interfaces do with a packet, compared with what policy and the closed blocks say.

use std::collections::BTreeSet;

use weft_netfilter::nft::{Tables, lower};
use weft_netfilter::{Family, Ruleset};
use weft_policy::{Packet, Path, PolicyModel, State, cases, evaluate};

use super::way::{dropped_from, traced, traced_by_nft, traced_in_flow, traced_with_mark};
use crate::{NodeView, compile};

/// n1 of the cases.
pub(super) fn node() -> NodeView {
    let net = |text: &&str| text.parse().expect("a network");
    let address = |text: &&str| text.parse().expect("an address");
    NodeView {
        families: BTreeSet::from(Family::ALL),
        blocks: cases::BLOCKS.iter().map(net).collect(),
        gateways: cases::GATEWAYS.iter().map(address).collect(),
        ..NodeView::default()
    }
}

/// One model, as rules of both interfaces.
pub(super) struct Engines<'a> {
    model: &'a PolicyModel,
    node: &'a NodeView,
    ruleset: Ruleset,
    tables: Tables,
}

impl<'a> Engines<'a> {
    pub(super) fn new(model: &'a PolicyModel, node: &'a NodeView) -> Self {
        let ruleset = compile(model, node);
        ruleset
            .check()
            .expect("a ruleset that the kernel could hold");
        let tables = lower(&ruleset).expect("a ruleset that has an equal in nftables");
        Self {
            model,
            node,
            ruleset,
            tables,
        }
    }

    /// Why the packet is dropped, by the prefix it is logged with; `None`: it passes.
    pub(super) fn reason(&self, packet: &Packet) -> Option<&'static str> {
        let verdict = evaluate(self.model, packet);
        if self.node.closes(self.model, packet) {
            Some("weft-deny-closed")
        } else if !verdict.egress.is_allowed() {
            Some("weft-deny-egress")
        } else if !verdict.ingress.is_allowed() {
            Some("weft-deny-ingress")
        } else {
            None
        }
    }

    /// How the rules do something else than the definition says, or for another reason.
    pub(super) fn disagree(&self, packet: &Packet) -> Option<String> {
        let reason = self.reason(packet);
        self.iptables(packet, reason)
            .or_else(|| self.nftables(packet, reason))
            .or_else(|| self.cut(packet, reason))
    }

    /// Both interfaces' verdict, if the packet comes from this port.
    pub(super) fn dropped_from(&self, port: u16, packet: &Packet) -> [bool; 2] {
        dropped_from(port, &self.ruleset, &self.tables, self.model, packet)
    }

    fn iptables(&self, packet: &Packet, reason: Option<&str>) -> Option<String> {
        let ours = self.node.mark;
        let outcome = traced(&self.ruleset, self.model, packet);
        let logged: Vec<&str> = outcome.logged.iter().map(String::as_str).collect();
        let unmarked = traced_with_mark(&self.ruleset, self.model, packet, !ours);
        // Our bit does not leave our chains, others' bits pass through them.
        let mark_kept =
            outcome.dropped || (outcome.mark | ours == u32::MAX && unmarked.mark == !ours);
        let agrees = outcome.dropped == unmarked.dropped
            && outcome.dropped == reason.is_some()
            && logged == Vec::from_iter(reason)
            && mark_kept;
        (!agrees).then(|| {
            let path: Vec<String> = outcome.path.iter().map(ToString::to_string).collect();
            format!(
                "{packet:?}\n  evaluator: {}; wanted: {reason:?}\n  iptables: dropped {}, mark {:x}\n    {}",
                evaluate(self.model, packet),
                outcome.dropped,
                outcome.mark,
                path.join("\n    ")
            )
        })
    }

    /// The mark of a frame to no known address that leaves by the port of an isolated pod is not
    /// kept: it says which port, and ends there.
    fn nftables(&self, packet: &Packet, reason: Option<&str>) -> Option<String> {
        let ours = self.node.mark;
        for mark in [u32::MAX, !ours] {
            let outcome = traced_by_nft(&self.tables, self.model, packet, mark, 0);
            let logged: Vec<&str> = outcome.logged.iter().map(String::as_str).collect();
            let by_port = |step: &String| step.contains("oifname map");
            let mark_kept = outcome.dropped
                || outcome.mark | ours == mark | ours
                || outcome.mark == 0 && outcome.path.iter().any(by_port);
            let leaked = !outcome.dropped && mark & ours == 0 && outcome.mark & ours != 0;
            if outcome.dropped != reason.is_some()
                || logged != Vec::from_iter(reason)
                || !mark_kept
                || leaked
            {
                return Some(format!(
                    "{packet:?}\n  wanted: {reason:?}\n  nftables: dropped {}, mark {:x}\n    {}",
                    outcome.dropped,
                    outcome.mark,
                    outcome.path.join("\n    ")
                ));
            }
        }
        None
    }

    /// Packets of a flow that was cut go nowhere, whatever policies say of them, but for those that
    /// belong to no flow and neighbour discovery; others' marks of flows mean nothing.
    fn cut(&self, packet: &Packet, reason: Option<&str>) -> Option<String> {
        let flow = !matches!(packet.state, State::Invalid | State::Untracked)
            && (!packet.is_neighbour_discovery() || packet.path == Path::Output);
        let cut = if flow { Some("weft-deny-cut") } else { reason };
        let bit = self.node.cut;
        for (mark, expected) in [(bit, cut), (u32::MAX, cut), (!bit, reason)] {
            let iptables = traced_in_flow(&self.ruleset, self.model, packet, 0, mark);
            let nft = traced_by_nft(&self.tables, self.model, packet, 0, mark);
            for (name, dropped, logged) in [
                ("iptables", iptables.dropped, &iptables.logged),
                ("nftables", nft.dropped, &nft.logged),
            ] {
                let expected: Vec<String> = expected.map(str::to_owned).into_iter().collect();
                if dropped == expected.is_empty() || *logged != expected {
                    return Some(format!(
                        "{packet:?} of a flow marked {mark:x}\n  wanted: {expected:?}\n  \
                         {name}: dropped {dropped}, {logged:?}"
                    ));
                }
            }
        }
        None
    }
}
