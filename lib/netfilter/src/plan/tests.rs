//! Laws of the planner, on a small policy model and the fake kernel.

mod example;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use proptest::prelude::*;

use super::*;
use crate::{
    Chain, ChainName, CtState, Element, Family, Hook, HookJump, IfPattern, Match, PortRange,
    Position, Protocol, Rule, Ruleset, Set, SetKind, SetName, SetRole, Table, TableName, Verdict,
    fake::FakeKernel,
    trace::{Names, Packet, Way, trace},
};

fn owner() -> Owner {
    Owner::new(&["WEFT-NPC"], "weft-npc-", &[TableName::Filter])
}

fn chain(name: &str) -> ChainName {
    ChainName::new(name).expect("name")
}

fn set(name: &str) -> SetName {
    SetName::new(name).expect("name")
}

/// Addresses 1-4 are pods of the node, 5-7 others.
fn pod(n: u8) -> IpAddr {
    format!("10.32.{}.{n}", u8::from(n > 4))
        .parse()
        .expect("address")
}

#[derive(Debug, Clone, Default)]
struct Policy {
    ingress: bool,
    subjects: BTreeSet<u8>,
    peers: BTreeSet<u8>,
    port: Option<u16>,
    own_chain: bool,
}

#[derive(Debug, Clone, Default)]
struct Model {
    known: BTreeSet<u8>,
    policies: BTreeMap<u8, Policy>,
    tree: bool,
}

fn addresses<'a>(of: impl IntoIterator<Item = &'a u8>) -> impl Iterator<Item = Element> {
    of.into_iter()
        .map(|n| Element::Addr(pod(*n)))
        .collect::<Vec<_>>()
        .into_iter()
}

fn compile(model: &Model) -> Ruleset {
    let mut table = Table::default();
    let with = |role, elements| Set::with_role(SetKind::Addr, role).containing(elements);
    let known: Vec<Element> = addresses(&model.known).collect();
    table
        .sets
        .insert(set("weft-npc-known"), with(SetRole::Gate, known));
    let blocks = "10.32.0.0/24".parse().expect("net");
    let gate = |m: Match, n: Match| Rule::new([m, n], Verdict::Drop);
    let mut main = vec![
        Rule::new([Match::ct([CtState::Established])], Verdict::Return),
        gate(
            Match::src(blocks),
            Match::not_src_set(set("weft-npc-known")),
        ),
        gate(
            Match::dst(blocks),
            Match::not_dst_set(set("weft-npc-known")),
        ),
    ];
    for ingress in [false, true] {
        let (name, side) = if ingress { ("I", "in") } else { ("E", "out") };
        let isolated = set(&format!("weft-npc-{side}"));
        let direction = chain(&format!("WEFT-NPC-{name}"));
        let policies = || {
            model
                .policies
                .iter()
                .filter(move |(_, policy)| policy.ingress == ingress)
        };
        let subjects: BTreeSet<u8> = policies()
            .flat_map(|(_, policy)| policy.subjects.intersection(&model.known).copied())
            .collect();
        table.sets.insert(
            isolated.clone(),
            with(SetRole::Isolate, addresses(&subjects).collect()),
        );
        let mut rules = Vec::new();
        for (id, policy) in policies() {
            let subject = set(&format!("weft-npc-s{id}"));
            let peer = set(&format!("weft-npc-p{id}"));
            let local = policy.subjects.intersection(&model.known);
            table.sets.insert(
                subject.clone(),
                with(SetRole::Allow, addresses(local).collect()),
            );
            table.sets.insert(
                peer.clone(),
                with(SetRole::Allow, addresses(&policy.peers).collect()),
            );
            let mut matches = match ingress {
                true => vec![Match::dst_set(subject), Match::src_set(peer)],
                false => vec![Match::src_set(subject), Match::dst_set(peer)],
            };
            matches.extend(policy.port.map(|port| Match::DstPorts {
                protocol: Protocol::TCP,
                ports: PortRange::one(port),
            }));
            if policy.own_chain {
                let own = chain(&format!("WEFT-NPC-P{id}"));
                rules.push(Rule::new(matches, Verdict::Goto(own.clone())));
                table
                    .chains
                    .insert(own, Chain::filter(vec![Rule::new([], Verdict::Return)]));
            } else {
                rules.push(Rule::new(matches, Verdict::Return).comment(&format!("policy {id}")));
            }
        }
        // A chain that changes with every pod, as a dispatch tree does.
        for n in subjects.iter().filter(|_| model.tree) {
            rules.insert(
                0,
                Rule::new(
                    [match ingress {
                        true => Match::dst(pod(*n).into()),
                        false => Match::src(pod(*n).into()),
                    }],
                    Verdict::SetMark { value: 4, mask: 4 },
                ),
            );
        }
        rules.push(Rule::new([], Verdict::Drop));
        table.chains.insert(direction.clone(), Chain::filter(rules));
        let lookup = match ingress {
            true => Match::dst_set(isolated),
            false => Match::src_set(isolated),
        };
        main.push(Rule::new([lookup], Verdict::Jump(direction)));
    }
    table.chains.insert(chain("WEFT-NPC"), Chain::filter(main));
    table.hooks = vec![HookJump {
        hook: Hook::Forward,
        to: chain("WEFT-NPC"),
        matches: vec![Match::out_iface(IfPattern::exact("weave").expect("name"))],
        position: Position::Top,
    }];
    Ruleset {
        tables: [(Family::V4, table)].into(),
    }
}

