use weft_crds::{BlockName, BlockNode, IPBlockSpec};
use weft_netlink::{IfName, Kind, Link};

use super::*;

fn block(cidr: &str) -> IPBlock {
    let cidr: IpNet = cidr.parse().unwrap();
    let spec = IPBlockSpec {
        pool: "default".into(),
        cidr: cidr.to_string(),
        node: BlockNode::default(),
        epoch: 1,
    };
    IPBlock::new(&BlockName(cidr).to_string(), spec)
}

/// The addresses that one pod gets back whose port has this MAC.
fn recovered(mac: MacAddr, blocks: &[&str], listed: &[&str]) -> Option<Vec<IpAddr>> {
    let stores = Stores::bare().with_blocks(blocks.iter().map(|b| block(b)).collect());
    let name = IfName::parse("vethwepl0123456").unwrap();
    let link = Link {
        kind: Kind::Veth { peer: None },
        alias: "weft/c/0123456789ab".into(),
        group: 0,
        mac: None,
        mtu: None,
        up: None,
        port: None,
    };
    let entry = FdbEntry::Port {
        link: name.clone(),
        mac,
    };
    let observed = Network {
        links: [(name.clone(), link)].into(),
        fdb: [entry].into(),
        ..Network::default()
    };
    let listed: BTreeSet<IpAddr> = listed.iter().map(|a| a.parse().unwrap()).collect();
    let listed = [(name.to_string(), listed)].into();
    let found = from_kernel(&observed, &Owner::new("c"), &listed, &stores, 7);
    let [one] = found.as_slice() else {
        assert_eq!(found, []);
        return None;
    };
    assert_eq!(one.id.container_id, "0123456789ab");
    assert_eq!(one.id.ifname, "eth0");
    Some(one.addresses.clone())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn after_a_loss_of_the_log_the_port_table_tells_all_addresses() {
    let mac = MacAddr::of_pod(ip("10.32.0.5"));
    assert_eq!(
        recovered(mac, &[], &["10.32.0.5", "fd00:10::5"]),
        Some(vec![ip("10.32.0.5"), ip("fd00:10::5")])
    );
}

#[test]
fn without_the_port_table_the_mac_tells_the_address_of_either_family() {
    let v4 = ip("10.32.0.5");
    assert_eq!(recovered(MacAddr::of_pod(v4), &[], &[]), Some(vec![v4]));
    let v6 = ip("fd00:10:0:7::1:45");
    let blocks = ["10.32.0.0/26", "fd00:10::/122", "fd00:10:0:7::1:40/122"];
    assert_eq!(recovered(MacAddr::of_pod(v6), &blocks, &[]), Some(vec![v6]));
}

#[test]
fn an_ipv6_address_is_never_guessed() {
    let mac = MacAddr::of_pod(ip("fd00:10::45"));
    assert_eq!(recovered(mac, &["fd00:10::/122"], &[]), None, "in no block");
    let two = ["fd00:10::40/122", "fd00:10:0:1::40/122"];
    assert_eq!(recovered(mac, &two, &[]), None, "in two");
    assert_eq!(
        recovered(MacAddr([2, 0, 0, 0, 0, 1]), &two, &[]),
        None,
        "not ours"
    );
}
