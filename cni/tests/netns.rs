//! The plugin against a real kernel: a node in a network namespace of its own with a bridge
//! `weave`, pods in others, and a router that is a thread of the test.

mod support;

use support::{Node, Outcome, Pod};

#[test]
#[ignore = "needs root: own network namespaces"]
fn add_gives_a_pod_that_reaches_its_gateway_and_other_pods() {
    let node = Node::new();
    let (a, b) = (Pod::new("aaaaaaa1"), Pod::new("bbbbbbb1"));
    let result = node.add(&a).success();
    node.add(&b).success();
    assert_eq!(result["cniVersion"], "1.1.0");
    assert_eq!(result["ips"][0]["address"], "10.32.0.10/12");
    assert_eq!(result["ips"][1]["address"], "fd00:10::10/64");
    assert_eq!(result["ips"][0]["interface"], 2);
    assert_eq!(result["interfaces"][0]["name"], "weave");
    assert_eq!(result["interfaces"][1]["name"], "vethweplaaaaaaa");
    assert_eq!(result["interfaces"][2]["name"], "eth0");
    assert_eq!(result["interfaces"][2]["mac"], "0a:58:0a:20:00:0a");
    assert_eq!(result["interfaces"][2]["sandbox"], a.ns.path());
    let host_mac = node.link("vethweplaaaaaaa", "address");
    assert_eq!(result["interfaces"][1]["mac"], host_mac);
    a.ns.sh("ping -c1 -W2 10.32.0.1");
    a.ns.sh("ping -c1 -W2 10.32.0.11");
    a.ns.sh("ping -6 -c1 -W2 fd00:10::1");
    a.ns.sh("ping -6 -c1 -W2 fd00:10::11");
    let routes = a.ns.sh("ip route show");
    assert!(
        routes.contains("default via 10.32.0.1 dev eth0"),
        "{routes}"
    );
    assert!(
        routes.contains("10.96.0.0/24 dev eth0 scope link"),
        "{routes}"
    );
    let port = node
        .ns
        .sh("ip -d link show vethweplaaaaaaa; bridge -d link show dev vethweplaaaaaaa");
    for expected in [
        "mtu 1400",
        "master weave",
        "alias weft/cluster-1/aaaaaaa1",
        "hairpin on",
        "learning off",
        " flood off",
        "mcast_flood on",
        "bcast_flood on",
    ] {
        assert!(port.contains(expected), "{expected:?} in {port}");
    }
    let knob = |key: &str| a.ns.sh(&format!("cat /proc/sys/net/{key}"));
    assert_eq!(knob("ipv6/conf/eth0/accept_ra"), "0");
    assert_eq!(knob("ipv4/neigh/eth0/base_reachable_time"), "5");
    assert_eq!(
        node.router.log(),
        [
            "add aaaaaaa1",
            "enforce aaaaaaa1 down",
            "add bbbbbbb1",
            "enforce bbbbbbb1 down"
        ]
    );
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn add_announces_the_address_after_the_host_end_is_up() {
    let node = Node::new();
    let pod = Pod::new("aaaaaaa2");
    // The bridge has a carrier, or it forgets its neighbours when it gets one.
    let other = Pod::new("bbbbbbb2");
    node.add(&other).success();
    // Entries with a wrong MAC are corrected by the announcement alone.
    node.ns.sh(
        "ip neigh add 10.32.0.11 lladdr 0a:58:00:00:00:01 dev weave nud stale; \
         ip -6 neigh add fd00:10::11 lladdr 0a:58:00:00:00:01 dev weave nud stale",
    );
    node.add(&pod).success();
    weft_testkit::eventually::eventually(std::time::Duration::from_secs(5), || {
        let neighbours = node.ns.sh("ip neigh show dev weave");
        let right = |ip: &str| {
            neighbours
                .lines()
                .any(|l| l.starts_with(ip) && l.contains("0a:58:0a:20:00:0b"))
        };
        if right("10.32.0.11 ") && right("fd00:10::11 ") {
            Ok(())
        } else {
            Err(neighbours)
        }
    });
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn add_twice_answers_the_same_and_keeps_a_whole_pair() {
    let node = Node::new();
    let pod = Pod::new("aaaaaaa3");
    let first = node.add(&pod).success();
    let index = node.link("vethweplaaaaaaa", "ifindex");
    assert_eq!(node.add(&pod).success(), first);
    assert_eq!(node.link("vethweplaaaaaaa", "ifindex"), index);
    // Half of it is missing: replaced.
    pod.ns.sh("ip addr flush dev eth0");
    let again = node.add(&pod).success();
    assert_eq!(again["ips"], first["ips"]);
    assert_ne!(node.link("vethweplaaaaaaa", "ifindex"), index);
    pod.ns.sh("ping -c1 -W2 10.32.0.1");
    // Killed between making the pair and marking it: replaced.
    node.del(&pod).success();
    node.ns.sh(&format!(
        "ip link add vethweplaaaaaaa type veth peer name eth0 netns {}",
        pod.ns.name()
    ));
    node.add(&pod).success();
    pod.ns.sh("ping -c1 -W2 10.32.0.1");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn add_refuses_devices_that_are_not_ours_and_leaves_them_alone() {
    let node = Node::new();
    let pod = Pod::new("aaaaaaa4");
    node.ns.sh("ip link add vethweplaaaaaaa type bridge");
    let error = node.add(&pod).failure(5);
    assert!(
        error["msg"].as_str().unwrap().contains("vethweplaaaaaaa"),
        "{error}"
    );
    node.ns
        .sh("ip link show vethweplaaaaaaa; ip link del vethweplaaaaaaa");
    pod.ns.sh("ip link add eth0 type bridge");
    let error = node.add(&pod).failure(5);
    assert!(
        error["details"].as_str().unwrap().contains("eth0"),
        "{error}"
    );
    assert_eq!(pod.ns.sh("ip -d link show eth0 | grep -c bridge_id"), "1");
    assert_eq!(node.router.held(), 0);
    node.ns.sh("ip link del weave");
    let error = node.add(&pod).failure(11);
    assert_eq!(error["msg"], "this node has no bridge weave");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn what_fails_in_add_is_undone() {
    let node = Node::new();
    let pod = Pod::new("aaaaaaa5");
    node.router.refuse_enforce(true);
    let error = node.add(&pod).failure(11);
    assert_eq!(error["msg"], "policy is not in the kernel yet");
    assert_eq!(node.pod_links(), "");
    assert!(pod.ns.try_sh("ip link show eth0").is_err());
    assert_eq!(node.router.held(), 0);
    node.router.refuse_enforce(false);
    node.add(&pod).success();
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn a_sandbox_that_vanished_is_unknown() {
    let node = Node::new();
    let pod = Pod::new("aaaaaaa6");
    let env = |netns: &str| {
        vec![
            ("CNI_CONTAINERID".to_owned(), "aaaaaaa6".to_owned()),
            ("CNI_NETNS".to_owned(), netns.to_owned()),
            ("CNI_IFNAME".to_owned(), "eth0".to_owned()),
        ]
    };
    let gone = node
        .call("ADD", env("/run/netns/weft-no-such"), &node.conf())
        .failure(3);
    assert_eq!(
        gone["msg"],
        "network namespace /run/netns/weft-no-such does not exist"
    );
    node.call("ADD", env("/proc/self/mounts"), &node.conf())
        .failure(3);
    node.call("ADD", env("/proc/self/ns/net"), &node.conf())
        .failure(4);
    assert_eq!(node.router.log(), Vec::<String>::new());
    // DEL needs none of it.
    node.add(&pod).success();
    let mut without = env("/run/netns/weft-no-such");
    node.call("DEL", without.clone(), &node.conf())
        .success_empty();
    without.remove(1);
    node.call("DEL", without, &node.conf()).success_empty();
    assert_eq!(node.pod_links(), "");
    assert_eq!(node.router.held(), 0);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn del_is_idempotent_and_takes_only_its_own_link() {
    let node = Node::new();
    let (a, b) = (Pod::new("aaaaaaa7"), Pod::new("bbbbbbb7"));
    node.add(&a).success();
    node.add(&b).success();
    // Another cluster's or nobody's link with the name the DEL would look for first.
    node.ns.sh("ip link add vethweplccccccc type bridge");
    node.del(&Pod::named("ccccccc7", &a)).success_empty();
    node.ns
        .sh("ip link show vethweplccccccc; ip link del vethweplccccccc");
    node.del(&a).success_empty();
    node.del(&a).success_empty();
    assert!(a.ns.try_sh("ip link show eth0").is_err());
    b.ns.sh("ping -c1 -W2 10.32.0.1");
    assert_eq!(node.router.held(), 1);
    // A link under another name is found by its mark.
    node.ns
        .sh("ip link set vethweplbbbbbbb down; ip link set vethweplbbbbbbb name vethweplx");
    node.del(&b).success_empty();
    assert_eq!(node.pod_links(), "");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn two_interfaces_of_a_sandbox_are_two_attachments() {
    let node = Node::new();
    let pod = Pod::new("aaaaaaac1");
    let second: Vec<(String, String)> = pod
        .env()
        .into_iter()
        .map(|(k, v)| {
            if k == "CNI_IFNAME" {
                (k, "net1".into())
            } else {
                (k, v)
            }
        })
        .collect();
    node.add(&pod).success();
    // A DEL of what was never added takes nothing of the other.
    node.call("DEL", second.clone(), &node.conf())
        .success_empty();
    node.call("ADD", second.clone(), &node.conf()).success();
    assert_eq!(node.pod_links(), "vethweplaaaaaaa\nvethweplnet1");
    // The first keeps the default route.
    assert_eq!(
        pod.ns.sh("ip route show default"),
        "default via 10.32.0.1 dev eth0"
    );
    let mut gc = node.conf();
    gc["cni.dev/valid-attachments"] =
        serde_json::json!([{"containerID": "aaaaaaac1", "ifname": "eth0"}]);
    node.call("GC", vec![], &gc).success_empty();
    assert_eq!(node.pod_links(), "vethweplaaaaaaa");
    node.call("ADD", second.clone(), &node.conf()).success();
    node.del(&pod).success_empty();
    assert_eq!(node.pod_links(), "vethweplnet1");
    node.call("DEL", second, &node.conf()).success_empty();
    assert_eq!((node.pod_links(), node.router.held()), (String::new(), 0));
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn check_passes_on_what_add_made_and_names_every_difference() {
    let node = Node::new();
    let pod = Pod::new("aaaaaaa8");
    let result = node.add(&pod).success();
    node.check(&pod, &result).success_empty();
    node.call("CHECK", pod.env(), &node.conf()).failure(7);
    for (tamper, named) in [
        ("ip route del default", "route to 0.0.0.0/0"),
        (
            "ip addr del 10.32.0.10/12 dev eth0",
            "lacks address 10.32.0.10/12",
        ),
        ("ip link set eth0 down", "eth0 in the pod is down"),
        (
            "ip link set eth0 address 0a:58:0a:20:00:99",
            "has MAC 0a:58:0a:20:00:99",
        ),
        ("ip link set eth0 name eth9", "no interface eth0"),
    ] {
        pod.ns.sh(tamper);
        let error = node.check(&pod, &result).failure(100);
        let msg = error["msg"].as_str().unwrap();
        assert!(msg.contains(named), "{tamper}: {msg}");
    }
    node.ns.sh("ip link set vethweplaaaaaaa nomaster");
    let error = node.check(&pod, &result).failure(100);
    assert!(
        error["msg"]
            .as_str()
            .unwrap()
            .contains("not a port of bridge weave"),
        "{error}"
    );
    node.del(&pod).success_empty();
    node.check(&pod, &result).failure(3);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn twenty_adds_at_once_all_work() {
    let node = Node::new();
    let pods: Vec<Pod> = (0..20).map(|n| Pod::new(&format!("p{n:06}x"))).collect();
    let mut addresses: Vec<String> = std::thread::scope(|scope| {
        let calls: Vec<_> = pods
            .iter()
            .map(|pod| scope.spawn(|| node.add(pod).success()))
            .collect();
        calls
            .into_iter()
            .map(|c| c.join().unwrap()["ips"][0]["address"].to_string())
            .collect()
    });
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 20);
    for pod in &pods {
        pod.ns.sh("ping -c1 -W2 10.32.0.1");
    }
    std::thread::scope(|scope| {
        for pod in &pods {
            scope.spawn(|| node.del(pod).success_empty());
        }
    });
    assert_eq!(node.pod_links(), "");
    assert_eq!(node.router.held(), 0);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn gc_takes_what_is_not_listed_and_touches_nothing_foreign() {
    let node = Node::new();
    let (a, b) = (Pod::new("aaaaaaa9"), Pod::new("bbbbbbb9"));
    node.add(&a).success();
    node.add(&b).success();
    node.ns.sh("ip link add vethweplforeign type bridge; \
         ip link add vethweplother type bridge; ip link set vethweplother alias weft/cluster-2/zzz; \
         ip link add mine type bridge; ip link set mine alias weft/cluster-1/fabric");
    let mut conf = node.conf();
    node.call("GC", vec![], &conf).failure(7);
    conf["clusterID"] = "cluster-1".into();
    conf["cni.dev/valid-attachments"] =
        serde_json::json!([{"containerID": "bbbbbbb9", "ifname": "eth0"}]);
    node.call("GC", vec![], &conf).success_empty();
    assert!(node.pod_links().contains("vethweplbbbbbbb"));
    assert!(!node.pod_links().contains("vethweplaaaaaaa"));
    node.ns
        .sh("ip link show vethweplforeign; ip link show vethweplother; ip link show mine");
    assert_eq!(node.router.log().last().unwrap(), "gc [bbbbbbb9]");
    conf["cniVersion"] = "1.0.0".into();
    node.call("GC", vec![], &conf).failure(1);
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn without_the_router_add_says_try_again_and_del_leaves_a_tombstone() {
    let mut node = Node::new();
    let pod = Pod::new("aaaaaab1");
    node.add(&pod).success();
    node.router.stop();
    let other = Pod::new("bbbbbbb1");
    let error = node.add(&other).failure(11);
    assert!(
        error["msg"].as_str().unwrap().contains("router.sock"),
        "{error}"
    );
    node.call("STATUS", vec![], &node.conf()).failure(50);
    node.del(&pod).success_empty();
    node.del(&pod).success_empty();
    assert_eq!(node.pod_links(), "");
    let buried = weft_socket::tombstone::list(&node.dir.path().join("del")).unwrap();
    let ids: Vec<_> = buried.iter().map(|t| t.id.container_id.as_str()).collect();
    // The ADD that got no answer is noted as well: it may have been done.
    assert_eq!(ids, ["aaaaaab1", "bbbbbbb1"]);
    node.router.start();
    node.add(&pod).success();
    let left = weft_socket::tombstone::list(&node.dir.path().join("del")).unwrap();
    assert_eq!(left.len(), 1);
    node.del(&other).success_empty();
    assert_eq!(
        weft_socket::tombstone::list(&node.dir.path().join("del")).unwrap(),
        vec![]
    );
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn status_follows_the_router() {
    let node = Node::new();
    node.call("STATUS", vec![], &node.conf()).success_empty();
    node.router.ready(false);
    let error = node.call("STATUS", vec![], &node.conf()).failure(50);
    assert_eq!(error["details"], "no confirmed block");
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn after_an_uninstall_the_last_del_removes_conflist_plugin_and_state() {
    let mut node = Node::new();
    let (a, b) = (Pod::new("aaaaaab2"), Pod::new("bbbbbbb2"));
    node.add(&a).success();
    node.add(&b).success();
    node.router.stop();
    let conflist = node.dir.path().join("net.d/10-weft.conflist");
    let state = node.dir.path().join("weft");
    std::fs::create_dir_all(conflist.parent().unwrap()).unwrap();
    std::fs::create_dir_all(&state).unwrap();
    std::fs::write(&conflist, "{}").unwrap();
    std::fs::write(state.join("ipam.log"), "x").unwrap();
    let net_d = conflist.parent().unwrap().display().to_string();
    std::fs::write(state.join("uninstalled"), format!("{net_d}\n")).unwrap();
    let error = node.add(&Pod::new("ccccccc2")).failure(11);
    assert_eq!(error["msg"], "weft was uninstalled from this node");
    node.del(&a).success_empty();
    assert!(conflist.exists() && state.exists() && node.plugin.exists());
    node.del(&b).success_empty();
    // The kubelet stops a sandbox more than once; the runtime needs the configuration for it.
    assert!(conflist.exists() && node.plugin.exists());
    node.del(&b).success_empty();
    weft_testkit::eventually::eventually_eq(
        std::time::Duration::from_secs(40),
        &[false; 3],
        || [conflist.exists(), state.exists(), node.plugin.exists()],
    );
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn results_have_the_shape_of_the_version_asked_for() {
    let node = Node::new();
    let pod = Pod::new("aaaaaab3");
    for (version, has_ip_version, has_mtu) in [
        ("0.4.0", true, false),
        ("1.0.0", false, false),
        ("1.1.0", false, true),
    ] {
        let mut conf = node.conf();
        conf["cniVersion"] = version.into();
        let result = match node.call("ADD", pod.env(), &conf) {
            Outcome::Success(value) => value,
            Outcome::Failure(error) => panic!("{version}: {error}"),
        };
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["ips"][0].get("version").is_some(), has_ip_version);
        assert_eq!(result["interfaces"][2].get("mtu").is_some(), has_mtu);
        conf["prevResult"] = result;
        node.call("CHECK", pod.env(), &conf).success_empty();
        node.del(&pod).success_empty();
    }
}
