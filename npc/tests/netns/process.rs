//! Pods are let in, policies get into force, drift is repaired, problems become events.

use serde_json::json;
use weft_socket::{CallError, NpcRequest, code};
use weft_testkit::{
    builders::make_network_policy,
    eventually::{eventually, eventually_eq},
};

use crate::{
    api::{PODS, POLICIES},
    world::{Backend, PATIENCE, World, endpoint, pod},
};

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_pod_is_let_in_when_its_policy_is_in_force_and_stays_so_when_npc_dies() {
    pod_is_let_in(Backend::Iptables);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_pod_is_let_in_when_its_policy_is_in_force_in_nftables_and_stays_so_when_npc_dies() {
    pod_is_let_in(Backend::Nftables);
}

fn pod_is_let_in(backend: Backend) {
    let mut world = World::new(backend);
    // Somebody's rules from before.
    world
        .ns
        .sh("iptables-nft -A FORWARD -s 10.9.0.0/16 -j DROP");
    world.start();
    // The router has not answered: nothing is written.
    eventually(PATIENCE, || {
        let reasons = world
            .status()
            .map_err(|e| e.to_string())?
            .reasons
            .join("; ");
        match reasons.starts_with("lists: the router's list of attachments has not arrived") {
            true => Ok(()),
            false => Err(reasons),
        }
    });
    assert_eq!(
        world
            .ns
            .sh("ipset list -n; nft list tables | grep weft || true"),
        ""
    );
    world.start_router();
    world.ready();
    let jump = match backend {
        Backend::Iptables => "-A FORWARD -j WEFT-NPC\n",
        Backend::Nftables => "",
    };
    assert_eq!(
        world.ns.sh("iptables-nft -S FORWARD"),
        format!("-P FORWARD ACCEPT\n{jump}-A FORWARD -s 10.9.0.0/16 -j DROP")
    );
    assert_eq!(world.known(), ["10.32.0.1"]);

    // A pod that the API does not show yet is let in when it does.
    let api = world.api.clone();
    let late = std::thread::spawn(move || {
        api.add(PODS, &pod(2).build());
    });
    world
        .ask::<Option<()>>(&NpcRequest::Pod(endpoint(2)))
        .expect("let in");
    late.join().expect("added");
    assert_eq!(world.known(), ["10.32.0.1", "10.32.0.2"]);
    world.attach(endpoint(2));

    // Killed: the rules stay; started again: nothing changes.
    let before = world.rules();
    world.kill();
    assert_eq!(world.known(), ["10.32.0.1", "10.32.0.2"]);
    world.kill_and_start();
    let after = world.rules();
    assert_eq!(after, before);
    assert_eq!(world.known(), ["10.32.0.1", "10.32.0.2"]);

    world
        .ask::<Option<()>>(&NpcRequest::PodGone(endpoint(2).id))
        .expect("gone");
    eventually_eq(PATIENCE, &vec!["10.32.0.1".to_owned()], || world.known());

    // A UID that the API never shows.
    let refused = world.ask::<Option<()>>(&NpcRequest::Pod(endpoint(3)));
    let code = match &refused {
        Err(CallError::Refused(error)) => Some(error.code),
        Ok(_) | Err(_) => None,
    };
    assert_eq!(code, Some(code::TRY_AGAIN_LATER), "{refused:?}");
    assert_eq!(world.known(), ["10.32.0.1"]);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn policies_get_into_force_problems_become_events_and_drift_is_repaired() {
    policies_get_into_force(Backend::Iptables);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn policies_get_into_force_in_nftables_problems_become_events_and_drift_is_repaired() {
    policies_get_into_force(Backend::Nftables);
}

/// An event says so.
fn noted(world: &World, words: &str) {
    eventually(PATIENCE, || {
        let notes = world.api.notes.lock().expect("notes").clone();
        match notes.iter().any(|note| note.contains(words)) {
            true => Ok(()),
            false => Err(notes),
        }
    });
}

fn policies_get_into_force(backend: Backend) {
    let mut world = World::new(backend);
    world.start_router();
    world.start();
    world.ready();
    world.come(2);
    let dump = || world.ask::<String>(&NpcRequest::Dump).expect("dump");
    assert!(!dump().contains("default/pod2"), "{}", dump());

    let mut policy =
        serde_json::to_value(make_network_policy("default", "odd").build()).expect("policy");
    policy["spec"] = json!({
        "podSelector": {},
        "policyTypes": ["Ingress"],
        "ingress": [{"ports": [{"port": 80, "endPort": 70}]}],
    });
    world.api.add(POLICIES, &policy);
    let dispatch = match backend {
        Backend::Iptables => "-d 10.32.0.2/32",
        Backend::Nftables => "10.32.0.2 : goto WEFT-NPC-I-pod2",
    };
    eventually(PATIENCE, || {
        let rules = world.rules();
        if rules.contains(dispatch) {
            Ok(())
        } else {
            Err(rules)
        }
    });
    noted(&world, "endPort");

    let good = world.rules();
    world.ns.sh(match backend {
        Backend::Iptables => "iptables-nft -F && ipset flush weft-npc-known-4",
        Backend::Nftables => {
            "nft flush table inet weft && nft flush set inet weft weft-npc-known-4"
        }
    });
    eventually_eq(PATIENCE, &good, || world.rules());
    let both = ["10.32.0.1", "10.32.0.2"].map(str::to_owned).to_vec();
    eventually_eq(PATIENCE, &both, || world.known());
    noted(&world, "something else changed");
    let metrics = world.metrics();
    assert!(
        metrics.contains("weft_npc_drift_repairs_total "),
        "{metrics}"
    );
}
