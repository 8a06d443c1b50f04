//! kube-proxy changes its mode while npc runs: npc follows, without opening and without a rest.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use weft_socket::{NpcRequest, NpcStatus};
use weft_testkit::eventually::eventually;

use crate::{
    dual::addresses,
    node::{CLOSED, Node, OPEN},
    world::arrives,
};

/// What drift repair promises.
const PROMISE: Duration = Duration::from_secs(1);
/// Two looks ten seconds apart must find the same.
const NOTICED: Duration = Duration::from_secs(60);

const IN_NFTABLES: &str = "nft list tables | grep -c -e 'inet weft$' -e 'bridge weft-npc$' || true";
const IN_IPTABLES: &str = "(iptables-nft-save; ip6tables-nft-save; iptables-legacy-save; \
                           ip6tables-legacy-save) 2>/dev/null | grep -c WEFT-NPC || true";
const IN_SETS: &str = "ipset list -n | grep -c weft-npc- || true";

/// Counts connections of the sender that got to the closed pod, or not to the open one, until told to
/// stop: (attempts, wrongly allowed, wrongly refused).
fn prober(node: &Node, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<[u32; 3]> {
    node.sender().run(move || {
        std::thread::spawn(move || {
            let mut counts = [0; 3];
            while !stop.load(Ordering::Relaxed) {
                for family in 0..2 {
                    counts[0] += 1;
                    let short = Duration::from_millis(20);
                    // Less than the second after which a lost SYN is sent again.
                    let long = Duration::from_millis(900);
                    counts[1] += u32::from(arrives(addresses(CLOSED)[family], short));
                    counts[2] += u32::from(!arrives(addresses(OPEN)[family], long));
                }
            }
            counts
        })
    })
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn auto_follows_kube_proxy_while_npc_runs_and_opens_and_refuses_nothing() {
    let node = Node::new(&json!({"backend": "Auto"}));
    let backend = || {
        let status = node.world.ask::<NpcStatus>(&NpcRequest::Status);
        status.expect("status").backend
    };
    assert_eq!(backend(), "iptables-nft");
    let look = |script: &str| node.world.ns.sh(script);
    for (change, name, harm) in [
        (
            "nft add table ip kube-proxy",
            "nftables",
            "nft flush table inet weft",
        ),
        (
            "nft delete table ip kube-proxy && iptables-nft -t nat -N KUBE-SERVICES",
            "iptables-nft",
            "iptables-nft -F WEFT-NPC",
        ),
    ] {
        let stop = Arc::new(AtomicBool::new(false));
        let running: Vec<_> = (0..4).map(|_| prober(&node, Arc::clone(&stop))).collect();
        look(change);
        let in_nftables = name == "nftables";
        let wanted = (name.to_owned(), in_nftables, !in_nftables, !in_nftables);
        eventually(NOTICED, || {
            let seen = (
                backend(),
                look(IN_NFTABLES) != "0",
                look(IN_IPTABLES) != "0",
                look(IN_SETS) != "0",
            );
            if seen == wanted { Ok(()) } else { Err(seen) }
        });
        stop.store(true, Ordering::Relaxed);
        let [mut sent, mut leaked, mut lost] = [0; 3];
        for prober in running {
            let counts = prober.join().expect("a prober");
            sent += counts[0];
            leaked += counts[1];
            lost += counts[2];
        }
        assert!(sent > 100, "only {sent} attempts");
        assert_eq!((leaked, lost), (0, 0), "of {sent} attempts, to {name}");
        // Drift is looked for where the rules are now.
        let repairs = node.repairs();
        look(harm);
        eventually(2 * PROMISE, || match node.repairs() {
            now if now == repairs + 1 && node.is_closed() => Ok(()),
            now => Err(now),
        });
    }
}
