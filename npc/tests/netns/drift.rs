//! What somebody else does to the rules of a running npc is undone within a second.

use std::time::{Duration, Instant};

use serde_json::json;
use weft_testkit::eventually::eventually;

use crate::process::{PATIENCE, World};

/// What is promised.
const PROMISE: Duration = Duration::from_secs(1);

/// A node with one pod.
fn world(variant: &str) -> World {
    let mut world = World::with(&json!({"iptablesVariant": variant}));
    world.start_router();
    world.start();
    world.ready();
    world.come(2);
    world
}

fn repairs(world: &World) -> u32 {
    let metrics = world.metrics();
    let count = metrics
        .lines()
        .find_map(|line| line.strip_prefix("weft_npc_drift_repairs_total "));
    count.expect("the metric").parse().expect("a number")
}

/// Everything of `filter`, without counters.
fn rules(world: &World, tool: &str) -> String {
    world.ns.sh(&format!(
        "{tool}-save -t filter | grep -v '^#' | sed 's/\\[.*//'"
    ))
}

fn harm(tool: &str, variant: &str) {
    let world = world(variant);
    let right = rules(&world, tool);
    let known = world.known();
    let mut slowest = Duration::ZERO;
    let harms = [
        ("flushed", format!("{tool} -F")),
        ("flushed our chain", format!("{tool} -F WEFT-NPC")),
        ("took our jump", format!("{tool} -D FORWARD -j WEFT-NPC")),
        ("inserted before us", format!("{tool} -I FORWARD -j ACCEPT")),
        (
            "emptied a set",
            "ipset flush weft-npc-known-4; ipset flush weft-npc-known-4.b || true".to_owned(),
        ),
        (
            "closed what is open",
            "ipset del weft-npc-known-4 10.32.0.2 2>/dev/null || \
             ipset del weft-npc-known-4.b 10.32.0.2"
                .to_owned(),
        ),
    ];
    for (count, (what, harm)) in (repairs(&world) + 1..).zip(harms) {
        world.ns.sh(&harm);
        let start = Instant::now();
        let repaired = || {
            let (seen, sets) = (rules(&world, tool), world.known());
            let jump = seen.find("-A FORWARD -j WEFT-NPC");
            let accept = seen.find("-A FORWARD -j ACCEPT");
            let first = jump.is_some() && accept.is_none_or(|accept| jump < Some(accept));
            let ours = seen.replace("-A FORWARD -j ACCEPT\n", "") == right;
            if first && ours && sets == known {
                Ok(())
            } else {
                Err(format!("{what}: {seen}\n{sets:?}"))
            }
        };
        eventually(PATIENCE, repaired);
        slowest = slowest.max(start.elapsed());
        let start = Instant::now();
        eventually(PATIENCE, || match repairs(&world) {
            seen if seen == count => Ok(()),
            seen => Err(format!("{what}: {seen} repairs, not {count}")),
        });
        slowest = slowest.max(start.elapsed());
    }
    // Room for a busy machine.
    assert!(slowest < 2 * PROMISE, "{tool}: {slowest:?}");
    // Six repairs in a minute are a fight.
    assert!(world.metrics().contains("weft_npc_drift_contested 1"));
    let notes = world.api.notes.lock().expect("notes").join("\n");
    assert!(notes.contains("again and again (5 repairs"), "{notes}");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn foreign_changes_are_undone_at_once_with_iptables_nft() {
    harm("iptables-nft", "Nft");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn foreign_changes_are_undone_at_once_with_iptables_legacy() {
    harm("iptables-legacy", "Legacy");
}