/// Verdicts for every pair of addresses and two ports.
fn verdicts(ruleset: &Ruleset) -> Vec<bool> {
    let mut verdicts = Vec::new();
    let passes = Way::PodToPod {
        from: "a".to_owned(),
        to: "b".to_owned(),
    }
    .passes(&Names::default());
    for from in 1..=7 {
        for to in 1..=7 {
            for port in [80, 81] {
                let packet = Packet::tcp(pod(from), pod(to), port);
                let outcome = trace(ruleset, &packet, &passes).expect("traced");
                verdicts.push(!outcome.dropped);
            }
        }
    }
    verdicts
}

/// The ruleset as it reads back: canonical, without roles and hooks.
fn as_read(ruleset: &Ruleset) -> Ruleset {
    let mut ruleset = ruleset.clone();
    for family in Family::ALL {
        let table = ruleset.tables.entry(family).or_default();
        table.hooks.clear();
        for set in table.sets.values_mut() {
            set.role = SetRole::Mixed;
        }
        for chain in table.chains.values_mut() {
            for rule in &mut chain.rules {
                *rule = rule.canonical();
            }
        }
    }
    ruleset
}

fn model() -> impl Strategy<Value = Model> {
    let some = |of: std::ops::RangeInclusive<u8>| prop::collection::btree_set(of, 0..5);
    let policy = (
        any::<bool>(),
        some(1..=4),
        some(1..=7),
        prop::option::of(80_u16..82),
        any::<bool>(),
    )
        .prop_map(|(ingress, subjects, peers, port, own_chain)| Policy {
            ingress,
            subjects,
            peers,
            port,
            own_chain,
        });
    (
        prop::collection::btree_set(1_u8..=4, 0..5),
        prop::collection::btree_map(0_u8..4, policy, 0..4),
        any::<bool>(),
    )
        .prop_map(|(known, policies, tree)| Model {
            known,
            policies,
            tree,
        })
}

