use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use weft_crds::{
    Condition, IPPool, IPPoolSpec, IPPoolStatus, Peer, PeerSlice, PeerSliceSpec, WeftNode,
    WeftNodeSpec,
};
use weft_ipam::node::Attachment;
use weft_netlink::{Address, Kind, Link};

use super::*;

fn weft_node(uid: &str, addresses: &[&str]) -> WeftNode {
    let spec = WeftNodeSpec {
        node_uid: uid.into(),
        addresses: addresses.iter().map(|a| (*a).to_owned()).collect(),
        gateways: vec!["10.32.0.1".into()],
        ..WeftNodeSpec::default()
    };
    WeftNode::new("n1", spec)
}

fn stores(weft_node: Option<WeftNode>) -> Stores {
    let node = Node {
        metadata: ObjectMeta {
            name: Some("n1".into()),
            uid: Some("uid-1".into()),
            ..ObjectMeta::default()
        },
        ..Node::default()
    };
    let peer = |node: &str, address: &str| Peer {
        node: node.into(),
        underlay: vec![address.into()],
        ..Peer::default()
    };
    let slice = PeerSlice::new(
        "peers-0",
        PeerSliceSpec {
            generation: 7,
            peers: vec![peer("n1", "192.0.2.1"), peer("n2", "192.0.2.2")],
        },
    );
    let pool = |name: &str, cidr: &str, overlaps: Option<ConditionStatus>| {
        let spec = IPPoolSpec {
            cidrs: vec![cidr.into()],
            ..IPPoolSpec::default()
        };
        let mut pool = IPPool::new(name, spec);
        pool.status = overlaps.map(|status| IPPoolStatus {
            conditions: vec![Condition {
                type_: "CIDROverlap".into(),
                status,
                reason: "Test".into(),
                message: String::new(),
                observed_generation: None,
                last_transition_time: None,
            }],
            ..IPPoolStatus::default()
        });
        pool
    };
    let free = Some(ConditionStatus::False);
    let pools = vec![
        pool("default", "10.32.0.0/12", free),
        pool("broken", "no CIDR", free),
        pool("not-judged", "10.64.0.0/16", None),
        pool("overlaps", "10.65.0.0/16", Some(ConditionStatus::True)),
        pool("over-this-node", "192.0.2.0/24", free),
    ];
    Stores::fixed(node, weft_node, vec![slice], pools)
}

/// A host with `eth0` (MTU 9000, 192.0.2.1) and `eth1` (198.51.100.1).
fn observed() -> Network {
    let mut network = Network::default();
    for (name, mtu, net) in [
        ("eth0", 9000, "192.0.2.1/24"),
        ("eth1", 1500, "198.51.100.1/24"),
    ] {
        let link = IfName::parse(name).unwrap();
        network.links.insert(
            link.clone(),
            Link {
                kind: Kind::Other(String::new()),
                alias: String::new(),
                group: 0,
                mac: None,
                mtu: Some(mtu),
                up: Some(true),
                port: None,
            },
        );
        network.addresses.insert(Address {
            link,
            net: net.parse().unwrap(),
        });
    }
    network
}

fn gathered(stores: &Stores, config: &NodeConfig) -> Result<Gathered, Verdict> {
    gather("n1", config, stores, &[], &observed())
}

#[track_caller]
fn refused(stores: &Stores, config: &NodeConfig) -> String {
    gathered(stores, config).map(|_| ()).unwrap_err().reason
}

#[test]
fn the_fabric_is_decided_from_own_node_peers_and_pools_that_overlap_nothing() {
    let stores = stores(Some(weft_node("uid-1", &["192.0.2.1"])));
    let g = gathered(&stores, &NodeConfig::default()).unwrap();
    assert_eq!(g.generation, 7);
    assert_eq!(g.input.underlay, "192.0.2.1".parse::<IpAddr>().unwrap());
    assert_eq!(g.input.underlay_mtu, 9000);
    assert_eq!(g.input.peers.keys().collect::<Vec<_>>(), ["n2"]);
    assert_eq!(
        g.input.pools,
        BTreeSet::from(["10.32.0.0/12".parse().unwrap()])
    );
}

