use std::net::IpAddr;

use ipnet::IpNet;
use proptest::prelude::*;

use super::{Family, FreeBlocks, Pool, PoolError, choose_free_block, gateway_for, overlaps};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|t| (*t).to_owned()).collect()
}

fn pool(cidrs: &[&str], v4: u8, v6: u8, exclude: &[&str]) -> Pool {
    Pool::parse("default", &texts(cidrs), v4, v6, &texts(exclude)).unwrap()
}

#[test]
fn the_default_pool_has_16384_blocks() {
    let pool = pool(&["10.32.0.0/12"], 26, 122, &[]);
    assert_eq!(pool.block_count(Family::V4), 16_384);
    assert_eq!(pool.block_count(Family::V6), 0);
    assert_eq!(pool.capacity(Family::V4), (1 << 20) - 2);
    assert_eq!(pool.families(), [Family::V4]);
    let first: Vec<IpNet> = pool.blocks(Family::V4).take(2).collect();
    assert_eq!(first, [net("10.32.0.0/26"), net("10.32.0.64/26")]);
    assert_eq!(pool.blocks(Family::V4).count(), 16_384);
}

#[test]
fn a_huge_ipv6_pool_is_counted_and_searched_without_enumeration() {
    let pool = pool(&["fd00:10::/48"], 26, 122, &["fd00:10::/64"]);
    assert_eq!(pool.block_count(Family::V6), 1 << 74);
    assert_eq!(pool.capacity(Family::V6), (1 << 80) - (1 << 64));
    // 2^58 blocks are excluded: skipped in one step.
    assert_eq!(
        choose_free_block(&pool, Family::V6, &[net("fd00:10:0:1::/122")]),
        Some(net("fd00:10:0:1::40/122"))
    );
}

#[test]
fn text_that_is_no_pool_is_refused_with_the_remedy() {
    let parse = |cidrs: &[&str], v4, exclude: &[&str]| {
        Pool::parse("p", &texts(cidrs), v4, 122, &texts(exclude))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        parse(&["10.32.0.1/12"], 26, &[]),
        "10.32.0.1/12 has host bits set: write 10.32.0.0/12"
    );
    assert_eq!(
        parse(&["10.32.0.0"], 26, &[]),
        "\"10.32.0.0\" is not a CIDR such as 10.32.0.0/12"
    );
    assert_eq!(parse(&[], 26, &[]), "the pool has no CIDR");
    assert_eq!(
        parse(&["10.32.0.0/27"], 26, &[]),
        "blocks of /26 do not fit in 10.32.0.0/27: choose a size from /27 to /32"
    );
    assert_eq!(
        parse(&["10.0.0.0/8"], 16, &[]),
        "blocks of /16 do not fit in 10.0.0.0/8: choose a size from /20 to /32"
    );
    assert_eq!(
        parse(&["10.32.0.0/12"], 26, &["x"]),
        "\"x\" is neither an address nor a CIDR"
    );
    assert_eq!(
        Pool::parse("p", &texts(&["10.0.0.0/8", "10.32.0.0/12"]), 26, 122, &[]),
        Err(PoolError::Overlap(net("10.0.0.0/8"), net("10.32.0.0/12")))
    );
}

#[test]
fn ends_of_the_range_and_exclusions_are_not_usable_ends_of_a_block_are() {
    let pool = pool(
        &["10.32.0.0/24"],
        26,
        122,
        &["10.32.0.8/30", "10.32.0.9", "10.99.0.1"],
    );
    let usable = |a: &str| pool.is_usable(a.parse().unwrap());
    assert!(!usable("10.32.0.0") && !usable("10.32.0.255"));
    assert!(usable("10.32.0.63") && usable("10.32.0.64"));
    assert!(!usable("10.32.0.9") && !usable("10.32.0.11") && usable("10.32.0.12"));
    assert!(!usable("10.33.0.1"));
    assert_eq!(pool.usable_in(net("10.32.0.0/26")), 64 - 1 - 4);
    assert_eq!(
        pool.reserved_in(net("10.32.0.0/26")),
        [
            net("10.32.0.0/32"),
            net("10.32.0.8/30"),
            net("10.32.0.9/32")
        ]
    );
    assert_eq!(pool.capacity(Family::V4), 256 - 2 - 4);
    assert_eq!(
        pool.ungranted(Family::V4, &[net("10.32.0.0/26"), net("10.99.0.0/26")]),
        250 - 59
    );
}

#[test]
fn ranges_of_one_or_two_addresses_are_usable_whole() {
    assert_eq!(
        pool(&["192.0.2.7/32"], 32, 122, &[]).capacity(Family::V4),
        1
    );
    assert_eq!(
        pool(&["192.0.2.6/31"], 32, 122, &[]).capacity(Family::V4),
        2
    );
    let single = pool(&["192.0.2.0/30"], 32, 122, &[]);
    // Blocks that hold nothing usable are not given out.
    assert_eq!(
        choose_free_block(&single, Family::V4, &[]),
        Some(net("192.0.2.1/32"))
    );
    assert_eq!(
        choose_free_block(
            &single,
            Family::V4,
            &[net("192.0.2.1/32"), net("192.0.2.2/32")]
        ),
        None
    );
}

#[test]
fn the_next_range_of_a_pool_is_used_when_the_first_is_full() {
    let pool = pool(&["10.1.0.0/26", "10.2.0.0/26"], 27, 122, &[]);
    let existing = [net("10.1.0.0/27"), net("10.1.0.32/27")];
    assert_eq!(
        choose_free_block(&pool, Family::V4, &existing),
        Some(net("10.2.0.0/27"))
    );
}

