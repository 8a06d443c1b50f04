//! Where npc holds its rules on a node, and what somebody else can do to them, as shell lines that
//! are run in the node.

use anyhow::{Context as _, ensure};

use crate::Lab;

/// Where npc's rules are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Enforcer {
    /// `table inet weft`.
    Nftables,
    /// Chains of `filter` and sets of ipset.
    Iptables(Variant),
}

/// Which iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// `iptables-legacy`
    Legacy,
    /// `iptables-nft`
    Nft,
}

impl Variant {
    /// Its suffix.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Nft => "nft",
        }
    }
}

/// Something that somebody else does to the rules or devices of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Deed {
    /// What, for people.
    pub(crate) what: String,
    /// The deed.
    pub(crate) line: String,
    /// Succeeds when the damage is repaired; none: when npc's rules look as before.
    pub(crate) repaired: Option<String>,
    /// Takes back what weft rightly leaves alone.
    pub(crate) after: String,
    /// Whether there is anything to repair.
    pub(crate) damage: bool,
}

impl Deed {
    fn new(what: impl Into<String>, line: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            line: line.into(),
            repaired: None,
            after: "true".into(),
            damage: true,
        }
    }

    fn after(mut self, line: impl Into<String>) -> Self {
        self.after = line.into();
        self
    }

    /// Nothing is damaged: it is looked at while `line` runs.
    fn harmless(mut self, line: impl Into<String>) -> Self {
        self.damage = false;
        self.until(line)
    }

    fn until(mut self, line: impl Into<String>) -> Self {
        self.repaired = Some(line.into());
        self
    }
}

/// What became of a deed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Done {
    /// When it was done.
    pub(crate) at_unix_ms: u64,
    /// How long until the rules were as before; none if there was nothing to repair.
    pub(crate) repair_ms: Option<u64>,
}

/// A filter that prints a digest of a dump, the same for rules that are the same: however their
/// elements are ordered, whatever was counted, and in whichever of its two sets npc keeps a set. Its
/// rules go from the one to the other, whose name ends in `.b`, when it fills one anew.
const DIGEST: &str = r"sed 's/[.]b\b//g; s/\[[0-9]*:[0-9]*\]//g; s/hashsize [0-9]*//;
    s/initval 0x[0-9a-f]*//; s/bucketsize [0-9]*//' | tr ',{}' '\n' |
    sed 's/^[ \t]*//; s/[ \t]*$//; s/^elements = *//' | grep -v '^$' | sort | sha1sum";

impl Enforcer {
    /// Finds out where npc's rules are on a node.
    pub(crate) async fn of(lab: &Lab, node: &str) -> anyhow::Result<Self> {
        let line = "if nft list table inet weft >/dev/null 2>&1; then echo nftables; fi; \
             for v in legacy nft; do \
               if iptables-$v-save 2>/dev/null | grep -q -- '-A FORWARD .*-j WEFT-NPC$'; \
                 then echo $v; fi; \
             done; true";
        let found = lab.enter(node, &["sh", "-c", line]).await?;
        let mut words = found.split_whitespace();
        let enforcer = match words.next() {
            Some("nftables") => Self::Nftables,
            Some("legacy") => Self::Iptables(Variant::Legacy),
            Some("nft") => Self::Iptables(Variant::Nft),
            other => anyhow::bail!("no rules of npc on {node} ({other:?})"),
        };
        let more: Vec<&str> = words.collect();
        ensure!(
            more.is_empty(),
            "rules of npc on {node} in {enforcer:?} and in {more:?}"
        );
        Ok(enforcer)
    }

    /// As it is called in reports.
    pub(crate) fn word(self) -> String {
        match self {
            Self::Nftables => "nftables".into(),
            Self::Iptables(variant) => format!("iptables-{}", variant.word()),
        }
    }

    /// The variant of iptables in which rules of others are handled on such a node.
    fn iptables(self) -> String {
        match self {
            Self::Nftables => "iptables-nft".into(),
            Self::Iptables(_) => self.word(),
        }
    }

