//! A chain per policy and direction, shared by all pods that the policy selects.

use std::collections::BTreeMap;

use weft_netfilter::{ChainName, Match, Rule, Verdict};
use weft_policy::{Direction, ObjectKey};

use crate::peer;
use crate::table::{Builder, allow_chain};

/// The chains of a direction, by policy. A policy that allows nothing needs none.
pub(crate) fn chains<'a>(
    builder: &mut Builder<'a>,
    direction: Direction,
) -> BTreeMap<&'a ObjectKey, ChainName> {
    let mut chains = BTreeMap::new();
    let model = builder.model;
    for (key, policy) in &model.policies {
        let Some(rules @ [_, ..]) = policy.rules(direction) else {
            continue;
        };
        let kind = match direction {
            Direction::Ingress => "PI",
            Direction::Egress => "PE",
        };
        let chain = builder
            .names
            .chain(kind, &key.name, &format!("policy {direction} {key}"));
        let mut compiled = Vec::new();
        for (i, rule) in rules.iter().enumerate() {
            let what = format!("{key} {direction} {i}");
            // One list per alternative; a rule of the kernel is one peer and one port.
            for (peers, ports) in peer::alternatives(builder, key, direction, rule) {
                add(builder, &mut compiled, &what, &peers, &ports);
            }
        }
        builder.chain(&chain, compiled);
        chains.insert(key, chain);
    }
    chains
}

/// Adds "any of these peers and any of these ports". Where that would be many rules, the ports
/// become a chain of their own, entered by each peer.
fn add(
    builder: &mut Builder<'_>,
    rules: &mut Vec<Rule>,
    what: &str,
    peers: &[Vec<Match>],
    ports: &[Vec<Match>],
) {
    let allow =
        |matches: Vec<Match>| Rule::new(matches, Verdict::Goto(allow_chain())).comment(what);
    if peers.len() * ports.len() <= peers.len() + ports.len() + 2 {
        for peer in peers {
            rules.extend(
                ports
                    .iter()
                    .map(|port| allow([peer.clone(), port.clone()].concat())),
            );
        }
        return;
    }
    let chain = builder
        .names
        .chain("PP", what, &format!("ports {ports:?} of {what}"));
    builder.chain(&chain, ports.iter().cloned().map(allow).collect());
    for peer in peers {
        rules.push(Rule::new(peer.clone(), Verdict::Jump(chain.clone())).comment(what));
    }
}
