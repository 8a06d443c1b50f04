//! Laws of the planner, on a small policy model and the fake kernel.

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

fn one_policy() -> Model {
    Model {
        known: [1, 2].into(),
        policies: [(
            0,
            Policy {
                ingress: true,
                subjects: [1].into(),
                peers: [2].into(),
                ..Policy::default()
            },
        )]
        .into(),
        tree: false,
    }
}

fn apply(kernel: &mut FakeKernel, desired: &Ruleset) -> Plan {
    let observed = Observed::read(&owner(), &kernel.saved(&owner()));
    let plan = diff(&observed, desired).expect("sound");
    kernel.run(&plan, &mut |_| {}).expect("applied");
    plan
}

#[test]
fn the_first_plan_prints_as_what_the_tools_get() {
    let plan = diff(&Observed::default(), &compile(&one_policy())).expect("sound");
    assert_eq!(
        plan.to_string(),
        "\
# ipset restore
create weft-npc-in hash:ip family inet hashsize 64 maxelem 1048576
add weft-npc-in 10.32.0.1
create weft-npc-known hash:ip family inet hashsize 64 maxelem 1048576
add weft-npc-known 10.32.0.1
add weft-npc-known 10.32.0.2
create weft-npc-out hash:ip family inet hashsize 64 maxelem 1048576
create weft-npc-p0 hash:ip family inet hashsize 64 maxelem 1048576
add weft-npc-p0 10.32.0.2
create weft-npc-s0 hash:ip family inet hashsize 64 maxelem 1048576
add weft-npc-s0 10.32.0.1
# ipv4 iptables-restore --noflush
*filter
:WEFT-NPC - [0:0]
:WEFT-NPC-E - [0:0]
:WEFT-NPC-I - [0:0]
-A WEFT-NPC -m conntrack --ctstate ESTABLISHED -j RETURN
-A WEFT-NPC -s 10.32.0.0/24 -m set ! --match-set weft-npc-known src -j DROP
-A WEFT-NPC -d 10.32.0.0/24 -m set ! --match-set weft-npc-known dst -j DROP
-A WEFT-NPC -m set --match-set weft-npc-out src -j WEFT-NPC-E
-A WEFT-NPC -m set --match-set weft-npc-in dst -j WEFT-NPC-I
-A WEFT-NPC-E -j DROP
-A WEFT-NPC-I -m set --match-set weft-npc-p0 src -m set --match-set weft-npc-s0 dst \
         -m comment --comment \"policy 0\" -j RETURN
-A WEFT-NPC-I -j DROP
-I FORWARD 1 -o weave -j WEFT-NPC
COMMIT
"
    );
}

#[test]
fn a_new_pod_needs_ipset_alone_and_enters_the_gate_last() {
    let mut kernel = FakeKernel::default();
    let mut model = one_policy();
    apply(&mut kernel, &compile(&model));
    edit(&mut model, 5, 3, 0);
    let plan = apply(&mut kernel, &compile(&model));
    assert_eq!(
        plan.to_string(),
        "\
# ipset restore
add weft-npc-in 10.32.0.3
add weft-npc-p0 10.32.0.3
add weft-npc-s0 10.32.0.3
add weft-npc-known 10.32.0.3
"
    );
}

#[test]
fn a_new_pod_with_rules_of_its_own_enters_the_gate_after_them() {
    let mut kernel = FakeKernel::default();
    let mut model = one_policy();
    model.tree = true;
    apply(&mut kernel, &compile(&model));
    edit(&mut model, 5, 3, 0);
    let plan = apply(&mut kernel, &compile(&model));
    let Step::Sets(last) = &plan.steps[2] else {
        panic!("{plan}");
    };
    assert_eq!(
        last,
        &[SetOp::Add(set("weft-npc-known"), Element::Addr(pod(3)))]
    );
    assert_eq!((plan.steps.len(), plan.after.twins.len()), (3, 0));
}

#[test]
fn elements_that_cannot_change_one_by_one_move_to_a_twin_with_their_rules() {
    let mut kernel = FakeKernel::default();
    let mut model = one_policy();
    apply(&mut kernel, &compile(&model));
    let policy = model.policies.entry(0).or_default();
    policy.subjects = [2].into();
    policy.peers = [1].into();
    let plan = apply(&mut kernel, &compile(&model));
    assert_eq!(
        plan.after.twins,
        [set("weft-npc-in"), set("weft-npc-p0"), set("weft-npc-s0")].into()
    );
    assert_eq!(
        kernel.sets().keys().collect::<Vec<_>>(),
        [
            "weft-npc-in.b",
            "weft-npc-known",
            "weft-npc-out",
            "weft-npc-p0.b",
            "weft-npc-s0.b"
        ]
    );
}

#[test]
fn a_change_in_one_chain_rewrites_that_chain_alone() {
    let mut kernel = FakeKernel::default();
    let mut model = one_policy();
    apply(&mut kernel, &compile(&model));
    model.policies.entry(0).or_default().port = Some(80);
    let plan = apply(&mut kernel, &compile(&model));
    let Some(Step::Rules(rules)) = plan.steps.first() else {
        panic!("{plan}");
    };
    assert_eq!(
        rules.tables[&TableName::Filter]
            .chains
            .keys()
            .collect::<Vec<_>>(),
        [&chain("WEFT-NPC-I")]
    );
    assert_eq!(plan.steps.len(), 1);
}

