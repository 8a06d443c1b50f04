//! nftables.

use std::future::Future;

use super::{Backend, Done, Error, ToolError};
use crate::{
    Ruleset,
    nft::{Listing, Objects, Observed, Owned, Script, Tables, Verdict, diff, lower, read},
};

/// The tool.
pub trait Nft: Send {
    /// `nft -n list table TABLE`; `None`: there is none.
    fn list(
        &mut self,
        table: &str,
    ) -> impl Future<Output = Result<Option<String>, ToolError>> + Send;
    /// `nft -f` with this input.
    fn run(&mut self, script: &str) -> impl Future<Output = Result<(), ToolError>> + Send;
}

/// Rules of one owner in two tables of nftables. Every sync is one transaction: the kernel holds
/// the old rules or the new ones.
#[derive(Debug)]
pub struct Nftables<T> {
    owned: Owned,
    tool: T,
    /// What is in the kernel if nobody else touched it; `None`: read back first.
    applied: Option<Tables>,
}

impl<T: Nft> Nftables<T> {
    /// Nothing is read or written yet.
    #[must_use]
    pub fn new(owned: Owned, tool: T) -> Self {
        Self {
            owned,
            tool,
            applied: None,
        }
    }

    /// The tool, for tests.
    pub fn tool_mut(&mut self) -> &mut T {
        &mut self.tool
    }

    /// What of ours is in the kernel now: the two tables, `None` where there is none.
    ///
    /// # Errors
    /// A table cannot be listed.
    pub async fn read(&mut self) -> Result<[Option<Listing>; 2], Error> {
        let [inet, bridge] = self.owned.tables();
        Ok([self.listing(&inet).await?, self.listing(&bridge).await?])
    }

    async fn listing(&mut self, table: &str) -> Result<Option<Listing>, ToolError> {
        let Some(text) = self.tool.list(table).await? else {
            return Ok(None);
        };
        // What cannot be read is written anew as a whole.
        let unreadable = Listing {
            odd: true,
            ..Listing::default()
        };
        Ok(Some(read(&text).unwrap_or(unreadable)))
    }

    async fn apply(&mut self, observed: Observed, wanted: Tables) -> Result<Done, Error> {
        let Script { text, rules } = diff(&self.owned, &observed, &wanted);
        if !text.is_empty() {
            self.tool.run(&text).await?;
        }
        self.applied = Some(wanted);
        Ok(Done {
            steps: usize::from(!text.is_empty()),
            rules,
            plan: if text.is_empty() {
                text
            } else {
                format!("# nft -f -\n{text}")
            },
            read_back: false,
        })
    }
}

impl<T: Nft> Backend for Nftables<T> {
    fn name(&self) -> &'static str {
        "nftables"
    }

    async fn sync(&mut self, desired: &Ruleset) -> Result<Done, Error> {
        // Taken, so that a failure (or a call that is dropped half-way) leaves nothing remembered.
        match self.applied.take() {
            Some(applied) => {
                let wanted = lower(desired)?;
                self.apply(Observed::Written(applied), wanted).await
            }
            None => self.verify(desired).await,
        }
    }

    async fn verify(&mut self, desired: &Ruleset) -> Result<Done, Error> {
        self.applied = None;
        let wanted = lower(desired)?;
        let [inet, bridge] = self.read().await?;
        let done = self
            .apply(Observed::Listed { inet, bridge }, wanted)
            .await?;
        Ok(Done {
            read_back: true,
            ..done
        })
    }

    async fn in_force(&mut self, desired: &Ruleset) -> Result<bool, Error> {
        let wanted = lower(desired)?;
        let [inet, bridge] = self.read().await?;
        Ok(judged(&wanted.inet, inet.as_ref()) && judged(&wanted.bridge, bridge.as_ref()))
    }

    #[cfg(feature = "trace")]
    async fn trace(
        &mut self,
        desired: &Ruleset,
        packet: &crate::trace::Packet,
        passes: &[crate::trace::Pass],
    ) -> Result<super::Traced, Error> {
        let wanted = lower(desired)?;
        let mut held = Tables::default();
        let mut readable = true;
        let mut drift = Vec::new();
        let [inet, bridge] = self.owned.tables();
        for (name, wanted, held) in [
            (&inet, &wanted.inet, &mut held.inet),
            (&bridge, &wanted.bridge, &mut held.bridge),
        ] {
            match self.listing(name).await? {
                Some(listing) => {
                    drift.extend(listing.differences(name, wanted));
                    match listing.objects(wanted) {
                        Some(objects) => *held = objects,
                        None => readable = false,
                    }
                }
                None if wanted.is_empty() => {}
                None => drift.push(format!("table {name} is missing")),
            }
        }
        if !readable {
            return Ok(super::Traced {
                drift,
                ..super::Traced::default()
            });
        }
        let outcome = crate::trace::trace_nft(&held, packet, passes)
            .map_err(|why| ToolError::untraceable(self.name(), &why))?;
        Ok(super::Traced {
            dropped: Some(outcome.dropped),
            path: outcome.path,
            drift,
        })
    }
}

/// Does the table stand at every hook at which it is wanted, and do its base chains lead into chains
/// that hold something?
fn judged(wanted: &Objects, seen: Option<&Listing>) -> bool {
    let seen = |name: &str| seen.and_then(|listing| listing.chains.get(name));
    let filled = |name: &str| seen(name).is_some_and(|chain| !chain.rules.is_empty());
    let mut bases = wanted.chains.iter().filter(|(_, c)| c.base.is_some());
    bases.all(|(name, chain)| {
        let mut ways = chain.rules.iter().filter_map(|rule| match &rule.verdict {
            Verdict::Go(go) => Some(go.chain.as_str()),
            Verdict::Drop
            | Verdict::Return
            | Verdict::Map { .. }
            | Verdict::SetMark { .. }
            | Verdict::MarkByDevice { .. }
            | Verdict::Nflog { .. } => None,
        });
        let stands = seen(name).is_some_and(|seen| seen.base.is_some());
        stands && (chain.rules.is_empty() || filled(name)) && ways.all(filled)
    })
}

/// What the backend would write into a kernel that holds nothing.
///
/// # Errors
/// [`Error::Invalid`].
pub fn nft_text(owned: &Owned, desired: &Ruleset) -> Result<String, Error> {
    let nothing = Observed::Written(Tables::default());
    Ok(diff(owned, &nothing, &lower(desired)?).text)
}

#[cfg(feature = "fake")]
impl Nft for crate::fake::FakeNft {
    async fn list(&mut self, table: &str) -> Result<Option<String>, ToolError> {
        Ok(Self::list(self, table))
    }

    async fn run(&mut self, script: &str) -> Result<(), ToolError> {
        Self::run(self, script)
            .map_err(|message| ToolError::from_output("nft -f -", message, script))
    }
}

#[cfg(test)]
mod tests;
