//! A chain per pod and direction in which it is isolated.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use weft_netfilter::{ChainName, CtState, Family, IfPattern, Match, Rule, Verdict};
use weft_policy::{Direction, ObjectKey, Subject, SubjectKey};

use crate::table::{Builder, deny_chain, group_chain, pass_chain};
use crate::{allowed, dispatch, policy};

/// Chains of pods and of the policies they jump to, and the ways to them.
pub(crate) fn chains(builder: &mut Builder<'_>) {
    for direction in [Direction::Egress, Direction::Ingress] {
        let policies = policy::chains(builder, direction);
        // Sorted by address, as the tree wants them.
        let mut targets: BTreeMap<IpAddr, ChainName> = BTreeMap::new();
        let mut receivers = vec![
            Rule::new(
                [Match::phys_out(builder.node.bridge_port.clone())],
                Verdict::Return,
            )
            .comment("judged at the receiver's node"),
        ];
        let model = builder.model;
        for (key, subject) in &model.subjects {
            if !subject.standing.is_closed(direction) {
                // Copies of group frames that it receives are not connections of its own.
                if allowed::is_logged(builder.node, key) {
                    let chain = logging_chain(builder, key, subject, direction);
                    for address in own(builder.family, subject) {
                        targets.insert(address, chain.clone());
                    }
                }
                continue;
            }
            let chain = pod_chain(builder, key, subject, direction, &policies);
            for address in own(builder.family, subject) {
                targets.insert(address, chain.clone());
            }
            // A port whose name is none cannot exist, so nothing leaves by it.
            for port in subject
                .ports
                .iter()
                .filter_map(|port| IfPattern::exact(port).ok())
            {
                receivers.push(Rule::new(
                    [Match::phys_out(port)],
                    Verdict::Goto(chain.clone()),
                ));
            }
        }
        let targets: Vec<_> = targets.into_iter().collect();
        dispatch::tree(builder, direction, &targets);
        if direction == Direction::Ingress {
            builder.chain(&group_chain(), receivers);
        }
    }
}

fn own(family: Family, subject: &Subject) -> impl Iterator<Item = IpAddr> {
    subject
        .addresses
        .iter()
        .copied()
        .filter(move |address| Family::of(address) == family)
}

fn pod_chain(
    builder: &mut Builder<'_>,
    key: &SubjectKey,
    subject: &Subject,
    direction: Direction,
    policies: &BTreeMap<&ObjectKey, ChainName>,
) -> ChainName {
    let mark = builder.node.mark;
    let chain = name(builder, key, direction);
    let deny = Verdict::Goto(deny_chain(direction));
    let what = format!("{} {direction}", key.pod);
    let Some(isolated_by) = subject.standing.isolated_by(direction) else {
        let closed = Rule::new([], deny).comment(&format!("{what}: Pod not seen yet"));
        builder.chain(&chain, vec![closed]);
        return chain;
    };
    let log = allowed::is_logged(builder.node, key).then(|| allowed::log_chain(builder, direction));
    let mut rules = itself(builder.family, subject, direction, &what);
    rules.push(Rule::new([Match::ct([CtState::Invalid])], deny.clone()));
    let jumps: Vec<_> = isolated_by
        .iter()
        .filter_map(|key| Some((key, policies.get(key)?)))
        .collect();
    if !jumps.is_empty() {
        rules.push(Rule::new(
            [],
            Verdict::SetMark {
                value: 0,
                mask: mark,
            },
        ));
    }
    for (policy, to) in jumps {
        rules.push(Rule::new([], Verdict::Jump(to.clone())).comment(&policy.to_string()));
        let allowed = Match::Mark {
            value: mark,
            mask: mark,
        };
        if let Some(log) = &log {
            rules.push(Rule::new([allowed.clone()], Verdict::Jump(log.clone())));
        }
        rules.push(Rule::new([allowed], Verdict::Goto(pass_chain())));
    }
    rules.push(Rule::new([], deny).comment(&what));
    builder.chain(&chain, rules);
    chain
}

/// Of a pod that is not isolated: everything is allowed.
fn logging_chain(
    builder: &mut Builder<'_>,
    key: &SubjectKey,
    subject: &Subject,
    direction: Direction,
) -> ChainName {
    let chain = name(builder, key, direction);
    let what = format!("{} {direction}", key.pod);
    let mut rules = itself(builder.family, subject, direction, &what);
    let log = allowed::log_chain(builder, direction);
    rules.push(Rule::new([], Verdict::Goto(log)).comment(&what));
    builder.chain(&chain, rules);
    chain
}

/// A pod always reaches itself.
fn itself(family: Family, subject: &Subject, direction: Direction, what: &str) -> Vec<Rule> {
    own(family, subject)
        .map(|address| {
            let other_end = match direction {
                Direction::Ingress => Match::src(IpNet::from(address)),
                Direction::Egress => Match::dst(IpNet::from(address)),
            };
            Rule::new([other_end], Verdict::Return).comment(&format!("{what}: itself"))
        })
        .collect()
}

fn name(builder: &mut Builder<'_>, key: &SubjectKey, direction: Direction) -> ChainName {
    builder.names.chain(
        kind(direction),
        &key.pod.name,
        &format!("{direction} {key}"),
    )
}

fn kind(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "I",
        Direction::Egress => "E",
    }
}
