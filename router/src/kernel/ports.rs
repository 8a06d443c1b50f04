//! `table bridge weft`, through `nft`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use weft_fabric::{PortRules, TABLE};

use crate::exec::{self, ExecError};

/// The table as we last wrote it.
#[derive(Debug, Default)]
pub struct PortTable {
    written: Option<Written>,
}

#[derive(Debug)]
struct Written {
    rules: PortRules,
    /// How `nft` lists it; anything else means that somebody changed it.
    listing: Option<String>,
}

impl PortTable {
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
        let (text, whole) = match &self.written {
            None => (Some(rules.render()), true),
            Some(written) => (rules.delta(&written.rules), false),
        };
        let Some(text) = text else {
            return Ok(None);
        };
        // Until the kernel took it, we do not know what is there.
        let known = self.written.take();
        let run = exec::run("nft", &["-f", "-"], &text).await;
        if let Err(delta_error) = run {
            if whole {
                return Err(delta_error);
            }
            tracing::warn!(error = %delta_error, "Port rules differ from what was written, writing all");
            drop(known);
            exec::run("nft", &["-f", "-"], &rules.render()).await?;
        }
        self.written = Some(Written {
            rules: rules.clone(),
            listing: None,
        });
        Ok(Some(if whole {
            format!("write table {TABLE} ({} ports)", rules.ports.len())
        } else {
            format!("change table {TABLE} ({} ports)", rules.ports.len())
        }))
    }

    /// Forgets what is believed if the kernel lists the table in another way than the first time
    /// after it was written.
    async fn check(&mut self) {
        let Some(written) = &mut self.written else {
            return;
        };
        match (list().await, &written.listing) {
            (Ok(listing), None) => written.listing = Some(listing),
            (Ok(listing), Some(expected)) if listing == *expected => {}
            (Ok(_) | Err(_), _) => {
                tracing::warn!(
                    table = TABLE,
                    "Port rules were changed by somebody, writing all"
                );
                self.written = None;
            }
        }
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

async fn list() -> Result<String, ExecError> {
    exec::run("nft", &["list", "table", "bridge", "weft"], "").await
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
