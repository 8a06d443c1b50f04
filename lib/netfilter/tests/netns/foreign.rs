//! What others have beside us, and what they do to ours.

use weft_netfilter::{
    backend::Backend as _,
    exec::{Runner, Variant, detect},
};
use weft_testkit::netns::Netns;

use crate::{as_read, backend, both, npc, runner, small, wait};

#[test]
#[ignore = "needs root: own network namespaces"]
fn similar_names_of_others_stay_untouched() {
    both(async |ns, variant| {
        let tool = variant.name();
        ns.sh(&format!(
                "ipset create weft-npcx hash:ip && ipset add weft-npcx 10.0.0.1 && \
                 {tool} -N WEFT-NPCX && {tool} -A WEFT-NPCX -m set --match-set weft-npcx src -j DROP \
                 && {tool} -A FORWARD -j WEFT-NPCX && {tool} -A FORWARD -s 10.9.0.0/16 -j REJECT"
            ));
        let look = format!("{tool}-save | grep -v '^[#:]'; ipset save");
        let before = ns.sh(&look);
        let mut backend = backend(ns, variant, npc()).await;
        backend.sync(&small(&[1], 80)).await.expect("synced");
        assert_eq!(
            ns.sh(&format!("{tool} -S FORWARD")),
            "-P FORWARD ACCEPT\n-A FORWARD -j WEFT-NPC\n-A FORWARD -j WEFT-NPCX\n\
                 -A FORWARD -s 10.9.0.0/16 -j REJECT --reject-with icmp-port-unreachable"
        );
        backend.sweep().await.expect("swept");
        assert_eq!(ns.sh(&look), before);
    });
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn drift_of_every_kind_is_repaired() {
    both(async |ns, variant| {
        let tool = variant.name();
        let desired = small(&[1, 2], 80);
        let mut backend = backend(ns, variant, npc()).await;
        backend.sync(&desired).await.expect("synced");
        for drift in [
            "T -F FORWARD",
            "T -I FORWARD -j ACCEPT",
            "T -A FORWARD -j WEFT-NPC",
            "T -D FORWARD 1 && T -A FORWARD -j WEFT-NPC",
            "T -F WEFT-NPC",
            "T -I WEFT-NPC-I -j ACCEPT",
            "T -A WEFT-NPC-I -m recent --set -j DROP",
            "T -N WEFT-NPC-ALIEN && T -A WEFT-NPC -j WEFT-NPC-ALIEN",
            "T -F && T -X",
            "ipset flush weft-npc-in",
            "ipset add weft-npc-peers 10.99.0.1",
            "ipset create weft-npc-alien hash:ip timeout 600",
            "ipset create weft-npc-in.b hash:net family inet6",
        ] {
            ns.sh(&drift.replace("T ", &format!("{tool} ")));
            let done = backend.verify(&desired).await.expect("verified");
            // A set that nothing looks up is swept, and no drift.
            let drifted = !drift.starts_with("ipset create");
            assert_eq!(done.changed(), drifted, "{drift}");
            let read = backend.read().await.expect("read");
            assert_eq!(read, as_read(&desired), "{drift}");
            let first = ns.sh(&format!("{tool} -S FORWARD | sed -n 2p"));
            assert_eq!(first, "-A FORWARD -j WEFT-NPC", "{drift}");
            let ours = ns.sh(&format!("{tool} -S FORWARD | grep -c WEFT-NPC"));
            assert_eq!(ours, "1", "{drift}");
            let again = backend.verify(&desired).await.expect("verified");
            assert!(!again.changed(), "{drift}: {}", again.plan);
            let sets = ns.sh("ipset list -n");
            assert!(!sets.contains("alien") && !sets.contains(".b"), "{drift}");
        }
    });
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn errors_carry_the_line_that_failed() {
    both(async |ns, variant| {
        let mut backend = backend(ns, variant, npc()).await;
        backend.sync(&small(&[1], 80)).await.expect("synced");
        ns.sh("ipset create weft-npc-in.b hash:ip");
        let desired = small(&[1, 2], 80);
        let error = backend.sync(&desired).await.unwrap_err();
        assert_eq!(error.class(), "exit");
        let text = error.to_string();
        assert!(
            text.contains("already exists (at: create weft-npc-in.b "),
            "{text}"
        );
        backend.sync(&desired).await.expect("synced");
    });
}

#[test]
#[ignore = "needs root: own network namespaces"]
fn the_variant_is_where_the_host_keeps_its_rules() {
    let ns = Netns::new();
    wait(async {
        assert_eq!(detect(&runner(&ns)).await, Ok(Variant::Nft));
        ns.sh("iptables-legacy -A INPUT -s 10.9.0.1 -j DROP");
        assert_eq!(detect(&runner(&ns)).await, Ok(Variant::Legacy));
        ns.sh("iptables-nft -t mangle -N KUBE-IPTABLES-HINT");
        assert_eq!(detect(&runner(&ns)).await, Ok(Variant::Nft));
        let nowhere = Runner {
            wrapper: vec!["/nonexistent/tool".to_owned()],
            ..Runner::default()
        };
        assert_eq!(detect(&nowhere).await.unwrap_err().class, "missing");
    });
}
