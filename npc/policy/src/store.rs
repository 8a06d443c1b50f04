//! The pods of a cluster in little memory: at most 200 bytes each where pods come in workloads.
//!
//! A pod is a row of what is its own (name, UID, address) and the number of its [`Template`]. Pods
//! are numbered; the numbers are reused, nothing depends on their order.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::template::{Template, Texts};
use crate::{ObjectKey, Pod, Uid};

mod claims;
mod slots;
#[cfg(test)]
mod tests;

use claims::Claims;
use slots::Slots;

/// Number of a pod.
pub(crate) type PodNumber = u32;

#[derive(Clone, Debug)]
struct Row {
    name: Box<str>,
    uid: StoredUid,
    node: Option<Arc<str>>,
    addresses: Addresses,
    created: i64,
    template: u32,
    /// The listing that had it last.
    listing: u32,
    finished: bool,
    terminating: bool,
    /// Its addresses are claimed: it is no peer otherwise.
    claims: bool,
}

/// A UUID takes a third of its text.
#[derive(Clone, Debug, PartialEq, Eq)]
enum StoredUid {
    Uuid([u8; 16]),
    Other(Arc<str>),
}

/// Most pods have one IPv4 address.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(
    clippy::box_collection,
    reason = "a pointer: a set in place would make the row of every pod larger"
)]
enum Addresses {
    One(Ipv4Addr),
    Other(Option<Box<BTreeSet<IpAddr>>>),
}

/// Pods that look alike to every selector.
#[derive(Clone, Debug)]
struct Group {
    template: Arc<Template>,
    members: BTreeSet<PodNumber>,
}

#[derive(Clone, Debug, Default)]
struct Namespace {
    /// Ordered by name.
    pods: Vec<PodNumber>,
    groups: BTreeSet<u32>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    rows: Slots<Row>,
    groups: Slots<Group>,
    by_template: HashMap<Arc<Template>, u32>,
    namespaces: BTreeMap<Arc<str>, Namespace>,
    claims: Claims,
    texts: Texts,
    listing: u32,
}

impl Store {
    /// Adds a pod, or replaces the one of its name. `claims`: it is a peer by what its status says.
    pub(crate) fn insert(&mut self, pod: &Pod, claims: bool) {
        self.remove(&pod.key);
        let template = Template::of(pod);
        let group = match self.by_template.get(&template) {
            Some(group) => *group,
            None => self.new_group(&template),
        };
        let row = Row {
            name: (*pod.key.name).into(),
            uid: StoredUid::of(&pod.uid),
            node: pod.node.as_ref().map(|node| self.texts.share(node)),
            addresses: Addresses::of(&pod.addresses),
            created: pod.created,
            template: group,
            listing: self.listing,
            finished: pod.finished,
            terminating: pod.terminating,
            claims,
        };
        let number = self.rows.insert(row);
        if let Some(group) = self.groups.get_mut(group) {
            group.members.insert(number);
        }
        if claims {
            for address in &pod.addresses {
                self.claims.add(*address, number);
            }
        }
        let namespace = self.texts.share(&pod.key.namespace);
        let namespace = self.namespaces.entry(namespace).or_default();
        namespace.groups.insert(group);
        let at = place(&self.rows, &namespace.pods, &pod.key.name).unwrap_or_else(|at| at);
        slots::make_room(&mut namespace.pods);
        namespace.pods.insert(at, number);
    }

    fn new_group(&mut self, template: &Template) -> u32 {
        let template = Arc::new(template.shared(&mut self.texts));
        let number = self.groups.insert(Group {
            template: Arc::clone(&template),
            members: BTreeSet::new(),
        });
        self.by_template.insert(template, number);
        number
    }

    /// Whether a pod is a peer by what its status says has changed.
    pub(crate) fn set_claims(&mut self, key: &ObjectKey, claims: bool) {
        let Some(number) = self.number(key) else {
            return;
        };
        let Some(row) = self.rows.get_mut(number) else {
            return;
        };
        let before = std::mem::replace(&mut row.claims, claims);
        for address in row.addresses.iter() {
            match (before, claims) {
                (false, true) => self.claims.add(address, number),
                (true, false) => self.claims.remove(address, number),
                (true, true) | (false, false) => {}
            }
        }
    }

