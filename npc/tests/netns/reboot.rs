//! A node that comes up again without its API server: its rules are gone, its last state is not.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::json;
use weft_socket::NpcRequest;
use weft_testkit::{
    builders::make_network_policy,
    eventually::{eventually, eventually_eq},
};

use crate::{
    api::{PODS, POLICIES},
    world::{Backend, PATIENCE, World, endpoint, pod},
};

/// The rules are gone, and the API cannot be reached.
fn reboot(world: &mut World) {
    world.kill();
    // The kernel holds a set for a moment after the last rule that looked it up.
    eventually(PATIENCE, || {
        world.ns.try_sh("nft flush ruleset && ipset destroy")
    });
    api_is_away(world);
}

fn api_is_away(world: &World) {
    world.ns.sh(
        "nft 'add table ip t; add chain ip t output { type filter hook output priority 0; }; \
         add rule ip t output tcp dport 8080 reject with tcp reset'",
    );
}

fn api_is_back(world: &World) {
    world.ns.sh("nft delete table ip t");
}

fn router_has_answered(world: &World) {
    eventually(PATIENCE, || {
        let reasons = world.status().map_err(|error| error.to_string())?.reasons;
        // The API has not.
        match reasons.iter().any(|reason| reason.contains("attachments")) {
            true => Err(reasons.join("; ")),
            false => Ok(()),
        }
    });
}

fn snapshot(world: &World) -> PathBuf {
    world.dir.path().join("state/npc.snapshot")
}

/// A node with the pods 2, which nobody may reach, and 3.
fn world(backend: Backend) -> World {
    settled(World::new(backend))
}

fn settled(mut world: World) -> World {
    world.start_router();
    world.start();
    world.ready();
    for n in [2, 3] {
        world.come(n);
        world.attach(endpoint(n));
    }
    let mut policy = make_network_policy("default", "closed").build();
    let spec = policy.spec.get_or_insert_default();
    spec.policy_types = Some(vec!["Ingress".to_owned()]);
    world.api.add(POLICIES, &policy);
    eventually(PATIENCE, || {
        let text = fs::read_to_string(snapshot(&world)).map_err(|error| error.to_string())?;
        match text.contains("\"closed\"") {
            true => Ok(()),
            false => Err(text),
        }
    });
    world
}

fn a_node_without_api(backend: Backend) {
    let mut world = world(backend);
    let all = ["10.32.0.1", "10.32.0.2", "10.32.0.3"].map(str::to_owned);
    assert_eq!(world.known(), all);

    reboot(&mut world);
    // Only one of the two is still attached.
    world.attached.lock().expect("attachments").endpoints.pop();
    world.start();
    eventually_eq(PATIENCE, &all[..2].to_vec(), || {
        // Until the rules are there, there is no set to look at.
        if world.has_rules() && world.rules().contains("WEFT-NPC-I-pod2") {
            world.known()
        } else {
            Vec::new()
        }
    });
    assert!(
        !world.rules().contains("WEFT-NPC-I-pod3"),
        "{}",
        world.rules()
    );
    let status = world.status().expect("status");
    assert!(!status.ready, "{status:?}");

    // What somebody else does meanwhile is undone.
    let early = world.rules();
    world.ns.sh(match backend {
        Backend::Iptables => "iptables-nft -F",
        Backend::Nftables => "nft flush table inet weft",
    });
    eventually_eq(PATIENCE, &early, || world.rules());

    // A pod that comes now waits, closed, for the API.
    world.api.add(PODS, &pod(4).build());
    let dir = world.dir.path().join("npc.sock");
    let waiting = std::thread::spawn(move || {
        weft_socket::call::<_, Option<()>>(
            &dir,
            &NpcRequest::Pod(endpoint(4)),
            std::time::Duration::from_secs(15),
        )
    });
    eventually(PATIENCE, || {
        let rules = world.rules();
        match rules.contains("WEFT-NPC-I-pod4") {
            true => Ok(()),
            false => Err(rules),
        }
    });
    assert_eq!(world.known(), all[..2]);
    assert!(!waiting.is_finished());
    api_is_back(&world);
    waiting.join().expect("asked").expect("let in");
    let now = ["10.32.0.1", "10.32.0.2", "10.32.0.4"].map(str::to_owned);
    assert_eq!(world.known(), now);
    world.ready();
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn after_a_reboot_without_api_the_last_state_is_enforced_by_iptables() {
    a_node_without_api(Backend::Iptables);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn after_a_reboot_without_api_the_last_state_is_enforced_by_nftables() {
    a_node_without_api(Backend::Nftables);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_snapshot_that_cannot_be_used_is_named_and_the_node_is_closed() {
    let mut world = world(Backend::Nftables);
    world.kill();
    let good = fs::read(snapshot(&world)).expect("snapshot");
    let text = String::from_utf8(good.clone()).expect("text");
    for (damaged, why) in [
        (Vec::new(), "it is empty"),
        (good[..good.len() / 2].to_vec(), "its checksum is wrong"),
        (
            text.replace("weft-npc-snapshot 1", "weft-npc-snapshot 2")
                .into_bytes(),
            "it has format 2, this version reads 1",
        ),
        (vec![0; 1 << 16], "it does not start as a snapshot does"),
    ] {
        reboot(&mut world);
        fs::write(snapshot(&world), damaged).expect("damaged");
        world.start();
        let known = || world.has_rules().then(|| world.known());
        eventually_eq(PATIENCE, &Some(vec!["10.32.0.1".to_owned()]), known);
        let damages = world.log("weft_npc::snapshot");
        let last = damages.last().expect("a line of the log");
        assert_eq!(last["damage"], why, "{last}");
    }
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn without_reboot_the_rules_stay_whatever_the_snapshot_says() {
    let mut world = world(Backend::Nftables);
    let whole = world.rules();
    world.kill();
    fs::remove_file(snapshot(&world)).expect("removed");
    api_is_away(&world);
    world.start();
    router_has_answered(&world);
    assert_eq!(world.rules(), whole);
    api_is_back(&world);
    world.ready();
    assert_eq!(world.rules(), whole);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn rules_of_iptables_legacy_that_go_before_the_first_lists_are_replaced_at_once() {
    let mut world = settled(World::with(
        &json!({"backend": "Iptables", "iptablesVariant": "Legacy"}),
    ));
    let judged = |world: &World| {
        let forward = world.ns.sh("iptables-legacy -S FORWARD");
        match forward.contains("-A FORWARD -j WEFT-NPC") {
            true => Ok(()),
            false => Err(forward),
        }
    };
    world.kill();
    api_is_away(&world);
    world.start();
    router_has_answered(&world);
    assert_eq!(judged(&world), Ok(()));
    world.ns.sh("iptables-legacy -F");
    let start = Instant::now();
    eventually(PATIENCE, || judged(&world));
    let took = start.elapsed();
    // A second is promised; room for a busy machine.
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(!world.status().expect("status").ready);
}
