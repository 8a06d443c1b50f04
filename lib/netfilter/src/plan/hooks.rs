//! Jumps in built-in chains: which are ours, and whether each stands where it belongs.

use std::collections::BTreeMap;

use super::{BaseOp, Owner};
use crate::{
    ChainName, Family, Hook, HookJump, Position, Rule, TableName, Verdict,
    text::{read_rule, words, write_rule},
};

/// A built-in chain.
pub type HookKey = (Family, TableName, Hook);

/// A rule of a built-in chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BaseRule {
    /// Leads into a chain of ours.
    Ours {
        /// As printed, with a blank before each part.
        text: String,
    },
    /// Anybody else's.
    Other {
        /// Chain it leads to, if any.
        to: Option<String>,
    },
}

impl BaseRule {
    /// Reads a rule of a built-in chain, as printed behind its chain's name.
    pub(super) fn read(text: &str, owner: &Owner) -> Self {
        let words = words(text).unwrap_or_default();
        let to = words
            .iter()
            .position(|word| word == "-j" || word == "-g")
            .and_then(|at| words.get(at + 1))
            .cloned();
        match to {
            Some(to) if owner.owns_chain(&to) => Self::Ours {
                // Our own jumps are compared in the form in which we write them.
                text: match read_rule(&words) {
                    Ok(rule) => write_rule(&rule),
                    Err(_) => format!(" {text}"),
                },
            },
            to => Self::Other { to },
        }
    }
}

/// Our jumps of a built-in chain, in order.
pub(super) fn jumps(hook: Hook, chain: &[BaseRule]) -> Vec<HookJump> {
    let jump = |rule: &BaseRule| {
        let BaseRule::Ours { text } = rule else {
            return None;
        };
        let rule = read_rule(&words(text)?).ok()?;
        let Verdict::Jump(to) = rule.verdict else {
            return None;
        };
        Some(HookJump {
            hook,
            to,
            matches: rule.matches,
            position: Position::Top,
        })
    };
    chain.iter().filter_map(jump).collect()
}

fn text_of(jump: &HookJump) -> String {
    write_rule(&Rule::new(
        jump.matches.clone(),
        Verdict::Jump(jump.to.clone()),
    ))
}

/// Where a jump behind `after` goes in `chain`: behind the last jump to one of them, or first.
fn behind(chain: &[BaseRule], after: &[ChainName]) -> usize {
    chain
        .iter()
        .rposition(|rule| {
            after.iter().any(|after| match rule {
                BaseRule::Other { to } => to.as_deref() == Some(after.as_str()),
                BaseRule::Ours { text } => text.ends_with(&format!(" -j {after}")),
            })
        })
        .map_or(0, |at| at + 1)
}

/// The built-in chain as it should be.
fn wanted(seen: &[BaseRule], jumps: &[&HookJump]) -> Vec<BaseRule> {
    let mut chain: Vec<BaseRule> = seen
        .iter()
        .filter(|rule| matches!(rule, BaseRule::Other { .. }))
        .cloned()
        .collect();
    let mut top = 0;
    let mut last: BTreeMap<&ChainName, usize> = BTreeMap::new();
    for jump in jumps {
        let at = match &jump.position {
            Position::Top => {
                top += 1;
                // What is inserted at the top moves the others.
                for at in last.values_mut() {
                    *at += 1;
                }
                top - 1
            }
            Position::After(after) => {
                let at = match last.get(after) {
                    Some(at) => *at,
                    None => behind(&chain, std::slice::from_ref(after)),
                };
                for other in last.values_mut().filter(|other| **other >= at) {
                    *other += 1;
                }
                last.insert(after, at + 1);
                at
            }
            Position::AfterAll(after) => {
                let at = behind(&chain, after);
                for other in last.values_mut().filter(|other| **other >= at) {
                    *other += 1;
                }
                at
            }
        };
        chain.insert(
            at,
            BaseRule::Ours {
                text: text_of(jump),
            },
        );
    }
    chain
}

/// Changes that turn one built-in chain into what it should be, and the chain afterwards.
pub(super) fn place(
    hook: Hook,
    seen: &[BaseRule],
    jumps: &[&HookJump],
) -> (Vec<BaseOp>, Vec<BaseRule>) {
    let wanted = wanted(seen, jumps);
    if wanted == seen {
        return (Vec::new(), wanted);
    }
    // All out and in again: one commit does both, so no packet sees the time between.
    let out = seen.iter().filter_map(|rule| match rule {
        BaseRule::Ours { text } => Some(BaseOp::Delete(hook, text.clone())),
        BaseRule::Other { .. } => None,
    });
    let back = wanted
        .iter()
        .enumerate()
        .filter_map(|(at, rule)| match rule {
            BaseRule::Ours { text } => Some(BaseOp::Insert(hook, at + 1, text.clone())),
            BaseRule::Other { .. } => None,
        });
    (out.chain(back).collect(), wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Match;

    fn chain_name(name: &str) -> ChainName {
        ChainName::new(name).unwrap()
    }

    fn jump(to: &str, position: Position) -> HookJump {
        HookJump {
            hook: Hook::Forward,
            to: chain_name(to),
            matches: Vec::<Match>::new(),
            position,
        }
    }

    fn placed(seen: &[&str]) -> Vec<String> {
        let seen: Vec<BaseRule> = seen
            .iter()
            .map(|to| BaseRule::Other {
                to: Some((*to).to_owned()),
            })
            .collect();
        let jumps = [
            jump("WEFT-FORWARD", Position::After(chain_name("WEFT-NPC"))),
            jump(
                "WEFT-FORWARD-OUT",
                Position::AfterAll(
                    ["WEFT-NPC", "WEFT-FORWARD", "KUBE-SERVICES"]
                        .map(chain_name)
                        .to_vec(),
                ),
            ),
        ];
        wanted(&seen, &jumps.iter().collect::<Vec<_>>())
            .iter()
            .map(|rule| match rule {
                BaseRule::Other { to } => to.clone().unwrap_or_default(),
                BaseRule::Ours { text } => text.trim_start_matches(" -j ").to_owned(),
            })
            .collect()
    }

    #[test]
    fn a_jump_behind_several_is_never_ahead_of_one_of_them() {
        assert_eq!(
            placed(&["WEFT-NPC", "KUBE-FORWARD", "KUBE-SERVICES"]),
            [
                "WEFT-NPC",
                "WEFT-FORWARD",
                "KUBE-FORWARD",
                "KUBE-SERVICES",
                "WEFT-FORWARD-OUT"
            ]
        );
        // kube-proxy in nftables mode has no chain here.
        assert_eq!(
            placed(&["WEFT-NPC"]),
            ["WEFT-NPC", "WEFT-FORWARD", "WEFT-FORWARD-OUT"]
        );
        // kube-proxy puts its jumps at the top: for a moment it is ahead of npc.
        assert_eq!(
            placed(&["KUBE-SERVICES", "WEFT-NPC"]),
            [
                "KUBE-SERVICES",
                "WEFT-NPC",
                "WEFT-FORWARD",
                "WEFT-FORWARD-OUT"
            ]
        );
    }
}