#[test]
fn similar_names_of_others_are_left_alone() {
    let mut kernel = FakeKernel::default();
    kernel
        .ipset_restore("create weft-npcx hash:ip family inet\n", &mut |_| {})
        .expect("set");
    *kernel.chain_mut(Family::V4, TableName::Filter, "WEFT-NPCX") =
        vec!["-m recent --set -j DROP".to_owned()];
    let forward = kernel.chain_mut(Family::V4, TableName::Filter, "FORWARD");
    forward.push("-j WEFT-NPCX".to_owned());
    apply(&mut kernel, &compile(&one_policy()));
    let plan = apply(&mut kernel, &Ruleset::default());
    assert!(!plan.is_empty());
    assert_eq!(kernel.sets().keys().collect::<Vec<_>>(), ["weft-npcx"]);
    assert_eq!(
        kernel.chain(Family::V4, TableName::Filter, "FORWARD"),
        Some(&["-j WEFT-NPCX".to_owned()][..])
    );
    assert_eq!(
        kernel.chain(Family::V4, TableName::Filter, "WEFT-NPC"),
        None
    );
    assert_eq!(
        kernel.chain(Family::V4, TableName::Filter, "WEFT-NPCX"),
        Some(&["-m recent --set -j DROP".to_owned()][..])
    );
}

#[test]
fn drift_of_every_kind_is_repaired() {
    let mut kernel = FakeKernel::default();
    let desired = compile(&one_policy());
    apply(&mut kernel, &desired);
    let whole = kernel.clone();
    let filter = |kernel: &mut FakeKernel, name: &str, change: &dyn Fn(&mut Vec<String>)| {
        change(kernel.chain_mut(Family::V4, TableName::Filter, name));
    };
    let drifts: [&dyn Fn(&mut FakeKernel); 8] = [
        &|k| filter(k, "FORWARD", &|rules| rules.clear()),
        &|k| filter(k, "FORWARD", &|rules| rules.push(rules[0].clone())),
        &|k| {
            filter(k, "FORWARD", &|rules| {
                rules.insert(0, "-j ACCEPT".to_owned())
            })
        },
        &|k| filter(k, "WEFT-NPC", &|rules| rules.clear()),
        &|k| {
            filter(k, "WEFT-NPC-I", &|rules| {
                rules.insert(0, "-m recent --set".to_owned())
            })
        },
        &|k| {
            filter(k, "WEFT-NPC-ALIEN", &|rules| {
                rules.push("-j DROP".to_owned())
            })
        },
        &|k| {
            let set = k.set_mut("weft-npc-in").expect("set");
            set.elements.clear();
        },
        &|k| {
            k.ipset_restore("create weft-npc-z hash:net family inet6\n", &mut |_| {})
                .expect("set");
        },
    ];
    for (index, drift) in drifts.iter().enumerate() {
        let mut kernel = whole.clone();
        drift(&mut kernel);
        assert!(!apply(&mut kernel, &desired).is_empty(), "drift {index}");
        // What the other one put into FORWARD stays, behind ours.
        filter(&mut kernel, "FORWARD", &|rules| {
            rules.retain(|rule| rule != "-j ACCEPT");
        });
        assert_eq!(kernel, whole, "drift {index}");
    }
}

#[test]
fn a_jump_behind_another_follows_it() {
    let router = Owner::new(&["WEFT-FORWARD"], "weft-r-", &[TableName::Filter]);
    let mut table = Table::default();
    table
        .chains
        .insert(chain("WEFT-FORWARD"), Chain::filter(vec![]));
    table.hooks = vec![HookJump {
        hook: Hook::Forward,
        to: chain("WEFT-FORWARD"),
        matches: vec![],
        position: Position::After(chain("WEFT-NPC")),
    }];
    let ruleset = Ruleset {
        tables: [(Family::V4, table)].into(),
    };
    let mut kernel = FakeKernel::default();
    let router_applies = |kernel: &mut FakeKernel| {
        let observed = Observed::read(&router, &kernel.saved(&router));
        let plan = diff(&observed, &ruleset).expect("sound");
        kernel.run(&plan, &mut |_| {}).expect("applied");
        kernel
            .chain(Family::V4, TableName::Filter, "FORWARD")
            .expect("chain")
            .to_vec()
    };
    kernel
        .chain_mut(Family::V4, TableName::Filter, "FORWARD")
        .push("-j DOCKER".to_owned());
    assert_eq!(
        router_applies(&mut kernel),
        ["-j WEFT-FORWARD", "-j DOCKER"]
    );
    apply(&mut kernel, &compile(&one_policy()));
    assert_eq!(
        router_applies(&mut kernel),
        ["-o weave -j WEFT-NPC", "-j WEFT-FORWARD", "-j DOCKER"]
    );
    kernel
        .chain_mut(Family::V4, TableName::Filter, "FORWARD")
        .swap(1, 2);
    assert_eq!(
        router_applies(&mut kernel),
        ["-o weave -j WEFT-NPC", "-j WEFT-FORWARD", "-j DOCKER"]
    );
}
