//! `table netdev weft`: what comes in by one port of `datapath` leaves by the other.
//!
//! `datapath` has two ports of ours, so its decision is always the same: the other one. Taken when a
//! frame arrives, it saves the bridge and, where the node's sysctl sends all bridges through
//! iptables, a second pass of netfilter (docs/adr/0008). Without the table the bridge forwards as
//! before, only slower.

use std::fmt::Write;

use weft_netlink::IfName;

use crate::{
    input::Input,
    names::{VETH_DATAPATH, ifname, tunnel},
};

/// Name of the table, with its family, as `nft` writes it.
pub const SHORTCUT: &str = "netdev weft";

/// Two links, each of which sends out what the other takes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortcut {
    /// The links; both are ports of `datapath` and have no other use.
    pub ends: [IfName; 2],
}

pub(crate) fn shortcut(input: &Input) -> Shortcut {
    Shortcut {
        ends: [ifname(VETH_DATAPATH), ifname(&tunnel(input.port))],
    }
}

impl Shortcut {
    /// Text that replaces the table, whatever is there, in one transaction. Both links must exist.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text =
            format!("add table {SHORTCUT}\ndelete table {SHORTCUT}\ntable {SHORTCUT} {{\n");
        let [one, other] = &self.ends;
        for (from, to) in [(one, other), (other, one)] {
            let _ = writeln!(
                text,
                "\tchain from-{from} {{\n\t\ttype filter hook ingress device \"{from}\" priority 0; \
                 policy accept;\n\t\tfwd to \"{to}\"\n\t}}"
            );
        }
        text.push_str("}\n");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_sends_out_what_the_other_takes_in() {
        let shortcut = Shortcut {
            ends: ["a0", "b0"].map(|name| IfName::parse(name).unwrap()),
        };
        assert_eq!(
            shortcut.render(),
            "add table netdev weft\n\
             delete table netdev weft\n\
             table netdev weft {\n\
             \tchain from-a0 {\n\
             \t\ttype filter hook ingress device \"a0\" priority 0; policy accept;\n\
             \t\tfwd to \"b0\"\n\
             \t}\n\
             \tchain from-b0 {\n\
             \t\ttype filter hook ingress device \"b0\" priority 0; policy accept;\n\
             \t\tfwd to \"a0\"\n\
             \t}\n\
             }\n"
        );
    }
}