/// What the devices' MTU and the settings of the way out are decided from.
#[test]
fn the_largest_mtu_of_our_pods_and_the_links_of_the_node_are_found() {
    let mut network = observed();
    for (name, alias, mtu) in [
        ("vethwepl0000001", "weft/c/1", 1350),
        ("vethwepl0000002", "weft/c/2", 1450),
        ("vethwepl0000003", "weft/another/3", 9000),
        ("weave", "weft/c/fabric", 8950),
    ] {
        let like = network.links[&IfName::parse("eth0").unwrap()].clone();
        let link = Link {
            alias: alias.into(),
            mtu: Some(mtu),
            ..like
        };
        network.links.insert(IfName::parse(name).unwrap(), link);
    }
    let config = NodeConfig {
        cluster_id: "c".into(),
        ..NodeConfig::default()
    };
    let stores = stores(Some(weft_node("uid-1", &["192.0.2.1", "203.0.113.9"])));
    let seen = |network: &Network| {
        let input = gather("n1", &config, &stores, &[], network).unwrap().input;
        let links: Vec<String> = input
            .underlay_links
            .iter()
            .map(ToString::to_string)
            .collect();
        (input.pods_mtu, links)
    };
    assert_eq!(seen(&observed()), (None, vec!["eth0".to_owned()]));
    assert_eq!(seen(&network), (Some(1450), vec!["eth0".to_owned()]));
}

#[test]
fn what_is_missing_is_named() {
    let config = NodeConfig::default();
    assert_eq!(refused(&stores(None), &config), "NoWeftNode");
    let other = stores(Some(weft_node("uid-0", &["192.0.2.1"])));
    assert_eq!(refused(&other, &config), "OtherNode");
    let without = stores(Some(weft_node("uid-1", &[])));
    assert_eq!(refused(&without, &config), "NoInternalIP");
}

#[test]
fn the_underlay_is_chosen_by_interface_or_cidr() {
    let stores = stores(Some(weft_node("uid-1", &["192.0.2.1"])));
    let mut config = NodeConfig::default();
    config.network.fabric.underlay.interface = Some("eth1".into());
    let eth1: IpAddr = "198.51.100.1".parse().unwrap();
    assert_eq!(gathered(&stores, &config).unwrap().input.underlay, eth1);
    config.network.fabric.underlay.interface = Some("eth9".into());
    assert_eq!(refused(&stores, &config), "NoUnderlayAddress");
    config.network.fabric.underlay.interface = None;
    config.network.fabric.underlay.cidr = Some("198.51.100.0/24".into());
    assert_eq!(gathered(&stores, &config).unwrap().input.underlay, eth1);
    config.network.fabric.underlay.cidr = Some("203.0.113.0/24".into());
    assert_eq!(refused(&stores, &config), "NoUnderlayAddress");
}

#[test]
fn two_interfaces_of_one_sandbox_have_two_ports() {
    let reservation = |ifname: &str, address: &str| Reservation {
        id: Attachment {
            container_id: "1a2b3c4d5e6f".into(),
            ifname: ifname.into(),
        },
        addresses: vec![address.parse().unwrap()],
        ..Reservation::default()
    };
    let ports = pod_ports(&[
        reservation("eth0", "10.32.0.5"),
        reservation("net1", "10.32.0.6"),
    ]);
    assert_eq!(ports.len(), 2);
    assert!(ports.contains_key(&IfName::parse("vethwepl1a2b3c4").unwrap()));
    assert_eq!(alias_of("c1", "1a2b", "eth0"), "weft/c1/1a2b");
    assert_eq!(alias_of("c1", "1a2b", "net1"), "weft/c1/1a2b/net1");
}
