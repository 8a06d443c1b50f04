//! What has changed since the last model goes into the resolved selectors.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::{Cache, Entry, NamedKey};
use crate::objects::Objects;
use crate::template::Template;
use crate::{Labels, Namespaces, PeerSelector};

/// Selectors times moves from which on it is cheaper to resolve the selectors anew.
const MANY: usize = 1 << 20;

/// An address changed hands.
struct Move {
    address: IpAddr,
    from: Option<Arc<Template>>,
    to: Option<Arc<Template>>,
}

/// Namespaces that changed, with their labels before.
type Before = BTreeMap<Arc<str>, Option<Labels>>;

/// What became of the resolved selectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    /// Addresses that changed hands: no selector names more addresses than so many more than
    /// before. `None`: some were resolved anew.
    pub(super) moves: Option<usize>,
    /// Named ports of peers changed.
    pub(super) named: bool,
}

impl Cache {
    /// Brings the resolved selectors up to date.
    pub(super) fn settle(&mut self, objects: &Objects<'_>) -> Settled {
        let before = std::mem::take(&mut self.namespaces);
        let moves: Vec<Move> = std::mem::take(&mut self.moved)
            .into_iter()
            .map(|(address, from)| Move {
                address,
                from,
                to: objects.owner(address),
            })
            .filter(|change| change.from != change.to)
            .collect();
        let mut settled = Settled {
            moves: Some(moves.len()),
            named: false,
        };
        if before.is_empty() && moves.is_empty() {
            return settled;
        }
        let sets = &mut self.sets;
        let anew = moves
            .len()
            .saturating_mul(sets.peers.len() + sets.named.len())
            > MANY;
        for (selector, entry) in &mut sets.peers {
            if anew || is_shifted(&before, objects, selector) {
                entry.renew(objects.addresses(selector));
                settled.moves = None;
                continue;
            }
            let names = |owner: &Option<Arc<Template>>| {
                owner
                    .as_ref()
                    .is_some_and(|owner| objects.names(selector, owner))
            };
            for change in &moves {
                match (names(&change.from), names(&change.to)) {
                    (true, false) => entry.remove(&change.address),
                    (false, true) => entry.insert(change.address),
                    (true, true) | (false, false) => {}
                }
            }
        }
        for (key, entry) in &mut sets.named {
            if anew || is_named_shifted(&before, objects, key) {
                entry.renew(objects.named(key));
                settled.named = true;
                continue;
            }
            let ports = |owner: &Option<Arc<Template>>| {
                let owner = owner.as_ref();
                owner
                    .map(|owner| key.ports_among(objects, owner))
                    .unwrap_or_default()
            };
            for change in &moves {
                let (from, to) = (ports(&change.from), ports(&change.to));
                if from != to {
                    settled.named = true;
                    from.into_iter()
                        .for_each(|port| entry.remove(&(change.address, port)));
                    to.into_iter()
                        .for_each(|port| entry.insert((change.address, port)));
                }
            }
        }
        settled
    }
}

/// Whether the selector names other namespaces than before.
fn is_shifted(before: &Before, objects: &Objects<'_>, selector: &PeerSelector) -> bool {
    before.iter().any(|(name, old)| {
        let new = objects.namespaces.get(name);
        match &selector.namespaces {
            Namespaces::Named(own) => own == name && old.is_some() != new.is_some(),
            Namespaces::Matching(selector) => {
                old.as_ref().is_some_and(|labels| selector.matches(labels))
                    != new.is_some_and(|labels| selector.matches(labels))
            }
        }
    })
}

fn is_named_shifted(before: &Before, objects: &Objects<'_>, key: &NamedKey) -> bool {
    match &key.among {
        Some(among) => among
            .iter()
            .any(|selector| is_shifted(before, objects, selector)),
        None => before
            .iter()
            .any(|(name, old)| old.is_some() != objects.namespaces.contains_key(name)),
    }
}

impl<T: Ord + Clone> Entry<T> {
    /// Resolved anew. Equal members stay the same value: who compares models sees it at once.
    fn renew(&mut self, members: BTreeSet<T>) {
        if *self.members != members {
            self.members = Arc::new(members);
        }
    }

    fn insert(&mut self, member: T) {
        Arc::make_mut(&mut self.members).insert(member);
    }

    fn remove(&mut self, member: &T) {
        Arc::make_mut(&mut self.members).remove(member);
    }
}
