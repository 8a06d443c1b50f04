//! From the IR to tables of nftables.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Base, Chain, Data, Element, End, Go, Key, Kind, Match, Objects, Rule, Set, Tables, Verdict,
    dispatch, pack, ports,
};
use crate::{
    ChainName, Family, Hook, IfName, IfPattern, Invalid, Match as Plain, Ruleset, SetKind, SetName,
    Table, TableName, Verdict as PlainVerdict,
};

/// Of base chains in `inet` (see the module's head).
const PRIORITY: i32 = -10;
/// Of the base chain in `bridge`: before bridged frames are passed on to `inet` (0).
const BRIDGE_PRIORITY: i32 = -200;
const FORWARD: &str = "forward";

/// Says the same for nftables. Chains that nothing leads to are left out.
///
/// # Errors
/// [`Invalid`]: a ruleset that [`Ruleset::check`] refuses, or one that uses what has no equal here
/// (other tables than `filter`, accepting, ports of a bridge other than in a chain of their own).
pub fn lower(ruleset: &Ruleset) -> Result<Tables, Invalid> {
    ruleset.check()?;
    let mut tables = Tables::default();
    let Some((keep, marks)) = ports::marks(ruleset.tables.values()) else {
        let what = "rules leave too few bits of it to tell ports apart".to_owned();
        return Err(invalid(Family::V4, "mark", what));
    };
    if let Some(port) = marks.keys().find(|port| is_pattern(port)) {
        let what = "would be read as a pattern".to_owned();
        return Err(invalid(Family::V4, &format!("port {port}"), what));
    }
    let mut bases: BTreeMap<Hook, Vec<Rule>> = BTreeMap::new();
    for (&family, table) in &ruleset.tables {
        let mut lowering = Lowering {
            family,
            table,
            keep,
            marks: &marks,
            tables: &mut tables,
        };
        lowering.table(&mut bases)?;
    }
    if !tables.bridge.chains.is_empty() {
        bases
            .entry(Hook::Forward)
            .or_default()
            .push(ports::clear(keep));
    }
    for (hook, rules) in bases {
        let base = Some(Base {
            hook,
            priority: PRIORITY,
        });
        let chain = Chain { base, rules };
        tables.inet.chains.insert(base_name(hook), chain);
    }
    if !tables.bridge.chains.is_empty() {
        let elements = marks
            .iter()
            .map(|(port, mark)| (Element::Device(port.to_string()), Data::Mark(*mark)));
        let set = Set {
            kind: Kind::DeviceMark,
            elements: elements.collect(),
        };
        tables.bridge.sets.insert(ports::MAP.to_owned(), set);
    }
    Ok(tables)
}

/// nft takes these characters of a device's name for a pattern.
fn is_pattern(name: &IfName) -> bool {
    name.as_str().contains(['*', '\\'])
}

fn base_name(hook: Hook) -> String {
    hook.chain().to_lowercase()
}

/// Name of a chain of the IR. Both families live in one table.
pub(super) fn chain_name(name: &ChainName, family: Family) -> String {
    match family {
        Family::V4 => format!("{name}-4"),
        Family::V6 => format!("{name}-6"),
    }
}

/// One family on its way into the tables.
pub(super) struct Lowering<'a, 't> {
    pub(super) family: Family,
    table: &'a Table,
    /// Bits of a mark that say which port; the rules use the others.
    pub(super) keep: u32,
    pub(super) marks: &'t BTreeMap<&'a IfName, u32>,
    tables: &'t mut Tables,
}