#[test]
fn blocks_of_other_sizes_and_single_addresses_are_in_the_way() {
    let pool = pool(&["10.32.0.0/24"], 26, 122, &[]);
    let existing = [
        net("10.32.0.5/32"),
        net("10.32.0.96/27"),
        net("10.32.0.0/20"),
    ];
    assert_eq!(
        choose_free_block(&pool, Family::V4, &existing[..2]),
        Some(net("10.32.0.128/26"))
    );
    assert_eq!(choose_free_block(&pool, Family::V4, &existing), None);
}

#[test]
fn the_gateway_is_the_first_address_that_is_not_excluded() {
    let gateway = |block: &str, exclude: &[&str]| {
        let exclude: Vec<IpNet> = exclude.iter().map(|e| net(e)).collect();
        gateway_for(net(block), &exclude).map(|a| a.to_string())
    };
    assert_eq!(
        gateway("10.32.0.0/26", &["10.32.0.0/32"]),
        Some("10.32.0.1".into())
    );
    assert_eq!(
        gateway("10.32.0.0/26", &["10.32.0.2/31", "10.32.0.0/31"]),
        Some("10.32.0.4".into())
    );
    assert_eq!(
        gateway("10.32.0.64/26", &["10.32.0.0/32"]),
        Some("10.32.0.64".into())
    );
    assert_eq!(gateway("10.32.0.64/26", &["10.32.0.0/16"]), None);
    assert_eq!(gateway("255.255.255.255/32", &["255.255.255.255/32"]), None);
    assert_eq!(
        gateway("fd00::/122", &["fd00::/128"]),
        Some("fd00::1".into())
    );
}

#[test]
fn free_blocks_end_with_the_address_space() {
    let last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00/120";
    let pool = pool(&[last], 26, 122, &[]);
    let taken = net("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff40/122");
    let free: Vec<IpNet> = FreeBlocks::new(&pool, Family::V6, [taken]).collect();
    assert_eq!(
        free,
        [0x00, 0x80, 0xc0].map(|at| net(&format!(
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff{at:02x}/122"
        )))
    );
}

/// A pool of at most 2^7 blocks and some blocks of it, possibly with odd sizes.
fn small() -> impl Strategy<Value = (Pool, Vec<IpNet>)> {
    let nets = |range: std::ops::Range<u8>| {
        prop::collection::vec((any::<u8>(), range), 0..12).prop_map(|list| {
            list.into_iter()
                .map(|(at, prefix)| IpNet::new_assert(IpAddr::from([10, 0, 0, at]), prefix).trunc())
                .collect::<Vec<_>>()
        })
    };
    (25_u8..31, nets(24..33), nets(25..33)).prop_map(|(block, existing, exclude)| {
        let exclude: Vec<String> = exclude.iter().map(ToString::to_string).collect();
        let pool = Pool::parse("p", &["10.0.0.0/24".to_owned()], block, 122, &exclude).unwrap();
        (pool, existing)
    })
}

proptest! {
    #[test]
    fn the_chosen_block_is_the_first_of_all_that_are_free((pool, existing) in small()) {
        let expected = pool
            .blocks(Family::V4)
            .find(|b| pool.usable_in(*b) > 0 && !existing.iter().any(|e| overlaps(*e, *b)));
        prop_assert_eq!(choose_free_block(&pool, Family::V4, &existing), expected);
    }

    /// Also when the ranges of the pool are not in order.
    #[test]
    fn one_after_the_other_they_are_all_blocks_that_are_free((pool, existing) in small(), swap: bool) {
        let mut pool = pool;
        pool.cidrs = vec![net("10.0.0.0/25"), net("10.0.0.128/25")];
        if swap {
            pool.cidrs.reverse();
        }
        let mut expected = Vec::new();
        let mut taken = existing.clone();
        while let Some(block) = choose_free_block(&pool, Family::V4, &taken) {
            expected.push(block);
            taken.push(block);
        }
        let free: Vec<IpNet> = pool
            .blocks(Family::V4)
            .filter(|b| pool.usable_in(*b) > 0 && !existing.iter().any(|e| overlaps(*e, *b)))
            .collect();
        prop_assert_eq!(&expected, &free);
        prop_assert_eq!(FreeBlocks::new(&pool, Family::V4, existing).collect::<Vec<_>>(), free);
    }

    #[test]
    fn counted_and_enumerated_usable_addresses_agree((pool, _) in small()) {
        for block in pool.blocks(Family::V4) {
            let IpNet::V4(v4) = block else { unreachable!() };
            let first = u32::from(v4.network());
            let last = u32::from(v4.broadcast());
            let listed = (first..=last).filter(|a| pool.is_usable(IpAddr::V4((*a).into()))).count();
            prop_assert_eq!(pool.usable_in(block), listed as u128);
        }
    }

    #[test]
    fn the_gateway_is_usable_and_none_before_it_is((pool, _) in small()) {
        for block in pool.blocks(Family::V4) {
            let gateway = gateway_for(block, &pool.reserved_in(block));
            let IpNet::V4(v4) = block else { unreachable!() };
            let expected = (u32::from(v4.network())..=u32::from(v4.broadcast()))
                .map(|a| IpAddr::V4(a.into()))
                .find(|a| pool.is_usable(*a));
            prop_assert_eq!(gateway, expected);
        }
    }
}
