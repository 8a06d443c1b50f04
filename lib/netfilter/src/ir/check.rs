//! What a ruleset must fulfil before anything is written.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Chain, ChainName, Family, Hook, Match, Rule, Ruleset, SetKind, SetName, Table, TableName,
    Verdict,
};

/// A ruleset that no kernel could take. It is a bug of whoever compiled it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{family} {place}: {what}")]
pub struct Invalid {
    /// Family of the table.
    pub family: Family,
    /// Chain, set or hook.
    pub place: String,
    /// What is wrong.
    pub what: String,
}

impl Ruleset {
    /// Checks what the types cannot: references exist and have the right kind, elements fit their
    /// set, a rule holds nothing twice, chains do not loop, names differ between families.
    ///
    /// # Errors
    /// The first defect.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut names: BTreeSet<&SetName> = BTreeSet::new();
        for (&family, table) in &self.tables {
            let at = |place: String, what: String| Invalid {
                family,
                place,
                what,
            };
            for (name, set) in &table.sets {
                if name.as_str().ends_with(SetName::TWIN_SUFFIX) {
                    return Err(at(
                        format!("set {name}"),
                        "has a name that is kept for twins".to_owned(),
                    ));
                }
                if !names.insert(name) {
                    return Err(at(
                        format!("set {name}"),
                        "has the same name as one of the other family".to_owned(),
                    ));
                }
                for element in &set.elements {
                    let zero = matches!(set.kind, SetKind::Net | SetKind::NetPort)
                        && (element.net().prefix_len() == 0
                            || element.net().trunc() != element.net());
                    if element.kind() != set.kind || element.family() != family || zero {
                        return Err(at(format!("set {name}"), format!("cannot hold {element}")));
                    }
                }
            }
            for (name, chain) in &table.chains {
                for (index, rule) in chain.rules.iter().enumerate() {
                    check_rule(family, table, chain, rule)
                        .map_err(|what| at(format!("chain {name} rule {}", index + 1), what))?;
                }
            }
            for jump in &table.hooks {
                let place = format!("hook {} to {}", jump.hook.chain(), jump.to);
                let Some(chain) = table.chains.get(&jump.to) else {
                    return Err(at(place, "no such chain".to_owned()));
                };
                let rule = Rule::new(jump.matches.clone(), Verdict::Jump(jump.to.clone()));
                check_rule(family, table, chain, &rule).map_err(|what| at(place.clone(), what))?;
                if !hook_exists(chain.table, jump.hook) {
                    return Err(at(place, format!("table {} has no such hook", chain.table)));
                }
            }
            check_loops(&table.chains)
                .map_err(|name| at(format!("chain {name}"), "leads back to itself".to_owned()))?;
        }
        Ok(())
    }
}

/// Units of xt_limit in a second (`XT_LIMIT_SCALE`).
const LIMIT_SCALE: u32 = 10_000;

fn hook_exists(table: TableName, hook: Hook) -> bool {
    match table {
        TableName::Raw => matches!(hook, Hook::Prerouting | Hook::Output),
        TableName::Mangle => true,
        TableName::Nat => hook != Hook::Forward,
        TableName::Filter => matches!(hook, Hook::Input | Hook::Forward | Hook::Output),
    }
}

/// iptables holds each of these once in a rule.
fn slot(m: &Match) -> Option<&'static str> {
    match m {
        Match::Src { .. } => Some("source"),
        Match::Dst { .. } => Some("destination"),
        Match::InIface { .. } => Some("input device"),
        Match::OutIface { .. } => Some("output device"),
        Match::Protocol(_) | Match::DstPorts { .. } | Match::IcmpType(_) | Match::Icmp6Type(_) => {
            Some("protocol")
        }
        Match::PhysIn { .. } => Some("physical input"),
        Match::PhysOut { .. } => Some("physical output"),
        Match::CtState(_)
        | Match::CtMark { .. }
        | Match::Mark { .. }
        | Match::PktType(_)
        | Match::SrcLocal { .. }
        | Match::DstLocal { .. }
        | Match::SrcSet { .. }
        | Match::DstSet { .. }
        | Match::SrcPortSet { .. }
        | Match::DstPortSet { .. }
        | Match::Limit { .. } => None,
    }
}

