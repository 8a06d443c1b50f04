//! The walk through chains.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use super::{Packet, Pass};
use crate::{
    ChainName, CtState, Hook, IfPattern, Match, Protocol, Rule, Ruleset, SetName, Table, TableName,
    Verdict,
};

/// The ruleset is not one that a kernel could hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// A jump into nothing.
    #[error("chain {0} does not exist")]
    NoChain(ChainName),
    /// A lookup in nothing.
    #[error("set {0} does not exist")]
    NoSet(SetName),
    /// Jumps in a circle.
    #[error("chain {0} is entered more than 64 deep")]
    TooDeep(ChainName),
}

/// A rule that matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Hook of the pass.
    pub hook: Hook,
    /// Table.
    pub table: TableName,
    /// Chain.
    pub chain: ChainName,
    /// Number of the rule, from 1.
    pub rule: usize,
    /// Its verdict.
    pub verdict: Verdict,
    /// Its comment.
    pub comment: Option<String>,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}: {} rule {}: {:?}",
            self.hook.chain(),
            self.table,
            self.chain,
            self.rule,
            self.verdict
        )?;
        match &self.comment {
            Some(comment) => write!(f, " ({comment})"),
            None => Ok(()),
        }
    }
}

/// What becomes of the packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// A rule dropped it: the last of `path`.
    pub dropped: bool,
    /// Its source is replaced on leaving.
    pub masqueraded: bool,
    /// Conntrack was told to look away.
    pub untracked: bool,
    /// NFLOG prefixes that were written.
    pub logged: Vec<String>,
    /// Mark at the end.
    pub mark: u32,
    /// Rules that matched, in order.
    pub path: Vec<Step>,
}

enum Flow {
    /// Back to the caller.
    Return,
    /// No further chain of this table and hook.
    Accept,
    Drop,
}

/// Takes the packet through the passes. Nothing is local to the node.
///
/// # Errors
/// [`TraceError`].
pub fn trace(ruleset: &Ruleset, packet: &Packet, passes: &[Pass]) -> Result<Outcome, TraceError> {
    trace_with_local(ruleset, packet, passes, &BTreeSet::new())
}

/// As [`trace`]; `local` are the node's own addresses (for `SrcLocal`, `DstLocal`).
///
/// # Errors
/// [`TraceError`].
pub fn trace_with_local(
    ruleset: &Ruleset,
    packet: &Packet,
    passes: &[Pass],
    local: &BTreeSet<IpAddr>,
) -> Result<Outcome, TraceError> {
    let mut outcome = Outcome {
        mark: packet.mark,
        ..Outcome::default()
    };
    let Some(table) = ruleset.tables.get(&packet.family()) else {
        return Ok(outcome);
    };
    let mut walk = Walk {
        table,
        packet: packet.clone(),
        local,
        outcome: &mut outcome,
    };
    'passes: for pass in passes {
        for name in TableName::ALL {
            // Translation is decided by the first packet of a flow alone.
            if name == TableName::Nat && walk.packet.ct != CtState::New {
                continue;
            }
            if walk.hook(pass, name)? {
                break 'passes;
            }
        }
    }
    Ok(outcome)
}

struct Walk<'a> {
    table: &'a Table,
    packet: Packet,
    local: &'a BTreeSet<IpAddr>,
    outcome: &'a mut Outcome,
}

