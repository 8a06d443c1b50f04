//! The table of one family: the frame, and what its parts write into.

use weft_netfilter::{
    Chain, ChainName, CtState, Element, Family, Hook, HookJump, Match, Position, Rule, Set,
    SetKind, SetName, SetRole, Table, Verdict,
};
use weft_policy::{Direction, PolicyModel};

use crate::name::{Names, fixed_chain};
use crate::{NodeView, closed, pod};

/// A table in the making.
pub(crate) struct Builder<'a> {
    pub(crate) family: Family,
    pub(crate) model: &'a PolicyModel,
    pub(crate) node: &'a NodeView,
    pub(crate) names: Names,
    table: Table,
}

/// Neighbour and multicast listener discovery (RFC 4861, 2710, 3810): untracked, and IPv6 is
/// dead without them. [`weft_policy::Packet::is_neighbour_discovery`] is the same list.
const NEIGHBOUR_DISCOVERY: [u8; 9] = [130, 131, 132, 133, 134, 135, 136, 137, 143];

/// Of each deny chain: a flood of denied packets must not cost more than dropping them. Nobody
/// reads faster.
const LOGGED: Match = Match::Limit {
    per_second: 500,
    burst: 500,
};

impl<'a> Builder<'a> {
    pub(crate) fn new(family: Family, model: &'a PolicyModel, node: &'a NodeView) -> Self {
        Self {
            family,
            model,
            node,
            names: Names::default(),
            table: Table::default(),
        }
    }

    pub(crate) fn build(mut self) -> Table {
        let forward = fixed_chain("WEFT-NPC");
        let input = fixed_chain("WEFT-NPC-INPUT");
        let mark = self.node.mark;
        self.chain(
            &allow_chain(),
            vec![Rule::new(
                [],
                Verdict::SetMark {
                    value: mark,
                    mask: mark,
                },
            )],
        );
        self.chain(
            &pass_chain(),
            vec![Rule::new(
                [],
                Verdict::SetMark {
                    value: 0,
                    mask: mark,
                },
            )],
        );
        for direction in [Direction::Egress, Direction::Ingress] {
            self.deny_chain(&deny_chain(direction), &format!("weft-deny-{direction}"));
        }
        self.deny_chain(&cut_chain(), "weft-deny-cut");
        closed::sets(&mut self);
        pod::chains(&mut self);

        // What most packets match comes first, and asking for a connection's state is cheaper than
        // asking for names of devices. Frames of `datapath` are of no connection.
        let mut rules = self.passing_anyway();
        rules.push(
            Rule::new(
                [
                    Match::in_iface(self.node.datapath.clone()),
                    Match::out_iface(self.node.datapath.clone()),
                ],
                Verdict::Return,
            )
            .comment("judged on the bridge"),
        );
        rules.extend(closed::rules(&self, &[closed::SOURCE, closed::DESTINATION]));
        rules.push(Rule::new(
            [],
            Verdict::Jump(dispatch_chain(Direction::Egress)),
        ));
        rules.push(Rule::new(
            [],
            Verdict::Jump(dispatch_chain(Direction::Ingress)),
        ));
        rules.push(
            Rule::new(
                [
                    Match::in_iface(self.node.bridge.clone()),
                    Match::out_iface(self.node.bridge.clone()),
                    Match::not_dst_set(closed::known(self.family)),
                ],
                Verdict::Jump(group_chain()),
            )
            .comment("group frames: by receiver"),
        );
        self.chain(&forward, rules);

        let mut rules = self.passing_anyway();
        rules.extend(closed::rules(&self, &[closed::SOURCE]));
        rules.push(Rule::new(
            [],
            Verdict::Jump(dispatch_chain(Direction::Egress)),
        ));
        self.chain(&input, rules);

        let jump = |hook, to: &ChainName, matches| HookJump {
            hook,
            to: to.clone(),
            matches,
            position: Position::Top,
        };
        self.table.hooks = vec![
            jump(Hook::Forward, &forward, Vec::new()),
            jump(
                Hook::Input,
                &input,
                vec![Match::in_iface(self.node.bridge.clone())],
            ),
            // What the node says in a flow that a pod of its own must not have any more.
            jump(Hook::Output, &cut_chain(), vec![self.cut()]),
        ];
        self.table
    }

    /// What no policy judges (any more).
    fn passing_anyway(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        if self.family == Family::V6 {
            rules.extend(NEIGHBOUR_DISCOVERY.map(|kind| {
                Rule::new([Match::Icmp6Type(kind)], Verdict::Return).comment("neighbour discovery")
            }));
        }
        rules.push(
            Rule::new([self.cut()], Verdict::Goto(cut_chain())).comment("allowed before, not now"),
        );
        rules.push(established());
        rules
    }

    /// Packets of flows that policies forbid now, in both directions.
    fn cut(&self) -> Match {
        let bit = self.node.cut;
        Match::CtMark {
            value: bit,
            mask: bit,
        }
    }

    /// Adds a chain, or replaces it.
    pub(crate) fn chain(&mut self, name: &ChainName, rules: Vec<Rule>) {
        self.table.chains.insert(name.clone(), Chain::filter(rules));
    }

    /// A chain that logs (if anybody reads it) and drops.
    pub(crate) fn deny_chain(&mut self, name: &ChainName, prefix: &str) {
        let log = self.node.log_group.map(|group| {
            let nflog = Verdict::Nflog {
                group,
                prefix: prefix.to_owned(),
            };
            Rule::new([LOGGED], nflog)
        });
        let rules = log.into_iter().chain([Rule::new([], Verdict::Drop)]);
        self.chain(name, rules.collect());
    }

    /// Adds a set, unless a set of this name (so with these elements) is there.
    pub(crate) fn set(
        &mut self,
        name: &SetName,
        kind: SetKind,
        role: SetRole,
        elements: impl IntoIterator<Item = Element>,
    ) {
        let family = self.family;
        self.table.sets.entry(name.clone()).or_insert_with(|| {
            let own = elements
                .into_iter()
                .filter(|element| element.family() == family);
            Set {
                elements: own.collect(),
                ..Set::with_role(kind, role)
            }
        });
    }
}

/// Flows that were allowed.
fn established() -> Rule {
    Rule::new(
        [Match::ct([CtState::Established, CtState::Related])],
        Verdict::Return,
    )
    .comment("allowed before")
}

/// Sets the mark.
pub(crate) fn allow_chain() -> ChainName {
    fixed_chain("WEFT-NPC-ALLOW")
}

/// Clears the mark; its end is the end of a pod's chain.
pub(crate) fn pass_chain() -> ChainName {
    fixed_chain("WEFT-NPC-PASS")
}

/// Logs and drops what belongs to a flow that was cut.
fn cut_chain() -> ChainName {
    fixed_chain("WEFT-NPC-CUT")
}

/// By address to the pod's chain.
pub(crate) fn dispatch_chain(direction: Direction) -> ChainName {
    fixed_chain(match direction {
        Direction::Ingress => "WEFT-NPC-INGRESS",
        Direction::Egress => "WEFT-NPC-EGRESS",
    })
}

/// By port of departure to the pod's chain for ingress.
pub(crate) fn group_chain() -> ChainName {
    fixed_chain("WEFT-NPC-GROUP")
}

/// Logs and drops.
pub(crate) fn deny_chain(direction: Direction) -> ChainName {
    fixed_chain(match direction {
        Direction::Ingress => "WEFT-NPC-DENY-I",
        Direction::Egress => "WEFT-NPC-DENY-E",
    })
}
