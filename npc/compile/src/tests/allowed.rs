//! Namespaces whose allowed connections are logged.

use std::collections::BTreeSet;
use std::sync::Arc;

use weft_netfilter::nft::lower;
use weft_netfilter::{Family, Verdict};
use weft_policy::{Judgement, Packet, PolicyModel, State, cases, evaluate};
use weft_testkit::builders::make_network_policy;

use super::judge::node;
use super::way::{traced, traced_by_nft};
use crate::{NodeView, compile};

/// A node of which these namespaces ask for the log.
fn logging(namespaces: impl IntoIterator<Item = Arc<str>>) -> NodeView {
    NodeView {
        log_allowed: namespaces.into_iter().collect(),
        ..node()
    }
}

/// What is copied of a packet where every namespace asks.
fn expected(model: &PolicyModel, node: &NodeView, packet: &Packet) -> Vec<String> {
    if node.closes(model, packet) {
        return vec!["weft-deny-closed".to_owned()];
    }
    let verdict = evaluate(model, packet);
    let [source, destination] = [packet.source, packet.destination].map(|a| model.subject_at(a));
    let to_itself = source.is_some() && source == destination;
    let mut copies = Vec::new();
    for (direction, judgement) in [("egress", &verdict.egress), ("ingress", &verdict.ingress)] {
        let logged = match judgement {
            Judgement::Allowed { .. } => true,
            // A copy of a group frame is no connection of who happens to receive it.
            Judgement::NotIsolated => {
                !to_itself && (direction == "egress" || destination.is_some())
            }
            Judgement::NotHere
            | Judgement::FromOwnNode
            | Judgement::Established
            | Judgement::NeighbourDiscovery
            | Judgement::Itself
            | Judgement::Denied { .. }
            | Judgement::Invalid { .. }
            | Judgement::PodUnknown => false,
        };
        if logged && packet.state == State::New {
            copies.push(format!("weft-allow-{direction}"));
        }
        if !judgement.is_allowed() {
            copies.push(format!("weft-deny-{direction}"));
            break;
        }
    }
    copies
}

#[test]
fn every_first_packet_that_is_allowed_is_copied_and_the_verdict_stays() {
    let mut failures = Vec::new();
    let mut copied = BTreeSet::new();
    for case in cases::all() {
        case.play(|index, _, expectation| {
            let model = index.model();
            let packet = &expectation.packet;
            let namespaces = model
                .subjects
                .keys()
                .map(|key| Arc::clone(&key.pod.namespace));
            let mut node = logging(namespaces);
            node.also_known = BTreeSet::from([packet.source]);
            let ruleset = compile(&model, &node);
            ruleset.check().expect("valid");
            let wanted = expected(&model, &node, packet);
            copied.extend(wanted.iter().cloned());
            let outcome = traced(&ruleset, &model, packet);
            let tables = lower(&ruleset).expect("lowered");
            let by_nft = traced_by_nft(&tables, &model, packet, 0, 0);
            let dropped = wanted.iter().any(|copy| copy.starts_with("weft-deny"));
            if (&outcome.logged, outcome.dropped) != (&wanted, dropped)
                || (&by_nft.logged, by_nft.dropped) != (&wanted, dropped)
            {
                failures.push(format!(
                    "{}: {wanted:?}, iptables {:?}, nftables {:?}",
                    expectation.line, outcome.logged, by_nft.logged
                ));
            }
        });
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let all = [
        "allow-egress",
        "allow-ingress",
        "deny-closed",
        "deny-egress",
        "deny-ingress",
    ];
    assert_eq!(copied, all.map(|copy| format!("weft-{copy}")).into());
}

#[test]
fn only_pods_of_a_namespace_that_asks_are_logged_and_others_pay_nothing() {
    let mut index = cases::Cluster::new().index();
    index.apply_network_policy(
        &make_network_policy("x", "p")
            .ingress(vec![], vec![])
            .build(),
    );
    let model = index.model();
    let namespaces: BTreeSet<Arc<str>> = model
        .subjects
        .keys()
        .map(|key| Arc::clone(&key.pod.namespace))
        .collect();
    let asking: Arc<str> = "y".into();
    assert!(
        namespaces.len() > 1 && namespaces.contains(&asking),
        "{namespaces:?}"
    );
    let (plain, logged) = (
        compile(&model, &node()),
        compile(&model, &logging([asking])),
    );
    for family in Family::ALL {
        let (plain, logged) = (&plain.tables[&family], &logged.tables[&family]);
        assert!(
            !plain
                .chains
                .keys()
                .any(|chain| chain.as_str().contains("-LOG-"))
        );
        for (name, chain) in &plain.chains {
            // Only the ways to the pods' chains are new.
            if !["WEFT-NPC-EGRESS", "WEFT-NPC-INGRESS"].contains(&name.as_str()) {
                assert_eq!(logged.chains.get(name), Some(chain), "{name}");
            }
        }
        let copies = logged.chains.values().flat_map(|chain| &chain.rules);
        let copies = copies.filter(|rule| {
            matches!(&rule.verdict, Verdict::Nflog { prefix, .. } if prefix.starts_with("weft-allow"))
        });
        assert_eq!(copies.count(), 2, "one for each direction");
    }
}

#[test]
fn nothing_is_copied_where_nobody_reads() {
    let model = cases::Cluster::new().index().model();
    let view = NodeView {
        log_group: None,
        ..logging(
            model
                .subjects
                .keys()
                .map(|key| Arc::clone(&key.pod.namespace)),
        )
    };
    let silent = NodeView {
        log_group: None,
        ..node()
    };
    assert_eq!(compile(&model, &view), compile(&model, &silent));
}
