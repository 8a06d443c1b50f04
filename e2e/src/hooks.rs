//! Order of the jumps in the host's FORWARD and INPUT chains, as `iptables-save` shows it.
//!
//! npc must judge a packet before anybody accepts it: kube-proxy (`KUBE-*`), the host's own rules
//! and the router's accepts stand behind its jump.

use anyhow::{Context as _, ensure};

/// Targets of the rules of a built-in chain of the table `filter` in their order; `-` for a rule
/// without a target.
#[must_use]
pub fn targets(save: &str, chain: &str) -> Vec<String> {
    let append = format!("-A {chain} ");
    save.lines()
        .skip_while(|line| *line != "*filter")
        .take_while(|line| *line != "COMMIT")
        .filter_map(|line| line.strip_prefix(append.as_str()))
        .map(|rule| {
            let mut words = rule.split(' ');
            words
                .find(|word| matches!(*word, "-j" | "-g"))
                .and_then(|_| words.next())
                .unwrap_or("-")
                .to_owned()
        })
        .collect()
}

/// Whether npc comes first, then the router, and the router's last accept behind kube-proxy's
/// refusals. `npc` tells whether npc has jumps here at all (it has none of a family that no pod
/// has).
///
/// # Errors
/// What stands at a wrong place, with the whole order.
pub fn judge(save: &str, npc: bool) -> anyhow::Result<()> {
    let forward = targets(save, "FORWARD");
    let input = targets(save, "INPUT");
    let mut first = vec!["WEFT-FORWARD"];
    let mut first_input = vec!["WEFT-INPUT"];
    if npc {
        first.insert(0, "WEFT-NPC");
        first_input.insert(0, "WEFT-NPC-INPUT");
    }
    starts_with(&forward, &first).with_context(|| format!("FORWARD is {forward:?}"))?;
    starts_with(&input, &first_input).with_context(|| format!("INPUT is {input:?}"))?;
    let out = forward
        .iter()
        .position(|target| target == "WEFT-FORWARD-OUT")
        .with_context(|| format!("no WEFT-FORWARD-OUT: {forward:?}"))?;
    let services = forward.iter().rposition(|target| target == "KUBE-SERVICES");
    ensure!(
        services.is_none_or(|services| services < out),
        "WEFT-FORWARD-OUT accepts what KUBE-SERVICES would refuse: {forward:?}"
    );
    for (chain, order) in [("FORWARD", &forward), ("INPUT", &input)] {
        for target in order.iter().filter(|target| target.starts_with("WEFT-")) {
            let count = order.iter().filter(|other| *other == target).count();
            ensure!(
                count == 1,
                "{count} jumps to {target} in {chain}: {order:?}"
            );
        }
    }
    Ok(())
}

fn starts_with(order: &[String], first: &[&str]) -> anyhow::Result<()> {
    let begin: Vec<&str> = order.iter().map(String::as_str).take(first.len()).collect();
    ensure!(
        begin == first,
        "it begins with {begin:?} instead of {first:?}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A filter table with these jumps in FORWARD, and the right ones in INPUT.
    fn save(forward: &[&str]) -> String {
        let mut text = String::from(
            "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:WEFT-NPC - [0:0]\n\
             -A INPUT -i weave -j WEFT-NPC-INPUT\n-A INPUT -j WEFT-INPUT\n\
             -A INPUT -j KUBE-FIREWALL\n-A WEFT-NPC -j RETURN\n",
        );
        for target in forward {
            text.push_str(&format!(
                "-A FORWARD -m comment --comment \"a b\" -j {target}\n"
            ));
        }
        text + "COMMIT\n"
    }

    fn wrong(forward: &[&str]) -> String {
        format!(
            "{:#}",
            judge(&save(forward), true).expect_err("wrong order")
        )
    }

    #[test]
    fn targets_are_read_in_order() {
        let text = "*mangle\n-A INPUT -j M\nCOMMIT\n*filter\n-A INPUT -m comment --comment x -j A\n\
                    -A INPUT -i eth0\n-A INPUT -g B\n-A INPUTS -j C\nCOMMIT\n*nat\n-A INPUT -j N\n";
        assert_eq!(targets(text, "INPUT"), ["A", "-", "B"]);
    }

    #[test]
    fn both_modes_of_kube_proxy_have_a_right_order() {
        let iptables = [
            "WEFT-NPC",
            "WEFT-FORWARD",
            "KUBE-FORWARD",
            "KUBE-SERVICES",
            "WEFT-FORWARD-OUT",
        ];
        judge(&save(&iptables), true).expect("kube-proxy iptables");
        let nftables = ["WEFT-NPC", "WEFT-FORWARD", "WEFT-FORWARD-OUT", "ACCEPT"];
        judge(&save(&nftables), true).expect("kube-proxy nftables");
    }

    #[test]
    fn who_gets_ahead_of_npc_is_found() {
        for first in ["KUBE-FORWARD", "WEFT-FORWARD-OUT", "ACCEPT"] {
            let text = wrong(&[first, "WEFT-NPC", "WEFT-FORWARD", "WEFT-FORWARD-OUT"]);
            assert!(
                text.contains(&format!("begins with [\"{first}\"")),
                "{text}"
            );
        }
    }

    #[test]
    fn accept_ahead_of_the_refusals_of_kube_proxy_is_found() {
        let text = wrong(&[
            "WEFT-NPC",
            "WEFT-FORWARD",
            "WEFT-FORWARD-OUT",
            "KUBE-SERVICES",
        ]);
        assert!(text.contains("KUBE-SERVICES would refuse"), "{text}");
    }

    #[test]
    fn second_jump_is_found() {
        let text = wrong(&["WEFT-NPC", "WEFT-FORWARD", "WEFT-FORWARD-OUT", "WEFT-NPC"]);
        assert!(text.starts_with("2 jumps to WEFT-NPC in FORWARD"), "{text}");
    }

    #[test]
    fn family_without_npc_begins_with_the_router() {
        let text = "*filter\n-A INPUT -j WEFT-INPUT\n-A FORWARD -j WEFT-FORWARD\n\
                    -A FORWARD -j WEFT-FORWARD-OUT\nCOMMIT\n";
        judge(text, false).expect("no npc");
        judge(text, true).expect_err("npc is missing");
    }
}
