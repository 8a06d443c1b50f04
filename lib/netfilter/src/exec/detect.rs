//! Which iptables keeps this host's rules?
//!
//! Two tables that both filter are no harm (a drop in either wins), but rules of ours in the other
//! variant would stand beside a host's FORWARD policy instead of before it, and a host that loads
//! the legacy modules for us alone pays for them. Order of evidence, as in Kubernetes'
//! `iptables-wrappers`:
//!
//! 1. what was configured;
//! 2. the kubelet's hint chain (`KUBE-IPTABLES-HINT`, before 1.24 `KUBE-KUBELET-CANARY`) in the nft
//!    variant, then in the legacy one;
//! 3. the variant with more rules;
//! 4. nft.

use super::Runner;
use crate::{Family, backend::ToolError};

/// A variant of iptables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variant {
    /// `ip_tables` of the kernel.
    Legacy,
    /// Over `nf_tables`.
    Nft,
}

impl Variant {
    /// `iptables-legacy`, `iptables-nft`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Legacy => "iptables-legacy",
            Self::Nft => "iptables-nft",
        }
    }

    /// As in the tools' names.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Legacy => "legacy",
            Self::Nft => "nft",
        }
    }
}

/// What one variant holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Its tools can be run.
    pub works: bool,
    /// A hint chain of the kubelet is there.
    pub hint: bool,
    /// Rules in all tables, of both families.
    pub rules: usize,
}

impl Evidence {
    /// Adds what `iptables-save` printed.
    pub fn add(&mut self, saved: &str) {
        self.works = true;
        for line in saved.lines() {
            self.hint |= line.starts_with(":KUBE-IPTABLES-HINT ")
                || line.starts_with(":KUBE-KUBELET-CANARY ");
            // Rules of ours say nothing about the host: else an old choice would prove itself.
            self.rules += usize::from(line.starts_with("-A ") && !line.contains("WEFT-"));
        }
    }
}

/// Decides by evidence.
#[must_use]
pub fn choose(legacy: Evidence, nft: Evidence) -> Variant {
    match (legacy.works, nft.works) {
        (true, false) => return Variant::Legacy,
        (false, _) => return Variant::Nft,
        (true, true) => {}
    }
    if nft.hint {
        Variant::Nft
    } else if legacy.hint || legacy.rules > nft.rules {
        Variant::Legacy
    } else {
        Variant::Nft
    }
}

/// Looks at both variants and decides.
///
/// # Errors
/// [`ToolError`]: neither variant's tools can be run.
pub async fn detect(runner: &Runner) -> Result<Variant, ToolError> {
    let mut seen = Vec::new();
    let mut failure = None;
    for variant in [Variant::Legacy, Variant::Nft] {
        let mut evidence = Evidence::default();
        for family in Family::ALL {
            let tool = match family {
                Family::V4 => format!("iptables-{}-save", variant.suffix()),
                Family::V6 => format!("ip6tables-{}-save", variant.suffix()),
            };
            // Without a table's name the legacy tool looks only at tables that exist, and makes none.
            match runner.run(&tool, &[], "").await {
                Ok(saved) => evidence.add(&saved),
                Err(error) => failure = Some(error),
            }
        }
        seen.push(evidence);
    }
    let (legacy, nft) = (seen[0], seen[1]);
    match failure {
        Some(error) if !legacy.works && !nft.works => Err(error),
        _ => {
            let variant = choose(legacy, nft);
            tracing::info!(?legacy, ?nft, variant = variant.name(), "chose iptables");
            Ok(variant)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saved(text: &str) -> Evidence {
        let mut evidence = Evidence::default();
        evidence.add(text);
        evidence
    }

    #[test]
    fn the_kubelet_s_hint_decides_before_the_number_of_rules() {
        let hint = saved("*mangle\n:KUBE-IPTABLES-HINT - [0:0]\nCOMMIT\n");
        let rules = saved("-A FORWARD -j DOCKER\n-A INPUT -j DROP\n");
        assert_eq!(choose(rules, hint), Variant::Nft);
        assert_eq!(choose(hint, rules), Variant::Legacy);
        assert_eq!(choose(hint, hint), Variant::Nft);
    }

    #[test]
    fn then_more_rules_win_and_ours_do_not_count() {
        let two = saved("-A FORWARD -j DOCKER\n-A INPUT -j DROP\n");
        let ours = saved("-A WEFT-NPC -j DROP\n-A WEFT-NPC -j DROP\n-A FORWARD -j WEFT-NPC\n");
        assert_eq!(choose(two, ours), Variant::Legacy);
        assert_eq!(choose(ours, two), Variant::Nft);
    }

    #[test]
    fn nft_is_the_default_and_a_variant_that_does_not_run_is_never_chosen() {
        let none = saved("");
        assert_eq!(choose(none, none), Variant::Nft);
        assert_eq!(choose(none, Evidence::default()), Variant::Legacy);
        assert_eq!(choose(Evidence::default(), none), Variant::Nft);
    }
}