impl Walk<'_> {
    /// All jumps of one hook of one table; true if the packet is gone.
    fn hook(&mut self, pass: &Pass, table: TableName) -> Result<bool, TraceError> {
        for jump in &self.table.hooks {
            let chain = self
                .table
                .chains
                .get(&jump.to)
                .ok_or_else(|| TraceError::NoChain(jump.to.clone()))?;
            if jump.hook != pass.hook || chain.table != table {
                continue;
            }
            if !self.all(&jump.matches, pass)? {
                continue;
            }
            match self.chain(&jump.to, pass, 0)? {
                Flow::Return => {}
                Flow::Accept => return Ok(false),
                Flow::Drop => {
                    self.outcome.dropped = true;
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    fn chain(&mut self, name: &ChainName, pass: &Pass, depth: usize) -> Result<Flow, TraceError> {
        if depth > 64 {
            return Err(TraceError::TooDeep(name.clone()));
        }
        // A copy of the reference: the table outlives the walk.
        let table = self.table;
        let chain = table
            .chains
            .get(name)
            .ok_or_else(|| TraceError::NoChain(name.clone()))?;
        for (index, rule) in chain.rules.iter().enumerate() {
            if !self.all(&rule.matches, pass)? {
                continue;
            }
            self.record(pass, chain.table, name, index + 1, rule);
            match &rule.verdict {
                Verdict::Accept => return Ok(Flow::Accept),
                Verdict::Drop => return Ok(Flow::Drop),
                Verdict::Return => return Ok(Flow::Return),
                Verdict::Goto(to) => return self.chain(to, pass, depth + 1),
                Verdict::Jump(to) => match self.chain(to, pass, depth + 1)? {
                    Flow::Return => {}
                    end @ (Flow::Accept | Flow::Drop) => return Ok(end),
                },
                Verdict::SetMark { value, mask } => {
                    self.outcome.mark = (self.outcome.mark & !mask) | (value & mask);
                }
                Verdict::Nflog { prefix, .. } => self.outcome.logged.push(prefix.clone()),
                Verdict::Masquerade { .. } => {
                    self.outcome.masqueraded = true;
                    return Ok(Flow::Accept);
                }
                Verdict::NoTrack => {
                    self.outcome.untracked = true;
                    self.packet.ct = CtState::Untracked;
                }
            }
        }
        Ok(Flow::Return)
    }

    fn record(
        &mut self,
        pass: &Pass,
        table: TableName,
        chain: &ChainName,
        rule: usize,
        what: &Rule,
    ) {
        self.outcome.path.push(Step {
            hook: pass.hook,
            table,
            chain: chain.clone(),
            rule,
            verdict: what.verdict.clone(),
            comment: what.comment.clone(),
        });
    }

    fn all(&self, matches: &[Match], pass: &Pass) -> Result<bool, TraceError> {
        for m in matches {
            if !self.holds(m, pass)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn holds(&self, m: &Match, pass: &Pass) -> Result<bool, TraceError> {
        let packet = &self.packet;
        Ok(match m {
            Match::SrcSet { set, negate } => self.in_set(set, &packet.src)? != *negate,
            Match::DstSet { set, negate } => self.in_set(set, &packet.dst)? != *negate,
            Match::SrcPortSet { set } => self.in_set(set, &packet.src)?,
            Match::DstPortSet { set } => self.in_set(set, &packet.dst)?,
            Match::Src { .. }
            | Match::Dst { .. }
            | Match::InIface { .. }
            | Match::OutIface { .. }
            | Match::Protocol(_)
            | Match::DstPorts { .. }
            | Match::IcmpType(_)
            | Match::Icmp6Type(_)
            | Match::PhysIn { .. }
            | Match::PhysOut { .. }
            | Match::CtState(_)
            | Match::CtMark { .. }
            | Match::Mark { .. }
            | Match::PktType(_)
            | Match::SrcLocal { .. }
            | Match::DstLocal { .. }
            | Match::Limit { .. } => holds(m, packet, self.outcome.mark, pass, self.local),
        })
    }

    fn in_set(&self, name: &SetName, address: &IpAddr) -> Result<bool, TraceError> {
        let set = self
            .table
            .sets
            .get(name)
            .ok_or_else(|| TraceError::NoSet(name.clone()))?;
        Ok(set.covers(address, self.packet.protocol, self.packet.dst_port))
    }
}

/// Does a condition that looks up no set hold?
pub(super) fn holds(
    m: &Match,
    packet: &Packet,
    mark: u32,
    pass: &Pass,
    local: &BTreeSet<IpAddr>,
) -> bool {
    match m {
        Match::Src { net, negate } => net.contains(&packet.src) != *negate,
        Match::Dst { net, negate } => net.contains(&packet.dst) != *negate,
        Match::InIface { iface, negate } => named(pass.in_iface.as_deref(), iface) != *negate,
        Match::OutIface { iface, negate } => named(pass.out_iface.as_deref(), iface) != *negate,
        Match::PhysIn { iface, negate } => named(pass.phys_in.as_deref(), iface) != *negate,
        Match::PhysOut { iface, negate } => pass
            .phys_out
            .as_deref()
            .is_some_and(|port| iface.covers(port) != *negate),
        Match::Protocol(protocol) => packet.protocol == *protocol,
        Match::DstPorts { protocol, ports } => {
            packet.protocol == *protocol && packet.dst_port.is_some_and(|port| ports.contains(port))
        }
        Match::IcmpType(kind) => {
            packet.protocol == Protocol::ICMP && packet.icmp_type == Some(*kind)
        }
        Match::Icmp6Type(kind) => {
            packet.protocol == Protocol::ICMP6 && packet.icmp_type == Some(*kind)
        }
        Match::CtState(states) => states.contains(&packet.ct),
        Match::CtMark { value, mask } => {
            !matches!(packet.ct, CtState::Invalid | CtState::Untracked)
                && packet.ct_mark & mask == *value
        }
        Match::Mark { value, mask } => mark & mask == *value,
        Match::PktType(kind) => packet.pkt_type == *kind,
        Match::SrcLocal { negate } => local.contains(&packet.src) != *negate,
        Match::DstLocal { negate } => local.contains(&packet.dst) != *negate,
        Match::Limit { .. } => true,
        // Who walks looks these up.
        Match::SrcSet { .. }
        | Match::DstSet { .. }
        | Match::SrcPortSet { .. }
        | Match::DstPortSet { .. } => false,
    }
}

/// A device that is not there is covered by no pattern.
fn named(name: Option<&str>, pattern: &IfPattern) -> bool {
    name.is_some_and(|name| pattern.covers(name))
}
