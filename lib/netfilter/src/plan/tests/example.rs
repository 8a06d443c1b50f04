//! What plans look like, where it matters.

use super::*;

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