    /// Removes the pod of a name; answers whether there was one.
    pub(crate) fn remove(&mut self, key: &ObjectKey) -> bool {
        let Some(namespace) = self.namespaces.get_mut(&key.namespace) else {
            return false;
        };
        let Ok(at) = place(&self.rows, &namespace.pods, &key.name) else {
            return false;
        };
        let number = namespace.pods.remove(at);
        let Some(row) = self.rows.remove(number) else {
            return false;
        };
        if row.claims {
            for address in row.addresses.iter() {
                self.claims.remove(address, number);
            }
        }
        let empty = self.groups.get_mut(row.template).is_some_and(|group| {
            group.members.remove(&number);
            group.members.is_empty()
        });
        if empty && let Some(group) = self.groups.remove(row.template) {
            namespace.groups.remove(&row.template);
            self.by_template.remove(&group.template);
        }
        if namespace.pods.is_empty() {
            self.namespaces.remove(&key.namespace);
        }
        true
    }

    /// A list of all pods begins: [`Store::unlisted`] are those that it did not have.
    pub(crate) fn begin_list(&mut self) {
        self.listing = self.listing.wrapping_add(1);
    }

    /// Pods that were neither inserted nor [seen](Store::see) since the list began.
    pub(crate) fn unlisted(&self) -> Vec<ObjectKey> {
        let gone = |row: &Row| row.listing != self.listing;
        self.rows
            .iter()
            .filter(|(_, row)| gone(row))
            .map(|(_, row)| self.key_of(row))
            .collect()
    }

    /// Whether exactly this pod is there; if so, the list has it.
    pub(crate) fn see(&mut self, pod: &Pod, claims: bool) -> bool {
        let Some(number) = self.number(&pod.key) else {
            return false;
        };
        let listing = self.listing;
        let Some(row) = self.rows.get_mut(number) else {
            return false;
        };
        let template = self.groups.get(row.template).map(|group| &group.template);
        let same = row.claims == claims
            && row.uid.is(&pod.uid)
            && row.node == pod.node
            && row.addresses.is(&pod.addresses)
            && (row.created, row.finished, row.terminating)
                == (pod.created, pod.finished, pod.terminating)
            && template.is_some_and(|template| {
                template.labels == pod.labels
                    && template.ports == pod.ports
                    && template.host_network == pod.host_network
            });
        if same {
            row.listing = listing;
        }
        same
    }

    /// Whether there is a pod of the namespace.
    pub(crate) fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains_key(name)
    }

    /// The number of the pod of a name.
    pub(crate) fn number(&self, key: &ObjectKey) -> Option<PodNumber> {
        let pods = &self.namespaces.get(&key.namespace)?.pods;
        place(&self.rows, pods, &key.name).ok().map(|at| pods[at])
    }

    /// The pod of a name.
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Pod> {
        self.pod(self.number(key)?)
    }

    /// Whether there is a pod of this name and UID.
    #[cfg(test)]
    pub(crate) fn has(&self, key: &ObjectKey, uid: &Uid) -> bool {
        let row = self.number(key).and_then(|number| self.rows.get(number));
        row.is_some_and(|row| row.uid.is(uid))
    }

    fn pod(&self, number: PodNumber) -> Option<Pod> {
        let row = self.rows.get(number)?;
        let template = &self.groups.get(row.template)?.template;
        Some(Pod {
            key: self.key_of(row),
            uid: row.uid.text(),
            labels: template.labels.clone(),
            node: row.node.clone(),
            addresses: row.addresses.iter().collect(),
            ports: template.ports.clone(),
            host_network: template.host_network,
            finished: row.finished,
            terminating: row.terminating,
            created: row.created,
        })
    }

    fn key_of(&self, row: &Row) -> ObjectKey {
        let group = self.groups.get(row.template);
        ObjectKey {
            namespace: group.map_or_else(|| "".into(), |g| Arc::clone(&g.template.namespace)),
            name: (*row.name).into(),
        }
    }

    /// The pod that an address belongs to by what the API says. Where two claim it, it belongs to
    /// the one that is not terminating, else to the younger, else to the later name, so that the
    /// order of arrival does not matter.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<PodNumber> {
        let mut claimants = self.claims.of(address);
        let first = claimants.next()?;
        let rank = |number: PodNumber| {
            let row = self.rows.get(number)?;
            Some((!row.terminating, row.created, self.key_of(row)))
        };
        Some(claimants.fold(first, |best, other| {
            if rank(other) > rank(best) {
                other
            } else {
                best
            }
        }))
    }

    /// Name of a pod.
    pub(crate) fn key(&self, number: PodNumber) -> Option<ObjectKey> {
        self.rows.get(number).map(|row| self.key_of(row))
    }

    /// Template of a pod.
    pub(crate) fn template(&self, number: PodNumber) -> Option<&Arc<Template>> {
        let row = self.rows.get(number)?;
        self.groups.get(row.template).map(|group| &group.template)
    }

    /// Addresses that a pod claims and that belong to it.
    pub(crate) fn own(&self, number: PodNumber) -> impl Iterator<Item = IpAddr> {
        let row = self.rows.get(number).filter(|row| row.claims);
        let addresses = row.map(|row| row.addresses.iter()).into_iter().flatten();
        addresses.filter(move |address| {
            !self.claims.is_contested(*address) || self.owner(*address) == Some(number)
        })
    }

    /// Namespaces that have pods, each with its templates and their pods.
    pub(crate) fn templates_in(
        &self,
        namespace: &str,
    ) -> impl Iterator<Item = (&Arc<Template>, &BTreeSet<PodNumber>)> {
        let groups = self.namespaces.get(namespace).map(|n| &n.groups);
        groups
            .into_iter()
            .flatten()
            .filter_map(|number| self.groups.get(*number))
            .map(|group| (&group.template, &group.members))
    }

    /// All pods, by namespace and name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Pod> {
        self.namespaces
            .values()
            .flat_map(|namespace| &namespace.pods)
            .filter_map(|number| self.pod(*number))
    }

    /// Addresses that are claimed.
    pub(crate) fn addresses(&self) -> usize {
        self.claims.len()
    }
}

