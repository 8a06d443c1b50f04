//! Random steps and random damage.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::log::{Fault, LogStore};

#[derive(Debug, Clone)]
enum Step {
    Reserve { container: u8, dual: bool },
    Release(u8),
    Wait(u64),
    Blocks(u8),
    Restart,
    Fault(Option<Fault>),
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        Just(None),
        Just(None),
        Just(Some(Fault::DiskFull)),
        Just(Some(Fault::SyncFailed)),
        (0_usize..40).prop_map(|n| Some(Fault::Torn(n))),
    ];
    prop_oneof![
        6 => (0_u8..10, any::<bool>()).prop_map(|(container, dual)| Step::Reserve { container, dual }),
        5 => (0_u8..10).prop_map(Step::Release),
        2 => (1_u64..50).prop_map(Step::Wait),
        1 => (0_u8..4).prop_map(Step::Blocks),
        1 => Just(Step::Restart),
        1 => fault.prop_map(Step::Fault),
    ]
}

/// Blocks by the bits of `which`; gateways stay.
fn some_blocks(which: u8) -> Vec<NodeBlock> {
    let mut blocks = vec![block("10.32.0.0/29"), block("fd00::/125")];
    if which & 1 == 1 {
        blocks.push(block("10.32.0.8/29"));
    }
    if which & 2 == 2 {
        blocks.remove(0);
    }
    blocks
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// What was promised by an answer is the model; the allocator may know more (a reservation whose
    /// write failed half-way), never less and never otherwise.
    #[test]
    fn no_address_has_two_owners_none_is_lost_and_none_is_reused_warm(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let gateways = vec![ip("10.32.0.1"), ip("fd00::1")];
        let mut node = node();
        node.set_blocks(some_blocks(0), gateways.clone());
        let mut blocks = some_blocks(0);
        let mut now = 1000;
        let mut owned: BTreeMap<Attachment, Vec<IpAddr>> = BTreeMap::new();
        let mut released: BTreeMap<IpAddr, u64> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Reserve { container, dual } => {
                    let families: &[Family] = if dual { &[Family::V4, Family::V6] } else { &[Family::V4] };
                    let request = request(&container.to_string(), families);
                    // Promised to nobody, but on disk when the node restarted.
                    let came_back = node.find(&request.id).is_some();
                    if let Ok(given) = node.reserve(&request, now) {
                        match owned.get(&request.id) {
                            Some(before) => prop_assert_eq!(before, &given.addresses),
                            None => {
                                for address in &given.addresses {
                                    prop_assert!(!owned.values().flatten().any(|a| a == address));
                                    prop_assert!(!gateways.contains(address));
                                    if came_back { continue; }
                                    prop_assert!(blocks.iter().any(|b| b.cidr.contains(address)));
                                    if let Some(at) = released.get(address) {
                                        prop_assert!(now >= at + COOLDOWN, "{} warm", address);
                                    }
                                }
                                owned.insert(request.id, given.addresses);
                            }
                        }
                    }
                }
                Step::Release(container) => {
                    let id = id(&container.to_string());
                    node.release(&id, now);
                    for address in owned.remove(&id).unwrap_or_default() {
                        released.insert(address, now);
                    }
                    prop_assert_eq!(node.find(&id), None);
                }
                Step::Wait(seconds) => now += seconds,
                Step::Blocks(which) => {
                    blocks = some_blocks(which);
                    let change = node.set_blocks(blocks.clone(), gateways.clone());
                    for stranded in &change.stranded {
                        prop_assert!(stranded.addresses.iter().any(|a| !blocks.iter().any(|b| b.cidr.contains(a))));
                    }
                }
                Step::Restart => {
                    let (again, start) = reopen(&node);
                    node = again;
                    prop_assert!(matches!(start, Start::Ready { .. }), "{:?}", start);
                    node.set_blocks(blocks.clone(), gateways.clone());
                }
                Step::Fault(fault) => node.store.always = fault,
            }
            for (id, addresses) in &owned {
                prop_assert_eq!(node.find(id).map(|r| &r.addresses), Some(addresses));
            }
            for (cidr, counts) in node.counts(now) {
                prop_assert_eq!(counts.usable, counts.used + counts.cooling + counts.free, "{}", cidr);
            }
        }
    }

    /// A log cut anywhere gives the state of a prefix or is damaged; a flipped bit is damage.
    #[test]
    fn a_cut_or_garbled_log_never_gives_a_wrong_owner(
        containers in prop::collection::vec((0_u8..6, any::<bool>()), 1..30),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let mut node = node();
        let mut prefixes = vec![node.state.clone()];
        for (container, release) in containers {
            let container = container.to_string();
            if release {
                node.release(&id(&container), 5);
            } else {
                let _ = node.reserve(&v4(&container), 5000);
            }
            prefixes.push(node.state.clone());
        }
        let bytes = node.store.read().unwrap().unwrap();
        let at = at.index(bytes.len());
        let open = |bytes: &[u8]| Allocator::open(
            MemoryStore { bytes: Some(bytes.to_vec()), ..MemoryStore::default() },
            identity(),
        );
        let (cut, start) = open(&bytes[..at]);
        if let Start::Ready { .. } = start {
            let held: Vec<_> = cut.list().cloned().collect();
            let is_prefix = held.is_empty()
                || prefixes.iter().any(|p| p.list().cloned().collect::<Vec<_>>() == held);
            prop_assert!(is_prefix);
        }
        let mut garbled = bytes;
        garbled[at] ^= 1 << bit;
        prop_assert!(matches!(open(&garbled).1, Start::NeedsRebuild(Damage::Corrupt(_))));
    }
}
