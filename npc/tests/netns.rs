//! Real packets against the table of packet cases: pods in namespaces on a bridge `weave`, with
//! the compiled rules of every case loaded, in both variants of iptables and in nftables.
//!
//! Nobody listens anywhere: a packet that arrives is answered by its receiver's kernel (a reset, a
//! port or protocol unreachable, an echo reply), one that was dropped by nobody.
//!
//! Left to the tracer, named and counted: packets that are not the first of a flow (each answer is
//! one), ICMP other than echo, and copies of group frames (`netns/group.rs` sends some).

#[path = "netns/api.rs"]
mod api;
#[path = "netns/auto.rs"]
mod auto;
#[path = "netns/change.rs"]
mod change;
#[path = "netns/denial.rs"]
mod denial;
#[path = "netns/drift.rs"]
mod drift;
#[path = "netns/dual.rs"]
mod dual;
#[path = "netns/flows.rs"]
mod flows;
#[path = "netns/gap.rs"]
mod gap;
#[path = "netns/group.rs"]
mod group;
#[path = "netns/killed.rs"]
mod killed;
#[path = "netns/node.rs"]
mod node;
#[path = "netns/off.rs"]
mod off;
#[path = "netns/pace.rs"]
mod pace;
#[path = "netns/probe.rs"]
mod probe;
#[path = "netns/process.rs"]
mod process;
#[path = "netns/push.rs"]
mod push;
#[path = "netns/raw.rs"]
mod raw;
#[path = "netns/reboot.rs"]
mod reboot;
#[path = "netns/reset.rs"]
mod reset;
#[path = "netns/stage.rs"]
mod stage;
#[path = "netns/switch.rs"]
mod switch;
#[path = "netns/world.rs"]
mod world;

use weft_netfilter::{
    Family,
    backend::Backend,
    exec::{Runner, Variant},
};
use weft_npc::Kernel;
use weft_policy::{
    Index,
    cases::{self, Tally},
};
use weft_policy_compile::{NodeView, compile};

use crate::{
    probe::Probe,
    stage::{Stage, Where},
};

/// A packet of the table that can be sent.
struct Shot {
    line: String,
    probe: Probe,
    from: Where,
    to: Where,
    allowed: bool,
}

/// Everything that is sent under one state of the cluster.
struct Moment {
    clause: &'static str,
    index: Index,
    shots: Vec<Shot>,
}

fn node() -> NodeView {
    NodeView {
        families: Family::ALL.into(),
        blocks: cases::BLOCKS.map(|net| net.parse().expect("net")).into(),
        gateways: cases::GATEWAYS
            .map(|ip| ip.parse().expect("address"))
            .into(),
        ..NodeView::default()
    }
}

/// The table in moments, and what of it can be sent.
fn moments() -> (Vec<Moment>, Tally) {
    let mut moments: Vec<Moment> = Vec::new();
    let mut tally = Tally::default();
    for case in cases::all() {
        case.play(|index, cluster, expectation| {
            let probe = match Probe::of(expectation) {
                Ok(probe) => probe,
                Err(reason) => {
                    tally.skipped(&case, expectation, reason);
                    return;
                }
            };
            tally.judged(&case, expectation);
            let shot = Shot {
                line: expectation.to_string(),
                probe,
                from: Where::of(expectation.packet.source, cluster),
                to: Where::of(expectation.packet.destination, cluster),
                allowed: expectation.allowed,
            };
            let same = |last: &&mut Moment| last.clause == case.clause && last.index == *index;
            match moments.last_mut().filter(same) {
                Some(last) => last.shots.push(shot),
                None => moments.push(Moment {
                    clause: case.clause,
                    index: index.clone(),
                    shots: vec![shot],
                }),
            }
        });
    }
    (moments, tally)
}

#[test]
fn every_packet_is_sent_or_left_out_for_a_reason() {
    let (_, tally) = moments();
    assert!(tally.packets() > 700, "{tally}");
    let reasons: Vec<_> = tally.reasons().into_iter().collect();
    assert_eq!(
        reasons,
        [
            ("a copy of a frame to many (netns/group.rs sends those)", 23),
            ("an ICMP type that nobody answers", 8),
            (
                "not the first packet of a flow (every answer to a probe is one)",
                13
            ),
        ],
        "{tally}"
    );
    // 1: nothing is denied without a policy. 50: what passes is no first packet. 53, 54: neither.
    assert_eq!(tally.one_sided(), [1, 50, 53, 54], "{tally}");
}

/// Runs tools on the node.
fn runner(stage: &Stage) -> Runner {
    Runner {
        wrapper: ["ip", "netns", "exec", stage.node.name()]
            .map(str::to_owned)
            .into(),
        ..Runner::default()
    }
}

fn play<B: Backend>(backend: impl AsyncFnOnce(Runner) -> B) {
    let (moments, tally) = moments();
    let sent = tally.packets();
    let mut stage = Stage::new();
    let runner = runner(&stage);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let mut backend = runtime.block_on(backend(runner));
    let view = node();
    let mut wrong = Vec::new();
    for moment in moments {
        for shot in &moment.shots {
            stage.put(shot.probe.source, &shot.from);
            stage.put(shot.probe.destination, &shot.to);
        }
        let ruleset = compile(&moment.index.model(), &view);
        let synced = runtime.block_on(backend.sync(&ruleset));
        synced.expect(&moment.shots[0].line);
        let answers: Vec<_> = moment
            .shots
            .into_iter()
            .map(|shot| {
                let (probe, hearing) = (shot.probe.clone(), shot.probe.clone());
                let patience = probe::patience(shot.allowed);
                let ear = stage.namespace(&shot.to).run(move || hearing.ear());
                let answer = stage
                    .namespace(&shot.from)
                    .run(move || std::thread::spawn(move || probe.arrives(ear.as_ref(), patience)));
                (shot, answer)
            })
            .collect();
        for (shot, answer) in answers {
            let arrived = answer.join().expect("a probe");
            if arrived.is_ok() != shot.allowed {
                let Shot { line, from, .. } = &shot;
                wrong.push(format!(
                    "{}: {line} (from {from:?}): {arrived:?}",
                    moment.clause
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {sent} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

async fn iptables(runner: Runner, variant: Variant) -> Kernel {
    let kernel = Kernel::iptables(&runner, variant).await;
    kernel.expect("tools")
}

async fn nftables(runner: Runner) -> Kernel {
    Kernel::nftables(&runner).await.expect("nft")
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn packets_are_judged_as_the_table_says_by_iptables_nft() {
    play(async |runner| iptables(runner, Variant::Nft).await);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn packets_are_judged_as_the_table_says_by_iptables_legacy() {
    play(async |runner| iptables(runner, Variant::Legacy).await);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn packets_are_judged_as_the_table_says_by_nftables() {
    play(nftables);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_broadcast_is_judged_by_each_receiver_s_policy_by_iptables() {
    group::play(async |runner| iptables(runner, Variant::Nft).await);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_broadcast_is_judged_by_each_receiver_s_policy_by_nftables() {
    group::play(nftables);
}
