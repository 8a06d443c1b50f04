//! From the rules of one moment of a case to those of the next: what happens in between.

use std::collections::BTreeSet;
use std::net::IpAddr;

use weft_netfilter::backend::{Backend as _, Nftables};
use weft_netfilter::fake::{FakeKernel, FakeNft};
use weft_netfilter::nft::Owned;
use weft_netfilter::plan::{Observed, Owner, diff};
use weft_netfilter::{Family, Ruleset, TableName};
use weft_policy::{Endpoint, EndpointId, Index, ObjectKey, Packet, PolicyModel, cases};
use weft_testkit::builders::{make_network_policy, make_pod};

use super::judge::node;
use super::way::traced;
use crate::{NodeView, compile};

/// The rules of one state of a case, and the packets that are sent then.
struct Moment {
    model: PolicyModel,
    ruleset: Ruleset,
    packets: Vec<Packet>,
}

/// A case as written, on a node of IPv4.
fn moments(case: &cases::Case) -> Vec<Moment> {
    let view = NodeView {
        families: BTreeSet::from([Family::V4]),
        ..node()
    };
    let mut moments: Vec<Moment> = Vec::new();
    case.play(|index, _, expectation| {
        if expectation.packet.source.is_ipv6() {
            return;
        }
        let model = index.model();
        if moments.last().is_none_or(|last| last.model != model) {
            moments.push(Moment {
                ruleset: compile(&model, &view),
                model,
                packets: Vec::new(),
            });
        }
        let last = moments.last_mut().expect("a moment");
        last.packets.push(expectation.packet.clone());
    });
    moments
}

fn owner() -> Owner {
    Owner::new(&["WEFT-NPC"], "weft-npc-", &[TableName::Filter])
}

/// Case 57, and I3: at every step of every change of the table, what the rules before and after
/// both let pass passes, and what both drop is dropped.
#[test]
fn no_step_between_two_moments_passes_or_drops_what_both_do_not() {
    let (mut changes, mut steps, mut wrong) = (0, 0, Vec::new());
    for case in cases::all() {
        let mut kernel = FakeKernel::default();
        let mut before: Option<Moment> = None;
        for now in moments(&case) {
            let observed = Observed::read(&owner(), &kernel.saved(&owner()));
            let plan = diff(&observed, &now.ruleset).expect("sound");
            // What both speak of, by the same way.
            let judged: Vec<(&Packet, bool)> = before
                .iter()
                .flat_map(|old| {
                    old.packets
                        .iter()
                        .chain(&now.packets)
                        .map(move |p| (old, p))
                })
                .filter_map(|(old, packet)| {
                    let was = traced(&old.ruleset, &old.model, packet).dropped;
                    let is = traced(&now.ruleset, &now.model, packet).dropped;
                    (was == is).then_some((packet, is))
                })
                .collect();
            changes += usize::from(!judged.is_empty() && !plan.is_empty());
            kernel
                .run(&plan, &mut |kernel| {
                    if judged.is_empty() {
                        return;
                    }
                    steps += 1;
                    let ruleset = kernel.ruleset();
                    for (packet, dropped) in &judged {
                        let outcome = traced(&ruleset, &now.model, packet);
                        if outcome.dropped != *dropped {
                            wrong.push(format!("{}: {packet:?}\n{plan}", case.clause));
                        }
                    }
                })
                .expect("applied");
            let read = Observed::read(&owner(), &kernel.saved(&owner()));
            assert!(diff(&read, &now.ruleset).expect("sound").is_empty());
            before = Some(now);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    assert!(changes > 35, "only {changes} changes");
    assert!(steps > 100, "only {steps} steps");
}

/// The same in nftables, where each change is one transaction.
#[test]
fn every_change_of_the_table_is_one_transaction_that_leads_there() {
    let mut changes = 0;
    for case in cases::all() {
        let owned = Owned::new("weft", "weft-npc");
        let mut backend = Nftables::new(owned.clone(), FakeNft::default());
        for now in moments(&case) {
            let before = backend.tool_mut().taken.len();
            let done = ready(backend.sync(&now.ruleset)).expect(case.clause);
            let taken = backend.tool_mut().taken.len() - before;
            assert_eq!(taken, usize::from(done.changed()), "{}", case.clause);
            changes += taken;
            let mut fresh = Nftables::new(owned.clone(), FakeNft::default());
            ready(fresh.sync(&now.ruleset)).expect("synced");
            let (here, there) = (backend.tool_mut(), fresh.tool_mut());
            assert_eq!(here.tables, there.tables, "{}", case.clause);
        }
    }
    assert!(changes > 120, "only {changes} changes");
}

/// The fake's futures are ready at once.
fn ready<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("runtime")
        .block_on(future)
}

/// The gate is what keeps a new pod closed while everything else of it is written.
#[test]
fn a_pod_that_becomes_known_enters_the_gate_last_and_nothing_else_of_the_gate_is_written() {
    let address: IpAddr = "10.32.0.20".parse().expect("an address");
    let mut index = cases::Cluster::new().index();
    index.apply_network_policy(&make_network_policy("z", "p").build());
    let endpoint = Endpoint {
        pod: ObjectKey::new("z", "new"),
        uid: "uid-new".into(),
        addresses: BTreeSet::from([address]),
        host_ifname: "vethweplnew".to_owned(),
    };
    index.apply_endpoint(EndpointId::new("new", "eth0"), endpoint);
    let mut kernel = FakeKernel::default();
    let mut plan_of = |index: &Index| {
        let observed = Observed::read(&owner(), &kernel.saved(&owner()));
        let plan = diff(&observed, &compile(&index.model(), &node())).expect("sound");
        kernel.run(&plan, &mut |_| {}).expect("applied");
        plan.to_string()
    };
    plan_of(&index);
    let pod = make_pod("z", "new").uid("uid-new").node(cases::NODE);
    index.apply_pod(&pod.build());
    let plan = plan_of(&index);
    assert!(
        plan.ends_with("# ipset restore\nadd weft-npc-known-4 10.32.0.20\n"),
        "{plan}"
    );
    assert_eq!(plan.matches("weft-npc-known").count(), 1, "{plan}");
    assert!(plan.contains("-A WEFT-NPC-I-new"), "{plan}");
}

/// Cases 58 and 74: these change no byte of the rules, so no connection, no counter and no element.
#[test]
fn an_edit_that_keeps_the_meaning_and_a_start_change_no_rule() {
    for case in cases::all() {
        if matches!(case.number, 58 | 74) {
            let mut rulesets: Vec<(bool, Ruleset)> = Vec::new();
            let mut packets = 0;
            case.play(|index, _, expectation| {
                packets += 1;
                let ruleset = compile(&index.model(), &node());
                // A case with blocks is played once for each family.
                let played = expectation.mirrored && case.number == 74;
                if rulesets.last() != Some(&(played, ruleset.clone())) {
                    rulesets.push((played, ruleset));
                }
            });
            let plays = if case.number == 74 { 2 } else { 1 };
            assert_eq!(rulesets.len(), plays, "{}", case.clause);
            assert!(packets >= 10, "{packets}");
        }
    }
}
