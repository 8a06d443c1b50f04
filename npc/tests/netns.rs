//! Real packets against the table of packet cases: pods in namespaces on a bridge `weave`, with
//! the compiled rules of every case loaded, in both variants of iptables and in nftables.
//!
//! Nobody listens anywhere: a packet that arrives is answered by its receiver's kernel (a reset, a
//! port-unreachable, an echo reply), one that was dropped by nobody.
//!
//! Left to the tracer, and counted: packets that are not the first of a flow, SCTP (this kernel may
//! have none), other protocols, ICMP other than echo, and copies of group frames.

#[path = "netns/api.rs"]
mod api;
#[path = "netns/denial.rs"]
mod denial;
#[path = "netns/drift.rs"]
mod drift;
#[path = "netns/flows.rs"]
mod flows;
#[path = "netns/group.rs"]
mod group;
#[path = "netns/off.rs"]
mod off;
#[path = "netns/probe.rs"]
mod probe;
#[path = "netns/process.rs"]
mod process;
#[path = "netns/push.rs"]
mod push;
#[path = "netns/stage.rs"]
mod stage;

use weft_netfilter::{
    Family,
    backend::{Backend, Iptables, Nftables},
    exec::{HostNft, HostTools, Runner, Variant},
};
use weft_policy::{Index, cases};
use weft_policy_compile::{NodeView, compile};

use crate::{
    probe::Probe,
    stage::{Stage, Where},
};

/// A packet of the table that can be sent.
struct Shot {
    line: &'static str,
    probe: Probe,
    from: Where,
    to: Where,
    allowed: bool,
}

/// Everything that is sent under one state of the cluster.
struct Moment {
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

/// The table in moments, and how many of its packets cannot be sent.
fn moments() -> (Vec<Moment>, usize) {
    let mut moments: Vec<Moment> = Vec::new();
    let mut unsent = 0;
    for case in cases::all() {
        case.play(|index, cluster, expectation| {
            let Some(probe) = Probe::of(&expectation.packet) else {
                unsent += 1;
                return;
            };
            let shot = Shot {
                line: expectation.line,
                probe,
                from: Where::of(expectation.packet.source, cluster),
                to: Where::of(expectation.packet.destination, cluster),
                allowed: expectation.allowed,
            };
            match moments.last_mut().filter(|last| last.index == *index) {
                Some(last) => last.shots.push(shot),
                None => moments.push(Moment {
                    index: index.clone(),
                    shots: vec![shot],
                }),
            }
        });
    }
    (moments, unsent)
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
    let (moments, unsent) = moments();
    let sent: usize = moments.iter().map(|moment| moment.shots.len()).sum();
    assert!(
        sent > 250 && unsent < 60,
        "{sent} packets sent, {unsent} not"
    );
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
        synced.expect(moment.shots[0].line);
        let answers: Vec<_> = moment
            .shots
            .into_iter()
            .map(|shot| {
                let probe = shot.probe.clone();
                let patience = probe::patience(shot.allowed);
                let answer = stage
                    .namespace(&shot.from)
                    .run(move || std::thread::spawn(move || probe.arrives(patience)));
                (shot, answer)
            })
            .collect();
        for (shot, answer) in answers {
            let arrived = answer.join().expect("a probe");
            if arrived.is_ok() != shot.allowed {
                let (line, from) = (shot.line, &shot.from);
                wrong.push(format!("{line} (from {from:?}): {arrived:?}"));
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

async fn iptables(runner: Runner, variant: Variant) -> Iptables<HostTools> {
    let tools = HostTools::probe(runner, variant).await;
    Iptables::new(weft_npc::owner(), tools.expect("tools"))
}

async fn nftables(runner: Runner) -> Nftables<HostNft> {
    let nft = HostNft::probe(runner).await.expect("nft");
    Nftables::new(weft_npc::owned(), nft)
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