/// A model and a few later ones: each either new or the former with small changes, as clusters do.
fn history() -> impl Strategy<Value = Vec<Model>> {
    let change = (0_u8..6, 1_u8..=7, 0_u8..4);
    (
        model(),
        prop::collection::vec(
            prop_oneof![
                3 => prop::collection::vec(change, 1..3).prop_map(Err),
                1 => model().prop_map(Ok),
            ],
            1..5,
        ),
    )
        .prop_map(|(first, rest)| {
            let mut models = vec![first];
            for next in rest {
                let mut model = models[models.len() - 1].clone();
                match next {
                    Ok(other) => model = other,
                    Err(changes) => {
                        for (what, n, id) in changes {
                            edit(&mut model, what, n, id);
                        }
                    }
                }
                models.push(model);
            }
            models
        })
}

fn edit(model: &mut Model, what: u8, n: u8, id: u8) {
    let toggle = |set: &mut BTreeSet<u8>, n: u8| {
        if !set.remove(&n) {
            set.insert(n);
        }
    };
    match what {
        0 => toggle(&mut model.known, (n - 1) % 4 + 1),
        1 | 2 => {
            let policy = model.policies.entry(id).or_default();
            toggle(&mut policy.peers, n);
        }
        3 => {
            let policy = model.policies.entry(id).or_default();
            toggle(&mut policy.subjects, (n - 1) % 4 + 1);
        }
        4 => {
            model.policies.remove(&id);
        }
        _ => {
            // A pod comes, into everything at once.
            model.known.insert((n - 1) % 4 + 1);
            for policy in model.policies.values_mut() {
                policy.peers.insert((n - 1) % 4 + 1);
                policy.subjects.insert((n - 1) % 4 + 1);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// I2 and I3.
    #[test]
    fn a_plan_leads_there_and_no_moment_passes_or_drops_what_both_ends_do_not(
        models in history()
    ) {
        let mut kernel = FakeKernel::default();
        let mut applied = Observed::read(&owner(), &kernel.saved(&owner()));
        let mut before: Option<Vec<bool>> = None;
        for model in &models {
            let desired = compile(model);
            let plan = diff(&applied, &desired).expect("a sound ruleset");
            let now = verdicts(&desired);
            let old = before.clone();
            let mut wrong = Vec::new();
            kernel.run(&plan, &mut |kernel| {
                let Some(old) = &old else { return };
                for (index, seen) in verdicts(&kernel.ruleset()).into_iter().enumerate() {
                    if old[index] == now[index] && seen != now[index] {
                        wrong.push((index, seen));
                    }
                }
            }).expect("applied");
            prop_assert!(wrong.is_empty(), "{wrong:?} in\n{plan}");
            let read = Observed::read(&owner(), &kernel.saved(&owner()));
            prop_assert_eq!(&read.ruleset, &as_read(&desired));
            prop_assert_eq!(&read.twins, &plan.after.twins);
            prop_assert_eq!(&read.stale, &plan.after.stale);
            // The same from what was read as from what was remembered: nothing to do.
            prop_assert!(diff(&read, &desired).expect("sound").is_empty());
            prop_assert!(diff(&plan.after, &desired).expect("sound").is_empty());
            applied = plan.after;
            before = Some(now);
        }
    }

    /// After a failure at any moment, reading back and planning again leads there.
    #[test]
    fn after_a_failure_a_plan_from_what_is_there_leads_there(
        models in history(), at in 0_usize..40
    ) {
        let mut kernel = FakeKernel::default();
        for (index, model) in models.iter().enumerate() {
            let desired = compile(model);
            let applied = Observed::read(&owner(), &kernel.saved(&owner()));
            let plan = diff(&applied, &desired).expect("sound");
            if index == models.len() - 1 {
                kernel.fail_after(at);
            }
            if kernel.run(&plan, &mut |_| {}).is_ok() {
                continue;
            }
            let read = Observed::read(&owner(), &kernel.saved(&owner()));
            let plan = diff(&read, &desired).expect("sound");
            kernel.run(&plan, &mut |_| {}).expect("applied");
            let read = Observed::read(&owner(), &kernel.saved(&owner()));
            prop_assert_eq!(&read.ruleset, &as_read(&desired));
            prop_assert!(diff(&read, &desired).expect("sound").is_empty());
        }
    }
}