fn check_rule(family: Family, table: &Table, chain: &Chain, rule: &Rule) -> Result<(), String> {
    let rule = rule.canonical();
    let mut slots = BTreeSet::new();
    for m in &rule.matches {
        if let Some(slot) = slot(m)
            && !slots.insert(slot)
        {
            return Err(format!("more than one condition on the {slot}"));
        }
        check_match(family, table, m)?;
    }
    match &rule.verdict {
        Verdict::Jump(to) | Verdict::Goto(to) => match table.chains.get(to) {
            None => Err(format!("leads to chain {to}, which does not exist")),
            Some(target) if target.table != chain.table => Err(format!(
                "leads to chain {to} of another table ({})",
                target.table
            )),
            Some(_) => Ok(()),
        },
        Verdict::Masquerade { .. } if chain.table != TableName::Nat => {
            Err("masquerade works in table nat only".to_owned())
        }
        Verdict::NoTrack if chain.table != TableName::Raw => {
            Err("notrack works in table raw only".to_owned())
        }
        Verdict::Drop if chain.table == TableName::Nat => Err("table nat cannot drop".to_owned()),
        Verdict::Accept
        | Verdict::Drop
        | Verdict::Return
        | Verdict::SetMark { .. }
        | Verdict::Nflog { .. }
        | Verdict::Masquerade { .. }
        | Verdict::NoTrack => Ok(()),
    }
}

fn check_match(family: Family, table: &Table, m: &Match) -> Result<(), String> {
    if let Some(name) = m.set() {
        let Some(set) = table.sets.get(name) else {
            return Err(format!("looks up set {name}, which does not exist"));
        };
        let wants_port = matches!(m, Match::SrcPortSet { .. } | Match::DstPortSet { .. });
        if set.kind.has_port() != wants_port {
            return Err(format!(
                "looks up set {name} of type {} the wrong way",
                set.kind.ipset_type()
            ));
        }
    }
    impossible(family, m).map_or(Ok(()), Err)
}

/// Why a condition can never hold, or never in this family.
fn impossible(family: Family, m: &Match) -> Option<String> {
    if let Match::Src { net, negate } | Match::Dst { net, negate } = m {
        if Family::of_net(net) != family {
            return Some(format!("{net} is of the other family"));
        }
        if *negate && net.prefix_len() == 0 {
            return Some(format!("not in {net} can never hold"));
        }
    }
    if let Match::DstPorts { protocol, ports } = m {
        if !protocol.has_ports() {
            return Some(format!("protocol {protocol} has no ports"));
        }
        if ports.from > ports.to {
            return Some(format!("port range {ports} is empty"));
        }
    }
    if matches!(m, Match::IcmpType(_)) && family != Family::V4 {
        return Some("ICMP is of IPv4".to_owned());
    }
    if matches!(m, Match::Icmp6Type(_)) && family != Family::V6 {
        return Some("ICMPv6 is of IPv6".to_owned());
    }
    if matches!(m, Match::CtState(states) if states.is_empty()) {
        return Some("no flow state can never hold".to_owned());
    }
    if let Match::Limit { per_second, burst } = m {
        if *per_second == 0 || *burst == 0 {
            return Some("a rate of 0 can never hold".to_owned());
        }
        // xt_limit keeps the time between packets in units of 100 us, so what is read back is not
        // always what was written: such a rule would look foreign for ever.
        let period = LIMIT_SCALE / per_second;
        if period == 0 || LIMIT_SCALE / period != *per_second {
            return Some(format!(
                "{per_second} a second is not a rate xt_limit can keep"
            ));
        }
    }
    None
}

/// Returns a chain on a loop.
fn check_loops(chains: &BTreeMap<ChainName, Chain>) -> Result<(), ChainName> {
    let mut done: BTreeSet<&ChainName> = BTreeSet::new();
    for start in chains.keys() {
        // Depth first; the path is kept so that a loop is seen, not only a shared chain.
        let mut path: Vec<(&ChainName, Vec<&ChainName>)> = vec![(start, targets(chains, start))];
        while let Some((_, open)) = path.last_mut() {
            let Some(next) = open.pop() else {
                if let Some((name, _)) = path.pop() {
                    done.insert(name);
                }
                continue;
            };
            if path.iter().any(|(name, _)| *name == next) {
                return Err(next.clone());
            }
            if !done.contains(next) {
                path.push((next, targets(chains, next)));
            }
        }
    }
    Ok(())
}

fn targets<'a>(chains: &'a BTreeMap<ChainName, Chain>, name: &ChainName) -> Vec<&'a ChainName> {
    chains
        .get(name)
        .map(|chain| chain.targets().into_iter().collect())
        .unwrap_or_default()
}
