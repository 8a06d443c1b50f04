//! `table bridge weft`: as a whole through `nft`, element by element through netlink.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use weft_fabric::{Change, Delta, PortRules, TABLE, TABLE_KEY};
use weft_netfilter::{
    exec::NfSocket,
    nfnetlink::{ElementChange, Transaction},
};

use super::listing::{Before, Listing, Look};
use crate::exec::{self, ExecError};

/// The table as we last wrote it.
#[derive(Debug, Default)]
pub struct PortTable {
    written: Option<Written>,
    /// For elements; `None`: `nft` writes them.
    socket: Option<NfSocket>,
}

#[derive(Debug)]
struct Written {
    rules: PortRules,
    listing: Listing,
}

impl PortTable {
    /// For the network namespace of the calling thread. Without `netlink` everything goes through
    /// `nft`.
    #[must_use]
    pub fn new(netlink: bool) -> Self {
        let open = || {
            NfSocket::open()
                .inspect_err(|error| tracing::info!(%error, "Port rules are written by nft alone"))
                .ok()
        };
        Self {
            written: None,
            socket: netlink.then(open).flatten(),
        }
    }

    /// The kernel's name for the socket that changes elements: events tell by it whose they are.
    #[must_use]
    pub fn netlink_port(&self) -> Option<u32> {
        self.socket.as_ref().map(NfSocket::port)
    }

    /// Makes the table hold `rules`: by a delta if we know what it holds, else as a whole. Each is
    /// one transaction. Returns what was done.
    ///
    /// # Errors
    /// `nft` failed; the table is as it was, and the next call writes it as a whole.
    pub async fn apply(
        &mut self,
        rules: &PortRules,
        verify: bool,
    ) -> Result<Option<String>, ExecError> {
        if verify {
            self.check().await;
        }
        let delta = match &self.written {
            None => Delta::Table,
            Some(written) => match rules.delta(&written.rules) {
                None => return Ok(None),
                Some(delta) => delta,
            },
        };
        // Until the kernel took it, we do not know what is there.
        let last = self.written.take();
        let before = Before::now();
        let whole = self.write(rules, &delta).await?;
        let listing = match last.filter(|_| !whole) {
            Some(last) => last.listing.changed(before),
            None => Listing::written(TABLE, before).await,
        };
        self.written = Some(Written {
            rules: rules.clone(),
            listing,
        });
        let verb = if whole { "write" } else { "change" };
        let ports = rules.ports.len();
        Ok(Some(format!("{verb} table {TABLE} ({ports} ports)")))
    }

    /// Writes a delta, or everything when that fails. Was it everything?
    async fn write(&self, rules: &PortRules, delta: &Delta) -> Result<bool, ExecError> {
        if let Delta::Elements(changes) = delta {
            if self.change(changes) {
                return Ok(false);
            }
            match exec::run("nft", &["-f", "-"], &delta.text(rules)).await {
                Ok(_) => return Ok(false),
                Err(error) => {
                    tracing::warn!(%error, "Port rules differ from what was written, writing all");
                }
            }
        }
        exec::run("nft", &["-f", "-"], &rules.render()).await?;
        Ok(true)
    }

    /// Changes elements without `nft`. A pod's delta takes `nft` ten milliseconds (its libraries and
    /// a dump of the ruleset), and the kernel a fraction of one.
    fn change(&self, changes: &[Change]) -> bool {
        let changes: Vec<ElementChange> = changes.iter().map(Change::encode).collect();
        let (family, table) = TABLE_KEY;
        let transaction = Transaction::new(family, table, &changes);
        let Some((socket, transaction)) = self.socket.as_ref().zip(transaction) else {
            return false;
        };
        match socket.commit(&transaction) {
            Ok(()) => true,
            Err(error) => {
                tracing::info!(%error, "A change of port rules was refused, trying nft");
                false
            }
        }
    }

    /// Forgets what is believed if the kernel does not certainly hold it.
    async fn check(&mut self) {
        let Some(written) = &mut self.written else {
            return;
        };
        match written.listing.look(TABLE).await {
            Look::Right => return,
            Look::Changed => {
                tracing::warn!(
                    table = TABLE,
                    "Port rules were changed by somebody, writing all"
                );
            }
            Look::Unsure => {
                tracing::debug!(
                    table = TABLE,
                    "Others wrote rules since the last port changed, writing all"
                );
            }
        }
        self.written = None;
    }
}

/// Addresses that the kernel's table lets each port use, whoever wrote it: after a loss of the
/// address log the kernel still knows. Empty if there is no table.
pub async fn listed_addresses() -> BTreeMap<String, BTreeSet<IpAddr>> {
    let mut found: BTreeMap<String, BTreeSet<IpAddr>> = BTreeMap::new();
    for set in ["v4", "v6"] {
        let listing = exec::run("nft", &["list", "set", "bridge", "weft", set], "").await;
        for (link, address) in listing.iter().flat_map(|text| elements(text)) {
            found.entry(link).or_default().insert(address);
        }
    }
    found
}

/// Elements `"link" . mac . address` of a listed set. The link-local address, which follows from the
/// MAC, is left out.
fn elements(listing: &str) -> impl Iterator<Item = (String, IpAddr)> + '_ {
    listing.split(['{', '}', ',']).filter_map(|element| {
        let mut parts = element.split(" . ").map(str::trim);
        let link = parts.next()?.strip_prefix('"')?.strip_suffix('"')?;
        let address: IpAddr = parts.nth(1)?.parse().ok()?;
        let local = matches!(address, IpAddr::V6(a) if a.is_unicast_link_local());
        (!local).then(|| (link.to_owned(), address))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listed_set_tells_the_addresses_of_each_port() {
        let listing = "table bridge weft {\n\tset v6 {\n\t\ttypeof iifname . ether saddr . ip6 saddr\n\
                       \t\telements = { \"vethwepl0000001\" . 0a:58:0a:20:00:05 . fe80::858:aff:fe20:5,\n\
                       \t\t\t     \"vethwepl0000001\" . 0a:58:0a:20:00:05 . fd00:10::5 }\n\t}\n}\n";
        let found: Vec<_> = elements(listing).collect();
        assert_eq!(
            found,
            [("vethwepl0000001".into(), "fd00:10::5".parse().unwrap())]
        );
    }
}