impl<'a> Lowering<'a, '_> {
    fn table(&mut self, bases: &mut BTreeMap<Hook, Vec<Rule>>) -> Result<(), Invalid> {
        let table = self.table;
        let mut open: Vec<&'a ChainName> = Vec::new();
        for jump in &table.hooks {
            let at = |what| invalid(self.family, jump.hook.chain(), what);
            if table.chains.get(&jump.to).map(|chain| chain.table) != Some(TableName::Filter) {
                return Err(at("only table filter has an equal here".to_owned()));
            }
            let mut matches = vec![Match::Family(self.family)];
            for m in &jump.matches {
                matches.push(self.matching(m).map_err(at)?);
            }
            let go = Verdict::Go(Go {
                back: true,
                chain: chain_name(&jump.to, self.family),
            });
            bases
                .entry(jump.hook)
                .or_default()
                .push(Rule::new(matches, go));
            open.push(&jump.to);
        }
        let mut seen: BTreeSet<&ChainName> = open.iter().copied().collect();
        while let Some(name) = open.pop() {
            let targets = self
                .lower_chain(name)
                .map_err(|what| invalid(self.family, &format!("chain {name}"), what))?;
            open.extend(targets.into_iter().filter(|name| seen.insert(name)));
        }
        self.used_sets();
        Ok(())
    }

    /// Writes one chain; returns the chains of the IR that it leads to.
    fn lower_chain(&mut self, name: &ChainName) -> Result<Vec<&'a ChainName>, String> {
        let table = self.table;
        let chain = &table.chains[name];
        if chain.table != TableName::Filter {
            return Err("only table filter has an equal here".to_owned());
        }
        if let Some((end, ways)) = dispatch::ways(table, name) {
            let map = chain_name(name, self.family);
            let targets = ways.values().copied().collect();
            let elements = ways.iter().map(|(address, to)| {
                let chain = chain_name(to, self.family);
                let go = Data::Go(Go { back: false, chain });
                (Element::Addr(*address), go)
            });
            let set = Set {
                kind: Kind::AddrVerdict(self.family),
                elements: elements.collect(),
            };
            self.set(&map, set);
            let key = Key::Addr(end, self.family);
            self.chain(name, vec![Rule::new([], Verdict::Map { key, map })]);
            return Ok(targets);
        }
        if let Some(ways) = ports::ways(chain) {
            return Ok(ports::lower(self, name, &ways));
        }
        for rule in &chain.rules {
            if let PlainVerdict::Jump(to) | PlainVerdict::Goto(to) = &rule.verdict
                && ports::ways(&table.chains[to]).is_some()
            {
                self.bridge(rule)?;
            }
        }
        let mut rules = Vec::new();
        let mut packed: BTreeMap<&str, usize> = BTreeMap::new();
        for part in pack::pack(&chain.rules) {
            rules.push(self.part(name, &mut packed, part)?);
        }
        self.chain(name, rules);
        Ok(chain.targets().into_iter().collect())
    }

    /// A rule, or a lookup that stands for several.
    /// The name of a set says its kind, so that a set of one name never becomes one of another kind.
    fn part(
        &mut self,
        name: &ChainName,
        packed_before: &mut BTreeMap<&str, usize>,
        part: pack::Part<'_>,
    ) -> Result<Rule, String> {
        let pack::Part { rule, packed } = part;
        let mut matches = Vec::new();
        for m in &rule.matches {
            matches.push(self.matching(m)?);
        }
        if let Some(packed) = packed {
            let letters = match packed.lookup {
                pack::Lookup::Net(End::Source) => "ns",
                pack::Lookup::Net(End::Destination) => "nd",
                pack::Lookup::Ports => "p",
                pack::Lookup::NetPorts(End::Source) => "nps",
                pack::Lookup::NetPorts(End::Destination) => "npd",
            };
            let number = packed_before.entry(letters).or_default();
            let set = format!("{}-{letters}{number}", chain_name(name, self.family));
            *number += 1;
            let family = self.family;
            let (m, kind) = match packed.lookup {
                pack::Lookup::Net(end) => (
                    Match::Addr {
                        end,
                        family,
                        set: set.clone(),
                        negate: false,
                    },
                    Kind::Range(family),
                ),
                pack::Lookup::Ports => (Match::Ports { set: set.clone() }, Kind::Ports),
                pack::Lookup::NetPorts(end) => (
                    Match::AddrPort {
                        end,
                        family,
                        set: set.clone(),
                    },
                    Kind::RangePort(family),
                ),
            };
            matches.push(m);
            self.set(&set, Set::new(kind, packed.elements));
        }
        Ok(Rule {
            matches,
            verdict: self.verdict(&rule.verdict)?,
            comment: rule.comment.clone(),
        })
    }

    fn verdict(&self, verdict: &PlainVerdict) -> Result<Verdict, String> {
        let go = |to, back| {
            let chain = chain_name(to, self.family);
            Verdict::Go(Go { back, chain })
        };
        Ok(match verdict {
            PlainVerdict::Drop => Verdict::Drop,
            PlainVerdict::Return => Verdict::Return,
            PlainVerdict::Jump(to) => go(to, true),
            PlainVerdict::Goto(to) => go(to, false),
            PlainVerdict::SetMark { value, mask } => Verdict::SetMark {
                value: *value,
                mask: *mask,
            },
            PlainVerdict::Nflog { group, prefix } => Verdict::Nflog {
                group: *group,
                prefix: prefix.clone(),
            },
            PlainVerdict::Accept => {
                return Err("accepting ends a table of iptables, but not one of ours".to_owned());
            }
            PlainVerdict::Masquerade { .. } | PlainVerdict::NoTrack => {
                return Err("only table filter has an equal here".to_owned());
            }
        })
    }

    fn matching(&self, m: &Plain) -> Result<Match, String> {
        let family = self.family;
        let addr = |end, set: &SetName, negate| Match::Addr {
            end,
            family,
            set: set.to_string(),
            negate,
        };
        let addr_port = |end, set: &SetName| Match::AddrPort {
            end,
            family,
            set: set.to_string(),
        };
        Ok(match m {
            Plain::SrcSet { set, negate } => addr(End::Source, set, *negate),
            Plain::DstSet { set, negate } => addr(End::Destination, set, *negate),
            Plain::SrcPortSet { set } => addr_port(End::Source, set),
            Plain::DstPortSet { set } => addr_port(End::Destination, set),
            Plain::PhysIn { .. } | Plain::PhysOut { .. } => {
                return Err("ports of a bridge are not visible beside other conditions".to_owned());
            }
            Plain::InIface { iface, .. } | Plain::OutIface { iface, .. } => {
                let (IfPattern::Exact(name) | IfPattern::Prefix(name)) = iface;
                if is_pattern(name) {
                    return Err(format!("device {name} would be read as a pattern"));
                }
                Match::Plain(m.clone())
            }
            Plain::Src { .. }
            | Plain::Dst { .. }
            | Plain::Protocol(_)
            | Plain::DstPorts { .. }
            | Plain::IcmpType(_)
            | Plain::Icmp6Type(_)
            | Plain::CtState(_)
            | Plain::CtMark { .. }
            | Plain::Mark { .. }
            | Plain::PktType(_)
            | Plain::SrcLocal { .. }
            | Plain::DstLocal { .. }
            | Plain::Limit { .. } => Match::Plain(m.clone()),
        })
    }

    /// Adds the rule of the bridge family that goes with a jump by port.
    fn bridge(&mut self, rule: &crate::Rule) -> Result<(), String> {
        let rule = ports::bridge_rule(self, rule)?;
        let chain = self.tables.bridge.chains.entry(FORWARD.to_owned());
        let chain = chain.or_insert_with(|| Chain {
            base: Some(Base {
                hook: Hook::Forward,
                priority: BRIDGE_PRIORITY,
            }),
            rules: Vec::new(),
        });
        if !chain.rules.contains(&rule) {
            chain.rules.push(rule);
        }
        Ok(())
    }

    pub(super) fn copy_to_bridge(&mut self, name: &SetName) {
        let set = self
            .table
            .sets
            .get(name)
            .map(|set| converted(set, self.family));
        if let Some(set) = set {
            self.tables.bridge.sets.insert(name.to_string(), set);
        }
    }

    pub(super) fn chain(&mut self, name: &ChainName, rules: Vec<Rule>) {
        let chain = Chain { base: None, rules };
        let name = chain_name(name, self.family);
        self.tables.inet.chains.insert(name, chain);
    }

    pub(super) fn set(&mut self, name: &str, set: Set) {
        self.tables.inet.sets.insert(name.to_owned(), set);
    }

    /// Sets of the IR; those that no rule looks up are left out.
    fn used_sets(&mut self) {
        let Objects { sets, chains } = &mut self.tables.inet;
        let used: BTreeSet<&str> = chains
            .values()
            .flat_map(|chain| &chain.rules)
            .flat_map(Rule::lookups)
            .collect();
        for (name, set) in &self.table.sets {
            if used.contains(name.as_str()) {
                sets.insert(name.to_string(), converted(set, self.family));
            }
        }
    }
}

