//! The kernel takes what the compiler writes, and holds it as it was meant: the rules of every
//! case of the policy table, and of random clusters, one after the other, in both variants of
//! iptables and in nftables.

#[allow(
    dead_code,
    reason = "the unit tests' generators, of which clusters are used here"
)]
#[path = "../src/tests/random.rs"]
mod random;

use std::collections::BTreeSet;

use proptest::{strategy::Strategy as _, strategy::ValueTree as _, test_runner::TestRunner};
use weft_netfilter::backend::{Backend, Done, Iptables, Nftables};
use weft_netfilter::exec::{HostNft, HostTools, Runner, Variant};
use weft_netfilter::nft::Owned;
use weft_netfilter::plan::Owner;
use weft_netfilter::{Family, Ruleset, TableName};
use weft_policy::cases;
use weft_policy_compile::{NodeView, compile};
use weft_testkit::netns::Netns;

/// Random clusters.
const RANDOM: usize = 60;

fn node() -> NodeView {
    NodeView {
        families: BTreeSet::from(Family::ALL),
        blocks: cases::BLOCKS
            .iter()
            .map(|net| net.parse().expect("a network"))
            .collect(),
        gateways: cases::GATEWAYS
            .iter()
            .map(|ip| ip.parse().expect("an address"))
            .collect(),
        ..NodeView::default()
    }
}

/// The rulesets of all moments of all cases, each with the line it belongs to, and of some random
/// clusters.
fn rulesets() -> Vec<(String, Ruleset)> {
    let node = node();
    let mut rulesets: Vec<(String, Ruleset)> = Vec::new();
    for case in cases::all() {
        case.play(|index, _, expectation| {
            let ruleset = compile(&index.model(), &node);
            if rulesets.last().is_none_or(|(_, last)| *last != ruleset) {
                rulesets.push((expectation.to_string(), ruleset));
            }
        });
    }
    let mut runner = TestRunner::deterministic();
    for i in 0..RANDOM {
        let cluster = random::clusters().new_tree(&mut runner);
        let cluster = cluster.expect("a cluster").current();
        let ruleset = compile(&cluster.index().model(), &node);
        rulesets.push((format!("random cluster {i}"), ruleset));
    }
    rulesets
}

/// Each ruleset after the other, and none of them is read back as something else.
async fn hold_all(backend: &mut impl Backend) {
    let rulesets = rulesets();
    assert!(
        rulesets.len() > 120 + RANDOM,
        "only {} rulesets",
        rulesets.len()
    );
    for (line, ruleset) in rulesets {
        let synced = backend.sync(&ruleset).await;
        assert!(synced.is_ok(), "{line}: {synced:?}");
        let drift = backend.verify(&ruleset).await;
        let changed = drift.as_ref().map(Done::changed);
        assert_eq!(changed, Ok(false), "{line}: read back as {drift:?}");
    }
    backend.sweep().await.expect("everything is removed");
}

fn run<F: Future<Output = ()>>(work: impl FnOnce() -> F + Send + 'static) {
    let ns = Netns::new();
    ns.run(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(work());
    });
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn the_kernel_holds_the_rules_of_every_case() {
    run(async || {
        for variant in [Variant::Nft, Variant::Legacy] {
            let tools = HostTools::probe(Runner::default(), variant)
                .await
                .expect("iptables works here");
            let owner = Owner::new(&["WEFT-NPC"], "weft-npc-", &[TableName::Filter]);
            hold_all(&mut Iptables::new(owner, tools)).await;
        }
    });
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn nftables_holds_the_rules_of_every_case() {
    run(async || {
        let nft = HostNft::probe(Runner::default())
            .await
            .expect("nft works here");
        let before = nft.tables().await.expect("listed");
        let owned = Owned::new("weft", "weft-npc");
        hold_all(&mut Nftables::new(owned, nft.clone())).await;
        assert_eq!(nft.tables().await.expect("listed"), before);
    });
}
