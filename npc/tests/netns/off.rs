//! Enforcement that is turned off and on again.

use serde_json::json;
use weft_socket::NpcRequest;

use crate::world::{World, endpoint};

#[test]
#[ignore = "needs root: own network namespaces"]
fn enforcement_that_is_off_leaves_no_rule_and_lets_every_pod_start() {
    let on = json!({"backend": "Iptables", "iptablesVariant": "Nft"});
    let off = json!({"enforcement": "Disabled"});
    let mut world = World::with(&on);
    world.start_router();
    world.start();
    world.ready();
    world.come(2);
    assert_eq!(world.known(), ["10.32.0.1", "10.32.0.2"]);
    let left = |world: &World| {
        let ours = "{ iptables-nft -S; ipset list -n; nft list tables; } | grep -ci weft || true";
        world.ns.sh(ours)
    };
    assert_ne!(left(&world), "0");

    world.restart(&off);
    assert_eq!(left(&world), "0");
    // The API does not know it, and npc does not ask the API.
    let answer = world.ask::<Option<()>>(&NpcRequest::Pod(endpoint(7)));
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(left(&world), "0");

    world.restart(&on);
    assert_ne!(left(&world), "0");
    // The router listed nobody: pods that started meanwhile are closed until it does.
    assert_eq!(world.known(), ["10.32.0.1"]);
}
