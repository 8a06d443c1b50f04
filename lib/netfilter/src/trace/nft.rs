//! The walk through tables of nftables.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::{Packet, Pass, run::holds};
use crate::{
    Family, Hook,
    nft::{Data, Element, End, Go, Key, Match, Objects, Rule, Set, Tables, Verdict},
};

/// The tables are not ones that a kernel could hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NftError {
    /// A way into nothing.
    #[error("chain {0} does not exist")]
    NoChain(String),
    /// A lookup in nothing.
    #[error("set or map {0} does not exist")]
    NoSet(String),
    /// Jumps in a circle.
    #[error("chain {0} is entered more than 16 deep")]
    TooDeep(String),
}

/// What becomes of the packet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NftOutcome {
    /// A rule dropped it: the last of `path`.
    pub dropped: bool,
    /// NFLOG prefixes that were written.
    pub logged: Vec<String>,
    /// Mark at the end.
    pub mark: u32,
    /// Rules that matched, in order: chain, number of the rule, the rule.
    pub path: Vec<String>,
}

/// Deeper than this the kernel refuses (`NFT_JUMP_STACK_SIZE`).
const DEEPEST: usize = 16;

/// Takes the packet through the passes. A bridged pass meets `table bridge` first. Nothing is local
/// to the node.
///
/// # Errors
/// [`NftError`].
pub fn trace_nft(
    tables: &Tables,
    packet: &Packet,
    passes: &[Pass],
) -> Result<NftOutcome, NftError> {
    let mut outcome = NftOutcome {
        mark: packet.mark,
        ..NftOutcome::default()
    };
    let nobody = BTreeSet::new();
    for pass in passes {
        let frame = Pass {
            in_iface: pass.phys_in.clone(),
            out_iface: pass.phys_out.clone(),
            ..pass.clone()
        };
        let bridged = pass.hook == Hook::Forward && pass.phys_out.is_some();
        let both = [
            bridged.then_some((&tables.bridge, &frame)),
            Some((&tables.inet, pass)),
        ];
        for (objects, pass) in both.into_iter().flatten() {
            let mut walk = Walk {
                objects,
                packet,
                pass,
                local: &nobody,
                outcome: &mut outcome,
            };
            if walk.hook()? {
                outcome.dropped = true;
                return Ok(outcome);
            }
        }
    }
    Ok(outcome)
}

struct Walk<'a> {
    objects: &'a Objects,
    packet: &'a Packet,
    pass: &'a Pass,
    local: &'a BTreeSet<IpAddr>,
    outcome: &'a mut NftOutcome,
}

enum Flow {
    Return,
    Drop,
}

impl<'a> Walk<'a> {
    /// All base chains of the hook; true if the packet is gone.
    fn hook(&mut self) -> Result<bool, NftError> {
        let objects = self.objects;
        let mut bases: Vec<_> = objects
            .chains
            .iter()
            .filter_map(|(name, chain)| chain.base.map(|base| (base, name)))
            .filter(|(base, _)| base.hook == self.pass.hook)
            .collect();
        bases.sort_by_key(|(base, _)| base.priority);
        for (_, name) in bases {
            if matches!(self.chain(name, 0)?, Flow::Drop) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn chain(&mut self, name: &str, depth: usize) -> Result<Flow, NftError> {
        if depth >= DEEPEST {
            return Err(NftError::TooDeep(name.to_owned()));
        }
        let objects = self.objects;
        let chain = objects
            .chains
            .get(name)
            .ok_or_else(|| NftError::NoChain(name.to_owned()))?;
        for (index, rule) in chain.rules.iter().enumerate() {
            if !self.all(rule)? {
                continue;
            }
            let text = crate::nft::write_rule(rule);
            self.outcome
                .path
                .push(format!("{name} rule {}: {text}", index + 1));
            let go = match &rule.verdict {
                Verdict::Drop => return Ok(Flow::Drop),
                Verdict::Return => return Ok(Flow::Return),
                Verdict::Go(go) => Some(go),
                Verdict::Map { key, map } => match self.mapped(*key, map)? {
                    Some(Data::Go(go)) => Some(go),
                    Some(Data::None | Data::Mark(_)) | None => None,
                },
                Verdict::SetMark { value, mask } => {
                    self.outcome.mark = (self.outcome.mark & !mask) | (value & mask);
                    None
                }
                Verdict::MarkByDevice { map } => {
                    let device = self.pass.out_iface.clone().unwrap_or_default();
                    if let Some(Data::Mark(mark)) =
                        set(objects, map)?.elements.get(&Element::Device(device))
                    {
                        self.outcome.mark = *mark;
                    }
                    None
                }
                Verdict::Nflog { prefix, .. } => {
                    self.outcome.logged.push(prefix.clone());
                    None
                }
            };
            let Some(Go { back, chain }) = go else {
                continue;
            };
            // Only a jump takes a place on the stack.
            match self.chain(chain, depth + usize::from(*back))? {
                Flow::Drop => return Ok(Flow::Drop),
                Flow::Return if *back => {}
                Flow::Return => return Ok(Flow::Return),
            }
        }
        Ok(Flow::Return)
    }

    fn mapped(&self, key: Key, map: &str) -> Result<Option<&'a Data>, NftError> {
        let objects = self.objects;
        let key = match key {
            Key::Addr(end, family) if Family::of(&self.packet.dst) == family => {
                Element::Addr(self.address(end))
            }
            Key::Addr(..) => return Ok(None),
            Key::Mark { mask } => Element::Mark(self.outcome.mark & mask),
        };
        Ok(set(objects, map)?.elements.get(&key))
    }

    fn address(&self, end: End) -> IpAddr {
        match end {
            End::Source => self.packet.src,
            End::Destination => self.packet.dst,
        }
    }

    fn all(&self, rule: &Rule) -> Result<bool, NftError> {
        for m in &rule.matches {
            if !self.matches(m)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn matches(&self, m: &Match) -> Result<bool, NftError> {
        let packet = self.packet;
        let own = Family::of(&packet.dst);
        Ok(match m {
            Match::Family(family) => own == *family,
            Match::Plain(m) => holds(m, packet, self.outcome.mark, self.pass, self.local),
            // An address of the other family is no address: nothing holds, negated or not.
            Match::Addr {
                end,
                family,
                set: name,
                negate,
            } => {
                let set = set(self.objects, name)?;
                own == *family && set.has_address(self.address(*end)) != *negate
            }
            Match::AddrPort {
                end,
                family,
                set: name,
            } => {
                let set = set(self.objects, name)?;
                let address = Some(self.address(*end));
                let has = |port| set.has_port(address, packet.protocol, port);
                own == *family && packet.dst_port.is_some_and(has)
            }
            Match::Ports { set: name } => {
                let set = set(self.objects, name)?;
                let has = |port| set.has_port(None, packet.protocol, port);
                packet.dst_port.is_some_and(has)
            }
        })
    }
}

fn set<'a>(objects: &'a Objects, name: &str) -> Result<&'a Set, NftError> {
    objects
        .sets
        .get(name)
        .ok_or_else(|| NftError::NoSet(name.to_owned()))
}