    /// A shell function `shape` that prints a digest of everything of npc, and of what stands first
    /// in FORWARD; equal rules give equal digests, however often they were written.
    fn shape(self) -> String {
        let dump = match self {
            Self::Nftables => {
                "nft -s list table inet weft; nft -s list table bridge weft-npc".to_owned()
            }
            Self::Iptables(variant) => format!(
                "iptables-{v}-save -t filter | grep WEFT-NPC; \
                 iptables-{v}-save -t filter | grep -m1 '^-A FORWARD'; \
                 ip6tables-{v}-save -t filter | grep WEFT-NPC; \
                 ipset save | grep weft-npc-",
                v = variant.word()
            ),
        };
        format!("shape() {{ {{ {dump}; }} 2>/dev/null | {DIGEST}; }}")
    }

    /// The digest of now.
    pub(crate) async fn digest(self, lab: &Lab, node: &str) -> anyhow::Result<String> {
        let line = format!("{}; shape", self.shape());
        let text = lab.enter(node, &["sh", "-c", &line]).await?;
        Ok(text.trim().to_owned())
    }

    /// Does a deed on a node and waits until it is repaired. The clock is the node's, which in the
    /// lab is everybody's.
    pub(crate) async fn suffer(self, lab: &Lab, node: &str, deed: &Deed) -> anyhow::Result<Done> {
        let check = deed
            .repaired
            .clone()
            .unwrap_or_else(|| "[ \"$(shape)\" = \"$before\" ]".into());
        // Some ten seconds, in steps of 10 ms and what a look takes.
        let line = format!(
            "{shape}; before=$(shape); begun=$(date +%s%3N); \
             {{ {deed}; }} >/dev/null || exit 9; \
             n=0; until {check}; do n=$((n+1)); [ $n -gt 300 ] && break; sleep 0.01; done; \
             ended=$(date +%s%3N); [ $n -le 300 ]; right=$?; {{ {after}; }} >/dev/null; \
             echo $begun $ended $right",
            shape = self.shape(),
            deed = deed.line,
            after = deed.after,
        );
        let text = lab
            .enter(node, &["sh", "-c", &line])
            .await
            .with_context(|| deed.what.clone())?;
        let numbers: Vec<u64> = text
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let [begun, ended, right] = numbers[..] else {
            anyhow::bail!("{}: unexpected answer {text:?}", deed.what);
        };
        ensure!(
            right == 0,
            "{}: not repaired in {} ms",
            deed.what,
            ended - begun
        );
        Ok(Done {
            at_unix_ms: begun,
            repair_ms: deed.damage.then_some(ended - begun),
        })
    }

    /// Flushes and worse, as E24 has them. Each can be done again and again.
    pub(crate) fn flushes(self) -> Vec<Deed> {
        let tool = self.iptables();
        let accept = "FORWARD -m comment --comment weft-faults -j ACCEPT";
        // What is not weft's is put back behind weft's jumps, where it was.
        let flush = Deed::new(
            format!("{tool} -F"),
            format!(
                "{tool}-save -t filter | grep -E '^[*]filter|^-A (INPUT|FORWARD|OUTPUT|KUBE)|^COMMIT' | \
                 grep -v WEFT > /run/weft-faults.rules && {tool} -w 5 -F"
            ),
        )
        .after(format!("{tool}-restore -w 5 --noflush < /run/weft-faults.rules"));
        let policy = Deed::new(
            format!("{tool} -P FORWARD ACCEPT"),
            format!("{tool} -w 5 -P FORWARD ACCEPT"),
        )
        .harmless("sleep 0.3");
        let mut deeds = vec![flush, policy];
        match self {
            Self::Nftables => deeds.extend([
                Deed::new("nft delete table inet weft", "nft delete table inet weft"),
                Deed::new("nft flush table inet weft", "nft flush table inet weft"),
                Deed::new(
                    "nft flush chain inet weft forward",
                    "nft flush chain inet weft forward",
                ),
                Deed::new(
                    "nft insert rule inet weft forward accept",
                    "nft insert rule inet weft forward accept",
                ),
            ]),
            Self::Iptables(_) => deeds.extend([
                Deed::new(
                    format!("{tool} -F WEFT-NPC"),
                    format!("{tool} -w 5 -F WEFT-NPC"),
                ),
                Deed::new(
                    format!("{tool} -D FORWARD -j WEFT-NPC"),
                    format!(
                        "{{ echo '*filter'; {tool}-save -t filter | grep -- '-A FORWARD .*-j WEFT-NPC$' | \
                         sed 's/^-A/-D/'; echo COMMIT; }} | {tool}-restore -w 5 --noflush"
                    ),
                ),
                Deed::new(
                    format!("{tool} -I FORWARD -j ACCEPT"),
                    format!("{tool} -w 5 -I {accept}"),
                )
                .after(format!("{tool} -w 5 -D {accept}")),
            ]),
        }
        deeds
    }

