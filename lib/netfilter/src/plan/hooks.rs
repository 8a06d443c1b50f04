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

fn text_of(jump: &HookJump) -> String {
    write_rule(&Rule::new(
        jump.matches.clone(),
        Verdict::Jump(jump.to.clone()),
    ))
}

/// Where a jump behind `after` goes in `chain`: behind the last jump to it, or first.
fn behind(chain: &[BaseRule], after: &ChainName) -> usize {
    chain
        .iter()
        .rposition(|rule| match rule {
            BaseRule::Other { to } => to.as_deref() == Some(after.as_str()),
            BaseRule::Ours { text } => text.ends_with(&format!(" -j {after}")),
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
                    None => behind(&chain, after),
                };
                for other in last.values_mut().filter(|other| **other >= at) {
                    *other += 1;
                }
                last.insert(after, at + 1);
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
