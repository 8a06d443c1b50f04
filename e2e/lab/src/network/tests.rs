use super::*;

#[test]
fn a_node_reads_the_same_in_both_families() {
    assert_eq!(node_addresses(1, Families::V4), ["172.30.0.11"]);
    assert_eq!(
        node_addresses(1, Families::Dual),
        ["172.30.0.11", "fd30::11"]
    );
    assert_eq!(
        addresses(OUTSIDE_HOST, Families::Dual),
        ["172.30.0.200/24", "fd30::200/64"]
    );
    assert_eq!(gateways(Families::Dual), ["172.30.0.1", "fd30::1"]);
}

#[test]
fn no_two_members_share_an_address() {
    let mut hosts: Vec<u8> = (1..=Options::MAXIMUM_NODES).map(node_host).collect();
    hosts.extend([HUB_HOST, OUTSIDE_HOST, ROOT_HOST]);
    let addresses: std::collections::BTreeSet<_> = hosts
        .iter()
        .flat_map(|host| addresses(*host, Families::Dual))
        .collect();
    assert_eq!(addresses.len(), 2 * hosts.len());
}

#[test]
fn node_names_are_canonical() {
    assert_eq!(node_index("n12").unwrap(), 12);
    for name in ["n0", "n101", "n01", "n", "m1", "hub", "n1 "] {
        assert_eq!(
            node_index(name).unwrap_err().to_string(),
            format!("{name:?} is no node name; nodes are n1 to n100")
        );
    }
}