fn converted(set: &crate::Set, family: Family) -> Set {
    use crate::Element as Plain;
    let elements = set.elements.iter();
    match set.kind {
        SetKind::Addr => Set::new(
            Kind::Addr(family),
            elements.map(|element| Element::Addr(element.net().addr())),
        ),
        SetKind::Net => {
            let nets = elements.map(crate::Element::net);
            Set::new(Kind::Range(family), pack::ranges(nets))
        }
        SetKind::AddrPort => Set::new(
            Kind::AddrPort(family),
            elements.filter_map(|element| match *element {
                Plain::AddrPort(address, protocol, port) => {
                    Some(Element::AddrPort(address, protocol, port))
                }
                Plain::Addr(_) | Plain::Net(_) | Plain::NetPort(..) => None,
            }),
        ),
        SetKind::NetPort => {
            let entries = elements.filter_map(|element| match *element {
                Plain::NetPort(net, protocol, port) => {
                    Some((net, protocol, crate::PortRange::one(port)))
                }
                Plain::Addr(_) | Plain::Net(_) | Plain::AddrPort(..) => None,
            });
            Set::new(Kind::RangePort(family), pack::net_ports(entries))
        }
    }
}

fn invalid(family: Family, place: &str, what: String) -> Invalid {
    Invalid {
        family,
        place: place.to_owned(),
        what,
    }
}
