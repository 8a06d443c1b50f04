//! Damage, foreign devices, restarts, and the end.

use weft_fabric::fabric;
use weft_netlink::{Kernel, Netlink, Owner};
use weft_router::kernel::{Applier, attachments};
use weft_testkit::{eventually::eventually, netns::Netns};

use crate::world::*;

#[test]
#[ignore = "needs root: own network namespaces"]
fn damage_is_repaired_and_foreign_rules_are_left_alone() {
    let world = World::new();
    world.n1.sh("iptables-nft -N WEFTISH; iptables-nft -A WEFTISH -j RETURN; ipset create weft-rx hash:ip; iptables-nft -I FORWARD -j WEFTISH");
    settle(&world.n1, input(1, &["10.32.1.10"]));
    for damage in [
        "ip link del weave",
        "ip link del vxlan-6784",
        "ip link del vethwe-bridge",
        "ip link set weave type bridge nf_call_iptables 0",
        "ip link set weave type bridge nf_call_ip6tables 0",
        "iptables-nft -t nat -F WEFT-NAT",
        "iptables-nft -D FORWARD -j WEFT-FORWARD",
        "nft delete table bridge weft",
        "nft delete table netdev weft",
        "sysctl -q -w net.ipv4.ip_forward=0",
        "bridge fdb del 00:00:00:00:00:00 dev vxlan-6784 dst 192.0.2.2",
    ] {
        world.n1.sh(damage);
        settle(&world.n1, input(1, &["10.32.1.10"]));
        let rest = settle(&world.n1, input(1, &["10.32.1.10"]));
        assert_eq!(
            rest.changes,
            ["write table bridge weft (1 ports)", SHORTCUT_WRITTEN],
            "after `{damage}`"
        );
    }
    world.n1.sh("iptables-nft -C WEFTISH -j RETURN; iptables-nft -C FORWARD -j WEFTISH; ipset list -n weft-rx");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_foreign_weave_is_reported_and_never_touched() {
    let world = World::new();
    world.n1.sh(
        "ip link add weave type bridge; ip addr add 10.99.0.1/16 dev weave; ip link set weave up",
    );
    let look = "ip -4 -o addr show weave; ip -d link show weave | grep -o -e 'link/.*' -e 'nf_call.*'; \
                cd /proc/sys/net; cat ipv4/conf/weave/rp_filter ipv4/conf/weave/send_redirects \
                ipv4/neigh/weave/ucast_solicit ipv6/conf/weave/accept_ra";
    let before = world.n1.sh(look);
    let outcome = apply(&world.n1, input(1, &[]));
    assert_eq!(outcome.foreign.len(), 1, "{outcome:#?}");
    assert_eq!(
        outcome.foreign[0].to_string(),
        "there is a bridge named weave that weft did not make, weft needs the name for a bridge; \
         remove it (ip link delete weave) or rename it"
    );
    assert_eq!(world.n1.sh(look), before);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_foreign_weave_that_comes_between_look_and_act_is_never_touched() {
    let node = Netns::new();
    let (outcome, before, after) = in_ns(&node, || async {
        let kernel = Kernel::connect().unwrap();
        let mut applier = Applier::new(kernel, CLUSTER, "/proc/sys/net".into());
        let observed = applier.observe().await.unwrap();
        here("ip link add weave type bridge; ip link set weave alias stranger");
        let look = "ip -d link show weave; ip -o addr show weave; \
                    bridge link show | grep 'master weave' || true; \
                    cd /proc/sys/net; cat ipv4/conf/weave/rp_filter \
                    ipv4/conf/weave/send_redirects ipv4/neigh/weave/ucast_solicit";
        let before = here(look);
        let fabric = fabric(&input(1, &[])).unwrap();
        let outcome = applier.apply(&observed, &fabric, false).await;
        (outcome, before, here(look))
    });
    assert!(!outcome.is_complete(), "{outcome:#?}");
    assert_eq!(after, before);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_restart_adopts_the_fabric_without_losing_a_packet() {
    let (world, a, _c) = World::with_a_pod_on_each();
    pings(&a, "10.32.2.10");
    let ping = a.spawn("ping -q -i 0.005 -c 400 10.32.2.10");
    for _ in 0..5 {
        settle(&world.n1, input(1, &["10.32.1.10"]));
        settle(&world.n2, input(2, &["10.32.2.10"]));
    }
    let output = ping.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(" 0% packet loss"), "{text}");
}

/// What of ours is left in a namespace; foreign things that must stay are named `foreign`.
/// What tells the garbage collector who lives: the links, by what they say of themselves.
#[test]
#[ignore = "needs root: own network namespaces"]
fn an_attachment_lives_as_long_as_a_link_says_so() {
    let world = World::new();
    settle(&world.n1, input(1, &["10.32.1.10"]));
    let _a = plug(&world.n1, "10.32.1.10");
    let _b = plug(&world.n1, "10.32.1.11");
    let shown = || {
        in_ns(&world.n1, || async {
            let network = Kernel::connect().unwrap().dump().await.unwrap();
            let found = attachments(&network, &Owner::new(CLUSTER));
            found
                .into_iter()
                .map(|(id, link)| format!("{} {} {link}", id.container_id, id.ifname))
                .collect::<Vec<_>>()
        })
    };
    let (a, b) = (link_of(ip("10.32.1.10")), link_of(ip("10.32.1.11")));
    assert_eq!(shown(), [format!("{a} eth0 {a}"), format!("{b} eth0 {b}")]);
    world.n1.sh(&format!(
        "ip link set {a} down; ip link set {a} name other0; \
         ip link set {b} alias weft/another-cluster/{b}; \
         ip link add net1 type veth; ip link set net1 alias weft/{CLUSTER}/77/net1"
    ));
    assert_eq!(
        shown(),
        ["77 net1 net1".to_owned(), format!("{a} eth0 other0")]
    );
    world.n1.sh("ip link del other0");
    assert_eq!(shown(), ["77 net1 net1"]);
}

fn traces(ns: &Netns) -> String {
    ns.sh(
        "{ iptables-nft-save; ip6tables-nft-save; ipset list -n; nft list tables; \
         ip -o link | sed 's/link-netns [^ \\\\]*//'; } \
         | grep -i -e weft -e weave -e datapath -e vxlan -e foreign || true",
    )
}

fn clean(ns: &Netns, dir: &std::path::Path) {
    let paths = weft_router::args::Paths {
        config: dir.join("node.json"),
        state_dir: dir.join("state"),
        run_dir: dir.join("run"),
        cni_conf_dir: dir.join("conf"),
        sysctl_dir: "/proc/sys/net".into(),
    };
    let args = weft_router::args::CleanupArgs {
        paths,
        bin_dir: dir.join("bin"),
    };
    in_ns(ns, move || async move {
        weft_router::cleanup::cleanup(&args).await.unwrap();
    });
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn cleanup_leaves_nothing_of_ours_and_everything_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    for sub in ["state", "run", "conf", "bin"] {
        std::fs::create_dir(file(sub)).unwrap();
    }
    let config = format!(r#"{{"clusterId":"{CLUSTER}","generation":1,"network":{{}}}}"#);
    std::fs::write(file("node.json"), config).unwrap();
    for name in [
        "state/ipam.log",
        "conf/10-weft.conflist",
        "bin/weft-cni",
        "bin/portmap",
    ] {
        std::fs::write(file(name), "").unwrap();
    }
    let world = World::new();
    world.n1.sh(
        "iptables-nft -N FOREIGN; iptables-nft -I FORWARD -j FOREIGN; ipset create foreign hash:ip; \
         ip link add foreign type veth peer name foreign1; \
         iptables-nft -N WEFT-NPC; iptables-nft -I FORWARD -j WEFT-NPC; ipset create weft-npc-x hash:ip; \
         nft add table inet weft",
    );
    let before = "foreign";
    settle(&world.n1, input(1, &["10.32.1.10"]));
    let pod = plug(&world.n1, "10.32.1.10");

    // With a pod: its link stays, and what its teardown needs.
    clean(&world.n1, dir.path());
    let left = traces(&world.n1);
    let ours: Vec<&str> = left
        .lines()
        .filter(|l| !l.to_lowercase().contains(before))
        .collect();
    assert_eq!(ours.len(), 1, "{ours:#?}");
    assert!(ours[0].contains("vethwepl"), "{ours:#?}");
    let marker = std::fs::read_to_string(file("state/uninstalled")).unwrap();
    assert_eq!(marker, "/etc/cni/net.d\n");
    assert!(file("conf/10-weft.conflist").exists() && file("bin/weft-cni").exists());

    // Without: everything goes. Twice is as good as once.
    drop(pod);
    let link = link_of(ip("10.32.1.10"));
    eventually(GRACE, || {
        let gone = world.n1.try_sh(&format!("ip link show {link}"));
        gone.map_or(Ok(()), Err)
    });
    clean(&world.n1, dir.path());
    clean(&world.n1, dir.path());
    let left = traces(&world.n1);
    let ours: Vec<&str> = left
        .lines()
        .filter(|l| !l.to_lowercase().contains(before))
        .collect();
    assert_eq!(ours, [""; 0]);
    assert!(
        left.contains("FOREIGN") && left.contains("foreign1"),
        "{left}"
    );
    for name in [
        "state/ipam.log",
        "state/uninstalled",
        "conf/10-weft.conflist",
        "bin/weft-cni",
    ] {
        assert!(!file(name).exists(), "{name} is left");
    }
    assert!(file("bin/portmap").exists());
}
