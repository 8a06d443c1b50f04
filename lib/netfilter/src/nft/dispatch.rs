//! Chains that only lead somewhere by address: a tree of prefixes is one map.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;

use super::End;
use crate::{ChainName, Match, Rule, Table, Verdict};

/// Where each address leads, and which address is looked at.
pub(super) type Ways<'a> = (End, BTreeMap<IpAddr, &'a ChainName>);

/// The map that a chain amounts to, if every rule of it (and of the chains that it leads to by a
/// prefix) leads one address or one prefix to a chain, and no two prefixes overlap.
pub(super) fn ways<'a>(table: &'a Table, chain: &ChainName) -> Option<Ways<'a>> {
    let rules = &table.chains.get(chain)?.rules;
    let (end, ..) = way(rules.first()?)?;
    let mut ways = BTreeMap::new();
    collect(table, rules, end, None, &mut ways)?;
    Some((end, ways))
}

fn collect<'a>(
    table: &'a Table,
    rules: &'a [Rule],
    end: End,
    within: Option<IpNet>,
    ways: &mut BTreeMap<IpAddr, &'a ChainName>,
) -> Option<()> {
    let mut nets: Vec<IpNet> = Vec::new();
    for rule in rules {
        let (of, net, to) = way(rule)?;
        let inside = within.is_none_or(|outer| outer.contains(&net));
        if of != end || !inside {
            return None;
        }
        nets.push(net);
        if net.prefix_len() == net.max_prefix_len() {
            ways.insert(net.addr(), to);
        } else {
            // A prefix that leads into anything but more of the tree is no address.
            collect(table, &table.chains.get(to)?.rules, end, Some(net), ways)?;
        }
    }
    // The first rule that matches decides; in a map there is no first.
    nets.sort();
    let apart = nets.windows(2).all(|two| !two[0].contains(&two[1]));
    apart.then_some(())
}

fn way(rule: &Rule) -> Option<(End, IpNet, &ChainName)> {
    let Verdict::Goto(to) = &rule.verdict else {
        return None;
    };
    match rule.matches.as_slice() {
        [Match::Src { net, negate: false }] => Some((End::Source, net.trunc(), to)),
        [Match::Dst { net, negate: false }] => Some((End::Destination, net.trunc(), to)),
        _ => None,
    }
}