    /// The flush that takes the rules of everybody else away too. kube-proxy and kubelet must be
    /// restarted after it.
    pub(crate) fn flush_of_everything(self) -> Deed {
        Deed::new("nft flush ruleset", "nft flush ruleset")
    }

    /// A shell function `filled` that prints npc's sets that have members: kind and name.
    fn filled(self) -> &'static str {
        match self {
            Self::Iptables(_) => {
                "filled() { for set in $(ipset list -n | grep ^weft-npc- | sort); do \
                   ipset list $set | sed '1,/^Members/d' | grep -q . && echo set $set; done; }"
            }
            Self::Nftables => {
                "filled() { { nft list sets inet; nft list maps inet; } | awk '/table inet/ {t=$3} \
                   /^\t(set|map) / && t == \"weft\" {kind=$1; name=$2} \
                   /elements = / && t == \"weft\" {print kind, name}' | sort; }"
            }
        }
    }

    /// How many sets of npc have members on a node.
    pub(crate) async fn sets(self, lab: &Lab, node: &str) -> anyhow::Result<usize> {
        let line = format!("{}; filled | wc -l", self.filled());
        let text = lab.enter(node, &["sh", "-c", &line]).await?;
        text.trim().parse().context("the number of sets")
    }

    /// Deletions of single things, as E25 has them: each of the first `count` sets that have members
    /// loses one, then all of them lose all.
    pub(crate) fn deletions(self, count: usize) -> Vec<Deed> {
        let filled = self.filled();
        let mut deeds = Vec::new();
        for number in 1..=count {
            let line = match self {
                Self::Iptables(_) => format!(
                    "{filled}; set=$(filled | sed -n {number}p | cut -d' ' -f2); \
                     ipset del $set $(ipset list $set | sed '1,/^Members/d' | head -1)"
                ),
                Self::Nftables => format!(
                    "{filled}; set -- $(filled | sed -n {number}p); \
                     member=$(nft list $1 inet weft $2 | tr '\n\t' '  ' | \
                       sed -n 's/.*elements = {{ *\\([^,}}]*\\).*/\\1/p'); \
                     nft delete element inet weft $2 \"{{ $member }}\""
                ),
            };
            deeds.push(Deed::new(format!("a member of set {number}"), line));
        }
        let all = match self {
            Self::Iptables(_) => "filled | while read kind set; do ipset flush $set; done",
            Self::Nftables => {
                "filled | while read kind set; do nft flush $kind inet weft $set; done"
            }
        };
        deeds.push(Deed::new(
            "all members of all sets",
            format!("{filled}; {all}"),
        ));
        deeds
    }

    /// Switches and devices of the fabric on which policy depends, as E25 has them.
    pub(crate) fn fabric(self) -> Vec<Deed> {
        vec![
            // No event tells of it; the bridge's own switch stays.
            Deed::new(
                "sysctl bridge-nf-call-iptables=0",
                "old=$(sysctl -n net.bridge.bridge-nf-call-iptables); \
                 sysctl -qw net.bridge.bridge-nf-call-iptables=0",
            )
            .harmless("sleep 1")
            .after("sysctl -qw net.bridge.bridge-nf-call-iptables=$old"),
            Deed::new(
                "nf_call_iptables 0 on weave",
                "ip link set weave type bridge nf_call_iptables 0",
            )
            .until("ip -d link show weave | grep -q 'nf_call_iptables 1'"),
            Deed::new("neighbours of weave", "ip neigh flush dev weave").harmless("sleep 0.3"),
            Deed::new(
                "a static FDB entry of a pod's port",
                "entry=$(bridge fdb show br weave | grep ' master weave static' | \
                   grep vethwepl | head -1 | awk '{print $1\" dev \"$3}'); \
                 [ -n \"$entry\" ] && bridge fdb del $entry master static",
            )
            .until("bridge fdb show br weave | grep -q \"^$entry .*static\""),
            Deed::new(
                "the port vethwe-datapath",
                "ip link set vethwe-datapath nomaster",
            )
            .until("ip -o link show vethwe-datapath | grep -q 'master datapath'"),
            Deed::new("the device vxlan-6784", "ip link del vxlan-6784")
                .until("ip -o link show vxlan-6784 2>/dev/null | grep -q 'master datapath.*UP'"),
        ]
    }

    /// What remains of npc in the other interfaces of a node, a line each: nothing may.
    pub(crate) fn leftovers(self) -> String {
        let mut line = String::new();
        if self != Self::Nftables {
            line.push_str("nft list tables | grep -E ' inet weft$| bridge weft-npc$'; ");
        } else {
            line.push_str("ipset list -n | grep ^weft-npc-; ");
        }
        for variant in [Variant::Legacy, Variant::Nft] {
            if self != Self::Iptables(variant) {
                let v = variant.word();
                line.push_str(&format!(
                    "iptables-{v}-save 2>/dev/null | grep WEFT-NPC; \
                     ip6tables-{v}-save 2>/dev/null | grep WEFT-NPC; "
                ));
            }
        }
        line + "true"
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write as _, process::Stdio};

    use super::*;

    #[allow(clippy::disallowed_methods, reason = "a shell line is what is tested")]
    fn digest(dump: &str) -> String {
        let mut shell = std::process::Command::new("sh")
            .args(["-c", DIGEST])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let mut stdin = shell.stdin.take().expect("it is piped");
        stdin.write_all(dump.as_bytes()).expect("it reads");
        drop(stdin);
        let output = shell.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{}", output.status);
        String::from_utf8(output.stdout).expect("text")
    }

    const RULES: &str = "\
        :WEFT-NPC - [12:720]\n\
        -A WEFT-NPC-IN -m set --match-set weft-npc-a src -m set ! --match-set weft-npc-c dst -j ACCEPT\n\
        create weft-npc-a hash:ip family inet hashsize 64 maxelem 1048576 bucketsize 12 initval 0x1f\n\
        add weft-npc-a 10.32.0.5\n\
        add weft-npc-a 10.32.0.6\n";

    #[test]
    fn rules_on_the_other_of_two_sets_are_as_before() {
        let other = "\
            :WEFT-NPC - [999:1]\n\
            -A WEFT-NPC-IN -m set --match-set weft-npc-a.b src -m set ! --match-set weft-npc-c.b dst -j ACCEPT\n\
            create weft-npc-a.b hash:ip family inet hashsize 128 maxelem 1048576 bucketsize 12 initval 0x2\n\
            add weft-npc-a.b 10.32.0.6\n\
            add weft-npc-a.b 10.32.0.5\n";
        assert_eq!(digest(RULES), digest(other));
    }

    #[test]
    fn member_set_or_rule_that_is_missing_is_seen() {
        let whole = digest(RULES);
        for line in RULES.lines() {
            let without: String = RULES
                .lines()
                .filter(|other| *other != line)
                .map(|line| format!("{line}\n"))
                .collect();
            assert_ne!(digest(&without), whole, "{line}");
        }
    }

    #[test]
    fn elements_of_nftables_may_come_in_any_order() {
        let [one, other] = ["10.32.0.5, 10.32.0.6", "10.32.0.6,\n\t\t\t10.32.0.5"]
            .map(|all| digest(&format!("\tset a {{\n\t\telements = {{ {all} }}\n\t}}\n")));
        assert_eq!(one, other);
    }
}
