//! Names in the kernel: a readable part and a short hash, never two things under one name.
//!
//! Chains: `WEFT-NPC-` (9) + kind and dash (at most 3) + readable part + dash + hash (8) is cut to
//! 28 characters, so the readable part has at least 7. Sets: `weft-npc-` (9) + kind and dash (2) +
//! readable part (7) + dash (1) + hash (8) + family (2) = 29 characters.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use weft_netfilter::{ChainName, Family, SetName};

const CHAIN_PREFIX: &str = "WEFT-NPC-";
const SET_PREFIX: &str = "weft-npc-";
const HASH: usize = 8;

/// Gives out names. The same identity has the same name in every run; when two identities hash
/// alike (a tenant may try that with the names of objects), the later one in the order of
/// compilation gets another hash.
#[derive(Debug, Default)]
pub(crate) struct Names {
    taken: BTreeMap<String, String>,
}

impl Names {
    /// Name of a chain. `kind` sorts things apart, `readable` is for people, `identity` says
    /// exactly what it is.
    pub(crate) fn chain(&mut self, kind: &str, readable: &str, identity: &str) -> ChainName {
        let room = ChainName::MAX - CHAIN_PREFIX.len() - kind.len() - 1 - HASH - 1;
        let name = self.unique(identity, |hash| {
            format!("{CHAIN_PREFIX}{kind}-{}{hash}", fit(readable, room))
        });
        ChainName::new(&name).expect("cut to 28 characters of letters, digits and dashes")
    }

    /// Name of a set of a family (ipset has one name space for both).
    pub(crate) fn set(
        &mut self,
        kind: &str,
        readable: &str,
        identity: &str,
        family: Family,
    ) -> SetName {
        let family = suffix(family);
        let room = SetName::MAX - SET_PREFIX.len() - kind.len() - 1 - HASH - 1 - family.len();
        let name = self.unique(identity, |hash| {
            format!("{SET_PREFIX}{kind}-{}{hash}{family}", fit(readable, room))
        });
        SetName::new(&name).expect("cut to 29 characters of letters, digits and dashes")
    }

    fn unique(&mut self, identity: &str, name: impl Fn(&str) -> String) -> String {
        let mut attempt = identity.to_owned();
        loop {
            let name = name(&hash(&attempt));
            match self.taken.get(&name) {
                Some(owner) if owner != identity => attempt.push('#'),
                Some(_) => return name,
                None => {
                    self.taken.insert(name.clone(), identity.to_owned());
                    return name;
                }
            }
        }
    }
}

/// Name of a chain that exists once.
pub(crate) fn fixed_chain(name: &str) -> ChainName {
    ChainName::new(name).expect("a constant of at most 28 letters and dashes")
}

/// Name of a set that exists once per family.
pub(crate) fn fixed_set(name: &str, family: Family) -> SetName {
    SetName::new(&format!("{SET_PREFIX}{name}{}", suffix(family)))
        .expect("a constant of at most 18 letters and dashes")
}

fn suffix(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}

/// The first characters that are letters, digits or dashes, and a dash; or nothing.
fn fit(readable: &str, room: usize) -> String {
    let plain: String = readable
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .take(room)
        .collect();
    let plain = plain.trim_matches('-');
    if plain.is_empty() {
        String::new()
    } else {
        format!("{plain}-")
    }
}

/// 40 bits of SHA-256 in base 32 (RFC 4648, lower case).
fn hash(identity: &str) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let digest = Sha256::digest(identity.as_bytes());
    let bits = digest
        .iter()
        .take(5)
        .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    (0..HASH)
        .rev()
        .map(|i| char::from(ALPHABET[usize::try_from(bits >> (5 * i) & 31).unwrap_or_default()]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_names_fit() {
        let mut names = Names::default();
        let long = "x".repeat(253);
        let chain = names.chain("PI", &long, &long);
        assert_eq!(chain.as_str().len(), ChainName::MAX, "{chain}");
        let set = names.set("p", &long, &long, Family::V6);
        assert_eq!(set.as_str().len(), SetName::MAX, "{set}");
    }

    #[test]
    fn one_identity_has_one_name_and_odd_characters_do_no_harm() {
        let mut names = Names::default();
        let first = names.chain("I", "wéb/0 \"", "x/web-0");
        assert_eq!(names.chain("I", "wéb/0 \"", "x/web-0"), first);
        assert_eq!(
            first.as_str(),
            Names::default().chain("I", "w-b-0", "x/web-0").as_str()
        );
        assert_ne!(names.chain("I", "web-0", "y/web-0"), first);
    }

    #[test]
    fn equal_hashes_do_not_make_equal_names() {
        let mut names = Names::default();
        let taken = names.chain("I", "web", "a");
        names
            .taken
            .insert(taken.to_string(), "somebody else".to_owned());
        let other = names.chain("I", "web", "a");
        assert_ne!(other, taken);
        assert_eq!(names.chain("I", "web", "a"), other);
    }
}
