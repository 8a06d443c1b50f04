//! What the tests of both backends share.

use super::*;
use crate::{
    Chain, ChainName, Element, Family, Hook, HookJump, Match, Position, Rule, Set, SetKind,
    SetName, Table, Verdict,
};

/// Packets to these addresses are dropped.
pub(super) fn ruleset(addresses: &[&str]) -> Ruleset {
    let set = SetName::new("weft-npc-in").expect("name");
    let chain = ChainName::new("WEFT-NPC").expect("name");
    let elements = addresses
        .iter()
        .map(|a| Element::Addr(a.parse().expect("address")));
    let table = Table {
        sets: [(set.clone(), Set::new(SetKind::Addr).containing(elements))].into(),
        chains: [(
            chain.clone(),
            Chain::filter(vec![Rule::new([Match::dst_set(set)], Verdict::Drop)]),
        )]
        .into(),
        hooks: vec![HookJump {
            hook: Hook::Forward,
            to: chain,
            matches: vec![],
            position: Position::Top,
        }],
    };
    Ruleset {
        tables: [(Family::V4, table)].into(),
    }
}

/// `dropped`, and where the kernel differs, for a packet to 10.0.0.1 when `wanted` is wanted.
#[cfg(feature = "trace")]
pub(super) fn traced(backend: &mut impl Backend, wanted: &Ruleset) -> (Option<bool>, Vec<String>) {
    let address = |text: &str| text.parse().expect("address");
    let packet = Packet::tcp(address("10.0.0.9"), address("10.0.0.1"), 80);
    let passes = [Pass::new(Hook::Forward, Some("weave"), Some("weave"))];
    let traced = now(backend.trace(wanted, &packet, &passes)).expect("traced");
    (traced.dropped, traced.drift)
}

/// The fake's futures are ready at once.
pub(super) fn now<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("runtime")
        .block_on(future)
}
