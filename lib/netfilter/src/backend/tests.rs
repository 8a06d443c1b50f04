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

#[test]
fn only_what_is_not_there_is_absent() {
    let error = |class, message: &str| ToolError {
        class,
        ..ToolError::from_output("tool", message.to_owned(), "")
    };
    for (class, message, absent) in [
        (
            "missing",
            "cannot start it: No such file or directory",
            true,
        ),
        ("start", "cannot start it: Cannot allocate memory", false),
        ("timeout", "killed after 10 s without an answer", false),
        (
            "lock",
            "Another app is currently holding the xtables lock",
            false,
        ),
        (
            "exit",
            "iptables-save v1.8.9 (legacy): Cannot initialize: Table does not exist (do you need \
             to insmod?)",
            true,
        ),
        (
            "exit",
            "ip6tables-save v1.8.9 (legacy): Cannot initialize: Address family not supported by \
             protocol",
            true,
        ),
        (
            "exit",
            "netlink: Error: cache initialization failed: Invalid argument",
            true,
        ),
        ("exit", "ipset v7.17: Cannot open session to kernel.", true),
        (
            "exit",
            "netlink: Error: cache initialization failed: Operation not permitted",
            false,
        ),
        ("exit", "Memory allocation problem", false),
        (
            "exit",
            "failed with signal: 9 (SIGKILL) and said nothing",
            false,
        ),
        ("output", "printed something that is not UTF-8", false),
    ] {
        assert_eq!(error(class, message).is_absent(), absent, "{message}");
    }
}