/// Where the pod of a name is among those of its namespace, or where it would be.
fn place(rows: &Slots<Row>, pods: &[PodNumber], name: &str) -> Result<usize, usize> {
    pods.binary_search_by(|number| rows.get(*number).map_or("", |row| &row.name).cmp(name))
}

impl StoredUid {
    fn of(uid: &Uid) -> Self {
        parse_uuid(&uid.0).map_or_else(|| Self::Other(Arc::clone(&uid.0)), Self::Uuid)
    }

    fn is(&self, uid: &Uid) -> bool {
        match self {
            Self::Uuid(own) => parse_uuid(&uid.0).as_ref() == Some(own),
            Self::Other(own) => *own == uid.0,
        }
    }

    fn text(&self) -> Uid {
        match self {
            Self::Other(text) => Uid(Arc::clone(text)),
            Self::Uuid(bytes) => {
                let mut text = String::with_capacity(36);
                for (i, byte) in bytes.iter().enumerate() {
                    if matches!(i, 4 | 6 | 8 | 10) {
                        text.push('-');
                    }
                    for digit in [byte >> 4, byte & 15] {
                        text.extend(char::from_digit(digit.into(), 16));
                    }
                }
                Uid(text.into())
            }
        }
    }
}

/// Only what would be written the same way again.
fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let text: &[u8; 36] = text.as_bytes().try_into().ok()?;
    let mut digits = [0; 32];
    let mut filled = digits.iter_mut();
    for (i, byte) in text.iter().enumerate() {
        let digit = match (i, byte) {
            (8 | 13 | 18 | 23, b'-') => continue,
            (8 | 13 | 18 | 23, _) => return None,
            (_, b'0'..=b'9') => byte - b'0',
            (_, b'a'..=b'f') => byte - b'a' + 10,
            _ => return None,
        };
        *filled.next()? = digit;
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Some(bytes)
}

impl Addresses {
    fn of(addresses: &BTreeSet<IpAddr>) -> Self {
        match (addresses.len(), addresses.first()) {
            (1, Some(IpAddr::V4(only))) => Self::One(*only),
            (0, _) => Self::Other(None),
            _ => Self::Other(Some(Box::new(addresses.clone()))),
        }
    }

    fn iter(&self) -> impl Iterator<Item = IpAddr> {
        let (one, other) = match self {
            Self::One(one) => (Some(IpAddr::V4(*one)), None),
            Self::Other(other) => (None, other.as_deref()),
        };
        one.into_iter().chain(other.into_iter().flatten().copied())
    }

    fn is(&self, addresses: &BTreeSet<IpAddr>) -> bool {
        match self {
            Self::One(one) => addresses.len() == 1 && addresses.contains(&IpAddr::V4(*one)),
            Self::Other(None) => addresses.is_empty(),
            Self::Other(Some(own)) => **own == *addresses,
        }
    }
}
